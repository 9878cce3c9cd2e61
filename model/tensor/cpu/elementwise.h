// Elementwise kernels, sums over rows and over images, and copies of tokens.

void FN(fill)(float *y, float c, long n) {
    for (long i = 0; i < n; i++) y[i] = c;
}

void FN(add)(float *y, const float *a, const float *b, long n) {
    long i = 0;
    for (; i + W <= n; i += W) store(y + i, load(a + i) + load(b + i));
    for (; i < n; i++) y[i] = a[i] + b[i];
}

void FN(scale)(float *y, const float *x, float c, long n) {
    long i = 0;
    for (; i + W <= n; i += W) store(y + i, load(x + i) * c);
    for (; i < n; i++) y[i] = x[i] * c;
}

// y = a + s b; a may be NULL for 0.
void FN(add_scaled)(float *y, const float *a, const float *b, const float *s, long n) {
    if (!a) {
        FN(scale)(y, b, *s, n);
        return;
    }
    const float c = *s;
    long i = 0;
    for (; i + W <= n; i += W) store(y + i, load(b + i) * c + load(a + i));
    if (i < n) store_part(y + i, load_part(b + i, n - i) * c + load_part(a + i, n - i), n - i);
}

// Four lanes of vectors over blocks of 4096 values; blocks add up in double.
void FN(dot)(float *d, const float *a, const float *b, long n, int acc) {
    double total = 0;
    for (long from = 0; from < n; from += 4096) {
        long to = from + 4096 < n ? from + 4096 : n, i = from;
        V s0 = {0}, s1 = {0}, s2 = {0}, s3 = {0};
        for (; i + 4 * W <= to; i += 4 * W) {
            s0 += load(a + i) * load(b + i);
            s1 += load(a + i + W) * load(b + i + W);
            s2 += load(a + i + 2 * W) * load(b + i + 2 * W);
            s3 += load(a + i + 3 * W) * load(b + i + 3 * W);
        }
        for (; i + W <= to; i += W) s0 += load(a + i) * load(b + i);
        if (i < to) s1 += load_part(a + i, to - i) * load_part(b + i, to - i);
        total += (double)hsum((s0 + s1) + (s2 + s3));
    }
    *d = (float)(acc ? (double)*d + total : total);
}

// y = a + row for each row of M; a may be NULL for 0.
void FN(add_rows)(float *y, const float *a, const float *row, long M, long D) {
    for (long m = 0; m < M; m++) {
        if (a)
            FN(add)(y + m * D, a + m * D, row, D);
        else
            memcpy(y + m * D, row, (size_t)D * 4);
    }
}

// s[i] (+)= sum over M rows at distance ld of x[i], for n columns. Blocks of 32 rows are summed first: the error grows
// with M/32, not M.
INLINE void column_sums(float *s, const float *x, long M, long ld, long n, int acc) {
    for (long i = 0; i < n; i += W) {
        const long part = n - i;
        V total = {0};
        for (long m0 = 0; m0 < M; m0 += 32) {
            const long m1 = m0 + 32 < M ? m0 + 32 : M;
            V t = {0};
            if (part >= W)
                for (long m = m0; m < m1; m++) t += load(x + m * ld + i);
            else
                for (long m = m0; m < m1; m++) t += load_part(x + m * ld + i, part);
            total += t;
        }
        if (part >= W)
            store(s + i, acc ? load(s + i) + total : total);
        else
            store_part(s + i, acc ? load_part(s + i, part) + total : total, part);
    }
}

void FN(sum_rows)(float *s, const float *x, long M, long D, int acc) {
    column_sums(s, x, M, D, D, acc);
}

void FN(sum_batch)(float *s, const float *x, int B, long stride, long n, int acc) {
    column_sums(s, x, B, stride, n, acc);
}

void FN(copy_tokens)(float *dst, const float *src, int B, long dstStride, long srcStride, long n, int acc) {
    for (int b = 0; b < B; b++, dst += dstStride, src += srcStride) {
        if (acc)
            FN(add)(dst, dst, src, n);
        else
            memcpy(dst, src, (size_t)n * 4);
    }
}

void FN(patches)(float *p, const float *img, int B, int C, int H, int Wd, int P) {
    const int rows = H / P, cols = Wd / P;
    for (int b = 0; b < B; b++)
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < cols; c++)
                for (int ch = 0; ch < C; ch++)
                    for (int y = 0; y < P; y++, p += P)
                        memcpy(p, img + (((long)b * C + ch) * H + r * P + y) * Wd + c * P, (size_t)P * 4);
}

void FN(scale_shift)(float *y, const float *x, const float *scale, const float *shift, long M, long D) {
    for (long m = 0; m < M; m++, x += D, y += D) {
        long i = 0;
        for (; i + W <= D; i += W) store(y + i, load(x + i) * load(scale + i) + load(shift + i));
        if (i < D) {
            const long n = D - i;
            store_part(y + i, load_part(x + i, n) * load_part(scale + i, n) + load_part(shift + i, n), n);
        }
    }
}

// dscale and dshift are added to, as in column_sums; dx may be dy.
void FN(scale_shift_backward)(float *dx, float *dscale, float *dshift, const float *dy, const float *x,
                              const float *scale, long M, long D) {
    for (long i = 0; i < D; i += W) {
        const long n = D - i < W ? D - i : W;
        const V s = load_part(scale + i, n);
        V tx = {0}, ts = {0};
        for (long m0 = 0; m0 < M; m0 += 32) {
            const long m1 = m0 + 32 < M ? m0 + 32 : M;
            V px = {0}, ps = {0};
            for (long m = m0; m < m1; m++) {
                const V g = n == W ? load(dy + m * D + i) : load_part(dy + m * D + i, n);
                ps += g;
                if (dscale) px += g * (n == W ? load(x + m * D + i) : load_part(x + m * D + i, n));
                if (!dx) continue;
                if (n == W)
                    store(dx + m * D + i, g * s);
                else
                    store_part(dx + m * D + i, g * s, n);
            }
            tx += px;
            ts += ps;
        }
        if (dscale) store_part(dscale + i, load_part(dscale + i, n) + tx, n);
        if (dshift) store_part(dshift + i, load_part(dshift + i, n) + ts, n);
    }
}
