package sharding

import (
	"crypto/sha256"
	"fmt"
	"testing"
)

// pattern makes the image that the goldens below were made from.
func pattern(width, height int) *RGB {
	img := &RGB{W: width, H: height}
	for y := range height {
		for x := range width {
			for c := range 3 {
				v := x*x*31 + y*y*17 + x*y*7 + c*91 + (x*7919+y*104729+c*15485863)%97*3
				img.Pix = append(img.Pix, byte(v))
			}
		}
	}
	return img
}

// pillowGoldens are the first 16 digits of the sha256 of what torchvision 0.29 makes of patterns with Pillow 13: Resize(36) and
// CenterCrop(32), Resize(32) and CenterCrop(32), Resize(37) and FiveCrop(32), the same with TenCrop, and the boxes of
// goldenBoxes with resized_crop to 32, of which the second and the fourth are mirrored.
var pillowGoldens = []struct {
	filter                        Interpolation
	width, height                 int
	test, plain, five, ten, boxes string
}{
	{Bilinear, 1, 1, "c95e2d71c463fed6", "c95e2d71c463fed6", "040dc28f2a3cd57f", "0d35d21e48ac9691", "040dc28f2a3cd57f"},
	{Bilinear, 3, 300, "473f34b1d5dd811f", "89807e070ce96d63", "9b058cb8304cf99f", "33d334d43e733de5", "c532328b55ee62d1"},
	{Bilinear, 300, 3, "881feeba11e650e1", "88addbbfe3daa660", "d8319f1f2c87c361", "de1e048e9c1d5e68", "a7b73ff7305194f1"},
	{Bilinear, 20, 31, "b07d858a3b66c631", "dcef2f3b113b8ff1", "43f54bd3e84cc851", "92246d2d703ba0ab", "070fe9b8c6ed26cc"},
	{Bilinear, 45, 100, "a1aca261c9b78a8d", "df75754d2316c057", "1a92c7c91ed6a823", "84f542b9b6a1102d", "e933af01295abef5"},
	{Bilinear, 80, 60, "d13528e45b820d2f", "ced3cb0eef91b1de", "14fe3146aa68e60e", "9139fc2aec6f7766", "ff13117bc8fdcc21"},
	{Bilinear, 61, 43, "6cb28df00e348673", "5a64c56242faf8ed", "77a69eb33a7bee78", "f26509f6810408b3", "6d6fe85a6a5284c8"},
	{Bilinear, 97, 101, "9dc4f28d9333437a", "57aa2c5dbc02fecb", "00c6db2571d2d2dd", "531135b2ae54de47", "1a588ad63791068f"},
	{Bilinear, 33, 257, "377d13c08905ebf0", "635eb91f6cd7e322", "37eced2a900b09a4", "2d83f3c041a6ee84", "427fc4071459a6a6"},
	{Bilinear, 640, 480, "10f743acf1ee7f24", "8b375710d6ead20b", "c70e34d00a47ed60", "c72d4cf6f3939203", "7b284f34b7fa9f9e"},
	{Bilinear, 113, 50, "df85952b701326cb", "8220b1f1d23d90e4", "3a5080dc9bf05673", "771475455342e450", "f975c789ce750f47"},
	{Bicubic, 1, 1, "c95e2d71c463fed6", "c95e2d71c463fed6", "040dc28f2a3cd57f", "0d35d21e48ac9691", "040dc28f2a3cd57f"},
	{Bicubic, 3, 300, "c6981f9310d4b2a8", "97629028f21b7630", "c42c6027b259c7c7", "09bf2012c321f695", "3cfaee8a1b31564d"},
	{Bicubic, 300, 3, "80bd6c821fbefb04", "6206fbe3963cf915", "aa73ccf4164964ae", "7c12b489e53a5ffb", "b62fd39e805a5aaa"},
	{Bicubic, 20, 31, "4b38bde2ea755a68", "45e4868208a8374a", "b9c9e4b2e07eb4d9", "2b6752a0607e8631", "7d170648250c5995"},
	{Bicubic, 45, 100, "a925324902696bd5", "432aadffdfc40bbf", "ccc9d2612f57d338", "c1b7442101e9bbb0", "4a53dd26032e6430"},
	{Bicubic, 80, 60, "21d78d9756b18ab3", "bd16ffd804c4fa42", "55b8c1ac2a8ff61a", "9db926ab53b71bee", "8a27213356c93646"},
	{Bicubic, 61, 43, "ca97571a99a6b0d0", "dc13ab70c196c8cf", "9c73e4f8f650cf43", "5e299761a00e6803", "29b488a20453d26b"},
	{Bicubic, 97, 101, "06ac093118b171e4", "7f99b82e5d80dd13", "8c0a0fa469e223bc", "93d025f6d3cf64bb", "b29554ca4106dd6d"},
	{Bicubic, 33, 257, "a3bdcf739d6471d0", "8b212fe41a38dbf2", "b9c5110d256d8ab0", "dabcdb277d89741a", "0cf6d34737c93c86"},
	{Bicubic, 640, 480, "e331175bf92c29b1", "260bd338a846c8d3", "1681bb801ef027b9", "aa858cb2b828f69c", "eab99a46eebfd09e"},
	{Bicubic, 113, 50, "367f185b48bc944e", "67713d2d7d696f4c", "3f7f471385743fb0", "bf7165d7c8cc9ffc", "1f0e61ed3b27fe60"},
}

func goldenBoxes(w, h int) []Box {
	return []Box{
		{0, 0, h, w}, {h / 3, w / 4, max(1, h/2), max(1, w/2)}, {h / 2, w / 2, 1, 1}, {0, w / 2, h, max(1, w/4)},
		{h / 5, 0, max(1, h/9), w},
	}
}

// Crops are Pillow's to the bit: filters, roundings, the order of the passes, the places of crops.
func TestCropsAreThoseOfPillow(t *testing.T) {
	for _, g := range pillowGoldens {
		img := pattern(g.width, g.height)
		var cut []*RGB
		for i, b := range goldenBoxes(g.width, g.height) {
			cut = append(cut, ResizedCrop(img, b, 32, i%2 == 1, g.filter))
		}
		for _, c := range []struct {
			what, want string
			images     []*RGB
		}{
			{"test", g.test, TestCrops(img, 36, 32, 1, g.filter)},
			{"plain", g.plain, TestCrops(img, 32, 32, 1, g.filter)},
			{"five crops", g.five, TestCrops(img, 37, 32, 5, g.filter)},
			{"ten crops", g.ten, TestCrops(img, 37, 32, 10, g.filter)},
			{"resized crops", g.boxes, cut},
		} {
			h := sha256.New()
			for _, i := range c.images {
				h.Write(i.Pix)
			}
			if got := fmt.Sprintf("%x", h.Sum(nil))[:16]; got != c.want {
				t.Errorf("filter %d, %d × %d, %s: %s, Pillow makes %s", g.filter, g.width, g.height, c.what, got, c.want)
			}
		}
	}
}
