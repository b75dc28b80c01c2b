package storage

import (
	"context"
	"encoding/binary"
	"fmt"
)

// guardEntries is how many guarded batches the journal keeps.
const guardEntries = 64

// guardEntry is a guarded batch in the journal: its appends and schedules.
type guardEntry struct {
	seq uint64 // commit number of the batch
	ids []ID   // records it appended
	ops []byte // encoded operations
}

// Operation codes inside a guard entry.
const (
	guardOpAppend   = 'a' // name, time8, id32, flags1, expires8, value
	guardOpSchedule = 's' // queue, due8, id32, value
)

// guardBatch notes a batch for the journal.
func (t *tx) guardBatch(ops []op) error {
	var e guardEntry
	for _, o := range ops {
		o, ok := o.(guardedOp)
		if !ok {
			continue
		}
		g, err := o.guard(t)
		if err != nil {
			return err
		}
		if g.code == guardOpAppend {
			e.ids = append(e.ids, g.id)
		}
		e.ops = appendGuardOp(e.ops, g)
	}
	if len(e.ops) > 0 {
		t.guard = append(t.guard, e)
	}
	return nil
}

// without returns the entry without the append of a record. An entry that has
// no append left is empty: its schedules went with the records.
func (e guardEntry) without(id ID) guardEntry {
	list, err := parseGuardOps(e.ops)
	if err != nil {
		return guardEntry{} // encoded by us: cannot happen
	}
	out := guardEntry{seq: e.seq}
	for _, o := range list {
		if o.id == id {
			continue
		}
		if o.code == guardOpAppend {
			out.ids = append(out.ids, o.id)
		}
		out.ops = appendGuardOp(out.ops, o)
	}
	if len(out.ids) == 0 {
		return guardEntry{}
	}
	return out
}

func appendGuardOp(ops []byte, o guardOp) []byte {
	b := o.encode()
	ops = binary.BigEndian.AppendUint32(ops, uint32(len(b)))
	return append(ops, b...)
}

// survivors returns the guarded batches of the transaction without the records
// that a later operation of the same transaction removed.
func (t *tx) survivors() []guardEntry {
	out := make([]guardEntry, 0, len(t.guard))
	for _, e := range t.guard {
		for _, id := range e.ids {
			if w, ok := t.pending[string(idKey(id))]; ok && w.plain == nil {
				e = e.without(id)
			}
		}
		if len(e.ops) > 0 {
			out = append(out, e)
		}
	}
	return out
}

// guardAppend describes an append. It names the stream, because the entry that
// gave the stream its handle may be lost with the rest.
func (t *tx) guardAppend(r *appendOp) (guardOp, error) {
	b, err := t.get(streamKey(kindStream, r.Stream))
	if err != nil {
		return guardOp{}, err
	}
	if len(b) == 0 {
		return guardOp{}, fmt.Errorf("stream %x: %w", r.Stream, ErrNotFound)
	}
	return guardOp{
		code: guardOpAppend, name: string(b[1:]), at: r.Time, id: r.ID,
		flags: r.Flags, expires: r.expires, value: r.Value,
	}, nil
}

// guardOp is one decoded operation of a journal entry.
type guardOp struct {
	code    byte
	name    string // of the stream or queue
	at      uint64 // record time, or due time in ms
	id      ID
	flags   uint8
	expires uint64
	value   []byte
}

// parseGuardOps decodes the operations of a journal entry.
func parseGuardOps(b []byte) ([]guardOp, error) {
	var out []guardOp
	for len(b) > 0 {
		if len(b) < 4 {
			return nil, fmt.Errorf("guard entry ends early: %w", ErrCorrupt)
		}
		n := binary.BigEndian.Uint32(b)
		if b = b[4:]; uint64(n) > uint64(len(b)) || n < 2 {
			return nil, fmt.Errorf("guard operation of %d bytes: %w", n, ErrCorrupt)
		}
		o, err := parseGuardOp(b[:n])
		if err != nil {
			return nil, err
		}
		out = append(out, o)
		b = b[n:]
	}
	return out, nil
}

func parseGuardOp(b []byte) (guardOp, error) {
	code, n := b[0], int(b[1])
	if b = b[2:]; n == 0 || n > MaxNameSize || len(b) < n+40 {
		return guardOp{}, fmt.Errorf("guard operation too short: %w", ErrCorrupt)
	}
	o := guardOp{
		code: code, name: string(b[:n]),
		at: binary.BigEndian.Uint64(b[n:]), id: ID(b[n+8 : n+40]), value: b[n+40:],
	}
	switch {
	case code == guardOpSchedule:
		return o, nil
	case code == guardOpAppend && len(o.value) >= 9:
		o.flags, o.expires = o.value[0], binary.BigEndian.Uint64(o.value[1:])
		o.value = o.value[9:]
		return o, nil
	}
	return guardOp{}, fmt.Errorf("guard operation %q is not known: %w", code, ErrCorrupt)
}

// encode is the inverse of parseGuardOp.
func (o guardOp) encode() []byte {
	out := namedKey(o.code, o.name, be64(o.at))
	out = append(out, o.id[:]...)
	if o.code == guardOpAppend {
		out = append(out, o.flags)
		out = binary.BigEndian.AppendUint64(out, o.expires)
	}
	return append(out, o.value...)
}

// guardIDs returns the records that the operations of an entry append.
func guardIDs(ops []byte) ([]ID, error) {
	list, err := parseGuardOps(ops)
	var ids []ID
	for _, o := range list {
		if o.code == guardOpAppend {
			ids = append(ids, o.id)
		}
	}
	return ids, err
}

// replay commits a journal entry again.
func (s *Store) replay(ctx context.Context, ops []byte) error {
	list, err := parseGuardOps(ops)
	if err != nil {
		return err
	}
	b := new(Batch)
	for _, o := range list {
		if o.code == guardOpSchedule {
			b.Schedule(o.name, fromMillis(o.at), o.id, o.value)
			continue
		}
		st, err := s.Stream(ctx, o.name)
		if err != nil {
			return err
		}
		b.Append(Record{
			Stream: st, Time: o.at, ID: o.id, Flags: o.flags,
			Expires: fromExpiry(o.expires), Value: o.value,
		})
	}
	b.Guard()
	_, err = s.Commit(ctx, b, Durable)
	return err
}
