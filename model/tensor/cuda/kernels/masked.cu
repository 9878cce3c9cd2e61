// Kernels of weights that are trained at chosen positions only. n is a number of positions; index[n] counts values of a
// tensor row by row, and holds none twice.
#include "pack.cuh"

#define KERNEL extern "C" __global__ void __launch_bounds__(256)

// y[index[n]] = v[n]
template <class T>
__device__ __forceinline__ void scatter(T *y, const float *v, const int *index, int n) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[index[i]] = from_float<T>(v[i]);
}
KERNEL scatter_f32(float *y, const float *v, const int *index, int n) {
    scatter(y, v, index, n);
}
KERNEL scatter_bf16(bf16 *y, const float *v, const int *index, int n) {
    scatter(y, v, index, n);
}

// v[n] (+)= x[index[n] - origin]
KERNEL gather(float *v, const float *x, const int *index, int n, int origin, bool acc) {
    const int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) v[i] = acc ? v[i] + x[index[i] - origin] : x[index[i] - origin];
}

// columns puts n columns of four rows of x [*, ld] side by side into shared memory, a column's four values together.
// Rows at and beyond `rows` are zeros.
template <class T, class B>
__device__ __forceinline__ void columns(words<4 * (int)sizeof(T)> *t, const T *x, int64_t ld, int rows, int n,
                                        B vector) {
    for (int c = 4 * threadIdx.x; c < n; c += 4 * blockDim.x) {
        float v[4][4] = {};
#pragma unroll
        for (int r = 0; r < 4; r++)
            if (r < rows) load(v[r], x + r * ld + c, n - c, vector);
#pragma unroll
        for (int k = 0; k < 4; k++) {
            const float col[4] = {v[0][k], v[1][k], v[2][k], v[3][k]};
            if (vector || k < n - c) packed(col, T()).put(t + c + k);
        }
    }
}

// s[gridDim.y, n] (+)= the sums over a share of the rows m < M of a[m, r] b[m, c], where r K + c = index - origin, of
// a[M, N] and b[M, K]; index is sorted. A block has 256 * SAMPLES positions; of four rows at a time it holds those
// columns of a and b that they may name: windows of them where there are more than fit.
template <class T>
__device__ __forceinline__ void sampled_product(float *s, const T *a, const T *b, const int *index, int n, int origin,
                                                int64_t M, int N, int K, bool acc) {
    constexpr int SAMPLES = 16, QUAD = 4 * (int)sizeof(T), ROOM_A = 16384 / QUAD, ROOM_B = 32768 / QUAD;
    __shared__ __align__(16) words<QUAD> at[ROOM_A], bt[ROOM_B];
    const int first = blockIdx.x * 256 * SAMPLES, last = n - first < 256 * SAMPLES ? n - 1 : first + 256 * SAMPLES - 1;
    // Rows of the product that the block's positions are in, widened to where loads are aligned.
    const int from = (index[first] - origin) / K & ~7, end = ((index[last] - origin) / K & ~3) + 4,
              to = end < N ? end : N;
    const int64_t each = (M + gridDim.y - 1) / gridDim.y, m0 = blockIdx.y * each, m1 = m0 + each < M ? m0 + each : M;
    const bool vector_a = vectorable(a, N * sizeof(T)), vector_b = vectorable(b, K * sizeof(T));
    float sum[SAMPLES] = {};
    for (int r0 = from; r0 < to; r0 += ROOM_A)
        for (int c0 = 0; c0 < K; c0 += ROOM_B) {
            const int na = to - r0 < ROOM_A ? to - r0 : ROOM_A, nb = K - c0 < ROOM_B ? K - c0 : ROOM_B;
            // Where each position's factors lie in the windows: at, and bt above bit 16; or 0xffffffff.
            unsigned where[SAMPLES];
#pragma unroll
            for (int q = 0; q < SAMPLES; q++) {
                const int i = first + q * 256 + threadIdx.x, p = i <= last ? index[i] - origin : -1;
                const int r = p / K - r0, c = p % K - c0;
                where[q] = p >= 0 && r >= 0 && r < na && c >= 0 && c < nb ? (unsigned)c << 16 | r : ~0u;
            }
            for (int64_t m = m0; m < m1; m += 4) {
                const int rows = m1 - m < 4 ? m1 - m : 4;
                __syncthreads();  // the columns may still be read
                if (vector_a)
                    columns(at, a + m * N + r0, N, rows, na, yes());
                else
                    columns(at, a + m * N + r0, N, rows, na, no());
                if (vector_b)
                    columns(bt, b + m * K + c0, K, rows, nb, yes());
                else
                    columns(bt, b + m * K + c0, K, rows, nb, no());
                __syncthreads();
#pragma unroll
                for (int q = 0; q < SAMPLES; q++) {
                    if (where[q] == ~0u) continue;
                    words<QUAD> u, v;
                    u.get(at + (where[q] & 0xffffu));
                    v.get(bt + (where[q] >> 16));
                    float x[4], y[4];
                    unpack(x, u, T());
                    unpack(y, v, T());
#pragma unroll
                    for (int r = 0; r < 4; r++) sum[q] = fmaf(x[r], y[r], sum[q]);
                }
            }
        }
    s += (int64_t)blockIdx.y * n;
#pragma unroll
    for (int q = 0; q < SAMPLES; q++) {
        const int i = first + q * 256 + threadIdx.x;
        if (i <= last) s[i] = acc ? s[i] + sum[q] : sum[q];
    }
}
#define SAMPLED_PRODUCT(name, T)                                                                                      \
    extern "C" __global__ void __launch_bounds__(256, 2) name(float *s, const T *a, const T *b, const int *index,     \
                                                              int n, int origin, int64_t M, int N, int K, bool acc) { \
        sampled_product(s, a, b, index, n, origin, M, N, K, acc);                                                     \
    }
SAMPLED_PRODUCT(sampled_product_f32, float)
SAMPLED_PRODUCT(sampled_product_bf16, bf16)
