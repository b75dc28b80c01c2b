package storage

import (
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// stretch is a part of a text: a word, or characters of a script that does not
// separate words.
type stretch struct {
	text []rune
	cjk  bool
}

// firstCJK is below every character of the scripts that do not separate words.
const firstCJK = 0x1100

// stretches splits a text, normalized to NFKC and lower case, into its words and
// its Chinese, Japanese and Korean stretches. Everything else separates.
func stretches(text string) (out []stretch) {
	var cur stretch
	end := func() {
		if len(cur.text) > 0 {
			out = append(out, cur)
		}
		cur = stretch{}
	}
	for _, r := range strings.ToLower(norm.NFKC.String(text)) {
		cjk := r >= firstCJK && (unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul) || r == 'ー')
		if !cjk && !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r) {
			end()
			continue
		}
		if cjk != cur.cjk {
			end()
		}
		cur.cjk = cjk
		cur.text = append(cur.text, r)
	}
	end()
	return out
}

// Terms returns the distinct search terms of a text: its words (runs of
// letters and digits, NFKC, lower case), and for Chinese, Japanese and Korean
// every character and every pair of neighbours.
func Terms(text string) []string {
	var out []string
	for _, r := range stretches(text) {
		if !r.cjk {
			out = append(out, string(r.text))
			continue
		}
		for i := range r.text {
			out = append(out, string(r.text[i:i+1]))
			if i+1 < len(r.text) {
				out = append(out, string(r.text[i:i+2]))
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// termHashes returns the distinct hashes of a text's terms, in no order. Most texts are ASCII, whose
// words can be hashed where they stand.
func termHashes(text string, hash func([]byte) uint64) []uint64 {
	var scratch [512]byte
	lower, ok := lowerASCII(scratch[:0], text)
	if !ok {
		terms := Terms(text)
		out := make([]uint64, len(terms))
		for i, t := range terms {
			out[i] = hash([]byte(t))
		}
		return out
	}
	var list [96]uint64
	out := list[:0]
	for i := 0; i < len(lower); {
		n := 0
		for i+n < len(lower) && wordByte(lower[i+n]) {
			n++
		}
		if n > 0 {
			out = append(out, hash(lower[i:i+n]))
		}
		i += n + 1
	}
	slices.Sort(out)
	return slices.Clone(slices.Compact(out))
}

// lowerASCII appends a text in lower case to b, or says that the text is not ASCII.
func lowerASCII(b []byte, text string) ([]byte, bool) {
	for i := range len(text) {
		c := text[i]
		if c >= utf8.RuneSelf {
			return nil, false
		}
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		b = append(b, c)
	}
	return b, true
}

func wordByte(c byte) bool { return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' }

// queryTerms returns the terms that a match must hold, the longest (and so
// likely the rarest) first: pairs where there are any, single characters only
// when they stand alone.
func queryTerms(query string) []string {
	var out []string
	for _, r := range stretches(query) {
		if !r.cjk || len(r.text) == 1 {
			out = append(out, string(r.text))
			continue
		}
		for i := range len(r.text) - 1 {
			out = append(out, string(r.text[i:i+2]))
		}
	}
	slices.SortFunc(out, func(a, b string) int {
		if d := len(b) - len(a); d != 0 {
			return d
		}
		return strings.Compare(a, b)
	})
	return slices.Compact(out)
}

// TextMatches tells whether a text holds every word of a query, and every
// Chinese, Japanese or Korean stretch of it unbroken. It is the check for
// Search's verify.
func TextMatches(query, text string) bool {
	have := stretches(text)
	for _, q := range stretches(query) {
		if !slices.ContainsFunc(have, func(r stretch) bool {
			if r.cjk != q.cjk {
				return false
			}
			if q.cjk {
				return strings.Contains(string(r.text), string(q.text))
			}
			return slices.Equal(r.text, q.text)
		}) {
			return false
		}
	}
	return true
}
