// Instructions of sm_80 that CUDA C++ has no name for: tensor cores, ldmatrix, asynchronous copies to shared memory.
// Each is here twice: in PTX, and as what it does, for the emulator. The second follows the text of the PTX ISA, not
// the kernels: a kernel that puts a fragment together in another way is wrong in the emulator too. Names in quotes are
// that text's sections, and #names its anchors, which stay the same from version to version.
//
// "Matrix Fragments for mma.m16n8k16 with floating point type" (#mma-16816-a-f16, #mma-16816-b-f16, #mma-16816-c). Its
// groupID is lane / 4, here g; its threadID_in_group is lane % 4, here t = twice that. It counts elements, of which a
// register holds two, the lower first: its a4, a5 are a2 here. Of A, elements i with i / 2 odd are 8 rows further down
// and those from i = 4 on 8 columns further right; of B those from i = 2 on are 8 rows further down; of C those from
// i = 2 on.
//   A[16, 16]  a0 = A[g, t..t+1], a1 = A[g+8, t..], a2 = A[g, t+8..], a3 = A[g+8, t+8..]
//   B[16, 8]   b0 = B[t..t+1, g], b1 = B[t+8.., g]
//   C[16, 8]   c0, c1 = C[g, t..t+1], c2, c3 = C[g+8, t..]
// So two C side by side, rounded, are one A.
#pragma once
#include "lift.cuh"

// shared_t is an address in shared memory; adding to it counts bytes.
#ifdef __CUDACC_RTC__

typedef uint32_t shared_t;
__device__ __forceinline__ shared_t shared(const void *p) {
    return (shared_t)__cvta_generic_to_shared(p);
}

// exp2_near is 2^x within 2 units in the last place; below 2^-126 it is 0.
__device__ __forceinline__ float exp2_near(float x) {
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
}

// mma: c += a b. The text leaves open how the sum of 16 products and c is rounded, so bits differ from the emulator's,
// and may differ between kinds of GPU. It is volatile because all lanes must come to it together: the compiler may not
// take it behind a branch that only some need its result in.
__device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, "
        "%2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// ldmatrix loads four 8 x 8 matrices of bf16: lane l gives the address of row l % 8 of matrix l / 8, a multiple of 16,
// and gets of each matrix the elements t and t + 1 of row g; ldmatrix_trans, of the matrix transposed, the rows t and
// t + 1 of column g. ("Warp-level matrix load instruction: ldmatrix", its table of .x4 and #mma-ldmatrix-fragments.)
__device__ __forceinline__ void ldmatrix(uint32_t (&r)[4], shared_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}
__device__ __forceinline__ void ldmatrix_trans(uint32_t (&r)[4], shared_t row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
}

// cp_async starts a copy of 8 or 16 bytes (aligned to as many) to shared memory, or writes zeros there where !in: then
// src is not read ("cp.async": with src-size below cp-size, the rest is filled with zeros). It has landed when its
// group, all copies between two commits, has been waited for.
template <int BYTES>
__device__ __forceinline__ void cp_async(shared_t dst, const void *src, bool in) {
    const int n = in ? BYTES : 0;
    if (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(dst), "l"(src), "r"(n) : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(dst), "l"(src), "n"(BYTES), "r"(n)
                     : "memory");
}
__device__ __forceinline__ void cp_async_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// cp_async_wait waits until at most LEFT of the thread's groups are under way, the last committed ones
// ("cp.async.wait_group"). Other threads' need a __syncthreads after it.
template <int LEFT>
__device__ __forceinline__ void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

#else

#include <vector>

typedef char *shared_t;
inline shared_t shared(const void *p) {
    return (shared_t)p;
}

inline float exp2_near(float x) {
    return x < -126.0f ? 0.0f : cuemu::near(exp2f(x), x, 2);
}

// The products are exact in float; they are added one after the other.
inline void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    typedef float Floats __attribute__((vector_size(16)));
    typedef uint32_t Words __attribute__((vector_size(16)));
    struct Fragment {
        uint32_t a[4], b[2];
    };
    const Fragment *lane = cuemu::warpExchange(Fragment{{a[0], a[1], a[2], a[3]}, {b0, b1}});
    const int l = threadIdx.x & 31, g = l / 4, t = l % 4 * 2;
    Floats sum = {c[0], c[1], c[2], c[3]};
    for (int i = 0; i < 8; i++) {  // elements k = 2 i and 2 i + 1
        const uint32_t *row = lane[g * 4 + i % 4].a + i / 4 * 2;
        const uint32_t left = lane[t * 4 + i % 4].b[i / 4], right = lane[t * 4 + 4 + i % 4].b[i / 4];
        const Words x = {row[0], row[0], row[1], row[1]}, y = {left, right, left, right};
        sum += (Floats)(x << 16) * (Floats)(y << 16);
        sum += (Floats)(x & 0xffff0000u) * (Floats)(y & 0xffff0000u);
    }
    memcpy(c, &sum, sizeof c);
}

struct Row {
    bf16 x[8];
};
// exchange gives all lanes' rows. They travel, not their addresses: all lanes have read when the first goes on.
inline const Row *exchange(shared_t row) {
    cuemu::aligned(row, sizeof(Row));
    return cuemu::warpExchange(*(const Row *)row);
}
inline void ldmatrix(uint32_t (&r)[4], shared_t row) {
    const Row *rows = exchange(row);
    const int l = threadIdx.x & 31;
    for (int m = 0; m < 4; m++) memcpy(&r[m], &rows[m * 8 + l / 4].x[l % 4 * 2], 4);
}
inline void ldmatrix_trans(uint32_t (&r)[4], shared_t row) {
    const Row *rows = exchange(row);
    const int l = threadIdx.x & 31;
    for (int m = 0; m < 4; m++) {
        const Row *at = rows + m * 8 + l % 4 * 2;
        r[m] = at[0].x[l / 4].bits | (uint32_t)at[1].x[l / 4].bits << 16;
    }
}

// Copies are queued and land when waited for; until then their destination is NaN. So both a read too early and a copy
// over what is still read give a wrong result.
struct Copies {
    struct Copy {
        shared_t dst;
        const void *src;
        int bytes, group;
    };
    std::vector<Copy> queue;
    int group = 0;  // the one that the next commit ends
};
inline Copies &copies() {
    static thread_local Copies of[1024];
    return of[threadIdx.x];
}
template <int BYTES>
inline void cp_async(shared_t dst, const void *src, bool in) {
    cuemu::aligned(dst, BYTES);
    if (in) cuemu::aligned(src, BYTES);
    copies().queue.push_back({dst, in ? src : nullptr, BYTES, copies().group});
    memset(dst, 0xff, BYTES);
}
inline void cp_async_commit() {
    copies().group++;
}
template <int LEFT>
inline void cp_async_wait() {
    Copies &c = copies();
    size_t kept = 0;
    for (const auto &k : c.queue)
        if (k.group >= c.group - LEFT)
            c.queue[kept++] = k;
        else if (k.src)
            memcpy(k.dst, k.src, k.bytes);
        else
            memset(k.dst, 0, k.bytes);
    c.queue.resize(kept);
}

#endif
