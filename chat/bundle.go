package chat

import (
	"context"
	"errors"
	"fmt"
	"io"

	roomsync "github.com/starling-chat/starling/chat/sync"
	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// Imported says what became of a bundle.
type Imported struct {
	Records int // events in it
	New     int // taken in
	Known   int // here already
	Refused int // not to be kept here: of blocked authors, or older than what is kept
	Foreign int // of rooms that are not joined here
	Invalid int // that prove nothing
	// Rooms are the conversations that got something.
	Rooms []string
}

// Export writes a room's events, as they are stored, as a bundle: sealed, so that only members can read it.
// It returns how many. The room need not be joined any more.
func (s *Service) Export(ctx context.Context, t Target, w io.Writer) (uint64, error) {
	r, err := s.knownRoom(t)
	if err != nil {
		return 0, err
	}
	out := wire.NewBundleWriter(w)
	for _, e := range r.epochs() {
		if err := out.Section(e.keys); err != nil {
			return 0, fmt.Errorf("writing a bundle: %w", err)
		}
		for rec, err := range s.store.Scan(ctx, r.stream, storage.Range{}) {
			if err != nil {
				return 0, fmt.Errorf("exporting a room: %w", err)
			}
			if rec.Flags&storage.FlagStub != 0 {
				continue
			}
			if topic, err := r.topicOf(ctx, rec.ID); err != nil || topic != e.keys.Topic {
				if err != nil {
					return 0, fmt.Errorf("exporting a room: %w", err)
				}
				continue
			}
			if err := out.Record(rec.Value); err != nil {
				return 0, fmt.Errorf("writing a bundle: %w", err)
			}
		}
	}
	n, err := out.End()
	if err != nil {
		return n, fmt.Errorf("writing a bundle: %w", err)
	}
	return n, nil
}

// Import takes in a bundle: every event of a joined room that verifies as if it had come by gossip. It may be
// repeated. Of a bundle that is cut off or damaged what is good is taken in, and the error says so. What comes
// is history and no news: it counts as read.
func (s *Service) Import(ctx context.Context, r io.Reader) (Imported, error) {
	var sum Imported
	in, err := wire.NewBundleReader(r)
	if err != nil {
		return sum, fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	rooms := make(map[*room]bool)
	var batch []bundled
	size := 0
	flush := func() error {
		err := s.takeBundled(ctx, in, batch, &sum, rooms)
		batch, size = nil, 0
		return err
	}
	for {
		topic, raw, nerr := in.Next()
		if nerr == nil && (len(batch) > 0 && batch[0].topic != topic || len(batch) >= batchEvents || size >= batchBytes) {
			err = flush()
		}
		if nerr != nil {
			err = flush()
			if err == nil && !errors.Is(nerr, io.EOF) {
				err = fmt.Errorf("%w: %w", ErrBadRequest, nerr)
			}
		}
		if err != nil || nerr != nil {
			break
		}
		sum.Records++
		batch = append(batch, bundled{topic, raw})
		size += len(raw)
	}
	for r := range rooms {
		c := r.conversation()
		sum.Rooms = append(sum.Rooms, c.Target)
		s.events.publish(Event{Type: EventConversation, Conversation: &c})
	}
	if err != nil {
		return sum, fmt.Errorf("importing a bundle: %w", err)
	}
	return sum, nil
}

// bundled is one event of a bundle.
type bundled struct {
	topic wire.TopicKey
	raw   []byte
}

// takeBundled takes in events of one topic.
func (s *Service) takeBundled(ctx context.Context, in *wire.BundleReader, batch []bundled, sum *Imported, rooms map[*room]bool) error {
	if len(batch) == 0 {
		return nil
	}
	topic := batch[0].topic
	r := s.roomByTopic(topic)
	if r == nil {
		sum.Foreign += len(batch)
		return nil
	}
	raws := make([][]byte, len(batch))
	for i := range batch {
		raws[i] = batch[i].raw
	}
	r.mu.RLock()
	kept := r.state.Kept
	r.mu.RUnlock()
	sealed, errs := s.verifier.CheckSealedBatch(topic, raws)
	checked := make(map[roomsync.ID]*wire.Sealed, len(batch))
	var records []roomsync.Record
	for i := range batch {
		switch {
		case errs[i] != nil || sealed[i].Ephemeral || !in.Ordered(sealed[i]):
			sum.Invalid++
		case uint64(sealed[i].HLC) < kept:
			sum.Refused++
		default:
			item := roomsync.Item{Time: roomsync.Time(sealed[i].HLC), ID: roomsync.ID(sealed[i].ID)}
			checked[item.ID] = sealed[i]
			records = append(records, roomsync.Record{Item: item, Bytes: raws[i]})
		}
	}
	if len(records) == 0 {
		return nil
	}
	return r.do(ctx, func() error {
		outcomes, err := r.takeSynced(ctx, records, checked, true)
		for _, o := range outcomes {
			switch o {
			case roomsync.Accepted:
				sum.New++
				rooms[r] = true
			case roomsync.Known:
				sum.Known++
			default:
				sum.Refused++
			}
		}
		return err
	})
}
