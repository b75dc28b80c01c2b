package storage

import (
	"context"
	"errors"
	"slices"
)

// repairBudget is how many bytes of repairs one transaction takes. Where more
// are needed, the stream is gone through again.
const repairBudget = groupBytes / 2

// errAgain: the budget is used up.
var errAgain = errors.New("more repairs needed")

// checkStream compares a stream's records with its counts, indexes and digests
// and repairs the latter. Each pass is one transaction, so that nothing moves.
func (s *Store) checkStream(ctx context.Context, id StreamID, rep *Report) error {
	for again := true; again; {
		err := s.update(ctx, Durable, func(t *tx) error {
			err := t.checkStream(ctx, id, rep)
			again = errors.Is(err, errAgain)
			if again {
				return nil
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) checkStream(ctx context.Context, id StreamID, rep *Report) error {
	entry, err := t.get(streamKey(kindStream, id))
	if err != nil || len(entry) == 0 {
		return err
	}
	if entry[0] == streamLive {
		key := namedKey(kindName, string(entry[1:]), nil)
		if b, err := t.get(key); err == nil && b == nil {
			note(&rep.Repaired, "stream %x: restored its name", id)
			t.put(key, id[:])
		}
	}
	sum, err := t.checkRecords(id, rep)
	if err != nil {
		return err
	}
	if err := t.checkStubs(id, &sum, rep); err != nil {
		return err
	}
	if err := t.checkCounters(id, sum, rep); err != nil {
		return err
	}
	if err := t.checkDigests(ctx, id, rep); err != nil {
		return err
	}
	rep.Records += int(sum.count)
	rep.Stubs += int(sum.stubs)
	return nil
}

// checkRecords walks the records and restores missing or wrong id, arrival and
// expiry entries. It returns the true counts.
func (t *tx) checkRecords(id StreamID, rep *Report) (counters, error) {
	var sum counters
	var recent run // the last one used: records stand close together
	var inner error
	sp := prefixSpan(streamKey(kindRecord, id))
	err := t.scan(sp, func(key []byte, value func() ([]byte, error)) bool {
		if t.bytes > repairBudget {
			inner = errAgain
			return false
		}
		stored, err := value()
		if err != nil {
			inner = err
			return false
		}
		plain, err := t.s.seal.open(key, stored)
		if errors.Is(err, errErased) {
			return true
		}
		var r Record
		var p Position
		if err == nil {
			_, p, err = parsePositionKey(key)
		}
		if err == nil {
			r, err = parseRecord(id, p, plain)
		}
		if err == nil {
			err = t.checkRecord(r, rep, &recent)
		}
		if err != nil {
			inner = err
			return false
		}
		sum.count++
		sum.bytes += uint64(len(r.Value))
		sum.arrival = max(sum.arrival, r.Arrival)
		return true
	})
	return sum, errors.Join(inner, err)
}

func (t *tx) checkRecord(r Record, rep *Report, recent *run) error {
	want := location{r.Stream, r.Time, r.Flags, r.Arrival, uint32(len(r.Value)), expiry(r.Expires)}
	if got, ok, err := t.location(r.ID); err != nil {
		return err
	} else if !ok || got != want {
		note(&rep.Repaired, "record %s: restored its id entry", r.ID)
		t.put(idKey(r.ID), want.encode())
		t.s.noteID(r.ID)
	}
	if err := t.checkArrival(r, rep, recent); err != nil {
		return err
	}
	if want.expires == 0 {
		return nil
	}
	b, err := t.get(expiryKey(want.expires, r.ID))
	if err == nil && b == nil {
		note(&rep.Repaired, "record %s: restored its expiry entry", r.ID)
		t.put(expiryKey(want.expires, r.ID), nil)
	}
	return err
}

// checkArrival makes sure that a run names the record.
func (t *tx) checkArrival(r Record, rep *Report, recent *run) error {
	if r.Arrival < recent.first || r.Arrival >= recent.end() {
		found, err := runAt(t.s.seal, t.snap, r.Stream, r.Arrival)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		*recent = found
	}
	if r.Arrival >= recent.first && r.Arrival < recent.end() && recent.positions[r.Arrival-recent.first] == r.Position() {
		return nil
	}
	*recent = run{}
	note(&rep.Repaired, "record %s: restored its arrival entry", r.ID)
	t.put(arrivalKey(r.Stream, r.Arrival), encodeRun([]Position{r.Position()}))
	return nil
}

func (t *tx) checkStubs(id StreamID, sum *counters, rep *Report) error {
	stubs, err := collect(t, prefixSpan(streamKey(kindStub, id)), 0)
	for _, p := range stubs {
		sum.stubs++
		l, ok, err := t.location(p.ID)
		if err != nil {
			return err
		}
		if ok && (l.stream != id || l.time != p.Time || l.flags&FlagStub == 0) {
			note(&rep.Repaired, "stub %s: removed, its record is there", p.ID)
			t.del(positionKey(kindStub, id, p))
			sum.stubs--
		} else if !ok {
			note(&rep.Repaired, "stub %s: restored its id entry", p.ID)
			t.put(idKey(p.ID), location{stream: id, time: p.Time, flags: FlagStub}.encode())
			t.s.noteID(p.ID)
		}
		if t.bytes > repairBudget {
			return errAgain
		}
	}
	return err
}

func (t *tx) checkCounters(id StreamID, sum counters, rep *Report) error {
	got, err := t.counters(id)
	missing := errors.Is(err, ErrNotFound)
	if err != nil && !missing {
		return err
	}
	want := got
	want.count, want.stubs, want.bytes = sum.count, sum.stubs, sum.bytes
	want.arrival = max(got.arrival, sum.arrival)
	if want != got || missing {
		note(&rep.Repaired, "stream %x: counted %d records and %d bytes, the books said %d and %d",
			id, want.count, want.bytes, got.count, got.bytes)
		want.changes++
		t.putCounters(id, want)
	}
	return nil
}

// checkDigests removes cached digests that are wrong.
func (t *tx) checkDigests(ctx context.Context, id StreamID, rep *Report) error {
	var days []uint32
	err := t.scan(prefixSpan(streamKey(kindDigest, id)), func(key []byte, _ func() ([]byte, error)) bool {
		if len(key) == 13 {
			days = append(days, uint32(key[9])<<24|uint32(key[10])<<16|uint32(key[11])<<8|uint32(key[12]))
		}
		return true
	})
	for _, day := range days {
		b, gerr := t.get(digestKey(id, day))
		if gerr != nil {
			return gerr
		}
		got, perr := parseDigest(day, b)
		want, werr := t.s.computeDigest(ctx, t.snap, id, day)
		if werr != nil {
			return werr
		}
		if perr != nil || got != want {
			note(&rep.Repaired, "stream %x: dropped the wrong digest of day %d", id, day)
			t.del(digestKey(id, day))
		}
	}
	return err
}

// checkOrphans removes id entries that name no record and no stub, so that the
// record can be appended again.
func (s *Store) checkOrphans(ctx context.Context, streams []StreamID, rep *Report) error {
	var orphans []ID
	err := s.view(ctx, func(snap snapshot) error {
		var inner error
		sp := prefixSpan([]byte{kindID})
		err := snap.scan(sp, func(key []byte, value func() ([]byte, error)) bool {
			if inner = s.check(ctx); inner != nil {
				return false
			}
			var found bool
			if found, inner = s.locationHolds(snap, key, value); inner == nil && !found {
				orphans = append(orphans, ID(key[1:]))
			}
			return inner == nil
		})
		return errors.Join(inner, err)
	})
	if err != nil {
		return err
	}
	for part := range slices.Chunk(orphans, dropChunk) {
		err := s.update(ctx, Durable, func(t *tx) error { return t.dropOrphans(part, rep) })
		if err != nil {
			return err
		}
	}
	return nil
}

// locationHolds tells whether what an id entry names is there.
func (s *Store) locationHolds(snap snapshot, key []byte, value func() ([]byte, error)) (bool, error) {
	stored, err := value()
	if err != nil {
		return false, err
	}
	plain, err := s.seal.open(key, stored)
	if err != nil {
		return false, err
	}
	l, err := parseLocation(plain)
	if err != nil {
		return false, err
	}
	kind := byte(kindRecord)
	if l.flags&FlagStub != 0 {
		kind = kindStub
	}
	b, err := snap.get(positionKey(kind, l.stream, l.position(ID(key[1:]))))
	return b != nil, err
}

func (t *tx) dropOrphans(ids []ID, rep *Report) error {
	for _, id := range ids {
		l, ok, err := t.location(id)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		kind := byte(kindRecord)
		if l.flags&FlagStub != 0 {
			kind = kindStub
		}
		if b, err := t.get(positionKey(kind, l.stream, l.position(id))); err == nil && b == nil {
			note(&rep.Repaired, "record %s: dropped an id entry without a record", id)
			t.del(idKey(id))
		}
	}
	return nil
}
