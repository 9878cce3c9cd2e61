/* clang-format off */
//go:build cgo
/* clang-format on */

// JPEG decoding through libjpeg-turbo. libjpeg reports errors by a callback that
// must not return: it jumps back into lift_jpeg_decode, which frees everything.
#include "jpeg.h"

#include <jerror.h>
#include <jpeglib.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

enum {
    // Columns decoded on each side of a cut, at the least: chroma is interpolated
    // from the neighbours, so the block beside the cut is needed too (32 pixels at
    // the widest).
    MARGIN = 32,
    PIXEL = 4,
    END_MARKER = 0xd9,
};

// A progressive file may have many scans of hardly any bytes, each of which costs
// a pass over the image. A file of ten scans at the largest size stays below.
static const double MAX_SCANNED_PIXELS = 2e9;

typedef struct {
    struct jpeg_error_mgr base;
    jmp_buf back;
    char *message;
} error_manager;

static void fail(error_manager *e, const char *reason) {
    snprintf(e->message, LIFT_JPEG_MESSAGE, "%s", reason);
    longjmp(e->back, 1);
}

static void on_error(j_common_ptr c) {
    error_manager *e = (error_manager *)c->err;
    char text[JMSG_LENGTH_MAX];
    e->base.format_message(c, text);
    fail(e, text);
}

static void on_message(j_common_ptr c, int level) {
    error_manager *e = (error_manager *)c->err;
    if (level < 0 && e->base.msg_code == JWRN_JPEG_EOF) fail(e, "the file is truncated");
}

static void on_output(j_common_ptr c) {
    (void)c;
}

static void on_progress(j_common_ptr c) {
    j_decompress_ptr d = (j_decompress_ptr)c;
    if ((double)d->input_scan_number * d->image_width * d->image_height > MAX_SCANNED_PIXELS &&
        d->input_scan_number > 20)
        fail((error_manager *)c->err, "too many scans for its size");
}

// cmyk_to_rgb converts a row in place as PIL does. Adobe's files, the only ones
// there are, store the inks inverted.
static void cmyk_to_rgb(unsigned char *row, unsigned n) {
    for (unsigned i = 0; i < n; i++, row += PIXEL) {
        int white = row[3];
        for (int c = 0; c < 3; c++) {
            int t = (255 - row[c]) * white + 128;
            int v = white - (((t >> 8) + t) >> 8);
            row[c] = (unsigned char)(v < 0 ? 0 : v);
        }
    }
}

// check_end fails unless an end marker follows the data read so far: a region that
// ends above the last row would not notice that the file is cut.
static void check_end(j_decompress_ptr d, const unsigned char *data, size_t size) {
    size_t from = size - d->src->bytes_in_buffer;
    from = from < 2 ? 0 : from - 2;  // the marker may have been read already
    for (size_t i = size; i >= from + 2; i--)
        if (data[i - 2] == 0xff && data[i - 1] == END_MARKER) return;
    fail((error_manager *)d->err, "the file is truncated");
}

// read_rows decodes the region; d has been started.
static void read_rows(j_decompress_ptr d, unsigned x, unsigned y, unsigned w, unsigned h, unsigned char *out) {
    JDIMENSION left = 0, wide = d->output_width;
    if (w < d->output_width) {
        left = x > MARGIN ? x - MARGIN : 0;
        JDIMENSION right = x + w + MARGIN;
        if (right > d->output_width) right = d->output_width;
        wide = right - left;
        jpeg_crop_scanline(d, &left, &wide);
    }
    if (y > 0 && jpeg_skip_scanlines(d, y) != y) fail((error_manager *)d->err, "rows are missing");
    JSAMPARRAY row = d->mem->alloc_sarray((j_common_ptr)d, JPOOL_IMAGE, wide * PIXEL, 1);
    for (; h > 0; h--, out += (size_t)w * PIXEL) {
        if (jpeg_read_scanlines(d, row, 1) != 1) fail((error_manager *)d->err, "rows are missing");
        memcpy(out, row[0] + (size_t)(x - left) * PIXEL, (size_t)w * PIXEL);
        if (d->out_color_space == JCS_CMYK) cmyk_to_rgb(out, w);
    }
}

int lift_jpeg_decode(const unsigned char *data, size_t size, unsigned width, unsigned height, unsigned x, unsigned y,
                     unsigned w, unsigned h, unsigned char *out, char *message) {
    struct jpeg_decompress_struct d;
    struct jpeg_progress_mgr progress = {.progress_monitor = on_progress};
    error_manager errors = {.message = message};
    memset(&d, 0, sizeof d);
    d.err = jpeg_std_error(&errors.base);
    errors.base.error_exit = on_error;
    errors.base.emit_message = on_message;
    errors.base.output_message = on_output;
    if (setjmp(errors.back)) {
        jpeg_destroy_decompress(&d);
        return 0;
    }
    jpeg_create_decompress(&d);
    d.progress = &progress;
    jpeg_mem_src(&d, data, size);
    jpeg_read_header(&d, TRUE);
    if (d.image_width != width || d.image_height != height) fail(&errors, "two frame headers");
    if (d.jpeg_color_space == JCS_CMYK || d.jpeg_color_space == JCS_YCCK)
        d.out_color_space = JCS_CMYK;
    else
        d.out_color_space = JCS_EXT_RGBX;
    d.dct_method = JDCT_ISLOW;
    jpeg_start_decompress(&d);
    read_rows(&d, x, y, w, h, out);
    check_end(&d, data, size);
    jpeg_destroy_decompress(&d);
    return 1;
}
