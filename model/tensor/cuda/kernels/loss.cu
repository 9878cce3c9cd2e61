// The training losses on logits [M, C] in F32: softmax cross entropy with its variants, and LADE's regulariser. What a
// row or a class comes to is worked out in double by one thread.
#include "lift.cuh"

__device__ __forceinline__ double warp_total(double x) {
#pragma unroll
    for (int o = 16; o > 0; o >>= 1) x += __shfl_xor_sync(0xffffffffu, x, o);
    return x;
}
// block_total gives every thread the sum over the block; all threads call.
__device__ __forceinline__ double block_total(double x) {
    __shared__ double part[32];
    x = warp_total(x);
    __syncthreads();  // part may still be read from the call before
    if ((threadIdx.x & 31) == 0) part[threadIdx.x >> 5] = x;
    __syncthreads();
    x = part[0];
    for (unsigned w = 1; w < blockDim.x >> 5; w++) x += part[w];
    return x;
}
// block_max gives NaN if any thread has one; it is called once a kernel.
__device__ __forceinline__ float block_max(float x) {
    __shared__ float part[32];
    x = warp_max(x);
    if ((threadIdx.x & 31) == 0) part[threadIdx.x >> 5] = x;
    __syncthreads();
    x = part[0];
    for (unsigned w = 1; w < blockDim.x >> 5; w++) x = part[w] > x || part[w] != part[w] ? part[w] : x;
    return x;
}

// losses[M] = w f(logsumexp(z) - z[label]), z = logits[M, C] + adjust[C], less margin[C] at the label, w =
// weight[label]; f(l) is l, or (1 - e^-l)^2 l with focal. dlogits[M, C] = scale[0] * the derivative. dlogits, adjust,
// margin and weight may be NULL. A block has a row. What the row's own class adds is kept apart from the rest, so that
// 1 - p is no difference.
extern "C" __global__ void __launch_bounds__(512, 2)
    softmax_cross_entropy(double *losses, float *dlogits, const float *logits, const int *labels, const float *adjust,
                          const float *margin, const float *weight, bool focal, int C, const float *scale) {
    __shared__ float slope[2];
    logits += (int64_t)blockIdx.x * C;
    const int l = labels[blockIdx.x];
    const float own = logits[l] + (adjust != 0 ? adjust[l] : 0.0f) - (margin != 0 ? margin[l] : 0.0f);
    auto z = [=](int i) { return adjust != 0 ? logits[i] + adjust[i] : logits[i]; };
    float high = -__uint_as_float(0x7f800000u);
    for (int i = threadIdx.x; i < C; i += blockDim.x) {
        const float x = i == l ? high : z(i);
        high = x > high || x != x ? x : high;
    }
    high = block_max(high);
    const float top = own > high ? own : high;
    float others = 0;
    for (int i = threadIdx.x; i < C; i += blockDim.x)
        if (i != l) others += expf(z(i) - top);
    const double rest = block_total(others);
    if (threadIdx.x == 0) {
        const double mine = expf(own - top), sum = rest + mine, w = weight != 0 ? weight[l] : 1.0;
        const double nll = own == top ? log1p(rest) : log(sum) + ((double)top - (double)own);
        const double p = mine / sum, q = rest / sum, k = w * (focal ? q * q + 2 * q * p * nll : 1.0) * *scale;
        losses[blockIdx.x] = focal ? w * q * q * nll : w * nll;
        slope[0] = (float)(k / sum);
        slope[1] = (float)(-k * q);
    }
    if (dlogits == 0) return;
    __syncthreads();
    dlogits += (int64_t)blockIdx.x * C;
    for (int i = threadIdx.x; i < C; i += blockDim.x) dlogits[i] = i == l ? slope[1] : expf(z(i) - top) * slope[0];
}

// loss[0] (+)= weight * the sum of losses[n], in double; one block.
extern "C" __global__ void __launch_bounds__(256)
    sum_losses(float *loss, const double *losses, int n, float weight, bool acc) {
    double sum = 0;
    for (int i = threadIdx.x; i < n; i += blockDim.x) sum += losses[i];
    sum = weight * block_total(sum);
    if (threadIdx.x == 0) *loss = (float)(acc ? *loss + sum : sum);
}

// losses[blocks] = -(sum over the block's classes c of prior[c] (f - s - lambda s^2)), where f is the mean of the
// logits c of the rows labelled c (0 without such rows) and s = shift[c] + the log of the mean over all rows of
// exp(logit c); dlogits[M, C] (may be NULL) += scale[0] * weight * the derivative. A block has 32 classes, a warp each
// 8th row.
extern "C" __global__ void __launch_bounds__(256)
    lade(double *losses, float *dlogits, const float *logits, const int *labels, const float *prior, const float *shift,
         float lambda, float weight, int M, int C, const float *scale) {
    __shared__ float part[3][8][32];
    __shared__ float slope[32], share[32];
    const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, c = blockIdx.x * 32 + lane;
    // A class beyond C has no rows.
    const int rows = c < C ? M : 0;
    float most = -__uint_as_float(0x7f800000u), mine = 0, alike = 0;
    for (int m = warp; m < rows; m += 8) {
        const float z = logits[(int64_t)m * C + c];
        most = z > most ? z : most;
        if (labels[m] == c) {
            mine += z;
            alike++;
        }
    }
    part[0][warp][lane] = most;
    part[1][warp][lane] = mine;
    part[2][warp][lane] = alike;
    __syncthreads();
    most = part[0][0][lane];
    mine = alike = 0;
    for (int w = 0; w < 8; w++) {
        most = part[0][w][lane] > most ? part[0][w][lane] : most;
        mine += part[1][w][lane];
        alike += part[2][w][lane];
    }
    float sum = 0;
    for (int m = warp; m < rows; m += 8) sum += expf(logits[(int64_t)m * C + c] - most);
    __syncthreads();  // part is still read
    part[0][warp][lane] = sum;
    __syncthreads();
    if (warp == 0) {
        double total = 0;
        if (c < C) {
            double all = 0;
            for (int w = 0; w < 8; w++) all += part[0][w][lane];
            const double s = log(all / M) + (double)most + (double)shift[c], p = prior[c], k = (double)*scale * weight;
            total = p * (s + lambda * s * s - (alike > 0 ? (double)mine / alike : 0.0));
            slope[lane] = (float)(k * p * (1 + 2 * lambda * s) / all);
            share[lane] = alike > 0 ? (float)(k * p / alike) : 0.0f;
        }
        total = warp_total(total);
        if (lane == 0) losses[blockIdx.x] = total;
    }
    if (dlogits == 0) return;
    __syncthreads();
    for (int m = warp; m < rows; m += 8) {
        const int64_t at = (int64_t)m * C + c;
        const float g = expf(logits[at] - most) * slope[lane];
        dlogits[at] += labels[m] == c ? g - share[lane] : g;
    }
}
