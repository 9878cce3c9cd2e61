// Sixteen bytes at a time: how kernels that are bound by memory read and write, and how they divide a matrix.
#pragma once
#include "lift.cuh"

// PACK<T> is how many values of T are 16 bytes.
template <class T>
constexpr int PACK = 16 / (int)sizeof(T);

// words are the bits of some values.
template <int BYTES>
struct words {
    uint32_t w[BYTES / 4];
    // get reads them at p, a multiple of 16 or of their size; put is its inverse. The compiler makes one instruction of
    // a uint4, and four of an array.
    __device__ __forceinline__ void get(const void *p) {
        if constexpr (BYTES % 16 == 0) {
#pragma unroll
            for (int k = 0; k < BYTES / 4; k += 4) {
                const uint4 r = ((const uint4 *)p)[k / 4];
                w[k] = r.x, w[k + 1] = r.y, w[k + 2] = r.z, w[k + 3] = r.w;
            }
        } else {
            const uint2 r = *(const uint2 *)p;
            w[0] = r.x, w[1] = r.y;
        }
    }
    __device__ __forceinline__ void put(void *p) const {
        if constexpr (BYTES % 16 == 0) {
#pragma unroll
            for (int k = 0; k < BYTES / 4; k += 4) ((uint4 *)p)[k / 4] = make_uint4(w[k], w[k + 1], w[k + 2], w[k + 3]);
        } else {
            *(uint2 *)p = make_uint2(w[0], w[1]);
        }
    }
};

// vectorable says whether all the addresses and distances (in bytes) are multiples of 16; NULL and 0 are. It chooses
// how values are moved, never what is computed of them.
template <class... P>
__device__ __forceinline__ bool vectorable(P... p) {
    return (((uint64_t)p | ...) & 15) == 0;
}

template <int N>
__device__ __forceinline__ void unpack(float (&v)[N], const words<4 * N> &r, float) {
#pragma unroll
    for (int k = 0; k < N; k++) v[k] = __uint_as_float(r.w[k]);
}
template <int N>
__device__ __forceinline__ void unpack(float (&v)[N], const words<2 * N> &r, bf16) {
#pragma unroll
    for (int k = 0; k < N; k += 2) {
        v[k] = __uint_as_float(r.w[k / 2] << 16);
        v[k + 1] = __uint_as_float(r.w[k / 2] & 0xffff0000u);
    }
}

template <int N>
__device__ __forceinline__ words<4 * N> packed(const float (&v)[N], float) {
    words<4 * N> r;
#pragma unroll
    for (int k = 0; k < N; k++) r.w[k] = __float_as_uint(v[k]);
    return r;
}
template <int N>
__device__ __forceinline__ words<2 * N> packed(const float (&v)[N], bf16) {
    words<2 * N> r;
#pragma unroll
    for (int k = 0; k < N; k += 2) r.w[k / 2] = pack_bf16(v[k], v[k + 1]);
    return r;
}

// yes and no are a bool that the compiler knows: in a loop over loads that are not behind a branch, several are under
// way.
template <bool B>
struct known {
    __device__ __forceinline__ constexpr operator bool() const { return B; }
};
using yes = known<true>;
using no = known<false>;

// load reads N values at p, of which n are there: the others become 0. vector: all are, and p is a multiple of N
// values.
template <int N, class T, class B>
__device__ __forceinline__ void load(float (&v)[N], const T *p, int64_t n, B vector) {
    if (vector) {
        words<N *(int)sizeof(T)> r;
        r.get(p);
        unpack(v, r, T());
    } else {
        const int m = n < N ? (int)n : N;
#pragma unroll
        for (int k = 0; k < N; k++) v[k] = k < m ? to_float(p[k]) : 0.0f;
    }
}
// store is load's inverse; what is not there is not touched.
template <int N, class T, class B>
__device__ __forceinline__ void store(T *p, const float (&v)[N], int64_t n, B vector) {
    if (vector) {
        packed(v, T()).put(p);
    } else {
        const int m = n < N ? (int)n : N;
#pragma unroll
        for (int k = 0; k < N; k++)
            if (k < m) p[k] = from_float<T>(v[k]);
    }
}

// tile is a thread's share of a matrix [rows, cols]: N columns from col on, n of which are there (or none), and the
// rows row, row + step, ... below end. lanes threads, a power of two, lie side by side; a block has gridDim.y-th of the
// rows.
template <int N>
struct tile {
    int col, n;
    int64_t row, step, end;
    __device__ __forceinline__ tile(int lanes, int64_t rows, int cols) {
        const int64_t each = (rows + gridDim.y - 1) / gridDim.y;
        col = (blockIdx.x * lanes + (threadIdx.x & (lanes - 1))) * N;
        n = cols - col < N ? cols - col : N;
        step = blockDim.x / lanes;
        row = blockIdx.y * each + threadIdx.x / lanes;
        end = blockIdx.y * each + each < rows ? blockIdx.y * each + each : rows;
        if (n <= 0) end = 0;
    }
};
