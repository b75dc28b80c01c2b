package storage

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
)

// Arrival order is kept in runs: the records of a stream that came in one
// transaction stand in one entry, whose key is the first one's arrival number.
// A run is not changed when records are removed; what it names is there only
// if the record's id entry has the same arrival number. Trim and Sweep delete
// runs from the front once nothing they name is left.

// maxRun is the most records in one run.
const maxRun = 256

// runEntrySize is time8 and id32.
const runEntrySize = 40

// run is a decoded run: positions[i] has the arrival number first+i.
type run struct {
	first     uint64
	positions []Position
}

func (r run) end() uint64 { return r.first + uint64(len(r.positions)) }

func encodeRun(positions []Position) []byte {
	b := make([]byte, 0, runEntrySize*len(positions))
	for _, p := range positions {
		b = binary.BigEndian.AppendUint64(b, p.Time)
		b = append(b, p.ID[:]...)
	}
	return b
}

func parseRun(key, b []byte) (run, error) {
	if len(key) != 17 || len(b) == 0 || len(b)%runEntrySize != 0 || len(b) > maxRun*runEntrySize {
		return run{}, fmt.Errorf("arrival run of %d bytes: %w", len(b), ErrCorrupt)
	}
	r := run{first: binary.BigEndian.Uint64(key[9:]), positions: make([]Position, 0, len(b)/runEntrySize)}
	for ; len(b) > 0; b = b[runEntrySize:] {
		r.positions = append(r.positions, Position{binary.BigEndian.Uint64(b), ID(b[8:runEntrySize])})
	}
	return r, nil
}

// arrive notes the next arrival in a transaction.
func (t *tx) arrive(s StreamID, arrival uint64, p Position) {
	r := t.runs[s]
	if r == nil {
		r = &run{first: arrival}
		t.runs[s] = r
	}
	r.positions = append(r.positions, p)
}

// rollbackRuns cuts the runs back to the counters after a rollback.
func (t *tx) rollbackRuns() {
	for s, r := range t.runs {
		if c, ok := t.books[s]; ok && c.arrival >= r.first {
			r.positions = r.positions[:c.arrival-r.first+1]
		} else {
			delete(t.runs, s)
		}
	}
}

// runWrites returns the runs of a transaction as writes.
func (t *tx) runWrites() []plainWrite {
	var out []plainWrite
	for s, r := range t.runs {
		for i := 0; i < len(r.positions); i += maxRun {
			part := r.positions[i:min(i+maxRun, len(r.positions))]
			out = append(out, plainWrite{key: arrivalKey(s, r.first+uint64(i)), plain: encodeRun(part)})
		}
	}
	return out
}

// runAt returns the run that holds an arrival number, or ErrNotFound.
func runAt(sl *sealer, snap snapshot, s StreamID, arrival uint64) (r run, err error) {
	sp := prefixSpan(streamKey(kindArrival, s))
	sp.to = append(arrivalKey(s, arrival), 0)
	sp.reverse = true
	err = ErrNotFound
	serr := snap.scan(sp, func(key []byte, value func() ([]byte, error)) bool {
		r, err = openRun(sl, key, value)
		return false
	})
	if serr != nil {
		return run{}, serr
	}
	if err == nil && arrival >= r.end() {
		err = ErrNotFound
	}
	return r, err
}

func openRun(sl *sealer, key []byte, value func() ([]byte, error)) (run, error) {
	stored, err := value()
	if err != nil {
		return run{}, err
	}
	plain, err := sl.open(key, stored)
	if err != nil {
		return run{}, err
	}
	return parseRun(key, plain)
}

// arrivalsAfter calls fn for each entry of the runs with an arrival number
// greater than after, whether its record is still there or not.
func (s *Store) arrivalsAfter(ctx context.Context, snap snapshot, stream StreamID, after uint64, fn func(arrival uint64, p Position) (bool, error)) error {
	sp := prefixSpan(streamKey(kindArrival, stream))
	sp.from = append(arrivalKey(stream, after), 0)
	if r, err := runAt(s.seal, snap, stream, after); err == nil {
		sp.from = arrivalKey(stream, r.first)
	} else if !errors.Is(err, ErrNotFound) {
		return err
	}
	var inner error
	err := snap.scan(sp, func(key []byte, value func() ([]byte, error)) bool {
		if inner = s.check(ctx); inner != nil {
			return false
		}
		var r run
		if r, inner = openRun(s.seal, key, value); inner != nil {
			return false
		}
		more := true
		for i, p := range r.positions {
			if a := r.first + uint64(i); a > after && more && inner == nil {
				more, inner = fn(a, p)
			}
		}
		return more && inner == nil
	})
	return errors.Join(inner, err)
}

// present tells whether the record that a run names is still there.
func (s *Store) present(snap snapshot, stream StreamID, arrival uint64, p Position) (bool, error) {
	b, err := openFrom(s.seal, snap, idKey(p.ID))
	if err != nil || b == nil {
		return false, err
	}
	l, err := parseLocation(b)
	return err == nil && l.stream == stream && l.time == p.Time && l.arrival == arrival, err
}

// recordOf reads the record that a run names, or ErrNotFound if it is gone.
func (s *Store) recordOf(snap snapshot, stream StreamID, arrival uint64, p Position) (Record, error) {
	b, err := openFrom(s.seal, snap, positionKey(kindRecord, stream, p))
	if err == nil && b != nil {
		r, err := parseRecord(stream, p, b)
		if err == nil && r.Arrival != arrival {
			err = ErrNotFound // it was removed and came again
		}
		return r, err
	}
	if errors.Is(err, errErased) {
		return Record{}, ErrNotFound
	}
	if err != nil {
		return Record{}, err
	}
	ok, err := s.present(snap, stream, arrival, p)
	switch {
	case err != nil:
		return Record{}, err
	case ok:
		return Record{}, fmt.Errorf("index names record %s, which is missing: %w", p.ID, ErrCorrupt)
	}
	return Record{}, ErrNotFound
}

// ScanArrival yields records in the order of their arrival, from the one after
// the given arrival number. Replaced records keep their number; removed ones
// leave a hole.
func (s *Store) ScanArrival(ctx context.Context, stream StreamID, after uint64, limit int) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		n := 0
		stopped := false
		err := s.view(ctx, func(snap snapshot) error {
			return s.arrivalsAfter(ctx, snap, stream, after, func(arrival uint64, p Position) (bool, error) {
				if err := s.check(ctx); err != nil {
					return false, err
				}
				r, err := s.recordOf(snap, stream, arrival, p)
				if errors.Is(err, ErrNotFound) {
					return true, nil
				}
				if err != nil {
					return false, err
				}
				n++
				stopped = !yield(r, nil)
				return !stopped && n != limit, nil
			})
		})
		if err != nil && !stopped {
			yield(Record{}, fmt.Errorf("scanning arrivals: %w", err))
		}
	}
}

// CountAfter returns how many records arrived after the given arrival number,
// counting no further than limit (0 = no limit): the unread.
func (s *Store) CountAfter(ctx context.Context, stream StreamID, arrival uint64, limit int) (int, error) {
	n := 0
	err := s.view(ctx, func(snap snapshot) error {
		c, err := s.counters(snap, stream)
		if err != nil {
			return err
		}
		if c.count == c.arrival { // nothing was ever removed
			n = int(c.arrival - min(c.arrival, arrival))
			if limit > 0 {
				n = min(n, limit)
			}
			return nil
		}
		return s.arrivalsAfter(ctx, snap, stream, arrival, func(a uint64, p Position) (bool, error) {
			ok, err := s.present(snap, stream, a, p)
			if ok {
				n++
			}
			return n != limit || limit == 0, err
		})
	})
	if err != nil {
		return 0, fmt.Errorf("counting arrivals: %w", err)
	}
	return n, nil
}

// runTrim is how many entries of runs one transaction looks at.
const runTrim = 4 * dropChunk

// trimRuns deletes the runs at the front of a stream that name nothing any
// more, taking the pending removals of the transaction into account.
func (t *tx) trimRuns(stream StreamID) error {
	seen := 0
	var inner error
	err := t.scan(prefixSpan(streamKey(kindArrival, stream)), func(key []byte, value func() ([]byte, error)) bool {
		var r run
		if r, inner = openRun(t.s.seal, key, value); inner != nil {
			return false
		}
		for i, p := range r.positions {
			l, ok, err := t.location(p.ID)
			if inner = err; err != nil || ok && l.stream == stream && l.arrival == r.first+uint64(i) {
				return false
			}
		}
		t.del(bytes.Clone(key))
		seen += len(r.positions)
		return seen < runTrim
	})
	return errors.Join(inner, err)
}
