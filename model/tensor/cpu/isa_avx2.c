// Kernels for AVX2 with FMA.
#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "table.h"

#pragma GCC target("avx2,fma")
#define W 8
#define FN(name) name##_avx2
#include "isa.h"
#endif
