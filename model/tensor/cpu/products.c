// Matrix products by oneDNN.
#include <dnnl.h>
#include <string.h>

#include "kernels.h"

// Declared here instead of including omp.h, which some compilers ship apart.
void omp_set_num_threads(int n);

// The OpenMP runtime keeps the number of threads by calling thread: each device's thread must set it itself.
void lift_set_threads(int n) {
    omp_set_num_threads(n);
}

// C[M, N] = op(A) op(B) + beta C + bias + add; rows lie ld floats apart. bias and add may be NULL; they need beta 0 and
// a C without gaps, which is filled with them first.
int lift_product(float *c, const float *a, const float *b, int ta, int tb, long M, long N, long K, long ldc, long lda,
                 long ldb, float beta, const float *bias, const float *add) {
    if (M == 0 || N == 0) return 0;
    if (bias || add) {
        if (bias)
            lift_add_rows(c, add, bias, M, N);
        else if (add != c)
            memcpy(c, add, (size_t)(M * N) * sizeof(float));
        beta = 1;
    }
    if (K == 0) {
        for (long m = 0; m < M && beta == 0; m++) lift_fill(c + m * ldc, 0, N);
        return 0;
    }
    return dnnl_sgemm(ta ? 'T' : 'N', tb ? 'T' : 'N', M, N, K, 1.0f, a, lda, b, ldb, beta, c, ldc);
}

// The version as major * 10^6 + minor * 10^3 + patch.
int lift_dnnl_version(void) {
    const dnnl_version_t *v = dnnl_version();
    return (v->major * 1000 + v->minor) * 1000 + v->patch;
}

int lift_dnnl_isa(void) {
    return (int)dnnl_get_effective_cpu_isa();
}
