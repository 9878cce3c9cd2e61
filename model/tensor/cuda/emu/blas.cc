// The stand-in for cuBLAS: products queued on a stream. alpha and beta are read at the call.
#include "driver.h"
#include "gemm.h"

namespace emu {

enum Status { OK = 0, NO_HANDLE = 1, BAD_VALUE = 7, EXECUTION_FAILED = 13, UNSUPPORTED = 15 };
enum Type { F32 = 0, BF16 = 14 };
enum Compute { COMPUTE_F32 = 68, COMPUTE_F32_PEDANTIC = 69, COMPUTE_F32_FAST_TF32 = 77 };

struct Blas {
    Context *context;
    void *stream;
};

struct Operand {
    uintptr_t at;
    int type;
    long ld;
    long long stride;
    size_t bytes() const { return type == BF16 ? 2 : 4; }
    // of a batch of column-major matrices of so many rows and columns
    bool is(decltype(emu::lies) *check, size_t rows, size_t cols, size_t batch, const char *what) const {
        if (!rows || !cols || !batch) return true;
        const long long far = stride * (long long)(batch - 1);
        const uintptr_t first = at + (uintptr_t)(far < 0 ? far * (long long)bytes() : 0);
        const size_t n = (size_t)(far < 0 ? -far : far) + (cols - 1) * (size_t)ld + rows;
        return check((void *)first, n * bytes(), DEVICE, what);
    }
    const void *of(size_t i) const {
        return (const void *)(at + (uintptr_t)(stride * (long long)i * (long long)bytes()));
    }
};

static float loadAs(const void *p, size_t i, int type) {
    if (type == F32) return ((const float *)p)[i];
    return cuemu::bits<float>((uint32_t)((const uint16_t *)p)[i] << 16);
}
static void storeAs(void *p, size_t i, int type, float v) {
    if (type == F32) {
        ((float *)p)[i] = v;
        return;
    }
    const uint32_t u = cuemu::bits<uint32_t>(v);
    ((uint16_t *)p)[i] = (uint16_t)(v != v ? u >> 16 | 0x40 : (u + 0x7fff + (u >> 16 & 1)) >> 16);
}

struct Product {
    size_t m, n, k, batch;
    bool ta, tb;
    float alpha, beta;
    Operand a, b, c;
    bool operands(decltype(emu::lies) *check) const {
        return (alpha == 0 || (a.is(check, ta ? k : m, ta ? m : k, batch, "cuBLAS: A") &&
                               b.is(check, tb ? n : k, tb ? k : n, batch, "cuBLAS: B"))) &&
               c.is(check, m, n, batch, "cuBLAS: C");
    }
    // What alpha or beta is 0 for is not read.
    Result run() const {
        if (!operands(touch)) return ILLEGAL_ADDRESS;
        for (size_t i = 0; i < batch; i++) {
            size_t ld = 0;
            const float *acc = nullptr;
            // cuBLAS may have another kernel, and so another order, for what does not lie at a multiple of 16 bytes.
            const bool odd = ((uintptr_t)a.of(i) | (uintptr_t)b.of(i) | (uintptr_t)c.of(i)) % 16;
            if (alpha != 0)
                acc = gemm(m, n, k, {a.of(i), a.type == BF16, ta, (size_t)a.ld},
                           {b.of(i), b.type == BF16, tb, (size_t)b.ld}, (cuemu::otherBits != 0) != odd, ld);
            void *to = (void *)c.of(i);
            for (size_t y = 0; y < n; y++)
                for (size_t x = 0; x < m; x++) {
                    const size_t at = x + y * (size_t)c.ld;
                    const float v = acc ? alpha * acc[x + y * ld] : 0.0f;
                    storeAs(to, at, c.type, beta == 0 ? v : v + beta * loadAs(to, at, c.type));
                }
        }
        return SUCCESS;
    }
};

static Status submit(Blas *h, int ta, int tb, int m, int n, int k, const float *alpha, Operand a, Operand b,
                     const float *beta, Operand c, int batch) {
    if (!h) return NO_HANDLE;
    if (ta < 0 || ta > 2 || tb < 0 || tb > 2 || m < 0 || n < 0 || k < 0 || batch < 0 || !alpha || !beta)
        return BAD_VALUE;
    if (a.ld < std::max(1, ta ? k : m) || b.ld < std::max(1, tb ? n : k) || c.ld < std::max(1, m)) return BAD_VALUE;
    const bool types =
        a.type == b.type && ((a.type == F32 && c.type == F32) || (a.type == BF16 && (c.type == F32 || c.type == BF16)));
    if (!types) return UNSUPPORTED;
    if (!m || !n || !batch) return OK;
    Product p = {(size_t)m, (size_t)n, (size_t)k, (size_t)batch, ta != 0, tb != 0, *alpha, *beta, a, b, c};
    Stream *s = (uintptr_t)h->stream <= 2 ? &h->context->null : (Stream *)h->stream;
    if (s != &h->context->null && !h->context->streams.count(s)) {
        fprintf(stderr, "cuemu: cuBLAS: its stream is of another GPU, or was destroyed before\n");
        return BAD_VALUE;
    }
    if (!p.operands(lies)) return EXECUTION_FAILED;
    return enqueue(s, [p] { return p.run(); }) ? EXECUTION_FAILED : OK;
}

}  // namespace emu

using namespace emu;

API cublasCreate_v2(Blas **h) {
    Guard g;
    Context *c;
    if (usable(c)) return NO_HANDLE;
    *h = new Blas{c, nullptr};
    return OK;
}
API cublasDestroy_v2(Blas *h) {
    Guard g;
    if (!h) return NO_HANDLE;
    delete h;
    return OK;
}
API cublasSetStream_v2(Blas *h, void *s) {
    Guard g;
    if (!h) return NO_HANDLE;
    h->stream = s;
    return OK;
}
API cublasGetStream_v2(Blas *h, void **s) {
    Guard g;
    if (!h) return NO_HANDLE;
    *s = h->stream;
    return OK;
}
API cublasSetWorkspace_v2(Blas *h, void *p, size_t n) {
    Guard g;
    if (!h) return NO_HANDLE;
    if ((uintptr_t)p % 256 || !lies(p, n, DEVICE, "cublasSetWorkspace")) return BAD_VALUE;
    Block *b = n ? find(p) : nullptr;
    if (b && b->size == n) b->cublas = true;
    return OK;
}
API cublasSetMathMode(Blas *h, int) {
    return h ? OK : NO_HANDLE;
}
API cublasSetAtomicsMode(Blas *h, int) {
    return h ? OK : NO_HANDLE;
}
API cublasSetPointerMode_v2(Blas *h, int device) {
    return !h ? NO_HANDLE : device ? UNSUPPORTED : OK;
}
API cublasGetVersion_v2(Blas *, int *v) {
    *v = 120900;
    return OK;
}
API cublasGetVersion(Blas *h, int *v) {
    return cublasGetVersion_v2(h, v);
}
API cublasGetProperty(int which, int *v) {  // major, minor, patch
    if (which < 0 || which > 2) return BAD_VALUE;
    *v = which == 0 ? 12 : which == 1 ? 9 : 0;
    return OK;
}
extern "C" __attribute__((visibility("default"))) const char *cublasGetStatusString(int s) {
    switch (s) {
        case OK:
            return "success";
        case NO_HANDLE:
            return "the library was not initialized";
        case BAD_VALUE:
            return "an unsupported value or parameter was passed to the function";
        case EXECUTION_FAILED:
            return "the GPU program failed to execute";
        case UNSUPPORTED:
            return "the functionality requested is not supported";
    }
    return "unknown status";
}
extern "C" __attribute__((visibility("default"))) const char *cublasGetStatusName(int s) {
    switch (s) {
        case OK:
            return "CUBLAS_STATUS_SUCCESS";
        case NO_HANDLE:
            return "CUBLAS_STATUS_NOT_INITIALIZED";
        case BAD_VALUE:
            return "CUBLAS_STATUS_INVALID_VALUE";
        case EXECUTION_FAILED:
            return "CUBLAS_STATUS_EXECUTION_FAILED";
        case UNSUPPORTED:
            return "CUBLAS_STATUS_NOT_SUPPORTED";
    }
    return "unknown status";
}

API cublasGemmStridedBatchedEx(Blas *h, int ta, int tb, int m, int n, int k, const void *alpha, uintptr_t a, int aType,
                               int lda, long long strideA, uintptr_t b, int bType, int ldb, long long strideB,
                               const void *beta, uintptr_t c, int cType, int ldc, long long strideC, int batch,
                               int compute, int) {
    Guard g;
    if (compute != COMPUTE_F32 && compute != COMPUTE_F32_PEDANTIC && compute != COMPUTE_F32_FAST_TF32)
        return UNSUPPORTED;
    return submit(h, ta, tb, m, n, k, (const float *)alpha, {a, aType, lda, strideA}, {b, bType, ldb, strideB},
                  (const float *)beta, {c, cType, ldc, strideC}, batch);
}
API cublasGemmEx(Blas *h, int ta, int tb, int m, int n, int k, const void *alpha, uintptr_t a, int aType, int lda,
                 uintptr_t b, int bType, int ldb, const void *beta, uintptr_t c, int cType, int ldc, int compute,
                 int algorithm) {
    return cublasGemmStridedBatchedEx(h, ta, tb, m, n, k, alpha, a, aType, lda, 0, b, bType, ldb, 0, beta, c, cType,
                                      ldc, 0, 1, compute, algorithm);
}
API cublasSgemm_v2(Blas *h, int ta, int tb, int m, int n, int k, const float *alpha, uintptr_t a, int lda, uintptr_t b,
                   int ldb, const float *beta, uintptr_t c, int ldc) {
    return cublasGemmEx(h, ta, tb, m, n, k, alpha, a, F32, lda, b, F32, ldb, beta, c, F32, ldc, COMPUTE_F32, -1);
}
