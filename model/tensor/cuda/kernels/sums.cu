// The sum of a step's gradients, its packed form and the update that follows it. All is elementwise or in integers, so
// that a GPU gives the bytes that a CPU does (allreduce: encode, pack; optim: SGD), whichever GPU computed which
// micro-batch.
//
// A flat vector holds the values of all tensors one after the other. A bucket is a range of it, and each GPU of the
// host sums, packs and updates a slice of each bucket: whole blocks of 256 values, counted from the bucket's start.
#include "lift.cuh"

typedef unsigned long long u64;
typedef long long i64;

#define BLOCK 256  // values that share one width on the wire, and threads of a block here

// How gradients become integers: rounded x * scale, of a magnitude of at most limit.
struct Form {
    i64 limit;
    float scale;
};

// sums[i] += the integer nearest to grad[i] * scale, ties to even, for i < n. A value that has none within the limit
// leaves its index in the flat vector (first + i) and its bits in *bad, which keeps the lowest. Integers may be added
// in any order, so several micro-batches may run at once.
extern "C" __global__ void __launch_bounds__(BLOCK)
    sums_add(int64_t *sums, const float *grad, const Form *form, uint64_t *bad, const int32_t *k, uint32_t first,
             uint32_t n) {
    const uint32_t i = blockIdx.x * BLOCK + threadIdx.x;
    if (i >= n) return;
    const float x = grad[i], y = __fmul_rn(x, form->scale);
    const i64 limit = form->limit;
    const bool small = fabsf(y) <= 0x1p62f;  // false for a NaN
    const i64 q = small ? __float2ll_rn(y) : 0;
    if (!small || q > limit || q < -limit)
        atomicMin((u64 *)bad + *k, (u64)(first + i) << 32 | __float_as_uint(x));
    else if (q != 0)
        atomicAdd((u64 *)sums + i, (u64)q);
}

// bytes_for is how few bytes hold v.
__device__ __forceinline__ int bytes_for(i64 v) {
    return v == 0 ? 0 : (64 - __clzll(v ^ v >> 63) + 8) / 8;
}

// total[n] = own[n] + peers[0][n] + ... + peers[others - 1][n], which lie `stride` values apart; total may be peers, or
// own where there are no others. Then widths[n / 256] = the width of each block, and reduced[n] (or none) =
// float(total) * step. One block a block.
extern "C" __global__ void __launch_bounds__(BLOCK)
    sums_total(int64_t *total, uint8_t *widths, float *reduced, const int64_t *own, const int64_t *peers,
               uint32_t others, uint64_t stride, float step, uint32_t n) {
    __shared__ int widest[BLOCK / 32];
    const uint32_t i = blockIdx.x * BLOCK + threadIdx.x;
    int w = 0;
    if (i < n) {
        i64 v = own[i];
        for (uint32_t p = 0; p < others; p++) v += peers[p * stride + i];
        if (others != 0) total[i] = v;
        if (reduced) reduced[i] = __fmul_rn(__ll2float_rn(v), step);
        w = bytes_for(v);
    }
#pragma unroll
    for (int o = 16; o > 0; o >>= 1) w = max(w, __shfl_xor_sync(0xffffffffu, w, o));
    if (threadIdx.x % 32 == 0) widest[threadIdx.x / 32] = w;
    __syncthreads();
    if (threadIdx.x != 0) return;
#pragma unroll
    for (int k = 1; k < BLOCK / 32; k++) w = max(w, widest[k]);
    widths[blockIdx.x] = (uint8_t)w;
}

// offsets[blocks] = where each packed block begins; *bytes = the size of all. The last block has what is left of n
// values. One block of 1024 threads, each with a run of blocks.
extern "C" __global__ void __launch_bounds__(1024)
    sums_offsets(uint64_t *offsets, uint64_t *bytes, const uint8_t *widths, uint32_t n) {
    __shared__ u64 sums[1024];
    const uint32_t blocks = (n + BLOCK - 1) / BLOCK, run = (blocks + 1023) / 1024;
    const uint32_t from = min(blocks, threadIdx.x * run), to = min(blocks, from + run);
    u64 mine = 0;
    for (uint32_t b = from; b < to; b++) mine += 1 + (u64)widths[b] * min((uint32_t)BLOCK, n - b * BLOCK);
    sums[threadIdx.x] = mine;
    __syncthreads();
    for (uint32_t o = 1; o < 1024; o <<= 1) {
        const u64 left = threadIdx.x >= o ? sums[threadIdx.x - o] : 0;
        __syncthreads();
        sums[threadIdx.x] += left;
        __syncthreads();
    }
    u64 at = sums[threadIdx.x] - mine;
    for (uint32_t b = from; b < to; b++) {
        offsets[b] = at;
        at += 1 + (u64)widths[b] * min((uint32_t)BLOCK, n - b * BLOCK);
    }
    if (threadIdx.x == 1023) *bytes = at;
}

// Writes each block of v[n] at its offset: one byte w, then each value's w low bytes, little-endian. One block a block.
extern "C" __global__ void __launch_bounds__(BLOCK)
    sums_pack(uint8_t *packed, const int64_t *v, const uint8_t *widths, const uint64_t *offsets, uint32_t n) {
    __shared__ uint8_t bytes[1 + 8 * BLOCK];
    const uint32_t i = blockIdx.x * BLOCK + threadIdx.x, w = widths[blockIdx.x];
    if (threadIdx.x == 0) bytes[0] = (uint8_t)w;
    if (i < n) {
        const i64 x = v[i];
        for (uint32_t k = 0; k < w; k++) bytes[1 + threadIdx.x * w + k] = (uint8_t)(x >> 8 * k);
    }
    __syncthreads();
    uint8_t *to = packed + offsets[blockIdx.x];
    const uint32_t size = 1 + w * min((uint32_t)BLOCK, n - blockIdx.x * BLOCK);
    for (uint32_t k = threadIdx.x; k < size; k += BLOCK) to[k] = bytes[k];
}

// Where a tensor's values are: from flat index `flat` on, at values[flat + shift].
struct Place {
    i64 flat, shift;
};

// One step of gradient descent with momentum and weight decay on the flat vector's values first to first + n: no
// product is fused into the sum after it. momentum[n] and grad[n] are the slice's; values are each tensor's own, found
// in places[tensors] (sorted).
extern "C" __global__ void __launch_bounds__(BLOCK)
    sums_update(float *values, float *momentum, const float *grad, const Place *places, uint32_t tensors, float rate,
                float keep, float decay, uint32_t first, uint32_t n) {
    const uint32_t i = blockIdx.x * BLOCK + threadIdx.x;
    if (i >= n) return;
    const i64 at = (i64)first + i;
    uint32_t lo = 0, hi = tensors;  // the last tensor that begins at or before `at`
    while (hi - lo > 1) {
        const uint32_t mid = (lo + hi) / 2;
        if (places[mid].flat <= at)
            lo = mid;
        else
            hi = mid;
    }
    float *v = values + at + places[lo].shift;
    const float x = *v;
    const float g = __fadd_rn(grad[i], __fmul_rn(decay, x));
    const float m = __fadd_rn(__fmul_rn(keep, momentum[i]), g);
    momentum[i] = m;
    *v = __fsub_rn(x, __fmul_rn(rate, m));
}
