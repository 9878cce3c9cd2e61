// cuBLAS, opened when it is first needed: nothing of it is wanted to build.
#pragma once
#include <stddef.h>
#include <stdint.h>

// lift_gemm is one product, or a batch of them, column by column as cuBLAS has it: c[m, n] = op(a)[m, k] op(b)[k, n] +
// beta c. Eight-byte words: the device's log keeps it as such.
typedef struct {
    uint64_t a, b, c;
    int64_t stride_a, stride_b, stride_c;  // from one matrix of the batch to the next, in elements
    int32_t m, n, k, batch;
    int32_t lda, ldb, ldc;
    uint8_t trans_a, trans_b;
    uint8_t bf16_ab, bf16_c;  // else float
    float beta;
    int32_t zero;
} lift_gemm;

// lift_blas_open returns 0 and the version (major, minor, patch) of the newest library that is not of a later CUDA than
// `newest`, which is the driver's, or 1 with what was looked for and why it did not do in why.
int lift_blas_open(int newest, int version[3], char *why, int n);

// These return a cublasStatus_t, of which 0 is success; lift_blas_status is its name.
int lift_blas_create(void **handle, void *stream, void *workspace, size_t bytes);
int lift_blas_destroy(void *handle);
int lift_blas_gemm(void *handle, const lift_gemm *g);
const char *lift_blas_status(int status);
