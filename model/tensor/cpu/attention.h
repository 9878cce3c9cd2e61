// Multi-head attention. Each head of each image is packed into contiguous, zero-padded scratch and multiplied by a
// register-tiled product of our own: its matrices are too small for a library's packing. The probabilities of a block
// of queries live in the second cache only; the backward computes them again.

// The register tile: ROWS x TILE vectors of sums.
#if W == 16 || defined(__aarch64__)
#define TILE 4  // 24 sums of 32 registers
#else
#define TILE 2  // 12 sums of 16 registers
#endif
#define ROWS 6

// C[R, N vectors] (+)= sum over k < K of A[r ra + k ca] B[k ldb + n]. R and N are constants where it is inlined.
INLINE void tile(int R, int N, float *C, long ldc, const float *A, long ra, long ca, const float *B, long ldb, long K,
                 int acc) {
    V c[ROWS][TILE];
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int n = 0; n < N; n++) c[r][n] = acc ? load(C + r * ldc + n * W) : splat(0);
    for (long k = 0; k < K; k++, A += ca, B += ldb) {
        V b[TILE];
#pragma GCC unroll 4
        for (int n = 0; n < N; n++) b[n] = load(B + n * W);
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            const V a = splat(A[r * ra]);
#pragma GCC unroll 4
            for (int n = 0; n < N; n++) c[r][n] += a * b[n];
        }
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; r++)
#pragma GCC unroll 4
        for (int n = 0; n < N; n++) store(C + r * ldc + n * W, c[r][n]);
}

#define TILE_ROWS(N)                                       \
    switch (M - m < ROWS ? M - m : ROWS) {                 \
        case 1:                                            \
            tile(1, N, c, ldc, a, ra, ca, b, ldb, K, acc); \
            break;                                         \
        case 2:                                            \
            tile(2, N, c, ldc, a, ra, ca, b, ldb, K, acc); \
            break;                                         \
        case 3:                                            \
            tile(3, N, c, ldc, a, ra, ca, b, ldb, K, acc); \
            break;                                         \
        case 4:                                            \
            tile(4, N, c, ldc, a, ra, ca, b, ldb, K, acc); \
            break;                                         \
        case 5:                                            \
            tile(5, N, c, ldc, a, ra, ca, b, ldb, K, acc); \
            break;                                         \
        default:                                           \
            tile(6, N, c, ldc, a, ra, ca, b, ldb, K, acc); \
    }

// C[M, N] (+)= A B, with A[m ra + k ca] and N a multiple of W. The order of each sum is k alone.
static void small_product(float *C, long ldc, const float *A, long ra, long ca, const float *B, long ldb, long M,
                          long N, long K, int acc) {
    for (long n = 0; n < N; n += TILE * W) {
        const float *b = B + n;
        for (long m = 0; m < M; m += ROWS) {
            const float *a = A + m * ra;
            float *c = C + m * ldc + n;
            const long left = (N - n) / W;
#if TILE == 4
            if (left >= 4) {
                TILE_ROWS(4)
            } else if (left == 3) {
                TILE_ROWS(3)
            } else if (left == 2) {
                TILE_ROWS(2)
            } else {
                TILE_ROWS(1)
            }
#else
            if (left >= 2) {
                TILE_ROWS(2)
            } else {
                TILE_ROWS(1)
            }
#endif
        }
    }
}

#define ROUND_UP(n, m) (((n) + (m)-1) / (m) * (m))
#define QUERIES 66  // the most queries of a block: their scores fill about a quarter of a second cache

// Queries are cut into equal blocks of whole tiles.
static long block_size(long Tq) {
    const long blocks = (Tq + QUERIES - 1) / QUERIES;
    return ROUND_UP((Tq + blocks - 1) / blocks, ROWS);
}

// Copies T rows of n values at distance ld to rows of np >= n values, padded with zeros.
static void pack_rows(float *dst, const float *src, long ld, long T, long n, long np) {
    for (long t = 0; t < T; t++, src += ld, dst += np) {
        long i = 0;
        for (; i + W <= n; i += W) store(dst + i, load(src + i));
        if (i < np) store(dst + i, load_part(src + i, n - i));
    }
}

// One step of a W x W transpose: swaps the off-diagonal blocks of size S.
#define SWAP(S)                                                \
    do {                                                       \
        VI lo, hi;                                             \
        for (int j = 0; j < W; j++) {                          \
            lo[j] = j & (S) ? W + j - (S) : j;                 \
            hi[j] = j & (S) ? W + j : j + (S);                 \
        }                                                      \
        _Pragma("GCC unroll 16") for (int i = 0; i < W; i++) { \
            if (i & (S)) continue;                             \
            const V x = v[i], y = v[i + (S)];                  \
            v[i] = __builtin_shuffle(x, y, lo);                \
            v[i + (S)] = __builtin_shuffle(x, y, hi);          \
        }                                                      \
    } while (0)

// dst[n, Tp] = transpose of T rows of n values at distance ld; columns T to Tp (a multiple of W) are zero.
static void pack_transposed(float *dst, const float *src, long ld, long T, long n, long Tp) {
    for (long t = 0; t < Tp; t += W) {
        for (long j = 0; j < n; j += W) {
            const long cols = n - j < W ? n - j : W;
            V v[W];
            for (int i = 0; i < W; i++) {
                const float *p = src + (t + i) * ld + j;
                v[i] = t + i >= T ? splat(0) : cols == W ? load(p) : load_part(p, cols);
            }
            SWAP(1);
            SWAP(2);
#if W > 4
            SWAP(4);
#endif
#if W > 8
            SWAP(8);
#endif
            for (int i = 0; i < cols; i++) store(dst + (j + i) * Tp + t, v[i]);
        }
    }
}

// Copies rows of n values out of padded rows, times c.
static void unpack_rows(float *dst, long ld, const float *src, long T, long n, long np, float c) {
    for (long t = 0; t < T; t++, src += np, dst += ld) {
        long i = 0;
        for (; i + W <= n; i += W) store(dst + i, load(src + i) * c);
        if (i < n) store_part(dst + i, load_part(src + i, n - i) * c, n - i);
    }
}

size_t FN(attention_scratch)(heads_t h, int backward) {
    const size_t Tp = ROUND_UP(h.T, W), dp = ROUND_UP(h.dh, W);
    const size_t head = Tp * (size_t)h.dh, rows = (size_t)h.T * dp, block = QUERIES * Tp, out = QUERIES * dp;
    if (!backward) return head + rows + block + out;
    return 2 * head + 3 * rows + 2 * (size_t)h.Tq * dp + 2 * block + out;
}

static float row_dot(const float *a, const float *b, long n) {
    V sum = {0};
    long i = 0;
    for (; i + W <= n; i += W) sum += load(a + i) * load(b + i);
    if (i < n) sum += load_part(a + i, n - i) * load_part(b + i, n - i);
    return hsum(sum);
}

// One row of scores becomes exp(c (s - top)) with zeros beyond T; returns c top and 1 / sum.
static void softmax_row(float *s, long T, long Tp, float c, float *top, float *inv) {
    const VI last = lanes_below(T - (Tp - W));  // of the last vector
    V m = vselect(last, load(s + Tp - W), splat(-INFINITY));
    for (long j = 0; j < Tp - W; j += W) m = vmax(m, load(s + j));
    *top = hmax(m) * c;
    V sum = {0};
    for (long j = 0; j < Tp - W; j += W) {
        const V e = vexp(load(s + j) * c - *top);
        store(s + j, e);
        sum += e;
    }
    const V e = (V)((VI)vexp(load(s + Tp - W) * c - *top) & last);
    store(s + Tp - W, e);
    *inv = 1.0f / hsum(sum + e);
}

// out[B, Tq, H dh] = softmax(q k' / sqrt(dh)) v; stats[B, H, Tq, 2] (may be NULL) = the row's largest score and 1 / the
// sum of the exponentials. In causal attention a block of queries reads the keys up to its last, and each row ends with
// zeros, which add nothing.
void FN(attention)(float *out, float *stats, heads_t h, float *scratch) {
    const long T = h.T, dh = h.dh, Tp = ROUND_UP(T, W), dp = ROUND_UP(dh, W), D = (long)h.H * dh;
    float *kt = scratch, *v = kt + dh * Tp, *s = v + T * dp, *o = s + QUERIES * Tp;
    const long block = block_size(h.Tq);
    const float c = 1.0f / sqrtf((float)dh);
    for (int bh = 0; bh < h.B * h.H; bh++) {
        const int b = bh / h.H, head = bh % h.H;
        const float *q = h.q + (long)b * h.Tq * h.ldq + head * dh;
        pack_transposed(kt, h.k + (long)b * T * h.ldkv + head * dh, h.ldkv, T, dh, Tp);
        pack_rows(v, h.v + (long)b * T * h.ldkv + head * dh, h.ldkv, T, dh, dp);
        for (long q0 = 0; q0 < h.Tq; q0 += block) {
            const long n = h.Tq - q0 < block ? h.Tq - q0 : block;
            const long seen = h.causal ? q0 + n : T, wide = ROUND_UP(seen, W);
            float inv[QUERIES];
            small_product(s, Tp, q + q0 * h.ldq, h.ldq, 1, kt, Tp, n, wide, dh, 0);
            for (long i = 0; i < n; i++) {
                const long own = h.causal ? q0 + i + 1 : T, end = ROUND_UP(own, W);
                float top;
                softmax_row(s + i * Tp, own, end, c, &top, &inv[i]);
                for (long j = end; j < wide; j += W) store(s + i * Tp + j, splat(0));
                if (stats) {
                    float *st = stats + 2 * ((long)bh * h.Tq + q0 + i);
                    st[0] = top;
                    st[1] = inv[i];
                }
            }
            small_product(o, dp, s, Tp, 1, v, dp, n, dp, seen, 0);
            for (long i = 0; i < n; i++)
                unpack_rows(out + ((long)b * h.Tq + q0 + i) * D + head * dh, D, o + i * dp, 1, dh, dp, inv[i]);
        }
    }
}

// For a block of n queries: s becomes the probabilities p, and dp becomes c p (dp - delta), the scores' gradient.
static void softmax_backward_block(float *s, float *dp, const float *stats, const float *delta, long n, long T, long Tp,
                                   float c) {
    const VI last = lanes_below(T - (Tp - W));  // of the last vector
    for (long i = 0; i < n; i++, s += Tp, dp += Tp) {
        const float top = stats[2 * i], inv = stats[2 * i + 1];
        for (long j = 0; j < Tp; j += W) {
            V p = vexp(load(s + j) * c - top) * inv;
            if (j == Tp - W) p = (V)((VI)p & last);
            store(s + j, p);
            store(dp + j, (load(dp + j) - delta[i]) * p * c);
        }
    }
}

// Assigns dq [B, Tq, *] at distance ldq, dk and dv [B, T, *] at distance ldkv.
void FN(attention_backward)(float *dq, float *dk, float *dv, const float *dout, const float *out, const float *stats,
                            heads_t h, float *scratch) {
    const long T = h.T, Tq = h.Tq, dh = h.dh, Tp = ROUND_UP(T, W), dp = ROUND_UP(dh, W), D = (long)h.H * dh;
    float *kt = scratch, *vt = kt + dh * Tp, *k = vt + dh * Tp, *q = k + T * dp, *g = q + Tq * dp;
    float *s = g + Tq * dp, *ds = s + QUERIES * Tp;
    float *pk = ds + QUERIES * Tp, *pv = pk + T * dp, *pq = pv + T * dp;  // padded results; whole heads need none
    const long block = block_size(Tq), whole = dh == dp, ldkv = whole ? h.ldkv : dp;
    const float c = 1.0f / sqrtf((float)dh);
    for (int bh = 0; bh < h.B * h.H; bh++) {
        const int b = bh / h.H, head = bh % h.H;
        const long qAt = (long)b * Tq * h.ldq + head * dh, kvAt = (long)b * T * h.ldkv + head * dh;
        const long oAt = (long)b * Tq * D + head * dh;
        pack_transposed(kt, h.k + kvAt, h.ldkv, T, dh, Tp);
        pack_transposed(vt, h.v + kvAt, h.ldkv, T, dh, Tp);
        pack_rows(k, h.k + kvAt, h.ldkv, T, dh, dp);
        pack_rows(q, h.q + qAt, h.ldq, Tq, dh, dp);
        pack_rows(g, dout + oAt, D, Tq, dh, dp);
        float *gk = whole ? dk + kvAt : pk, *gv = whole ? dv + kvAt : pv;
        for (long q0 = 0; q0 < Tq; q0 += block) {
            const long n = Tq - q0 < block ? Tq - q0 : block;
            float delta[QUERIES];
            for (long i = 0; i < n; i++) delta[i] = row_dot(g + (q0 + i) * dp, out + oAt + (q0 + i) * D, dh);
            small_product(s, Tp, q + q0 * dp, dp, 1, kt, Tp, n, Tp, dh, 0);
            small_product(ds, Tp, g + q0 * dp, dp, 1, vt, Tp, n, Tp, dh, 0);
            softmax_backward_block(s, ds, stats + 2 * ((long)bh * Tq + q0), delta, n, T, Tp, c);
            float *gq = whole ? dq + qAt + q0 * h.ldq : pq;
            small_product(gv, ldkv, s, 1, Tp, g + q0 * dp, dp, T, dp, n, q0 > 0);
            small_product(gk, ldkv, ds, 1, Tp, q + q0 * dp, dp, T, dp, n, q0 > 0);
            small_product(gq, whole ? h.ldq : dp, ds, Tp, 1, k, dp, n, dp, T, 0);
            if (!whole) unpack_rows(dq + qAt + q0 * h.ldq, h.ldq, pq, n, dh, dp, 1.0f);
        }
        if (!whole) {
            unpack_rows(dk + kvAt, h.ldkv, pk, T, dh, dp, 1.0f);
            unpack_rows(dv + kvAt, h.ldkv, pv, T, dh, dp, 1.0f);
        }
    }
}
