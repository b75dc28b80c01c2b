package storage

import (
	"bytes"
	"fmt"
)

// tx is one transaction of the committer: a snapshot with the writes so far
// laid over it. It deals in plain text; flush seals. The writes of one request
// can be rolled back to a savepoint, so a refused batch does not harm its group.
type tx struct {
	s       *Store
	snap    snapshot
	pending map[string]*[]byte // key to plain text; a nil slice means deleted
	undo    []undoEntry
	bytes   int // rough size of the pending writes
	guard   []guardEntry
	release []ID // guarded records removed
	after   []func()
}

type undoEntry struct {
	key  string
	prev *[]byte
}

// savepoint marks a place to roll back to.
type savepoint struct{ undo, bytes, guard, release, after int }

func (s *Store) begin() *tx {
	return &tx{s: s, snap: s.eng.snapshot(), pending: make(map[string]*[]byte)}
}

// get returns the plain value, or nil if the key is absent. A present empty
// value is non-nil. The result must not be modified.
func (t *tx) get(key []byte) ([]byte, error) {
	if p, ok := t.pending[string(key)]; ok {
		return *p, nil
	}
	return openFrom(t.s.seal, t.snap, key)
}

// openFrom reads and opens one key; nil if absent.
func openFrom(sl *sealer, snap snapshot, key []byte) ([]byte, error) {
	stored, err := snap.get(key)
	if err != nil || stored == nil {
		return nil, err
	}
	plain, err := sl.open(key, stored)
	if plain == nil && err == nil {
		plain = []byte{}
	}
	return plain, err
}

func (t *tx) put(key, plain []byte) {
	if plain == nil {
		plain = []byte{}
	}
	t.set(key, plain)
	t.bytes += len(key) + len(plain) + sealOverhead
}

func (t *tx) del(key []byte) {
	t.set(key, nil)
	t.bytes += len(key)
}

func (t *tx) set(key, plain []byte) {
	k := string(key)
	t.undo = append(t.undo, undoEntry{k, t.pending[k]})
	t.pending[k] = &plain
}

func (t *tx) mark() savepoint {
	return savepoint{len(t.undo), t.bytes, len(t.guard), len(t.release), len(t.after)}
}

func (t *tx) rollback(m savepoint) {
	for i := len(t.undo) - 1; i >= m.undo; i-- {
		if u := t.undo[i]; u.prev == nil {
			delete(t.pending, u.key)
		} else {
			t.pending[u.key] = u.prev
		}
	}
	t.undo, t.bytes = t.undo[:m.undo], m.bytes
	t.guard, t.release, t.after = t.guard[:m.guard], t.release[:m.release], t.after[:m.after]
}

// scan visits the stored keys of a span, without the pending writes: for
// requests that run alone and read before they write.
func (t *tx) scan(sp span, fn func(key []byte, value func() ([]byte, error)) bool) error {
	return t.snap.scan(sp, fn)
}

// writes seals what is pending. A deletion of a key that was never stored is
// kept: it costs less than finding out.
func (t *tx) writes() ([]write, error) {
	out := make([]write, 0, len(t.pending)+1)
	for k, p := range t.pending {
		w := write{key: []byte(k)}
		if *p != nil {
			var err error
			if w.value, err = t.s.seal.seal(w.key, *p); err != nil {
				return nil, err
			}
		}
		out = append(out, w)
	}
	return out, nil
}

// counters returns the counters of a stream, or ErrNotFound.
func (t *tx) counters(s StreamID) (counters, error) {
	b, err := t.get(streamKey(kindCounters, s))
	if err != nil {
		return counters{}, err
	}
	if b == nil {
		return counters{}, fmt.Errorf("stream %x: %w", s, ErrNotFound)
	}
	return parseCounters(b)
}

func (t *tx) putCounters(s StreamID, c counters) {
	t.put(streamKey(kindCounters, s), c.encode())
}

// location returns where a record is; ok is false if it does not exist.
func (t *tx) location(id ID) (l location, ok bool, err error) {
	b, err := t.get(idKey(id))
	if err != nil || b == nil {
		return location{}, false, err
	}
	l, err = parseLocation(b)
	return l, err == nil, err
}

// touched forgets the cached digest of a day whose set of ids changed.
func (t *tx) touched(s StreamID, time uint64) error {
	key := digestKey(s, Day(time))
	b, err := t.get(key)
	if err == nil && b != nil {
		t.del(key)
	}
	return err
}

// appendRecord adds a record and returns its arrival number and whether it is
// new to the store.
func (t *tx) appendRecord(r Record) (arrival uint64, isNew bool, err error) {
	old, exists, err := t.location(r.ID)
	if err != nil {
		return 0, false, err
	}
	stub := r.Flags&FlagStub != 0
	upgrade := exists && old.flags&FlagStub != 0 && !stub && old.stream == r.Stream && old.time == r.Time
	if exists && !upgrade {
		return old.arrival, false, nil
	}
	c, err := t.counters(r.Stream)
	if err != nil {
		return 0, false, err
	}
	if upgrade {
		t.del(positionKey(kindStub, r.Stream, r.Position()))
		c.stubs--
	} else {
		c.changes++
		if err := t.touched(r.Stream, r.Time); err != nil {
			return 0, false, err
		}
	}
	loc := location{stream: r.Stream, time: r.Time, flags: r.Flags, expires: expiry(r.Expires)}
	if stub {
		c.stubs++
		t.put(positionKey(kindStub, r.Stream, r.Position()), nil)
	} else {
		c.count++
		c.arrival++
		c.bytes += uint64(len(r.Value))
		loc.arrival, loc.size = c.arrival, uint32(len(r.Value))
		t.put(positionKey(kindRecord, r.Stream, r.Position()), encodeRecord(r.Flags, loc.arrival, loc.expires, r.Value))
		t.put(arrivalKey(r.Stream, loc.arrival), encodeArrival(r.Position()))
		if loc.expires != 0 {
			t.put(expiryKey(loc.expires, r.ID), nil)
		}
	}
	t.put(idKey(r.ID), loc.encode())
	t.putCounters(r.Stream, c)
	return loc.arrival, true, nil
}

// replaceRecord gives a record other flags and another value; it no longer expires.
func (t *tx) replaceRecord(id ID, flags uint8, value []byte) error {
	l, ok, err := t.location(id)
	if err != nil {
		return err
	}
	if !ok || l.flags&FlagStub != 0 {
		return fmt.Errorf("replacing record %s: %w", id, ErrNotFound)
	}
	c, err := t.counters(l.stream)
	if err != nil {
		return err
	}
	c.bytes += uint64(len(value)) - uint64(l.size)
	if l.expires != 0 {
		t.del(expiryKey(l.expires, id))
	}
	l.flags, l.size, l.expires = flags, uint32(len(value)), 0
	t.put(positionKey(kindRecord, l.stream, l.position(id)), encodeRecord(flags, l.arrival, 0, value))
	t.put(idKey(id), l.encode())
	t.putCounters(l.stream, c)
	t.release = append(t.release, id)
	return nil
}

// removeRecord forgets a record or stub; a missing one is no error.
func (t *tx) removeRecord(id ID) (location, error) {
	l, ok, err := t.location(id)
	if err != nil || !ok {
		return l, err
	}
	c, err := t.counters(l.stream)
	if err != nil {
		return l, err
	}
	if err := t.touched(l.stream, l.time); err != nil {
		return l, err
	}
	c.changes++
	if l.flags&FlagStub != 0 {
		c.stubs--
		t.del(positionKey(kindStub, l.stream, l.position(id)))
	} else {
		c.count--
		c.bytes -= uint64(l.size)
		t.del(positionKey(kindRecord, l.stream, l.position(id)))
		t.del(arrivalKey(l.stream, l.arrival))
		if l.expires != 0 {
			t.del(expiryKey(l.expires, id))
		}
	}
	t.del(idKey(id))
	t.putCounters(l.stream, c)
	t.release = append(t.release, id)
	return l, nil
}

// schedule puts an item into a queue, or moves it to another due time.
func (t *tx) schedule(queue string, ms uint64, id ID, value []byte) error {
	if err := t.unschedule(queue, id); err != nil {
		return err
	}
	t.put(dueKey(queue, ms, id), value)
	t.put(queuedKey(queue, id), be64(ms))
	return nil
}

func (t *tx) unschedule(queue string, id ID) error {
	b, err := t.get(queuedKey(queue, id))
	if err != nil || b == nil {
		return err
	}
	if len(b) != 8 {
		return fmt.Errorf("queue entry of %d bytes: %w", len(b), ErrCorrupt)
	}
	t.del(namedKey(kindDue, queue, append(bytes.Clone(b), id[:]...)))
	t.del(queuedKey(queue, id))
	return nil
}

// maxIntervals is the most known-complete intervals kept for one stream; the
// oldest are forgotten first, which only costs a repeated sync.
const maxIntervals = 1024

// complete adds an interval to those known to be complete, joining neighbours.
func (t *tx) complete(s StreamID, add Interval) error {
	key := streamKey(kindComplete, s)
	if _, err := t.counters(s); err != nil {
		return err
	}
	b, err := t.get(key)
	if err != nil {
		return err
	}
	list, err := parseIntervals(b)
	if err != nil {
		return err
	}
	t.put(key, encodeIntervals(joinInterval(list, add)))
	return nil
}

func joinInterval(list []Interval, add Interval) []Interval {
	out := make([]Interval, 0, len(list)+1)
	placed := false
	for _, iv := range list {
		switch {
		case iv.To < add.From:
			out = append(out, iv)
		case iv.From > add.To:
			if !placed {
				out, placed = append(out, add), true
			}
			out = append(out, iv)
		default:
			add.From, add.To = min(add.From, iv.From), max(add.To, iv.To)
		}
	}
	if !placed {
		out = append(out, add)
	}
	return out[max(0, len(out)-maxIntervals):]
}
