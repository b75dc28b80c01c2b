package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Retention is what Trim keeps of a stream. Zero fields keep everything.
type Retention struct {
	// Before: records with a smaller time go.
	Before uint64
	// Count is the most records to keep, Bytes the most bytes of values; the
	// oldest go first.
	Count, Bytes uint64
}

// Trimmed says what a retention run removed.
type Trimmed struct {
	Records, Stubs int
	Bytes          uint64 // of the records' values
}

// Trim removes the oldest records and stubs of a stream until the retention
// holds, raises the stream's floor to the oldest time kept, and cuts the
// known-complete intervals below it. It works in short transactions, so others
// write meanwhile; when it is interrupted, the next run goes on.
func (s *Store) Trim(ctx context.Context, stream StreamID, keep Retention) (Trimmed, error) {
	var sum Trimmed
	for more := true; more; {
		err := s.update(ctx, Relaxed, func(t *tx) (err error) {
			var step Trimmed
			step, more, err = t.trim(stream, keep)
			t.after = append(t.after, func() {
				sum.Records += step.Records
				sum.Stubs += step.Stubs
				sum.Bytes += step.Bytes
			})
			return err
		})
		if err != nil {
			return sum, fmt.Errorf("trimming stream %x: %w", stream, err)
		}
	}
	return sum, nil
}

// trim removes up to dropChunk of the oldest entries.
func (t *tx) trim(stream StreamID, keep Retention) (step Trimmed, more bool, err error) {
	c, err := t.counters(stream)
	if err != nil {
		return step, false, err
	}
	oldest, err := collect(t, prefixSpan(streamKey(kindRecord, stream)), dropChunk+1)
	if err != nil {
		return step, false, err
	}
	full := len(oldest) > dropChunk
	excess := func() bool {
		return keep.Count > 0 && c.count-uint64(step.Records) > keep.Count ||
			keep.Bytes > 0 && c.bytes-step.Bytes > keep.Bytes
	}
	floor := keep.Before
	i := 0
	for ; i < min(len(oldest), dropChunk) && (oldest[i].Time < keep.Before || excess()); i++ {
		l, err := t.removeRecord(oldest[i].ID)
		if err != nil {
			return step, false, err
		}
		step.Records++
		step.Bytes += uint64(l.size)
		floor = max(floor, oldest[i].Time+1)
	}
	if err := t.trimStubs(stream, floor, &step); err != nil {
		return step, false, err
	}
	more = full && i == dropChunk || step.Stubs == dropChunk
	if err := t.trimRuns(stream); err != nil {
		return step, false, err
	}
	return step, more, t.raiseFloor(stream, floor)
}

func (t *tx) trimStubs(stream StreamID, floor uint64, step *Trimmed) error {
	sp := span{from: streamKey(kindStub, stream), to: positionKey(kindStub, stream, Position{Time: floor})}
	stubs, err := collect(t, sp, dropChunk)
	if err != nil || floor == 0 {
		return err
	}
	for _, p := range stubs {
		if _, err := t.removeRecord(p.ID); err != nil {
			return err
		}
		step.Stubs++
	}
	return nil
}

// raiseFloor notes that everything before floor is gone.
func (t *tx) raiseFloor(stream StreamID, floor uint64) error {
	c, err := t.counters(stream)
	if err != nil || floor <= c.floor {
		return err
	}
	c.floor = floor
	t.putCounters(stream, c)
	key := streamKey(kindComplete, stream)
	b, err := t.get(key)
	if err != nil || len(b) == 0 {
		return err
	}
	list, err := parseIntervals(b)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(iv Interval) bool { return iv.To <= floor })
	if len(list) > 0 {
		list[0].From = max(list[0].From, floor)
	}
	t.put(key, encodeIntervals(list))
	return nil
}

// recordOverhead is what Usage counts for a record besides its value: keys,
// indexes and seals, about what they take on disk.
const recordOverhead = 200

// Usage returns about how many bytes all records take.
func (s *Store) Usage(ctx context.Context) (uint64, error) {
	streams, err := s.Streams(ctx)
	var sum uint64
	for _, st := range streams {
		sum += st.usage()
	}
	return sum, err
}

func (i StreamInfo) usage() uint64 { return i.Bytes + recordOverhead*(i.Count+i.Stubs) }

// Cap removes records until Usage is at most limit bytes: always the oldest
// eighth of the stream that uses most, so that one big stream does not push
// out small ones. Streams for which keep returns true are left alone (nil
// keeps none).
func (s *Store) Cap(ctx context.Context, limit uint64, keep func(StreamInfo) bool) (Trimmed, error) {
	var sum Trimmed
	for {
		streams, err := s.Streams(ctx)
		if err != nil {
			return sum, err
		}
		var total uint64
		var biggest StreamInfo
		for _, st := range streams {
			total += st.usage()
			if st.usage() > biggest.usage() && st.Count > 0 && (keep == nil || !keep(st)) {
				biggest = st
			}
		}
		if total <= limit || biggest.Count == 0 {
			return sum, nil
		}
		// Not more than is needed, not less than one record, and an eighth at
		// most before the next look at which stream is biggest.
		average := biggest.usage() / biggest.Count
		n := min((total-limit)/average+1, biggest.Count/8+1)
		if n == biggest.Count { // the last one: Count 0 would mean "no limit"
			err = s.removeAll(ctx, biggest.ID, kindRecord)
			sum.Records += int(biggest.Count)
			sum.Bytes += biggest.Bytes
		} else {
			var step Trimmed
			step, err = s.Trim(ctx, biggest.ID, Retention{Count: biggest.Count - n})
			sum.Records += step.Records
			sum.Stubs += step.Stubs
			sum.Bytes += step.Bytes
		}
		if err != nil {
			return sum, err
		}
	}
}

// Sweep deals with the records whose expiry has passed and returns their
// number. For each, stub returns the value that takes its place (as Replace
// does), or nil to remove the record; a nil stub removes all. stub must not
// call the store. Then the cipher keys of the past hours are erased.
func (s *Store) Sweep(ctx context.Context, stub func(Record) []byte) (int, error) {
	now := millis(s.opts.Now())
	total := 0
	for n := resealChunk; n == resealChunk; {
		err := s.update(ctx, Durable, func(t *tx) (err error) {
			n, err = t.sweep(now, stub)
			return err
		})
		if err != nil {
			return total, fmt.Errorf("sweeping expired records: %w", err)
		}
		total += n
	}
	err := s.update(ctx, Durable, func(t *tx) error {
		ring := s.seal.ring
		return ring.erase(func(_ uint32, k ringKey) bool { return k.until != 0 && k.until <= now })
	})
	if err != nil {
		return total, fmt.Errorf("erasing expiry keys: %w", err)
	}
	return total, nil
}

func (t *tx) sweep(now uint64, stub func(Record) []byte) (n int, err error) {
	sp := span{from: []byte{kindExpiry}, to: expiryKey(now+1, ID{})}
	var inner error
	var ids []ID
	err = t.scan(sp, func(key []byte, _ func() ([]byte, error)) bool {
		if len(key) != 41 {
			inner = fmt.Errorf("expiry key of %d bytes: %w", len(key), ErrCorrupt)
			return false
		}
		ids = append(ids, ID(key[9:]))
		return len(ids) < resealChunk
	})
	if err = errors.Join(inner, err); err != nil {
		return 0, err
	}
	streams := make(map[StreamID]bool)
	for _, id := range ids {
		var value []byte
		r, err := t.s.record(t.snap, id)
		switch {
		case errors.Is(err, ErrNotFound): // its key is gone already: only remove
		case err != nil:
			return 0, err
		case stub != nil:
			value = stub(r)
		}
		if value == nil {
			var l location
			l, err = t.removeRecord(id)
			streams[l.stream] = true
		} else {
			err = t.replaceRecord(id, r.Flags, value)
		}
		if err != nil {
			return 0, err
		}
	}
	for st := range streams {
		if err := t.trimRuns(st); err != nil {
			return 0, err
		}
	}
	return len(ids), nil
}
