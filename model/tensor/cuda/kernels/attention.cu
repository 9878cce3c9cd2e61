// Attention of any head size up to 128, in float arithmetic; attention_mma.cu is faster for bf16. Neither the scores
// nor the probabilities are ever in global memory.
//
// q [B, Tq, *] and k, v [B, T, *] are columns of rows at distance ldq and ldkv; out and dout are [B, Tq, H dh]; stats
// is [B, H, Tq, 2], the largest scaled score and 1 / the sum of the exponentials. A block of 256 threads has 64 rows of
// the one side (queries; in the backward of k and v, keys) and walks over the other side, 64 rows at a time. Grid:
// (tiles of rows, H, B). Thread (y, x) of 16 x 16 has the rows 4 y to 4 y + 3 of a tile, and of the scores the columns
// x, x + 16, ...
//
// The online softmax: Milakov and Gimelshein, Online normalizer calculation for softmax (2018). Forward and backward
// that keep no T x T matrix: Dao et al., FlashAttention (2022), and Dao, FlashAttention-2 (2023), of which the order of
// loops is: a block owns rows of what it writes, so that nothing is added across blocks.
//
// launch: attention threads=256 shared=52224
// launch: attention_dq threads=256 shared=69632
// launch: attention_dkv threads=256 shared=69632
#include "lift.cuh"

extern __shared__ __align__(16) char smem[];

constexpr int N = 64;       // rows of a tile
constexpr int LDP = N + 4;  // between rows of a tile of scores
#define INF __uint_as_float(0x7f800000u)

// ld is the distance of a tile's rows: their values, a multiple of 8, and 4 more, so that 8 rows below one another are
// in different banks.
__device__ __forceinline__ int ld(int dh) {
    return (dh + 7) / 8 * 8 + 4;
}

// fill copies the rows from `from` on of x, which has T rows of dh values at distance ldx, to a tile. What is beyond is
// zero.
template <class T>
__device__ __forceinline__ void fill(float *tile, const T *x, int ldx, int from, int rows, int dh) {
    const int L = ld(dh), lane = threadIdx.x & 31;
#pragma unroll 1
    for (int c = lane; c < L - 4; c += 32)
#pragma unroll 4
        for (int r = threadIdx.x / 32; r < N; r += 8)
            tile[r * L + c] = from + r < rows && c < dh ? to_float(x[(int64_t)(from + r) * ldx + c]) : 0.0f;
}

// dots: s[i][j] = row 4 y + i of a times row x + 16 j of b.
__device__ __forceinline__ void dots(float (&s)[4][4], const float *a, const float *b, int dh) {
    const int L = ld(dh), x = threadIdx.x % 16, y = threadIdx.x / 16;
    const float4 *p = (const float4 *)(a + 4 * y * L), *q = (const float4 *)(b + x * L);
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) s[i][j] = 0.0f;
#pragma unroll 1
    for (int c = 0; c < L / 4 - 1; c++) {
        float4 u[4], v[4];
#pragma unroll
        for (int i = 0; i < 4; i++) u[i] = p[i * L / 4 + c], v[i] = q[16 * i * L / 4 + c];
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                s[i][j] = fmaf(u[i].x, v[j].x, s[i][j]);
                s[i][j] = fmaf(u[i].y, v[j].y, s[i][j]);
                s[i][j] = fmaf(u[i].z, v[j].z, s[i][j]);
                s[i][j] = fmaf(u[i].w, v[j].w, s[i][j]);
            }
    }
}

// Sums are what a thread holds of 64 rows of dh values: of each of its rows, the values 4 x + 64 n to 4 x + 64 n + 3.
struct Sums {
    float4 v[4][2];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int i = 0; i < 4; i++) v[i][0] = v[i][1] = float4{0.0f, 0.0f, 0.0f, 0.0f};
    }
    __device__ __forceinline__ void scale(int i, float c) {
#pragma unroll
        for (int n = 0; n < 2; n++) v[i][n].x *= c, v[i][n].y *= c, v[i][n].z *= c, v[i][n].w *= c;
    }
    // add: += p b for a tile of p, and the first n rows of b.
    __device__ __forceinline__ void add(const float *p, const float *b, int n, int dh) {
        const int L = ld(dh), x = threadIdx.x % 16, y = threadIdx.x / 16;
#pragma unroll 2
        for (int j = 0; j < n; j++) {
#pragma unroll
            for (int m = 0; m < 2; m++) {
                const int c = 4 * x + 64 * m;
                if (c >= dh) continue;
                const float4 w = *(const float4 *)(b + j * L + c);
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const float a = p[(4 * y + i) * LDP + j];
                    v[i][m].x = fmaf(a, w.x, v[i][m].x);
                    v[i][m].y = fmaf(a, w.y, v[i][m].y);
                    v[i][m].z = fmaf(a, w.z, v[i][m].z);
                    v[i][m].w = fmaf(a, w.w, v[i][m].w);
                }
            }
        }
    }
    // store writes the rows that are, times c, to y, of `rows` rows at distance ldy.
    template <class T>
    __device__ __forceinline__ void store(T *y, int ldy, int from, int rows, int dh, const float (&c)[4]) const {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int r = from + threadIdx.x / 16 * 4 + i;
            if (r >= rows) break;
#pragma unroll
            for (int n = 0; n < 2; n++) {
                const float w[4] = {v[i][n].x, v[i][n].y, v[i][n].z, v[i][n].w};
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    const int col = threadIdx.x % 16 * 4 + 64 * n + e;
                    if (col < dh) y[(int64_t)r * ldy + col] = from_float<T>(w[e] * c[i]);
                }
            }
        }
    }
};

// put writes a thread's scores to a tile.
__device__ __forceinline__ void put(float *p, const float (&s)[4][4]) {
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) p[(threadIdx.x / 16 * 4 + i) * LDP + threadIdx.x % 16 + 16 * j] = s[i][j];
}

// The sum and the maximum over the 16 threads that share rows. The maximum passes by a NaN: its exponential is one.
__device__ __forceinline__ float row_sum(float x) {
#pragma unroll
    for (int o = 8; o > 0; o >>= 1) x += __shfl_xor_sync(0xffffffffu, x, o);
    return x;
}
__device__ __forceinline__ float row_max(float x) {
#pragma unroll
    for (int o = 8; o > 0; o >>= 1) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, o));
    return x;
}

// Under causal, query i sees the keys 0 to i. stats may be null. c is 1 / sqrt(dh).
template <class T>
__device__ __forceinline__ void attention(T *out, float *stats, const T *q, const T *k, const T *v, int ldq, int ldkv,
                                          int dh, int Tq, int Tk, float c, int causal) {
    const int head = blockIdx.y, H = gridDim.y, ldo = H * dh, q0 = blockIdx.x * N;
    const int x = threadIdx.x % 16, y = threadIdx.x / 16;
    const int64_t b = blockIdx.z;
    q += b * Tq * ldq + head * dh;
    k += b * Tk * ldkv + head * dh;
    v += b * Tk * ldkv + head * dh;
    float *qs = (float *)smem, *kv = qs + N * ld(dh), *p = kv + N * ld(dh);
    fill(qs, q, ldq, q0, Tq, dh);

    Sums o;  // of e^(s - top) v
    float top[4], sum[4];
    o.clear();
#pragma unroll
    for (int i = 0; i < 4; i++) top[i] = -INF, sum[i] = 0.0f;
    const int seen = causal && q0 + N < Tk ? q0 + N : Tk;
    for (int from = 0; from < seen; from += N) {
        float s[4][4];
        __syncthreads();
        fill(kv, k, ldkv, from, Tk, dh);
        __syncthreads();
        dots(s, qs, kv, dh);
        __syncthreads();
        fill(kv, v, ldkv, from, Tk, dh);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int end = causal ? q0 + 4 * y + i + 1 : Tk;
            float t = top[i], add = 0.0f;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                s[i][j] = from + x + 16 * j < end ? s[i][j] * c : -INF;
                t = fmaxf(t, s[i][j]);
            }
            t = row_max(t);
#pragma unroll
            for (int j = 0; j < 4; j++) {
                s[i][j] = expf(s[i][j] - t);
                add += s[i][j];
            }
            const float shrink = expf(top[i] - t);
            sum[i] = fmaf(sum[i], shrink, row_sum(add));
            o.scale(i, shrink);
            top[i] = t;
        }
        put(p, s);
        __syncthreads();
        o.add(p, kv, min(N, seen - from), dh);
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        sum[i] = 1.0f / sum[i];
        const int row = q0 + 4 * y + i;
        if (stats && x == 0 && row < Tq) {
            float *st = stats + 2 * ((b * H + head) * Tq + row);
            st[0] = top[i];
            st[1] = sum[i];
        }
    }
    o.store(out + b * Tq * ldo + head * dh, ldo, q0, Tq, dh, sum);
}

// The backward. With p = softmax(c q k'), dp = dout v', delta = the row sums of dout * out, and ds = p (dp - delta):
//   dq = c ds k,  dk = c ds' q,  dv = p' dout.
// attention_dq also leaves delta [B, H, Tq], which attention_dkv reads after it.
template <class T>
__device__ __forceinline__ void attention_dq(T *dq, float *delta, const T *dout, const T *out, const float *stats,
                                             const T *q, const T *k, const T *v, int ldq, int ldkv, int dh, int Tq,
                                             int Tk, float c) {
    const int head = blockIdx.y, H = gridDim.y, ldo = H * dh, q0 = blockIdx.x * N;
    const int x = threadIdx.x % 16, y = threadIdx.x / 16;
    const int64_t b = blockIdx.z;
    q += b * Tq * ldq + head * dh;
    dq += b * Tq * ldq + head * dh;
    k += b * Tk * ldkv + head * dh;
    v += b * Tk * ldkv + head * dh;
    dout += b * Tq * ldo + head * dh;
    out += b * Tq * ldo + head * dh;
    stats += (b * H + head) * Tq * 2;
    delta += (b * H + head) * Tq;
    float *qs = (float *)smem, *g = qs + N * ld(dh), *kv = g + N * ld(dh), *p = kv + N * ld(dh);
    fill(qs, q, ldq, q0, Tq, dh);
    fill(g, dout, ldo, q0, Tq, dh);
    __syncthreads();

    float top[4], inv[4], mean[4], scale[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int row = q0 + 4 * y + i, at = min(row, Tq - 1);
        float sum = 0.0f;
        for (int j = x; j < dh; j += 16)
            sum = fmaf(g[(4 * y + i) * ld(dh) + j], to_float(out[(int64_t)at * ldo + j]), sum);
        mean[i] = row_sum(sum);
        top[i] = stats[2 * at];
        inv[i] = stats[2 * at + 1];
        scale[i] = c;
        if (x == 0 && row < Tq) delta[row] = mean[i];
    }
    Sums o;
    o.clear();
    for (int from = 0; from < Tk; from += N) {
        float s[4][4], ds[4][4];
        __syncthreads();
        fill(kv, v, ldkv, from, Tk, dh);
        __syncthreads();
        dots(ds, g, kv, dh);
        __syncthreads();
        fill(kv, k, ldkv, from, Tk, dh);
        __syncthreads();
        dots(s, qs, kv, dh);
#pragma unroll
        for (int i = 0; i < 4; i++)
#pragma unroll
            for (int j = 0; j < 4; j++) ds[i][j] = expf(fmaf(s[i][j], c, -top[i])) * inv[i] * (ds[i][j] - mean[i]);
        put(p, ds);
        __syncthreads();
        o.add(p, kv, min(N, Tk - from), dh);
    }
    o.store(dq, ldq, q0, Tq, dh, scale);
}

// A row here is a key, a column a query.
template <class T>
__device__ __forceinline__ void attention_dkv(T *dk, T *dv, const T *dout, const float *delta, const float *stats,
                                              const T *q, const T *k, const T *v, int ldq, int ldkv, int dh, int Tq,
                                              int Tk, float c) {
    const int head = blockIdx.y, H = gridDim.y, ldo = H * dh, k0 = blockIdx.x * N, x = threadIdx.x % 16;
    const int64_t b = blockIdx.z;
    q += b * Tq * ldq + head * dh;
    dout += b * Tq * ldo + head * dh;
    stats += (b * H + head) * Tq * 2;
    delta += (b * H + head) * Tq;
    k += b * Tk * ldkv + head * dh;
    v += b * Tk * ldkv + head * dh;
    dk += b * Tk * ldkv + head * dh;
    dv += b * Tk * ldkv + head * dh;
    float *ks = (float *)smem, *vs = ks + N * ld(dh), *qg = vs + N * ld(dh), *p = qg + N * ld(dh);
    fill(ks, k, ldkv, k0, Tk, dh);
    fill(vs, v, ldkv, k0, Tk, dh);

    Sums gk, gv;
    gk.clear();
    gv.clear();
    for (int from = 0; from < Tq; from += N) {
        const int n = min(N, Tq - from);
        float s[4][4], ds[4][4];
        __syncthreads();
        fill(qg, q, ldq, from, Tq, dh);
        __syncthreads();
        dots(s, ks, qg, dh);
        __syncthreads();
        fill(qg, dout, ldo, from, Tq, dh);
        __syncthreads();
        dots(ds, vs, qg, dh);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int col = min(from + x + 16 * j, Tq - 1);
            const float top = stats[2 * col], inv = stats[2 * col + 1], mean = delta[col];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                s[i][j] = expf(fmaf(s[i][j], c, -top)) * inv;
                ds[i][j] = s[i][j] * (ds[i][j] - mean);
            }
        }
        put(p, s);
        __syncthreads();
        gv.add(p, qg, n, dh);
        __syncthreads();
        put(p, ds);
        fill(qg, q, ldq, from, Tq, dh);
        __syncthreads();
        gk.add(p, qg, n, dh);
    }
    const float one[4] = {1.0f, 1.0f, 1.0f, 1.0f}, scale[4] = {c, c, c, c};
    gk.store(dk, ldkv, k0, Tk, dh, scale);
    gv.store(dv, ldkv, k0, Tk, dh, one);
}

#define KERNELS(type, T)                                                                                              \
    extern "C" __global__ void __launch_bounds__(256, 2)                                                              \
        attention_##type(T *out, float *stats, const T *q, const T *k, const T *v, int ldq, int ldkv, int dh, int Tq, \
                         int Tk, float c, int causal) {                                                               \
        attention(out, stats, q, k, v, ldq, ldkv, dh, Tq, Tk, c, causal);                                             \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(256, 2)                                                              \
        attention_dq_##type(T *dq, float *delta, const T *dout, const T *out, const float *stats, const T *q,         \
                            const T *k, const T *v, int ldq, int ldkv, int dh, int Tq, int Tk, float c) {             \
        attention_dq(dq, delta, dout, out, stats, q, k, v, ldq, ldkv, dh, Tq, Tk, c);                                 \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(256, 2)                                                              \
        attention_dkv_##type(T *dk, T *dv, const T *dout, const float *delta, const float *stats, const T *q,         \
                             const T *k, const T *v, int ldq, int ldkv, int dh, int Tq, int Tk, float c) {            \
        attention_dkv(dk, dv, dout, delta, stats, q, k, v, ldq, ldkv, dh, Tq, Tk, c);                                 \
    }
KERNELS(f32, float)
KERNELS(bf16, bf16)
