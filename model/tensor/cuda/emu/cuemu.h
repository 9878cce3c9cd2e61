// CUDA for g++: what a kernel sees when it is compiled for the emulator. One fiber runs a CUDA thread (fibers.cc).
//
// __global__ and __shared__ are not defined here: build.sh compiles the preprocessed text, in which it replaces them.
// Sources are compiled with -ffp-contract=off, as for the GPU with -fmad=false: a*b+c rounds twice, fmaf once.
#pragma once
#include <limits.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <limits>
#include <type_traits>
#include <utility>

#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(n) __attribute__((aligned(n)))

#include "vectors.h"

#pragma GCC visibility push(hidden)  // no way through tables of symbols
namespace cuemu {

// Where a barrier or collective stands in the source, so that a report can say so.
struct Site {
    const char *what, *file;
    int line;
};

struct Fiber;  // one CUDA thread; what kernels read of it comes first
struct Thread {
    uint3 tid;
    unsigned lane;
};
extern Thread *cur;
extern uint3 bIdx, bDim, gDim;
extern unsigned otherBits;  // LIFT_EMU_BITS

enum Vote { SYNC, AND, OR, COUNT };
int blockBarrier(Site at, Vote vote, int p);
void warpBarrier(Site at, unsigned mask);
// warpSwap gives the value of lane src, which is part of mask, else all ones; all lanes of the mask call.
uint64_t warpSwap(Site at, unsigned mask, uint64_t v, int src);
// warpVote gives the lanes of the mask whose p is set.
unsigned warpVote(Site at, unsigned mask, bool p);
[[noreturn]] void trap(Site at);
[[noreturn]] void misaligned(const void *p, size_t bytes, Site at);
// aligned ends the kernel, as the GPU does, where p is no multiple of so many bytes. Loads and stores are checked
// without it (-fsanitize=alignment); it is for instructions that are emulated byte by byte.
static inline void aligned(const void *p, size_t bytes, const char *file = __builtin_FILE(),
                           int line = __builtin_LINE()) {
    if ((uintptr_t)p % bytes) misaligned(p, bytes, {"", file, line});
}

// warpExchange is what emulated tensor-core instructions stand on: each of the 32 lanes publishes so many bytes (at
// most 256, the same number in all lanes) and gets those of all: lane l's are at l * bytes. They stay until the
// caller's next call.
const void *warpExchange(const void *mine, size_t bytes, Site at);
template <class T>
static inline const T *warpExchange(const T &mine, const char *file = __builtin_FILE(), int line = __builtin_LINE()) {
    static_assert(std::is_trivially_copyable<T>::value && sizeof(T) <= 256, "");
    return (const T *)warpExchange(&mine, sizeof mine, Site{"a warp's exchange", file, line});
}
static inline const void *warpExchange(const void *mine, size_t bytes, const char *file = __builtin_FILE(),
                                       int line = __builtin_LINE()) {
    return warpExchange(mine, bytes, Site{"a warp's exchange", file, line});
}

// A kernel as the driver sees it: call takes one pointer an argument.
struct Kernel {
    const char *name;
    void (*call)(void **args);
    unsigned params;
    const size_t *sizes;  // bytes of each argument
    unsigned maxThreads;  // of __launch_bounds__
    Kernel *next;
    mutable unsigned launches = 0;
};
void add(Kernel *k);  // to the table

template <class... A, size_t... I>
static inline void unpack(void (*f)(A...), void **p, std::index_sequence<I...>) {
    f(*reinterpret_cast<std::remove_const_t<A> *>(p[I])...);
}
template <class... A>
static inline void unpack(void (*f)(A...), void **p) {
    unpack(f, p, std::index_sequence_for<A...>{});
}
template <auto F>
void call(void **p) {
    unpack(F, p);
}
template <class... A>
constexpr unsigned count(void (*)(A...)) {
    return sizeof...(A);
}
template <class F>
struct Sizes;
template <class... A>
struct Sizes<void (*)(A...)> {
    static constexpr size_t of[sizeof...(A) + 1] = {sizeof(A)..., 0};
};
constexpr unsigned bounds(unsigned threads = 1024, unsigned = 0, unsigned = 0) {
    return threads;
}

}  // namespace cuemu

#pragma GCC visibility pop

// One row of the table; build.sh puts it behind each source.
#define CUEMU_KERNEL(name, ...)                                      \
    __attribute__((constructor)) static void cuemu_add_##name() {    \
        static cuemu::Kernel k = {#name,                             \
                                  &cuemu::call<&name>,               \
                                  cuemu::count(&name),               \
                                  cuemu::Sizes<decltype(&name)>::of, \
                                  cuemu::bounds(__VA_ARGS__),        \
                                  nullptr};                          \
        cuemu::add(&k);                                              \
    }

#define threadIdx (cuemu::cur->tid)
#define blockIdx (cuemu::bIdx)
#define blockDim (cuemu::bDim)
#define gridDim (cuemu::gDim)
#define warpSize 32

// The caller's place, as defaults of the functions below.
#define CUEMU_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

static inline void __syncthreads(CUEMU_HERE) {
    cuemu::blockBarrier({"__syncthreads", file, line}, cuemu::SYNC, 0);
}
static inline int __syncthreads_and(int p, CUEMU_HERE) {
    return cuemu::blockBarrier({"__syncthreads_and", file, line}, cuemu::AND, p);
}
static inline int __syncthreads_or(int p, CUEMU_HERE) {
    return cuemu::blockBarrier({"__syncthreads_or", file, line}, cuemu::OR, p);
}
static inline int __syncthreads_count(int p, CUEMU_HERE) {
    return cuemu::blockBarrier({"__syncthreads_count", file, line}, cuemu::COUNT, p);
}
static inline void __syncwarp(unsigned mask = 0xffffffffu, CUEMU_HERE) {
    cuemu::warpBarrier({"__syncwarp", file, line}, mask);
}

namespace cuemu {
template <class T>
static inline T shuffle(Site at, unsigned mask, T v, int src) {
    static_assert(sizeof(T) <= 8, "a shuffle takes up to 8 bytes");
    uint64_t u = 0;
    memcpy(&u, &v, sizeof v);
    u = warpSwap(at, mask, u, src);
    memcpy(&v, &u, sizeof v);
    return v;
}
}  // namespace cuemu

template <class T>
static inline T __shfl_sync(unsigned mask, T v, int src, int width = 32, CUEMU_HERE) {
    const int lane = cuemu::cur->lane;
    return cuemu::shuffle({"__shfl_sync", file, line}, mask, v, (lane & ~(width - 1)) | (src & (width - 1)));
}
template <class T>
static inline T __shfl_xor_sync(unsigned mask, T v, int o, int width = 32, CUEMU_HERE) {
    const int lane = cuemu::cur->lane, s = lane ^ o;
    return cuemu::shuffle({"__shfl_xor_sync", file, line}, mask, v, s < (lane & ~(width - 1)) + width ? s : lane);
}
template <class T>
static inline T __shfl_down_sync(unsigned mask, T v, unsigned o, int width = 32, CUEMU_HERE) {
    const int lane = cuemu::cur->lane, s = lane + (int)o;
    return cuemu::shuffle({"__shfl_down_sync", file, line}, mask, v, s < (lane & ~(width - 1)) + width ? s : lane);
}
template <class T>
static inline T __shfl_up_sync(unsigned mask, T v, unsigned o, int width = 32, CUEMU_HERE) {
    const int lane = cuemu::cur->lane, s = lane - (int)o;
    return cuemu::shuffle({"__shfl_up_sync", file, line}, mask, v, s >= (lane & ~(width - 1)) ? s : lane);
}
static inline unsigned __ballot_sync(unsigned mask, int p, CUEMU_HERE) {
    return cuemu::warpVote({"__ballot_sync", file, line}, mask, p);
}
static inline int __any_sync(unsigned mask, int p, CUEMU_HERE) {
    return cuemu::warpVote({"__any_sync", file, line}, mask, p) != 0;
}
static inline int __all_sync(unsigned mask, int p, CUEMU_HERE) {
    return cuemu::warpVote({"__all_sync", file, line}, mask, !p) == 0;
}
[[noreturn]] static inline void __trap(CUEMU_HERE) {
    cuemu::trap({"__trap", file, line});
}
static inline void __threadfence() {}
static inline void __threadfence_block() {}
static inline void __threadfence_system() {}

#include "devicemath.h"
