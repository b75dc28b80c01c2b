package sync

import (
	"bytes"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// lieCase is one way to break the protocol, and how the honest side calls it.
type lieCase struct {
	name  string
	side  string // which side the honest one is; unproven: the puppet has shown no proof yet
	pages *Pages
	lie   func(p *puppet)
	fault Fault
}

var (
	other        = makeRecord(timeOf(testStart, 7), []byte("other"))
	otherItem, _ = openRecord(other)
	early        = makeRecord(timeOf(testStart-1, 0), []byte("early"))
	earlyItem, _ = openRecord(early)
)

// claim makes the puppet claim ids to an honest initiator, which asks for them.
func (p *puppet) claim(ids ...ID) {
	h := newHasher(p.peer, puppetNonce, fullMask)
	var shorts []byte
	for _, id := range ids {
		shorts = append(shorts, shortOf(h, id)...)
	}
	p.say(&round{claims: shorts})
}

func batchOf(entries ...[]byte) *records {
	b, _ := packBatch(entries)
	return &records{answered: uint64(len(entries)), size: uint64(len(b)), chunk: b}
}

func liesInFrames() []lieCase {
	return []lieCase{
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
	}
}

func liesInProofs() []lieCase {
	return []lieCase{
		{"proof of a responder", "unproven", nil, func(p *puppet) {
			proof, _ := signTopic(proofMessage(roleResponder, testTopic, puppetName, p.node.name, puppetNonce, p.peer))
			p.say(&prove{proof})
		}, BadProof},
		{"range below the floor", "responder", nil, func(p *puppet) {
			p.say(&summary{}, &round{spans: []span{{back: maxMilli - testStart + 1}}})
		}, BadRange},
		{"proof of an initiator", "unproven responder", nil, func(p *puppet) {
			proof, _ := signTopic(proofMessage(roleInitiator, testTopic, p.node.name, puppetName, p.peer, puppetNonce))
			p.say(&hello{nonce: puppetNonce, cut: maxMilli, proof: proof})
		}, BadProof},
		{"topic in a responder's hello", "unproven responder", nil, func(p *puppet) {
			p.say(&hello{topic: testTopic, hasTopic: true, nonce: puppetNonce, cut: maxMilli})
		}, Malformed},
		{"proof for another peer", "unproven", nil, func(p *puppet) {
			proof, _ := signTopic(proofMessage(roleInitiator, testTopic, puppetName, "somebody", puppetNonce, p.peer))
			p.say(&prove{proof})
		}, BadProof},
		{"proof of another session", "unproven", nil, func(p *puppet) {
			proof, _ := signTopic(proofMessage(roleInitiator, testTopic, puppetName, p.node.name, puppetNonce, Nonce{9}))
			p.say(&prove{proof})
		}, BadProof},
	}
}

func liesInRecords() []lieCase {
	return []lieCase{
		{"page of an initiator", "initiator", nil, func(p *puppet) { p.say(&page{limit: 1}) }, OutOfTurn},
		{"invalid record", "initiator", nil, func(p *puppet) {
			p.claim(otherItem.ID)
			bad := bytes.Clone(other)
			bad[10] ^= 1
			p.say(batchOf(bad))
		}, InvalidRecord},
		{"another record", "initiator", nil, func(p *puppet) { p.claim(ID{1}); p.say(batchOf(other)) }, Unclaimed},
		{"more than asked", "initiator", nil, func(p *puppet) { p.claim(otherItem.ID); p.say(batchOf(other, other)) }, Malformed},
		{"nothing", "initiator", nil, func(p *puppet) { p.claim(otherItem.ID); p.say(&records{}) }, Malformed},
		{"page fields in a get", "initiator", nil, func(p *puppet) {
			p.claim(otherItem.ID)
			m := batchOf(other)
			m.end = true
			p.say(m)
		}, Malformed},
		{"a bomb", "initiator", nil, func(p *puppet) {
			p.claim(otherItem.ID)
			bomb := encoder().EncodeAll(make([]byte, MaxBatch+1), nil)
			p.say(&records{answered: 1, size: MaxBatch, packed: uint64(len(bomb)), chunk: bomb})
		}, Malformed},
		{"announced too small", "initiator", nil, func(p *puppet) {
			p.claim(otherItem.ID)
			b, packed := packBatch([][]byte{make([]byte, 1000)})
			p.say(&records{answered: 1, size: uint64(len(b) - 1), packed: uint64(len(packed)), chunk: packed})
		}, Malformed},
		{"announced too big", "initiator", nil, func(p *puppet) {
			p.claim(otherItem.ID)
			b, packed := packBatch([][]byte{make([]byte, 1000)})
			p.say(&records{answered: 1, size: uint64(len(b) + 1), packed: uint64(len(packed)), chunk: packed})
		}, Malformed},
		{"chunk too many", "initiator", nil, func(p *puppet) {
			p.claim(otherItem.ID)
			p.say(&records{answered: 1, size: 100, chunk: make([]byte, 60)}, &records{chunk: make([]byte, 60)})
		}, Malformed},
		{"empty chunk", "initiator", nil, func(p *puppet) {
			p.claim(otherItem.ID)
			p.say(&records{answered: 1, size: 100, chunk: make([]byte, 60)}, &records{})
		}, Malformed},
		{"packed and not smaller", "initiator", nil, func(p *puppet) {
			p.claim(otherItem.ID)
			m := batchOf(other)
			m.chunk = encoder().EncodeAll(m.chunk, nil)
			m.packed = uint64(len(m.chunk))
			p.say(m)
		}, Malformed},
		{"a batch in the chunks of another", "initiator", nil, func(p *puppet) {
			p.claim(otherItem.ID, otherItem.ID)
			m := batchOf(other, other)
			m.size /= 2
			p.say(m)
		}, Malformed},
		{"one entry announced, two sent", "initiator", nil, func(p *puppet) {
			p.claim(otherItem.ID)
			m := batchOf(other, other)
			m.answered = 1
			p.say(m)
		}, Malformed},
		{"two entries announced, one sent", "initiator", nil, func(p *puppet) {
			p.claim(otherItem.ID, otherItem.ID)
			m := batchOf(other)
			m.answered = 2
			p.say(m)
		}, Malformed},
		{"record outside the window", "initiator", nil, func(p *puppet) {
			p.claim(earlyItem.ID)
			p.say(batchOf(early))
		}, Unclaimed},
	}
}

func liesInPages() []lieCase {
	pages := &Pages{Events: 10}
	return []lieCase{
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
	}
}

func TestEveryFaultIsSeen(t *testing.T) {
	for _, c := range slices.Concat(liesInFrames(), liesInProofs(), liesInRecords(), liesInPages()) {
		t.Run(c.name, func(t *testing.T) {
			n := honestNode()
			n.floor = timeOf(testStart, 0)
			var p *puppet
			switch c.side {
			case "unproven responder":
				p = &puppet{t: t, node: n, s: n.initiate(puppetName, nil)}
				p.take(nil)
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
