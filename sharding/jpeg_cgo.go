//go:build cgo

package sharding

// #cgo LDFLAGS: -ljpeg
// #cgo CFLAGS: -O3
// #include "jpeg.h"
import "C"

import (
	"errors"
	"runtime"
	"unsafe"
)

// decodeJPEG decodes pic.region with libjpeg-turbo: its exact integer inverse DCT
// and interpolated chroma are PIL's. Rows and columns outside the region are not
// transformed.
func decodeJPEG(d *decoder, data []byte, pic *picture) error {
	r := pic.region
	pic.pix = d.pixels(r.Width * r.Height)
	var message [C.LIFT_JPEG_MESSAGE]C.char
	ok := C.lift_jpeg_decode((*C.uchar)(unsafe.SliceData(data)), C.size_t(len(data)),
		C.uint(pic.width), C.uint(pic.height), C.uint(r.Left), C.uint(r.Top), C.uint(r.Width), C.uint(r.Height),
		(*C.uchar)(unsafe.SliceData(pic.pix)), &message[0])
	runtime.KeepAlive(data)
	if ok == 0 {
		return errors.New(C.GoString(&message[0]))
	}
	return nil
}
