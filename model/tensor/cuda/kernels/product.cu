// The passes after a product: y[M, N] = beta y + bias[N] + add[M, N], and an activation of it. A thread takes 16 bytes.
#include "pack.cuh"
#include "activation.cuh"

// finish is v, the product, with what is added at column c.
__device__ __forceinline__ float finish(float v, const float *bias, bool adds, float add, int c) {
    if (bias) v += bias[c];
    return adds ? v + add : v;
}

// finish_product: the columns are a range of rows of ld values; add has cols a row. With beta 0, y is not read.
template <class T>
__device__ __forceinline__ void finish_product(T *y, const float *bias, const T *add, int64_t rows, int cols,
                                               int64_t ld, float beta) {
    constexpr int N = PACK<T>;
    const int64_t n = rows * cols, first = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * N;
    if (first >= n) return;
    const int64_t row = first / cols;
    const int col = (int)(first - row * cols);
    if (cols % N == 0 && vectorable(y, add, ld * sizeof(T))) {
        float v[N] = {}, a[N] = {};
        T *to = y + row * ld + col;
        if (beta != 0.0f) load(v, to, N, yes());
        if (add) load(a, add + first, N, yes());
#pragma unroll
        for (int k = 0; k < N; k++) v[k] = finish(beta == 0.0f ? 0.0f : beta * v[k], bias, add != 0, a[k], col + k);
        store(to, v, N, yes());
        return;
    }
    for (int64_t i = first; i < first + N && i < n; i++) {
        const int64_t r = i / cols;
        const int c = (int)(i - r * cols);
        T *to = y + r * ld + c;
        const float v = beta == 0.0f ? 0.0f : beta * to_float(*to);
        *to = from_float<T>(finish(v, bias, add != 0, add ? to_float(add[i]) : 0.0f, c));
    }
}

// finish_activation: x += bias + add, y = f(x), of x as it is stored.
template <class T>
__device__ __forceinline__ void finish_activation(T *y, T *x, const float *bias, const T *add, int64_t rows, int cols,
                                                  int f) {
    constexpr int N = PACK<T>;
    const int64_t n = rows * cols, first = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * N;
    if (first >= n) return;
    if (cols % N == 0 && vectorable(y, x, add)) {
        const int col = (int)(first % cols);
        float v[N], a[N] = {};
        load(v, x + first, N, yes());
        if (add) load(a, add + first, N, yes());
#pragma unroll
        for (int k = 0; k < N; k++) v[k] = to_float(from_float<T>(finish(v[k], bias, add != 0, a[k], col + k)));
        store(x + first, v, N, yes());
#pragma unroll
        for (int k = 0; k < N; k++) v[k] = activate(f, v[k]);
        store(y + first, v, N, yes());
        return;
    }
    for (int64_t i = first; i < first + N && i < n; i++) {
        const float v = finish(to_float(x[i]), bias, add != 0, add ? to_float(add[i]) : 0.0f, (int)(i % cols));
        x[i] = from_float<T>(v);
        y[i] = from_float<T>(activate(f, to_float(x[i])));
    }
}

#define FINISH(T, type)                                                                                                \
    extern "C" __global__ void __launch_bounds__(256)                                                                  \
        finish_product_##type(T *y, const float *bias, const T *add, int64_t rows, int cols, int64_t ld, float beta) { \
        finish_product(y, bias, add, rows, cols, ld, beta);                                                            \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(256)                                                                  \
        finish_activation_##type(T *y, T *x, const float *bias, const T *add, int64_t rows, int cols, int f) {         \
        finish_activation(y, x, bias, add, rows, cols, f);                                                             \
    }
FINISH(float, f32)
FINISH(bf16, bf16)
