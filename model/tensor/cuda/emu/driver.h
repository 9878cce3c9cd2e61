// The emulated driver's insides. Every entry point holds one lock for as long as it runs, kernels included.
//
// Streams are lazy: work waits in its stream until something waits for it, and then only what that needs is run. So an
// event that nobody waits for, or a host buffer that is used again too early, gives wrong data here though a GPU might
// get by. LIFT_EMU_SHUFFLE=SEED is the other extreme: at random, pieces run that nothing waits for.
//
// A kernel that hangs, as LIFT_EMU_FAIL may say, stops its context: nothing of it runs any more, a query answers
// NOT_READY, and a call that waits for it sleeps until the process ends.
#pragma once
#include <stddef.h>
#include <stdint.h>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>
#include "fibers.h"

namespace emu {

enum Result {
    HANGS = -1,  // of work that never ends; no caller of the driver gets it
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    NO_BINARY_FOR_GPU = 209,
    PEER_ACCESS_UNSUPPORTED = 217,
    INVALID_PTX = 218,
    UNSUPPORTED_PTX_VERSION = 222,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    LAUNCH_OUT_OF_RESOURCES = 701,
    PEER_ACCESS_ALREADY_ENABLED = 704,
    PEER_ACCESS_NOT_ENABLED = 705,
    MISALIGNED_ADDRESS = 716,
    LAUNCH_FAILED = 719,
    NOT_SUPPORTED = 801,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    CAPTURE_UNMATCHED = 903,
    CAPTURE_UNJOINED = 904,
    CAPTURE_ISOLATION = 905,
    CAPTURE_IMPLICIT = 906,
    CAPTURED_EVENT = 907,
};

struct Context;
struct Graph;
struct Lane;

// A point of a lane's work, for others to wait for.
struct Mark {
    Lane *lane;
    Graph *graph;      // of which it is part, or nullptr
    bool done, asked;  // asked: by a query, which got no for an answer
    double time;       // seconds, when it was passed
};

// One piece of work. It is one of the three.
struct Op {
    std::function<Result()> run;
    std::shared_ptr<Mark> wait;
    std::shared_ptr<Mark> mark;
};

// Work in order.
struct Lane {
    Context *context;
    std::deque<Op> ops;
    size_t next = 0;     // of a graph's lane, which is kept
    uint64_t since = 0;  // when its first pending piece came: a count
    bool idle() const { return next == ops.size(); }
};

struct Stream {
    Lane lane;
    bool blocking;       // with the context's null stream
    bool asked = false;  // as of a mark
    Graph *capture = nullptr;
    Lane *captured = nullptr;  // its lane there
};

struct Event {
    Context *context;
    std::shared_ptr<Mark> mark;  // nullptr: never recorded
};

struct Graph {
    std::deque<Lane> lanes;  // the first is of the stream that the capture began on
    std::vector<std::shared_ptr<Mark>> marks;
    std::vector<Stream *> streams;  // that take part
    int mode;                       // 0: no thread may wait while it is recorded, 1: this one may not, 2: all may
    std::thread::id thread;
    bool active = true, valid = true;
    Graph() = default;
    Graph(const Graph &) = delete;
    ~Graph();
};

struct Device {
    int ordinal;  // in this process
    int number;   // of the machine; CUDA_VISIBLE_DEVICES says which are seen
    size_t total, used = 0;
    Context *primary = nullptr;
    int retained = 0;
};

struct Context {
    Device *device;
    Stream null;
    std::set<Stream *> streams;
    std::set<Context *> peers;  // whose memory it may touch
    Result error = SUCCESS;     // once set, it stays
    bool hangs = false;         // a kernel of it never ends
    std::string failName;       // LIFT_EMU_FAIL: the kernel of which a launch fails
    long failAt = 0;            // how many more launches it is to that one; 0: none fails
    Result failure;             // what becomes of it
};

// A run of device memory.
struct Block {
    uintptr_t at;
    size_t size;
    Context *context;
    void *base;  // of the mapping, most of which always faults
    size_t mapped;
    bool freeing = false;                                // cuMemFreeAsync waits in a stream
    bool cublas = false;                                 // its workspace: nobody else's
    long closing = 1 << 17;                              // so many pages may still be closed behind a call
    enum State { CLOSED, PARTLY, OPEN } state = CLOSED;  // its pages, for who runs in this process
    uintptr_t data() const, end() const;                 // of those pages
};

struct Guard {  // the lock
    Guard();
    ~Guard();
    [[noreturn]] static void forever();  // sleeps, and lets go of the lock: other GPUs go on
};

// device.cc
extern std::deque<Device> devices;
const std::set<Context *> &all();
size_t sharedLimit();        // bytes of shared memory that a block may have, when asked for, by compute capability
Context *current();          // the calling thread's; nullptr if none
Result usable(Context *&c);  // the calling thread's context, or what is wrong with it
// die ends the process: the emulator was asked for what it does not understand.
[[noreturn]] __attribute__((format(printf, 1, 2))) void die(const char *format, ...);

// module.cc
void armFailure(Context *c);  // by LIFT_EMU_FAIL

// stream.cc
// streamOf is the stream of a handle, the null stream of the current context for 0, 1 and 2; nullptr if there is none.
Stream *streamOf(void *handle);
Result enqueue(Stream *s, std::function<Result()> run);
// finish runs all that is pending. It does not return if that never ends.
Result finish(Stream *s);
Result finish(Context *c);  // in all its streams
Result finish(Mark &m);
Result mayWait(Stream *s = nullptr);  // an error if a capture forbids to wait
double now();

// graph.cc
Result runGraph(Graph &g);

// memory.cc
Block *find(const void *p);           // the allocation that p lies in
const char *describe(const void *p);  // for reports: what lies there; "" for the host's
Result allocate(Context *c, size_t n, uintptr_t &at);
Result release(uintptr_t at);
void releaseAll(Context *c);
size_t freeMemory(const Device *d);
// lies reports whether [p, p+n) is memory of that kind, and of one allocation; if not, stderr says what it is.
enum Side { HOST, DEVICE, ANY };
bool lies(const void *p, size_t n, Side side, const char *what);
// touch is lies for work that runs: it opens that memory to it. reach opens what c's kernels may touch, and closes all
// else; unreach closes all.
bool touch(const void *p, size_t n, Side side, const char *what);
void reach(Context *c);
void unreach();
bool intact();  // whether nothing was written between the allocations that are open; if not, stderr says where

// copy.cc
size_t pinnedAround(const void *p, uintptr_t &at);  // the size of the pinned memory that p lies in; 0 if it does not

}  // namespace emu

#define API extern "C" __attribute__((visibility("default"))) int
