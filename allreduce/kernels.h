// Kernels of the fixed-point conversion and of the packed wire. Level: 0 plain C, 1 AVX2, 2 AVX-512 with VBMI.
// All levels and the Go code in kernels_go.go give the same bytes.
#ifndef LIFT_ALLREDUCE_KERNELS_H
#define LIFT_ALLREDUCE_KERNELS_H
#include <stdint.h>

// lift_fold_state mirrors foldState in kernels_go.go.
typedef struct {
    uint64_t a[8], b[8];  // checksum lanes
    int64_t consumed;     // bytes read
    int64_t done;         // values folded
    int64_t packed;       // bytes written to the packed output
} lift_fold_state;

// lift_level is the best level of this CPU.
int lift_level(void);

// lift_encode rounds src[0..n) * scale to integers and stores them in acc, or adds them to it. Returns the index of the
// first value with no integer in [-limit, limit], at which it stops, or -1.
int64_t lift_encode(int level, int64_t *acc, const float *src, int64_t n, float scale, int64_t limit, int store);

// lift_keep copies src[0..n) to dst if lift_encode would take every value of it, and returns what that would.
int64_t lift_keep(int level, float *dst, const float *src, int64_t n, float scale, int64_t limit);

// lift_pack packs n of a node's own values (integers, or floats whose integers lift_encode gives, or zeros if both are
// NULL) and returns the bytes written; dst has room for 64 bytes more than the
// largest form.
int64_t lift_pack(int level, uint8_t *dst, const int64_t *ints, const float *floats, int64_t n, float scale);

// lift_fold unpacks values from in[0..in_len) (zeros if in is NULL), up to n and as far as whole blocks reach, adds the
// node's own and writes the sums to each output that is not NULL: out (integers), f (float32 of sum / scale, with the
// checksum of the sums in st) and packed. scale is a power of two. Returns 0, or -1 for a block header above 8.
int lift_fold(int level, const uint8_t *in, int64_t in_len, const int64_t *ints, const float *floats, int64_t n,
              int64_t *out, float *f, float scale, uint8_t *packed, lift_fold_state *st);
#endif
