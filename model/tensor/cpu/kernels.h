// The CPU kernels: what Go calls. Each is compiled for several instruction sets (isa_*.c), and dispatch.c chooses once.
//
// Letters as in tensor.Kernels: M rows, D width (row length), B images, T tokens, H heads. Tensors are dense and
// row-major; ld is the distance between rows in floats. "acc": the result is added to what is there, else it is
// assigned. Reductions run over fixed lanes in a fixed order: the bits depend on values, shapes and instruction set
// alone.
#ifndef LIFT_KERNELS_H
#define LIFT_KERNELS_H

#include <stddef.h>
#include <stdint.h>

// An attention: where queries, keys and values lie (see tensor.Heads). dh is the width of one head.
typedef struct {
    const float *q, *k, *v;  // of the first image's first token
    long ldq, ldkv;          // between tokens
    int B, Tq, T, H, dh;
    int causal;  // query i sees keys 0 to i alone
} heads_t;

// How many rows sampled_product takes at a time. Its scratch holds so many of both factors.
enum { LIFT_SAMPLED_ROWS = 128 };

// X(return type, name, parameters, arguments)
#define LIFT_KERNELS(X)                                                                                               \
    X(void, sum_rows, (float *s, const float *x, long M, long D, int acc), (s, x, M, D, acc))                         \
    X(void, fill, (float *y, float c, long n), (y, c, n))                                                             \
    X(void, add, (float *y, const float *a, const float *b, long n), (y, a, b, n))                                    \
    X(void, scale, (float *y, const float *x, float c, long n), (y, x, c, n))                                         \
    X(void, add_scaled, (float *y, const float *a, const float *b, const float *s, long n), (y, a, b, s, n))          \
    X(void, dot, (float *d, const float *a, const float *b, long n, int acc), (d, a, b, n, acc))                      \
    X(void, add_rows, (float *y, const float *a, const float *row, long M, long D), (y, a, row, M, D))                \
    X(void, scale_shift, (float *y, const float *x, const float *scale, const float *shift, long M, long D),          \
      (y, x, scale, shift, M, D))                                                                                     \
    X(void, scale_shift_backward,                                                                                     \
      (float *dx, float *dscale, float *dshift, const float *dy, const float *x, const float *scale, long M, long D), \
      (dx, dscale, dshift, dy, x, scale, M, D))                                                                       \
    X(void, activate, (int f, float *y, const float *x, long n), (f, y, x, n))                                        \
    X(void, activate_backward, (int f, float *dx, const float *dy, const float *x, long n), (f, dx, dy, x, n))        \
    X(void, layer_norm,                                                                                               \
      (float *y, float *stats, const float *x, const float *gain, const float *bias, long M, long D, float eps),      \
      (y, stats, x, gain, bias, M, D, eps))                                                                           \
    X(void, layer_norm_backward,                                                                                      \
      (float *dx, float *dgain, float *dbias, const float *dy, const float *x, const float *gain, const float *stats, \
       long M, long D, int acc),                                                                                      \
      (dx, dgain, dbias, dy, x, gain, stats, M, D, acc))                                                              \
    X(void, normalize_rows, (float *y, float *norms, const float *x, long M, long D, float eps),                      \
      (y, norms, x, M, D, eps))                                                                                       \
    X(void, normalize_rows_backward,                                                                                  \
      (float *dx, const float *dy, const float *y, const float *norms, long M, long D, float eps),                    \
      (dx, dy, y, norms, M, D, eps))                                                                                  \
    X(size_t, attention_scratch, (heads_t h, int backward), (h, backward))                                            \
    X(void, attention, (float *out, float *stats, heads_t h, float *scratch), (out, stats, h, scratch))               \
    X(void, attention_backward,                                                                                       \
      (float *dq, float *dk, float *dv, const float *dout, const float *out, const float *stats, heads_t h,           \
       float *scratch),                                                                                               \
      (dq, dk, dv, dout, out, stats, h, scratch))                                                                     \
    X(void, patches, (float *p, const float *img, int B, int C, int H, int W, int P), (p, img, B, C, H, W, P))        \
    X(void, copy_tokens, (float *dst, const float *src, int B, long dstStride, long srcStride, long n, int acc),      \
      (dst, src, B, dstStride, srcStride, n, acc))                                                                    \
    X(void, sum_batch, (float *s, const float *x, int B, long stride, long n, int acc), (s, x, B, stride, n, acc))    \
    X(void, scatter, (float *y, const float *v, const int32_t *index, long n), (y, v, index, n))                      \
    X(void, gather, (float *v, const float *x, const int32_t *index, long n, long origin, int acc),                   \
      (v, x, index, n, origin, acc))                                                                                  \
    X(void, sampled_product,                                                                                          \
      (float *s, const float *a, const float *b, const int32_t *index, long n, long origin, long M, long N, long K,   \
       int acc, float *scratch),                                                                                      \
      (s, a, b, index, n, origin, M, N, K, acc, scratch))                                                             \
    X(void, softmax_cross_entropy,                                                                                    \
      (float *loss, float *dlogits, const float *logits, const int32_t *labels, const float *adjust,                  \
       const float *margin, const float *weight, int focal, long M, long C, float scale),                             \
      (loss, dlogits, logits, labels, adjust, margin, weight, focal, M, C, scale))                                    \
    X(void, lade,                                                                                                     \
      (float *loss, float *dlogits, const float *logits, const int32_t *labels, const float *prior,                   \
       const float *shift, float lambda, float weight, long M, long C, float scale),                                  \
      (loss, dlogits, logits, labels, prior, shift, lambda, weight, M, C, scale))

#define LIFT_DECLARE(type, name, params, args) type lift_##name params;
LIFT_KERNELS(LIFT_DECLARE)

// The instruction sets, best last. lift_isa_best is the best that this machine runs; lift_isa_use chooses one.
enum { LIFT_ISA_BASE, LIFT_ISA_AVX2, LIFT_ISA_AVX512 };
int lift_isa_best(void);
int lift_isa_use(int isa);
int lift_isa_used(void);
const char *lift_isa_name(int isa);

// products.c
int lift_product(float *c, const float *a, const float *b, int ta, int tb, long M, long N, long K, long ldc, long lda,
                 long ldb, float beta, const float *bias, const float *add);
int lift_dnnl_version(void);
int lift_dnnl_isa(void);
void lift_set_threads(int n);

// memory.c
void *lift_alloc(size_t bytes);
void lift_free(void *p, size_t bytes);
void lift_keep_heap(void);

#endif
