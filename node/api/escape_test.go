package api

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestEscape(t *testing.T) {
	tests := []struct{ name, in, line, text, nick string }{
		{"empty", "", "", "", "?"},
		{"plain", "hello, world", "hello, world", "hello, world", "hello, world"},
		{"chinese", "你好", "你好", "你好", "你好"},
		{"newline", "a\nb", `a\nb`, "a\nb", "a b"},
		{"crlf", "a\r\nb", `a\r\nb`, "a\nb", "a b"},
		{"cr", "a\rb", `a\rb`, `a\rb`, "a b"},
		{"tab", "a\tb", `a\tb`, "a    b", "a b"},
		{"escape sequence", "\x1b]0;title\x07", `\x1b]0;title\x07`, `\x1b]0;title\x07`, `\x1b]0;title\x07`},
		{"colour", "\x1b[31mred", `\x1b[31mred`, `\x1b[31mred`, `\x1b[31mred`},
		{"nul and del", "a\x00\x7f", `a\x00\x7f`, `a\x00\x7f`, `a\x00\x7f`},
		{"c1 as rune", "a\u009b31m", `a\u009b31m`, `a\u009b31m`, `a\u009b31m`},
		{"c1 as byte", "a\x9b31m", `a\x9b31m`, `a\x9b31m`, `a\x9b31m`},
		{"next line", "a\u0085b", `a\u0085b`, `a\u0085b`, "a b"},
		{"bidi override", "abc\u202egpj.exe", `abc\u202egpj.exe`, `abc\u202egpj.exe`, `abc\u202egpj.exe`},
		{"bidi isolates", "\u2066a\u2069", `\u2066a\u2069`, `\u2066a\u2069`, `\u2066a\u2069`},
		{"bidi marks", "\u200ea\u200f\u061c", `\u200ea\u200f\u061c`, `\u200ea\u200f\u061c`, `\u200ea\u200f\u061c`},
		{"line separator", "a\u2028b", `a\u2028b`, `a\u2028b`, "a b"},
		{"byte order mark", "\ufeffa", `\ufeffa`, `\ufeffa`, `\ufeffa`},
		{"tag characters", "a\U000e0041", `a\U000e0041`, `a\U000e0041`, `a\U000e0041`},
		{"zero width space", "a\u200bb", `a\u200bb`, `a\u200bb`, `a\u200bb`},
		{"word joiner", "a\u2060b", `a\u2060b`, `a\u2060b`, `a\u2060b`},
		{"joiner", "a\u200db", "a\u200db", "a\u200db", `a\u200db`},
		{"soft hyphen", "a\u00adb", "a\u00adb", "a\u00adb", `a\u00adb`},
		{"hangul filler", "a\u3164", "a\u3164", "a\u3164", `a\u3164`},
		{"variation selector on a letter", "a\ufe0f", "a\ufe0f", "a\ufe0f", `a\ufe0f`},
		{"emoji heart", "❤\ufe0f", "❤\ufe0f", "❤\ufe0f", "❤\ufe0f"},
		{"emoji family", "👩\u200d👧", "👩\u200d👧", "👩\u200d👧", "👩\u200d👧"},
		{"whitespace runs", "  ada \u00a0\u3000 b\u2800 ", "  ada \u00a0\u3000 b\u2800 ", "  ada \u00a0\u3000 b\u2800 ", "ada b"},
		{"only whitespace", " \u3000", " \u3000", " \u3000", "?"},
		{"nonzero noncharacter", "a\ufffe\ufdd0", `a\ufffe\ufdd0`, `a\ufffe\ufdd0`, `a\ufffe\ufdd0`},
		{"backslash stays", `C:\new`, `C:\new`, `C:\new`, `C:\new`},
		{"accents stay", "e\u0301", "e\u0301", "e\u0301", "e\u0301"},
		{
			"stacked marks", "z" + strings.Repeat("\u0300", 50) + "a",
			"z" + strings.Repeat("\u0300", MaxMarks) + "\ufffda",
			"z" + strings.Repeat("\u0300", MaxMarks) + "\ufffda",
			"z" + strings.Repeat("\u0300", MaxMarks) + "\ufffda",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, c := range []struct {
				fn        string
				got, want string
			}{
				{"Escape", Escape(tt.in), tt.line},
				{"EscapeText", EscapeText(tt.in), tt.text},
				{"EscapeNick", EscapeNick(tt.in), tt.nick},
			} {
				if c.got != c.want {
					t.Errorf("%s(%+q) = %+q, want %+q", c.fn, tt.in, c.got, c.want)
				}
			}
		})
	}
}

// checkHarmless states what the three functions promise, without using their own predicates.
func checkHarmless(t *testing.T, fn, in, out string, newline, nick bool) {
	t.Helper()
	if !utf8.ValidString(out) {
		t.Fatalf("%s(%+q) = %+q is not UTF-8", fn, in, out)
	}
	marks := 0
	for _, r := range out {
		switch {
		case r == '\n' && newline:
		case unicode.IsControl(r), r == '\u2028', r == '\u2029', unicode.Is(unicode.Bidi_Control, r):
			t.Fatalf("%s(%+q) = %+q holds %U", fn, in, out, r)
		case nick && (r == '\u200b' || r == '\ufeff' || r == '\u2060'):
			t.Fatalf("%s(%+q) = %+q holds zero width %U", fn, in, out, r)
		}
		if unicode.In(r, unicode.Mn, unicode.Me) {
			marks++
		} else {
			marks = 0
		}
		if marks > MaxMarks {
			t.Fatalf("%s(%+q) = %+q stacks %d marks", fn, in, out, marks)
		}
	}
	if nick && (out == "" || strings.Contains(out, "  ") || strings.TrimSpace(out) != out) {
		t.Fatalf("%s(%+q) = %+q has loose whitespace", fn, in, out)
	}
}

func FuzzEscape(f *testing.F) {
	for _, s := range []string{"", "a\nb", "\x1b[2J", "\u202ea\u2069", "z\u0300\u0300", "\xff\xfe", " a  b ", "👩\u200d👧", "\r\n\r"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, c := range []struct {
			fn            string
			do            func(string) string
			newline, nick bool
		}{
			{"Escape", Escape, false, false},
			{"EscapeText", EscapeText, true, false},
			{"EscapeNick", EscapeNick, false, true},
		} {
			out := c.do(s)
			checkHarmless(t, c.fn, s, out, c.newline, c.nick)
			if again := c.do(out); again != out {
				t.Fatalf("%s is not idempotent: %+q, then %+q, then %+q", c.fn, s, out, again)
			}
		}
	})
}
