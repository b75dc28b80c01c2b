package storage

import (
	"encoding/binary"
	"fmt"
	"time"
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
		if o.guard == nil {
			continue
		}
		b, err := o.guard(t)
		if err != nil {
			return err
		}
		if b[0] == guardOpAppend {
			n := 2 + int(b[1]) + 8
			e.ids = append(e.ids, ID(b[n:n+32]))
		}
		e.ops = binary.BigEndian.AppendUint32(e.ops, uint32(len(b)))
		e.ops = append(e.ops, b...)
	}
	if len(e.ops) > 0 {
		t.guard = append(t.guard, e)
	}
	return nil
}

// guardAppend encodes an append. It names the stream, because the entry that
// gave the stream its handle may be lost with the rest.
func (t *tx) guardAppend(r Record) ([]byte, error) {
	b, err := t.get(streamKey(kindStream, r.Stream))
	if err != nil {
		return nil, err
	}
	if len(b) == 0 {
		return nil, fmt.Errorf("stream %x: %w", r.Stream, ErrNotFound)
	}
	out := namedKey(guardOpAppend, string(b[1:]), nil)
	out = binary.BigEndian.AppendUint64(out, r.Time)
	out = append(out, r.ID[:]...)
	out = append(out, r.Flags)
	out = binary.BigEndian.AppendUint64(out, expiry(r.Expires))
	return append(out, r.Value...), nil
}

func guardSchedule(queue string, ms uint64, id ID, value []byte) []byte {
	out := namedKey(guardOpSchedule, queue, be64(ms))
	return append(append(out, id[:]...), value...)
}

// decodeGuardOps turns the operations of a journal entry back into a batch.
// stream maps a name to a handle.
func decodeGuardOps(b []byte, stream func(name string) (StreamID, error)) (*Batch, error) {
	batch := new(Batch)
	for len(b) > 0 {
		if len(b) < 4 {
			return nil, fmt.Errorf("guard entry ends early: %w", ErrCorrupt)
		}
		n := binary.BigEndian.Uint32(b)
		if b = b[4:]; uint64(n) > uint64(len(b)) || n < 2 {
			return nil, fmt.Errorf("guard operation of %d bytes: %w", n, ErrCorrupt)
		}
		if err := decodeGuardOp(batch, b[:n], stream); err != nil {
			return nil, err
		}
		b = b[n:]
	}
	return batch, batch.err
}

func decodeGuardOp(batch *Batch, b []byte, stream func(name string) (StreamID, error)) error {
	code, n := b[0], int(b[1])
	if b = b[2:]; n == 0 || len(b) < n+40 {
		return fmt.Errorf("guard operation too short: %w", ErrCorrupt)
	}
	name := string(b[:n])
	at, id, rest := binary.BigEndian.Uint64(b[n:]), ID(b[n+8:n+40]), b[n+40:]
	switch {
	case code == guardOpSchedule:
		batch.Schedule(name, fromMillis(at), id, rest)
	case code == guardOpAppend && len(rest) >= 9:
		st, err := stream(name)
		if err != nil {
			return err
		}
		var expires time.Time
		if ms := binary.BigEndian.Uint64(rest[1:]); ms != 0 {
			expires = fromMillis(ms)
		}
		batch.Append(Record{Stream: st, Time: at, ID: id, Flags: rest[0], Expires: expires, Value: rest[9:]})
	default:
		return fmt.Errorf("guard operation %q is not known: %w", code, ErrCorrupt)
	}
	return nil
}
