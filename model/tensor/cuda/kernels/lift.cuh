// What every kernel begins with: types, conversions and reductions. The same sources are compiled by NVRTC for a GPU
// and by g++ for the emulator (../emu); neither needs a CUDA header.
//
// Rules of all kernels: no float atomics; a result depends on values and shapes alone, never on the order of blocks,
// nor on where a tensor lies. Sums run in a fixed order. Accumulation is in float whatever the type of the tensor.
// Neither compiler fuses a product into a sum: where one rounding is wanted the source says fmaf, so that two paths
// through a kernel, two kinds of GPU and the emulator compute the same. Dynamic shared memory has the one name smem.
#pragma once

#ifdef __CUDACC_RTC__
typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
#else
#include "cuemu.h"
#endif

// bf16 is the upper half of a float.
struct __align__(2) bf16 {
    uint16_t bits;
};

__device__ __forceinline__ float to_float(float x) {
    return x;
}
__device__ __forceinline__ float to_float(bf16 x) {
    return __uint_as_float((uint32_t)x.bits << 16);
}

// pack_bf16 rounds two floats to nearest even; lo is in the lower half. Any NaN becomes 0x7fff. (PTX ISA, "cvt": of the
// two sources the first, here hi, goes to the upper half.)
__device__ __forceinline__ uint32_t pack_bf16(float lo, float hi) {
#ifdef __CUDACC_RTC__
    uint32_t r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo));
    return r;
#else
    const auto round = [](float x) {
        const uint32_t u = __float_as_uint(x);
        return x != x ? 0x7fffu : (u + 0x7fffu + (u >> 16 & 1u)) >> 16;
    };
    return round(lo) | round(hi) << 16;
#endif
}

// from_float rounds as pack_bf16 does.
template <class T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
    return x;
}
template <>
__device__ __forceinline__ bf16 from_float<bf16>(float x) {
    return bf16{(uint16_t)pack_bf16(x, 0.0f)};
}

// warp_sum and warp_max give every lane the result over the 32 lanes, all of which call.
__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
    for (int o = 16; o > 0; o >>= 1) x += __shfl_xor_sync(0xffffffffu, x, o);
    return x;
}
// warp_max gives NaN if any lane has one.
__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
    for (int o = 16; o > 0; o >>= 1) {
        const float y = __shfl_xor_sync(0xffffffffu, x, o);
        x = y > x || y != y ? y : x;
    }
    return x;
}

// block_sum gives every thread the sum over the block, whose size is a multiple of 32 and at most 1024. All threads
// call. It may be called again at once.
__device__ __forceinline__ float block_sum(float x) {
    __shared__ float part[33];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    x = warp_sum(x);
    __syncthreads();  // part may still be read from the call before
    if (lane == 0) part[warp] = x;
    __syncthreads();
    if (warp == 0) {
        x = warp_sum(lane < warps ? part[lane] : 0.0f);
        if (lane == 0) part[32] = x;
    }
    __syncthreads();
    return part[32];
}
