// Cuts images into patches, and copies tokens. The sum over images is sum_rows (elementwise.cu) with the images as
// rows.
#include "pack.cuh"

#define KERNEL extern "C" __global__ void __launch_bounds__(256)

// p[B, H/P, W/P, C, P, P] = img[B, C, H, W] by patches; a block has one row of patches, which are neighbours in p.
template <class T>
__device__ __forceinline__ void patches(T *p, const float *img, int C, int H, int W, int P) {
    const unsigned rows = H / P, cols = W / P, square = P * P, size = C * square, n = cols * size;
    const unsigned b = blockIdx.x / rows, r = blockIdx.x % rows;
    img += (int64_t)b * C * H * W + (int64_t)r * P * W;
    p += (int64_t)blockIdx.x * n;
    for (unsigned i = threadIdx.x; i < n; i += blockDim.x) {
        const unsigned col = i / size, in = i % size, c = in / square, at = in % square, y = at / P, x = at % P;
        p[i] = from_float<T>(img[((int64_t)c * H + y) * W + col * P + x]);
    }
}
KERNEL patches_f32(float *p, const float *img, int C, int H, int W, int P) {
    patches(p, img, C, H, W, P);
}
KERNEL patches_bf16(bf16 *p, const float *img, int C, int H, int W, int P) {
    patches(p, img, C, H, W, P);
}

// dst[b][n] (+)= src[b][n] for b < B, with images dst_stride and src_stride values apart; src_stride may be 0.
template <int N, class D, class S>
__device__ __forceinline__ void copy_tokens(D *dst, const S *src, int B, int64_t dst_stride, int64_t src_stride,
                                            int64_t n, bool acc) {
    const int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * N;
    if (i >= n) return;
    const bool vector = i + N <= n && vectorable(dst, src, dst_stride * sizeof(D), src_stride * sizeof(S));
    for (int b = blockIdx.y; b < B; b += gridDim.y) {
        D *d = dst + b * dst_stride + i;
        float v[N];
        load(v, src + b * src_stride + i, n - i, vector);
        if (acc) {
            float w[N];
            load(w, d, n - i, vector);
#pragma unroll
            for (int k = 0; k < N; k++) v[k] += w[k];
        }
        store(d, v, n - i, vector);
    }
}
#define COPY_TOKENS(name, D, S, N)                                                                          \
    KERNEL name(D *dst, const S *src, int B, int64_t dst_stride, int64_t src_stride, int64_t n, bool acc) { \
        copy_tokens<N>(dst, src, B, dst_stride, src_stride, n, acc);                                        \
    }
COPY_TOKENS(copy_tokens_f32_f32, float, float, 4)
COPY_TOKENS(copy_tokens_f32_bf16, float, bf16, 4)
COPY_TOKENS(copy_tokens_bf16_f32, bf16, float, 4)
COPY_TOKENS(copy_tokens_bf16_bf16, bf16, bf16, 8)
