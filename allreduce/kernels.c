#include "kernels.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#define LIFT_X86 1
#endif

// The packing kernels touch memory in their first pass over a block only: they ask for it AHEAD values early.
enum { BLOCK = 256, LANES = 8, AHEAD = 8 * BLOCK };

// One row of block primitives a level. unpack may read no byte at or beyond end; pack may write 64 bytes too many.
typedef struct {
    void (*unpack)(int64_t *v, const uint8_t *p, const uint8_t *end, int w, const int64_t *acc);
    int (*width)(const int64_t *v);
    void (*pack)(uint8_t *p, const int64_t *v, int w);
    void (*finish)(float *f, const int64_t *v, float scale, lift_fold_state *st);
    int64_t (*encode)(int64_t *acc, const float *src, float scale, int64_t limit, int store);
    int64_t (*keep)(float *dst, const float *src, float scale, int64_t limit, int stream);
    // the integers of floats, into v, and their width; NULL where there is no such pass.
    int (*convert)(int64_t *v, const float *src, float scale);
    // unpack and finish in one pass; NULL where there is none. stream: write f past the cache.
    void (*unpack_finish)(float *f, const uint8_t *p, const uint8_t *end, int w, const int64_t *acc,
                          const float *floats, float scale, int stream, lift_fold_state *st);
} level_ops;

// What encode does with its integers.
enum { ADD = 0, STORE = 1, STREAM = 2 };

// From this many values on, what is written is not read before it has left the cache, so it goes past it: that saves
// reading the lines first.
enum { STREAM_VALUES = 32 << 10 };

// ---- plain C; n < BLOCK for the short last block of a vector at every level

static void unpack_n(int64_t *v, const uint8_t *p, int w, const int64_t *acc, int n) {
    for (int i = 0; i < n; i++) {
        uint64_t x = 0;
        for (int k = 0; k < w; k++) x |= (uint64_t)p[i * w + k] << (64 - 8 * w + 8 * k);
        v[i] = (w ? (int64_t)x >> (64 - 8 * w) : 0) + (acc ? acc[i] : 0);
    }
}

static int width_of(uint64_t magnitude, uint64_t any) {
    if (!any) return 0;
    if (!magnitude) return 1;
    return (64 - __builtin_clzll(magnitude) + 8) / 8;
}

static int width_n(const int64_t *v, int n) {
    uint64_t magnitude = 0, any = 0;
    for (int i = 0; i < n; i++) {
        magnitude |= (uint64_t)(v[i] ^ (v[i] >> 63));
        any |= (uint64_t)v[i];
    }
    return width_of(magnitude, any);
}

static void pack_n(uint8_t *p, const int64_t *v, int w, int n) {
    for (int i = 0; i < n; i++)
        for (int k = 0; k < w; k++) p[i * w + k] = (uint8_t)(v[i] >> (8 * k));
}

static void finish_n(float *f, const int64_t *v, float scale, lift_fold_state *st, int n) {
    for (int i = 0; i < n; i++) {
        st->a[i % LANES] += (uint64_t)v[i];
        st->b[i % LANES] += st->a[i % LANES];
        f[i] = (float)v[i] * scale;
    }
}

static int64_t encode_n(int64_t *acc, const float *src, float scale, int64_t limit, int store, int n) {
    for (int i = 0; i < n; i++) {
        float y = src[i] * scale;
        if (!(fabsf(y) <= 0x1p62f)) return i;
        int64_t q = llrintf(y);
        if (q > limit || q < -limit) return i;
        acc[i] = store ? q : acc[i] + q;
    }
    return -1;
}

static int64_t keep_n(float *dst, const float *src, float scale, int64_t limit, int n) {
    int64_t q[BLOCK];
    int64_t bad = encode_n(q, src, scale, limit, STORE, n);
    memcpy(dst, src, (size_t)(bad < 0 ? n : 0) * sizeof *dst);
    return bad;
}

static void unpack_plain(int64_t *v, const uint8_t *p, const uint8_t *end, int w, const int64_t *acc) {
    (void)end;
    unpack_n(v, p, w, acc, BLOCK);
}
static int width_plain(const int64_t *v) {
    return width_n(v, BLOCK);
}
static void pack_plain(uint8_t *p, const int64_t *v, int w) {
    pack_n(p, v, w, BLOCK);
}
static void finish_plain(float *f, const int64_t *v, float scale, lift_fold_state *st) {
    finish_n(f, v, scale, st, BLOCK);
}
static int64_t encode_plain(int64_t *acc, const float *src, float scale, int64_t limit, int store) {
    return encode_n(acc, src, scale, limit, store, BLOCK);
}
static int64_t keep_plain(float *dst, const float *src, float scale, int64_t limit, int stream) {
    (void)stream;
    return keep_n(dst, src, scale, limit, BLOCK);
}

#ifdef LIFT_X86

// ---- AVX2: two values a 128-bit lane

#define AVX2 __attribute__((target("avx2")))

// Shuffle masks by width, two values a lane: spread puts w-byte values into 64-bit slots, squeeze the other way.
static uint8_t spread2[9][32], squeeze2[9][32];
// The same over 64 bytes, eight values; spread8 puts them at the top of their slots.
static uint8_t spread8[9][64], squeeze8[9][64];
static uint64_t spread8_mask[9];

__attribute__((constructor)) static void make_tables(void) {
    for (int w = 1; w <= 8; w++) {
        memset(spread2[w], 0x80, 32);
        memset(squeeze2[w], 0x80, 32);
        for (int i = 0; i < 2; i++)
            for (int k = 0; k < w; k++) {
                spread2[w][i * 8 + k] = spread2[w][16 + i * 8 + k] = (uint8_t)(i * w + k);
                squeeze2[w][i * w + k] = squeeze2[w][16 + i * w + k] = (uint8_t)(i * 8 + k);
            }
        for (int i = 0; i < 8; i++)
            for (int k = 0; k < w; k++) {
                spread8[w][i * 8 + 8 - w + k] = (uint8_t)(i * w + k);
                spread8_mask[w] |= 1ull << (i * 8 + 8 - w + k);
                squeeze8[w][i * w + k] = (uint8_t)(i * 8 + k);
            }
    }
}

AVX2 static void unpack_avx2(int64_t *v, const uint8_t *p, const uint8_t *end, int w, const int64_t *acc) {
    __m256i mask = _mm256_loadu_si256((const __m256i *)spread2[w]);
    __m256i sign = _mm256_set1_epi64x(w ? (int64_t)1 << (8 * w - 1) : 0);
    int i = 0;
    if (w)
        for (; i < BLOCK && p + 2 * w + 16 <= end; i += 4, p += 4 * w) {
            __m256i x = _mm256_loadu2_m128i((const __m128i *)(p + 2 * w), (const __m128i *)p);
            x = _mm256_xor_si256(_mm256_shuffle_epi8(x, mask), sign);
            x = _mm256_sub_epi64(x, sign);
            if (acc) x = _mm256_add_epi64(x, _mm256_loadu_si256((const __m256i *)(acc + i)));
            _mm256_storeu_si256((__m256i *)(v + i), x);
        }
    unpack_n(v + i, p, w, acc ? acc + i : NULL, BLOCK - i);
}

AVX2 static int width_avx2(const int64_t *v) {
    __m256i magnitude = _mm256_setzero_si256(), any = magnitude, zero = magnitude;
    for (int i = 0; i < BLOCK; i += 4) {
        __m256i x = _mm256_loadu_si256((const __m256i *)(v + i));
        any = _mm256_or_si256(any, x);
        magnitude = _mm256_or_si256(magnitude, _mm256_xor_si256(x, _mm256_cmpgt_epi64(zero, x)));
    }
    uint64_t m[4], a[4];
    _mm256_storeu_si256((__m256i *)m, magnitude);
    _mm256_storeu_si256((__m256i *)a, any);
    return width_of(m[0] | m[1] | m[2] | m[3], a[0] | a[1] | a[2] | a[3]);
}

AVX2 static void pack_avx2(uint8_t *p, const int64_t *v, int w) {
    __m256i mask = _mm256_loadu_si256((const __m256i *)squeeze2[w]);
    for (int i = 0; i < BLOCK; i += 4, p += 4 * w) {
        __m256i x = _mm256_shuffle_epi8(_mm256_loadu_si256((const __m256i *)(v + i)), mask);
        _mm_storeu_si128((__m128i *)p, _mm256_castsi256_si128(x));
        _mm_storeu_si128((__m128i *)(p + 2 * w), _mm256_extracti128_si256(x, 1));
    }
}

AVX2 static void finish_avx2(float *f, const int64_t *v, float scale, lift_fold_state *st) {
    __m256i *sa = (__m256i *)st->a, *sb = (__m256i *)st->b;
    __m256i a0 = _mm256_loadu_si256(sa), a1 = _mm256_loadu_si256(sa + 1);
    __m256i b0 = _mm256_loadu_si256(sb), b1 = _mm256_loadu_si256(sb + 1);
    for (int i = 0; i < BLOCK; i += LANES) {
        a0 = _mm256_add_epi64(a0, _mm256_loadu_si256((const __m256i *)(v + i)));
        a1 = _mm256_add_epi64(a1, _mm256_loadu_si256((const __m256i *)(v + i + 4)));
        b0 = _mm256_add_epi64(b0, a0);
        b1 = _mm256_add_epi64(b1, a1);
        for (int k = 0; k < LANES; k++) f[i + k] = (float)v[i + k] * scale;
    }
    _mm256_storeu_si256(sa, a0), _mm256_storeu_si256(sa + 1, a1);
    _mm256_storeu_si256(sb, b0), _mm256_storeu_si256(sb + 1, b1);
}

// cvtss2si gives the most negative integer for what has no int64, which is beyond every limit.
AVX2 static int64_t encode_avx2(int64_t *acc, const float *src, float scale, int64_t limit, int store) {
    int64_t q[BLOCK];
    uint64_t bad = 0;
    for (int i = 0; i < BLOCK; i++) {
        q[i] = _mm_cvtss_si64(_mm_set_ss(src[i] * scale));
        bad |= (uint64_t)((q[i] > limit) | (q[i] < -limit));
    }
    if (bad) return encode_n(acc, src, scale, limit, store, BLOCK);
    if (store)
        memcpy(acc, q, sizeof q);
    else
        for (int i = 0; i < BLOCK; i++) acc[i] += q[i];
    return -1;
}

AVX2 static int64_t keep_avx2(float *dst, const float *src, float scale, int64_t limit, int stream) {
    int64_t q[BLOCK];
    (void)stream;
    int64_t bad = encode_avx2(q, src, scale, limit, STORE);
    if (bad < 0) memcpy(dst, src, BLOCK * sizeof *dst);
    return bad;
}

// ---- AVX-512 with VBMI: eight values a register

#define AVX512 __attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,avx512vbmi,prefer-vector-width=512")))

AVX512 static void unpack_avx512(int64_t *v, const uint8_t *p, const uint8_t *end, int w, const int64_t *acc) {
    __m512i index = _mm512_loadu_si512(spread8[w]);
    __m128i shift = _mm_cvtsi32_si128(w ? 64 - 8 * w : 0);
    __mmask64 keep = spread8_mask[w];
    __mmask64 inside = w == 8 ? ~0ull : (1ull << (8 * w)) - 1;
    for (int i = 0; i < BLOCK; i += LANES, p += 8 * w) {
        // A whole load where it stays inside the buffer: masked loads cost more.
        __m512i x = p + 64 <= end ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi8(inside, p);
        x = _mm512_sra_epi64(_mm512_maskz_permutexvar_epi8(keep, index, x), shift);
        if (acc) x = _mm512_add_epi64(x, _mm512_loadu_si512(acc + i));
        _mm512_storeu_si512(v + i, x);
    }
}

AVX512 static int width_avx512(const int64_t *v) {
    __m512i magnitude = _mm512_setzero_si512(), any = magnitude;
    for (int i = 0; i < BLOCK; i += LANES) {
        _mm_prefetch((const char *)(v + i + AHEAD), _MM_HINT_T0);
        __m512i x = _mm512_loadu_si512(v + i);
        any = _mm512_or_si512(any, x);
        magnitude = _mm512_or_si512(magnitude, _mm512_xor_si512(x, _mm512_srai_epi64(x, 63)));
    }
    return width_of((uint64_t)_mm512_reduce_or_epi64(magnitude), (uint64_t)_mm512_reduce_or_epi64(any));
}

AVX512 static void pack_avx512(uint8_t *p, const int64_t *v, int w) {
    __m512i index = _mm512_loadu_si512(squeeze8[w]);
    for (int i = 0; i < BLOCK; i += LANES, p += 8 * w)
        _mm512_storeu_si512(p, _mm512_permutexvar_epi8(index, _mm512_loadu_si512(v + i)));
}

AVX512 static void finish_avx512(float *f, const int64_t *v, float scale, lift_fold_state *st) {
    __m512i a = _mm512_loadu_si512(st->a), b = _mm512_loadu_si512(st->b);
    __m256 factor = _mm256_set1_ps(scale);
    for (int i = 0; i < BLOCK; i += LANES) {
        __m512i x = _mm512_loadu_si512(v + i);
        a = _mm512_add_epi64(a, x);
        b = _mm512_add_epi64(b, a);
        _mm256_storeu_ps(f + i, _mm256_mul_ps(_mm512_cvtepi64_ps(x), factor));
    }
    _mm512_storeu_si512(st->a, a);
    _mm512_storeu_si512(st->b, b);
}

AVX512 static int64_t encode_avx512(int64_t *acc, const float *src, float scale, int64_t limit, int store) {
    __m512i top = _mm512_set1_epi64(limit), worst = _mm512_setzero_si512();
    __m256 factor = _mm256_set1_ps(scale);
    __m512i q[BLOCK / LANES];
    for (int i = 0; i < BLOCK / LANES; i++) {
        q[i] = _mm512_cvtps_epi64(_mm256_mul_ps(_mm256_loadu_ps(src + i * LANES), factor));
        worst = _mm512_max_epu64(worst, _mm512_abs_epi64(q[i]));
    }
    if (_mm512_cmpgt_epu64_mask(worst, top)) return encode_n(acc, src, scale, limit, store, BLOCK);
    if (store == STREAM)
        for (int i = 0; i < BLOCK / LANES; i++) _mm512_stream_si512((__m512i *)(acc + i * LANES), q[i]);
    else if (store == STORE)
        for (int i = 0; i < BLOCK / LANES; i++) _mm512_storeu_si512(acc + i * LANES, q[i]);
    else
        for (int i = 0; i < BLOCK / LANES; i++)
            _mm512_storeu_si512(acc + i * LANES, _mm512_add_epi64(q[i], _mm512_loadu_si512(acc + i * LANES)));
    return -1;
}

AVX512 static int convert_avx512(int64_t *v, const float *src, float scale) {
    __m512i magnitude = _mm512_setzero_si512(), any = magnitude;
    __m256 factor = _mm256_set1_ps(scale);
    for (int i = 0; i < BLOCK; i += LANES) {
        _mm_prefetch((const char *)(src + i + AHEAD), _MM_HINT_T0);
        __m512i x = _mm512_cvtps_epi64(_mm256_mul_ps(_mm256_loadu_ps(src + i), factor));
        _mm512_storeu_si512(v + i, x);
        any = _mm512_or_si512(any, x);
        magnitude = _mm512_or_si512(magnitude, _mm512_xor_si512(x, _mm512_srai_epi64(x, 63)));
    }
    return width_of((uint64_t)_mm512_reduce_or_epi64(magnitude), (uint64_t)_mm512_reduce_or_epi64(any));
}

AVX512 static int64_t keep_avx512(float *dst, const float *src, float scale, int64_t limit, int stream) {
    __m512i top = _mm512_set1_epi64(limit), worst = _mm512_setzero_si512();
    __m512 x[BLOCK / 16], factor = _mm512_set1_ps(scale);
    for (int i = 0; i < BLOCK / 16; i++) {
        x[i] = _mm512_loadu_ps(src + i * 16);
        __m512 y = _mm512_mul_ps(x[i], factor);
        __m512i low = _mm512_cvtps_epi64(_mm512_castps512_ps256(y));
        __m512i high = _mm512_cvtps_epi64(_mm512_extractf32x8_ps(y, 1));
        worst = _mm512_max_epu64(worst, _mm512_max_epu64(_mm512_abs_epi64(low), _mm512_abs_epi64(high)));
    }
    if (_mm512_cmpgt_epu64_mask(worst, top)) return keep_n(dst, src, scale, limit, BLOCK);
    for (int i = 0; i < BLOCK / 16; i++)
        if (stream)
            _mm512_stream_ps(dst + i * 16, x[i]);
        else
            _mm512_storeu_ps(dst + i * 16, x[i]);
    return -1;
}

AVX512 static void unpack_finish_avx512(float *f, const uint8_t *p, const uint8_t *end, int w, const int64_t *acc,
                                        const float *floats, float scale, int stream, lift_fold_state *st) {
    __m512i index = _mm512_loadu_si512(spread8[w]);
    __m128i shift = _mm_cvtsi32_si128(w ? 64 - 8 * w : 0);
    __mmask64 keep = spread8_mask[w];
    __mmask64 inside = w == 8 ? ~0ull : (1ull << (8 * w)) - 1;
    __m512i a = _mm512_loadu_si512(st->a), b = _mm512_loadu_si512(st->b);
    __m512 unit = _mm512_set1_ps(1 / scale);
    __m256 factor = _mm256_set1_ps(scale);
    for (int i = 0; i < BLOCK; i += 2 * LANES) {
        __m256 half[2];
        for (int k = 0; k < 2; k++, p += 8 * w) {
            __m512i x = p + 64 <= end ? _mm512_loadu_si512(p) : _mm512_maskz_loadu_epi8(inside, p);
            x = _mm512_sra_epi64(_mm512_maskz_permutexvar_epi8(keep, index, x), shift);
            int at = i + k * LANES;
            if (floats)
                x = _mm512_add_epi64(x, _mm512_cvtps_epi64(_mm256_mul_ps(_mm256_loadu_ps(floats + at), factor)));
            else if (acc)
                x = _mm512_add_epi64(x, _mm512_loadu_si512(acc + at));
            a = _mm512_add_epi64(a, x);
            b = _mm512_add_epi64(b, a);
            half[k] = _mm512_cvtepi64_ps(x);
        }
        __m512 y = _mm512_mul_ps(_mm512_insertf32x8(_mm512_castps256_ps512(half[0]), half[1], 1), unit);
        if (stream)
            _mm512_stream_ps(f + i, y);
        else
            _mm512_storeu_ps(f + i, y);
    }
    _mm512_storeu_si512(st->a, a);
    _mm512_storeu_si512(st->b, b);
}
#endif  // LIFT_X86

static const level_ops levels[] = {
    {unpack_plain, width_plain, pack_plain, finish_plain, encode_plain, keep_plain, NULL, NULL},
#ifdef LIFT_X86
    {unpack_avx2, width_avx2, pack_avx2, finish_avx2, encode_avx2, keep_avx2, NULL, NULL},
    {unpack_avx512, width_avx512, pack_avx512, finish_avx512, encode_avx512, keep_avx512, convert_avx512,
     unpack_finish_avx512},
#endif
};

int lift_level(void) {
#ifdef LIFT_X86
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl"))
        return 2;
    if (__builtin_cpu_supports("avx2")) return 1;
#endif
    return 0;
}

// fence orders streamed writes before whatever tells others of them.
static void fence(void) {
#ifdef LIFT_X86
    _mm_sfence();
#endif
}

int64_t lift_encode(int level, int64_t *acc, const float *src, int64_t n, float scale, int64_t limit, int store) {
    int64_t at = 0, bad = -1;
    int mode = store ? STORE : ADD;
    if (store && n >= STREAM_VALUES) {
        // Whole cache lines can be streamed: begin at one.
        at = (int64_t)((64 - (uintptr_t)acc % 64) % 64 / sizeof *acc);
        if ((bad = encode_n(acc, src, scale, limit, store, (int)at)) >= 0) return bad;
        mode = STREAM;
    }
    for (; at < n && bad < 0; at += BLOCK) {
        bad = n - at >= BLOCK ? levels[level].encode(acc + at, src + at, scale, limit, mode)
                              : encode_n(acc + at, src + at, scale, limit, store, (int)(n - at));
        if (bad >= 0) bad += at;
    }
    if (mode == STREAM) fence();
    return bad;
}

int64_t lift_keep(int level, float *dst, const float *src, int64_t n, float scale, int64_t limit) {
    int64_t at = 0, bad = -1;
    int stream = n >= STREAM_VALUES;
    if (stream) {
        at = (int64_t)((64 - (uintptr_t)dst % 64) % 64 / sizeof *dst);
        if ((bad = keep_n(dst, src, scale, limit, (int)at)) >= 0) return bad;
    }
    for (; at < n && bad < 0; at += BLOCK) {
        bad = n - at >= BLOCK ? levels[level].keep(dst + at, src + at, scale, limit, stream)
                              : keep_n(dst + at, src + at, scale, limit, (int)(n - at));
        if (bad >= 0) bad += at;
    }
    if (stream) fence();
    return bad;
}

// own_block gives n of a node's own values as integers, in `room` if they are not there already; NULL for zeros.
static const int64_t *own_block(const level_ops *ops, const int64_t *ints, const float *floats, float scale,
                                int64_t *room, int n) {
    if (!floats) return ints;
    if (n == BLOCK)
        ops->encode(room, floats, scale, INT64_MAX, STORE);
    else
        encode_n(room, floats, scale, INT64_MAX, STORE, n);
    return room;
}

static int block_width(const level_ops *ops, const int64_t *v, int n) {
    return n == BLOCK ? ops->width(v) : width_n(v, n);
}

// pack_block packs one block of n values of width w and returns its bytes.
static int64_t pack_block(const level_ops *ops, uint8_t *p, const int64_t *v, int n, int w) {
    p[0] = (uint8_t)w;
    if (n < BLOCK)
        pack_n(p + 1, v, w, n);
    else if (w)
        ops->pack(p + 1, v, w);
    return 1 + (int64_t)w * n;
}

int64_t lift_pack(int level, uint8_t *dst, const int64_t *ints, const float *floats, int64_t n, float scale) {
    const level_ops *ops = &levels[level];
    int64_t room[BLOCK];
    uint8_t *p = dst;
    for (int64_t at = 0; at < n; at += BLOCK) {
        int m = n - at < BLOCK ? (int)(n - at) : BLOCK;
        if (floats && m == BLOCK && ops->convert) {
            int w = ops->convert(room, floats + at, scale);
            p += pack_block(ops, p, room, m, w);
            continue;
        }
        const int64_t *v = own_block(ops, ints ? ints + at : NULL, floats ? floats + at : NULL, scale, room, m);
        if (v)
            p += pack_block(ops, p, v, m, block_width(ops, v, m));
        else
            *p++ = 0;
    }
    return p - dst;
}

int lift_fold(int level, const uint8_t *in, int64_t in_len, const int64_t *ints, const float *floats, int64_t n,
              int64_t *out, float *f, float scale, uint8_t *packed, lift_fold_state *st) {
    const level_ops *ops = &levels[level];
    const uint8_t *p = in, *end = in ? in + in_len : NULL;
    int64_t scratch[BLOCK], room[BLOCK], at = 0;
    uint8_t *q = packed;
    int bad = 0, stream = f && n >= STREAM_VALUES / 8 && (uintptr_t)f % 64 == 0;
    int fused = f && !out && !packed && ops->unpack_finish;
    for (int m; at < n; at += m) {
        m = n - at < BLOCK ? (int)(n - at) : BLOCK;
        const int64_t *own = ints ? ints + at : NULL;
        const float *own_floats = floats ? floats + at : NULL;
        int w = 0;
        if (in) {
            if (p == end) break;
            w = *p;
            if ((bad = w > 8) || end - p < 1 + (int64_t)w * m) break;
            p++;
        }
        if (in && fused && m == BLOCK) {
            ops->unpack_finish(f + at, p, end, w, own, own_floats, scale, stream, st);
            p += w * BLOCK;
            continue;
        }
        int64_t *v = out ? out + at : scratch;
        own = own_block(ops, own, own_floats, scale, room, m);
        if (in && m == BLOCK)
            ops->unpack(v, p, end, w, own);
        else
            unpack_n(v, p, w, own, m);
        if (in) p += (int64_t)w * m;
        if (f && m == BLOCK) ops->finish(f + at, v, 1 / scale, st);
        if (f && m < BLOCK) finish_n(f + at, v, 1 / scale, st, m);
        if (packed) q += pack_block(ops, q, v, m, block_width(ops, v, m));
    }
    if (stream) fence();
    st->consumed = p - in;
    st->done = at;
    st->packed = q - packed;
    return bad ? -1 : 0;
}
