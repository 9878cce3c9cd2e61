// LayerNorm and row normalisation. One row at a time: it stays in the first cache.

// Sums over a row of D values of f(i), where f yields the vector at i (n < W values at the end): four accumulators.
#define ROW_SUM(total, D, full, part)             \
    do {                                          \
        V s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0}; \
        long i = 0;                               \
        for (; i + 4 * W <= D; i += 4 * W) {      \
            s0 += full(i);                        \
            s1 += full(i + W);                    \
            s2 += full(i + 2 * W);                \
            s3 += full(i + 3 * W);                \
        }                                         \
        for (; i + W <= D; i += W) s0 += full(i); \
        if (i < D) s1 += part(i, D - i);          \
        total = hsum((s0 + s1) + (s2 + s3));      \
    } while (0)

void FN(layer_norm)(float *y, float *stats, const float *x, const float *gain, const float *bias, long M, long D,
                    float eps) {
    for (long m = 0; m < M; m++, x += D, y += D) {
        float sum, sq;
#define VALUE(i) load(x + (i))
#define VALUE_PART(i, n) load_part(x + (i), n)
        ROW_SUM(sum, D, VALUE, VALUE_PART);
        const float mean = sum / (float)D;
#define SQUARE(i) ((load(x + (i)) - mean) * (load(x + (i)) - mean))
#define SQUARE_PART(i, n) first_lanes((load_part(x + (i), n) - mean) * (load_part(x + (i), n) - mean), n)
        ROW_SUM(sq, D, SQUARE, SQUARE_PART);
        const float rstd = 1.0f / sqrtf(sq / (float)D + eps);
        long i = 0;
        for (; i + W <= D; i += W) store(y + i, (load(x + i) - mean) * rstd * load(gain + i) + load(bias + i));
        if (i < D) {
            const long n = D - i;
            const V h = (load_part(x + i, n) - mean) * rstd;
            store_part(y + i, h * load_part(gain + i, n) + load_part(bias + i, n), n);
        }
        if (stats) {
            stats[2 * m] = mean;
            stats[2 * m + 1] = rstd;
        }
    }
}

// dx = rstd (g - mean(g) - h mean(g h)), with h = (x - mean) rstd and g = dy gain.
static void layer_norm_dx(float *dx, const float *dy, const float *x, const float *gain, const float *stats, long M,
                          long D, int acc) {
    for (long m = 0; m < M; m++, x += D, dy += D, dx += D) {
        const float mean = stats[2 * m], rstd = stats[2 * m + 1];
        float sg, sgh;
#define G(i) (load(dy + (i)) * load(gain + (i)))
#define G_PART(i, n) (load_part(dy + (i), n) * load_part(gain + (i), n))
#define GH(i) (G(i) * ((load(x + (i)) - mean) * rstd))
#define GH_PART(i, n) (G_PART(i, n) * ((load_part(x + (i), n) - mean) * rstd))
        ROW_SUM(sg, D, G, G_PART);
        ROW_SUM(sgh, D, GH, GH_PART);
        const float mg = sg / (float)D, mgh = sgh / (float)D;
        long i = 0;
        for (; i + W <= D; i += W) {
            const V h = (load(x + i) - mean) * rstd;
            const V d = (G(i) - mg - h * mgh) * rstd;
            store(dx + i, acc ? load(dx + i) + d : d);
        }
        if (i < D) {
            const long n = D - i;
            const V h = (load_part(x + i, n) - mean) * rstd;
            const V d = (G_PART(i, n) - mg - h * mgh) * rstd;
            store_part(dx + i, acc ? load_part(dx + i, n) + d : d, n);
        }
    }
}

// dgain += sum of dy h, dbias += sum of dy, in blocks of 32 rows.
static void layer_norm_dgain(float *dgain, float *dbias, const float *dy, const float *x, const float *stats, long M,
                             long D) {
    for (long i = 0; i < D; i += W) {
        const long n = D - i < W ? D - i : W;
        V tg = {0}, tb = {0};
        for (long m0 = 0; m0 < M; m0 += 32) {
            const long m1 = m0 + 32 < M ? m0 + 32 : M;
            V pg = {0}, pb = {0};
            for (long m = m0; m < m1; m++) {
                const V g = n == W ? load(dy + m * D + i) : load_part(dy + m * D + i, n);
                const V v = n == W ? load(x + m * D + i) : load_part(x + m * D + i, n);
                pb += g;
                pg += g * ((v - stats[2 * m]) * stats[2 * m + 1]);
            }
            tg += pg;
            tb += pb;
        }
        if (dgain) store_part(dgain + i, load_part(dgain + i, n) + tg, n);
        if (dbias) store_part(dbias + i, load_part(dbias + i, n) + tb, n);
    }
}

// dx, dgain and dbias may be NULL; without dgain and dx, x and stats may be too.
void FN(layer_norm_backward)(float *dx, float *dgain, float *dbias, const float *dy, const float *x, const float *gain,
                             const float *stats, long M, long D, int acc) {
    if (dgain)
        layer_norm_dgain(dgain, dbias, dy, x, stats, M, D);
    else if (dbias)
        column_sums(dbias, dy, M, D, D, 1);
    if (dx) layer_norm_dx(dx, dy, x, gain, stats, M, D, acc);
}

void FN(normalize_rows)(float *y, float *norms, const float *x, long M, long D, float eps) {
    for (long m = 0; m < M; m++, x += D, y += D) {
        float sq;
#define OWN_SQUARE(i) (load(x + (i)) * load(x + (i)))
#define OWN_SQUARE_PART(i, n) (load_part(x + (i), n) * load_part(x + (i), n))
        ROW_SUM(sq, D, OWN_SQUARE, OWN_SQUARE_PART);
        const float root = sqrtf(sq), norm = root < eps ? eps : root;  // NaN stays NaN
        for (long i = 0; i < D; i++) y[i] = x[i] / norm;
        if (norms) norms[m] = norm;
    }
}

// dx = (dy - y (y.dy)) / norm; where the norm was raised to eps it is a constant: dx = dy / eps. dx may be dy.
void FN(normalize_rows_backward)(float *dx, const float *dy, const float *y, const float *norms, long M, long D,
                                 float eps) {
    for (long m = 0; m < M; m++, dx += D, dy += D, y += D) {
        float along = 0;
        if (!(norms[m] <= eps)) FN(dot)(&along, y, dy, D, 0);
        const float r = 1.0f / norms[m];
        for (long i = 0; i < D; i++) dx[i] = (dy[i] - y[i] * along) * r;
    }
}
