package repair

import (
	"encoding/json"
	"html"
	"os"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
	"pgregory.net/rapid"
)

// repaired are texts and what ftfy 6.3.1 makes of them under Python 3.11.
func repaired(t testing.TB) [][2]string {
	b, err := os.ReadFile("testdata/repaired.json")
	if err != nil {
		t.Fatal(err)
	}
	var pairs [][2]string
	if err := json.Unmarshal(b, &pairs); err != nil {
		t.Fatal(err)
	}
	if len(pairs) < 300 {
		t.Fatalf("only %d texts", len(pairs))
	}
	return pairs
}

func TestText(t *testing.T) {
	for _, p := range repaired(t) {
		if got := Text(p[0]); got != p[1] {
			t.Errorf("%+q becomes %+q, want %+q", p[0], got, p[1])
		}
	}
}

// UTF-8 that was read as one of the pages comes back, as long as the reading looks like one and an earlier page cannot be meant.
func TestWrongPageIsUndone(t *testing.T) {
	undone := 0
	for _, word := range []string{"schön", "Привет, мир", "Ελληνικά", "東京タワー", "naïve café", "😀 ok", "“quoted”"} {
		for i, p := range pages {
			var read strings.Builder
			for _, b := range []byte(word) {
				read.WriteRune(p.decode[b])
			}
			if !unlikely(read.String()) || slices.ContainsFunc(pages[:i], func(q *page) bool { return q.explains(read.String()) }) {
				continue
			}
			undone++
			if got, want := fixDecoding(read.String()), word; got != want {
				t.Errorf("%q read by page %d is %+q and comes back as %+q", word, i, read.String(), got)
			}
		}
	}
	if undone < 40 {
		t.Errorf("only %d readings were undone", undone)
	}
}

// explains says whether s may be UTF-8 that was read as p.
func (p *page) explains(s string) bool {
	b, ok := p.bytes(s)
	if ok {
		_, ok = p.asUTF8(b)
	}
	return ok
}

// Plain text of many languages is left alone.
func TestMeantTextStays(t *testing.T) {
	for _, s := range []string{"a photo of a cat.", "café à la crème", "Ærøskøbing", "Łódź i Kraków", "ÅÄÖ", "Привет", "Ελληνικά", "北京大学", "¿Qué?", "50 °C ± 2",
		"(╯°□°)╯", "O’Brien"} {
		if want := strings.ReplaceAll(s, "’", "'"); Text(s) != want {
			t.Errorf("%q becomes %q", s, Text(s))
		}
	}
}

// compose is NFC: on short texts x/text's own, and also where x/text would break up a long run of marks.
func TestCompose(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rapid.SampledFrom([]rune("aeoÅ가각Ωक\u0301\u0302\u0323\u0327\u0345\u0308\u0344\u1100\u1161\u11A8\u0915\u093C"))
		s := string(rapid.SliceOfN(r, 0, 12).Draw(t, "text"))
		if got, want := compose(s), norm.NFC.String(s); got != want {
			t.Fatalf("%+q becomes %+q, want %+q", s, got, want)
		}
	})
	marks := strings.Repeat("\u0302\u0323", 40)
	if got, want := compose("o"+marks), "ộ"+strings.Repeat("\u0323", 39)+strings.Repeat("\u0302", 39); got != want {
		t.Errorf("a long run of marks becomes %+q", got)
	}
}

// Each name of HTML that Go knows is known here, with and without what follows it.
func TestEntities(t *testing.T) {
	for _, name := range []string{"amp;", "lt;", "eacute;", "NotEqualTilde;", "CounterClockwiseContourIntegral;", "frac12;", "fjlig;", "amp", "copy", "AElig"} {
		v, ok := entity(name)
		if want := html.UnescapeString("&" + name); !ok || v != want {
			t.Errorf("%s is %q (%t), want %q", name, v, ok, want)
		}
	}
	for _, name := range []string{"", ";", "nothing;", "eacut", "hellip", "ampx;", "am", "notit;", "é;", "a b"} {
		if v, ok := entity(name); ok {
			t.Errorf("%q is %q", name, v)
		}
	}
	for in, want := range map[string]string{
		"&notit;": "¬it;", "&notin;": "∉", "&semi;": ";", "&nGt;": "≫\u20D2", "&#0;": "\uFFFD", "&#x80;": "€", "&#129;": "\u0081", "&#xD800;": "\uFFFD",
		"&#99999999999999999999;": "\uFFFD", "&#x1F600": "😀", "&#11;": "", "&#xFFFE;": "", "&;": "&;", "&#;": "&#;", "&#x;": "&#x;", "&": "&", "a&b": "a&b",
	} {
		if got := UnescapeHTML(in); got != want {
			t.Errorf("%s becomes %+q, want %+q", in, got, want)
		}
	}
}

// Whatever the text, repairing it ends, and gives valid and composed text.
func FuzzText(f *testing.F) {
	for _, p := range repaired(f) {
		f.Add(p[0])
	}
	f.Add("\xff\xfe\xed\xa0\x80")
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 1<<12 {
			t.Skip("a pass for each layer of damage")
		}
		got := UnescapeHTML(Text(s))
		if !utf8.ValidString(got) {
			t.Errorf("%+q becomes %+q, which is not UTF-8", s, got)
		}
		for line := range strings.Lines(Text(s)) {
			if again := compose(line); again != line {
				t.Errorf("%+q becomes %+q, whose line %+q is not composed", s, got, line)
			}
		}
	})
}
