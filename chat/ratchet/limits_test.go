package ratchet

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"
)

// A mailbox hands out newest first, or the stream overtakes it: everything within the limits opens.
func TestThousandNewestFirst(t *testing.T) {
	a, b := talking(t, 20)
	var all [][]byte
	for i := range 1000 {
		all = append(all, a.says(fmt.Sprint(i)))
	}
	for i := range slices.Backward(all) {
		b.hears(all[i], fmt.Sprint(i))
		if i%100 == 0 {
			b.reload()
		}
	}
	if n := len(b.sealing().kept); n != 0 {
		t.Errorf("%d keys are kept for messages that all came", n)
	}
}

func TestSkipLimit(t *testing.T) {
	for _, v := range []struct {
		name string
		skip int
		want error
	}{{"at the limit", MaxSkip, nil}, {"beyond it", MaxSkip + 1, ErrTooFarAhead}} {
		t.Run("in the same chain, "+v.name, func(t *testing.T) {
			a, b := talking(t, 21)
			b.hears(a.says("chain begun"), "chain begun")
			skipped(t, a, b, v.skip, v.want)
		})
		t.Run("in a new chain, "+v.name, func(t *testing.T) {
			a, b := talking(t, 22)
			skipped(t, a, b, v.skip, v.want)
		})
		t.Run("in the first chain, "+v.name, func(t *testing.T) {
			a, b := pair(t, 23)
			a.start(b)
			skipped(t, a, b, v.skip, v.want)
		})
		t.Run("in the chain before, "+v.name, func(t *testing.T) {
			a, b := talking(t, 24)
			b.hears(a.says("chain begun"), "chain begun")
			lost := make([][]byte, v.skip)
			for i := range lost {
				lost[i] = a.says("lost")
			}
			a.hears(b.says("turn"), "turn")
			b.says("b sends, so that it can receive a new chain")
			next := a.says("next chain")
			if v.want != nil {
				b.refuses(next, v.want)
				b.hears(lost[0], "lost") // one earlier message brings it within reach
			}
			b.hears(next, "next chain")
			b.hears(lost[len(lost)-1], "lost")
		})
	}
}

// skipped sends so many messages, and opens one more without them.
func skipped(t *testing.T, a, b *side, n int, want error) {
	t.Helper()
	lost := make([][]byte, n)
	for i := range lost {
		lost[i] = a.says("lost")
	}
	last := a.says("last")
	if want != nil {
		b.refuses(last, want)
		b.hears(lost[0], "lost") // one earlier message brings it within reach
		lost = lost[1:]
	}
	b.hears(last, "last")
	for _, sealed := range lost {
		b.hears(sealed, "lost")
	}
}

func TestOldestKeptKeysAreEvicted(t *testing.T) {
	a, b := talking(t, 25)
	const rounds = 5
	var lost [][]byte
	for range rounds {
		for range MaxSkip {
			lost = append(lost, a.says("lost"))
		}
		b.hears(a.says("kept"), "kept")
		a.hears(b.says("turn"), "turn")
	}
	if n := len(b.sealing().kept); n != MaxKept {
		t.Fatalf("%d keys are kept, want %d", n, MaxKept)
	}
	b.reload()
	gone := len(lost) - MaxKept
	b.refuses(lost[0], ErrUndecryptable)
	b.refuses(lost[gone-1], ErrUndecryptable)
	for _, sealed := range lost[gone:] {
		b.hears(sealed, "lost")
	}
}

// Many skipped messages in many chains: each opens late, each once.
func TestEverythingOpensHoweverLate(t *testing.T) {
	a, b := talking(t, 26)
	type late struct {
		to     *side
		sealed []byte
		text   string
	}
	var all []late
	for i := range 300 {
		from, to := a, b
		if i%2 == 1 {
			from, to = b, a
		}
		for j := range 6 {
			text := fmt.Sprint(i, " ", j)
			sealed := from.says(text)
			if j == 3 {
				to.hears(sealed, text)
			} else {
				all = append(all, late{to, sealed, text})
			}
		}
	}
	for _, l := range slices.Backward(all) {
		l.to.hears(l.sealed, l.text)
		l.to.recent = nil
		l.to.refuses(l.sealed, ErrUndecryptable)
	}
}

func TestSizes(t *testing.T) {
	a, b := talking(t, 27)
	a.hears(b.says("x"), "x")
	const overhead = outerSize + headerSize + contentPrefix + 16
	if overhead != 165 {
		t.Errorf("overhead is %d bytes; the specification says 165", overhead)
	}
	sizes := []int{256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 60416}
	for i, size := range sizes {
		for _, v := range []struct{ content, want int }{{size - overhead, size}, {size - overhead + 1, append(sizes, 0)[i+1]}} {
			if v.want == 0 {
				break
			}
			content := make([]byte, min(v.content, MaxContent))
			sealed, _, err := a.Seal(rand.Reader, content, nil)
			if err != nil || len(sealed) != v.want {
				t.Errorf("%d bytes of content: %d bytes, %v; want %d", len(content), len(sealed), err, v.want)
			}
		}
	}
	// The longest content fits beside the largest init part.
	for i := range byte(maxLost) {
		a.lost = append(a.lost, SessionID{100 + i})
	}
	for len(a.sessions) < MaxSessions {
		a.sessions = append(a.sessions, &session{transcript: key{byte(len(a.sessions))}})
	}
	if _, err := a.Initiate(rand.Reader, a.secrets, b.bundleWithOneTime()); err != nil {
		t.Fatal(err)
	}
	sealed, _, err := a.Seal(rand.Reader, make([]byte, MaxContent), nil)
	if err != nil || len(sealed) != MaxSealed {
		t.Fatalf("%d bytes, %v", len(sealed), err)
	}
	if opened, err := b.Open(b.secrets, sealed, nil); err != nil || len(opened.Content) != MaxContent {
		t.Errorf("opened %d bytes, %v", len(opened.Content), err)
	}
	if MaxContent != 58977 {
		t.Errorf("MaxContent is %d; the specification says 58,977", MaxContent)
	}
}

func TestPaddingIsChecked(t *testing.T) {
	a, b := talking(t, 28)
	for name, spoil := range map[string]func(padded []byte){
		"length past the end": func(p []byte) { p[0] = 0xFF },
		"nonzero padding":     func(p []byte) { p[len(p)-1] = 1 },
	} {
		sealed := resealed(t, a, func([]byte) {}, spoil)
		if _, err := b.Open(b.secrets, sealed, nil); !errors.Is(err, ErrUndecryptable) {
			t.Errorf("%s: %v", name, err)
		}
	}
	b.hears(resealed(t, a, func([]byte) {}, func([]byte) {}), "content") // the kit itself is right
}

// resealed seals a message whose header or padded content is altered before encryption, as a wrong
// or malicious implementation could.
func resealed(t *testing.T, s *side, header, content func([]byte)) []byte {
	t.Helper()
	chosen := s.sealing()
	if chosen.own == nil {
		if err := chosen.beginSending(s.random); err != nil {
			t.Fatal(err)
		}
	}
	message, _ := advance(chosen.sendChain)
	sealed := s.says("content")
	m, err := parseSealed(sealed)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := chacha20poly1305.NewX(message[:])
	if err != nil {
		t.Fatal(err)
	}
	aad := associatedData(chosen.transcript, nil, m.prefix)
	padded, err := aead.Open(nil, m.nonce[:], m.ciphertext, aad)
	if err != nil {
		t.Fatal(err)
	}
	content(padded)
	prefix := bytes.Clone(m.prefix)
	header(prefix)
	return aead.Seal(prefix, m.nonce[:], padded, associatedData(chosen.transcript, nil, prefix))
}

func TestLastNumber(t *testing.T) {
	a, b := talking(t, 29)
	b.hears(a.says("x"), "x")
	a.sealing().ns = math.MaxUint32 - 1
	b.refuses(a.says("far ahead"), ErrTooFarAhead)
	before := a.Marshal()
	if _, _, err := a.Seal(rand.Reader, nil, nil); !errors.Is(err, ErrNoSession) {
		t.Errorf("sealed number 2^32-1: %v", err)
	}
	if !bytes.Equal(a.Marshal(), before) {
		t.Error("the state changed")
	}
}

func encryptFor(t *testing.T, message key, nonce, padded []byte) []byte {
	t.Helper()
	aead, err := chacha20poly1305.NewX(message[:])
	if err != nil {
		t.Fatal(err)
	}
	return aead.Seal(nil, nonce, padded, nil)
}
