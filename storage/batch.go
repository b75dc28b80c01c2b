package storage

import (
	"bytes"
	"fmt"
	"slices"
	"time"
)

// Durability says when Commit may answer.
type Durability uint8

const (
	// Durable answers once the batch survives a power cut.
	Durable Durability = iota
	// Relaxed answers once the batch is visible and survives a kill of the
	// process; it reaches the disk with the next durable batch or within a few
	// milliseconds. It is for records that others still hold, and the first
	// to be refused when the disk fills (ModeNoHistory).
	Relaxed
)

// Batch collects changes that take effect together or not at all. The zero
// value is empty and ready. Keys and values are copied. Operations take effect
// in the order of the calls. A batch can be committed once.
type Batch struct {
	ops     []op
	bytes   int
	err     error
	guarded bool
	spent   bool
}

// op is one operation: what it does, and its weight when groups are formed.
type op struct {
	apply   func(t *tx, r *Result) error
	history bool                         // an append: refused in ModeNoHistory when relaxed
	guard   func(t *tx) (guardOp, error) // the form in the guard journal; nil if not guarded
}

// Appended says what became of one Append.
type Appended struct {
	// New is false when the store already had the record (in any stream).
	New bool
	// Arrival is the record's arrival number, new or not; 0 for stubs.
	Arrival uint64
}

// Result of a committed batch.
type Result struct {
	// Appended has one entry for each Append, in their order.
	Appended []Appended
}

// Len returns the number of operations in the batch.
func (b *Batch) Len() int { return len(b.ops) }

func (b *Batch) add(size int, o op) {
	b.bytes += size
	b.ops = append(b.ops, o)
	switch {
	case len(b.ops) > MaxBatchOps:
		b.fail(fmt.Errorf("batch of more than %d operations: %w", MaxBatchOps, ErrTooBig))
	case b.bytes > MaxBatchBytes:
		b.fail(fmt.Errorf("batch of more than %d bytes: %w", MaxBatchBytes, ErrTooBig))
	}
}

func (b *Batch) fail(err error) {
	if b.err == nil {
		b.err = err
	}
}

func (b *Batch) checkValue(v []byte) {
	if len(v) > MaxValueSize {
		b.fail(fmt.Errorf("value of %d bytes, at most %d: %w", len(v), MaxValueSize, ErrTooBig))
	}
}

func (b *Batch) checkName(what, name string) {
	if err := checkName(what, name); err != nil {
		b.fail(err)
	}
}

func checkName(what, name string) error {
	if name == "" || len(name) > MaxNameSize {
		return fmt.Errorf("%s name of %d bytes, want 1 to %d: %w", what, len(name), MaxNameSize, ErrTooBig)
	}
	return nil
}

func checkBucketKey(key []byte) error {
	if len(key) > MaxKeySize {
		return fmt.Errorf("key of %d bytes, at most %d: %w", len(key), MaxKeySize, ErrTooBig)
	}
	return nil
}

// Append adds a record to its stream; Arrival is ignored. If the store already
// has a record of this ID, nothing changes (but see FlagStub). The stream must
// exist, otherwise the commit fails with ErrNotFound.
func (b *Batch) Append(r Record) {
	b.checkValue(r.Value)
	if r.Flags&flagReserved != 0 {
		b.fail(fmt.Errorf("record flags %#x use a reserved bit", r.Flags))
	}
	if r.Flags&FlagStub != 0 && (len(r.Value) != 0 || !r.Expires.IsZero()) {
		b.fail(fmt.Errorf("stub %s has a value or an expiry", r.ID))
	}
	r.Value = bytes.Clone(r.Value)
	b.add(64+len(r.Value), op{
		history: true,
		guard:   func(t *tx) (guardOp, error) { return t.guardAppend(r) },
		apply: func(t *tx, res *Result) error {
			arrival, isNew, err := t.appendRecord(r)
			res.Appended = append(res.Appended, Appended{isNew, arrival})
			return err
		},
	})
}

// Replace gives a record other flags and another value, keeping its place, its
// ID and its arrival number: a redaction. It no longer expires. The commit
// fails with ErrNotFound if there is no such record. What the record held
// before leaves the files with the next Purge.
func (b *Batch) Replace(id ID, flags uint8, value []byte) {
	b.checkValue(value)
	if flags&(flagReserved|FlagStub) != 0 {
		b.fail(fmt.Errorf("record flags %#x use a reserved bit", flags))
	}
	value = bytes.Clone(value)
	b.add(64+len(value), op{apply: func(t *tx, _ *Result) error { return t.replaceRecord(id, flags, value) }})
}

// Remove forgets a record or stub, also in Keys and Digest. A missing one is
// no error.
func (b *Batch) Remove(id ID) {
	b.add(64, op{apply: func(t *tx, _ *Result) error {
		_, err := t.removeRecord(id)
		return err
	}})
}

// Put sets a key of a bucket. Buckets need not be created.
func (b *Batch) Put(bucket string, key, value []byte) { b.put(kindBucket, bucket, key, value) }

// Delete removes a key of a bucket. A missing one is no error.
func (b *Batch) Delete(bucket string, key []byte) { b.delete(kindBucket, bucket, key) }

// PutEphemeral sets a key of an ephemeral bucket. Ephemeral buckets are apart
// from ordinary ones of the same name. Their values are sealed under the epoch
// key, so that what was overwritten or deleted is unreadable for ever after
// the next RotateEpoch: ratchet states, skipped message keys.
func (b *Batch) PutEphemeral(bucket string, key, value []byte) {
	b.put(kindEphemeral, bucket, key, value)
}

// DeleteEphemeral removes a key of an ephemeral bucket.
func (b *Batch) DeleteEphemeral(bucket string, key []byte) { b.delete(kindEphemeral, bucket, key) }

func (b *Batch) put(kind byte, bucket string, key, value []byte) {
	b.checkName("bucket", bucket)
	b.checkValue(value)
	if err := checkBucketKey(key); err != nil {
		b.fail(err)
		return
	}
	k, v := namedKey(kind, bucket, key), bytes.Clone(value)
	b.add(len(k)+len(v), op{apply: func(t *tx, _ *Result) error {
		t.put(k, v)
		return nil
	}})
}

func (b *Batch) delete(kind byte, bucket string, key []byte) {
	b.checkName("bucket", bucket)
	if err := checkBucketKey(key); err != nil {
		b.fail(err)
		return
	}
	k := namedKey(kind, bucket, key)
	b.add(len(k), op{apply: func(t *tx, _ *Result) error {
		t.del(k)
		return nil
	}})
}

// Schedule puts an item into a queue under its due time (to the millisecond),
// or moves it there and replaces its value if the queue has it already. Queues
// need not be created.
func (b *Batch) Schedule(queue string, due time.Time, id ID, value []byte) {
	b.checkName("queue", queue)
	b.checkValue(value)
	ms, value := millis(due), bytes.Clone(value)
	b.add(128+len(value), op{
		guard: func(*tx) (guardOp, error) {
			return guardOp{code: guardOpSchedule, name: queue, at: ms, id: id, value: value}, nil
		},
		apply: func(t *tx, _ *Result) error { return t.schedule(queue, ms, id, value) },
	})
}

// Unschedule takes an item out of a queue. A missing one is no error.
func (b *Batch) Unschedule(queue string, id ID) {
	b.checkName("queue", queue)
	b.add(128, op{apply: func(t *tx, _ *Result) error { return t.unschedule(queue, id) }})
}

// MarkComplete notes that the stream holds every record of the interval that
// anybody has. Adjacent intervals join. An empty interval changes nothing.
func (b *Batch) MarkComplete(s StreamID, iv Interval) {
	if iv.From >= iv.To {
		return
	}
	b.add(64, op{apply: func(t *tx, _ *Result) error { return t.complete(s, iv) }})
}

// Acknowledge drops records from the guard journal, because somebody else has
// them now. The records themselves stay.
func (b *Batch) Acknowledge(ids ...ID) {
	ids = slices.Clone(ids)
	b.add(32*len(ids), op{apply: func(t *tx, _ *Result) error {
		t.release = append(t.release, ids...)
		return nil
	}})
}

// Guard marks the batch as holding the user's own words: its appends and
// schedules are also written to the guard journal (the last 64 such batches),
// from which Open puts them back should the database have lost them. For
// durable batches; costs a second small write beside the first.
func (b *Batch) Guard() { b.guarded = true }
