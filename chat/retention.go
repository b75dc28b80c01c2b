package chat

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	roomsync "github.com/starling-chat/starling/chat/sync"
	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// Retention is how much of a room is kept here. A zero field is no bound; the oldest goes first. It binds
// this device alone: others keep what they like.
type Retention struct {
	Age   time.Duration `json:"age,omitempty"`   // at least a day; whole UTC days go
	Count uint64        `json:"count,omitempty"` // events, at least 100
	Bytes uint64        `json:"bytes,omitempty"` // of sealed events, at least 1 MB
	// Disk bounds all rooms together, in bytes on the disk, at least 16 MB: whichever room takes most
	// gives way. Only for the default of all rooms.
	Disk uint64 `json:"disk,omitempty"`
}

const (
	settingRetention = "retention"
	retainEvery      = time.Hour
	// retainFirst is when after the start the first look is taken, so that a start stays quick.
	retainFirst = time.Minute
	minAge      = 24 * time.Hour
	minCount    = 100
	minBytes    = 1_000_000
	minDisk     = 16_000_000
	// trimChunk is how many events go in one transaction.
	trimChunk = 200
	// recordCost is about what an event takes on the disk besides its bytes.
	recordCost = 600
)

func (k Retention) check() error {
	switch {
	case k.Age != 0 && k.Age < minAge:
		return fmt.Errorf("%w: an age of less than a day", ErrBadRequest)
	case k.Count != 0 && k.Count < minCount:
		return fmt.Errorf("%w: fewer than %d messages", ErrBadRequest, minCount)
	case k.Bytes != 0 && k.Bytes < minBytes:
		return fmt.Errorf("%w: less than 1 MB for a room", ErrBadRequest)
	case k.Disk != 0 && k.Disk < minDisk:
		return fmt.Errorf("%w: less than 16 MB for all rooms", ErrBadRequest)
	}
	return nil
}

// Retention returns what holds for a room and whether that is its own setting; for the zero target, the
// default of all rooms.
func (s *Service) Retention(ctx context.Context, t Target) (keep Retention, own bool, err error) {
	if !t.IsZero() {
		r, err := s.knownRoom(t)
		if err != nil {
			return Retention{}, false, err
		}
		r.mu.RLock()
		set := r.row.Keep
		r.mu.RUnlock()
		if set != nil {
			return *set, true, nil
		}
	}
	text, err := s.Setting(ctx, settingRetention)
	if err == nil && text != "" {
		err = json.Unmarshal([]byte(text), &keep)
	}
	if err != nil {
		return Retention{}, false, fmt.Errorf("reading what is kept: %w", err)
	}
	if !t.IsZero() {
		keep.Disk = 0
	}
	return keep, false, nil
}

// SetRetention says how much is kept of a room, nil for what holds for all; for the zero target, of all
// rooms that have no setting of their own. It takes effect at once.
func (s *Service) SetRetention(ctx context.Context, t Target, keep *Retention) error {
	if keep != nil {
		if err := keep.check(); err != nil {
			return err
		}
	}
	if t.IsZero() {
		text := ""
		if keep != nil {
			b, err := json.Marshal(keep)
			if err != nil {
				return err
			}
			text = string(b)
		}
		if err := s.SetSetting(ctx, settingRetention, text); err != nil {
			return err
		}
		return s.retain(ctx)
	}
	r, err := s.knownRoom(t)
	switch {
	case err != nil:
		return err
	case keep != nil && keep.Disk != 0:
		return fmt.Errorf("%w: a bound for the disk is one for all rooms together", ErrBadRequest)
	}
	s.joinMu.Lock()
	r.mu.RLock()
	row := r.row
	r.mu.RUnlock()
	row.Keep = keep
	err = s.putRoom(ctx, r, row)
	s.joinMu.Unlock()
	if err != nil || !r.joined() {
		return err
	}
	return s.retainRoom(ctx, r)
}

// keepBounds applies retention now and then until ctx ends.
func (s *Service) keepBounds(ctx context.Context) {
	next := time.NewTimer(retainFirst)
	defer next.Stop()
	for {
		select {
		case <-next.C:
			if err := s.retain(ctx); err != nil && ctx.Err() == nil {
				s.log.Warn("removing old messages failed; it is tried again", "error", err)
			}
			next.Reset(retainEvery)
		case <-ctx.Done():
			return
		}
	}
}

// retain applies retention to every joined room, and then the bound for the disk.
func (s *Service) retain(ctx context.Context) error {
	for _, r := range s.joinedRooms() {
		if err := s.retainRoom(ctx, r); err != nil {
			return err
		}
	}
	all, _, err := s.Retention(ctx, Target{})
	if err != nil || all.Disk == 0 {
		return err
	}
	return s.capDisk(ctx, all.Disk)
}

func (s *Service) retainRoom(ctx context.Context, r *room) error {
	keep, _, err := s.Retention(ctx, Target{Room: &r.id})
	if err != nil {
		return err
	}
	return r.trim(ctx, keep)
}

// capDisk takes an eighth of the room that takes most until all fit.
func (s *Service) capDisk(ctx context.Context, limit uint64) error {
	for {
		var total, most uint64
		var biggest *room
		var size storage.StreamInfo
		for _, r := range s.joinedRooms() {
			info, err := s.store.Info(ctx, r.stream)
			if err != nil {
				return err
			}
			used := info.Bytes + recordCost*info.Count
			total += used
			if used > most && info.Count > minCount {
				most, biggest, size = used, r, info
			}
		}
		if total <= limit || biggest == nil {
			return nil
		}
		over := (total-limit)*size.Count/most + 1
		if err := biggest.trim(ctx, Retention{Count: size.Count - min(over, size.Count/8+1)}); err != nil {
			return err
		}
	}
}

// trim removes the oldest events until the retention holds. The room's floor rises first and for good,
// in the same transaction: sync compares nothing below it, and nothing below it is taken in again. Of a private
// room the membership events stay for ever, in a place of their own: only their lines go.
func (r *room) trim(ctx context.Context, keep Retention) error {
	floor := uint64(0)
	if keep.Age > 0 {
		floor = storage.DayStart(storage.Day(storage.ClockTime(r.s.cfg.Clock.Now().Add(-keep.Age))))
	}
	removed := 0
	for more := true; more; {
		err := r.do(ctx, func() (err error) {
			var n int
			n, floor, more, err = r.trimStep(ctx, keep, floor)
			removed += n
			return err
		})
		if err != nil {
			if errors.Is(err, ErrNotJoined) {
				return nil
			}
			return fmt.Errorf("removing old messages: %w", r.s.storeError(err))
		}
	}
	if removed == 0 {
		return nil
	}
	if _, err := r.s.store.Trim(ctx, r.stream, storage.Retention{Before: floor}); err != nil { // stubs, and the books
		return fmt.Errorf("removing old messages: %w", r.s.storeError(err))
	}
	c := r.conversation()
	r.s.events.publish(Event{Type: EventConversation, Conversation: &c})
	return nil
}

// trimStep removes up to trimChunk of the oldest events. For the owner only.
func (r *room) trimStep(ctx context.Context, keep Retention, floor uint64) (removed int, newFloor uint64, more bool, err error) {
	info, err := r.s.store.Info(ctx, r.stream)
	if err != nil {
		return 0, floor, false, err
	}
	var list []storage.Record
	count, size, seen := info.Count, info.Bytes, 0
	for rec, err := range r.s.store.Scan(ctx, r.stream, storage.Range{Limit: trimChunk}) {
		if err != nil {
			return 0, floor, false, err
		}
		seen++
		over := keep.Count > 0 && count > keep.Count || keep.Bytes > 0 && size > keep.Bytes
		if rec.Time >= floor && !over {
			break
		}
		// Floors are whole milliseconds: what shares one goes together.
		floor = max(floor, (rec.Time>>16+1)<<16)
		list = append(list, rec)
		if rec.Flags&storage.FlagStub == 0 {
			count--
			size -= uint64(len(rec.Value))
		}
	}
	var b storage.Batch
	if len(list) == 0 {
		r.mu.Lock()
		raise := floor > r.state.Kept
		if raise {
			r.state.Kept, r.state.Floor = floor, max(r.state.Floor, floor)
		}
		r.mu.Unlock()
		if raise {
			r.putState(&b)
			_, err = r.s.store.Commit(ctx, &b, storage.Relaxed)
		}
		return 0, floor, false, err
	}
	gone := make(map[wire.DeviceID]uint64)
	for _, rec := range list {
		if err := r.remove(ctx, &b, rec, gone); err != nil {
			return 0, floor, false, err
		}
	}
	r.mu.Lock()
	for dev, seq := range gone {
		r.tracker.forgetBefore(dev, seq)
		d := r.tracker.devices[dev]
		b.Put(bucketDevices, joinKey(r.id[:], dev[:]), encodeRow(deviceRow{rowVersion, d.Account, d.Spans, d.Gone, d.Read}))
	}
	r.state.Kept = max(r.state.Kept, floor)
	r.state.Floor = max(r.state.Floor, floor)
	r.mu.Unlock()
	r.putState(&b)
	if _, err := r.s.store.Commit(ctx, &b, storage.Durable); err != nil {
		return 0, floor, false, errors.Join(err, r.load(context.WithoutCancel(ctx)))
	}
	for _, e := range r.epochs() {
		if e.set != nil {
			e.set.Expire(roomsync.Time(floor))
		}
	}
	return len(list), floor, len(list) == seen && seen == trimChunk, r.recount(ctx)
}

// remove adds the removal of a record, and of everything that hangs on it, to a batch. gone collects the
// newest number of each device that went.
func (r *room) remove(ctx context.Context, b *storage.Batch, rec storage.Record, gone map[wire.DeviceID]uint64) error {
	b.Remove(rec.ID)
	var sealed *wire.Sealed
	var err error
	if rec.Flags&storage.FlagStub == 0 {
		sealed, err = r.parse(ctx, rec)
	}
	if r.private {
		b.Delete(bucketTopics, joinKey(r.stream[:], rec.ID[:]))
	}
	if err != nil || sealed == nil {
		return err
	}
	a := r.open(sealed)
	if a.event == nil {
		return nil
	}
	h := &a.event.Header
	if r.tracker.devices[h.Device()] != nil {
		gone[h.Device()] = max(gone[h.Device()], h.DeviceSeq)
	}
	b.Delete(bucketEvents, joinKey(r.stream[:], a.event.ID[:]))
	if a.body != nil {
		r.unindex(ctx, rec.Arrival, a.body)
	}
	if h.Kind == wire.KindMessage {
		for kv, err := range r.s.store.ScanBucket(ctx, bucketModifier, joinKey(r.stream[:], a.event.ID[:])) {
			if err != nil {
				return err
			}
			if b.Len() > storage.MaxBatchOps/2 {
				break // a flood of modifiers: they mean nothing without their message
			}
			b.Delete(bucketModifier, slices.Clone(kv.Key))
		}
		r.mu.Lock()
		delete(r.modded, a.event.ID)
		r.mu.Unlock()
	}
	return nil
}

// forgetBefore stops following numbers of a device up to seq: what they stood for was removed.
func (t *tracker) forgetBefore(dev wire.DeviceID, seq uint64) {
	d := t.devices[dev]
	d.Gone = max(d.Gone, seq)
	for len(d.Spans) > 1 && d.Spans[0].To <= seq {
		d.Spans = d.Spans[1:] // the last one stays: sequences go on from there
	}
}

// recount counts what is unread anew. For the owner only.
func (r *room) recount(ctx context.Context) error {
	r.mu.RLock()
	read, before := r.state.Read, r.state.Unread
	r.mu.RUnlock()
	if before == 0 {
		return nil
	}
	unread, mentions, err := r.unreadAfter(ctx, read)
	if err != nil {
		return err
	}
	var b storage.Batch
	r.mu.Lock()
	r.state.Unread, r.state.Mentions = unread, mentions
	r.mu.Unlock()
	r.putState(&b)
	_, err = r.s.store.Commit(ctx, &b, storage.Relaxed)
	return err
}
