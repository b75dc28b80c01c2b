package sync

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// liar changes what one side of a link says: lies that keep to the form, and garbage that does not.
type liar struct {
	t    *rapid.T
	old  [][]byte // frames of earlier sessions, to be replayed
	lies int
}

// say returns what the liar sends in place of a frame.
func (l *liar) say(frame []byte) [][]byte {
	if len(l.old) < 64 {
		l.old = append(l.old, slices.Clone(frame))
	}
	if rapid.IntRange(0, 3).Draw(l.t, "honest for once") > 0 {
		return [][]byte{frame}
	}
	l.lies++
	switch rapid.SampledFrom([]string{"drop", "replay", "garbage", "flip", "double", "lie", "lie", "lie"}).Draw(l.t, "kind of lie") {
	case "drop":
		return nil
	case "replay":
		return [][]byte{rapid.SampledFrom(l.old).Draw(l.t, "old frame"), frame}
	case "garbage":
		return [][]byte{rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(l.t, "garbage")}
	case "flip":
		return [][]byte{l.flip(frame)}
	case "double":
		return [][]byte{frame, frame}
	}
	return [][]byte{l.lie(frame)}
}

func (l *liar) flip(frame []byte) []byte {
	b := slices.Clone(frame)
	b[rapid.IntRange(0, len(b)-1).Draw(l.t, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(l.t, "bit")
	return b
}

func (l *liar) ids(n int) []byte {
	b := make([]byte, 0, n*shortSize)
	for i := range n * shortSize {
		b = append(b, byte(i*7+l.lies))
	}
	return b
}

// lie keeps the form of a frame and changes what it says.
func (l *liar) lie(frame []byte) []byte {
	m, err := decodeFrame(cutLength(frame))
	if err != nil {
		return l.flip(frame)
	}
	draw := func(limit int) int { return rapid.IntRange(0, limit).Draw(l.t, "amount") }
	switch m := m.(type) {
	case *hello:
		m.floor, m.cut = uint64(draw(1<<40)), uint64(draw(1<<40))
	case *prove:
		m.proof = l.ids(proofSize / shortSize)
	case *summary:
		m.count = 1<<64 - 1
		m.digest[0]++
	case *round:
		l.lieInRound(m, draw)
	case *get:
		m.runs = []run{{uint64(draw(300)), uint64(1 + draw(255))}}
	case *page:
		m.before.Time, m.limit = Time(draw(1<<60)), uint64(1+draw(MaxPage-1))
	case *records:
		switch draw(4) {
		case 0:
			m.size, m.answered = MaxBatch, MaxGet
		case 1:
			m.packed = uint64(draw(MaxBatch))
		case 2:
			m.end, m.next = true, Item{}
		case 3: // everything is "unavailable"
			m.size, m.packed, m.chunk = 2*m.answered, 0, nil
			for range m.answered {
				m.chunk = append(m.chunk, 0x0a, 0)
			}
		case 4:
			m.chunk = nil
		}
	case *done:
		m.reason = Reason(draw(int(ReasonViolation)))
	}
	return appendFrame(nil, m)
}

func (l *liar) lieInRound(m *round, draw func(int) int) {
	for i := range m.spans {
		switch s := &m.spans[i]; s.says {
		case saysSum:
			s.sum.lo += uint64(draw(1))
		case saysList:
			s.list = append(slices.Clone(s.list), l.ids(draw(40))...)
		case saysNothing:
		}
	}
	switch draw(5) {
	case 0:
		m.claims = l.ids(1 + draw(4000))
	case 1:
		m.more = !m.more
	case 2:
		m.spans = append(m.spans, span{back: 1, says: saysList})
	case 3:
		m.spans = []span{{back: uint64(draw(1 << 40)), says: saysSum}}
	}
}

// footprint adds up what a session holds of its own.
func footprint(s *Session) int {
	n := cap(s.out) + cap(s.body) + cap(s.in.buf) + cap(s.fetch.data) + 4*cap(s.rec.claimed) + 16*cap(s.rec.wants)
	w := &s.rec.out
	n += cap(w.spans) + cap(w.claims) + 4*cap(w.listed) + 4*cap(w.missing)
	for _, f := range w.frames {
		n += cap(f)
	}
	for _, p := range s.fetch.pending {
		n += 16 * cap(p.wants)
	}
	return n + 40*cap(s.serve.question.items)
}

const maxFootprint = 8 << 20

func TestLiarsNeitherStopNorBreakHonestNodes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		honest := drawNodes(t, rapid.IntRange(2, 4).Draw(t, "honest nodes"))
		evil := newNode("evil")
		evil.addAll(history("evil", rapid.IntRange(0, 60).Draw(t, "its records"), 20))
		l := &liar{t: t}
		for range rapid.IntRange(1, 6).Draw(t, "sessions with the liar") {
			victim := rapid.SampledFrom(honest).Draw(t, "victim")
			before := victim.set.Len()
			evilBegins := rapid.Bool().Draw(t, "liar begins")
			meetLiar(t, l, victim, evil, evilBegins)
			if victim.set.Len() < before {
				t.Fatal("a liar made a node lose something")
			}
			for id, r := range victim.records {
				if item, err := openRecord(r); err != nil || item.ID != id {
					t.Fatal("a record got in that does not verify")
				}
			}
		}
		convergePairwise(t, honest)
	})
}

func meetLiar(t *rapid.T, l *liar, victim, evil *node, evilBegins bool) {
	a, b := victim, evil
	if evilBegins {
		a, b = evil, victim
	}
	var pages *Pages
	if rapid.IntRange(0, 4).Draw(t, "with pages") == 0 {
		pages = &Pages{Events: rapid.IntRange(1, 50).Draw(t, "events")}
	}
	k := &link{
		a: &endpoint{node: a, session: a.initiate(b.name, pages)}, b: &endpoint{node: b, session: b.respond(a.name)},
		cutAfter: 400,
	}
	victimEnd := k.a
	if evilBegins {
		victimEnd = k.b
	}
	k.tap = func(fromInitiator bool, frame []byte) [][]byte {
		if n := footprint(victimEnd.session); n > maxFootprint {
			t.Fatalf("session holds %d bytes", n)
		}
		if fromInitiator != evilBegins {
			return [][]byte{frame}
		}
		return l.say(frame)
	}
	if err := k.run(); err != nil {
		t.Fatal(err)
	}
	if r := victimEnd.session.Report(); r.End == EndViolation && l.lies == 0 {
		t.Fatalf("blamed without a lie: %v", r.Fault)
	}
}

// Fabricated ids never come; an honest side neither waits for ever nor takes them for its own fault.
func TestClaimsThatAreNeverServedAreStrikes(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer func(frame []byte, k kind) [][]byte
		strike bool
	}{
		{"stalls", func(f []byte, k kind) [][]byte {
			if k == kindRecords {
				return nil
			}
			return [][]byte{f}
		}, true},
		{"serves", func(f []byte, _ kind) [][]byte { return [][]byte{f} }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := newNode("a"), newNode("b")
			b.addAll(history("b", 40, 20))
			k := &link{
				a: &endpoint{node: a, session: a.initiate("b", nil)}, b: &endpoint{node: b, session: b.respond("a")},
				cutAfter: -1,
			}
			k.tap = func(fromInitiator bool, frame []byte) [][]byte {
				if fromInitiator {
					return [][]byte{frame}
				}
				return c.answer(frame, kind(cutLength(frame)[0]))
			}
			if err := k.run(); err != nil {
				t.Fatal(err)
			}
			r := k.a.session.Report()
			if r.Strike() != c.strike || c.strike != (r.Unserved == 40) {
				t.Fatalf("strike %v, unserved %d, end %d", r.Strike(), r.Unserved, r.End)
			}
		})
	}
}
