package chat

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// receipt says that somebody has messages of ours, or has read them.
type receipt struct {
	g     *dialog
	ids   []wire.MsgID
	state State
	path  Path
}

// settlement is what receipts change.
type settlement struct {
	rows    map[MessageID]outStateRow
	order   []MessageID
	dialogs []*dialog
	runs    map[*dialog]outRuns
}

// settle adds to a batch what receipts change. What comes before the end of the transaction is as if they
// had not come yet; settled follows it.
func (d *dialogs) settle(ctx context.Context, b *storage.Batch, list []receipt) *settlement {
	s := &settlement{rows: make(map[MessageID]outStateRow), runs: make(map[*dialog]outRuns)}
	dirty := make(map[*dialog]map[uint64]bool)
	for _, r := range list {
		for _, id := range r.ids {
			mid := directID(r.g.conversation, id)
			seq, ok := d.advances(ctx, s, r.g, mid, r.state)
			if !ok {
				continue
			}
			if _, again := s.rows[mid]; !again {
				s.order = append(s.order, mid)
				b.Release(outboxQueue, storage.ID(mid))
			}
			s.rows[mid] = outStateRow{State: r.state, Path: r.path}
			if dirty[r.g] == nil {
				s.dialogs = append(s.dialogs, r.g)
				dirty[r.g], s.runs[r.g] = make(map[uint64]bool), slices.Clone(r.g.runs)
			}
			s.runs[r.g] = s.runs[r.g].set(seq, r.state, r.path, dirty[r.g])
		}
	}
	for _, g := range s.dialogs {
		s.runs[g].store(b, g.stream, dirty[g])
	}
	return s
}

// advances says whether a receipt tells something new of a message of ours, and the message's number.
func (d *dialogs) advances(ctx context.Context, s *settlement, g *dialog, mid MessageID, state State) (seq uint64, ok bool) {
	d.mu.RLock()
	o, waits := d.live[mid]
	d.mu.RUnlock()
	row, again := s.rows[mid]
	switch {
	case waits && again:
		return o.seq, row.State.rank() < state.rank()
	case waits:
		return o.seq, true // whatever is in the outbox was not acknowledged
	case again && row.State.rank() >= state.rank():
		return 0, false
	}
	rec, err := d.s.store.Get(ctx, storage.ID(mid))
	if err != nil {
		return 0, false
	}
	r, err := decodeDMRecord(rec.Value)
	if err != nil || !r.Own || r.Content == nil {
		return 0, false
	}
	old, err := d.outState(ctx, g, mid, r.Content.DeviceSeq)
	// What has no state and is not in the outbox was never sent.
	return r.Content.DeviceSeq, err == nil && old.State.rank() < state.rank() && old.State.rank() >= StateDelivered.rank()
}

// settled does what follows once receipts are stored: the outbox is shorter, and more may be sent.
func (d *dialogs) settled(ctx context.Context, s *settlement) {
	gone := make(map[MessageID]bool, len(s.order))
	for _, g := range s.dialogs {
		var out []*outgoingDM
		for _, o := range g.out {
			if row, ok := s.rows[o.id]; ok {
				out, gone[o.id] = append(out, o), true
				if o.line != nil {
					o.line.state = &row
				}
			}
		}
		for _, dev := range d.s.people.devicesOf(g.account) {
			if p := d.sealer.peers[dev]; p != nil {
				p.refused = 0
			}
		}
		d.mu.Lock()
		g.runs = s.runs[g]
		d.mu.Unlock()
		full := len(g.out) > dmWindow || g.held
		g.held = false
		d.unqueue(g, func(o *outgoingDM) bool { return gone[o.id] })
		d.showOut(ctx, g, out)
		if full {
			g.nextTry = time.Time{}
			d.pump(ctx, g)
		}
	}
	for _, mid := range s.order {
		if !gone[mid] { // it was delivered before and now is read
			d.show(ctx, mid)
		}
	}
}

// outStateRow is how far an own direct message came that is no longer in the outbox. Encoding:
// version, rank of the state (255 is failed), place of the path, reason.
type outStateRow struct {
	State  State
	Path   Path
	Reason string
}

var ranked = []State{StateAccepted, StateQueued, StateSent, StateStored, StateDelivered, StateRead}

const failedRank = 255

func (r outStateRow) encode() []byte {
	rank := byte(r.State.rank())
	if r.State == StateFailed {
		rank = failedRank
	}
	return append([]byte{rowVersion, rank, byte(max(pathRank(r.Path), 0))}, r.Reason...)
}

func decodeOutState(b []byte) (outStateRow, error) {
	if len(b) < 3 || b[0] != rowVersion || int(b[2]) >= len(pathOrder) || b[1] != failedRank && int(b[1]) >= len(ranked) {
		return outStateRow{}, fmt.Errorf("reading a stored state of %d bytes: %w", len(b), storage.ErrCorrupt)
	}
	r := outStateRow{State: StateFailed, Path: pathOrder[b[2]], Reason: string(b[3:])}
	if b[1] != failedRank {
		r.State = ranked[b[1]]
	}
	return r, nil
}

// outState returns how far an own direct message came, leaving out the outbox; the zero row if it is
// still there or is none.
func (d *dialogs) outState(ctx context.Context, g *dialog, id MessageID, seq uint64) (outStateRow, error) {
	d.mu.RLock()
	row, ok := g.runs.at(seq)
	d.mu.RUnlock()
	if ok {
		return row, nil
	}
	b, err := d.s.store.GetBucket(ctx, bucketOutState, id[:])
	if errors.Is(err, storage.ErrNotFound) {
		return outStateRow{}, nil
	}
	if err != nil {
		return outStateRow{}, err
	}
	return decodeOutState(b)
}
