// Kernels of the emulator's own tests: right ones, and ones with a mistake that it must find.
#include "lift.cuh"

// y = a x + y; one element a thread.
extern "C" __global__ void axpy(float *y, const float *x, float a, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = __fmaf_rn(a, x[i], y[i]);
}

// y[block] = sum over the block's stretch of x.
extern "C" __global__ void __launch_bounds__(256) sums(float *y, const float *x) {
    const float s = block_sum(x[blockIdx.x * blockDim.x + threadIdx.x]);
    if (threadIdx.x == 0) y[blockIdx.x] = s;
}

// Reverses each block's stretch of x by shared memory of either kind. BARRIER is what is left out in the wrong ones.
template <bool BARRIER, bool DYNAMIC>
__device__ __forceinline__ void reverse(float *y, const float *x) {
    extern __shared__ __align__(16) char smem[];
    __shared__ float fixed[1024];
    float *tile = DYNAMIC ? (float *)smem : fixed;
    const int n = blockDim.x, i = threadIdx.x, at = blockIdx.x * n;
    tile[i] = x[at + i];
    if (BARRIER) __syncthreads();
    y[at + i] = tile[n - 1 - i];
}
extern "C" __global__ void reverse_static(float *y, const float *x) {
    reverse<true, false>(y, x);
}
extern "C" __global__ void reverse_dynamic(float *y, const float *x) {
    reverse<true, true>(y, x);
}
extern "C" __global__ void reverse_static_race(float *y, const float *x) {
    reverse<false, false>(y, x);
}
extern "C" __global__ void reverse_dynamic_race(float *y, const float *x) {
    reverse<false, true>(y, x);
}

// The last warp writes what the first reads: with the barrier taken out, only blocks that run forward show it; and the
// other way round.
template <bool LAST>
__device__ __forceinline__ void hand(float *y) {
    __shared__ float from;
    const int writer = LAST ? blockDim.x - 1 : 0;
    if ((int)threadIdx.x == writer) from = 7.0f;
    const int reader = LAST ? 0 : blockDim.x - 1;
    if ((int)threadIdx.x == reader) y[blockIdx.x] = from;
}
extern "C" __global__ void hand_last_race(float *y) {
    hand<true>(y);
}
extern "C" __global__ void hand_first_race(float *y) {
    hand<false>(y);
}

// One thread reads shared memory that nobody wrote in its block, and writes some for the block after.
extern "C" __global__ void stale(float *y) {
    extern __shared__ __align__(16) char smem[];
    __shared__ float fixed[4];
    if (threadIdx.x) return;
    y[2 * blockIdx.x] = fixed[1];
    y[2 * blockIdx.x + 1] = ((float *)smem)[1];
    fixed[1] = ((float *)smem)[1] = 1.0f;
}

// Half of the threads wait at a barrier that the others pass by into another.
extern "C" __global__ void diverge_block(float *y) {
    if (threadIdx.x < blockDim.x / 2)
        __syncthreads();
    else
        __syncthreads();
    y[threadIdx.x] = 1.0f;
}
// Half of the warp wants all of it.
extern "C" __global__ void diverge_warp(float *y) {
    float v = 1.0f;
    if (threadIdx.x % 32 < 16)
        v = __shfl_xor_sync(0xffffffffu, v, 1);
    else
        __syncthreads();
    y[threadIdx.x] = v;
}

// Collectives: of parts of a warp, of lanes some of which have ended, votes, widths. y has 8 values a thread.
extern "C" __global__ void collectives(int *y) {
    const int lane = threadIdx.x & 31, i = threadIdx.x;
    int *r = y + 8 * i;
    if (lane & 1)
        r[0] = __shfl_xor_sync(0xaaaaaaaau, lane, 2);
    else
        r[0] = __shfl_xor_sync(0x55555555u, lane + 100, 2);
    r[1] = (int)__ballot_sync(0xffffffffu, lane % 3 == 0);
    r[2] = __shfl_down_sync(0xffffffffu, lane, 3, 8);
    r[3] = __shfl_up_sync(0xffffffffu, lane, 3, 8);
    r[4] = __shfl_sync(0xffffffffu, lane, 9, 8);
    r[5] = __syncthreads_or(i == 5) * 4 + __syncthreads_and(i < 1000) * 2 +
           (__syncthreads_count(i % 2) == (int)blockDim.x / 2);
    r[6] = __any_sync(0xffffffffu, lane == 31) * 2 + __all_sync(0xffffffffu, lane < 31);
    if (lane >= 16) {
        r[7] = -1;
        return;
    }
    r[7] = __shfl_xor_sync(0xffffffffu, lane, 16);  // of a lane that has ended: all ones
    __syncthreads();
}

// Each lane's registers to all: y[thread] = sum over lanes l of (l + 1) * (value of lane l), twice over.
#ifndef __CUDACC_RTC__
struct Registers {
    int v[5];
};
extern "C" __global__ void exchange(int *y) {
    for (int round = 0; round < 2; round++) {
        Registers mine;
        for (int i = 0; i < 5; i++) mine.v[i] = (int)threadIdx.x * 10 + i + round;
        const Registers *all = cuemu::warpExchange(mine);
        int s = 0;
        for (int l = 0; l < 32; l++)
            for (int i = 0; i < 5; i++) s += (l + 1) * all[l].v[i];
        y[2 * threadIdx.x + round] = s;
    }
}
#endif

extern "C" __global__ void store(float *y, long long at, float v) {
    if (blockIdx.x == 1 && threadIdx.x == 3) y[at] = v;
}
extern "C" __global__ void load(float *y, const float *x, long long at) {
    if (blockIdx.x == 1 && threadIdx.x == 3) y[0] = x[at];
}
extern "C" __global__ void load4(float *y, const float *x, long long at) {
    if (blockIdx.x == 1 && threadIdx.x == 3) y[0] = ((const float4 *)(x + at))->w;
}
extern "C" __global__ void store2(float *y, long long at) {
    if (blockIdx.x == 1 && threadIdx.x == 3) *(uint2 *)(y + at) = make_uint2(1, 2);
}
extern "C" __global__ void load_byte(float *y, const char *x, long long at) {
    if (blockIdx.x == 1 && threadIdx.x == 3) y[0] = *(const float *)(x + at);
}
extern "C" __global__ void store_shared(float *y, int at) {
    __shared__ float fixed[8];
    extern __shared__ __align__(16) char smem[];
    fixed[threadIdx.x & 7] = 0.0f;
    if (blockIdx.x == 1 && threadIdx.x == 3) {
        if (at < 100)
            fixed[at] = 1.0f;
        else
            ((float *)smem)[at - 100] = 1.0f;
    }
    __syncthreads();
    y[0] = fixed[0];
}
__device__ __noinline__ float deep(float *y, int n) {
    volatile float big[256];
    big[n & 255] = y[0];
    return n ? deep(y, n - 1) + big[n & 255] : 0.0f;
}
extern "C" __global__ void overflow(float *y, int n) {
    y[0] = deep(y, n);
}

// Conversions and integers at their edges, for the host to compare.
extern "C" __global__ void edges(long long *y, const float *x, int n) {
    for (int i = 0; i < n; i++) {
        long long *r = y + 6 * i;
        r[0] = __float2ll_rn(x[i]);
        r[1] = __float2int_rn(x[i]);
        r[2] = __float2uint_rn(x[i]);
        r[3] = __float2int_rz(x[i]);
        r[4] = from_float<bf16>(x[i]).bits;
        r[5] = (long long)__umulhi(0xffffffffu, (unsigned)i + 2) * 100 + __clz(i) + __popc(i);
    }
}
