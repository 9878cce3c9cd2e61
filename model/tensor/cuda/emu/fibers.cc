// A block's threads take turns on one OS thread. Which one goes on when another waits or ends: first those of its own
// warp, so that a warp runs ahead of the others as far as barriers let it and a missing barrier gives a wrong result;
// blocks of odd number take them from the last to the first, and all that the other way round in every second launch of
// a kernel, so that neither order hides one.
//
// Threads start lazily: one that ends leaves its stack to the next that has not begun. A kernel without barriers costs
// a call a thread.
#include "fibers.h"
#include "switch.h"
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>

#ifdef CUEMU_ASAN
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// Dynamic shared memory has one name in all kernels.
constexpr size_t slack = 256;  // behind it, must keep its ones
alignas(128) char smem[cuemu::maxShared + slack];

namespace cuemu {

Thread *cur;
uint3 bIdx, bDim, gDim;
unsigned otherBits;

// What a waiting thread waits for.
enum Op { BLOCK, WARP, SWAP, VOTE, EXCHANGE };

struct Fiber : Thread {
    unsigned warp;
    Stack *stack;  // nullptr: not begun, or ended
    Op op;
    Site at;
    unsigned mask;   // of the lanes it waits for
    uint64_t value;  // published to them, then the result
    int src;
};

// Lanes of a warp as bits. A lane that is neither ready nor waiting runs or has ended.
struct Warp {
    unsigned live, ready, blocked, waiting;  // blocked: at a barrier of the block, waiting: at one of the warp
    unsigned parity;                         // of exchanges: a lane may be one ahead of another
    char slots[2][32 * 256];
};

static Fiber fibers[maxThreads];
static Warp warps[maxThreads / 32];
static unsigned threads, readyWarps;  // of the block; warps with a ready lane
static unsigned live, arrived;        // threads that have not ended; at the barrier of the block
static Site barrier;                  // where the first of them arrived
static int votes, voted;              // those with p set; the result of the barrier before
static bool backward, turned;         // the block's order; the launch's
static Launch launch;
static Outcome outcome;
static Stack own, *stacks[maxThreads], *idle[maxThreads];
static Stack *stack, *previous;  // that runs; that ran before
static unsigned made, idles;

static Fiber *self() {
    return static_cast<Fiber *>(cur);
}
static unsigned lanes(unsigned warp) {
    return threads - warp * 32 >= 32 ? ~0u : (1u << (threads - warp * 32)) - 1;
}

// fill sets bytes to ones; a memset would be checked by AddressSanitizer, and red zones lie within.
static void fill(char *p, size_t n) {
#if defined(__x86_64__)
    asm volatile("rep stosb" : "+D"(p), "+c"(n) : "a"(0xff) : "memory");
#else
    for (volatile char *q = p; n--;) *q++ = (char)0xff;
#endif
}

// landed is the first thing done on a stack that was switched to.
static void landed() {
#ifdef CUEMU_ASAN
    const void *base;
    size_t size;
    __sanitizer_finish_switch_fiber(stack->fake, &base, &size);
    if (previous == &own) own.base = (char *)base, own.size = size;
#endif
}
static void switchTo(Stack *to) {
    previous = stack;
    stack = to;
#ifdef CUEMU_ASAN
    __sanitizer_start_switch_fiber(&previous->fake, to->base, to->size);
#endif
    cuemu_switch(&previous->sp, to->sp);
    landed();
}

// report says what went wrong where, on stderr, and ends the kernel.
[[noreturn]] __attribute__((format(printf, 1, 2))) static void report(const char *format, ...) {
    char text[512];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    fprintf(stderr, "cuemu: %s\n  in %s\n", text, where());
    abandon();
}

void spoil() {
    if (outcome == DONE) outcome = ILLEGAL;
}
void abandon() {
    spoil();
    previous = stack, stack = &own;
    void *dead;
#ifdef CUEMU_ASAN
    __sanitizer_start_switch_fiber(nullptr, own.base, own.size);
#endif
    cuemu_switch(&dead, own.sp);
    __builtin_unreachable();
}

static char *place(char *to, size_t n, uint3 v) {
    snprintf(to, n, "(%u,%u,%u)", v.x, v.y, v.z);
    return to;
}
const char *where() {
    static char text[256];
    char b[48], t[48];
    if (!cur) return "";
    snprintf(text, sizeof text, "kernel %s, block %s, thread %s", launch.kernel->name, place(b, sizeof b, bIdx),
             place(t, sizeof t, cur->tid));
    return text;
}
const Stack *running() {
    return cur ? stack : nullptr;
}
void *landing() {
    return own.sp;
}

// pick takes a lane out of the set: the next after one, around.
static unsigned pick(unsigned set, unsigned after) {
    if (backward) {
        const unsigned below = set & ((1u << after) - 1);
        return 31 - __builtin_clz(below ? below : set);
    }
    const unsigned above = after < 31 ? set & ~0u << (after + 1) : 0;
    return __builtin_ctz(above ? above : set);
}

// next is the thread that runs after f; nullptr if all wait or have ended.
static Fiber *next(const Fiber *f) {
    if (!readyWarps) return nullptr;
    unsigned w = f->warp, lane = f->lane;
    if (!warps[w].ready) w = pick(readyWarps, w), lane = backward ? 0 : 31;
    lane = pick(warps[w].ready, lane);
    if (!(warps[w].ready &= ~(1u << lane))) readyWarps &= ~(1u << w);
    return &fibers[w * 32 + lane];
}
static void wake(unsigned w, unsigned set) {
    warps[w].ready |= set;
    if (warps[w].ready) readyWarps |= 1u << w;
}

// deadlock reports threads that wait for others which never come: who, where, for whom.
[[noreturn]] static void deadlock() {
    fprintf(stderr, "cuemu: divergent barrier: every thread waits; kernel %s, block (%u,%u,%u):\n", launch.kernel->name,
            bIdx.x, bIdx.y, bIdx.z);
    unsigned ended = 0;
    for (unsigned i = 0; i < threads; i++) ended += !fibers[i].stack;
    for (unsigned i = 0, j; i < threads; i = j) {
        const Fiber &f = fibers[i];
        for (j = i + 1; j < threads; j++) {
            const Fiber &g = fibers[j];
            if (!g.stack != !f.stack || (f.stack && (g.op != f.op || g.mask != f.mask || g.at.line != f.at.line)))
                break;
        }
        if (!f.stack) continue;
        fprintf(stderr, "  threads %u to %u wait at %s, %s:%d", i, j - 1, f.at.what, f.at.file, f.at.line);
        if (f.op != BLOCK) fprintf(stderr, ", mask %08x", f.mask);
        fprintf(stderr, "\n");
    }
    if (ended) fprintf(stderr, "  %u of %u threads have ended\n", ended, threads);
    abandon();
}

static void runThreads();

// go makes t the thread that runs, where another waits.
static void go(Fiber *t) {
    cur = t;
    if (!t->stack) {
        if (!idles) {
            // The tops of stacks lie differently: else all threads' frames would fall into the same sets of the cache.
            Stack *s = stacks[made] = new Stack();
            s->size = stackSize;
            s->base = (char *)mmap(nullptr, stackSize, PROT_READ | PROT_WRITE,
                                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            if (s->base == MAP_FAILED) report("out of memory for the stacks of threads");
            mprotect(s->base, 4096, PROT_NONE);
            s->sp = newStack(s->base + stackSize - made % 61 * 192, runThreads);
            idle[idles++] = s;
            made++;
        }
        t->stack = idle[--idles];
    }
    switchTo(t->stack);
}
static void yield() {
    Fiber *t = next(self());
    if (!t) deadlock();
    go(t);
}

static void releaseBlock() {
    arrived = 0;
    voted = votes;
    votes = 0;
    for (unsigned w = 0; w * 32 < threads; w++) wake(w, warps[w].blocked), warps[w].blocked = 0;
}

// gather completes the collective that lane f of a warp takes part in, if all of its mask have come.
static bool gather(Warp &w, Fiber *f) {
    const unsigned want = f->mask & w.live;
    if (want & ~w.waiting) return false;
    Fiber *lane = f - f->lane;
    uint64_t values[32];
    unsigned ballot = 0;
    for (unsigned set = want; set; set &= set - 1) {
        const Fiber &g = lane[__builtin_ctz(set)];
        if (g.mask != f->mask) return false;
        if (g.op != f->op || (f->op != WARP && g.at.line != f->at.line) || (f->op == EXCHANGE && g.value != f->value))
            report("divergent warp: lane %u is at %s, %s:%d, lane %u at %s, %s:%d", g.lane, g.at.what, g.at.file,
                   g.at.line, f->lane, f->at.what, f->at.file, f->at.line);
        values[g.lane] = g.value;
        if (g.value) ballot |= 1u << g.lane;
    }
    if (f->op == SWAP || f->op == VOTE)
        for (unsigned set = want; set; set &= set - 1) {
            Fiber &g = lane[__builtin_ctz(set)];
            g.value = f->op == VOTE ? ballot : (unsigned)g.src < 32 && want >> g.src & 1 ? values[g.src] : ~(uint64_t)0;
        }
    if (f->op == EXCHANGE) {
        for (unsigned l = 0; l < 32; l++)
            if (!(want >> l & 1)) memset(w.slots[w.parity] + l * f->value, 0xff, f->value);
        w.parity ^= 1;
    }
    w.waiting &= ~want;
    wake(f->warp, want);
    return true;
}

static uint64_t collect(Site at, Op op, unsigned mask, uint64_t value, int src) {
    Fiber *f = self();
    f->at = at, f->op = op, f->mask = mask, f->value = value, f->src = src;
    Warp &w = warps[f->warp];
    const unsigned bit = 1u << f->lane;
    if (!(mask & bit)) report("%s, %s:%d: lane %u is not in its mask %08x", at.what, at.file, at.line, f->lane, mask);
    w.waiting |= bit;
    if (gather(w, f)) {
        if (!(w.ready &= ~bit)) readyWarps &= ~(1u << f->warp);  // this one goes on at once
    } else {
        yield();
    }
    return f->value;
}
void warpBarrier(Site at, unsigned mask) {
    collect(at, WARP, mask, 0, 0);
}
uint64_t warpSwap(Site at, unsigned mask, uint64_t v, int src) {
    return collect(at, SWAP, mask, v, src);
}
unsigned warpVote(Site at, unsigned mask, bool p) {
    return (unsigned)collect(at, VOTE, mask, p, 0);
}
const void *warpExchange(const void *mine, size_t bytes, Site at) {
    Warp &w = warps[self()->warp];
    if (bytes > 256) report("%s, %s:%d: %zu bytes a lane; the most is 256", at.what, at.file, at.line, bytes);
    char *slots = w.slots[w.parity];
    memcpy(slots + self()->lane * bytes, mine, bytes);
    collect(at, EXCHANGE, ~0u, bytes, 0);
    return slots;
}

int blockBarrier(Site at, Vote vote, int p) {
    Fiber *f = self();
    f->at = at, f->op = BLOCK;
    if (arrived && (at.line != barrier.line || strcmp(at.file, barrier.file)))
        report("divergent barrier: %s, %s:%d, where others of the block wait at %s, %s:%d", at.what, at.file, at.line,
               barrier.what, barrier.file, barrier.line);
    barrier = at;
    votes += vote == AND ? !p : p != 0;
    if (++arrived == live) {
        releaseBlock();
    } else {
        warps[f->warp].blocked |= 1u << f->lane;
        yield();
    }
    return vote == AND ? !voted : vote == OR ? voted != 0 : voted;
}
void trap(Site at) {
    report("%s, %s:%d", at.what, at.file, at.line);
}

void misaligned(const void *p, size_t bytes, Site at) {
    outcome = MISALIGNED;
    report("misaligned address %p: a multiple of %zu is wanted, %s:%d", p, bytes, at.file, at.line);
}

// What -fsanitize=alignment calls before an access that is not aligned as its type is (GCC's and Clang's libubsan).
struct Mismatch {
    const char *file;
    uint32_t line, column;
    const void *type;
    unsigned char logAlignment, kind;
};
extern "C" [[noreturn]] void __ubsan_handle_type_mismatch_v1_abort(const Mismatch *m, const void *p) {
    misaligned(p, (size_t)1 << m->logAlignment, {"", m->file, (int)m->line});
}

static bool beginBlock(bool first) {
    if (!first) {
        for (size_t i = 0; i < slack; i += 8)
            if (*(const volatile int64_t *)(smem + launch.shared + i) != -1)
                report("%zu bytes of dynamic shared memory, written to behind their end", launch.shared);
        if (++bIdx.x == gDim.x) bIdx.x = 0, bIdx.y++;
        if (bIdx.y == gDim.y) bIdx.y = 0, bIdx.z++;
        if (bIdx.z == gDim.z) return false;
    }
    const unsigned n = (threads + 31) / 32;
    for (unsigned w = 0; w < n; w++) {
        warps[w].live = warps[w].ready = lanes(w);
        warps[w].blocked = warps[w].waiting = warps[w].parity = 0;
    }
    readyWarps = n == 32 ? ~0u : (1u << n) - 1;
    live = threads;
    arrived = votes = 0;
    backward = ((bIdx.x + bIdx.y + bIdx.z) & 1) != turned;
    fill(cuemu_shared_begin, cuemu_shared_end - cuemu_shared_begin);
    fill(smem, launch.shared + slack);
    cur = backward ? next(&fibers[0]) : next(&fibers[threads - 1]);
    return true;
}

// end does what the end of the thread that runs brings about: those that wait no longer wait for it.
static void end(Fiber *f) {
    Warp &w = warps[f->warp];
    f->stack = nullptr;
    w.live &= ~(1u << f->lane);
    live--;
    if (arrived && arrived == live) releaseBlock();
    for (unsigned set = w.waiting; set; set &= set - 1) {
        Fiber *g = f - f->lane + __builtin_ctz(set);
        if (g->mask >> f->lane & 1 && w.waiting >> g->lane & 1) gather(w, g);
    }
}

// runThreads is the life of a stack: cur is a thread that has not begun.
static void runThreads() {
    landed();
    for (;;) {
        self()->stack = stack;
        launch.kernel->call(launch.args);
        Fiber *f = self();
        end(f);
        Fiber *t = next(f);
        if (!t && live) deadlock();
        if (!t && beginBlock(false)) t = self();
        if (t && !t->stack) {
            cur = t;
            continue;
        }
        idle[idles++] = stack;
        if (t)
            go(t);
        else
            switchTo(&own);
    }
}

Outcome run(const Launch &l) {
    catchFaults();
    launch = l;
    turned = l.kernel->launches++ & 1;
    gDim = {l.grid.x, l.grid.y, l.grid.z};
    bDim = {l.block.x, l.block.y, l.block.z};
    bIdx = {0, 0, 0};
    threads = l.block.x * l.block.y * l.block.z;
    for (unsigned i = 0; i < threads; i++) {
        Fiber &f = fibers[i];
        f.tid = {i % bDim.x, i / bDim.x % bDim.y, i / bDim.x / bDim.y};
        f.lane = i & 31, f.warp = i >> 5, f.stack = nullptr;
    }
#ifdef CUEMU_ASAN
    __asan_poison_memory_region(smem + l.shared, sizeof smem - l.shared);
#endif
    outcome = DONE;
    stack = &own;
    beginBlock(true);
    go(self());
    cur = nullptr;
    if (outcome != DONE) {  // what the stacks hold is lost
        idles = 0;
        for (unsigned i = 0; i < made; i++) {
#ifdef CUEMU_ASAN
            __asan_unpoison_memory_region(stacks[i]->base, stackSize);
#endif
            stacks[i]->sp = newStack(stacks[i]->base + stackSize - i % 61 * 192, runThreads);
            stacks[i]->fake = nullptr;
            idle[idles++] = stacks[i];
        }
    }
#ifdef CUEMU_ASAN
    __asan_unpoison_memory_region(smem, sizeof smem);
#endif
    return outcome;
}

}  // namespace cuemu
