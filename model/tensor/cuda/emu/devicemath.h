// CUDA's arithmetic: what math.h lacks. Approximations of the device (__expf, rsqrtf) are the exact functions here, but
// for some where LIFT_EMU_BITS asks for the errors that a GPU may make.
#pragma once

// glibc declares some of these names itself.
#define __expf cuemu_expf
#define __exp10f cuemu_exp10f
#define __logf cuemu_logf
#define __log2f cuemu_log2f
#define __log10f cuemu_log10f
#define __powf cuemu_powf
#define __sinf cuemu_sinf
#define __cosf cuemu_cosf
#define __tanf cuemu_tanf
namespace cuemu {
template <class To, class From>
static inline To bits(From x) {
    static_assert(sizeof(To) == sizeof(From), "");
    To y;
    memcpy(&y, &x, sizeof y);
    return y;
}
// near is y = f(x), with otherBits up to so many units in the last place beside it: in each x's own way, always the
// same.
static inline float near(float y, float x, int ulps) {
    const float size = fabsf(y);
    if (!otherBits || !(size > 1e-36f && size < 1e36f)) return y;
    const unsigned h = (bits<unsigned>(x) ^ otherBits * 0x9e3779b9u) * 0x85ebca6bu;
    return bits<float>(bits<unsigned>(y) + (h >> 8) % (2 * ulps + 1) - ulps);
}
// The errors are those of the CUDA C++ Programming Guide, "Mathematical Functions".
static inline float nearExp(float x) {
    return near(expf(x), x, 1);
}
static inline float nearLog2(float x) {
    return near(log2f(x), x, 1);
}
}  // namespace cuemu
static inline float __expf(float x) {
    return cuemu::near(expf(x), x, 2 + (int)fabsf(1.173f * x));
}
#define expf cuemu::nearExp
#define log2f cuemu::nearLog2
static inline float __logf(float x) {
    return logf(x);
}
static inline float __log2f(float x) {
    return log2f(x);
}
static inline float __powf(float x, float y) {
    return powf(x, y);
}
static inline float __sinf(float x) {
    return sinf(x);
}
static inline float __cosf(float x) {
    return cosf(x);
}
static inline float rsqrtf(float x) {
    return 1.0f / sqrtf(x);
}
static inline double rsqrt(double x) {
    return 1.0 / sqrt(x);
}
static inline float __saturatef(float x) {
    return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f;
}  // NaN gives 0

// Rounded once each: never fused.
static inline float __fmul_rn(float a, float b) {
    return a * b;
}
static inline float __fadd_rn(float a, float b) {
    return a + b;
}
static inline float __fsub_rn(float a, float b) {
    return a - b;
}
static inline float __fmaf_rn(float a, float b, float c) {
    return fmaf(a, b, c);
}
static inline float __fdiv_rn(float a, float b) {
    return a / b;
}
static inline float __fdividef(float a, float b) {
    if (fabsf(b) > 0x1p126f && !isinf(b)) return a * 0.0f;  // its reciprocal is denormal, and so flushed
    return cuemu::near(a / b, b, 2);
}
static inline float __frcp_rn(float a) {
    return 1.0f / a;
}
static inline float __fsqrt_rn(float a) {
    return sqrtf(a);
}
static inline float __frsqrt_rn(float a) {
    return (float)(1.0 / sqrt((double)a));
}
static inline double __dmul_rn(double a, double b) {
    return a * b;
}
static inline double __dadd_rn(double a, double b) {
    return a + b;
}
static inline double __dsub_rn(double a, double b) {
    return a - b;
}
static inline double __fma_rn(double a, double b, double c) {
    return fma(a, b, c);
}

namespace cuemu {
// As the device converts: NaN is nan, what does not fit is the nearest that does. x is rounded already.
template <class To, class From>
static inline To convert(From x, To nan) {
    using Lim = std::numeric_limits<To>;
    const From end = (From)ldexp(1.0, Lim::digits);
    if (x != x) return nan;
    if (x >= end) return Lim::max();
    if (x < (Lim::is_signed ? -end : (From)0)) return Lim::min();
    return (To)x;
}
}  // namespace cuemu
static inline unsigned __float_as_uint(float x) {
    return cuemu::bits<unsigned>(x);
}
static inline int __float_as_int(float x) {
    return cuemu::bits<int>(x);
}
static inline float __uint_as_float(unsigned x) {
    return cuemu::bits<float>(x);
}
static inline float __int_as_float(int x) {
    return cuemu::bits<float>(x);
}
static inline long long __double_as_longlong(double x) {
    return cuemu::bits<long long>(x);
}
static inline double __longlong_as_double(long long x) {
    return cuemu::bits<double>(x);
}

#define CUEMU_CONVERT(from, From, to, To, nan)              \
    static inline To __##from##2##to##_rn(From x) {         \
        return cuemu::convert<To, From>(nearbyint(x), nan); \
    }                                                       \
    static inline To __##from##2##to##_rz(From x) {         \
        return cuemu::convert<To, From>(trunc(x), nan);     \
    }                                                       \
    static inline To __##from##2##to##_rd(From x) {         \
        return cuemu::convert<To, From>(floor(x), nan);     \
    }                                                       \
    static inline To __##from##2##to##_ru(From x) {         \
        return cuemu::convert<To, From>(ceil(x), nan);      \
    }
CUEMU_CONVERT(float, float, int, int, 0)
CUEMU_CONVERT(float, float, uint, unsigned, 0)
CUEMU_CONVERT(float, float, ll, long long, LLONG_MIN)
CUEMU_CONVERT(float, float, ull, unsigned long long, 1ull << 63)
CUEMU_CONVERT(double, double, int, int, 0)
CUEMU_CONVERT(double, double, uint, unsigned, 0)
CUEMU_CONVERT(double, double, ll, long long, LLONG_MIN)
CUEMU_CONVERT(double, double, ull, unsigned long long, 1ull << 63)
#undef CUEMU_CONVERT
static inline float __int2float_rn(int x) {
    return (float)x;
}
static inline float __uint2float_rn(unsigned x) {
    return (float)x;
}
static inline float __ll2float_rn(long long x) {
    return (float)x;
}
static inline float __ull2float_rn(unsigned long long x) {
    return (float)x;
}
static inline double __int2double_rn(int x) {
    return x;
}
static inline double __ll2double_rn(long long x) {
    return (double)x;
}
static inline float __double2float_rn(double x) {
    return (float)x;
}

static inline int __clz(int x) {
    return x ? __builtin_clz(x) : 32;
}
static inline int __clzll(long long x) {
    return x ? __builtin_clzll(x) : 64;
}
static inline int __popc(unsigned x) {
    return __builtin_popcount(x);
}
static inline int __popcll(unsigned long long x) {
    return __builtin_popcountll(x);
}
static inline int __ffs(int x) {
    return __builtin_ffs(x);
}
static inline int __ffsll(long long x) {
    return __builtin_ffsll(x);
}
static inline unsigned __umulhi(unsigned a, unsigned b) {
    return (unsigned)((uint64_t)a * b >> 32);
}
static inline int __mulhi(int a, int b) {
    return (int)((int64_t)a * b >> 32);
}
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
static inline long long __mul64hi(long long a, long long b) {
    return (long long)((__int128)a * b >> 64);
}
static inline unsigned __brev(unsigned x) {
    unsigned r = 0;
    for (int i = 0; i < 32; i++) r |= (x >> i & 1u) << (31 - i);
    return r;
}
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned s) {
    const uint64_t ab = (uint64_t)b << 32 | a;
    unsigned r = 0;
    for (int i = 0; i < 4; i++) {
        const unsigned sel = s >> 4 * i & 15u, byte = (unsigned)(ab >> 8 * (sel & 7u)) & 0xffu;
        r |= (sel & 8u ? (byte & 0x80u ? 0xffu : 0u) : byte) << 8 * i;
    }
    return r;
}
static inline unsigned __funnelshift_l(unsigned lo, unsigned hi, unsigned n) {
    return (unsigned)(((uint64_t)hi << 32 | lo) << (n & 31) >> 32);
}
static inline unsigned __funnelshift_r(unsigned lo, unsigned hi, unsigned n) {
    return (unsigned)(((uint64_t)hi << 32 | lo) >> (n & 31));
}

// min and max for the pairs of types for which the device has them; those of floats pass by a NaN.
#define CUEMU_MINMAX(A, B, R)             \
    static inline R min(A a, B b) {       \
        return (R)a < (R)b ? (R)a : (R)b; \
    }                                     \
    static inline R max(A a, B b) {       \
        return (R)a > (R)b ? (R)a : (R)b; \
    }
CUEMU_MINMAX(int, int, int)
CUEMU_MINMAX(unsigned, unsigned, unsigned)
CUEMU_MINMAX(int, unsigned, unsigned)
CUEMU_MINMAX(unsigned, int, unsigned)
CUEMU_MINMAX(long, long, long)
CUEMU_MINMAX(unsigned long, unsigned long, unsigned long)
CUEMU_MINMAX(long, unsigned long, unsigned long)
CUEMU_MINMAX(unsigned long, long, unsigned long)
CUEMU_MINMAX(long long, long long, long long)
CUEMU_MINMAX(unsigned long long, unsigned long long, unsigned long long)
CUEMU_MINMAX(long long, unsigned long long, unsigned long long)
CUEMU_MINMAX(unsigned long long, long long, unsigned long long)
#undef CUEMU_MINMAX
static inline float min(float a, float b) {
    return fminf(a, b);
}
static inline float max(float a, float b) {
    return fmaxf(a, b);
}
static inline double min(double a, double b) {
    return fmin(a, b);
}
static inline double max(double a, double b) {
    return fmax(a, b);
}

// Only one thread of the emulator runs at a time. There are no float atomics: their order is not fixed on a GPU.
#define CUEMU_ATOMIC(T)                               \
    static inline T atomicAdd(T *p, T v) {            \
        return std::exchange(*p, (T)(*p + v));        \
    }                                                 \
    static inline T atomicMin(T *p, T v) {            \
        return std::exchange(*p, min(*p, v));         \
    }                                                 \
    static inline T atomicMax(T *p, T v) {            \
        return std::exchange(*p, max(*p, v));         \
    }                                                 \
    static inline T atomicExch(T *p, T v) {           \
        return std::exchange(*p, v);                  \
    }                                                 \
    static inline T atomicAnd(T *p, T v) {            \
        return std::exchange(*p, *p & v);             \
    }                                                 \
    static inline T atomicOr(T *p, T v) {             \
        return std::exchange(*p, *p | v);             \
    }                                                 \
    static inline T atomicXor(T *p, T v) {            \
        return std::exchange(*p, *p ^ v);             \
    }                                                 \
    static inline T atomicCAS(T *p, T old, T v) {     \
        return std::exchange(*p, *p == old ? v : *p); \
    }
CUEMU_ATOMIC(int)
CUEMU_ATOMIC(unsigned)
CUEMU_ATOMIC(unsigned long long)
#undef CUEMU_ATOMIC
static inline int atomicSub(int *p, int v) {
    return std::exchange(*p, *p - v);
}
static inline unsigned atomicSub(unsigned *p, unsigned v) {
    return std::exchange(*p, *p - v);
}
static inline unsigned atomicInc(unsigned *p, unsigned v) {
    return std::exchange(*p, *p >= v ? 0u : *p + 1);
}

#define CUEMU_LOAD(name)               \
    template <class T>                 \
    static inline T name(const T *p) { \
        return *p;                     \
    }
CUEMU_LOAD(__ldg)
CUEMU_LOAD(__ldcs)
CUEMU_LOAD(__ldcg)
CUEMU_LOAD(__ldca)
#undef CUEMU_LOAD
#define CUEMU_STORE(name)                \
    template <class T>                   \
    static inline void name(T *p, T v) { \
        *p = v;                          \
    }
CUEMU_STORE(__stcs)
CUEMU_STORE(__stcg)
CUEMU_STORE(__stwb)
#undef CUEMU_STORE
