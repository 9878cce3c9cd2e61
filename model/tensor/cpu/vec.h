// Vectors of W floats in GCC's portable vector extension, and the elementary functions on them. An including file sets
// W to its instruction set's width; the little that the extension lacks (max, a good select) has an intrinsic per set.
#if !defined(__GNUC__) || defined(__clang__)
#error "these kernels are written in GCC's vector extension: build with CC=gcc"
#endif

#include <math.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

typedef float V __attribute__((vector_size(W * 4)));
typedef int32_t VI __attribute__((vector_size(W * 4)));
typedef float VU __attribute__((vector_size(W * 4), aligned(4), may_alias));

INLINE V load(const float *p) {
    return *(const VU *)p;
}
INLINE void store(float *p, V v) {
    *(VU *)p = v;
}
INLINE V splat(float x) {
    return (V){0} + x;
}

// The first n < W floats; the other lanes are 0 and are not touched.
INLINE V load_part(const float *p, long n) {
    float t[W] = {0};
    memcpy(t, p, (size_t)n * 4);
    return load(t);
}

INLINE void store_part(float *p, V v, long n) {
    float t[W];
    store(t, v);
    memcpy(p, t, (size_t)n * 4);
}

INLINE V vselect(VI mask, V a, V b) {
    return (V)(((VI)a & mask) | ((VI)b & ~mask));
}

// a > b ? a : b
INLINE V vmax(V a, V b) {
#if W == 16
    return (V)_mm512_max_ps((__m512)a, (__m512)b);
#elif W == 8
    return (V)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
    return (V)_mm_max_ps((__m128)a, (__m128)b);
#else
    return vselect(a > b, a, b);
#endif
}

// a < b ? a : b
INLINE V vmin(V a, V b) {
#if W == 16
    return (V)_mm512_min_ps((__m512)a, (__m512)b);
#elif W == 8
    return (V)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
    return (V)_mm_min_ps((__m128)a, (__m128)b);
#else
    return vselect(a < b, a, b);
#endif
}

// The lanes below n.
INLINE VI lanes_below(long n) {
    VI index;
    for (int i = 0; i < W; i++) index[i] = i;
    return index < (int32_t)n;
}

// Lanes at and beyond n are 0.
INLINE V first_lanes(V v, long n) {
    return (V)((VI)v & lanes_below(n));
}

// Lane i of the result is lane i + n of v, cyclically; n is a constant.
INLINE V rotated(V v, int n) {
    VI index;
    for (int i = 0; i < W; i++) index[i] = (i + n) % W;
    return __builtin_shuffle(v, index);
}

INLINE V vabs(V a) {
    return (V)((VI)a & 0x7fffffff);
}

// Sums and maxima over the lanes, halving: the order is a function of W.
INLINE float hsum(V v) {
#if W > 8
    v += rotated(v, 8);
#endif
#if W > 4
    v += rotated(v, 4);
#endif
    v += rotated(v, 2);
    v += rotated(v, 1);
    return v[0];
}

INLINE float hmax(V v) {
#if W > 8
    v = vmax(v, rotated(v, 8));
#endif
#if W > 4
    v = vmax(v, rotated(v, 4));
#endif
    v = vmax(v, rotated(v, 2));
    v = vmax(v, rotated(v, 1));
    return v[0];
}

// exp(x): x = n ln2 + r, |r| <= ln2/2, 2^n (1 + r + r^2 q(r)). Relative error below 1e-7 for -87.3 <= x <= 88; x is
// clamped to that range, NaN stays NaN.
INLINE V vexp(V x) {
    x = vmin(splat(88.0f), x);  // in this order NaN passes
    x = vmax(splat(-87.3f), x);
    V t = x * 1.44269504f + 12582912.0f;  // 1.5 * 2^23: its last bits now hold n
    V n = t - 12582912.0f;
    V r = x - n * 0.693145752f;  // ln2 in two parts; the product with the first is exact
    r = r - n * 1.42860677e-6f;
    V q = splat(0.00139336872f);
    q = splat(0.000198578287f) * r + q;
    q = q * r + 0.00833336078f;
    q = q * r + 0.0416664630f;
    q = q * r + 0.166666672f;
    q = q * r + 0.5f;
    q = q * r * r + r;
    V p = (V)(((VI)t << 23) + (127 << 23));
    return q * p + p;
}

// The tail of the normal distribution: P(N > u) / exp(-u^2/2) for 0 <= u <= 14, relative error below 4e-7.
INLINE V vmills(V u) {
    V t = 1.0f / (u * 0.3f + 1.0f);
    V p = splat(-0.020612845f);
    p = p * t + 0.11237584f;
    p = p * t - 0.2280676f;
    p = p * t + 0.19158176f;
    p = p * t - 0.079247385f;
    p = p * t + 0.09605784f;
    p = p * t + 0.07842558f;
    p = p * t + 0.110227324f;
    p = p * t + 0.11957285f;
    p = p * t + 0.11968664f;
    return p * t;
}
