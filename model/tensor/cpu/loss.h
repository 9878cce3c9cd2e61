// The training losses on logits: softmax cross entropy with its variants, and LADE's regulariser.

// The logits of the classes [from, to) of one row, but never one beyond: LOGITS runs body with z, n < W of them at the
// end.
#define LOGITS(from, to, body)                                                                   \
    do {                                                                                         \
        long i = (from);                                                                         \
        for (; i + W <= (to); i += W) {                                                          \
            const long n = W;                                                                    \
            const V z = adjust ? load(logits + i) + load(adjust + i) : load(logits + i);         \
            body;                                                                                \
        }                                                                                        \
        if (i < (to)) {                                                                          \
            const long n = (to)-i;                                                               \
            const V p = load_part(logits + i, n), z = adjust ? p + load_part(adjust + i, n) : p; \
            body;                                                                                \
        }                                                                                        \
    } while (0)

// The classes other than l: two runs, so that what a row's own class adds is known apart and 1 - p is not a difference.
#define OTHERS(l, body)           \
    do {                          \
        LOGITS(0, l, body);       \
        LOGITS((l) + 1, C, body); \
    } while (0)

// loss = sum over rows of w f(logsumexp(z) - z[label]), z = logits + adjust, less margin at the label, w =
// weight[label]; f(l) is l, or (1 - e^-l)^2 l with focal. dlogits (may be NULL) = scale * the derivative. adjust,
// margin and weight may be NULL.
void FN(softmax_cross_entropy)(float *loss, float *dlogits, const float *logits, const int32_t *labels,
                               const float *adjust, const float *margin, const float *weight, int focal, long M, long C,
                               float scale) {
    double total = 0;
    for (long m = 0; m < M; m++, logits += C) {
        const long l = labels[m];
        const float own = logits[l] + (adjust ? adjust[l] : 0.0f) - (margin ? margin[l] : 0.0f);
        V most = splat(-INFINITY);
        OTHERS(l, most = vmax(most, n == W ? z : vselect(lanes_below(n), z, splat(-INFINITY))));
        const float high = hmax(most), top = own > high ? own : high;
        double rest = 0;  // of the sum of exponentials, without the row's own
        OTHERS(l, rest += (double)hsum(n == W ? vexp(z - top) : first_lanes(vexp(z - top), n)));
        const double mine = (double)vexp(splat(own - top))[0], sum = rest + mine;
        const double w = weight ? (double)weight[l] : 1.0;
        const double nll = own == top ? log1p(rest) : log(sum) + ((double)top - (double)own);
        const double p = mine / sum, q = rest / sum;
        total += focal ? w * q * q * nll : w * nll;
        if (!dlogits) continue;
        const double k = (double)scale * w * (focal ? q * q + 2 * q * p * nll : 1.0);
        const float r = (float)(k / sum);
        OTHERS(l, n == W ? store(dlogits + i, vexp(z - top) * r) : store_part(dlogits + i, vexp(z - top) * r, n));
        dlogits[l] = (float)(-k * q);
        dlogits += C;
    }
    *loss = (float)total;
}

// The second term of LADE for the n <= W classes at logits, over all rows: sum over classes of prior (s + lambda s^2),
// s = log of the mean over rows of exp(logits) + shift. Its derivative, times k, is added to dlogits (may be NULL).
static double lade_spread(float *dlogits, const float *logits, const float *prior, const float *shift, long M, long C,
                          long n, double lambda, double k) {
#define SPREAD(m) (n == W ? load(logits + (m)*C) : load_part(logits + (m)*C, n))
    V most = SPREAD(0);
    for (long m = 1; m < M; m++) most = vmax(most, SPREAD(m));
    V sum = {0};
    for (long m = 0; m < M; m++) sum += vexp(SPREAD(m) - most);
    double total = 0;
    V slope = {0};
    for (long j = 0; j < n; j++) {
        const double s = log((double)sum[j] / (double)M) + (double)most[j] + (double)shift[j];
        total += prior[j] * (s + lambda * s * s);
        slope[j] = (float)(k * prior[j] * (1 + 2 * lambda * s) / (double)sum[j]);
    }
    for (long m = 0; dlogits && m < M; m++) {
        float *d = dlogits + m * C;
        const V g = vexp(SPREAD(m) - most) * slope;
        if (n == W)
            store(d, load(d) + g);
        else
            store_part(d, load_part(d, n) + g, n);
    }
    return total;
}

// loss += weight * -(sum over classes c of prior[c] (f - s - lambda s^2)), f = mean of the logits c of the rows of
// label c (0 without such rows), s as above; dlogits (may be NULL) += scale * the derivative.
void FN(lade)(float *loss, float *dlogits, const float *logits, const int32_t *labels, const float *prior,
              const float *shift, float lambda, float weight, long M, long C, float scale) {
    const double k = (double)scale * weight;
    double total = 0;
    for (long c = 0; c < C; c += W)
        total += lade_spread(dlogits ? dlogits + c : NULL, logits + c, prior + c, shift + c, M, C,
                             C - c < W ? C - c : W, lambda, k);
    for (long m = 0; m < M; m++) {
        const long l = labels[m];
        long alike = 0;
        for (long i = 0; i < M; i++) alike += labels[i] == l;
        const double share = (double)prior[l] / (double)alike;
        total -= share * (double)logits[m * C + l];
        if (dlogits) dlogits[m * C + l] -= (float)(k * share);
    }
    *loss = (float)((double)*loss + (double)weight * total);
}
