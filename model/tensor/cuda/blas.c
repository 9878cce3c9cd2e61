//go:build cuda && cgo

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
    int (*set_stream)(void *, void *);
    int (*set_workspace)(void *, void *, size_t);
    int (*set_atomics)(void *, int);
    int (*set_math)(void *, int);
    int (*gemm)(void *, int, int, int, int, int, const void *, const void *, int, int, const void *, int, int,
                const void *, void *, int, int, int, int);
    int (*batched)(void *, int, int, int, int, int, const void *, const void *, int, int, long long, const void *, int,
                   int, long long, const void *, void *, int, int, long long, int, int, int);
    int (*property)(int, int *);
    const char *(*status)(int);
} blas;

static const struct {
    void *entry;
    const char *name;
    int optional;
} entries[] = {
    {&blas.create, "cublasCreate_v2", 0},
    {&blas.destroy, "cublasDestroy_v2", 0},
    {&blas.property, "cublasGetProperty", 0},
    {&blas.set_stream, "cublasSetStream_v2", 0},
    {&blas.set_workspace, "cublasSetWorkspace_v2", 0},
    {&blas.set_atomics, "cublasSetAtomicsMode", 0},
    {&blas.set_math, "cublasSetMathMode", 0},
    {&blas.gemm, "cublasGemmEx", 0},
    {&blas.batched, "cublasGemmStridedBatchedEx", 0},
    {&blas.status, "cublasGetStatusString", 1},
};

// resolve fills blas and version from library. It returns 0, or 1 with what is wrong with the library in why.
static int resolve(void *library, int version[3], char *why, int n) {
    for (size_t i = 0; i < sizeof entries / sizeof *entries; i++) {
        void *f = dlsym(library, entries[i].name);
        if (!f && !entries[i].optional) {
            snprintf(why, n, "has no %s", entries[i].name);
            return 1;
        }
        memcpy(entries[i].entry, &f, sizeof f);
    }
    for (int i = 0; i < 3; i++)  // of libraryPropertyType: major, minor, patch
        if (blas.property(i, &version[i])) version[i] = 0;
    if (version[0] >= 11) return 0;
    snprintf(why, n, "is cuBLAS %d.%d.%d, which is too old", version[0], version[1], version[2]);
    return 1;
}

int lift_blas_open(int newest, int version[3], char *why, int n) {
    const char *usual[] = {"libcublas.so.13", "libcublas.so.12", "libcublas.so.11"};
    const char *named = getenv("LIFT_CUBLAS");
    const char **paths = usual;
    int count = 3, at = 0;
    if (named && *named) paths = &named, count = 1;
    why[0] = 0;
    for (int i = 0; i < count && at < n; i++) {
        char wrong[128];
        void *library = dlopen(paths[i], RTLD_NOW | RTLD_LOCAL);
        if (library && !resolve(library, version, wrong, sizeof wrong)) {
            if (version[0] <= newest) return 0;
            snprintf(wrong, sizeof wrong, "is of CUDA %d, and the driver of CUDA %d", version[0], newest);
        }
        at += snprintf(why + at, n - at, "%s%s", i ? "; " : "", count == 1 ? "LIFT_CUBLAS=" : "");
        if (at >= n) break;
        if (library)
            at += snprintf(why + at, n - at, "%s %s", paths[i], wrong);
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
