package sync

import (
	"errors"
	"testing"
)

func TestWhoMayTakePart(t *testing.T) {
	type side struct {
		mirror bool // has no topic key
		admits bool // accepts a peer without proof
	}
	for _, c := range []struct {
		name                 string
		initiator, responder side
		initiatorEnd, end    End
	}{
		{"two members", side{}, side{}, EndFinished, EndFinished},
		{"member calls its mirror", side{admits: true}, side{mirror: true}, EndFinished, EndFinished},
		{"mirror calls a member that chose it", side{mirror: true}, side{admits: true}, EndFinished, EndFinished},
		{"member calls a stranger's mirror", side{}, side{mirror: true}, EndRefused, EndRefused},
		{"mirror calls a member that did not choose it", side{mirror: true}, side{}, EndRefused, EndRefused},
		{"two mirrors told to", side{mirror: true, admits: true}, side{mirror: true, admits: true}, EndFinished, EndFinished},
		{"two mirrors not told to", side{mirror: true}, side{mirror: true}, EndRefused, EndRefused},
	} {
		for _, pages := range []*Pages{nil, {Events: 5}} {
			t.Run(c.name, func(t *testing.T) {
				a, b := newNode("a"), newNode("b")
				b.addAll(history("b", 5, 20))
				room := func(n *node, s side) Room {
					r := n.room()
					r.AcceptUnproven = s.admits
					if s.mirror {
						r.Prove = nil
					}
					return r
				}
				k := &link{
					a:        &endpoint{node: a, session: NewInitiator(Link{a.name, b.name, nextNonce()}, room(a, c.initiator), pages)},
					b:        &endpoint{node: b, session: NewResponder(Link{b.name, a.name, nextNonce()})},
					cutAfter: -1,
				}
				k.tap = func(fromInitiator bool, frame []byte) [][]byte {
					if !fromInitiator || k.b.session.phase != phaseHello {
						return [][]byte{frame}
					}
					k.b.session.Receive(frame)
					if _, effect := k.b.session.Next(); effect != (OpenRoom{testTopic}) {
						t.Fatalf("asks for %v", effect)
					}
					if err := k.b.session.Opened(room(b, c.responder)); err != nil {
						t.Fatal(err)
					}
					if err := k.b.work(); err != nil {
						t.Fatal(err)
					}
					return nil
				}
				if err := k.run(); err != nil {
					t.Fatal(err)
				}
				ra, rb := k.a.session.Report(), k.b.session.Report()
				if ra.End != c.initiatorEnd || rb.End != c.end {
					t.Fatalf("ends %d and %d, faults %v and %v", ra.End, rb.End, ra.Fault, rb.Fault)
				}
				if got := a.set.Len() == 5; got != (c.end == EndFinished) {
					t.Errorf("initiator has %d records", a.set.Len())
				}
				if c.end == EndRefused && rb.Sent.Reconcile+rb.Sent.Records > 2+2 { // Done with a reason
					t.Errorf("said something to a stranger: %+v", rb.Sent)
				}
			})
		}
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		name   string
		reason Reason
		end    End
	}{
		{"unknown topic", ReasonRefused, EndRefused},
		{"busy", ReasonBusy, EndBusy},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := honestNode()
			a, b := n.initiate("b", nil), NewResponder(Link{"b", "honest", nextNonce()})
			out, _ := a.Next()
			b.Receive(out)
			if _, effect := b.Next(); effect != (OpenRoom{testTopic}) {
				t.Fatalf("effect %v", effect)
			}
			if err := b.Refuse(c.reason); err != nil {
				t.Fatal(err)
			}
			out, _ = b.Next()
			a.Receive(out)
			if _, ok := mustNext(t, a).(Finished); !ok || a.Report().End != c.end || b.Report().End != c.end {
				t.Errorf("ends %d and %d", a.Report().End, b.Report().End)
			}
			if n := a.Receive([]byte("more")); n != 4 {
				t.Error("an ended session does not swallow the rest")
			}
		})
	}
}

func mustNext(t *testing.T, s *Session) Effect {
	t.Helper()
	out, effect := s.Next()
	if len(out) > 0 {
		t.Fatalf("unexpected output %x", out)
	}
	return effect
}

func TestASignerThatFailsEndsTheSession(t *testing.T) {
	fail := func([]byte) ([]byte, error) { return nil, errors.New("no key") }
	a, b := newNode("a"), newNode("b")
	room := a.room()
	room.Prove = fail
	k := &link{
		a:        &endpoint{node: a, session: NewInitiator(Link{"a", "b", nextNonce()}, room, nil)},
		b:        &endpoint{node: b, session: b.respond("a")},
		cutAfter: -1,
	}
	if err := k.run(); err != nil {
		t.Fatal(err)
	}
	if r := k.a.session.Report(); r.End != EndRefused {
		t.Errorf("initiator ended with %d", r.End)
	}
	s := NewResponder(Link{"b", "a", nextNonce()})
	hello := a.initiate("b", nil)
	out, _ := hello.Next()
	s.Receive(out)
	if err := s.Opened(room); err != nil {
		t.Fatal(err)
	}
	if s.Report().End != EndRefused {
		t.Errorf("responder ended with %d", s.Report().End)
	}
}

func TestTheWindowIsWhatBothWant(t *testing.T) {
	a, b := newNode("a"), newNode("b")
	all := history("x", 100, 20)
	b.addAll(all)
	item := func(i int) Item { it, _ := openRecord(all[i]); return it }
	a.floor, b.floor = item(20).Time, 0
	a.cut, b.cut = timeOf(maxMilli, 0), item(90).Time
	ra, rb, _ := syncNodes(t, a, b, nil)
	mustFinish(t, ra, rb)
	if ra.Floor != rb.Floor || ra.Cut != rb.Cut || ra.Floor.Milli() != a.floor.Milli() || ra.Cut.Milli() != b.cut.Milli() {
		t.Errorf("windows %v..%v and %v..%v", ra.Floor, ra.Cut, rb.Floor, rb.Cut)
	}
	if a.set.Len() != 70 || a.set.Has(item(19)) || !a.set.Has(item(20)) || !a.set.Has(item(89)) || a.set.Has(item(90)) {
		t.Errorf("fetched %d", a.set.Len())
	}
	a.cut = 0 // an empty window is equal to any other
	ra, rb, _ = syncNodes(t, a, b, nil)
	mustFinish(t, ra, rb)
	if !ra.Equal || !rb.Equal {
		t.Error("empty windows differ")
	}
}
