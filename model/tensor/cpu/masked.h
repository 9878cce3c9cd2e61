// Kernels of weights that are trained at chosen positions only.

void FN(scatter)(float *y, const float *v, const int32_t *index, long n) {
    for (long i = 0; i < n; i++) y[index[i]] = v[i];
}

void FN(gather)(float *v, const float *x, const int32_t *index, long n, long origin, int acc) {
    for (long i = 0; i < n; i++) v[i] = acc ? v[i] + x[index[i] - origin] : x[index[i] - origin];
}

// Of the rows a and b: lanes with bit s go from a's upper to b's lower places and back, others stay. Done for every bit
// of a row's number, this transposes a square of W rows.
INLINE void swap_lanes(V *a, V *b, int s) {
    VI upper, lower;
    for (int k = 0; k < W; k++) {
        upper[k] = k & s ? W + k - s : k;
        lower[k] = k & s ? W + k : k + s;
    }
    const V u = __builtin_shuffle(*a, *b, upper), l = __builtin_shuffle(*a, *b, lower);
    *a = u;
    *b = l;
}

#define SWAP_ROWS(s)            \
    for (int i = 0; i < W; i++) \
        if (!(i & (s))) swap_lanes(&r[i], &r[i + (s)], s)

// t[W rows at distance LIFT_SAMPLED_ROWS] = the W columns of W rows of x at distance ld.
INLINE void transpose_square(float *t, const float *x, long ld) {
    V r[W];
    for (int i = 0; i < W; i++) r[i] = load(x + i * ld);
    SWAP_ROWS(1);
    SWAP_ROWS(2);
#if W > 4
    SWAP_ROWS(4);
#endif
#if W > 8
    SWAP_ROWS(8);
#endif
    for (int i = 0; i < W; i++) store(t + i * LIFT_SAMPLED_ROWS, r[i]);
}

// t[N][LIFT_SAMPLED_ROWS] = x[M, N] transposed, M <= LIFT_SAMPLED_ROWS; rows of t are filled up to padded with zeros.
static void transposed(float *t, const float *x, long M, long N, long padded) {
    for (long c0 = 0; c0 < N; c0 += W) {
        const long c1 = c0 + W < N ? c0 + W : N;
        long m0 = 0;
        for (; c1 - c0 == W && m0 + W <= M; m0 += W)
            transpose_square(t + c0 * LIFT_SAMPLED_ROWS + m0, x + m0 * N + c0, N);
        for (long c = c0; c < c1; c++) {
            for (long m = m0; m < M; m++) t[c * LIFT_SAMPLED_ROWS + m] = x[m * N + c];
            for (long m = M; m < padded; m++) t[c * LIFT_SAMPLED_ROWS + m] = 0;
        }
    }
}

// The dot product of n floats, n a multiple of W.
INLINE float short_dot(const float *a, const float *b, long n) {
    V s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
    long i = 0;
    for (; i + 4 * W <= n; i += 4 * W) {
        s0 += load(a + i) * load(b + i);
        s1 += load(a + i + W) * load(b + i + W);
        s2 += load(a + i + 2 * W) * load(b + i + 2 * W);
        s3 += load(a + i + 3 * W) * load(b + i + 3 * W);
    }
    for (; i < n; i += W) s0 += load(a + i) * load(b + i);
    return hsum((s0 + s1) + (s2 + s3));
}

// In chunks of rows, both factors transposed first, so that a value is a dot product of neighbours. index is sorted:
// a's row of it moves on slowly.
void FN(sampled_product)(float *s, const float *a, const float *b, const int32_t *index, long n, long origin, long M,
                         long N, long K, int acc, float *scratch) {
    float *at = scratch, *bt = scratch + N * LIFT_SAMPLED_ROWS;
    if (n == 0) return;
    if (!acc) memset(s, 0, (size_t)n * sizeof(float));
    for (long m0 = 0; m0 < M; m0 += LIFT_SAMPLED_ROWS) {
        const long rows = M - m0 < LIFT_SAMPLED_ROWS ? M - m0 : LIFT_SAMPLED_ROWS;
        const long padded = (rows + W - 1) / W * W;
        transposed(at, a + m0 * N, rows, N, padded);
        transposed(bt, b + m0 * K, rows, K, padded);
        long row = 0, first = 0;  // first position of that row
        for (long i = 0; i < n; i++) {
            const long p = index[i] - origin;
            while (p >= first + K) row++, first += K;
            s[i] += short_dot(at + row * LIFT_SAMPLED_ROWS, bt + (p - first) * LIFT_SAMPLED_ROWS, padded);
        }
    }
}
