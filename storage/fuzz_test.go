package storage

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
)

// refused wants a decoder's error to say that the data is damaged.
func refused(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, ErrCorrupt) {
		t.Fatalf("error is not ErrCorrupt: %v", err)
	}
}

// FuzzValues gives every decoder of database keys and values arbitrary bytes:
// what it accepts must encode to the same bytes again.
func FuzzValues(f *testing.F) {
	id, st := testID(1), StreamID{1}
	for kind, b := range map[byte][]byte{
		0: positionKey(kindRecord, st, Position{5, id}),
		1: location{st, 7, 1, 9, 11, 13}.encode(),
		2: encodeRecord(3, 4, 5, []byte("value")),
		3: counters{1, 2, 3, 4, 5, 6}.encode(),
		4: encodeIntervals([]Interval{{1, 2}, {4, 9}}),
		5: encodeRun([]Position{{1, id}, {2, id}}),
		6: encodePosting([]uint16{0, 1, 500, 2047}),
		7: append(be64(5), id[:]...),
		8: append([]byte{0, 0, 0, 3}, make([]byte, 32)...),
	} {
		f.Add(kind, b)
	}
	f.Fuzz(func(t *testing.T, kind byte, b []byte) {
		var again []byte
		var err error
		switch kind % 9 {
		case 0:
			var s StreamID
			var p Position
			if s, p, err = parsePositionKey(b); err == nil {
				again = positionKey(b[0], s, p)
			}
		case 1:
			var l location
			l, err = parseLocation(b)
			again = l.encode()
		case 2:
			var r Record
			if r, err = parseRecord(st, Position{}, b); err == nil {
				again = encodeRecord(r.Flags, r.Arrival, expiry(r.Expires), r.Value)
				if ms := binary.BigEndian.Uint64(b[9:]); ms > maxMillis { // clamped
					binary.BigEndian.PutUint64(again[9:], ms)
				}
			}
		case 3:
			var c counters
			c, err = parseCounters(b)
			again = c.encode()
		case 4:
			var list []Interval
			list, err = parseIntervals(b)
			again = encodeIntervals(list)
		case 5:
			var r run
			r, err = parseRun(arrivalKey(st, 1), b)
			again = encodeRun(r.positions)
		case 6:
			var o []uint16
			o, err = parsePosting(b)
			again = encodePosting(o)
		case 7:
			var ms uint64
			var i ID
			ms, i, err = parseDueKey(b)
			again = append(be64(ms), i[:]...)
			if it, ierr := parseItem(b, nil); (ierr == nil) != (err == nil) || err == nil && (it.ID != i || it.Due.IsZero() != (ms == neverDue || ms == 0)) {
				t.Fatalf("item %x is read as %+v, %v", b, it, ierr)
			}
		case 8:
			var d DayDigest
			d, err = parseDigest(1, b)
			again = append(binary.BigEndian.AppendUint32(nil, d.Count), d.Sum[:]...)
		}
		if err != nil {
			refused(t, err)
		} else if !bytes.Equal(again, b) {
			t.Fatalf("kind %d: %x became %x", kind%9, b, again)
		}
	})
}

func FuzzGuardOps(f *testing.F) {
	var ops []byte
	for _, o := range []guardOp{
		{code: guardOpAppend, name: "room", at: 1, id: testID(1), flags: 2, expires: 3, value: []byte("v")},
		{code: guardOpSchedule, name: "outbox", at: 5, id: testID(2)},
		{code: guardOpUnschedule, name: "outbox", id: testID(2)},
		{code: guardOpReplace, id: testID(3), flags: 1, value: []byte("v")},
		{code: guardOpRemove, id: testID(3)},
		{code: guardOpPut, key: namedKey(kindBucket, "b", []byte("k")), value: []byte("v")},
		{code: guardOpDelete, value: namedKey(kindEphemeral, "b", nil)},
	} {
		ops = appendGuardOp(ops, o)
	}
	f.Add(ops)
	f.Add([]byte{0, 0, 0, 2, 'a', 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := parseGuardOps(b)
		if err != nil {
			refused(t, err)
			return
		}
		var again []byte
		for _, o := range list {
			again = appendGuardOp(again, o)
		}
		if !bytes.Equal(again, b) {
			t.Fatalf("%x became %x", b, again)
		}
	})
}

func FuzzKeyRing(f *testing.F) {
	r := newKeyRing()
	if err := r.start(); err != nil {
		f.Fatal(err)
	}
	if _, _, err := r.forExpiry(1 << 41); err != nil {
		f.Fatal(err)
	}
	f.Add(r.encode())
	f.Add([]byte{1, 0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := newKeyRing()
		if err := r.decode(b); err != nil {
			refused(t, err)
		} else if again := r.encode(); !bytes.Equal(again, b) {
			t.Fatalf("%x became %x", b, again)
		}
	})
}

func FuzzStateFile(f *testing.F) {
	st := diskState{Version: 1, Clean: true, KeyCheck: "aa", MemTable: 1, Seq: 5, Tables: []tableInfo{{"000001.sst", 5, 6, 7}}}
	f.Add(st.encode())
	f.Add([]byte("starling-store 2 x\n{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		st, err := parseDiskState(b)
		if err != nil {
			if !errors.Is(err, ErrNewer) {
				refused(t, err)
			}
			return
		}
		if again, err := parseDiskState(st.encode()); err != nil || !bytes.Equal(again.encode(), st.encode()) {
			t.Fatalf("%q: %v", st.encode(), err)
		}
	})
}

// FuzzSealed opens arbitrary bytes under an arbitrary key.
func FuzzSealed(f *testing.F) {
	s := newSealer(testKey)
	if err := s.ring.start(); err != nil {
		f.Fatal(err)
	}
	key := namedKey(kindBucket, "b", nil)
	f.Add(key, sealWith(s.static, 0, key, []byte("value")))
	f.Add(idKey(testID(1)), s.appendTag(idKey(testID(1)), []byte("value")))
	f.Fuzz(func(t *testing.T, key, stored []byte) {
		if len(key) == 0 {
			return
		}
		plain, err := s.open(key, stored)
		switch {
		case errors.Is(err, errErased):
		case err != nil:
			refused(t, err)
		case !bytes.Contains([]byte("value"), plain):
			t.Fatalf("%x opened to %q", stored, plain)
		}
	})
}

// FuzzTerms: a text matches itself, and its terms are what a query for it asks.
func FuzzTerms(f *testing.F) {
	for _, s := range []string{"Hello, World", "今天天气", "ｆｕｌｌ", "a\xffb", "ﷺ", "한국 タワー x1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 1000 {
			return
		}
		if !TextMatches(text, text) {
			t.Fatalf("%q does not match itself", text)
		}
		terms := Terms(text)
		for _, q := range queryTerms(text) {
			found := false
			for _, term := range terms {
				found = found || term == q
			}
			if !found {
				t.Fatalf("%q is asked for and not indexed: %q", q, terms)
			}
		}
	})
}
