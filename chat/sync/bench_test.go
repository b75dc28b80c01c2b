package sync

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// benchPeer holds records that carry their own item, so that benchmarks measure the protocol and not
// the tests' hashing, the store or signatures.
type benchPeer struct {
	view View
	data map[ID][]byte
	got  int
}

func newBenchPeer(items []Item, size int) *benchPeer {
	p := &benchPeer{view: NewView(items), data: make(map[ID][]byte, len(items))}
	random := rand.NewChaCha8([32]byte{}) // sealed records do not compress
	for _, i := range items {
		r := make([]byte, size)
		_, _ = random.Read(r) // never fails
		binary.BigEndian.PutUint64(r, uint64(i.Time))
		copy(r[8:], i.ID[:])
		p.data[i.ID] = r
	}
	return p
}

func (p *benchPeer) room() Room {
	return Room{
		Topic: testTopic, Set: p.view, Cut: timeOf(maxMilli, 0), AcceptUnproven: true,
		Check: func(records []Record) {
			for i := range records {
				b := records[i].Bytes
				records[i].Item = Item{Time(binary.BigEndian.Uint64(b)), ID(b[8:40])}
			}
		},
	}
}

// pump moves a session on and returns what it has to say.
func (p *benchPeer) pump(b *testing.B, s *Session) (said []byte, over bool) {
	for {
		out, effect := s.Next()
		if len(out) > 0 {
			said = append(said, out...)
			continue
		}
		var err error
		switch e := effect.(type) {
		case nil:
			return said, false
		case Finished:
			return said, true
		case OpenRoom:
			err = s.Opened(p.room())
		case ReadRecords:
			found := make([][]byte, len(e.Items))
			for i := range e.Items {
				found[i] = p.data[e.Items[i].ID]
			}
			err = s.Read(found)
		case CommitRecords:
			p.got += len(e.Records)
			err = s.Committed(make([]Outcome, len(e.Records)))
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}

func runBench(b *testing.B, x, y *benchPeer) (bytesMoved int) {
	s := [2]*Session{
		NewInitiator(Link{"x", "y", nextNonce()}, x.room(), nil),
		NewResponder(Link{"y", "x", nextNonce()}),
	}
	peers := [2]*benchPeer{x, y}
	for side, over := 0, 0; over < 2; side = 1 - side {
		said, ended := peers[side].pump(b, s[side])
		if ended {
			over++
		}
		bytesMoved += len(said)
		for rest := said; len(rest) > 0; {
			n := s[1-side].Receive(rest)
			rest = rest[n:]
			more, _ := peers[1-side].pump(b, s[1-side])
			bytesMoved += len(more)
			for len(more) > 0 { // the other side of the same flight
				k := s[side].Receive(more)
				more = more[k:]
				back, _ := peers[side].pump(b, s[side])
				bytesMoved += len(back)
				rest = append(rest, back...)
			}
		}
	}
	return bytesMoved
}

// BenchmarkSession is the CPU of both sides together for a room of 10,000 events of 300 bytes: what rooms.md
// budgets with 1 to 3 ms. Verifying and storing records is not in it.
func BenchmarkSession(b *testing.B) {
	const total, size = 10_000, 300
	all := benchItems(total)
	split := func(keep func(i int) bool) []Item {
		var kept []Item
		for i, item := range all {
			if keep(i) {
				kept = append(kept, item)
			}
		}
		return kept
	}
	full := newBenchPeer(all, size)
	for _, c := range []struct {
		name string
		x, y *benchPeer
		want int
	}{
		{"nothing", newBenchPeer(all, size), full, 0},
		{"newest10", newBenchPeer(all[:total-10], size), full, 10},
		{"newest1000", newBenchPeer(all[:total-1000], size), full, 1000},
		{
			"partition463+537",
			newBenchPeer(split(func(i int) bool { return i < 9000 || i%1000 < 463 }), size),
			newBenchPeer(split(func(i int) bool { return i < 9000 || i%1000 >= 463 }), size), 1000,
		},
		{"all10000", newBenchPeer(nil, size), full, total},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			moved := 0
			for b.Loop() {
				c.x.got, c.y.got = 0, 0
				moved = runBench(b, c.x, c.y)
				if c.x.got+c.y.got != c.want {
					b.Fatalf("fetched %d and %d, want %d", c.x.got, c.y.got, c.want)
				}
			}
			b.ReportMetric(float64(moved), "wireB/op")
		})
	}
}

func BenchmarkFingerprint10000(b *testing.B) {
	items, h := benchItems(10_000), newHasher(Nonce{1}, Nonce{2}, fullMask)
	for b.Loop() {
		h.sum(items)
	}
}

func BenchmarkPackBatch(b *testing.B) {
	p := newBenchPeer(benchItems(MaxGet), 600)
	var records [][]byte
	for _, r := range p.data {
		records = append(records, bytes.Clone(r))
	}
	b.SetBytes(int64(MaxGet * 600))
	for b.Loop() {
		packBatch(records)
	}
}
