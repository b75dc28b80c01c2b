package sync

import (
	"testing"

	"pgregory.net/rapid"
)

// stubborn is a peer that tells one lie for a whole session, in place of the random ones of liar: these are the
// lies that could keep an honest side busy. react answers what the honest side said last; nil says that the peer
// goes on by itself, with push.
type stubborn struct {
	name  string
	side  string // of the honest one
	pages *Pages
	begin func(p *puppet)
	react func(p *puppet, m message, turn int)
	push  func(p *puppet, turn int)
}

// made returns a short id of nothing.
func made(i int) []byte {
	return []byte{9, 9, 9, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i), 1}
}

func madeMany(from, n int) []byte {
	b := make([]byte, 0, n*shortSize)
	for i := range n {
		b = append(b, made(from+i)...)
	}
	return b
}

// empties answers n items as unavailable.
func empties(n int) *records {
	m := &records{answered: uint64(n), size: uint64(2 * n)}
	for range n {
		m.chunk = append(m.chunk, 0x0a, 0)
	}
	return m
}

// asked counts the claims that a Get names.
func asked(g *get) (n int) {
	for _, r := range g.runs {
		n += int(r.take)
	}
	return n
}

func stubbornLies() []stubborn {
	return append(liesInReconciliation(), liesInFetching()...)
}

func liesInReconciliation() []stubborn {
	whole := []span{{back: maxMilli - testStart, says: saysSum, sum: fingerprint{1, 1}}}
	return []stubborn{
		{
			name: "every fingerprint is wrong", side: "responder",
			begin: func(p *puppet) { p.say(&summary{count: 1}) },
			react: func(p *puppet, m message, _ int) {
				if _, ok := m.(*round); ok {
					p.say(&round{spans: whole})
				}
			},
		},
		{
			name: "the count is wrong and the digest right", side: "responder",
			begin: func(p *puppet) {
				digest, _ := p.node.set.Digest(0, 1<<64-1)
				p.say(&summary{count: 1 << 40, digest: digest})
			},
			push: func(p *puppet, _ int) { p.say(&done{}) },
		},
		{
			name: "a round without end, of claims", side: "responder",
			begin: func(p *puppet) { p.say(&summary{}) },
			push:  func(p *puppet, turn int) { p.say(&round{claims: madeMany(turn*4000, 4000), more: true}) },
		},
		{
			name: "a round without end, of ranges", side: "responder",
			begin: func(p *puppet) { p.say(&summary{}) },
			push: func(p *puppet, _ int) {
				spans := make([]span, 1000)
				for i := range spans {
					spans[i] = span{back: 1, says: saysSum, sum: fingerprint{1, 1}}
				}
				p.say(&round{spans: spans, more: true})
			},
		},
		{
			name: "the same frame of a round for ever", side: "responder",
			begin: func(p *puppet) { p.say(&summary{}) },
			push:  func(p *puppet, _ int) { p.say(&round{more: true}) },
		},
	}
}

func liesInFetching() []stubborn {
	return []stubborn{
		{
			name: "claims of nothing, all unavailable", side: "initiator",
			begin: func(p *puppet) {
				p.say(&round{claims: madeMany(0, 8000), more: true}, &round{claims: madeMany(8000, 8000)})
			},
			react: func(p *puppet, m message, _ int) {
				if g, ok := m.(*get); ok {
					p.say(empties(asked(g)))
				}
			},
		},
		{
			name: "claims of nothing, answered one at a time", side: "initiator",
			begin: func(p *puppet) { p.say(&round{claims: madeMany(0, 8000)}) },
			react: func(p *puppet, m message, _ int) {
				if _, ok := m.(*get); ok {
					p.say(empties(1))
				}
			},
		},
		{
			name: "one record under many claims", side: "initiator",
			begin: func(p *puppet) {
				ids := make([]ID, 4000)
				for i := range ids {
					ids[i] = otherItem.ID
				}
				p.claim(ids...)
			},
			react: func(p *puppet, m message, _ int) {
				if g, ok := m.(*get); ok {
					entries := make([][]byte, asked(g))
					for i := range entries {
						entries[i] = other
					}
					p.say(batchOf(entries...))
				}
			},
		},
		{
			name: "pages without end, of nothing", side: "initiator", pages: &Pages{Events: 100},
			begin: func(*puppet) {},
			react: func(p *puppet, m message, _ int) {
				if g, ok := m.(*page); ok {
					m := empties(1)
					m.next = Item{Time: g.before.Time - 1<<16}
					p.say(m)
				}
			},
		},
		{
			name: "the same page again and again", side: "initiator", pages: &Pages{Events: 100},
			begin: func(*puppet) {},
			react: func(p *puppet, m message, _ int) {
				if _, ok := m.(*page); ok {
					m := batchOf(other)
					m.next = otherItem
					p.say(m)
				}
			},
		},
		{
			name: "requests without end", side: "responder",
			begin: func(p *puppet) { p.say(&summary{}) },
			push:  func(p *puppet, _ int) { p.say(&get{[]run{{0, 1}}}) },
		},
		{
			name: "pages asked for without end", side: "responder",
			begin: func(*puppet) {},
			push:  func(p *puppet, _ int) { p.say(&page{before: Item{Time: 1<<64 - 1}, limit: MaxPage}) },
		},
		{
			name: "a batch without end", side: "initiator",
			begin: func(p *puppet) {
				p.claim(otherItem.ID)
				p.say(&records{answered: 1, size: MaxBatch, chunk: make([]byte, 1)})
			},
			push: func(p *puppet, _ int) { p.say(&records{chunk: make([]byte, 1000)}) },
		},
	}
}

// TestStubbornLiarsAreBounded lets a peer tell one lie for as long as it likes. The session ends by itself within
// the limits, nothing false is kept, and the honest side still comes to terms with an honest third.
func TestStubbornLiarsAreBounded(t *testing.T) {
	for _, c := range stubbornLies() {
		t.Run(c.name, func(t *testing.T) {
			n := honestNode()
			n.floor = timeOf(testStart, 0)
			var p *puppet
			if c.side == "responder" {
				p = againstResponder(t, n)
			} else {
				p = againstInitiator(t, n, c.pages)
			}
			heard := 0
			if c.begin(p); c.side == "responder" {
				heard = 1 // its hello
			}
			for turn := 0; !over(p.s); turn++ {
				if footprint(p.s) > maxFootprint {
					t.Fatalf("the session holds %d bytes", footprint(p.s))
				}
				if turn > MaxReconcile/4 || p.s.Report().Received.Total() > 4*MaxReconcile { // the smallest frame has four bytes
					r := p.s.Report()
					t.Fatalf("no end in sight: %+v", r)
				}
				switch {
				case c.react != nil && heard < len(p.said):
					m := p.said[heard]
					heard++
					c.react(p, m, turn)
				case c.push != nil:
					c.push(p, turn)
				default:
					p.s.Close() // nobody says anything: the deadline
				}
			}
			r := p.s.Report()
			if got := r.Received.Reconcile; got > MaxReconcile+MaxFrame {
				t.Errorf("%d bytes of reconciliation were taken", got)
			}
			if got := r.Received.Records; got > MaxFetch+maxFetchSlack+MaxFrame {
				t.Errorf("%d bytes of records were taken", got)
			}
			if got := r.Sent.Total(); got > MaxReconcile+MaxFetch+maxFetchSlack {
				t.Errorf("%d bytes were given out", got)
			}
			if n.set.Len() < 100 || n.set.Len() > 101 { // 101: the one record that verifies
				t.Errorf("%d items, 100 before", n.set.Len())
			}
			third := newNode("third")
			third.addAll(history("third", 30, 20))
			ra, rb, _ := syncNodes(t, n, third, nil)
			mustFinish(t, ra, rb)
			mustBeEqual(t, n, third)
			t.Logf("end %d (%v), %d rounds, received %d, sent %d", r.End, r.Fault, r.Rounds, r.Received.Total(), r.Sent.Total())
		})
	}
}

func over(s *Session) bool {
	out, effect := s.Next()
	_, done := effect.(Finished)
	return len(out) == 0 && done
}

// TestStubbornLiarsAmongHonest mixes sessions with stubborn liars into those of honest nodes with holes: they
// converge as if the liars were not there.
func TestStubbornLiarsAmongHonest(t *testing.T) {
	lies := stubbornLies()
	rapid.Check(t, func(rt *rapid.T) {
		nodes := drawNodes(rt, rapid.IntRange(2, 5).Draw(rt, "nodes"))
		for _, n := range nodes {
			n.mirror = false // the puppet proves itself to members
		}
		for range rapid.IntRange(1, 5).Draw(rt, "liars") {
			c := rapid.SampledFrom(lies).Draw(rt, "lie")
			n := rapid.SampledFrom(nodes).Draw(rt, "victim")
			var p *puppet
			if c.side == "responder" {
				p = againstResponder(t, n)
			} else {
				p = againstInitiator(t, n, c.pages)
			}
			c.begin(p)
			turns := rapid.IntRange(0, 50).Draw(rt, "turns")
			for turn, heard := 0, 0; turn < turns && !over(p.s); turn++ {
				switch {
				case c.react != nil && heard < len(p.said):
					c.react(p, p.said[heard], turn)
					heard++
				case c.push != nil:
					c.push(p, turn)
				}
			}
			p.s.Close()
		}
		convergePairwise(rt, nodes)
	})
}
