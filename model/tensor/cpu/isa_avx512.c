// Kernels for AVX-512 (F, DQ, BW, VL).
#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "table.h"

#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma,prefer-vector-width=512")
#define W 16
#define FN(name) name##_avx512
#include "isa.h"
#endif
