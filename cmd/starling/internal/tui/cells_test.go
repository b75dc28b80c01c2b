package tui

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/charmbracelet/x/ansi"

	"pgregory.net/rapid"
)

func TestWrap(t *testing.T) {
	for _, c := range []struct {
		name, text string
		width      int
		want       []string
	}{
		{"empty", "", 10, []string{""}},
		{"fits", "hello", 5, []string{"hello"}},
		{"at spaces", "the quick brown fox", 10, []string{"the quick", "brown fox"}},
		{"a space at the edge", "hello world", 5, []string{"hello", "world"}},
		{"many spaces at the edge", "hello      world", 5, []string{"hello", "world"}},
		{"leading spaces stay", "  x = 1", 10, []string{"  x = 1"}},
		{"only spaces", "      ", 3, []string{""}},
		{"inside a long word", "abcdefghij", 4, []string{"abcd", "efgh", "ij"}},
		{"a long word after a short one", "ab cdefghijkl", 5, []string{"ab", "cdefg", "hijkl"}},
		{"newlines", "a\n\nb", 5, []string{"a", "", "b"}},
		{"wide characters", "你好世界", 5, []string{"你好", "世界"}},
		{"wide characters do not fit one cell", "你好", 1, []string{"你", "好"}},
		{"a Chinese sentence goes on behind a nick", "ada: 今天天气很好我们去公园", 12, []string{"ada: 今天天", "气很好我们去", "公园"}},
		{"no comma begins a line", "你好世，界", 6, []string{"你好", "世，界"}},
		{"Latin words stay whole beside Chinese", "中文word中文", 6, []string{"中文", "word中", "文"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := byRune.lines(c.text, c.width)
			if strings.Join(got, "|") != strings.Join(c.want, "|") {
				t.Errorf("wrap(%q, %d) = %q, want %q", c.text, c.width, got, c.want)
			}
		})
	}
}

// family is one emoji of five code points.
const family = "👨\u200d👩\u200d👧"

// texts draws what people and attackers write.
func texts(t *rapid.T, label string) string {
	part := rapid.OneOf(
		rapid.StringMatching(`[a-z]{1,12}`), rapid.Just(" "), rapid.Just("   "), rapid.Just("\n"),
		rapid.SampledFrom([]string{
			"你好世界，", "こんにちは。", "안녕하세요", family, "👍🏽", "🏳️\u200d🌈", "🇩🇪", "1️⃣", "❤️", "e\u0301", "\u0301\u0301", "क्षि", "நி", "กำ",
			"क" + strings.Repeat("ा", 40), strings.Repeat("ᄒ", 30), "a\u00adb", "ﷺ", "\ufffc", "\u200d", "http://example.org/averyveryverylongpath",
		}),
		rapid.StringN(0, 6, -1),
	)
	return strings.Join(rapid.SliceOfN(part, 0, 20).Draw(t, label), "")
}

func TestWrapKeepsTextAndWidth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := rapid.SampledFrom([]metric{byRune, byCluster}).Draw(t, "metric")
		text := w.body(texts(t, "text"))
		n := rapid.IntRange(1, 40).Draw(t, "width")
		var kept strings.Builder
		at := 0
		for _, sp := range w.wrap(text, n) {
			if sp.from < at || sp.to < sp.from || strings.Trim(text[at:sp.from], " \n") != "" {
				t.Fatalf("text is lost or doubled before %v of %q", sp, text)
			}
			at = sp.to
			line := text[sp.from:sp.to]
			kept.WriteString(line)
			if c, _ := w.first(line + " "); w.width(line) > n && len(c) < len(line) {
				t.Fatalf("%q takes %d cells of %d", line, w.width(line), n)
			}
		}
		squeeze := func(s string) string { return strings.NewReplacer(" ", "", "\n", "").Replace(s) }
		if squeeze(kept.String()) != squeeze(text) {
			t.Fatalf("%q became %q", text, kept.String())
		}
	})
}

func TestSettledClustersAreNarrow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := rapid.SampledFrom([]metric{byRune, byCluster}).Draw(t, "metric")
		text := w.line(texts(t, "text"))
		if !utf8.ValidString(text) {
			t.Fatalf("%q is not valid", text)
		}
		sum := 0
		for rest := text; rest != ""; {
			c, cells := w.first(rest)
			rest = rest[len(c):]
			sum += cells
			if cells < 0 || cells > maxClusterCells || utf8.RuneCountInString(c) > maxClusterRunes+1 {
				t.Fatalf("cluster %q takes %d cells", c, cells)
			}
		}
		if sum != w.width(text) {
			t.Fatalf("%q: clusters take %d cells, the whole %d", text, sum, w.width(text))
		}
	})
}

func TestSettle(t *testing.T) {
	for _, c := range []struct{ name, text, byRune, byCluster string }{
		{"ascii", "hello", "hello", "hello"},
		{"family", family + "!", "👨👩👧!", family + "!"},
		{"skin tone", "👍🏽", "👍", "👍🏽"},
		{"tone alone", "🏽", "🏽", "🏽"},
		{"heart", "I ❤️ it", "I ❤ it", "I ❤️ it"},
		{"keycap", "1️⃣", "1", "1"},
		{"flag", "🇩🇪", "🇩🇪", "🇩🇪"},
		{"accent", "e\u0301", "\u00e9", "\u00e9"},
		{"accent without a form of its own", "ax\u0301b", "axb", "axb"},
		{"lone accent", "\u0301x", "◌\u0301x", "◌\u0301x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := byRune.settle(c.text); got != c.byRune {
				t.Errorf("by rune %q, want %q", got, c.byRune)
			}
			if got := byCluster.settle(c.text); got != c.byCluster {
				t.Errorf("by cluster %q, want %q", got, c.byCluster)
			}
		})
	}
}

func TestFit(t *testing.T) {
	for _, c := range []struct {
		text string
		n    int
		want string
	}{{"abc", 5, "abc  "}, {"abc", 3, "abc"}, {"abcd", 3, "ab…"}, {"你好吗", 4, "你… "}, {"abc", 0, ""}, {"你", 1, "…"}} {
		if got := byRune.fit(c.text, c.n); got != c.want {
			t.Errorf("fit(%q, %d) = %q, want %q", c.text, c.n, got, c.want)
		}
	}
	if got := byRune.right("你", 4); got != "  你" {
		t.Errorf("right = %q", got)
	}
}

// TestRendererDrawsSettledText takes text apart as the renderer does, which loses what takes no cell
// of its own.
func TestRendererDrawsSettledText(t *testing.T) {
	for _, text := range []string{"e\u0301 a\u0323\u0302", "1️⃣2", "x\u0301\u0302y", "ภาษาไทย", "हिन्दी", family, "🇩🇪", "\u0301"} {
		for _, w := range []metric{byRune, byCluster} {
			settled, drawn, cells := w.settle(text), "", 0
			for rest := settled; rest != ""; {
				seq, width, n, _ := decode(w, rest)
				if width > 0 {
					drawn += seq
				}
				cells += width
				rest = rest[n:]
			}
			if drawn != settled {
				t.Errorf("of %q the renderer draws %q", settled, drawn)
			}
			if have := w.width(settled); have < cells {
				t.Errorf("%q takes %d cells and is counted as %d", settled, cells, have)
			}
		}
	}
}

func decode(w metric, s string) (seq string, width, n int, state byte) {
	if w == byRune {
		return ansi.DecodeSequenceWc(s, 0, nil)
	}
	return ansi.DecodeSequence(s, 0, nil)
}
