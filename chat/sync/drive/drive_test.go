package drive_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/starling-chat/starling/chat/sync"
	"github.com/starling-chat/starling/chat/sync/drive"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// wire is one end of an unbuffered stream: a side that writes without reading waits for ever.
type wire struct{ net.Conn }

func (w wire) Reset() error { return w.Close() }

// shelf keeps words, each under the hash that is its id.
type shelf struct {
	set   *sync.Snapshot
	words map[sync.ID][]byte
	fail  error // what reading a record fails with
}

func itemOf(word []byte) sync.Item {
	return sync.Item{Time: sync.DayStart(20_000), ID: sha256.Sum256(word)}
}

func newShelf(n int, prefix string) *shelf {
	s := &shelf{set: sync.NewSnapshot(nil), words: make(map[sync.ID][]byte)}
	for i := range n {
		word := fmt.Appendf(nil, "%s %d %x", prefix, i, sha256.Sum256([]byte{byte(i), byte(i >> 8)}))
		s.put(sync.Record{Item: itemOf(word), Bytes: word})
	}
	return s
}

func (s *shelf) put(r sync.Record) {
	s.set.Add(r.Item)
	s.words[r.Item.ID] = r.Bytes
}

func (s *shelf) room() sync.Room {
	return sync.Room{
		Topic: sync.Topic{1}, Set: s.set.View(), Cut: sync.DayStart(20_001),
		Prove:  func([]byte) ([]byte, error) { return make([]byte, 64), nil },
		Proven: func(_, proof []byte) bool { return len(proof) == 64 },
		Check: func(records []sync.Record) {
			for i := range records {
				records[i].Item = itemOf(records[i].Bytes)
			}
		},
	}
}

// run drives one side over a stream.
func (s *shelf) run(ctx context.Context, st drive.Stream, session *sync.Session) (sync.Report, error) {
	return drive.Run(ctx, st, session, func(_ context.Context, effect sync.Effect) error {
		switch e := effect.(type) {
		case sync.OpenRoom:
			return session.Opened(s.room())
		case sync.ReadRecords:
			if s.fail != nil {
				return s.fail
			}
			found := make([][]byte, len(e.Items))
			for i, item := range e.Items {
				found[i] = s.words[item.ID]
			}
			return session.Read(found)
		case sync.CommitRecords:
			for _, r := range e.Records {
				s.put(r)
			}
			return session.Committed(make([]sync.Outcome, len(e.Records)))
		default:
			return fmt.Errorf("unknown effect %T", effect)
		}
	})
}

func initiator(s *shelf) *sync.Session {
	return sync.NewInitiator(sync.Link{Self: "ada", Peer: "ben", Nonce: sync.Nonce{1}}, s.room(), nil)
}

func responder() *sync.Session {
	return sync.NewResponder(sync.Link{Self: "ben", Peer: "ada", Nonce: sync.Nonce{2}})
}

// ended is what one side returned.
type ended struct {
	report sync.Report
	err    error
}

// both runs a session between two shelves.
func both(ctx context.Context, ada, ben *shelf) (a, b ended) {
	x, y := net.Pipe()
	other := make(chan ended, 1)
	go func() { // ends with the stream; waited for below
		r, err := ben.run(ctx, wire{y}, responder())
		other <- ended{r, err}
	}()
	r, err := ada.run(ctx, wire{x}, initiator(ada))
	return ended{r, err}, <-other
}

func TestBothSidesGetWhatTheyLack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// Both have much to send at once: neither may stop reading while it writes.
		ada, ben := newShelf(3000, "ada"), newShelf(2000, "ben")
		a, b := both(t.Context(), ada, ben)
		if a.report.End != sync.EndFinished || b.report.End != sync.EndFinished {
			t.Fatalf("ended with %v (%v) and %v (%v)", a.report.End, a.err, b.report.End, b.err)
		}
		if ada.set.Len() != 5000 || ben.set.Len() != 5000 {
			t.Fatalf("%d and %d words, want 5000 each", ada.set.Len(), ben.set.Len())
		}
	})
}

func TestAFailedEffectEndsTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ada, ben := newShelf(10, "ada"), newShelf(10, "ben")
		ben.fail = errors.New("disk is gone")
		a, b := both(t.Context(), ada, ben)
		if !errors.Is(b.err, ben.fail) || a.err == nil || a.report.End != sync.EndCut {
			t.Fatalf("ben ended with %v, ada with %v and end %v", b.err, a.err, a.report.End)
		}
	})
}

func TestAPeerThatSaysNothingIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, y := net.Pipe()
		defer y.Close()
		began := time.Now()
		ada := newShelf(1, "ada")
		r, err := ada.run(t.Context(), wire{x}, initiator(ada))
		if took := time.Since(began); !errors.Is(err, os.ErrDeadlineExceeded) || r.End != sync.EndCut || took > time.Minute {
			t.Fatalf("after %v: %v, end %v", took, err, r.End)
		}
	})
}

func TestTheContextEndsTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x, y := net.Pipe()
		defer y.Close()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		ada := newShelf(1, "ada")
		if _, err := ada.run(ctx, wire{x}, initiator(ada)); err == nil || time.Since(began) != time.Second {
			t.Fatalf("after %v: %v", time.Since(began), err)
		}
	})
}
