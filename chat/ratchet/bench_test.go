package ratchet

import (
	"crypto/rand"
	"testing"
)

// chatLine is the size the product's targets are stated for.
var chatLine = make([]byte, 300)

// talkingFast is talking with the system's randomness, as in use.
func talkingFast(b *testing.B) (x, y *side) {
	x, y = talking(b, 90)
	x.random, y.random = rand.Reader, rand.Reader
	return x, y
}

func exchange(b *testing.B, from, to *side) {
	sealed, _, err := from.Seal(from.random, chatLine, nil)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := to.Open(to.secrets, sealed, nil); err != nil {
		b.Fatal(err)
	}
}

// One side talks: what a backlog, a paste or a bot costs per message, both ends together.
func BenchmarkMessage(b *testing.B) {
	x, y := talkingFast(b)
	b.ReportAllocs()
	for b.Loop() {
		exchange(b, x, y)
	}
}

// The sides alternate, so that every message brings a new ratchet key: the dearest conversation.
func BenchmarkMessagePingPong(b *testing.B) {
	x, y := talkingFast(b)
	b.ReportAllocs()
	for b.Loop() {
		exchange(b, x, y)
		x, y = y, x
	}
}

// As BenchmarkMessage, with both states written out after each message.
func BenchmarkMessageStored(b *testing.B) {
	x, y := talkingFast(b)
	for b.Loop() {
		exchange(b, x, y)
		x.Marshal()
		y.Marshal()
	}
}

// A session from nothing: both sides of the handshake and the first message.
func BenchmarkHandshake(b *testing.B) {
	x, y := pair(b, 91)
	bundle := y.bundleWithOneTime()
	b.ReportAllocs()
	for b.Loop() {
		x.Set, y.Set = NewSet(x.self, x.Set.peer), NewSet(y.self, y.Set.peer)
		if _, err := x.Initiate(rand.Reader, x.secrets, bundle); err != nil {
			b.Fatal(err)
		}
		exchange(b, x, y)
	}
}

func BenchmarkEnvelope(b *testing.B) {
	x, y := talkingFast(b)
	private, err := newKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	sealed, _, err := x.Seal(rand.Reader, chatLine, nil)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		envelope, err := Wrap(y.party.Device, private.PublicKey(), sealed)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := Unwrap(y.party.Device, private, envelope); err != nil {
			b.Fatal(err)
		}
	}
}

// Reading a stored state back, with a session in order and with a thousand keys kept.
func BenchmarkUnmarshal(b *testing.B) {
	for _, v := range []struct {
		name string
		kept int
	}{{"in order", 0}, {"1024 kept", MaxSkip}} {
		b.Run(v.name, func(b *testing.B) {
			x, y := talkingFast(b)
			for range v.kept {
				if _, _, err := x.Seal(rand.Reader, nil, nil); err != nil {
					b.Fatal(err)
				}
			}
			exchange(b, x, y)
			exchange(b, y, x)
			stored := y.Marshal()
			for b.Loop() {
				if _, err := UnmarshalSet(y.self, y.Set.peer, stored); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(stored)), "bytes")
		})
	}
}
