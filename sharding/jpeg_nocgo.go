//go:build !cgo

package sharding

import "errors"

// decodeJPEG refuses: image/jpeg repeats chroma where PIL interpolates it, so that
// its pixels would make another result without a word.
func decodeJPEG(d *decoder, data []byte, pic *picture) error {
	return errors.New("this build of lift reads no JPEG: build it with cgo and libjpeg-turbo (Debian: libjpeg62-turbo-dev)")
}
