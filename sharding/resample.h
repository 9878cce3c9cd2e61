// The two passes of image resampling, over pixels of four bytes.
#ifndef LIFT_SHARDING_RESAMPLE_H
#define LIFT_SHARDING_RESAMPLE_H

#include <stdint.h>

// lift_resample_rows makes n pixels of each of the rows: pixel i is the sum of
// count[i] source pixels from first[i] on, times weights[i * taps ...], in fixed
// point of 22 bits, brought back to a byte. Source rows are src_width pixels apart, results n.
void lift_resample_rows(uint8_t *dst, const uint8_t *src, int rows, int src_width, int n, const int32_t *first,
                        const int32_t *count, const int32_t *weights, int taps);

// lift_resample_columns makes n rows of width pixels: row i is the sum of count[i]
// source rows from first[i] on, times their weights. Source rows are src_width pixels
// apart, results width.
void lift_resample_columns(uint8_t *dst, const uint8_t *src, int width, int src_width, int n, const int32_t *first,
                           const int32_t *count, const int32_t *weights, int taps);

#endif
