package sync

import (
	"bytes"
	"testing"
)

// puppet speaks the protocol by hand with one honest session.
type puppet struct {
	t    *testing.T
	node *node
	s    *Session
	peer Nonce // the honest side's
	said []message
}

const puppetName = PeerID("puppet")

// take gives bytes to the session and remembers what it says.
func (p *puppet) take(b []byte) {
	p.t.Helper()
	e := &endpoint{node: p.node, session: p.s}
	if err := e.take(b); err != nil {
		p.t.Fatal(err)
	}
	if err := e.work(); err != nil {
		p.t.Fatal(err)
	}
	for _, f := range e.frames {
		m, err := decodeFrame(bytes.Clone(cutLength(f)))
		if err != nil {
			p.t.Fatalf("honest session sent %x: %v", f, err)
		}
		if h, ok := m.(*hello); ok {
			p.peer = h.nonce
		}
		p.said = append(p.said, m)
	}
}

func (p *puppet) say(messages ...message) {
	p.t.Helper()
	for _, m := range messages {
		p.take(appendFrame(nil, m))
	}
}

func (p *puppet) lastSaid() message {
	if len(p.said) == 0 {
		return nil
	}
	return p.said[len(p.said)-1]
}

var puppetNonce = Nonce{1}

// againstResponder returns a puppet that has proven itself to an honest responder with records.
func againstResponder(t *testing.T, n *node) *puppet {
	t.Helper()
	p := &puppet{t: t, node: n, s: n.respond(puppetName)}
	p.say(&hello{topic: testTopic, hasTopic: true, nonce: puppetNonce, cut: maxMilli})
	proof, _ := signTopic(proofMessage(roleInitiator, testTopic, puppetName, n.name, puppetNonce, p.peer))
	p.say(&prove{proof})
	return p
}

// againstInitiator returns a puppet that has proven itself to an honest initiator.
func againstInitiator(t *testing.T, n *node, pages *Pages) *puppet {
	t.Helper()
	p := &puppet{t: t, node: n, s: n.initiate(puppetName, pages)}
	p.take(nil)
	proof, _ := signTopic(proofMessage(roleResponder, testTopic, n.name, puppetName, p.peer, puppetNonce))
	p.say(&hello{nonce: puppetNonce, cut: maxMilli, proof: proof})
	return p
}

func honestNode() *node {
	n := newNode("honest")
	n.addAll(history("h", 100, 20))
	return n
}

func shortOf(h hasher, id ID) []byte {
	sum := h.id(&id).bytes()
	return sum[:shortSize]
}

func TestRoundsAreLimited(t *testing.T) {
	p := againstResponder(t, honestNode())
	p.say(&summary{})
	for p.s.Report().Fault == nil && len(p.said) < 100 {
		p.say(&round{spans: []span{{back: 1, says: saysSum, sum: fingerprint{1, 1}}}})
	}
	if r := p.s.Report(); r.Fault.Fault != LimitExceeded || r.Rounds != MaxRounds {
		t.Fatalf("fault %v after %d rounds", r.Fault, r.Rounds)
	}
}

// The last list is due in round 7: what still differs then and is too long, or differs in round 7 itself, is left
// to a later session.
func TestRoundsThatRunOutLeaveAPartialSession(t *testing.T) {
	differs := &round{spans: []span{{back: maxMilli, says: saysSum, sum: fingerprint{1, 1}}}}
	for _, c := range []struct {
		name    string
		items   int
		partial bool
	}{
		{"short enough for a list", maxList, false},
		{"too long", maxList + 1, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := newNode("honest")
			n.addAll(history("many", c.items, 0))
			p := againstResponder(t, n)
			p.say(&summary{}, differs, differs, differs)
			if r := p.s.Report(); r.Fault != nil {
				t.Fatal(r.Fault)
			}
			listed := 0
			for _, m := range p.said {
				if m, ok := m.(*round); ok && len(m.spans) == 1 && m.spans[0].says == saysList {
					listed = len(m.spans[0].list) / shortSize
				}
			}
			if want := map[bool]int{false: c.items}[c.partial]; listed != want {
				t.Fatalf("listed %d of %d", listed, want)
			}
			if !c.partial {
				p.say(&round{})
			}
			p.say(&done{})
			if r := p.s.Report(); r.End != EndFinished || r.Partial != c.partial || (len(r.Complete) == 0) != c.partial {
				t.Fatalf("end %d, partial %v, complete %v", r.End, r.Partial, r.Complete)
			}
		})
	}
	p := againstInitiator(t, honestNode(), nil)
	p.say(differs, differs, differs, differs, &done{})
	if r := p.s.Report(); r.End != EndFinished || !r.Partial || r.Rounds != MaxRounds {
		t.Fatalf("end %d, partial %v after %d rounds, %v", r.End, r.Partial, r.Rounds, r.Fault)
	}
}

// A peer that is done before it answered leaves the windows uncompared.
func TestDoneInPlaceOfARound(t *testing.T) {
	p := againstInitiator(t, honestNode(), nil)
	p.say(&done{})
	if r := p.s.Report(); r.End != EndFinished || !r.Partial || len(r.Complete) > 0 || r.Equal {
		t.Errorf("initiator: end %d, partial %v, complete %v", r.End, r.Partial, r.Complete)
	}
	p = againstResponder(t, honestNode())
	p.say(&summary{}, &done{})
	if r := p.s.Report(); r.End != EndFinished || !r.Partial || len(r.Complete) > 0 {
		t.Errorf("responder: end %d, partial %v, complete %v", r.End, r.Partial, r.Complete)
	}
	p = againstResponder(t, honestNode())
	p.say(&done{})
	if r := p.s.Report(); r.End != EndFinished || r.Partial || len(r.Complete) > 0 {
		t.Errorf("responder that was asked nothing: end %d, partial %v, complete %v", r.End, r.Partial, r.Complete)
	}
}

func TestRoundBytesAreLimited(t *testing.T) {
	p := againstResponder(t, honestNode())
	p.say(&summary{})
	sent := 0
	for p.s.Report().Fault == nil && sent < 2*MaxReconcile {
		m := &round{claims: make([]byte, 60_000), more: true}
		sent += len(appendFrame(nil, m))
		p.say(m)
		if n := footprint(p.s); n > maxFootprint {
			t.Fatalf("session holds %d bytes", n)
		}
	}
	if r := p.s.Report(); r.Fault == nil || r.Fault.Fault != LimitExceeded || sent > MaxReconcile+MaxFrame {
		t.Fatalf("fault %v after %d bytes", r.Fault, sent)
	}
}

func TestRoundFramesAreLimited(t *testing.T) {
	p := againstResponder(t, honestNode())
	p.say(&summary{})
	frames := 0
	for p.s.Report().Fault == nil && frames < 2*MaxRoundFrames {
		p.say(&round{more: true})
		frames++
	}
	if r := p.s.Report(); r.Fault == nil || r.Fault.Fault != LimitExceeded || frames != MaxRoundFrames+1 {
		t.Fatalf("fault %v after %d frames", r.Fault, frames)
	}
}

func TestRequestsAreLimited(t *testing.T) {
	stubs := honestNode()
	clear(stubs.records) // nothing is available, so that no limit of bytes stops it
	p := againstResponder(t, stubs)
	requests := 0
	for p.s.Report().Fault == nil && requests < 2*MaxRequests {
		p.say(&page{before: Item{Time: 1<<64 - 1}, limit: 1})
		requests++
	}
	if r := p.s.Report(); r.Fault.Fault != LimitExceeded || requests != MaxRequests+1 {
		t.Fatalf("fault %v after %d requests", r.Fault, requests)
	}
}

// Requests are taken one at a time: what a session holds does not depend on how many there are.
func TestRequestsWaitForTheirTurn(t *testing.T) {
	p := againstResponder(t, honestNode())
	p.say(&summary{})
	one := appendFrame(nil, &get{[]run{{0, 1}}})
	many := bytes.Repeat(one, 10)
	if n := p.s.Receive(many); n != len(one) {
		t.Fatalf("took %d bytes with an effect to answer", n)
	}
	if n := p.s.Receive(many); n != 0 {
		t.Fatalf("took %d more bytes with an effect to answer", n)
	}
	_, effect := p.s.Next()
	if err := p.node.do(p.s, effect); err != nil {
		t.Fatal(err)
	}
	if n := p.s.Receive(many); n != 0 {
		t.Fatalf("took %d bytes with output to write", n)
	}
	if out, _ := p.s.Next(); len(out) == 0 {
		t.Fatal("no answer")
	}
	if n := p.s.Receive(many); n != len(one) {
		t.Fatalf("took %d bytes of the next request", n)
	}
}

func TestFetchedBytesAreLimitedForTheOtherSide(t *testing.T) {
	n := newNode("honest")
	n.addAll(history("big", 20, 60_000))
	p := againstResponder(t, n)
	p.say(&summary{})
	sent := 0
	for range 2 * MaxFetch / 60_000 {
		if p.s.Report().Fault != nil {
			break
		}
		p.say(&get{[]run{{0, 4}}})
		sent += 4 * 60_000
		p.said = nil
	}
	if r := p.s.Report(); r.Fault == nil || r.Fault.Fault != LimitExceeded || sent > MaxFetch+4*maxFetchSlack {
		t.Fatalf("fault %v after %d bytes", r.Fault, sent)
	}
}

func TestAnswersToNothingAreErrors(t *testing.T) {
	s := NewResponder(Link{})
	for _, err := range []error{
		s.Opened(Room{}), s.Refuse(ReasonBusy), s.Read(nil), s.Committed(nil),
	} {
		if err == nil {
			t.Error("answered what was not asked")
		}
	}
}
