package storage

import (
	"context"
	"errors"
	"fmt"
	"iter"
)

// maxReread is how often a reader looks again when an epoch key was erased
// between its snapshot and its look.
const maxReread = 3

// view runs fn on a snapshot.
func (s *Store) view(ctx context.Context, fn func(snap snapshot) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !s.users.enter() {
		return ErrClosed
	}
	defer s.users.leave()
	snap := s.eng.snapshot()
	defer snap.release()
	return fn(snap)
}

// lookup opens one key on a new snapshot; nil if absent.
func (s *Store) lookup(ctx context.Context, key []byte) (plain []byte, err error) {
	for range maxReread {
		err = s.view(ctx, func(snap snapshot) (err error) {
			plain, err = openFrom(s.seal, snap, key)
			return err
		})
		if !errors.Is(err, errErased) {
			return plain, err
		}
	}
	return nil, fmt.Errorf("%w: %w", err, ErrCorrupt)
}

// Get returns a record or stub, or ErrNotFound.
func (s *Store) Get(ctx context.Context, id ID) (r Record, err error) {
	err = s.view(ctx, func(snap snapshot) error {
		r, err = s.record(snap, id)
		return err
	})
	if err != nil {
		return Record{}, fmt.Errorf("getting record %s: %w", id, err)
	}
	return r, nil
}

// record reads a record by ID.
func (s *Store) record(snap snapshot, id ID) (Record, error) {
	b, err := openFrom(s.seal, snap, idKey(id))
	if err != nil {
		return Record{}, err
	}
	if b == nil {
		return Record{}, ErrNotFound
	}
	l, err := parseLocation(b)
	if err != nil {
		return Record{}, err
	}
	if l.flags&FlagStub != 0 {
		return Record{Stream: l.stream, Time: l.time, ID: id, Flags: l.flags}, nil
	}
	return s.recordAt(snap, l.stream, l.position(id))
}

// recordAt reads a record that an index says is there.
func (s *Store) recordAt(snap snapshot, stream StreamID, p Position) (Record, error) {
	b, err := openFrom(s.seal, snap, positionKey(kindRecord, stream, p))
	if errors.Is(err, errErased) {
		return Record{}, fmt.Errorf("record %s has expired: %w", p.ID, ErrNotFound)
	}
	if err != nil {
		return Record{}, err
	}
	if b == nil {
		return Record{}, fmt.Errorf("index names record %s, which is missing: %w", p.ID, ErrCorrupt)
	}
	return parseRecord(stream, p, b)
}

// Has tells for each ID whether the store has it, as a record or stub. All are
// looked up in one snapshot.
func (s *Store) Has(ctx context.Context, ids []ID) ([]bool, error) {
	out := make([]bool, len(ids))
	maybe := make([]int, 0, len(ids))
	for i, id := range ids {
		if !s.absent(id) {
			maybe = append(maybe, i)
		}
	}
	if len(maybe) == 0 { // what is new mostly is: a snapshot costs more than all of this
		return out, s.check(ctx)
	}
	err := s.view(ctx, func(snap snapshot) error {
		for _, i := range maybe {
			b, err := snap.get(idKey(ids[i]))
			if err != nil {
				return err
			}
			out[i] = b != nil
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("looking up records: %w", err)
	}
	return out, nil
}

// span returns the keys of kind in the range, both bounds exclusive.
func (r Range) span(kind byte, s StreamID) span {
	sp := prefixSpan(streamKey(kind, s))
	if !r.After.IsZero() {
		sp.from = append(positionKey(kind, s, r.After), 0)
	}
	if !r.Before.IsZero() {
		sp.to = positionKey(kind, s, r.Before)
	}
	sp.reverse = r.Reverse
	return sp
}

// Scan yields the records of a stream in order of their position, without
// stubs, from one snapshot. It ends after the first error. The snapshot is
// held while the loop runs, so loops should be short; for long walks go page
// by page, the last position being the next bound.
func (s *Store) Scan(ctx context.Context, stream StreamID, r Range) iter.Seq2[Record, error] {
	sp := r.span(kindRecord, stream)
	return s.sequence(ctx, sp, r.Limit, func(key, stored []byte) (Record, error) {
		plain, err := s.seal.open(key, stored)
		if err != nil {
			return Record{}, err
		}
		st, p, err := parsePositionKey(key)
		if err != nil {
			return Record{}, err
		}
		return parseRecord(st, p, plain)
	})
}

// sequence turns a scan into an iterator over decoded records.
func (s *Store) sequence(ctx context.Context, sp span, limit int,
	decode func(key, stored []byte) (Record, error),
) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		n := 0
		stopped := false
		err := s.view(ctx, func(snap snapshot) error {
			var inner error
			err := snap.scan(sp, func(key []byte, value func() ([]byte, error)) bool {
				if inner = s.check(ctx); inner != nil {
					return false
				}
				var r Record
				stored, err := value()
				if err == nil {
					r, err = decode(key, stored)
				}
				if errors.Is(err, errErased) {
					return true // expired, and its key is gone before its entry
				}
				if err != nil {
					inner = err
					return false
				}
				stopped = !yield(r, nil)
				n++
				return !stopped && n != limit
			})
			return errors.Join(inner, err)
		})
		if err != nil && !stopped {
			yield(Record{}, fmt.Errorf("scanning records: %w", err))
		}
	}
}

// Keys yields the positions in a stream in ascending order, records and stubs
// alike, from one snapshot and without reading values: the input of a sync.
// Reverse and Limit of the range are honoured.
func (s *Store) Keys(ctx context.Context, stream StreamID, r Range) iter.Seq2[Position, error] {
	return func(yield func(Position, error) bool) {
		stopped := false
		err := s.view(ctx, func(snap snapshot) error {
			return s.keys(ctx, snap, stream, r, func(p Position) bool {
				stopped = !yield(p, nil)
				return !stopped
			})
		})
		if err != nil && !stopped {
			yield(Position{}, fmt.Errorf("scanning keys: %w", err))
		}
	}
}

// keys merges the positions of records and stubs. Stubs are few (a scan of
// them is collected first), records many.
func (s *Store) keys(ctx context.Context, snap snapshot, stream StreamID, r Range, fn func(Position) bool) error {
	var stubs []Position
	var inner error
	position := func(key []byte) (p Position, ok bool) {
		if inner = ctx.Err(); inner == nil {
			_, p, inner = parsePositionKey(key)
		}
		return p, inner == nil
	}
	err := snap.scan(r.span(kindStub, stream), func(key []byte, _ func() ([]byte, error)) bool {
		p, ok := position(key)
		stubs = append(stubs, p)
		return ok && len(stubs) != r.Limit
	})
	if err = errors.Join(inner, err); err != nil {
		return err
	}
	n, stopped := 0, false
	emit := func(p Position) bool {
		n++
		stopped = !fn(p) || n == r.Limit
		return !stopped
	}
	before := func(a, b Position) bool { return (a.Compare(b) < 0) != r.Reverse }
	err = snap.scan(r.span(kindRecord, stream), func(key []byte, _ func() ([]byte, error)) bool {
		p, ok := position(key)
		for ok && len(stubs) > 0 && before(stubs[0], p) {
			ok = emit(stubs[0])
			stubs = stubs[1:]
		}
		return ok && emit(p)
	})
	for len(stubs) > 0 && inner == nil && !stopped {
		emit(stubs[0])
		stubs = stubs[1:]
	}
	return errors.Join(inner, err)
}

// First returns the oldest record of a stream, or ErrNotFound if it is empty.
func (s *Store) First(ctx context.Context, stream StreamID) (Record, error) {
	return s.end(ctx, stream, Range{Limit: 1})
}

// Last returns the newest record of a stream, or ErrNotFound if it is empty.
func (s *Store) Last(ctx context.Context, stream StreamID) (Record, error) {
	return s.end(ctx, stream, Range{Limit: 1, Reverse: true})
}

func (s *Store) end(ctx context.Context, stream StreamID, r Range) (Record, error) {
	for rec, err := range s.Scan(ctx, stream, r) {
		return rec, err
	}
	return Record{}, fmt.Errorf("stream %x is empty: %w", stream, ErrNotFound)
}

// Complete returns the intervals known to be complete (Batch.MarkComplete),
// ascending and disjoint.
func (s *Store) Complete(ctx context.Context, stream StreamID) ([]Interval, error) {
	b, err := s.lookup(ctx, streamKey(kindComplete, stream))
	if err == nil {
		var list []Interval
		if list, err = parseIntervals(b); err == nil {
			return list, nil
		}
	}
	return nil, fmt.Errorf("reading complete intervals: %w", err)
}
