package storage

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
)

// Stream states, the first byte of a stream entry.
const (
	streamLive     = 1
	streamDropping = 2 // DropStream was interrupted; Open goes on with it
)

// nextStreamName is the key of the next stream handle.
const nextStreamName = "stream"

// Stream returns the handle of a named stream, making the stream if needed.
// The name (1 to MaxNameSize bytes, any bytes) is sealed on disk. Handles are
// never used twice.
func (s *Store) Stream(ctx context.Context, name string) (StreamID, error) {
	if err := checkName("stream", name); err != nil {
		return StreamID{}, err
	}
	id, err := s.LookupStream(ctx, name)
	if err == nil || !errors.Is(err, ErrNotFound) {
		return id, err
	}
	err = s.submit(ctx, &request{ops: 4, fn: func(t *tx) (err error) {
		id, err = t.makeStream(name)
		return err
	}})
	if err != nil {
		return StreamID{}, fmt.Errorf("making stream: %w", err)
	}
	return id, nil
}

func (t *tx) makeStream(name string) (id StreamID, err error) {
	key := namedKey(kindName, name, nil)
	b, err := t.get(key)
	if err != nil {
		return id, err
	}
	if b != nil {
		return parseStreamID(b)
	}
	next := uint64(1)
	if b, err = t.get(storeKey(nextStreamName)); err != nil {
		return id, err
	}
	if len(b) == 8 {
		next = binary.BigEndian.Uint64(b)
	}
	binary.BigEndian.PutUint64(id[:], next)
	t.put(storeKey(nextStreamName), be64(next+1))
	t.put(key, id[:])
	t.put(streamKey(kindStream, id), append([]byte{streamLive}, name...))
	t.putCounters(id, counters{})
	return id, nil
}

func parseStreamID(b []byte) (id StreamID, err error) {
	if len(b) != len(id) {
		return id, fmt.Errorf("stream handle of %d bytes: %w", len(b), ErrCorrupt)
	}
	return StreamID(b), nil
}

// LookupStream returns the handle of a named stream, or ErrNotFound; it makes
// none.
func (s *Store) LookupStream(ctx context.Context, name string) (id StreamID, err error) {
	b, err := s.lookup(ctx, namedKey(kindName, name, nil))
	if err == nil && b == nil {
		err = ErrNotFound
	}
	if err == nil {
		id, err = parseStreamID(b)
	}
	if err != nil {
		return StreamID{}, fmt.Errorf("looking up stream: %w", err)
	}
	return id, nil
}

// StreamInfo describes a stream.
type StreamInfo struct {
	ID   StreamID
	Name string
	// Count is the number of records, Stubs that of stubs (FlagStub).
	Count, Stubs uint64
	// Bytes is the size of the records' values.
	Bytes uint64
	// Arrival is the last arrival number given out.
	Arrival uint64
	// Floor: Trim removed the records before this time.
	Floor uint64
	// Changes goes up with every record or stub added or removed, and with
	// nothing else: equal numbers mean an equal set.
	Changes uint64
}

// Info returns the counts of a stream, or ErrNotFound. It is cheap.
func (s *Store) Info(ctx context.Context, id StreamID) (info StreamInfo, err error) {
	err = s.view(ctx, func(snap snapshot) error {
		info, err = s.info(snap, id)
		return err
	})
	if err != nil {
		return StreamInfo{}, fmt.Errorf("reading stream %x: %w", id, err)
	}
	return info, nil
}

func (s *Store) info(snap snapshot, id StreamID) (StreamInfo, error) {
	b, err := openFrom(s.seal, snap, streamKey(kindStream, id))
	if err != nil {
		return StreamInfo{}, err
	}
	if len(b) == 0 || b[0] != streamLive {
		return StreamInfo{}, ErrNotFound
	}
	c, err := s.counters(snap, id)
	if err != nil {
		return StreamInfo{}, err
	}
	return StreamInfo{
		ID: id, Name: string(b[1:]), Count: c.count, Stubs: c.stubs, Bytes: c.bytes,
		Arrival: c.arrival, Floor: c.floor, Changes: c.changes,
	}, nil
}

func (s *Store) counters(snap snapshot, id StreamID) (counters, error) {
	b, err := openFrom(s.seal, snap, streamKey(kindCounters, id))
	if err == nil && b == nil {
		err = ErrNotFound
	}
	if err != nil {
		return counters{}, err
	}
	return parseCounters(b)
}

// Count returns the number of records in a stream, without stubs.
func (s *Store) Count(ctx context.Context, id StreamID) (uint64, error) {
	info, err := s.Info(ctx, id)
	return info.Count, err
}

// Streams returns all streams in the order in which they were made.
func (s *Store) Streams(ctx context.Context) (out []StreamInfo, err error) {
	err = s.view(ctx, func(snap snapshot) error {
		ids, err := streamIDs(snap)
		if err != nil {
			return err
		}
		for _, id := range ids {
			info, err := s.info(snap, id)
			if errors.Is(err, ErrNotFound) {
				continue
			}
			if err != nil {
				return err
			}
			out = append(out, info)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing streams: %w", err)
	}
	return out, nil
}

func streamIDs(snap snapshot) (ids []StreamID, err error) {
	var inner error
	err = snap.scan(prefixSpan([]byte{kindStream}), func(key []byte, _ func() ([]byte, error)) bool {
		var id StreamID
		id, inner = parseStreamID(key[1:])
		ids = append(ids, id)
		return inner == nil
	})
	return ids, errors.Join(inner, err)
}

// dropChunk is how many keys one transaction of DropStream or Trim removes.
const dropChunk = 1024

// DropStream removes a stream with its records, stubs, digests and search
// index; a missing one is no error. Its handle is invalid at once; the rest is
// removed step by step and finished by the next Open if interrupted.
func (s *Store) DropStream(ctx context.Context, id StreamID) error {
	gone := false
	err := s.update(ctx, Durable, func(t *tx) error {
		key := streamKey(kindStream, id)
		b, err := t.get(key)
		if err != nil {
			return err
		}
		if gone = len(b) == 0; gone {
			return nil
		}
		name := slices.Clone(b[1:])
		t.put(key, append([]byte{streamDropping}, name...))
		t.del(namedKey(kindName, string(name), nil))
		t.after = append(t.after, func() { s.search.drop(id) })
		return nil
	})
	if err == nil && !gone {
		err = s.finishDrop(ctx, id)
	}
	if err != nil {
		return fmt.Errorf("dropping stream %x: %w", id, err)
	}
	return nil
}

// finishDrop removes what belongs to a stream, the entry itself last.
func (s *Store) finishDrop(ctx context.Context, id StreamID) error {
	for _, kind := range []byte{kindRecord, kindStub} {
		if err := s.removeAll(ctx, id, kind); err != nil {
			return err
		}
	}
	for _, kind := range []byte{kindArrival, kindDigest, kindPosting} {
		if err := s.deleteSpan(ctx, prefixSpan(streamKey(kind, id))); err != nil {
			return err
		}
	}
	return s.update(ctx, Durable, func(t *tx) error {
		for _, kind := range []byte{kindComplete, kindCounters, kindIndexed, kindStream} {
			t.del(streamKey(kind, id))
		}
		return nil
	})
}

// removeAll removes every record or stub of a stream.
func (s *Store) removeAll(ctx context.Context, id StreamID, kind byte) error {
	for n := dropChunk; n == dropChunk; {
		err := s.update(ctx, Relaxed, func(t *tx) error {
			list, err := collect(t, prefixSpan(streamKey(kind, id)), dropChunk)
			n = len(list)
			for _, p := range list {
				if _, rerr := t.removeRecord(p.ID); rerr != nil && err == nil {
					err = rerr
				}
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// collect returns the positions of up to limit records or stubs of a span (0 =
// all).
func collect(t *tx, sp span, limit int) (list []Position, err error) {
	var inner error
	err = t.scan(sp, func(key []byte, _ func() ([]byte, error)) bool {
		var p Position
		_, p, inner = parsePositionKey(key)
		list = append(list, p)
		return inner == nil && len(list) != limit
	})
	return list, errors.Join(inner, err)
}

// deleteSpan deletes every key of a span, step by step.
func (s *Store) deleteSpan(ctx context.Context, sp span) error {
	for n := dropChunk; n == dropChunk; {
		err := s.update(ctx, Relaxed, func(t *tx) error {
			n = 0
			return t.scan(sp, func(key []byte, _ func() ([]byte, error)) bool {
				t.del(slices.Clone(key))
				n++
				return n < dropChunk
			})
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// DayDigest sums up the set of ids (records and stubs) of one UTC day.
type DayDigest struct {
	Day   uint32
	Count uint32
	// Sum is SHA-256 over the ids, each 32 bytes, sorted ascending.
	Sum [32]byte
}

// Digest returns the digest of one day. It is cached until the day's set
// changes; computing it costs a scan of the day's keys.
func (s *Store) Digest(ctx context.Context, stream StreamID, day uint32) (d DayDigest, err error) {
	var fresh bool
	var changes uint64
	err = s.view(ctx, func(snap snapshot) error {
		c, err := s.counters(snap, stream)
		if err != nil {
			return err
		}
		changes = c.changes
		d, fresh, err = s.digest(ctx, snap, stream, day)
		return err
	})
	if err != nil {
		return DayDigest{}, fmt.Errorf("computing digest: %w", err)
	}
	if fresh {
		s.cacheDigest(ctx, stream, changes, d)
	}
	return d, nil
}

// Digests yields the digests of all days from first to last that hold
// anything, ascending.
func (s *Store) Digests(ctx context.Context, stream StreamID, first, last uint32) iter.Seq2[DayDigest, error] {
	return func(yield func(DayDigest, error) bool) {
		for day := uint64(first); day <= uint64(last); day++ {
			next, ok, err := s.nextDay(ctx, stream, uint32(day))
			if err == nil && (!ok || next > last) {
				return
			}
			var d DayDigest
			if err == nil {
				day = uint64(next)
				d, err = s.Digest(ctx, stream, next)
			}
			if !yield(d, err) || err != nil {
				return
			}
		}
	}
}

// nextDay returns the first day from the given one on that holds anything.
func (s *Store) nextDay(ctx context.Context, stream StreamID, day uint32) (next uint32, ok bool, err error) {
	r := Range{Limit: 1}
	if start := DayStart(day); start > 0 {
		r.After = Position{start - 1, maxID}
	}
	for p, err := range s.Keys(ctx, stream, r) {
		return Day(p.Time), err == nil, err
	}
	return 0, false, nil
}

// maxID is the largest ID, for bounds.
var maxID = ID(slices.Repeat([]byte{0xff}, 32))

// digest returns the cached digest, or a fresh one.
func (s *Store) digest(ctx context.Context, snap snapshot, stream StreamID, day uint32) (d DayDigest, fresh bool, err error) {
	b, err := openFrom(s.seal, snap, digestKey(stream, day))
	if err != nil {
		return d, false, err
	}
	if b != nil {
		d, err = parseDigest(day, b)
		return d, false, err
	}
	d, err = s.computeDigest(ctx, snap, stream, day)
	return d, true, err
}

func (s *Store) computeDigest(ctx context.Context, snap snapshot, stream StreamID, day uint32) (DayDigest, error) {
	r := Range{Before: Position{Time: DayStart(day + 1)}}
	if start := DayStart(day); start > 0 {
		r.After = Position{start - 1, maxID}
	}
	var ids []ID
	if err := s.keys(ctx, snap, stream, r, func(p Position) bool {
		ids = append(ids, p.ID)
		return true
	}); err != nil {
		return DayDigest{}, err
	}
	slices.SortFunc(ids, func(a, b ID) int { return Position{ID: a}.Compare(Position{ID: b}) })
	h := sha256.New()
	for _, id := range ids {
		h.Write(id[:])
	}
	return DayDigest{Day: day, Count: uint32(len(ids)), Sum: [32]byte(h.Sum(nil))}, nil
}

func parseDigest(day uint32, b []byte) (DayDigest, error) {
	if len(b) != 36 {
		return DayDigest{}, fmt.Errorf("digest of %d bytes: %w", len(b), ErrCorrupt)
	}
	return DayDigest{Day: day, Count: binary.BigEndian.Uint32(b), Sum: [32]byte(b[4:])}, nil
}

// cacheDigest keeps a digest if the stream has not changed since. Failing is
// harmless: the digest is computed again.
func (s *Store) cacheDigest(ctx context.Context, stream StreamID, changes uint64, d DayDigest) {
	err := s.update(ctx, Relaxed, func(t *tx) error {
		c, err := t.counters(stream)
		if err == nil && c.changes == changes {
			delete(s.undigested, streamDay{stream, d.Day})
			t.put(digestKey(stream, d.Day), append(binary.BigEndian.AppendUint32(nil, d.Count), d.Sum[:]...))
		}
		return err
	})
	if err != nil {
		s.log.Debug("digest not cached", "error", err)
	}
}
