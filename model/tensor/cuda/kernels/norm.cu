// LayerNorm (Ba et al., 2016) and row normalisation. M rows of D values, each read once from memory and written once;
// sums in float, statistics in two passes over a row that stays in registers: the mean, then the squares of the
// differences.
//
// launch: layer_norm_backward threads=128
#include "pack.cuh"

// row_sums gives every thread the sums of v over the warps of its row, in their order: the block's, or the own one when
// rows are a warp wide. All threads call, with half alternating between calls.
template <int C>
__device__ __forceinline__ void row_sums(float (&v)[C], int warps, int half) {
    __shared__ float part[2][C][32];
#pragma unroll
    for (int c = 0; c < C; c++) v[c] = warp_sum(v[c]);
    if (warps == 1) return;
    if ((threadIdx.x & 31) == 0)
#pragma unroll
        for (int c = 0; c < C; c++) part[half][c][threadIdx.x >> 5] = v[c];
    __syncthreads();  // the other half's readers are through when the next call's writers are
#pragma unroll
    for (int c = 0; c < C; c++) {
        v[c] = part[half][c][0];
        for (int w = 1; w < warps; w++) v[c] += part[half][c][w];
    }
}

// A row of the forward is 32 values in each thread of so many warps; a block has several rows of one warp, or one row.
// y[M, D] = (x - mean) rstd gain[D] + bias[D], stats[M, 2] = mean and rstd (may be NULL).
template <class T, class B>
__device__ __forceinline__ void layer_norm_row(T *y, float *stats, const T *x, const float *gain, const float *bias,
                                               int D, float eps, int warps, B vector) {
    constexpr int N = PACK<T>, K = 32 / N;
    const int threads = 32 * warps, t = threadIdx.x & (warps == 1 ? 31 : -1);
    float v[K][N], sum[1] = {};
#pragma unroll
    for (int k = 0; k < K; k++) {
        const int i = (t + k * threads) * N;
#pragma unroll
        for (int j = 0; j < N; j++) v[k][j] = 0;
        if (i < D) load(v[k], x + i, D - i, vector);
#pragma unroll
        for (int j = 0; j < N; j++) sum[0] += v[k][j];
    }
    row_sums(sum, warps, 0);
    const float mean = sum[0] / (float)D;
    sum[0] = 0;
#pragma unroll
    for (int k = 0; k < K; k++) {
        const int n = D - (t + k * threads) * N;
#pragma unroll
        for (int j = 0; j < N; j++) {
            v[k][j] -= mean;
            sum[0] = j < n ? fmaf(v[k][j], v[k][j], sum[0]) : sum[0];
        }
    }
    row_sums(sum, warps, 1);
    const float rstd = 1.0f / sqrtf(sum[0] / (float)D + eps);
#pragma unroll
    for (int k = 0; k < K; k++) {
        const int i = (t + k * threads) * N;
        if (i >= D) break;
        float g[N], b[N];
        load(g, gain + i, D - i, vector);
        load(b, bias + i, D - i, vector);
#pragma unroll
        for (int j = 0; j < N; j++) v[k][j] = fmaf(v[k][j] * rstd, g[j], b[j]);
        store(y + i, v[k], D - i, vector);
    }
    if (stats != 0 && t == 0) {
        stats[0] = mean;
        stats[1] = rstd;
    }
}
template <class T>
__device__ __forceinline__ void layer_norm(T *y, float *stats, const T *x, const float *gain, const float *bias,
                                           int64_t M, int D, float eps, int warps) {
    const int64_t row = warps == 1 ? (int64_t)blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5) : blockIdx.x;
    if (row >= M) return;
    if (stats != 0) stats += 2 * row;
    if (vectorable(y, x, gain, bias, D * sizeof(T)))
        layer_norm_row(y + row * D, stats, x + row * D, gain, bias, D, eps, warps, yes());
    else
        layer_norm_row(y + row * D, stats, x + row * D, gain, bias, D, eps, warps, no());
}

// dx[M, D] (+)= rstd (g - mean(g) - h mean(g h)), with h = (x - mean) rstd and g = dy gain; dgain[blocks, D] = the sums
// of dy h over the block's rows, dbias[blocks, D] of dy. dx, dgain and dbias may be NULL. A thread has 8 values of each
// row.
template <class T, class B>
__device__ __forceinline__ void layer_norm_backward_rows(T *dx, float *dgain, float *dbias, const T *dy, const T *x,
                                                         const float *gain, const float *stats, int64_t M, int D,
                                                         bool acc, B vector) {
    constexpr int N = PACK<T>, K = 8 / N;
    const int warps = blockDim.x >> 5;
    float w[K][N], sg[K][N] = {}, sb[K][N] = {};
#pragma unroll
    for (int k = 0; k < K; k++) {
        const int i = (threadIdx.x + k * blockDim.x) * N;
#pragma unroll
        for (int j = 0; j < N; j++) w[k][j] = 0;
        if (i < D) load(w[k], gain + i, D - i, vector);
    }
    int half = 0;
    for (int64_t row = blockIdx.x; row < M; row += gridDim.x, half ^= 1) {
        const float mean = stats[2 * row], rstd = stats[2 * row + 1];
        float g[K][N] = {}, h[K][N] = {}, sum[2] = {};
#pragma unroll
        for (int k = 0; k < K; k++) {
            const int i = (threadIdx.x + k * blockDim.x) * N;
            if (i < D) {
                load(g[k], dy + row * D + i, D - i, vector);
                load(h[k], x + row * D + i, D - i, vector);
            }
#pragma unroll
            for (int j = 0; j < N; j++) {
                h[k][j] = (h[k][j] - mean) * rstd;  // beyond D it meets g = 0
                sg[k][j] = fmaf(g[k][j], h[k][j], sg[k][j]);
                sb[k][j] += g[k][j];
                g[k][j] *= w[k][j];
                sum[0] += g[k][j];
                sum[1] = fmaf(g[k][j], h[k][j], sum[1]);
            }
        }
        if (dx == 0) continue;
        row_sums(sum, warps, half);
        const float mg = sum[0] / (float)D, mgh = sum[1] / (float)D;
#pragma unroll
        for (int k = 0; k < K; k++) {
            const int i = (threadIdx.x + k * blockDim.x) * N;
            if (i >= D) break;
            float d[N] = {};
            if (acc) load(d, dx + row * D + i, D - i, vector);
#pragma unroll
            for (int j = 0; j < N; j++) d[j] = fmaf(fmaf(-h[k][j], mgh, g[k][j] - mg), rstd, d[j]);
            store(dx + row * D + i, d, D - i, vector);
        }
    }
#pragma unroll
    for (int k = 0; k < K; k++) {
        const int i = (threadIdx.x + k * blockDim.x) * N;
        if (i >= D) break;
        if (dgain != 0) store(dgain + (int64_t)blockIdx.x * D + i, sg[k], D - i, vector);
        if (dbias != 0) store(dbias + (int64_t)blockIdx.x * D + i, sb[k], D - i, vector);
    }
}
template <class T>
__device__ __forceinline__ void layer_norm_backward(T *dx, float *dgain, float *dbias, const T *dy, const T *x,
                                                    const float *gain, const float *stats, int64_t M, int D, bool acc) {
    if (vectorable(dx, dgain, dbias, dy, x, gain, D * sizeof(T)))
        layer_norm_backward_rows(dx, dgain, dbias, dy, x, gain, stats, M, D, acc, yes());
    else
        layer_norm_backward_rows(dx, dgain, dbias, dy, x, gain, stats, M, D, acc, no());
}
#define LAYER_NORM(T, suffix)                                                                                       \
    extern "C" __global__ void __launch_bounds__(128, 5)                                                            \
        layer_norm_##suffix(T *y, float *stats, const T *x, const float *gain, const float *bias, int64_t M, int D, \
                            float eps, int warps) {                                                                 \
        layer_norm(y, stats, x, gain, bias, M, D, eps, warps);                                                      \
    }                                                                                                               \
    extern "C" __global__ void __launch_bounds__(512, 1)                                                            \
        layer_norm_backward_##suffix(T *dx, float *dgain, float *dbias, const T *dy, const T *x, const float *gain, \
                                     const float *stats, int64_t M, int D, bool acc) {                              \
        layer_norm_backward(dx, dgain, dbias, dy, x, gain, stats, M, D, acc);                                       \
    }
LAYER_NORM(float, f32)
LAYER_NORM(bf16, bf16)

// y[M, D] = x / max(|x|, eps), norms[M] = max(|x|, eps) (may be NULL). A block has a row, which it reads again from the
// first cache; so in the backward.
template <class T>
__device__ __forceinline__ void normalize_rows(T *y, float *norms, const T *x, int D, float eps) {
    constexpr int N = PACK<T>;
    const int step = blockDim.x * N;
    x += (int64_t)blockIdx.x * D;
    y += (int64_t)blockIdx.x * D;
    const bool vector = vectorable(y, x, D * sizeof(T));
    float sum[1] = {};
    for (int i = threadIdx.x * N; i < D; i += step) {
        float v[N];
        load(v, x + i, D - i, vector);
#pragma unroll
        for (int j = 0; j < N; j++) sum[0] = fmaf(v[j], v[j], sum[0]);
    }
    row_sums(sum, blockDim.x >> 5, 0);
    const float root = sqrtf(sum[0]), norm = root < eps ? eps : root;  // NaN stays NaN
    for (int i = threadIdx.x * N; i < D; i += step) {
        float v[N];
        load(v, x + i, D - i, vector);
#pragma unroll
        for (int j = 0; j < N; j++) v[j] /= norm;
        store(y + i, v, D - i, vector);
    }
    if (norms != 0 && threadIdx.x == 0) norms[blockIdx.x] = norm;
}

// dx = (dy - y (y.dy)) / norm; where the norm was raised to eps it is a constant: dx = dy / eps. dx may be dy.
template <class T>
__device__ __forceinline__ void normalize_rows_backward(T *dx, const T *dy, const T *y, const float *norms, int D,
                                                        float eps) {
    constexpr int N = PACK<T>;
    const int step = blockDim.x * N;
    const int64_t first = (int64_t)blockIdx.x * D;
    dx += first;
    dy += first;
    y += first;
    const bool vector = vectorable(dx, dy, y, D * sizeof(T));
    const float norm = norms[blockIdx.x];
    float along[1] = {};
    if (!(norm <= eps)) {
        for (int i = threadIdx.x * N; i < D; i += step) {
            float g[N], v[N];
            load(g, dy + i, D - i, vector);
            load(v, y + i, D - i, vector);
#pragma unroll
            for (int j = 0; j < N; j++) along[0] = fmaf(g[j], v[j], along[0]);
        }
        row_sums(along, blockDim.x >> 5, 0);
    }
    const float r = 1.0f / norm;
    for (int i = threadIdx.x * N; i < D; i += step) {
        float g[N], v[N];
        load(g, dy + i, D - i, vector);
        load(v, y + i, D - i, vector);
#pragma unroll
        for (int j = 0; j < N; j++) g[j] = fmaf(-v[j], along[0], g[j]) * r;
        store(dx + i, g, D - i, vector);
    }
}
#define NORMALIZE_ROWS(T, suffix)                                                                                \
    extern "C" __global__ void __launch_bounds__(256)                                                            \
        normalize_rows_##suffix(T *y, float *norms, const T *x, int D, float eps) {                              \
        normalize_rows(y, norms, x, D, eps);                                                                     \
    }                                                                                                            \
    extern "C" __global__ void __launch_bounds__(256)                                                            \
        normalize_rows_backward_##suffix(T *dx, const T *dy, const T *y, const float *norms, int D, float eps) { \
        normalize_rows_backward(dx, dy, y, norms, D, eps);                                                       \
    }
NORMALIZE_ROWS(float, f32)
NORMALIZE_ROWS(bf16, bf16)
