// The product behind the cuBLAS stand-in, on host threads' arithmetic.
#pragma once
#include <stddef.h>

namespace emu {

// A matrix in column-major order, or its transpose.
struct Matrix {
    const void *data;
    bool bf16, transposed;
    size_t ld;
};
// gemm makes acc[i + j*ldAcc] the sum over k of op(a)(i,k) op(b)(k,j), from k = 0 on or backward, in float with one
// rounding a step; acc is the library's and lives until the next call.
const float *gemm(size_t m, size_t n, size_t k, Matrix a, Matrix b, bool backward, size_t &ldAcc);

}  // namespace emu
