package storage

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// tx is one transaction of the committer: a snapshot with the writes so far
// laid over it. It deals in plain text; writes seals. The writes of one request
// can be rolled back to a savepoint, so a refused batch does not harm its group.
type tx struct {
	s       *Store
	snap    snapshot
	pending map[string]plainWrite // what get may be asked for; nil text means deleted
	undo    []undoEntry
	list    []plainWrite // the rest, in order
	books   map[StreamID]counters
	runs    map[StreamID]*run // arrivals of the transaction
	bytes   int               // rough size of the writes
	guard   []guardEntry
	release []ID // guarded records removed
	after   []func()
}

// plainWrite is a write before it is sealed. With room, the plain text lies
// inside it and is sealed in place (see sealRoom).
type plainWrite struct{ key, plain, room []byte }

// undoEntry restores what get would have returned before, or, when key is
// empty, the counters of a stream.
type undoEntry struct {
	key    string
	prev   plainWrite
	stream StreamID
	books  counters
	had    bool // there was something before
}

// savepoint marks a place to roll back to.
type savepoint struct{ undo, list, bytes, guard, release, after int }

func (s *Store) begin() *tx {
	return &tx{
		s: s, snap: s.eng.snapshot(),
		pending: make(map[string]plainWrite),
		books:   make(map[StreamID]counters), runs: make(map[StreamID]*run),
	}
}

// readBack tells whether a transaction may read a kind after writing it. The
// writes of other kinds need no map.
func readBack(kind byte) bool {
	switch kind {
	case kindRecord, kindArrival, kindStub, kindExpiry, kindDue, kindBucket, kindEphemeral:
		return false
	}
	return true
}

// get returns the plain value, or nil if the key is absent. A present empty
// value is non-nil. The result must not be modified. The kind must be one of
// those of readBack.
func (t *tx) get(key []byte) ([]byte, error) {
	if w, ok := t.pending[string(key)]; ok {
		return w.plain, nil
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
	if !readBack(key[0]) {
		t.list = append(t.list, plainWrite{key: key, plain: plain})
		return
	}
	k := string(key)
	prev, had := t.pending[k]
	t.undo = append(t.undo, undoEntry{key: k, prev: prev, had: had})
	t.pending[k] = plainWrite{key: key, plain: plain}
}

func (t *tx) mark() savepoint {
	return savepoint{len(t.undo), len(t.list), t.bytes, len(t.guard), len(t.release), len(t.after)}
}

func (t *tx) rollback(m savepoint) {
	for i := len(t.undo) - 1; i >= m.undo; i-- {
		switch u := t.undo[i]; {
		case u.key == "" && u.had:
			t.books[u.stream] = u.books
		case u.key == "":
			delete(t.books, u.stream)
		case u.had:
			t.pending[u.key] = u.prev
		default:
			delete(t.pending, u.key)
		}
	}
	t.rollbackRuns()
	t.undo, t.list, t.bytes = t.undo[:m.undo], t.list[:m.list], m.bytes
	t.guard, t.release, t.after = t.guard[:m.guard], t.release[:m.release], t.after[:m.after]
}

// scan visits the stored keys of a span, without the pending writes: for
// requests that run alone and read before they write.
func (t *tx) scan(sp span, fn func(key []byte, value func() ([]byte, error)) bool) error {
	return t.snap.scan(sp, fn)
}

// empty tells whether the transaction changes nothing.
func (t *tx) empty() bool {
	return len(t.pending)+len(t.list)+len(t.books)+len(t.guard)+len(t.release) == 0
}

// writes seals what is pending. A deletion of a key that was never stored is
// kept: it costs less than finding out.
func (t *tx) writes() ([]write, error) {
	out := make([]write, 0, len(t.pending)+len(t.list))
	add := func(w plainWrite) error {
		if w.plain == nil {
			out = append(out, write{key: w.key})
			return nil
		}
		stored, err := t.s.seal.seal(w)
		out = append(out, write{w.key, stored})
		return err
	}
	for _, w := range append(t.list, t.runWrites()...) {
		if err := add(w); err != nil {
			return nil, err
		}
	}
	for id, c := range t.books {
		if err := add(plainWrite{key: streamKey(kindCounters, id), plain: c.encode()}); err != nil {
			return nil, err
		}
	}
	for _, w := range t.pending {
		if err := add(w); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// counters returns the counters of a stream, or ErrNotFound.
func (t *tx) counters(s StreamID) (counters, error) {
	if c, ok := t.books[s]; ok {
		return c, nil
	}
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
	old, had := t.books[s]
	t.undo = append(t.undo, undoEntry{stream: s, books: old, had: had})
	t.books[s] = c
}

// location returns where a record is; ok is false if it does not exist.
func (t *tx) location(id ID) (l location, ok bool, err error) {
	key := idKey(id)
	if _, pending := t.pending[string(key)]; !pending && t.s.absent(id) {
		return location{}, false, nil
	}
	b, err := t.get(key)
	if err != nil || b == nil {
		return location{}, false, err
	}
	l, err = parseLocation(b)
	return l, err == nil, err
}

// touched forgets the cached digest of a day whose set of ids changed. That a
// day has none is remembered from one transaction to the next.
func (t *tx) touched(s StreamID, time uint64) error {
	day := streamDay{s, Day(time)}
	if t.s.undigested[day] {
		return nil
	}
	key := digestKey(s, day.day)
	if _, pending := t.pending[string(key)]; pending {
		return nil // deleted already, if this transaction is not rolled back
	}
	b, err := t.get(key)
	if err != nil {
		return err
	}
	if b != nil {
		t.del(key)
		return nil
	}
	if len(t.s.undigested) >= maxUndigested {
		clear(t.s.undigested)
	}
	t.s.undigested[day] = true
	return nil
}

// streamDay is one day of a stream.
type streamDay struct {
	stream StreamID
	day    uint32
}

// maxUndigested bounds Store.undigested; beyond it the map starts anew.
const maxUndigested = 4096

// appendRecord adds a record, unless the store has it.
func (t *tx) appendRecord(o *appendOp) (Appended, error) {
	old, exists, err := t.location(o.ID)
	if err != nil {
		return Appended{}, err
	}
	stub := o.Flags&FlagStub != 0
	upgrade := exists && old.flags&FlagStub != 0 && !stub && old.stream == o.Stream && old.time == o.Time
	if exists && !upgrade {
		return Appended{Arrival: old.arrival}, nil
	}
	c, err := t.counters(o.Stream)
	if err != nil {
		return Appended{}, err
	}
	if upgrade {
		t.del(positionKey(kindStub, o.Stream, o.Position()))
		c.stubs--
	} else {
		c.changes++
		if err := t.touched(o.Stream, o.Time); err != nil {
			return Appended{}, err
		}
	}
	loc := location{stream: o.Stream, time: o.Time, flags: o.Flags, expires: o.expires}
	if stub {
		c.stubs++
		t.put(positionKey(kindStub, o.Stream, o.Position()), nil)
	} else {
		c.count++
		c.arrival++
		c.bytes += uint64(len(o.Value))
		loc.arrival, loc.size = c.arrival, uint32(len(o.Value))
		t.putRecord(o, loc.arrival)
		t.arrive(o.Stream, loc.arrival, o.Position())
		if loc.expires != 0 {
			t.put(expiryKey(loc.expires, o.ID), nil)
		}
	}
	t.put(idKey(o.ID), loc.encode())
	t.s.noteID(o.ID)
	t.putCounters(o.Stream, c)
	return Appended{New: true, Arrival: loc.arrival}, nil
}

// putRecord adds the record itself, which brings the room to seal it in.
func (t *tx) putRecord(o *appendOp, arrival uint64) {
	key := positionKey(kindRecord, o.Stream, o.Position())
	plain := o.sealed[sealHeaderSize:]
	binary.BigEndian.PutUint64(plain[1:], arrival)
	t.list = append(t.list, plainWrite{key, plain, o.sealed})
	t.bytes += len(key) + cap(o.sealed)
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
