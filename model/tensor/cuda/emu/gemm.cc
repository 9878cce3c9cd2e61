// A blocked product: both operands are packed into panels of float, and a small kernel keeps a tile of sums in
// registers. Each sum adds its products in the order of k, or from the last to the first, whatever the blocks are, so a
// result depends on its row and column alone, and is the same with 8 or 16 floats a register.
#include "gemm.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <math.h>
#include <algorithm>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace emu {

// A tile of rows x cols sums, its rows contiguous; run adds depth products to each.
struct Tile {
    size_t rows, cols;
    void (*run)(size_t depth, const float *a, const float *b, float *c, size_t ldc);
};

template <size_t rows, size_t cols>
static void plain(size_t depth, const float *a, const float *b, float *c, size_t ldc) {
    float s[cols][rows];
    for (size_t j = 0; j < cols; j++) memcpy(s[j], c + j * ldc, sizeof s[j]);
    for (size_t k = 0; k < depth; k++, a += rows, b += cols)
        for (size_t j = 0; j < cols; j++)
            for (size_t i = 0; i < rows; i++)
#ifdef __FP_FAST_FMAF
                s[j][i] = __builtin_fmaf(a[i], b[j], s[j][i]);
#else
                s[j][i] += a[i] * b[j];
#endif
    for (size_t j = 0; j < cols; j++) memcpy(c + j * ldc, s[j], sizeof s[j]);
}

#if defined(__x86_64__)
#define TILE(name, isa, V, width, cols, load, store, splat, fma)                                          \
    __attribute__((target(isa))) static void name(size_t depth, const float *a, const float *b, float *c, \
                                                  size_t ldc) {                                           \
        V s[cols][2];                                                                                     \
        for (int j = 0; j < cols; j++) s[j][0] = load(c + j * ldc), s[j][1] = load(c + j * ldc + width);  \
        for (size_t k = 0; k < depth; k++, a += 2 * width, b += cols) {                                   \
            const V a0 = load(a), a1 = load(a + width);                                                   \
            _Pragma("GCC unroll 12") for (int j = 0; j < cols; j++) {                                     \
                const V v = splat(b[j]);                                                                  \
                s[j][0] = fma(a0, v, s[j][0]);                                                            \
                s[j][1] = fma(a1, v, s[j][1]);                                                            \
            }                                                                                             \
        }                                                                                                 \
        for (int j = 0; j < cols; j++) store(c + j * ldc, s[j][0]), store(c + j * ldc + width, s[j][1]);  \
    }
TILE(avx2, "avx2,fma", __m256, 8, 6, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_set1_ps, _mm256_fmadd_ps)
TILE(avx512, "avx512f", __m512, 16, 12, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_set1_ps, _mm512_fmadd_ps)
#undef TILE
#endif

static Tile choose() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f")) return {32, 12, avx512};
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return {16, 6, avx2};
#endif
    return {8, 4, plain<8, 4>};
}

static float load(const float *p) {
    return *p;
}
static float load(const uint16_t *p) {
    const uint32_t u = (uint32_t)*p << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

// pack copies lines x depth values to panels of so many lines, depth after depth; what is missing to a full panel is
// zero. Line l and depth d lie at l * byLine + d * byDepth.
template <class T>
static void pack(float *to, const T *from, size_t lines, size_t depth, size_t byLine, ptrdiff_t byDepth, size_t panel) {
    for (size_t l0 = 0; l0 < lines; l0 += panel, to += panel * depth) {
        const size_t n = std::min(panel, lines - l0);
        const T *p = from + l0 * byLine;
        if (n < panel) memset(to, 0, panel * depth * sizeof *to);
        if (byLine == 1) {
            for (size_t d = 0; d < depth; d++)
                for (size_t l = 0; l < n; l++) to[d * panel + l] = load(p + (ptrdiff_t)d * byDepth + l);
        } else {
            for (size_t l = 0; l < n; l++)
                for (size_t d = 0; d < depth; d++) to[d * panel + l] = load(p + l * byLine + (ptrdiff_t)d * byDepth);
        }
    }
}
static void pack(std::vector<float> &to, const Matrix &x, size_t l0, size_t d0, size_t lines, size_t depth,
                 bool lineFirst, bool backward, size_t panel) {
    // In column-major order a step of the first index is 1.
    const size_t byLine = lineFirst ? 1 : x.ld, first = backward ? d0 + depth - 1 : d0;
    const size_t at = l0 * byLine + first * (lineFirst ? x.ld : 1);
    const ptrdiff_t byDepth = (lineFirst ? (ptrdiff_t)x.ld : 1) * (backward ? -1 : 1);
    const size_t need = (lines + panel - 1) / panel * panel * depth;
    if (to.size() < need) to.resize(need);
    if (x.bf16)
        pack(to.data(), (const uint16_t *)x.data + at, lines, depth, byLine, byDepth, panel);
    else
        pack(to.data(), (const float *)x.data + at, lines, depth, byLine, byDepth, panel);
}

const float *gemm(size_t m, size_t n, size_t k, Matrix a, Matrix b, bool backward, size_t &ldAcc) {
    static const Tile tile = choose();
    static std::vector<float> acc, pa, pb;
    const size_t depth = 256, width = tile.cols * 64, height = tile.rows * 8;
    ldAcc = (m + tile.rows - 1) / tile.rows * tile.rows;
    const size_t need = ldAcc * ((n + tile.cols - 1) / tile.cols * tile.cols);
    if (acc.size() < need) acc.resize(need);
    memset(acc.data(), 0, need * sizeof(float));
    for (size_t j0 = 0; j0 < n; j0 += width) {
        const size_t nj = std::min(width, n - j0);
        for (size_t done = 0; done < k; done += depth) {
            const size_t nk = std::min(depth, k - done), k0 = backward ? k - done - nk : done;
            pack(pb, b, j0, k0, nj, nk, b.transposed, backward, tile.cols);
            for (size_t i0 = 0; i0 < m; i0 += height) {
                const size_t ni = std::min(height, m - i0);
                pack(pa, a, i0, k0, ni, nk, !a.transposed, backward, tile.rows);
                for (size_t j = 0; j < nj; j += tile.cols)
                    for (size_t i = 0; i < ni; i += tile.rows)
                        tile.run(nk, pa.data() + i * nk, pb.data() + j * nk, acc.data() + (j0 + j) * ldAcc + i0 + i,
                                 ldAcc);
            }
        }
    }
    return acc.data();
}

}  // namespace emu
