/* clang-format off */
//go:build cgo
/* clang-format on */

// The two passes of image resampling. Integers only, hence the same bytes on every
// machine and in resample.go, which a test compares with this file.
#include "resample.h"

#include <string.h>

enum { BITS = 22, HALF = 1 << (BITS - 1), PIXEL = 4, BLOCK = 16 };

typedef uint8_t bytes4 __attribute__((vector_size(4)));
typedef int32_t ints4 __attribute__((vector_size(16)));
typedef uint8_t bytes16 __attribute__((vector_size(16)));
typedef int32_t ints16 __attribute__((vector_size(64)));

// TO_BYTES leaves fixed point: v is brought into 0 to 255, which a filter with negative
// weights leaves. A comparison of vectors gives -1 where it holds.
#define TO_BYTES(ints, bytes, v)                      \
    ({                                                \
        ints t_ = (v) >> BITS;                        \
        t_ &= ~(t_ < 0);                              \
        t_ = (t_ & ~(t_ > 255)) | ((t_ > 255) & 255); \
        __builtin_convertvector(t_, bytes);           \
    })

// SSE2 has no 32-bit multiplication, so x86 chooses among three builds when the
// program is loaded.
#if defined(__x86_64__) && defined(__GLIBC__)
#define FOR_EACH_CPU __attribute__((target_clones("avx2", "sse4.1", "default")))
#else
#define FOR_EACH_CPU
#endif

FOR_EACH_CPU
void lift_resample_rows(uint8_t *dst, const uint8_t *src, int rows, int src_width, int n, const int32_t *first,
                        const int32_t *count, const int32_t *weights, int taps) {
    for (int y = 0; y < rows; y++, src += (size_t)src_width * PIXEL) {
        for (int i = 0; i < n; i++, dst += PIXEL) {
            const uint8_t *p = src + (size_t)first[i] * PIXEL;
            const int32_t *w = weights + (size_t)i * taps;
            ints4 sum = {HALF, HALF, HALF, HALF};
            for (int k = 0; k < count[i]; k++, p += PIXEL) {
                bytes4 b;
                memcpy(&b, p, PIXEL);
                sum += __builtin_convertvector(b, ints4) * w[k];
            }
            bytes4 b = TO_BYTES(ints4, bytes4, sum);
            memcpy(dst, &b, PIXEL);
        }
    }
}

FOR_EACH_CPU
void lift_resample_columns(uint8_t *dst, const uint8_t *src, int width, int src_width, int n, const int32_t *first,
                           const int32_t *count, const int32_t *weights, int taps) {
    size_t stride = (size_t)src_width * PIXEL, bytes = (size_t)width * PIXEL;
    for (int i = 0; i < n; i++, dst += bytes) {
        const uint8_t *top = src + (size_t)first[i] * stride;
        const int32_t *w = weights + (size_t)i * taps;
        size_t x = 0;
        for (; x + BLOCK <= bytes; x += BLOCK) {
            ints16 sum = {0};
            sum += HALF;
            for (int k = 0; k < count[i]; k++) {
                bytes16 b;
                memcpy(&b, top + k * stride + x, BLOCK);
                sum += __builtin_convertvector(b, ints16) * w[k];
            }
            bytes16 b = TO_BYTES(ints16, bytes16, sum);
            memcpy(dst + x, &b, BLOCK);
        }
        for (; x < bytes; x++) {
            int32_t sum = HALF;
            for (int k = 0; k < count[i]; k++) sum += top[k * stride + x] * w[k];
            sum >>= BITS;
            dst[x] = (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
        }
    }
}
