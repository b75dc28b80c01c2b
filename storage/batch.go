package storage

import (
	"bytes"
	"encoding/binary"
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
	// process; it reaches the disk with the next durable batch or [Store.Sync],
	// or within 250 ms. It is for records that others still hold, and the first
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
	appends int
	guarded bool
	spent   bool
}

// op is one operation of a batch.
type op interface {
	apply(t *tx, r *Result) error
	// guard returns the form in the guard journal; code 0 means none.
	guard(t *tx) (guardOp, error)
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
	b.appends++
	o := &appendOp{sealed: sealRoom(recordHeaderSize + len(r.Value)), expires: expiry(r.Expires), Record: r}
	plain := o.sealed[sealHeaderSize:]
	plain[0] = r.Flags
	binary.BigEndian.PutUint64(plain[9:], o.expires)
	o.Value = plain[recordHeaderSize:]
	copy(o.Value, r.Value)
	b.add(64+len(r.Value), o)
}

// appendOp is an append. The record's plain text lies in sealed, to be sealed
// in place; Value is a part of it.
type appendOp struct {
	Record
	sealed  []byte
	expires uint64
}

func (o *appendOp) apply(t *tx, res *Result) error {
	a, err := t.appendRecord(o)
	res.Appended = append(res.Appended, a)
	return err
}

func (o *appendOp) guard(t *tx) (guardOp, error) { return t.guardAppend(o) }

// Replace gives a record other flags and another value, keeping its place, its
// ID and its arrival number: a redaction. It no longer expires. The commit
// fails with ErrNotFound if there is no such record. What the record held
// before leaves the files with the next Purge.
func (b *Batch) Replace(id ID, flags uint8, value []byte) {
	b.checkValue(value)
	if flags&(flagReserved|FlagStub) != 0 {
		b.fail(fmt.Errorf("record flags %#x use a reserved bit", flags))
	}
	b.add(64+len(value), &replaceOp{id, flags, bytes.Clone(value)})
}

type replaceOp struct {
	id    ID
	flags uint8
	value []byte
}

func (o *replaceOp) apply(t *tx, _ *Result) error { return t.replaceRecord(o.id, o.flags, o.value) }

func (o *replaceOp) guard(*tx) (guardOp, error) {
	return guardOp{code: guardOpReplace, id: o.id, flags: o.flags, value: o.value}, nil
}

// Remove forgets a record or stub, also in Keys and Digest. A missing one is
// no error.
func (b *Batch) Remove(id ID) { b.add(64, removeOp(id)) }

type removeOp ID

func (o removeOp) apply(t *tx, _ *Result) error {
	_, err := t.removeRecord(ID(o))
	return err
}

func (o removeOp) guard(*tx) (guardOp, error) { return guardOp{code: guardOpRemove, id: ID(o)}, nil }

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
	k := namedKey(kind, bucket, key)
	b.add(len(k)+len(value), &putOp{k, append([]byte{}, value...)})
}

func (b *Batch) delete(kind byte, bucket string, key []byte) {
	b.checkName("bucket", bucket)
	if err := checkBucketKey(key); err != nil {
		b.fail(err)
		return
	}
	k := namedKey(kind, bucket, key)
	b.add(len(k), &putOp{k, nil})
}

// putOp sets a database key, or deletes it when the value is nil.
type putOp struct{ key, value []byte }

func (o *putOp) apply(t *tx, _ *Result) error {
	if o.value == nil {
		t.del(o.key)
	} else {
		t.put(o.key, o.value)
	}
	return nil
}

func (o *putOp) guard(*tx) (guardOp, error) {
	if o.value == nil {
		return guardOp{code: guardOpDelete, value: o.key}, nil
	}
	return guardOp{code: guardOpPut, key: o.key, value: o.value}, nil
}

// Schedule puts an item into a queue under its due time (to the millisecond), or
// moves it there and replaces its value if the queue has it
// already. An item is either scheduled or held (see Hold), not both. Queues need
// not be created.
func (b *Batch) Schedule(queue string, due time.Time, id ID, value []byte) {
	b.checkName("queue", queue)
	b.checkValue(value)
	b.add(128+len(value), &scheduleOp{queue, millis(due), id, bytes.Clone(value)})
}

// Hold puts an item into a queue that never falls due, or replaces its value:
// Queue and QueueItem find it, Due does not. It costs half of what Schedule does.
func (b *Batch) Hold(queue string, id ID, value []byte) {
	b.checkName("queue", queue)
	b.checkValue(value)
	b.add(128+len(value), &holdOp{queue, id, bytes.Clone(value)})
}

type holdOp struct {
	queue string
	id    ID
	value []byte
}

func (o *holdOp) apply(t *tx, _ *Result) error {
	t.put(dueKey(o.queue, neverDue, o.id), append([]byte{}, o.value...))
	return nil
}

func (o *holdOp) guard(*tx) (guardOp, error) {
	return guardOp{code: guardOpSchedule, name: o.queue, at: neverDue, id: o.id, value: o.value}, nil
}

// Release takes an item that is held out of a queue. A missing one is no error.
func (b *Batch) Release(queue string, id ID) {
	b.checkName("queue", queue)
	b.add(128, &releaseOp{queue, id})
}

type releaseOp struct {
	queue string
	id    ID
}

func (o *releaseOp) apply(t *tx, _ *Result) error {
	t.del(dueKey(o.queue, neverDue, o.id))
	return nil
}

func (o *releaseOp) guard(*tx) (guardOp, error) {
	return guardOp{code: guardOpUnschedule, name: o.queue, id: o.id}, nil
}

type scheduleOp struct {
	queue string
	ms    uint64
	id    ID
	value []byte
}

func (o *scheduleOp) apply(t *tx, _ *Result) error { return t.schedule(o.queue, o.ms, o.id, o.value) }

func (o *scheduleOp) guard(*tx) (guardOp, error) {
	return guardOp{code: guardOpSchedule, name: o.queue, at: o.ms, id: o.id, value: o.value}, nil
}

// Unschedule takes an item that is scheduled out of a queue. A missing one is no
// error.
func (b *Batch) Unschedule(queue string, id ID) {
	b.checkName("queue", queue)
	b.add(128, &unscheduleOp{queue, id})
}

type unscheduleOp struct {
	queue string
	id    ID
}

func (o *unscheduleOp) apply(t *tx, _ *Result) error { return t.unschedule(o.queue, o.id) }

func (o *unscheduleOp) guard(*tx) (guardOp, error) {
	return guardOp{code: guardOpUnschedule, name: o.queue, id: o.id}, nil
}

// MarkComplete notes that the stream holds every record of the interval that
// anybody has. Adjacent intervals join. An empty interval changes nothing.
func (b *Batch) MarkComplete(s StreamID, iv Interval) {
	if iv.From < iv.To {
		b.add(64, &completeOp{s, iv})
	}
}

type completeOp struct {
	stream StreamID
	Interval
}

func (o *completeOp) apply(t *tx, _ *Result) error { return t.complete(o.stream, o.Interval) }

// guard leaves the interval out: forgetting it only costs a repeated sync.
func (o *completeOp) guard(*tx) (guardOp, error) { return guardOp{}, nil }

// Acknowledge drops records from the guard journal, because somebody else has
// them now. The records themselves stay.
func (b *Batch) Acknowledge(ids ...ID) {
	b.add(32*len(ids), acknowledgeOp(slices.Clone(ids)))
}

type acknowledgeOp []ID

func (o acknowledgeOp) apply(t *tx, _ *Result) error {
	t.release = append(t.release, o...)
	return nil
}

func (o acknowledgeOp) guard(*tx) (guardOp, error) { return guardOp{}, nil }

// Guard marks the batch as holding the user's own words: it is also written to
// the guard journal (the last 64 such batches, 1 MiB at most), from which Open puts it back
// should the database have lost it. For durable batches; costs a second small
// write beside the first.
func (b *Batch) Guard() { b.guarded = true }
