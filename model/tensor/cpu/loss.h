// Softmax cross-entropy with an addition to the logits.

// loss = sum over rows of logsumexp(z) - z[label], z = logits + adjust (may be NULL);
// dlogits (may be NULL) = scale (softmax(z) - onehot(label)).
void FN(softmax_cross_entropy)(float *loss, float *dlogits, const float *logits, const int32_t *labels,
                               const float *adjust, long M, long C, float scale) {
#define LOGIT(i) (adjust ? load(logits + (i)) + load(adjust + (i)) : load(logits + (i)))
#define LOGIT_PART(i, n) (adjust ? load_part(logits + (i), n) + load_part(adjust + (i), n) : load_part(logits + (i), n))
    double total = 0;
    for (long m = 0; m < M; m++, logits += C) {
        V most = splat(-INFINITY);
        long i = 0;
        for (; i + W <= C; i += W) most = vmax(most, LOGIT(i));
        if (i < C) most = vmax(most, vselect(lanes_below(C - i), LOGIT_PART(i, C - i), splat(-INFINITY)));
        const float top = hmax(most);
        double sum = 0;
        for (i = 0; i + W <= C; i += W) sum += (double)hsum(vexp(LOGIT(i) - top));
        if (i < C) sum += (double)hsum(first_lanes(vexp(LOGIT_PART(i, C - i) - top), C - i));
        const long l = labels[m];
        const float own = logits[l] + (adjust ? adjust[l] : 0.0f);
        total += log(sum) + ((double)top - (double)own);
        if (!dlogits) continue;
        const float r = (float)((double)scale / sum);
        for (i = 0; i + W <= C; i += W) store(dlogits + i, vexp(LOGIT(i) - top) * r);
        if (i < C) store_part(dlogits + i, vexp(LOGIT_PART(i, C - i) - top) * r, C - i);
        dlogits[l] -= scale;
        dlogits += C;
    }
    *loss = (float)total;
}
