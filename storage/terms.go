package storage

import (
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// stretch is a part of a text: a word, or characters of a script that does not
// separate words.
type stretch struct {
	text []rune
	cjk  bool
}

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
		cjk := unicode.In(r, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Hangul) || r == 'ー'
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
