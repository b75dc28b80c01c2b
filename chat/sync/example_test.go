package sync_test

import (
	"crypto/sha256"
	"fmt"

	"github.com/starling-chat/starling/chat/sync"
)

// shelf is a tiny store: the "records" are words, all said at the same moment.
type shelf struct {
	set   *sync.Snapshot
	words map[sync.ID][]byte
}

func newShelf(words ...string) *shelf {
	s := &shelf{sync.NewSnapshot(nil), map[sync.ID][]byte{}}
	for _, w := range words {
		s.put(sync.Record{Bytes: []byte(w), Item: itemOf([]byte(w))})
	}
	return s
}

func itemOf(word []byte) sync.Item {
	return sync.Item{Time: sync.DayStart(20_000), ID: sha256.Sum256(word)}
}

func (s *shelf) put(r sync.Record) { s.set.Add(r.Item); s.words[r.Item.ID] = r.Bytes }

func (s *shelf) room() sync.Room {
	return sync.Room{
		Topic:  sync.Topic{1},
		Set:    s.set.View(),
		Cut:    sync.DayStart(20_001),
		Prove:  func([]byte) ([]byte, error) { return make([]byte, 64), nil }, // in truth: sign with the topic key
		Proven: func(_, proof []byte) bool { return len(proof) == 64 },
		Check: func(records []sync.Record) { // in truth: wire.CheckSealed
			for i := range records {
				records[i].Item = itemOf(records[i].Bytes)
			}
		},
	}
}

// step does what a session asks for until it needs bytes; send takes what it wants to write.
func (s *shelf) step(session *sync.Session, send func([]byte)) (over bool, err error) {
	for err == nil {
		out, effect := session.Next()
		if len(out) > 0 {
			send(out)
			continue
		}
		switch e := effect.(type) {
		case nil:
			return false, nil
		case sync.Finished:
			return true, nil
		case sync.OpenRoom:
			err = session.Opened(s.room())
		case sync.ReadRecords:
			found := make([][]byte, len(e.Items))
			for i, item := range e.Items {
				found[i] = s.words[item.ID]
			}
			err = session.Read(found)
		case sync.CommitRecords:
			for _, r := range e.Records {
				s.put(r)
			}
			err = session.Committed(make([]sync.Outcome, len(e.Records)))
		}
	}
	return false, err
}

func Example() {
	ada, ben := newShelf("hello", "how are you", "fine"), newShelf("hello", "bye")
	a := sync.NewInitiator(sync.Link{Self: "ada", Peer: "ben", Nonce: sync.Nonce{1}}, ada.room(), nil)
	b := sync.NewResponder(sync.Link{Self: "ben", Peer: "ada", Nonce: sync.Nonce{2}})

	var toA, toB []byte // two ends of a stream
	for aOver, bOver := false, false; !aOver || !bOver; {
		var err error
		toA = toA[a.Receive(toA):]
		if aOver, err = ada.step(a, func(p []byte) { toB = append(toB, p...) }); err != nil {
			fmt.Println(err)
			return
		}
		toB = toB[b.Receive(toB):]
		if bOver, err = ben.step(b, func(p []byte) { toA = append(toA, p...) }); err != nil {
			fmt.Println(err)
			return
		}
	}
	fmt.Println("ada got", a.Report().Accepted, "and has", ada.set.Len())
	fmt.Println("ben got", b.Report().Accepted, "and has", ben.set.Len())
	// Output:
	// ada got 1 and has 4
	// ben got 2 and has 4
}
