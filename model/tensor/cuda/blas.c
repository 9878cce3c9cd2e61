//go:build cuda

#include "blas.h"
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The numbers of cublas_api.h and library_types.h that are used here.
enum {
    OP_N = 0,
    OP_T = 1,
    R_32F = 0,
    R_16BF = 14,
    COMPUTE_32F = 68,
    COMPUTE_32F_PEDANTIC = 69,  // no TF32, no reordering that a pedant would mind
    GEMM_DEFAULT = -1,
    ATOMICS_NOT_ALLOWED = 0,
    NO_REDUCED_PRECISION_REDUCTION = 16,  // of cublasMath_t: parts of a bf16 product are added up in float
};

static struct {
    int (*create)(void **);
    int (*destroy)(void *);
    int (*version)(void *, int *);
    int (*set_stream)(void *, void *);
    int (*set_workspace)(void *, void *, size_t);
    int (*set_atomics)(void *, int);
    int (*set_math)(void *, int);
    int (*gemm)(void *, int, int, int, int, int, const void *, const void *, int, int, const void *, int, int,
                const void *, void *, int, int, int, int);
    int (*batched)(void *, int, int, int, int, int, const void *, const void *, int, int, long long, const void *, int,
                   int, long long, const void *, void *, int, int, long long, int, int, int);
    const char *(*status)(int);
} blas;

static const struct {
    void *entry;
    const char *name;
    int optional;
} entries[] = {
    {&blas.create, "cublasCreate_v2", 0},
    {&blas.destroy, "cublasDestroy_v2", 0},
    {&blas.version, "cublasGetVersion_v2", 0},
    {&blas.set_stream, "cublasSetStream_v2", 0},
    {&blas.set_workspace, "cublasSetWorkspace_v2", 0},
    {&blas.set_atomics, "cublasSetAtomicsMode", 0},
    {&blas.set_math, "cublasSetMathMode", 0},
    {&blas.gemm, "cublasGemmEx", 0},
    {&blas.batched, "cublasGemmStridedBatchedEx", 0},
    {&blas.status, "cublasGetStatusString", 1},
};

// resolve fills blas from library and returns the name of what it lacks, or 0.
static const char *resolve(void *library) {
    for (size_t i = 0; i < sizeof entries / sizeof *entries; i++) {
        void *f = dlsym(library, entries[i].name);
        if (!f && !entries[i].optional) return entries[i].name;
        memcpy(entries[i].entry, &f, sizeof f);
    }
    return 0;
}

int lift_blas_open(char *why, int n) {
    const char *usual[] = {"libcublas.so.13", "libcublas.so.12", "libcublas.so.11"};
    const char *named = getenv("LIFT_CUBLAS");
    const char **paths = usual;
    int count = 3, at = 0;
    if (named && *named) paths = &named, count = 1;
    why[0] = 0;
    for (int i = 0; i < count && at < n; i++) {
        void *library = dlopen(paths[i], RTLD_NOW | RTLD_LOCAL);
        const char *lacks = library ? resolve(library) : 0;
        if (library && !lacks) return 0;
        at += snprintf(why + at, n - at, "%s%s", i ? "; " : "", count == 1 ? "LIFT_CUBLAS=" : "");
        if (at >= n) break;
        if (lacks)
            at += snprintf(why + at, n - at, "%s has no %s", paths[i], lacks);
        else
            at += snprintf(why + at, n - at, "%s", dlerror());  // which begins with the path
        if (library) dlclose(library);
    }
    return 1;
}

int lift_blas_create(void **handle, void *stream, void *workspace, size_t bytes) {
    int s = blas.create(handle);
    if (s) return s;
    // In this order: a new stream takes the library's own workspace again, whose size and so whose choice of kernels is
    // not ours.
    if (!(s = blas.set_stream(*handle, stream))) s = blas.set_workspace(*handle, workspace, bytes);
    if (!s) s = blas.set_atomics(*handle, ATOMICS_NOT_ALLOWED);
    if (!s) s = blas.set_math(*handle, NO_REDUCED_PRECISION_REDUCTION);
    return s;
}

int lift_blas_destroy(void *handle) {
    return blas.destroy(handle);
}
int lift_blas_version(void *handle, int *version) {
    return blas.version(handle, version);
}

int lift_blas_gemm(void *handle, const lift_gemm *g) {
    const float one = 1;
    const void *a = (const void *)(uintptr_t)g->a, *b = (const void *)(uintptr_t)g->b;
    void *c = (void *)(uintptr_t)g->c;
    const int ta = g->trans_a ? OP_T : OP_N, tb = g->trans_b ? OP_T : OP_N;
    const int ab = g->bf16_ab ? R_16BF : R_32F, ct = g->bf16_c ? R_16BF : R_32F;
    const int compute = g->bf16_ab ? COMPUTE_32F : COMPUTE_32F_PEDANTIC;
    if (g->batch == 1)
        return blas.gemm(handle, ta, tb, g->m, g->n, g->k, &one, a, ab, g->lda, b, ab, g->ldb, &g->beta, c, ct, g->ldc,
                         compute, GEMM_DEFAULT);
    return blas.batched(handle, ta, tb, g->m, g->n, g->k, &one, a, ab, g->lda, g->stride_a, b, ab, g->ldb, g->stride_b,
                        &g->beta, c, ct, g->ldc, g->stride_c, g->batch, compute, GEMM_DEFAULT);
}

const char *lift_blas_status(int status) {
    static const char *const names[] = {
        [1] = "not initialized",       [3] = "allocation failed", [7] = "invalid value",
        [8] = "architecture mismatch", [11] = "mapping error",    [13] = "execution failed",
        [14] = "internal error",       [15] = "not supported",    [16] = "license error"};
    if (blas.status) return blas.status(status);
    if (status >= 0 && status < (int)(sizeof names / sizeof *names) && names[status]) return names[status];
    return "unknown status";
}
