// Kernels for the compiler's own target: SSE2 on x86-64, NEON on arm64.
#if defined(__SSE2__)
#include <immintrin.h>
#endif
#include "table.h"

#define W 4
#define FN(name) name##_base
#include "isa.h"
