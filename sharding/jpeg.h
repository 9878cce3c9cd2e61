// JPEG decoding through libjpeg-turbo.
#ifndef LIFT_SHARDING_JPEG_H
#define LIFT_SHARDING_JPEG_H

#include <stddef.h>
#include <stdio.h>  // for jpeglib.h, which does not include it

#define LIFT_JPEG_MESSAGE 256

// lift_jpeg_decode decodes the w x h pixels from column x and row y of a JPEG of
// width x height pixels into out, four bytes a pixel (red, green, blue, unused).
// It returns 1, or 0 with a reason in message (LIFT_JPEG_MESSAGE bytes). A file
// without end marker is refused, as in PIL; other blemishes that libjpeg can
// decode over are not.
int lift_jpeg_decode(const unsigned char *data, size_t size, unsigned width, unsigned height, unsigned x, unsigned y,
                     unsigned w, unsigned h, unsigned char *out, char *message);

#endif
