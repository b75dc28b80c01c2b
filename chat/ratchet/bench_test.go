//go:build unix

package ratchet

import (
	"crypto/rand"
	"syscall"
	"testing"
	"time"
)

// measured runs f until the benchmark is done, and reports the processor time per run beside the
// elapsed time: machines that do other things too tell little by the clock.
func measured(b *testing.B, f func()) {
	b.ReportAllocs()
	before := processorTime(b)
	for b.Loop() {
		f()
	}
	b.ReportMetric(float64(processorTime(b)-before)/float64(b.N), "cpu-ns/op")
}

func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

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
	measured(b, func() { exchange(b, x, y) })
}

// The sides alternate, so that every message brings a new ratchet key: the dearest conversation.
func BenchmarkMessagePingPong(b *testing.B) {
	x, y := talkingFast(b)
	measured(b, func() {
		exchange(b, x, y)
		x, y = y, x
	})
}

// Every message acknowledged at once: a stream of them with its receipts.
func BenchmarkMessageAndReceipt(b *testing.B) {
	x, y := talkingFast(b)
	ids := make([]byte, 40)
	measured(b, func() {
		exchange(b, x, y)
		sealed, _, err := y.SealReceipt(y.random, ids, nil)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := x.Open(x.secrets, sealed, nil); err != nil {
			b.Fatal(err)
		}
	})
}

// As BenchmarkMessage, with both states written out after each message.
func BenchmarkMessageStored(b *testing.B) {
	x, y := talkingFast(b)
	measured(b, func() {
		exchange(b, x, y)
		x.Marshal()
		y.Marshal()
	})
}

// A session from nothing: both sides of the handshake and the first message.
func BenchmarkHandshake(b *testing.B) {
	x, y := pair(b, 91)
	bundle := y.bundleWithOneTime()
	measured(b, func() {
		x.Set, y.Set = NewSet(x.self, x.Set.peer), NewSet(y.self, y.Set.peer)
		if _, err := x.Initiate(rand.Reader, x.secrets, bundle); err != nil {
			b.Fatal(err)
		}
		exchange(b, x, y)
	})
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
	measured(b, func() {
		envelope, err := Wrap(y.party.Device, private.PublicKey(), sealed)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := Unwrap(y.party.Device, private, envelope); err != nil {
			b.Fatal(err)
		}
	})
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
			measured(b, func() {
				if _, err := UnmarshalSet(y.self, y.Set.peer, stored); err != nil {
					b.Fatal(err)
				}
			})
			b.ReportMetric(float64(len(stored)), "bytes")
		})
	}
}

// The anchor: one X25519 agreement of the standard library.
func BenchmarkX25519(b *testing.B) {
	x, y := newDevice(92), newDevice(93)
	measured(b, func() {
		if _, err := agree(x.secrets.Identity, y.party.Identity); err != nil {
			b.Fatal(err)
		}
	})
}
