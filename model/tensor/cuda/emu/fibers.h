// Running a kernel: one block after the other, a fiber a thread.
#pragma once
#include "cuemu.h"
#undef threadIdx
#undef blockIdx
#undef blockDim
#undef gridDim
#undef warpSize

namespace cuemu {

constexpr unsigned maxThreads = 1024;     // of a block
constexpr size_t maxShared = 227 * 1024;  // bytes of dynamic shared memory, as on compute capability 9.0

// A stack on which threads run: it runs one to its end, then the next.
struct Stack {
    void *sp;  // while another runs
    char *base;
    size_t size;
    void *fake;  // AddressSanitizer's
};
constexpr size_t stackSize =
#ifdef CUEMU_ASAN
    512 << 10;
#else
    128 << 10;
#endif

struct Launch {
    const Kernel *kernel;
    dim3 grid, block;
    size_t shared;
    void **args;
};
// run executes the kernel and says how it ended; if badly, a report is on stderr. One call at a time.
enum Outcome { DONE, ILLEGAL, MISALIGNED };
Outcome run(const Launch &l);

// where names the thread that runs, for reports: "kernel k, block (x,y,z), thread (x,y,z)". Empty outside run.
const char *where();
const Stack *running();  // the stack of the thread that runs; nullptr outside run
// abandon ends run from within a fiber, which never goes on.
[[noreturn]] void abandon();
void spoil();  // run goes on, and says that it failed: ILLEGAL
// catchFaults turns a fault in a kernel into a report and abandon; other faults go where they went before.
void catchFaults();
void *landing();  // the stack pointer that abandon goes on with
// about describes an address, for reports: ", 8 bytes behind an allocation of 64 on GPU 0". The driver sets it.
extern const char *(*about)(const void *p);

// Static shared memory of all kernels, and dynamic shared memory; both are filled with ones (NaN) at each block.
extern "C" char cuemu_shared_begin[], cuemu_shared_end[];

}  // namespace cuemu
