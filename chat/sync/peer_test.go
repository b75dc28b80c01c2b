package sync

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// The tests' world: records carry their time and a keyed hash that stands for the topic signature.

var testTopic = Topic(sha256.Sum256([]byte("test topic")))

func seal(prefix string, b []byte) []byte {
	h := sha256.Sum256(append([]byte(prefix), b...))
	return append(b, h[:8]...)
}

// makeRecord returns a valid record: time 8, payload, keyed hash 8.
func makeRecord(t Time, payload []byte) []byte {
	return seal("record", append(binary.BigEndian.AppendUint64(nil, uint64(t)), payload...))
}

func openRecord(b []byte) (Item, error) {
	if len(b) < 16 || !bytes.Equal(seal("record", bytes.Clone(b[:len(b)-8])), b) {
		return Item{}, errors.New("bad record")
	}
	return Item{Time(binary.BigEndian.Uint64(b)), sha256.Sum256(b)}, nil
}

func checkRecords(records []Record) {
	for i := range records {
		records[i].Item, records[i].Err = openRecord(records[i].Bytes)
	}
}

func signTopic(message []byte) ([]byte, error) {
	p := sha512.Sum512(append([]byte("topic key"), message...))
	return p[:], nil
}

func topicSigned(message, proof []byte) bool {
	p := sha512.Sum512(append([]byte("topic key"), message...))
	return bytes.Equal(p[:], proof)
}

// node is one peer with its set. stubs are in the set but have no bytes in records.
type node struct {
	name    PeerID
	set     *Snapshot
	records map[ID][]byte
	mirror  bool
	refuse  map[ID]bool // what this node keeps only as stubs
	floor   Time
	cut     Time
	mask    uint64
}

var nonces uint64 // each session of the tests has nonces of its own

func nextNonce() (n Nonce) {
	nonces++
	binary.BigEndian.PutUint64(n[:], nonces)
	return n
}

func newNode(name string) *node {
	return &node{
		name: PeerID(name), set: NewSnapshot(nil), records: map[ID][]byte{}, refuse: map[ID]bool{},
		cut: timeOf(maxMilli, 0), mask: fullMask,
	}
}

func (n *node) add(record []byte) Outcome {
	item, err := openRecord(record)
	if err != nil {
		panic(err)
	}
	if !n.set.Add(item) {
		return Known
	}
	if n.refuse[item.ID] {
		return Refused
	}
	n.records[item.ID] = record
	return Accepted
}

// commit is what a store does with a batch.
func (n *node) commit(records []Record) []Outcome {
	outcomes := make([]Outcome, len(records))
	var fresh []Item
	for i, r := range records {
		switch _, have := n.records[r.Item.ID]; {
		case have || n.set.Has(r.Item):
			outcomes[i] = Known
		case n.refuse[r.Item.ID]:
			outcomes[i] = Refused
			n.set.Add(r.Item)
		default:
			n.records[r.Item.ID] = r.Bytes
			fresh = append(fresh, r.Item)
		}
	}
	n.set.AddAll(fresh)
	return outcomes
}

func (n *node) addAll(records [][]byte) {
	items := make([]Item, len(records))
	for i, r := range records {
		item, err := openRecord(r)
		if err != nil {
			panic(err)
		}
		items[i] = item
		n.records[item.ID] = r
	}
	n.set.AddAll(items)
}

func (n *node) room() Room {
	r := Room{
		Topic: testTopic, Set: n.set.View(), Floor: n.floor, Cut: n.cut,
		Proven: topicSigned, Check: checkRecords, AcceptUnproven: true, Prove: signTopic,
	}
	if n.mirror {
		r.Prove, r.AcceptUnproven = nil, false
	}
	return r
}

func (n *node) initiate(peer PeerID, pages *Pages) *Session {
	s := NewInitiator(Link{n.name, peer, nextNonce()}, n.room(), pages)
	s.shortMask = n.mask
	return s
}

func (n *node) respond(peer PeerID) *Session {
	s := NewResponder(Link{n.name, peer, nextNonce()})
	s.shortMask = n.mask
	return s
}

// do carries out one effect.
func (n *node) do(s *Session, e Effect) error {
	switch e := e.(type) {
	case OpenRoom:
		if e.Topic != testTopic {
			return s.Refuse(ReasonRefused)
		}
		return s.Opened(n.room())
	case ReadRecords:
		var found [][]byte
		size := 0
		for _, item := range e.Items {
			found = append(found, n.records[item.ID])
			if size += len(n.records[item.ID]); size >= e.Enough {
				break
			}
		}
		return s.Read(found)
	case CommitRecords:
		return s.Committed(n.commit(e.Records))
	}
	return fmt.Errorf("unexpected effect %T", e)
}

// endpoint is a session that a node drives; output waits frame by frame.
type endpoint struct {
	node    *node
	session *Session
	frames  [][]byte
	over    bool
}

// work does everything that needs no input.
func (e *endpoint) work() error {
	for !e.over {
		out, effect := e.session.Next()
		if len(out) > 0 {
			e.frames = append(e.frames, cutFrames(out)...)
			continue
		}
		if effect == nil {
			return nil
		}
		if _, ok := effect.(Finished); ok {
			e.over = true
			return nil
		}
		if err := e.node.do(e.session, effect); err != nil {
			return err
		}
	}
	return nil
}

func (e *endpoint) take(frame []byte) error {
	for len(frame) > 0 {
		n := e.session.Receive(frame)
		frame = frame[n:]
		if err := e.work(); err != nil {
			return err
		}
	}
	return nil
}

// cutFrames splits bytes at frame boundaries; what is no frame stays as one piece.
func cutFrames(b []byte) (frames [][]byte) {
	for len(b) > 0 {
		var f frameBuffer
		n, err := f.fill(b)
		if err != nil || f.whole() == nil {
			return append(frames, b)
		}
		frames = append(frames, b[:n])
		b = b[n:]
	}
	return frames
}

// cutLength returns kind and body of a whole frame.
func cutLength(frame []byte) []byte {
	_, n := protowire.ConsumeVarint(frame)
	return frame[n:]
}

// link connects two endpoints. cutAfter frames it breaks; negative means never.
type link struct {
	a, b     *endpoint
	cutAfter int
	flights  int // how often the direction changed
	tap      func(fromInitiator bool, frame []byte) [][]byte
}

// run moves frames until both are over, the link is cut, or nothing moves.
func (l *link) run() error {
	for _, e := range []*endpoint{l.a, l.b} {
		if err := e.work(); err != nil {
			return err
		}
	}
	defer l.a.session.Close()
	defer l.b.session.Close()
	from, to := l.a, l.b
	for idle := 0; idle < 2; from, to = to, from {
		frames := from.frames
		from.frames = nil
		if len(frames) == 0 {
			idle++
			continue
		}
		idle = 0
		l.flights++
		for _, f := range frames {
			deliver := [][]byte{f}
			if l.tap != nil {
				deliver = l.tap(from == l.a, f)
			}
			for _, d := range deliver {
				if l.cutAfter == 0 {
					return nil
				}
				l.cutAfter--
				if err := to.take(d); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// syncNodes runs one whole session and returns both reports.
func syncNodes(t rapidTB, a, b *node, pages *Pages) (ra, rb Report, l *link) {
	t.Helper()
	l = &link{
		a:        &endpoint{node: a, session: a.initiate(b.name, pages)},
		b:        &endpoint{node: b, session: b.respond(a.name)},
		cutAfter: -1,
	}
	if err := l.run(); err != nil {
		t.Fatal(err)
	}
	return l.a.session.Report(), l.b.session.Report(), l
}

func mustFinish(t rapidTB, reports ...Report) {
	t.Helper()
	for _, r := range reports {
		if r.End != EndFinished {
			t.Fatalf("session ended with %d, fault %v: %+v", r.End, r.Fault, r)
		}
	}
}

func mustBeEqual(t rapidTB, a, b *node) {
	t.Helper()
	da, na := a.set.Digest(0, 1<<64-1)
	db, nb := b.set.Digest(0, 1<<64-1)
	if na != nb || da != db {
		t.Fatalf("%s has %d items, %s has %d, digests equal: %v", a.name, na, b.name, nb, da == db)
	}
}

// rapidTB is what *testing.T and *rapid.T have in common and these tests need.
type rapidTB interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}
