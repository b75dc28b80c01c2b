package wire

import (
	"crypto/ed25519"
	"strings"
	"testing"
)

// Benchmarks use a message of 300 bytes. BenchmarkStdVerify is the anchor: the
// standard library's verification of one signature.

func benchSealed(b *testing.B) (*RoomKeys, *Event, *Sealed) {
	b.Helper()
	keys := testRoomKeys(b)
	e := testEvent(b, keys, &MessageBody{Text: strings.Repeat("x", 300)}, func(h *Header) {
		h.DeviceSeq, h.Previous = 2, EventID{1}
		h.Parents = []EventID{{1}, {2}}
	})
	s, err := keys.Seal(e)
	must(b, err)
	b.ReportAllocs()
	return keys, e, s
}

func BenchmarkStdVerify(b *testing.B) {
	key := testKey("signer")
	m := make([]byte, 600)
	sig := ed25519.Sign(key, m)
	public := key.Public().(ed25519.PublicKey)
	for b.Loop() {
		if !ed25519.Verify(public, m, sig) {
			b.Fatal()
		}
	}
}

func BenchmarkNewEvent(b *testing.B) {
	_, e, _ := benchSealed(b)
	content := e.Content()
	for b.Loop() {
		if _, err := NewEvent(e.Header, content, testKeyLaptop, random("s")); err != nil {
			b.Fatal(err)
		}
	}
}

var testKeyLaptop = testKey("ada/laptop")

func BenchmarkSeal(b *testing.B) {
	keys, e, _ := benchSealed(b)
	for b.Loop() {
		if _, err := keys.Seal(e); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPeekSealedID(b *testing.B) {
	keys, _, s := benchSealed(b)
	for b.Loop() {
		if _, err := PeekSealedID(keys.Topic, s.Bytes()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheckSealed(b *testing.B) {
	b.Run("cold", func(b *testing.B) {
		keys, _, s := benchSealed(b)
		for b.Loop() {
			if _, err := CheckSealed(keys.Topic, s.Bytes()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("cached", func(b *testing.B) {
		keys, _, s := benchSealed(b)
		v := NewVerifier(DefaultVerifierLimits())
		for b.Loop() {
			if _, err := v.CheckSealed(keys.Topic, s.Bytes()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("batch16", func(b *testing.B) {
		keys, _, s := benchSealed(b)
		v := NewVerifier(DefaultVerifierLimits())
		raws := make([][]byte, 16)
		for i := range raws {
			raws[i] = s.Bytes()
		}
		n := 0
		for b.Loop() {
			if _, errs := v.CheckSealedBatch(keys.Topic, raws); errs[0] != nil {
				b.Fatal(errs[0])
			}
			n += len(raws)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/event")
	})
}

func BenchmarkOpen(b *testing.B) {
	keys, _, s := benchSealed(b)
	for b.Loop() {
		if _, err := keys.Open(s); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerifyEvent(b *testing.B) {
	b.Run("cold", func(b *testing.B) {
		_, e, _ := benchSealed(b)
		for b.Loop() {
			if err := e.Verify(); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("cached", func(b *testing.B) {
		_, e, _ := benchSealed(b)
		v := NewVerifier(DefaultVerifierLimits())
		for b.Loop() {
			if err := v.VerifyEvent(e); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("batch16", func(b *testing.B) {
		_, e, _ := benchSealed(b)
		v := NewVerifier(DefaultVerifierLimits())
		events := make([]*Event, 16)
		for i := range events {
			events[i] = e
		}
		n := 0
		for b.Loop() {
			if errs := v.VerifyEvents(events); errs[0] != nil {
				b.Fatal(errs[0])
			}
			n += len(events)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/event")
	})
}

func BenchmarkParseEvent(b *testing.B) {
	_, e, _ := benchSealed(b)
	for b.Loop() {
		if _, err := ParseEvent(e.Bytes()); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDMContent(b *testing.B) {
	c := testContents(b)[1]
	b.ReportAllocs()
	for b.Loop() {
		raw, err := c.Encode()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := ParseDMContent(raw); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPublicRoomSecret(b *testing.B) {
	for b.Loop() {
		if _, err := PublicRoomSecret("main", "lobby", ""); err != nil {
			b.Fatal(err)
		}
	}
}
