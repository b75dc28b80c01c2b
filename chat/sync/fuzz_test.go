package sync

import (
	"bytes"
	"os"
	"testing"
)

// fuzzMessage checks that what decodes encodes to the same bytes, for one kind of frame.
func fuzzMessage(f *testing.F, k kind) {
	f.Helper()
	for _, v := range goldenFrames() {
		if v.message.kind() == k {
			f.Add(v.message.append(nil))
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		m := newMessage(k)
		if err := m.decode(body); err != nil {
			return
		}
		if again := m.append(nil); !bytes.Equal(again, body) {
			t.Errorf("%x decodes to %+v, which encodes to %x", body, m, again)
		}
	})
}

func FuzzHello(f *testing.F)   { fuzzMessage(f, kindHello) }
func FuzzProve(f *testing.F)   { fuzzMessage(f, kindProve) }
func FuzzSummary(f *testing.F) { fuzzMessage(f, kindSummary) }
func FuzzRound(f *testing.F)   { fuzzMessage(f, kindRound) }
func FuzzGet(f *testing.F)     { fuzzMessage(f, kindGet) }
func FuzzPage(f *testing.F)    { fuzzMessage(f, kindPage) }
func FuzzRecords(f *testing.F) { fuzzMessage(f, kindRecords) }
func FuzzDone(f *testing.F)    { fuzzMessage(f, kindDone) }

// FuzzBatch also decompresses: the result is never larger than announced.
func FuzzBatch(f *testing.F) {
	batch, packed := packBatch([][]byte{make([]byte, 500), nil, []byte("x")})
	f.Add(packed, len(batch), true, 3)
	f.Add(batch, len(batch), false, 3)
	f.Add(encoder().EncodeAll(make([]byte, 4<<20), nil), 100, true, 1)
	f.Fuzz(func(t *testing.T, data []byte, size int, compressed bool, answered int) {
		if size < 0 || size > MaxBatch || answered < 0 || answered > MaxGet || len(data) > MaxBatch {
			return // never passes checkHead
		}
		entries, err := unpackBatch(data, size, compressed, answered)
		if err != nil {
			return
		}
		total := 0
		for _, e := range entries {
			total += entrySize(e)
		}
		if len(entries) != answered || compressed && total != size || !compressed && total != len(data) {
			t.Errorf("%d entries of %d bytes, announced %d of %d", len(entries), total, answered, size)
		}
	})
}

// FuzzSession feeds a peer's bytes to a session of either role: it must not panic, not hold more than
// its bounds, not take what does not verify, and say something well formed itself.
func FuzzSession(f *testing.F) {
	transcripts, err := os.ReadFile("testdata/session.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range parseTranscripts(f, transcripts) {
		f.Add(byte(0), s.bytes("I"))
		f.Add(byte(1), s.bytes("R"))
		f.Add(byte(2), s.bytes("R"))
	}
	held := goldenRecords("both", 120)[:117]
	f.Fuzz(func(t *testing.T, choice byte, input []byte) {
		// Names, nonces and records are those of the transcripts, so that these run to their end.
		n, s := newNode("alice"), (*Session)(nil)
		n.addAll(held)
		switch choice % 3 {
		case 0:
			n.name = "bob"
			s = NewResponder(Link{"bob", "alice", Nonce{2}})
		case 1:
			s = NewInitiator(Link{"alice", "bob", Nonce{1}}, n.room(), nil)
		default:
			s = NewInitiator(Link{"alice", "bob", Nonce{1}}, n.room(), &Pages{Events: 300})
		}
		e := &endpoint{node: n, session: s}
		for piece := range bytes.SplitAfterSeq(input, []byte{7}) {
			if err := e.work(); err != nil {
				t.Fatal(err)
			}
			if err := e.take(piece); err != nil {
				t.Fatal(err)
			}
			if size := footprint(s); size > maxFootprint {
				t.Fatalf("session holds %d bytes", size)
			}
		}
		for _, frame := range e.frames {
			var b frameBuffer
			if _, err := b.fill(frame); err != nil || b.whole() == nil {
				t.Fatalf("session said %x: %v", frame, err)
			}
			if _, err := decodeFrame(b.whole()); err != nil {
				t.Fatalf("session said %x: %v", frame, err)
			}
		}
		for id, r := range n.records {
			if item, err := openRecord(r); err != nil || item.ID != id {
				t.Fatal("a record got in that does not verify")
			}
		}
		if r := s.Close(); r.End == EndFinished && r.Fault != nil {
			t.Fatal("finished with a fault")
		}
	})
}
