package sync

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
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

func TestEveryFaultIsSeen(t *testing.T) {
	other := makeRecord(timeOf(testStart, 7), []byte("other"))
	otherItem, _ := openRecord(other)
	claim := func(p *puppet, id ID) { // claims id to an honest initiator, which asks for it
		p.say(&round{claims: shortOf(newHasher(p.peer, puppetNonce, fullMask), id)})
	}
	batchOf := func(entries ...[]byte) *records {
		b, _ := packBatch(entries)
		return &records{answered: uint64(len(entries)), size: uint64(len(b)), chunk: b}
	}
	pages := &Pages{Events: 10}
	for _, c := range []struct {
		name  string
		side  string // which side the honest one is
		pages *Pages
		lie   func(p *puppet)
		fault Fault
	}{
		{"length over the limit", "responder", nil, func(p *puppet) { p.take(protowire.AppendVarint(nil, MaxFrame+1)) }, Malformed},
		{"length of 4 bytes", "responder", nil, func(p *puppet) { p.take([]byte{0xff, 0xff, 0xff, 0xff}) }, Malformed},
		{"length not in its shortest form", "responder", nil, func(p *puppet) { p.take([]byte{0x81, 0x00}) }, Malformed},
		{"second hello", "responder", nil, func(p *puppet) { p.say(&hello{topic: testTopic, hasTopic: true}) }, OutOfTurn},
		{"second proof", "responder", nil, func(p *puppet) { p.say(&prove{make([]byte, proofSize)}) }, OutOfTurn},
		{"two summaries", "responder", nil, func(p *puppet) { p.say(&summary{}, &summary{}) }, OutOfTurn},
		{"page after summary", "responder", nil, func(p *puppet) { p.say(&summary{}, &page{limit: 1}) }, OutOfTurn},
		{"summary after page", "responder", nil, func(p *puppet) { p.say(&page{limit: 1}, &summary{}) }, OutOfTurn},
		{"round before summary", "responder", nil, func(p *puppet) { p.say(&round{}) }, OutOfTurn},
		{"request after done", "responder", nil, func(p *puppet) { p.say(&summary{}, &round{claims: make([]byte, 8)}, &done{}, &get{[]run{{0, 1}}}) }, OutOfTurn},
		{"done twice", "responder", nil, func(p *puppet) { p.say(&summary{}, &round{claims: make([]byte, 8)}, &done{}, &done{}) }, OutOfTurn},
		{"get of nothing claimed", "responder", nil, func(p *puppet) { p.say(&get{[]run{{0, 1}}}) }, Unclaimed},
		{"get far beyond", "responder", nil, func(p *puppet) { p.say(&summary{}, &get{[]run{{1 << 63, 1}, {1 << 63, 1}}}) }, Unclaimed},
		{"get one beyond", "responder", nil, func(p *puppet) { p.say(&summary{}, &get{[]run{{31, 2}}}) }, Unclaimed},
		{"range above the cut", "responder", nil, func(p *puppet) {
			p.say(&summary{}, &round{spans: []span{{counter: 5}}})
		}, BadRange},
		{"range before time", "responder", nil, func(p *puppet) {
			p.say(&summary{}, &round{spans: []span{{back: maxMilli, says: saysList}, {back: 1}}})
		}, BadRange},
		{"empty range", "responder", nil, func(p *puppet) {
			p.say(&summary{}, &round{spans: []span{{back: 1}, {}}})
		}, BadRange},
		{"records not asked for", "responder", nil, func(p *puppet) { p.say(batchOf(other)) }, OutOfTurn},
		{"proof of a responder", "unproven", nil, func(p *puppet) {
			proof, _ := signTopic(proofMessage(roleResponder, testTopic, puppetName, p.node.name, puppetNonce, p.peer))
			p.say(&prove{proof})
		}, BadProof},
		{"proof for another peer", "unproven", nil, func(p *puppet) {
			proof, _ := signTopic(proofMessage(roleInitiator, testTopic, puppetName, "somebody", puppetNonce, p.peer))
			p.say(&prove{proof})
		}, BadProof},
		{"proof of another session", "unproven", nil, func(p *puppet) {
			proof, _ := signTopic(proofMessage(roleInitiator, testTopic, puppetName, p.node.name, puppetNonce, Nonce{9}))
			p.say(&prove{proof})
		}, BadProof},
		{"page of an initiator", "initiator", nil, func(p *puppet) { p.say(&page{limit: 1}) }, OutOfTurn},
		{"invalid record", "initiator", nil, func(p *puppet) {
			claim(p, otherItem.ID)
			bad := bytes.Clone(other)
			bad[10] ^= 1
			p.say(batchOf(bad))
		}, InvalidRecord},
		{"another record", "initiator", nil, func(p *puppet) { claim(p, ID{1}); p.say(batchOf(other)) }, Unclaimed},
		{"more than asked", "initiator", nil, func(p *puppet) { claim(p, otherItem.ID); p.say(batchOf(other, other)) }, Malformed},
		{"nothing", "initiator", nil, func(p *puppet) { claim(p, otherItem.ID); p.say(&records{}) }, Malformed},
		{"page fields in a get", "initiator", nil, func(p *puppet) {
			claim(p, otherItem.ID)
			m := batchOf(other)
			m.end = true
			p.say(m)
		}, Malformed},
		{"a bomb", "initiator", nil, func(p *puppet) {
			claim(p, otherItem.ID)
			bomb := encoder().EncodeAll(make([]byte, MaxBatch+1), nil)
			p.say(&records{answered: 1, size: MaxBatch, packed: uint64(len(bomb)), chunk: bomb})
		}, Malformed},
		{"announced too small", "initiator", nil, func(p *puppet) {
			claim(p, otherItem.ID)
			b, packed := packBatch([][]byte{make([]byte, 1000)})
			p.say(&records{answered: 1, size: uint64(len(b) - 1), packed: uint64(len(packed)), chunk: packed})
		}, Malformed},
		{"announced too big", "initiator", nil, func(p *puppet) {
			claim(p, otherItem.ID)
			b, packed := packBatch([][]byte{make([]byte, 1000)})
			p.say(&records{answered: 1, size: uint64(len(b) + 1), packed: uint64(len(packed)), chunk: packed})
		}, Malformed},
		{"chunk too many", "initiator", nil, func(p *puppet) {
			claim(p, otherItem.ID)
			p.say(&records{answered: 1, size: 100, chunk: make([]byte, 60)}, &records{chunk: make([]byte, 60)})
		}, Malformed},
		{"empty chunk", "initiator", nil, func(p *puppet) {
			claim(p, otherItem.ID)
			p.say(&records{answered: 1, size: 100, chunk: make([]byte, 60)}, &records{})
		}, Malformed},
		{"packed and not smaller", "initiator", nil, func(p *puppet) {
			claim(p, otherItem.ID)
			p.say(&records{answered: 1, size: 100, packed: 100, chunk: make([]byte, 100)})
		}, Malformed},
		{"page upside down", "initiator", pages, func(p *puppet) {
			all := history("u", 2, 10)
			m := batchOf(all[0], all[1])
			m.end = true
			p.say(m)
		}, Unclaimed},
		{"page that does not descend", "initiator", pages, func(p *puppet) {
			m := batchOf(other)
			m.next = Item{Time: 1<<64 - 1}
			p.say(m)
		}, Malformed},
		{"page without next or end", "initiator", pages, func(p *puppet) { p.say(batchOf(other)) }, Malformed},
		{"page with next above its records", "initiator", pages, func(p *puppet) {
			m := batchOf(other)
			m.next = Item{Time: otherItem.Time + 1}
			p.say(m)
		}, Unclaimed},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := honestNode()
			var p *puppet
			switch c.side {
			case "responder":
				p = againstResponder(t, n)
			case "initiator":
				p = againstInitiator(t, n, c.pages)
			case "unproven":
				p = &puppet{t: t, node: n, s: n.respond(puppetName)}
				p.say(&hello{topic: testTopic, hasTopic: true, nonce: puppetNonce, cut: maxMilli})
			}
			if r := p.s.Report(); r.Fault != nil {
				t.Fatalf("blamed before the lie: %v", r.Fault)
			}
			c.lie(p)
			r := p.s.Report()
			if r.End != EndViolation || r.Fault == nil || r.Fault.Fault != c.fault {
				t.Fatalf("end %d, fault %v; want %v", r.End, r.Fault, c.fault)
			}
			if d, ok := p.lastSaid().(*done); !ok || d.reason != ReasonViolation {
				t.Errorf("last said %#v", p.lastSaid())
			}
			if r.Accepted != 0 || n.set.Len() != 100 {
				t.Error("something of the lie was kept")
			}
		})
	}
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

func TestUnansweredRequestsAreLimited(t *testing.T) {
	p := againstResponder(t, honestNode())
	p.say(&summary{})
	three := appendFrame(appendFrame(appendFrame(nil, &get{[]run{{0, 1}}}), &get{[]run{{0, 1}}}), &get{[]run{{0, 1}}})
	for len(three) > 0 { // the effect of the first one is never answered
		n := p.s.Receive(three)
		if n == 0 {
			break
		}
		three = three[n:]
	}
	if _, effect := p.s.Next(); effect == nil || len(three) == 0 {
		t.Fatal("the session went on reading with an effect to answer")
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
