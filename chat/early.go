package chat

import (
	"context"
	"fmt"
	"sync"

	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// earlyQueue holds sealed events whose clock is too far ahead, under the time at which they may be
// taken in. A value is the room's id and the sealed bytes.
const earlyQueue = "early"

// earlyEvents counts what waits, so that each room's share stays bounded.
type earlyEvents struct {
	s     *Service
	mu    sync.Mutex // guards count
	count map[wire.RoomID]int
}

func loadEarly(ctx context.Context, s *Service) (*earlyEvents, error) {
	e := &earlyEvents{s: s, count: make(map[wire.RoomID]int)}
	for it, err := range s.store.Queue(ctx, earlyQueue) {
		if err != nil {
			return nil, err
		}
		if room, _, ok := splitEarly(it.Value); ok {
			e.count[room]++
		}
	}
	return e, nil
}

func splitEarly(value []byte) (room wire.RoomID, sealed []byte, ok bool) {
	if len(value) < len(room) {
		return room, nil, false
	}
	return wire.RoomID(value[:len(room)]), value[len(room):], true
}

// deferEvent keeps an event until it is due; beyond the room's bound it is dropped, and sync brings
// it once it is due.
func (s *Service) deferEvent(ctx context.Context, room wire.RoomID, sealed *wire.Sealed) error {
	id := storage.ID(sealed.ID)
	if _, err := s.store.QueueItem(ctx, earlyQueue, id); err == nil {
		return nil
	}
	s.early.mu.Lock()
	full := s.early.count[room] >= s.cfg.Limits.Deferred
	if !full {
		s.early.count[room]++
	}
	s.early.mu.Unlock()
	if full {
		return nil
	}
	var b storage.Batch
	b.Schedule(earlyQueue, sealed.HLC.Time().Add(-wire.MaxAhead), id, joinKey(room[:], sealed.Bytes()))
	if _, err := s.store.Commit(ctx, &b, storage.Relaxed); err != nil {
		s.early.done(room)
		return fmt.Errorf("keeping an early event: %w", err)
	}
	return nil
}

func (e *earlyEvents) done(room wire.RoomID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.count[room]--; e.count[room] <= 0 {
		delete(e.count, room)
	}
}

// release hands the events that have fallen due to their rooms.
func (e *earlyEvents) release(ctx context.Context) {
	e.mu.Lock()
	none := len(e.count) == 0
	e.mu.Unlock()
	if none {
		return
	}
	items, err := e.s.store.Due(ctx, earlyQueue, e.s.cfg.Clock.Now(), batchEvents)
	if err != nil {
		e.s.log.Warn("reading early events failed", "error", err)
		return
	}
	for _, it := range items {
		room, raw, ok := splitEarly(it.Value)
		if r := e.s.roomByID(room); ok && r != nil && r.joined() {
			sealed, err := r.checkAny(raw)
			if err == nil && !r.offer(incoming{sealed: sealed}) {
				return // the room is busy: the rest waits for the next round
			}
		}
		var b storage.Batch
		b.Unschedule(earlyQueue, it.ID)
		if _, err := e.s.store.Commit(ctx, &b, storage.Relaxed); err != nil {
			e.s.log.Warn("releasing an early event failed", "error", err)
			return
		}
		e.done(room)
	}
}
