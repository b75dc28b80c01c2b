package chat

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// maxModifiers bounds the modifiers of one message that are looked at, the newest last; what a
// flood adds beyond it does nothing.
const maxModifiers = 4096

// target is a message whose modifiers changed.
type target struct {
	fresh []modifier // from this batch
}

// touch notes what an arrival does to a message. r.mu is held.
func (in *intake) touch(a *arrival) {
	if a.refused || a.void {
		return
	}
	h := &a.event.Header
	switch h.Kind {
	case wire.KindMessage:
		if _, ok := in.r.modded[a.event.ID]; ok {
			in.target(a.event.ID)
		}
	case wire.KindEdit, wire.KindRedact, wire.KindReact:
		if a.body == nil {
			return
		}
		if m, ok := modifierOf(a.at(), a.event.ID, h.Account(), a.body, in.r.s.self.account); ok {
			t := in.target(h.Ref)
			t.fresh = append(t.fresh, m)
			in.r.modded[h.Ref] = struct{}{}
		}
	}
}

func (in *intake) target(id wire.EventID) *target {
	t := in.targets[id]
	if t == nil {
		t = &target{}
		in.targets[id] = t
		in.order = append(in.order, id)
	}
	return t
}

// modify writes the modifiers of the batch and does what redactions ask for: the bodies of the
// message and of its edits leave the records, whichever of the events came first.
func (in *intake) modify(ctx context.Context) error {
	for _, id := range in.order {
		fresh := in.targets[id].fresh
		for i := range fresh {
			in.batch.Put(bucketModifier, fresh[i].key(in.r.stream, id), fresh[i].encode())
		}
		mods, err := in.r.modifiers(ctx, id)
		if err != nil {
			return err
		}
		mods = append(mods, fresh...)
		if err := in.redact(ctx, id, mods); err != nil {
			return err
		}
	}
	return in.markLate(ctx)
}

// redact drops the bodies that the redactions among a message's modifiers reach.
func (in *intake) redact(ctx context.Context, id wire.EventID, mods []modifier) error {
	r := in.r
	var redactions []*modifier
	for i := range mods {
		if mods[i].Kind == wire.KindRedact {
			redactions = append(redactions, &mods[i])
		}
	}
	if len(redactions) == 0 {
		return nil
	}
	counts := func(author wire.AccountID) (bool, error) {
		for _, m := range redactions {
			if m.Account == author {
				return true, nil
			}
			if ok, err := r.overruled(ctx, m, author, in.fresh); ok || err != nil {
				return ok, err
			}
		}
		return false, nil
	}
	for i := range mods {
		m := &mods[i]
		if m.Kind != wire.KindEdit || m.Text == "" {
			continue
		}
		if ok, err := counts(m.Account); !ok || err != nil {
			if err != nil {
				return err
			}
			continue
		}
		if err := in.dropBody(ctx, m.At.Sealed, m.ID, func(wire.AccountID) (bool, error) { return true, nil }); err != nil {
			return err
		}
		bare := *m
		bare.Text = ""
		in.batch.Put(bucketModifier, m.key(in.r.stream, id), bare.encode())
	}
	if r.private {
		r.mu.Lock()
		r.redacted[id] = struct{}{}
		r.mu.Unlock()
	}
	sealed, ok, err := in.sealedID(ctx, id)
	if err != nil || !ok {
		return err
	}
	return in.dropBody(ctx, sealed, id, counts)
}

// fresh returns an event of the batch, or nil.
func (in *intake) fresh(id wire.EventID) *wire.Event {
	if a := in.find(id); a != nil {
		return a.event
	}
	return nil
}

// redactAgain does what redactions ask for that had no effect so far, after the membership changed: who made
// them may turn out to have had the right, and who is meant may turn out to be a member. For the owner.
func (r *room) redactAgain(ctx context.Context) error {
	r.mu.RLock()
	list := slices.Collect(maps.Keys(r.redacted))
	r.mu.RUnlock()
	for _, id := range list {
		mods, err := r.modifiers(ctx, id)
		if err != nil {
			return err
		}
		in := &intake{r: r, now: r.s.cfg.Clock.Now()}
		if err := in.redact(ctx, id, mods); err != nil {
			return err
		}
		if in.batch.Len() == 0 {
			continue
		}
		if _, err := r.s.store.Commit(ctx, &in.batch, storage.Relaxed); err != nil {
			return r.s.storeError(err)
		}
		if m, err := r.byID(ctx, id); err == nil && m.Kind == KindMessage {
			r.s.events.publish(Event{Type: EventUpdate, Message: &m})
		}
	}
	return nil
}

// find returns the arrival of an event in the batch, or nil.
func (in *intake) find(id wire.EventID) *arrival {
	for i := range in.list {
		if a := &in.list[i]; a.event != nil && a.event.ID == id && !a.hidden {
			return a
		}
	}
	return nil
}

// row returns the index row of an arrival.
func (in *intake) row(a *arrival) indexRow {
	return indexRow{
		Kind: a.event.Header.Kind, Record: a.record, Flags: a.index, Clock: a.sealed.HLC,
		Received: in.now, Sealed: a.sealed.ID, ClientID: a.clientID,
	}
}

// sealedID finds the record of a message, in the batch or in the store.
func (in *intake) sealedID(ctx context.Context, id wire.EventID) (wire.SealedID, bool, error) {
	if a := in.find(id); a != nil {
		return a.sealed.ID, a.isText() && !a.refused && !a.void, nil
	}
	row, ok, err := in.r.lookup(ctx, id)
	if err != nil || !ok || row.Kind != wire.KindMessage || row.Flags&(indexRefused|indexVoid) != 0 {
		return wire.SealedID{}, false, err
	}
	return row.Sealed, true, nil
}

// dropBody replaces the record of an event by its stub, if its author is one that counts.
func (in *intake) dropBody(ctx context.Context, id wire.SealedID, event wire.EventID, counts func(wire.AccountID) (bool, error)) error {
	r := in.r
	for i := range in.list {
		a := &in.list[i]
		if a.sealed.ID != id {
			continue
		}
		if a.record&recordBodily != 0 {
			return in.dropped(event)
		}
		if ok, err := counts(a.event.Header.Account()); !ok {
			return err
		}
		a.record |= recordBodily
		in.replaceBody(a.sealed, a.event.ID, in.row(a))
		a.sealed, a.body = a.sealed.Redacted(), nil
		return nil
	}
	rec, err := r.s.store.Get(ctx, storage.ID(id))
	if errors.Is(err, storage.ErrNotFound) || err == nil && rec.Flags&(recordBodily|storage.FlagStub) != 0 {
		return in.dropped(event)
	}
	if err != nil {
		return err
	}
	sealed, err := r.parse(ctx, rec)
	if err != nil {
		return err
	}
	ev, err := r.unseal(sealed)
	if err != nil {
		return fmt.Errorf("reading stored event %s: %w", id, err)
	}
	if ok, err := counts(ev.Header.Account()); !ok {
		return err
	}
	row, ok, err := in.stored(ctx, event)
	if err != nil || !ok {
		return err
	}
	if b, err := ev.Body(); err == nil {
		r.unindex(ctx, rec.Arrival, b)
	}
	row.Record |= recordBodily
	in.replaceBody(sealed, event, row)
	in.change(event, row)
	return nil
}

// stored returns the row of a stored event as this batch leaves it.
func (in *intake) stored(ctx context.Context, id wire.EventID) (indexRow, bool, error) {
	if row, ok := in.changed[id]; ok {
		return row, true, nil
	}
	return in.r.lookup(ctx, id)
}

// change notes what this batch makes of the row of a stored event.
func (in *intake) change(id wire.EventID, row indexRow) {
	if in.changed == nil {
		in.changed = make(map[wire.EventID]indexRow)
	}
	in.changed[id] = row
}

// dropped notes that the body of an event is not here any more.
func (in *intake) dropped(id wire.EventID) error {
	in.r.mu.Lock()
	delete(in.r.redacted, id)
	in.r.mu.Unlock()
	return nil
}

func (in *intake) replaceBody(sealed *wire.Sealed, event wire.EventID, row indexRow) {
	in.batch.Replace(storage.ID(sealed.ID), row.Record, sealed.Redacted().Bytes())
	in.batch.Put(bucketEvents, joinKey(in.r.stream[:], event[:]), row.encode())
}

// markLate marks events that turned out not to be after one they name.
func (in *intake) markLate(ctx context.Context) error {
	for _, id := range in.late {
		if a := in.find(id); a != nil {
			a.index |= indexBackDated
			in.batch.Put(bucketEvents, joinKey(in.r.stream[:], id[:]), in.row(a).encode())
			continue
		}
		row, ok, err := in.stored(ctx, id)
		if err != nil {
			return err
		}
		if !ok || row.Flags&indexBackDated != 0 {
			continue
		}
		row.Flags |= indexBackDated
		in.change(id, row)
		in.batch.Put(bucketEvents, joinKey(in.r.stream[:], id[:]), row.encode())
	}
	return nil
}

// fillBody puts the body of a known event back whose stub came first, unless it was redacted.
func (r *room) fillBody(ctx context.Context, sealed *wire.Sealed) error {
	if sealed.IsStub() {
		return nil
	}
	rec, err := r.s.store.Get(ctx, storage.ID(sealed.ID))
	if err != nil || rec.Flags&recordBodily == 0 || rec.Flags&storage.FlagStub != 0 {
		return err
	}
	a := r.open(sealed)
	if a.hidden || r.s.verifier.VerifyEvent(a.event) != nil {
		return nil
	}
	id, about := a.event.ID, a.event.ID
	if a.event.Header.Kind == wire.KindEdit {
		about = a.event.Header.Ref
	}
	mods, err := r.modifiers(ctx, about)
	if err != nil {
		return err
	}
	for i := range mods {
		m := &mods[i]
		if m.Kind != wire.KindRedact {
			continue
		}
		ok, err := r.overruled(ctx, m, a.event.Header.Account(), noEvent)
		if ok || err != nil || m.Account == a.event.Header.Account() {
			return err
		}
	}
	row, ok, err := r.lookup(ctx, id)
	if err != nil || !ok {
		return err
	}
	row.Record &^= recordBodily
	var b storage.Batch
	b.Replace(rec.ID, row.Record, sealed.Bytes())
	b.Put(bucketEvents, joinKey(r.stream[:], id[:]), row.encode())
	if m, ok := modifierOf(a.at(), id, a.event.Header.Account(), a.body, r.s.self.account); ok {
		b.Put(bucketModifier, m.key(r.stream, a.event.Header.Ref), m.encode())
		r.mu.Lock()
		r.modded[a.event.Header.Ref] = struct{}{}
		r.mu.Unlock()
		about = a.event.Header.Ref
	}
	if _, err := r.s.store.Commit(ctx, &b, storage.Relaxed); err != nil {
		return err
	}
	if m, err := r.byID(ctx, about); err == nil {
		r.s.events.publish(Event{Type: EventUpdate, Message: &m})
	}
	return nil
}

// noEvent is for where nothing but what is stored can be found.
func noEvent(wire.EventID) *wire.Event { return nil }

// modifiers returns the stored modifiers of a message.
func (r *room) modifiers(ctx context.Context, id wire.EventID) ([]modifier, error) {
	r.mu.RLock()
	_, any := r.modded[id]
	r.mu.RUnlock()
	if !any {
		return nil, nil
	}
	return readModifiers(ctx, r.s.store, r.stream, id)
}

// readModifiers reads what is stored about a message: redactions first, then in order of the stamps.
func readModifiers(ctx context.Context, store *storage.Store, stream storage.StreamID, id wire.EventID) ([]modifier, error) {
	var list []modifier
	for kv, err := range store.ScanBucket(ctx, bucketModifier, joinKey(stream[:], id[:])) {
		if err != nil {
			return nil, err
		}
		_, m, err := decodeModifier(kv.Key, kv.Value)
		if err != nil {
			return nil, err
		}
		if list = append(list, m); len(list) == maxModifiers {
			break
		}
	}
	return list, nil
}

// lookup finds an event of the room by its id.
func (r *room) lookup(ctx context.Context, id wire.EventID) (indexRow, bool, error) {
	b, err := r.s.store.GetBucket(ctx, bucketEvents, joinKey(r.stream[:], id[:]))
	if errors.Is(err, storage.ErrNotFound) {
		return indexRow{}, false, nil
	}
	if err != nil {
		return indexRow{}, false, err
	}
	row, err := decodeIndexRow(b)
	return row, err == nil, err
}
