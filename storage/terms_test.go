package storage

import (
	"slices"
	"testing"
)

// TestTermHashes holds the short way for ASCII against the terms of the specification.
func TestTermHashes(t *testing.T) {
	s := &Store{seal: newSealer(testKey)}
	for _, text := range []string{
		"", " ", "a", "Hello, World! hello", "ABC-def_ghi 42", "a.b.c", "trailing ", "\x00nul\x7f", "x1y2 Z",
		"naïve café", "日本語 text", "한국어", "ﬁne ligature", "İstanbul", "mixed 漢字 and ASCII ascii",
	} {
		var want []uint64
		for _, term := range Terms(text) {
			want = append(want, s.termHash(term))
		}
		got := termHashes(text, s.hashTerm)
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("%q: %d hashes, want %d", text, len(got), len(want))
		}
	}
}

func BenchmarkTermHashes(b *testing.B) {
	s := &Store{seal: newSealer(testKey)}
	text := millionish(300)
	b.ReportAllocs()
	for b.Loop() {
		termHashes(text, s.hashTerm)
	}
}

// millionish returns a text of words, so many bytes long.
func millionish(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = "the quick brown fox jumps "[i%26]
	}
	return string(b)
}
