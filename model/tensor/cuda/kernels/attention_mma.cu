// Attention of bf16 on tensor cores, for heads of 64 and 80: attention.cu is the same for every head size and type.
// Neither the scores nor the probabilities are ever in global memory.
//
// q [B, Tq, *] and k, v [B, T, *] are columns of rows at distance ldq and ldkv; out and dout are [B, Tq, H D]; stats is
// [B, H, Tq, 2], the largest scaled score and 1 / the sum of the exponentials. A block has up to 4 warps, each 16 M
// rows of the one side (queries; in the backward of k and v, keys), and walks over the other side N rows at a time,
// from two buffers: while one is worked on, the other is being filled. Grid: (tiles of rows, H, B).
//
// A product's left side is in registers: rows loaded once, or the probabilities just computed. Exponents are of two:
// e^(c s) = 2^(c2 s) with c2 = c log2 e. The papers are those that attention.cu names.
//
// launch: attention_mma64 threads=128 shared=55296
// launch: attention_dq_mma64 threads=128 shared=73728
// launch: attention_dkv_mma64 threads=128 shared=55808
// launch: attention_mma80 threads=128 shared=45056
// launch: attention_dq_mma80 threads=128 shared=56320
// launch: attention_dkv_mma80 threads=128 shared=45568
#include "tensorcore.cuh"

extern __shared__ __align__(16) char smem[];

constexpr float LOG2E = 1.4426950408889634f;
#define INF __uint_as_float(0x7f800000u)

// The two values of a fragment's register.
__device__ __forceinline__ float low(uint32_t x) {
    return __uint_as_float(x << 16);
}
__device__ __forceinline__ float high(uint32_t x) {
    return __uint_as_float(x & 0xffff0000u);
}

// A row in shared memory is D + 8 elements long, an odd number of 16 bytes: 8 rows below one another are in 8 different
// banks.
template <int D>
struct Tile {
    static constexpr int LD = D + 8, CHUNKS = D / 8;

    // whole says whether rows of x can be moved 16 bytes at a time; of any other address, the same by the element.
    static __device__ __forceinline__ bool whole(const bf16 *x, int ld) {
        return (((uint64_t)x | (uint64_t)ld * 2) & 15) == 0;
    }

    // fill starts the copy of n rows from row `from` on of x, which has T rows at distance ld. Rows beyond are zero.
    static __device__ __forceinline__ void fill(bf16 *tile, const bf16 *x, int ld, int from, int n, int T) {
        const bool wide = whole(x, ld);
        for (int i = threadIdx.x; i < n * CHUNKS; i += blockDim.x) {
            const int r = i / CHUNKS, c = i % CHUNKS * 8;
            const bool in = from + r < T;
            const bf16 *src = x + (int64_t)(in ? from + r : 0) * ld + c;
            bf16 *dst = tile + r * LD + c;
            if (wide) {
                cp_async<16>(shared(dst), src, in);
            } else {
#pragma unroll 1
                for (int e = 0; e < 8; e++) dst[e] = in ? src[e] : bf16{0};
            }
        }
    }

    // left is where a lane's address for ldmatrix points in 16 x 16 elements that become an A, and, with
    // ldmatrix_trans, two B of [16 k, 8 n] side by side. right is that of two B below one another, of rows of n.
    static __device__ __forceinline__ int left() {
        const int l = threadIdx.x & 31;
        return (l % 16 * LD + l / 16 * 8) * 2;
    }
    static __device__ __forceinline__ int right() {
        const int l = threadIdx.x & 31;
        return ((l / 16 * 8 + l % 8) * LD + l / 8 % 2 * 8) * 2;
    }
    static __device__ __forceinline__ int at(int row, int col) {
        return (row * LD + col) * 2;
    }

    // load makes 16 M rows of a tile left sides.
    template <int M>
    static __device__ __forceinline__ void load(uint32_t (&a)[M][D / 16][4], shared_t tile) {
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int k = 0; k < D / 16; k++) ldmatrix(a[m][k], tile + left() + at(16 * m, 16 * k));
    }

    // store writes 16 M rows of x, times c, of a warp: to its own rows of tile, from there as whole chunks to y. Rows
    // from `rows` on are not written.
    template <int M>
    static __device__ __forceinline__ void store(bf16 *y, int ld, int rows, bf16 *tile, const float (&x)[M][D / 8][4],
                                                 const float (&c)[M][2]) {
        const int l = threadIdx.x & 31;
        __syncwarp();  // other lanes' ldmatrix
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int n = 0; n < D / 8; n++)
#pragma unroll
                for (int h = 0; h < 2; h++)
                    *(uint32_t *)(tile + (16 * m + 8 * h + l / 4) * LD + n * 8 + l % 4 * 2) =
                        pack_bf16(x[m][n][2 * h] * c[m][h], x[m][n][2 * h + 1] * c[m][h]);
        __syncwarp();
        if (rows > 16 * M) rows = 16 * M;
        if (whole(y, ld)) {
#pragma unroll 1
            for (int i = l; i < rows * CHUNKS; i += 32) {
                const int r = i / CHUNKS, col = i % CHUNKS * 8;
                *(uint4 *)(y + (int64_t)r * ld + col) = *(const uint4 *)(tile + r * LD + col);
            }
            return;
        }
#pragma unroll 1
        for (int i = l; i < rows * D; i += 32) y[(int64_t)(i / D) * ld + i % D] = tile[i / D * LD + i % D];
    }
};

// by_rows: c[16 M, N] += a b' for rows b[N, D], where a is in registers. Rows of b from n on are left out, 16 at a
// time.
template <int D, int M, int N>
__device__ __forceinline__ void by_rows(float (&c)[M][N / 8][4], const uint32_t (&a)[M][D / 16][4], shared_t b, int n) {
    typedef Tile<D> tile;
    b += tile::right();
#pragma unroll
    for (int k = 0; k < D / 16; k++)
#pragma unroll
        for (int j = 0; j < N / 16; j++) {
            if (16 * j >= n) continue;
            uint32_t f[4];
            ldmatrix(f, b + tile::at(16 * j, 16 * k));
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma(c[m][2 * j], a[m][k], f[0], f[1]);
                mma(c[m][2 * j + 1], a[m][k], f[2], f[3]);
            }
        }
}

// by_rows with the left side in shared memory.
template <int D, int M, int N>
__device__ __forceinline__ void by_rows(float (&c)[M][N / 8][4], shared_t a, shared_t b) {
    typedef Tile<D> tile;
    a += tile::left();
    b += tile::right();
#pragma unroll
    for (int k = 0; k < D / 16; k++) {
        uint32_t f[M][4];
#pragma unroll
        for (int m = 0; m < M; m++) ldmatrix(f[m], a + tile::at(16 * m, 16 * k));
#pragma unroll
        for (int j = 0; j < N / 16; j++) {
            uint32_t g[4];
            ldmatrix(g, b + tile::at(16 * j, 16 * k));
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma(c[m][2 * j], f[m], g[0], g[1]);
                mma(c[m][2 * j + 1], f[m], g[2], g[3]);
            }
        }
    }
}

// by_columns: c[16 M, D] += p b for p[16 M, N], rounded, and b[N, D]; of p and b, n columns and rows, 16 at a time.
template <int D, int M, int N>
__device__ __forceinline__ void by_columns(float (&c)[M][D / 8][4], const float (&p)[M][N / 8][4], shared_t b, int n) {
    typedef Tile<D> tile;
    b += tile::left();
#pragma unroll
    for (int k = 0; k < N / 16; k++) {
        if (16 * k >= n) continue;
        uint32_t a[M][4];
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float *two = p[m][2 * k + i / 2] + i % 2 * 2;
                a[m][i] = pack_bf16(two[0], two[1]);
            }
#pragma unroll
        for (int j = 0; j < D / 16; j++) {
            uint32_t f[4];
            ldmatrix_trans(f, b + tile::at(16 * k, 16 * j));
#pragma unroll
            for (int m = 0; m < M; m++) {
                mma(c[m][2 * j], a[m], f[0], f[1]);
                mma(c[m][2 * j + 1], a[m], f[2], f[3]);
            }
        }
    }
}

template <int M, int N>
__device__ __forceinline__ void zero(float (&c)[M][N][4]) {
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int n = 0; n < N; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) c[m][n][i] = 0.0f;
}

// hide makes the scores of columns from n on minus infinity.
template <int M, int N>
__device__ __forceinline__ void hide(float (&s)[M][N / 8][4], int n) {
    const int t = threadIdx.x % 4 * 2;
#pragma unroll
    for (int j = 0; j < N / 8; j++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (8 * j + t + i % 2 >= n)
#pragma unroll
                for (int m = 0; m < M; m++) s[m][j][i] = -INF;
}

// quad_sum is the sum over the four lanes that share a row of a C.
__device__ __forceinline__ float quad_sum(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

// Queries of a warp and what their softmax has come to over the keys so far.
template <int D, int M, int N>
struct Online {
    uint32_t q[M][D / 16][4];
    float o[M][D / 8][4];  // sum of 2^(c2 s - c2 top) v
    float top[M][2];       // the largest score
    float sum[M][2];       // of the lane's own columns

    // add takes n of a tile's N keys in; LAST is whether n may be less than N.
    template <bool LAST>
    __device__ __forceinline__ void add(shared_t k, shared_t v, int n, float c2) {
        float s[M][N / 8][4];
        zero(s);
        by_rows<D, M, N>(s, q, k, LAST ? n : N);
        if (LAST) hide<M, N>(s, n);
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float t = top[m][h];
#pragma unroll
                for (int j = 0; j < N / 8; j++) t = fmaxf(t, fmaxf(s[m][j][2 * h], s[m][j][2 * h + 1]));
                t = fmaxf(t, __shfl_xor_sync(0xffffffffu, t, 1));
                t = fmaxf(t, __shfl_xor_sync(0xffffffffu, t, 2));
                const float shrink = exp2_near((top[m][h] - t) * c2), from = t * c2;
                top[m][h] = t;
                float add = 0.0f;
#pragma unroll
                for (int j = 0; j < N / 8; j++)
#pragma unroll
                    for (int i = 2 * h; i < 2 * h + 2; i++) {
                        s[m][j][i] = exp2_near(fmaf(s[m][j][i], c2, -from));
                        add += s[m][j][i];
                    }
                sum[m][h] = fmaf(sum[m][h], shrink, add);
#pragma unroll
                for (int j = 0; j < D / 8; j++) {
                    o[m][j][2 * h] *= shrink;
                    o[m][j][2 * h + 1] *= shrink;
                }
            }
        by_columns<D, M, N>(o, s, v, LAST ? n : N);
    }
};

template <int D, int M, int N>
__device__ __forceinline__ void attention(bf16 *out, float *stats, const bf16 *q, const bf16 *k, const bf16 *v, int ldq,
                                          int ldkv, int Tq, int T, float c) {
    typedef Tile<D> tile;
    const int head = blockIdx.y, H = gridDim.y, ldo = H * D, rows = blockDim.x / 2 * M, q0 = blockIdx.x * rows;
    const int64_t b = blockIdx.z;
    q += b * Tq * ldq + head * D;
    k += b * T * ldkv + head * D;
    v += b * T * ldkv + head * D;
    bf16 *qs = (bf16 *)smem, *stage = qs + rows * tile::LD;  // stage[2][k, v][N, LD]
    tile::fill(qs, q, ldq, q0, rows, Tq);
    tile::fill(stage, k, ldkv, 0, N, T);
    tile::fill(stage + N * tile::LD, v, ldkv, 0, N, T);
    cp_async_commit();

    const int mine = threadIdx.x / 32 * 16 * M;  // the warp's first row
    const bool works = q0 + mine < Tq;
    const float c2 = c * LOG2E;
    Online<D, M, N> state;
    zero(state.o);
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) state.top[m][h] = -INF, state.sum[m][h] = 0.0f;
    for (int from = 0, turn = 0; from < T; from += N, turn ^= 1) {
        cp_async_wait<0>();
        __syncthreads();  // all have left the other buffer too
        if (from + N < T) {
            bf16 *next = stage + (turn ^ 1) * 2 * N * tile::LD;
            tile::fill(next, k, ldkv, from + N, N, T);
            tile::fill(next + N * tile::LD, v, ldkv, from + N, N, T);
            cp_async_commit();
        }
        if (!works) continue;
        if (from == 0) tile::template load<M>(state.q, shared(qs + mine * tile::LD));
        const shared_t ks = shared(stage) + turn * tile::at(2 * N, 0), vs = ks + tile::at(N, 0);
        if (from + N <= T)
            state.template add<false>(ks, vs, N, c2);
        else
            state.template add<true>(ks, vs, T - from, c2);
    }
    if (!works) return;
    const int l = threadIdx.x & 31;
    float inv[M][2];
#pragma unroll
    for (int m = 0; m < M; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            inv[m][h] = 1.0f / quad_sum(state.sum[m][h]);
            const int row = q0 + mine + 16 * m + 8 * h + l / 4;
            if (stats && l % 4 == 0 && row < Tq) {
                float *st = stats + 2 * ((b * H + head) * Tq + row);
                st[0] = state.top[m][h] * c;
                st[1] = inv[m][h];
            }
        }
    tile::template store<M>(out + (b * Tq + q0 + mine) * ldo + head * D, ldo, Tq - q0 - mine, qs + mine * tile::LD,
                            state.o, inv);
}

// The backward. With p = softmax(c q k'), dp = dout v', delta = the row sums of dout * out, and ds = p (dp - delta):
//   dq = c ds k,  dk = c ds' q,  dv = p' dout.
// p = 2^(c2 s - level) with level = log2 e * stats[0] - log2 stats[1]. attention_dq also leaves terms [B, H, Tq, 2] =
// level and delta, which attention_dkv reads after it.

template <int D, int M, int N>
__device__ __forceinline__ void attention_dq(bf16 *dq, float2 *terms, const bf16 *dout, const bf16 *out,
                                             const float *stats, const bf16 *q, const bf16 *k, const bf16 *v, int ldq,
                                             int ldkv, int Tq, int T, float c) {
    typedef Tile<D> tile;
    const int head = blockIdx.y, H = gridDim.y, ldo = H * D, rows = blockDim.x / 2 * M, q0 = blockIdx.x * rows;
    const int64_t b = blockIdx.z;
    q += b * Tq * ldq + head * D;
    dq += b * Tq * ldq + head * D;
    k += b * T * ldkv + head * D;
    v += b * T * ldkv + head * D;
    dout += b * Tq * ldo + head * D;
    out += b * Tq * ldo + head * D;
    stats += (b * H + head) * Tq * 2;
    terms += (b * H + head) * Tq;
    bf16 *qs = (bf16 *)smem, *gs = qs + rows * tile::LD, *os = gs + rows * tile::LD;  // q, dout, out
    bf16 *stage = os + rows * tile::LD;                                               // [2][k, v][N, LD]
    tile::fill(qs, q, ldq, q0, rows, Tq);
    tile::fill(gs, dout, ldo, q0, rows, Tq);
    tile::fill(os, out, ldo, q0, rows, Tq);
    tile::fill(stage, k, ldkv, 0, N, T);
    tile::fill(stage + N * tile::LD, v, ldkv, 0, N, T);
    cp_async_commit();

    const int l = threadIdx.x & 31, mine = threadIdx.x / 32 * 16 * M;
    const bool works = q0 + mine < Tq;
    const float c2 = c * LOG2E;
    uint32_t qf[M][D / 16][4], gf[M][D / 16][4];
    float level[M][2], delta[M][2], sum[M][D / 8][4];
    zero(sum);
    for (int from = 0, turn = 0; from < T; from += N, turn ^= 1) {
        cp_async_wait<0>();
        __syncthreads();
        if (from + N < T) {
            bf16 *next = stage + (turn ^ 1) * 2 * N * tile::LD;
            tile::fill(next, k, ldkv, from + N, N, T);
            tile::fill(next + N * tile::LD, v, ldkv, from + N, N, T);
            cp_async_commit();
        }
        if (!works) continue;
        if (from == 0) {
            tile::template load<M>(qf, shared(qs + mine * tile::LD));
            tile::template load<M>(gf, shared(gs + mine * tile::LD));
#pragma unroll
            for (int m = 0; m < M; m++) {
                delta[m][0] = delta[m][1] = 0.0f;
#pragma unroll
                for (int kk = 0; kk < D / 16; kk++) {
                    uint32_t of[4];
                    ldmatrix(of, shared(os + mine * tile::LD) + tile::left() + tile::at(16 * m, 16 * kk));
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        delta[m][i % 2] = fmaf(low(gf[m][kk][i]), low(of[i]), delta[m][i % 2]);
                        delta[m][i % 2] = fmaf(high(gf[m][kk][i]), high(of[i]), delta[m][i % 2]);
                    }
                }
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    delta[m][h] = quad_sum(delta[m][h]);
                    const int row = q0 + mine + 16 * m + 8 * h + l / 4;
                    level[m][h] = row < Tq ? fmaf(stats[2 * row], LOG2E, -log2f(stats[2 * row + 1])) : 0.0f;
                    if (l % 4 == 0 && row < Tq) terms[row] = float2{level[m][h], delta[m][h]};
                }
            }
        }
        const shared_t ks = shared(stage) + turn * tile::at(2 * N, 0), vs = ks + tile::at(N, 0);
        float s[M][N / 8][4], ds[M][N / 8][4];
        zero(s);
        by_rows<D, M, N>(s, qf, ks, N);
        if (from + N > T) hide<M, N>(s, T - from);
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int j = 0; j < N / 8; j++)
#pragma unroll
                for (int i = 0; i < 4; i++) ds[m][j][i] = -delta[m][i / 2];
        by_rows<D, M, N>(ds, gf, vs, N);
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int j = 0; j < N / 8; j++)
#pragma unroll
                for (int i = 0; i < 4; i++) ds[m][j][i] *= exp2_near(fmaf(s[m][j][i], c2, -level[m][i / 2]));
        by_columns<D, M, N>(sum, ds, ks, N);
    }
    if (!works) return;
    float scale[M][2];
#pragma unroll
    for (int m = 0; m < M; m++) scale[m][0] = scale[m][1] = c;
    tile::template store<M>(dq + (int64_t)(q0 + mine) * ldq, ldq, Tq - q0 - mine, qs + mine * tile::LD, sum, scale);
}

// A row here is a key, a column a query. A query beyond Tq has q, dout, level and delta of zero and adds nothing.
template <int D, int M, int N>
__device__ __forceinline__ void attention_dkv(bf16 *dk, bf16 *dv, const bf16 *dout, const float2 *terms, const bf16 *q,
                                              const bf16 *k, const bf16 *v, int ldq, int ldkv, int Tq, int T, float c) {
    typedef Tile<D> tile;
    const int head = blockIdx.y, H = gridDim.y, ldo = H * D, rows = blockDim.x / 2 * M, k0 = blockIdx.x * rows;
    const int64_t b = blockIdx.z;
    q += b * Tq * ldq + head * D;
    dout += b * Tq * ldo + head * D;
    terms += (b * H + head) * Tq;
    k += b * T * ldkv + head * D;
    v += b * T * ldkv + head * D;
    dk += b * T * ldkv + head * D;
    dv += b * T * ldkv + head * D;
    bf16 *ks = (bf16 *)smem, *vs = ks + rows * tile::LD, *stage = vs + rows * tile::LD;  // stage[2][q, dout][N, LD]
    float2 *columns = (float2 *)(stage + 4 * N * tile::LD);                              // [2][N]
    const auto fill = [&](int turn, int from) {
        bf16 *to = stage + turn * 2 * N * tile::LD;
        tile::fill(to, q, ldq, from, N, Tq);
        tile::fill(to + N * tile::LD, dout, ldo, from, N, Tq);
        for (int i = threadIdx.x; i < N; i += blockDim.x)
            cp_async<8>(shared(columns + turn * N + i), terms + (from + i < Tq ? from + i : 0), from + i < Tq);
        cp_async_commit();
    };
    tile::fill(ks, k, ldkv, k0, rows, T);
    tile::fill(vs, v, ldkv, k0, rows, T);
    fill(0, 0);

    const int l = threadIdx.x & 31, mine = threadIdx.x / 32 * 16 * M;
    const bool works = k0 + mine < T;
    const float c2 = c * LOG2E;
    float gk[M][D / 8][4], gv[M][D / 8][4];
    zero(gk);
    zero(gv);
    for (int from = 0, turn = 0; from < Tq; from += N, turn ^= 1) {
        cp_async_wait<0>();
        __syncthreads();
        if (from + N < Tq) fill(turn ^ 1, from + N);
        if (!works) continue;
        const shared_t q1 = shared(stage) + turn * tile::at(2 * N, 0), g1 = q1 + tile::at(N, 0);
        const float2 *column = columns + turn * N + l % 4 * 2;
        float p[M][N / 8][4], ds[M][N / 8][4];
        zero(p);
        by_rows<D, M, N>(p, shared(ks + mine * tile::LD), q1);
#pragma unroll
        for (int j = 0; j < N / 8; j++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float2 term = column[8 * j + i % 2];
#pragma unroll
                for (int m = 0; m < M; m++) {
                    p[m][j][i] = exp2_near(fmaf(p[m][j][i], c2, -term.x));
                    ds[m][j][i] = -term.y;
                }
            }
        by_columns<D, M, N>(gv, p, g1, N);
        by_rows<D, M, N>(ds, shared(vs + mine * tile::LD), g1);
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int j = 0; j < N / 8; j++)
#pragma unroll
                for (int i = 0; i < 4; i++) ds[m][j][i] *= p[m][j][i];
        by_columns<D, M, N>(gk, ds, q1, N);
    }
    if (!works) return;
    float one[M][2], scale[M][2];
#pragma unroll
    for (int m = 0; m < M; m++) one[m][0] = one[m][1] = 1.0f, scale[m][0] = scale[m][1] = c;
    const int64_t at = (int64_t)(k0 + mine) * ldkv;
    tile::template store<M>(dk + at, ldkv, T - k0 - mine, ks + mine * tile::LD, gk, scale);
    tile::template store<M>(dv + at, ldkv, T - k0 - mine, vs + mine * tile::LD, gv, one);
}

// The tiles of each head size; attention.go knows M and N too, and launches 32 threads for each 16 M rows.
#define ATTENTION(D, M, N)                                                                                        \
    extern "C" __global__ void __launch_bounds__(128, 2)                                                          \
        attention_mma##D(bf16 *out, float *stats, const bf16 *q, const bf16 *k, const bf16 *v, int ldq, int ldkv, \
                         int Tq, int T, float c) {                                                                \
        attention<D, M, N>(out, stats, q, k, v, ldq, ldkv, Tq, T, c);                                             \
    }
#define ATTENTION_DQ(D, M, N)                                                                                         \
    extern "C" __global__ void __launch_bounds__(128, 2)                                                              \
        attention_dq_mma##D(bf16 *dq, float2 *terms, const bf16 *dout, const bf16 *out, const float *stats,           \
                            const bf16 *q, const bf16 *k, const bf16 *v, int ldq, int ldkv, int Tq, int T, float c) { \
        attention_dq<D, M, N>(dq, terms, dout, out, stats, q, k, v, ldq, ldkv, Tq, T, c);                             \
    }
#define ATTENTION_DKV(D, M, N)                                                                                        \
    extern "C" __global__ void __launch_bounds__(128, 2)                                                              \
        attention_dkv_mma##D(bf16 *dk, bf16 *dv, const bf16 *dout, const float2 *terms, const bf16 *q, const bf16 *k, \
                             const bf16 *v, int ldq, int ldkv, int Tq, int T, float c) {                              \
        attention_dkv<D, M, N>(dk, dv, dout, terms, q, k, v, ldq, ldkv, Tq, T, c);                                    \
    }
ATTENTION(64, 2, 64)
ATTENTION(80, 2, 32)
ATTENTION_DQ(64, 2, 32)
ATTENTION_DQ(80, 1, 32)
ATTENTION_DKV(64, 2, 32)
ATTENTION_DKV(80, 1, 32)
