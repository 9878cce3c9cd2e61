// The activations and their slopes. The numbers are tensor.Activation's. They cost about 25 instructions a value, so
// that a kernel that reads and writes bf16 is still bound by memory.
#pragma once
#include "lift.cuh"

enum { ACTIVATE_GELU, ACTIVATE_QUICK_GELU, ACTIVATE_RELU };

// relu lets a NaN through.
__device__ __forceinline__ float relu(float x) {
    return x < 0.0f ? 0.0f : x;
}
__device__ __forceinline__ float relu_slope(float x) {
    return x > 0.0f || x != x ? 1.0f : 0.0f;
}

// normal_tail is P(N > u) for 0 <= u, with e = exp(-u^2/2): e times Mills' ratio, as a polynomial in 1 / (1 + 0.3 u)
// that is good to 4e-7 of it up to 14, beyond which e is 0.
__device__ __forceinline__ float normal_tail(float u, float e) {
    const float t = __fdividef(1.0f, fmaf(0.3f, u, 1.0f));
    float p = -0.020612845f;
    p = fmaf(p, t, 0.11237584f);
    p = fmaf(p, t, -0.2280676f);
    p = fmaf(p, t, 0.19158176f);
    p = fmaf(p, t, -0.079247385f);
    p = fmaf(p, t, 0.09605784f);
    p = fmaf(p, t, 0.07842558f);
    p = fmaf(p, t, 0.110227324f);
    p = fmaf(p, t, 0.11957285f);
    p = fmaf(p, t, 0.11968664f);
    return p * t * e;
}
// gelu: x P(N < x) = max(x, 0) - |x| P(N > |x|): no cancellation, so the error is relative in both tails.
__device__ __forceinline__ float gelu(float x) {
    const float u = fabsf(x) > 14.0f ? 14.0f : fabsf(x);  // NaN passes
    return fmaf(-u, normal_tail(u, __expf(-0.5f * u * u)), relu(x));
}
// gelu_slope: P(N < x) + x density(x)
__device__ __forceinline__ float gelu_slope(float x) {
    const float u = fabsf(x) > 14.0f ? 14.0f : fabsf(x), e = __expf(-0.5f * u * u), tail = normal_tail(u, e);
    return fmaf(copysignf(u, x), e * 0.39894228f, x > 0.0f ? 1.0f - tail : tail);
}

// quick_gelu: x s, with s = sigmoid(1.702 x). Its slope: s (1 + 1.702 x (1 - s)), with 1 - s not as a difference.
__device__ __forceinline__ float quick_gelu(float x) {
    return __fdividef(x, 1.0f + __expf(-1.702f * x));
}
__device__ __forceinline__ float quick_gelu_slope(float x) {
    const float z = 1.702f * x < -80.0f ? -80.0f : 1.702f * x;  // beyond, s is 0 and e would be infinite
    const float e = __expf(-z), s = __fdividef(1.0f, 1.0f + e);
    return s * fmaf(z, e * s, 1.0f);
}

// activate is f(x), activate_slope f'(x). f is the same for the whole grid.
__device__ __forceinline__ float activate(int f, float x) {
    return f == ACTIVATE_GELU ? gelu(x) : f == ACTIVATE_QUICK_GELU ? quick_gelu(x) : relu(x);
}
__device__ __forceinline__ float activate_slope(int f, float x) {
    return f == ACTIVATE_GELU ? gelu_slope(x) : f == ACTIVATE_QUICK_GELU ? quick_gelu_slope(x) : relu_slope(x);
}
