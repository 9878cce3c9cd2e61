// Activations and their derivatives. f: 0 GELU, 1 QuickGELU, 2 ReLU, as tensor.Activation.

// x P(N < x) = max(x, 0) - |x| P(N > |x|): no cancellation, so the error is relative in both tails.
INLINE V gelu(V x) {
    const V u = vmin(splat(14.0f), vabs(x));  // NaN passes; beyond 14 the tail is 0
    const V tail = vmills(u) * vexp(u * u * -0.5f);
    return vmax(splat(0.0f), x) - u * tail;
}

// P(N < x) + x density(x)
INLINE V gelu_slope(V x) {
    const V u = vmin(splat(14.0f), vabs(x));
    const V e = vexp(u * u * -0.5f);
    const V tail = vmills(u) * e;
    const V cdf = vselect(x > 0.0f, 1.0f - tail, tail);
    return cdf + x * (e * 0.398942280f);
}

INLINE V quick_gelu(V x) {
    return x / (1.0f + vexp(x * -1.702f));
}

INLINE V quick_gelu_slope(V x) {
    const V s = 1.0f / (1.0f + vexp(x * -1.702f));
    return s + (x * 1.702f) * (s * (1.0f - s));
}

INLINE V relu(V x) {
    return vmax(splat(0.0f), x);
}
INLINE V relu_slope(V x) {
    return vselect(x > 0.0f, splat(1.0f), splat(0.0f));
}

#define ELEMENTWISE(fn)                                                   \
    do {                                                                  \
        long i = 0;                                                       \
        for (; i + W <= n; i += W) store(y + i, fn(load(x + i)));         \
        if (i < n) store_part(y + i, fn(load_part(x + i, n - i)), n - i); \
    } while (0)

void FN(activate)(int f, float *y, const float *x, long n) {
    if (f == 0)
        ELEMENTWISE(gelu);
    else if (f == 1)
        ELEMENTWISE(quick_gelu);
    else
        ELEMENTWISE(relu);
}

#define ELEMENTWISE_BACKWARD(slope)                                                                      \
    do {                                                                                                 \
        long i = 0;                                                                                      \
        for (; i + W <= n; i += W) store(dx + i, load(dy + i) * slope(load(x + i)));                     \
        if (i < n) store_part(dx + i, load_part(dy + i, n - i) * slope(load_part(x + i, n - i)), n - i); \
    } while (0)

void FN(activate_backward)(int f, float *dx, const float *dy, const float *x, long n) {
    if (f == 0)
        ELEMENTWISE_BACKWARD(gelu_slope);
    else if (f == 1)
        ELEMENTWISE_BACKWARD(quick_gelu_slope);
    else
        ELEMENTWISE_BACKWARD(relu_slope);
}
