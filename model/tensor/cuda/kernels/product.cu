// What follows a matrix product: y[M, N] = beta y + bias[N] + add[M, N], and an activation of it: the bias of a Linear,
// a residual, GELU(x W' + b). y is read and written once, 16 bytes a thread. Backward: the bias's gradient is sum_rows,
// the activation's activate_backward (elementwise.cu); what is added passes its gradient on.
#include "pack.cuh"
#include "activation.cuh"

// terms reads N values of the bias from column col on, and of what is added from value i on; what is NULL is zeros.
template <int N, class T>
__device__ __forceinline__ void terms(float (&b)[N], float (&a)[N], const float *bias, int col, const T *add,
                                      int64_t i) {
#pragma unroll
    for (int k = 0; k < N; k++) a[k] = b[k] = 0.0f;
    if (bias) load(b, bias + col, N, yes());
    if (add) load(a, add + i, N, yes());
}

// finish_product: the columns are a range of rows of ld values; add has cols a row. With beta 0, y is not read.
template <class T>
__device__ __forceinline__ void finish_product(T *y, const float *bias, const T *add, int64_t rows, int cols,
                                               int64_t ld, float beta) {
    constexpr int N = PACK<T>;
    const int64_t n = rows * cols, first = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * N;
    if (first >= n) return;
    if (cols % N == 0 && vectorable(y, bias, add, ld * sizeof(T))) {
        const int64_t row = first / cols;
        const int col = (int)(first - row * cols);
        float v[N] = {}, b[N], a[N];
        T *to = y + row * ld + col;
        if (beta != 0.0f) load(v, to, N, yes());
        terms(b, a, bias, col, add, first);
#pragma unroll
        for (int k = 0; k < N; k++) v[k] = beta * v[k] + b[k] + a[k];
        store(to, v, N, yes());
        return;
    }
    for (int64_t i = first; i < first + N && i < n; i++) {
        const int64_t r = i / cols;
        const int c = (int)(i - r * cols);
        T *to = y + r * ld + c;
        const float v = beta == 0.0f ? 0.0f : beta * to_float(*to);
        *to = from_float<T>(v + (bias ? bias[c] : 0.0f) + (add ? to_float(add[i]) : 0.0f));
    }
}

// finish_activation: x += bias + add, y = f(x), of x as it is stored, which the backward reads.
template <class T>
__device__ __forceinline__ void finish_activation(T *y, T *x, const float *bias, const T *add, int64_t rows, int cols,
                                                  int f) {
    constexpr int N = PACK<T>;
    const int64_t n = rows * cols, first = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * N;
    if (first >= n) return;
    if (cols % N == 0 && vectorable(y, x, bias, add)) {
        float v[N], b[N], a[N];
        load(v, x + first, N, yes());
        terms(b, a, bias, (int)(first % cols), add, first);
#pragma unroll
        for (int k = 0; k < N; k++) v[k] = to_float(from_float<T>(v[k] + b[k] + a[k]));
        store(x + first, v, N, yes());
#pragma unroll
        for (int k = 0; k < N; k++) v[k] = activate(f, v[k]);
        store(y + first, v, N, yes());
        return;
    }
    for (int64_t i = first; i < first + N && i < n; i++) {
        const float b = bias ? bias[i % cols] : 0.0f;
        x[i] = from_float<T>(to_float(x[i]) + b + (add ? to_float(add[i]) : 0.0f));
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
