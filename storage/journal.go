package storage

import (
	"context"
	"encoding/binary"
	"fmt"
)

// guardEntries is how many guarded batches the journal keeps.
const guardEntries = 64

// guardBytes is how much those hold in all, but for a single larger one: a start
// looks each of their records up.
const guardBytes = 1 << 20

// guardEntry is a guarded batch in the journal.
type guardEntry struct {
	seq uint64 // commit number of the batch
	ids []ID   // records it appended
	ops []byte // encoded operations
}

// Operation codes inside a guard entry, and what follows them.
const (
	guardOpAppend     = 'a' // stream name, time8, id32, flags1, expires8, value
	guardOpSchedule   = 's' // queue, due8, id32, value
	guardOpUnschedule = 'u' // queue, id32
	guardOpReplace    = 'r' // id32, flags1, value
	guardOpRemove     = 'm' // id32
	guardOpPut        = 'p' // length2, database key, value
	guardOpDelete     = 'd' // database key
)

// guardBatch notes a batch for the journal.
func (t *tx) guardBatch(ops []op) error {
	var e guardEntry
	for _, o := range ops {
		g, err := o.guard(t)
		if err != nil {
			return err
		}
		if g.code == 0 {
			continue
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

// lasting returns what the journal keeps of an entry once its commit is in the
// database: the user's words. Other values would be out of date, and ratchet
// states must not be kept at all.
func (e guardEntry) lasting() guardEntry { return e.without(func(guardOp) bool { return false }) }

// without returns the appends and schedules of an entry but for those that
// drop selects. An entry that has no append left is empty: its schedules went
// with the records.
func (e guardEntry) without(drop func(guardOp) bool) guardEntry {
	list, err := parseGuardOps(e.ops)
	if err != nil {
		return guardEntry{} // encoded by us: cannot happen
	}
	out := guardEntry{seq: e.seq}
	for _, o := range list {
		if o.code != guardOpAppend && o.code != guardOpSchedule || drop(o) {
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

// removed tells whether the transaction ends with the record removed.
func (t *tx) removed(id ID) bool {
	w, ok := t.pending[string(idKey(id))]
	return ok && w.plain == nil
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

// guardOp is one operation of a journal entry; which fields count depends on
// the code.
type guardOp struct {
	code    byte
	name    string // of the stream or queue
	at      uint64 // record time, or due time in ms
	id      ID
	flags   uint8
	expires uint64
	key     []byte
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
		if b = b[4:]; uint64(n) > uint64(len(b)) || n == 0 {
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
	o := guardOp{code: b[0]}
	r := guardReader{b: b[1:]}
	switch o.code {
	case guardOpAppend:
		o.name, o.at, o.id = r.name(), r.uint64(), r.id()
		o.flags, o.expires = r.byte(), r.uint64()
	case guardOpSchedule:
		o.name, o.at, o.id = r.name(), r.uint64(), r.id()
	case guardOpUnschedule:
		o.name, o.id = r.name(), r.id()
	case guardOpReplace:
		o.id, o.flags = r.id(), r.byte()
	case guardOpRemove:
		o.id = r.id()
	case guardOpPut:
		o.key = r.take(int(r.byte())<<8 | int(r.byte()))
		r.bucketKey(o.key)
	case guardOpDelete:
		r.bucketKey(r.b)
	default:
		r.short = true
	}
	o.value = r.b
	switch {
	case r.short:
		return guardOp{}, fmt.Errorf("guard operation %q is malformed: %w", o.code, ErrCorrupt)
	case len(o.value) > 0 && (o.code == guardOpUnschedule || o.code == guardOpRemove):
		return guardOp{}, fmt.Errorf("guard operation %q is too long: %w", o.code, ErrCorrupt)
	}
	return o, nil
}

// guardReader takes fields off a guard operation; short tells that it ended
// too early.
type guardReader struct {
	b     []byte
	short bool
}

func (r *guardReader) take(n int) []byte {
	if n > len(r.b) {
		r.short = true
		return make([]byte, n)
	}
	out := r.b[:n:n]
	r.b = r.b[n:]
	return out
}

func (r *guardReader) byte() byte     { return r.take(1)[0] }
func (r *guardReader) uint64() uint64 { return binary.BigEndian.Uint64(r.take(8)) }
func (r *guardReader) id() ID         { return ID(r.take(32)) }

func (r *guardReader) name() string {
	n := int(r.byte())
	r.short = r.short || n == 0 || n > MaxNameSize
	return string(r.take(n))
}

// bucketKey checks that a database key is one of a bucket.
func (r *guardReader) bucketKey(k []byte) {
	r.short = r.short || len(k) < 3 || k[0] != kindBucket && k[0] != kindEphemeral ||
		k[1] == 0 || k[1] > MaxNameSize || len(k) < 2+int(k[1]) || len(k) > 2+int(k[1])+MaxKeySize
}

// encode is the inverse of parseGuardOp.
func (o guardOp) encode() []byte {
	out := []byte{o.code}
	named := func() { out = append(append(out, byte(len(o.name))), o.name...) }
	switch o.code {
	case guardOpAppend:
		named()
		out = binary.BigEndian.AppendUint64(out, o.at)
		out = append(append(out, o.id[:]...), o.flags)
		out = binary.BigEndian.AppendUint64(out, o.expires)
	case guardOpSchedule:
		named()
		out = binary.BigEndian.AppendUint64(out, o.at)
		out = append(out, o.id[:]...)
	case guardOpUnschedule:
		named()
		out = append(out, o.id[:]...)
	case guardOpReplace:
		out = append(append(out, o.id[:]...), o.flags)
	case guardOpRemove:
		out = append(out, o.id[:]...)
	case guardOpPut:
		out = binary.BigEndian.AppendUint16(out, uint16(len(o.key)))
		out = append(out, o.key...)
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

// replay commits a journal entry again. It is the whole batch if the database
// lost the commit; the journal holds no more than the lasting part otherwise.
func (s *Store) replay(ctx context.Context, ops []byte) error {
	list, err := parseGuardOps(ops)
	if err != nil {
		return err
	}
	b := new(Batch)
	for _, o := range list {
		if err := s.addGuardOp(ctx, b, o); err != nil {
			return err
		}
	}
	b.Guard()
	_, err = s.Commit(ctx, b, Durable)
	return err
}

func (s *Store) addGuardOp(ctx context.Context, b *Batch, o guardOp) error {
	switch o.code {
	case guardOpAppend:
		st, err := s.Stream(ctx, o.name)
		if err != nil {
			return err
		}
		b.Append(Record{
			Stream: st, Time: o.at, ID: o.id, Flags: o.flags,
			Expires: fromExpiry(o.expires), Value: o.value,
		})
	case guardOpSchedule:
		if o.at == neverDue {
			b.Hold(o.name, o.id, o.value)
		} else {
			b.Schedule(o.name, fromMillis(o.at), o.id, o.value)
		}
	case guardOpUnschedule: // of either kind
		b.Unschedule(o.name, o.id)
		b.Release(o.name, o.id)
	case guardOpReplace:
		// What it replaces may be lost with the rest.
		if have, err := s.Has(ctx, []ID{o.id}); err != nil || !have[0] {
			return err
		}
		b.Replace(o.id, o.flags, o.value)
	case guardOpRemove:
		b.Remove(o.id)
	case guardOpPut:
		b.add(len(o.key)+len(o.value), &putOp{o.key, append([]byte{}, o.value...)})
	case guardOpDelete:
		b.add(len(o.value), &putOp{o.value, nil})
	}
	return nil
}
