// Elementwise kernels and sums over columns. n is a number of values, M rows, D width. A thread moves 16 bytes at a
// time.
#include "activation.cuh"
#include "pack.cuh"

#define KERNEL extern "C" __global__ void __launch_bounds__(256)

// each calls f(i, m, vector) for the thread's N values, those from i on, of which m are there; all of a grid have n.
template <int N, class F, class... P>
__device__ __forceinline__ void each(int64_t n, F f, P... addresses) {
    const int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * N;
    if (i < n) f(i, n - i, i + N <= n && vectorable(addresses...));
}

// y[n] = c
template <class T>
__device__ __forceinline__ void fill(T *y, float c, int64_t n) {
    constexpr int N = PACK<T>;
    auto f = [=](int64_t i, int64_t m, bool vector) {
        float v[N];
#pragma unroll
        for (int k = 0; k < N; k++) v[k] = c;
        store(y + i, v, m, vector);
    };
    each<N>(n, f, y);
}
KERNEL fill_f32(float *y, float c, int64_t n) {
    fill(y, c, n);
}
KERNEL fill_bf16(bf16 *y, float c, int64_t n) {
    fill(y, c, n);
}

// y[n] = f(x[n])
template <int N, class Y, class X, class F>
__device__ __forceinline__ void map(Y *y, const X *x, int64_t n, F f) {
    auto g = [=](int64_t i, int64_t m, bool vector) {
        float v[N];
        load(v, x + i, m, vector);
#pragma unroll
        for (int k = 0; k < N; k++) v[k] = f(v[k]);
        store(y + i, v, m, vector);
    };
    each<N>(n, g, y, x);
}
// y[n] = f(a[n], b[n])
template <class T, class F>
__device__ __forceinline__ void map2(T *y, const T *a, const T *b, int64_t n, F f) {
    constexpr int N = PACK<T>;
    auto g = [=](int64_t i, int64_t m, bool vector) {
        float v[N], w[N];
        load(v, a + i, m, vector);
        load(w, b + i, m, vector);
#pragma unroll
        for (int k = 0; k < N; k++) v[k] = f(v[k], w[k]);
        store(y + i, v, m, vector);
    };
    each<N>(n, g, y, a, b);
}

// y[n] = x[n] in y's type. As many values a thread as the wider type has in 16 bytes.
#define COPY(name, Y, X, N)                         \
    KERNEL name(Y *y, const X *x, int64_t n) {      \
        map<N>(y, x, n, [](float v) { return v; }); \
    }
COPY(copy_f32_f32, float, float, 4)
COPY(copy_f32_bf16, float, bf16, 4)
COPY(copy_bf16_f32, bf16, float, 4)
COPY(copy_bf16_bf16, bf16, bf16, 8)

#define ELEMENTWISE(T, suffix)                                                            \
    /* y[n] = a[n] + b[n]; y may be a or b */                                             \
    KERNEL add_##suffix(T *y, const T *a, const T *b, int64_t n) {                        \
        map2(y, a, b, n, [](float v, float w) { return v + w; });                         \
    }                                                                                     \
    /* y[n] = c x[n]; y may be x */                                                       \
    KERNEL scale_##suffix(T *y, const T *x, float c, int64_t n) {                         \
        map<PACK<T>>(y, x, n, [=](float v) { return c * v; });                            \
    }                                                                                     \
    /* y[n] = a[n] + s[0] b[n]; a may be NULL for 0; y may be a or b */                   \
    KERNEL add_scaled_##suffix(T *y, const T *a, const T *b, const float *s, int64_t n) { \
        const float c = *s;                                                               \
        if (a != 0)                                                                       \
            map2(y, a, b, n, [=](float v, float w) { return fmaf(c, w, v); });            \
        else                                                                              \
            map<PACK<T>>(y, b, n, [=](float w) { return c * w; });                        \
    }                                                                                     \
    /* y[n] = f(x[n]) */                                                                  \
    KERNEL activate_##suffix(int f, T *y, const T *x, int64_t n) {                        \
        map<PACK<T>>(y, x, n, [=](float v) { return activate(f, v); });                   \
    }                                                                                     \
    /* dx[n] = dy[n] f'(x[n]); dx may be dy */                                            \
    KERNEL activate_backward_##suffix(int f, T *dx, const T *dy, const T *x, int64_t n) { \
        map2(dx, dy, x, n, [=](float g, float v) { return g * activate_slope(f, v); });   \
    }
ELEMENTWISE(float, f32)
ELEMENTWISE(bf16, bf16)

// dot_share adds the thread's share of the products of a[n] and b[n] to sum.
template <int N, class T, class B>
__device__ __forceinline__ void dot_share(float (&sum)[N], const T *a, const T *b, int64_t n, B vector) {
    const int64_t step = (int64_t)gridDim.x * blockDim.x * N;
#pragma unroll 2
    for (int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * N; i < n; i += step) {
        float v[N], w[N];
        load(v, a + i, n - i, vector);
        load(w, b + i, n - i, vector);
#pragma unroll
        for (int k = 0; k < N; k++) sum[k] = fmaf(v[k], w[k], sum[k]);
    }
}
// parts[block] = the block's share of the sum of a[n] b[n].
template <class T>
__device__ __forceinline__ void dot(float *parts, const T *a, const T *b, int64_t n) {
    constexpr int N = PACK<T>;
    float sum[N] = {};
    if (vectorable(a, b, n * sizeof(T)))
        dot_share(sum, a, b, n, yes());
    else
        dot_share(sum, a, b, n, no());
#pragma unroll
    for (int o = N / 2; o > 0; o /= 2)
#pragma unroll
        for (int k = 0; k < o; k++) sum[k] += sum[k + o];
    const float total = block_sum(sum[0]);
    if (threadIdx.x == 0) parts[blockIdx.x] = total;
}
KERNEL dot_f32(float *parts, const float *a, const float *b, int64_t n) {
    dot(parts, a, b, n);
}
KERNEL dot_bf16(float *parts, const bf16 *a, const bf16 *b, int64_t n) {
    dot(parts, a, b, n);
}
// d[0] (+)= the sum of parts[n]; one block.
KERNEL dot_end(float *d, const float *parts, int n, bool acc) {
    float sum = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += parts[i];
    sum = block_sum(sum);
    if (threadIdx.x == 0) *d = acc ? *d + sum : sum;
}

// add_columns: s[D] (+)= the sum of v over the block's threads of the same column, in the order of their rows; s is the
// row blockIdx.y of the partial sums [gridDim.y, D]. All threads call; it may be called again at once.
template <int N>
__device__ __forceinline__ void add_columns(float *s, const float (&v)[N], int lanes, int D, bool acc) {
    __shared__ float part[N][256 + 32 / N];  // the odd 32 / N: neither writing nor reading meets a bank twice
    const int t = threadIdx.x, lane = t / N, k = t % N, col = (blockIdx.x * lanes + lane) * N + k;
    __syncthreads();  // part may still be read from the call before
#pragma unroll
    for (int j = 0; j < N; j++) part[j][t] = v[j];
    __syncthreads();
    if (lane >= lanes || col >= D) return;
    float sum = part[k][lane];
    for (int r = lane + lanes; r < 256; r += lanes) sum += part[k][r];
    s += (int64_t)blockIdx.y * D + col;
    *s = acc ? *s + sum : sum;
}

// sum_rows_share adds the thread's rows of its columns to sum, four at a time on their way.
template <int N, class T, class B>
__device__ __forceinline__ void sum_rows_share(float (&sum)[N], const tile<N> &t, const T *x, int64_t ld, B vector) {
    int64_t row = t.row;
    for (; row + 3 * t.step < t.end; row += 4 * t.step) {
        float v[4][N];
#pragma unroll
        for (int r = 0; r < 4; r++) load(v[r], x + (row + r * t.step) * ld + t.col, t.n, vector);
#pragma unroll
        for (int r = 0; r < 4; r++)
#pragma unroll
            for (int k = 0; k < N; k++) sum[k] += v[r][k];
    }
    for (; row < t.end; row += t.step) {
        float v[N];
        load(v, x + row * ld + t.col, t.n, vector);
#pragma unroll
        for (int k = 0; k < N; k++) sum[k] += v[k];
    }
}
// s[gridDim.y, D] (+)= the sums over M rows of x, each over its share of the rows, which are ld apart.
template <class T>
__device__ __forceinline__ void sum_rows(float *s, const T *x, int64_t M, int64_t ld, int D, int lanes, bool acc) {
    constexpr int N = PACK<T>;
    const tile<N> t(lanes, M, D);
    float sum[N] = {};
    if (t.n == N && vectorable(x, ld * sizeof(T)))
        sum_rows_share(sum, t, x, ld, yes());
    else
        sum_rows_share(sum, t, x, ld, no());
    add_columns(s, sum, lanes, D, acc);
}
KERNEL sum_rows_f32(float *s, const float *x, int64_t M, int64_t ld, int D, int lanes, bool acc) {
    sum_rows(s, x, M, ld, D, lanes, acc);
}
KERNEL sum_rows_bf16(float *s, const bf16 *x, int64_t M, int64_t ld, int D, int lanes, bool acc) {
    sum_rows(s, x, M, ld, D, lanes, acc);
}

// y[M, D] = x[M, D] scale[D] + shift[D]
template <int N, class T, class B>
__device__ __forceinline__ void scale_shift_share(T *__restrict__ y, const tile<N> &t, const T *__restrict__ x,
                                                  const float (&scale)[N], const float (&shift)[N], int D, B vector) {
#pragma unroll 2
    for (int64_t row = t.row; row < t.end; row += t.step) {
        float v[N];
        load(v, x + row * D + t.col, t.n, vector);
#pragma unroll
        for (int k = 0; k < N; k++) v[k] = fmaf(v[k], scale[k], shift[k]);
        store(y + row * D + t.col, v, t.n, vector);
    }
}
template <class T>
__device__ __forceinline__ void scale_shift(T *y, const T *x, const float *scale, const float *shift, int64_t M, int D,
                                            int lanes) {
    constexpr int N = PACK<T>;
    const tile<N> t(lanes, M, D);
    float a[N], b[N];
    load(a, scale + t.col, t.n, no());
    load(b, shift + t.col, t.n, no());
    if (vectorable(y, x, D * sizeof(T)))
        scale_shift_share(y, t, x, a, b, D, yes());
    else
        scale_shift_share(y, t, x, a, b, D, no());
}

// dx[M, D] = dy[M, D] scale[D]; dscale[gridDim.y, D] (+)= the sums of dy x over a share of the rows, dshift those of
// dy. dx, dscale and dshift may be NULL, x without dscale; dx may be dy.
template <int N, class T, class B>
__device__ __forceinline__ void scale_shift_backward_share(T *dx, float (&dscale)[N], float (&dshift)[N],
                                                           const tile<N> &t, const T *dy, const T *x,
                                                           const float (&scale)[N], int D, B vector) {
    for (int64_t row = t.row; row < t.end; row += t.step) {
        const int64_t at = row * D + t.col;
        float g[N], v[N] = {};
        load(g, dy + at, t.n, vector);
        if (x != 0) load(v, x + at, t.n, vector);
#pragma unroll
        for (int k = 0; k < N; k++) {
            dscale[k] = fmaf(g[k], v[k], dscale[k]);
            dshift[k] += g[k];
            g[k] *= scale[k];
        }
        if (dx != 0) store(dx + at, g, t.n, vector);
    }
}
template <class T>
__device__ __forceinline__ void scale_shift_backward(T *dx, float *dscale, float *dshift, const T *dy, const T *x,
                                                     const float *scale, int64_t M, int D, int lanes, bool acc) {
    constexpr int N = PACK<T>;
    const tile<N> t(lanes, M, D);
    float a[N], sx[N] = {}, s[N] = {};
    load(a, scale + t.col, t.n, no());
    if (vectorable(dx, dy, x, D * sizeof(T)))
        scale_shift_backward_share(dx, sx, s, t, dy, x, a, D, yes());
    else
        scale_shift_backward_share(dx, sx, s, t, dy, x, a, D, no());
    if (dscale != 0) add_columns(dscale, sx, lanes, D, acc);
    if (dshift != 0) add_columns(dshift, s, lanes, D, acc);
}
#define SCALE_SHIFT(T, suffix)                                                                              \
    KERNEL scale_shift_##suffix(T *y, const T *x, const float *scale, const float *shift, int64_t M, int D, \
                                int lanes) {                                                                \
        scale_shift(y, x, scale, shift, M, D, lanes);                                                       \
    }                                                                                                       \
    KERNEL scale_shift_backward_##suffix(T *dx, float *dscale, float *dshift, const T *dy, const T *x,      \
                                         const float *scale, int64_t M, int D, int lanes, bool acc) {       \
        scale_shift_backward(dx, dscale, dshift, dy, x, scale, M, D, lanes, acc);                           \
    }
SCALE_SHIFT(float, f32)
SCALE_SHIFT(bf16, bf16)
