package storage

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/dgraph-io/badger/v4"
)

// version is one version of a key as Badger keeps it, dead ones included.
type version struct{ key, stored []byte }

// allVersions returns every version of the keys of a kind in the database.
func allVersions(t *testing.T, s *Store, kind byte) (out []version) {
	t.Helper()
	err := s.disk.engine.db.View(func(txn *badger.Txn) error {
		o := badger.DefaultIteratorOptions
		o.AllVersions, o.Prefix = true, []byte{kind}
		it := txn.NewIterator(o)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			v, err := it.Item().ValueCopy(nil)
			if err != nil {
				return err
			}
			out = append(out, version{it.Item().KeyCopy(nil), v})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// readable counts the versions that open.
func readable(s *Store, versions []version) (n int) {
	for _, v := range versions {
		if _, err := s.seal.open(v.key, v.stored); err == nil {
			n++
		}
	}
	return n
}

// TestEpochErasure: states that were overwritten are still on disk after a
// rotation, and cannot be opened.
func TestEpochErasure(t *testing.T) {
	dir := memoryDir(t)
	s := mustOpen(t, testOptions(dir))
	for i := range 300 {
		var b Batch
		for k := range 5 {
			b.PutEphemeral("ratchet", []byte{byte(k)}, fmt.Appendf(nil, "state %d", i))
		}
		if _, err := s.Commit(t.Context(), &b, Relaxed); err != nil {
			t.Fatal(err)
		}
	}
	before := allVersions(t, s, kindEphemeral)
	if n := readable(s, before); n != 1500 {
		t.Fatalf("%d of %d versions open before the rotation", n, len(before))
	}
	old, err := os.ReadFile(filepath.Join(dir, epochName))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RotateEpoch(t.Context()); err != nil {
		t.Fatal(err)
	}
	after := allVersions(t, s, kindEphemeral)
	if n := readable(s, after); n != 5 || len(after) != 1505 {
		t.Fatalf("%d of %d versions open after the rotation, want the 5 live ones", n, len(after))
	}
	if now, err := os.ReadFile(filepath.Join(dir, epochName)); err != nil || bytes.Equal(now, old) {
		t.Fatalf("the key file did not change: %v", err)
	}
	if n := readable(s, before); n != 0 {
		t.Fatalf("%d old versions open", n)
	}
	mustClose(t, s)
	s = mustOpen(t, testOptions(dir))
	if v, err := s.GetEphemeral(t.Context(), "ratchet", []byte{3}); err != nil || string(v) != "state 299" {
		t.Fatalf("live state: %q, %v", v, err)
	}
	if len(s.seal.ring.keys) != 1 {
		t.Fatalf("%d keys in the ring", len(s.seal.ring.keys))
	}
}

// TestExpiryErasure: the text of a record that has expired cannot be opened
// after the sweep, though Badger may still have it.
func TestExpiryErasure(t *testing.T) {
	now := time.UnixMilli(1_000_000_000_000)
	o := testOptions(memoryDir(t))
	o.Now = func() time.Time { return now }
	s := mustOpen(t, o)
	st, err := s.Stream(t.Context(), "room")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		var b Batch
		b.Append(Record{Stream: st, Time: uint64(i), ID: testID(i), Value: []byte("secret"), Expires: now.Add(time.Duration(i+1) * time.Hour)})
		if _, err := s.Commit(t.Context(), &b, Durable); err != nil {
			t.Fatal(err)
		}
	}
	before := allVersions(t, s, kindRecord)
	now = now.Add(10*time.Hour + time.Minute)
	if n, err := s.Sweep(t.Context(), nil); n != 10 || err != nil {
		t.Fatalf("swept %d, %v", n, err)
	}
	// The key of an hour goes when the whole hour has passed.
	if n := readable(s, before); n < 10 || n > 11 {
		t.Fatalf("%d old versions open, want 10 or 11", n)
	}
	if got, err := s.Get(t.Context(), testID(10)); err != nil || string(got.Value) != "secret" {
		t.Fatalf("a record that has not expired: %q, %v", got.Value, err)
	}
	for _, r := range []time.Duration{0, 10 * 24 * time.Hour, 300 * 24 * time.Hour, 1000 * 24 * time.Hour, 1 << 62} {
		for i := range 3000 {
			_, _, err := s.seal.ring.forExpiry(millis(now.Add(r + time.Duration(i)*time.Hour)))
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := len(s.seal.ring.keys); n > 1400 {
		t.Fatalf("%d keys in the ring", n)
	}
	if err := new(keyRing).decode(s.seal.ring.encode()); err != nil {
		t.Fatal(err)
	}
}

// TestPurge: what was replaced, removed and deleted leaves the database.
func TestPurge(t *testing.T) {
	s := mustOpen(t, testOptions(memoryDir(t)))
	st, err := s.Stream(t.Context(), "room")
	if err != nil {
		t.Fatal(err)
	}
	var add, change Batch
	for i := range 50 {
		add.Append(Record{Stream: st, Time: uint64(i), ID: testID(i), Value: []byte("secret")})
		add.Put("bucket", []byte{byte(i)}, []byte("secret"))
		switch i % 3 {
		case 0:
			change.Replace(testID(i), 0, []byte("stub"))
			change.Put("bucket", []byte{byte(i)}, []byte("changed"))
		case 1:
			change.Remove(testID(i))
			change.Delete("bucket", []byte{byte(i)})
		}
	}
	for _, b := range []*Batch{&add, &change} {
		if _, err := s.Commit(t.Context(), b, Durable); err != nil {
			t.Fatal(err)
		}
	}
	secrets := func() (n int) {
		for _, kind := range []byte{kindRecord, kindBucket} {
			for _, v := range allVersions(t, s, kind) {
				if plain, err := s.seal.open(v.key, v.stored); err == nil && bytes.Contains(plain, []byte("secret")) {
					n++
				}
			}
		}
		return n
	}
	if n := secrets(); n != 100 {
		t.Fatalf("%d secrets before the purge, want 100: the test proves nothing", n)
	}
	if err := s.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := secrets(); n != 32 {
		t.Fatalf("%d secrets after the purge, want the 32 that live", n)
	}
	if rep, err := s.Check(t.Context()); err != nil || !rep.OK() {
		t.Fatalf("check: %+v, %v", rep, err)
	}
}

// TestMovedValues: a value put under another key of the same kind, or given
// another version or key number, does not open.
func TestMovedValues(t *testing.T) {
	s := mustOpen(t, testOptions(memoryDir(t)))
	w := fillWorld(t, s, 4)
	if err := s.Index(t.Context(), w.Stream, 1, "some words"); err != nil {
		t.Fatal(err)
	}
	if err := s.FlushSearch(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Digest(t.Context(), w.Stream, 0); err != nil {
		t.Fatal(err)
	}
	kindsSeen := 0
	for _, kind := range []byte(kinds) {
		versions := allVersions(t, s, kind)
		if len(versions) == 0 {
			continue
		}
		kindsSeen++
		v := versions[0]
		other := bytes.Clone(v.key)
		other[len(other)-1] ^= 1
		if _, err := s.seal.open(other, v.stored); err == nil {
			t.Errorf("a value of kind %q opens under another key", kind)
		}
		for i := range v.stored {
			v.stored[i] ^= 0x10
			if _, err := s.seal.open(v.key, v.stored); err == nil {
				t.Errorf("a value of kind %q opens with byte %d changed", kind, i)
			}
			v.stored[i] ^= 0x10
		}
		for _, n := range []int{0, 1, len(v.stored) - 1} {
			if _, err := s.seal.open(v.key, v.stored[:n]); err == nil {
				t.Errorf("a value of kind %q opens when cut to %d bytes", kind, n)
			}
		}
	}
	if kindsSeen < 11 {
		t.Fatalf("only %d kinds are in the database", kindsSeen)
	}
	// The same through the store: swap two records on disk.
	snap := s.eng.snapshot()
	a, b := positionKey(kindRecord, w.Stream, Position{1 << 16, testID(0)}), positionKey(kindRecord, w.Stream, Position{2 << 16, testID(1)})
	va, _ := snap.get(a)
	vb, _ := snap.get(b)
	snap.release()
	if va == nil || vb == nil {
		t.Fatal("records not found")
	}
	if err := s.eng.apply([]write{{a, vb}, {b, va}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), testID(0)); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("a swapped record: %v", err)
	}
	rep, err := s.Check(t.Context())
	if err != nil || len(rep.Damaged) != 2 {
		t.Fatalf("check: %+v, %v", rep, err)
	}
	if rep, err = s.Check(t.Context()); err != nil || !rep.OK() {
		t.Fatalf("second check: %+v, %v", rep, err)
	}
	if n, err := s.Count(t.Context(), w.Stream); err != nil || n != 2 {
		t.Fatalf("%d records, %v", n, err)
	}
}

// TestCheckRepairs breaks each kind of book entry; Check puts all right.
func TestCheckRepairs(t *testing.T) {
	for name, harm := range map[string]func(s *Store, w *world) []write{
		"id entry lost":       func(*Store, *world) []write { return []write{{idKey(testID(3)), nil}} },
		"arrival run lost":    func(_ *Store, w *world) []write { return []write{{arrivalKey(w.Stream, 3), nil}} },
		"arrival run damaged": func(_ *Store, w *world) []write { return []write{{arrivalKey(w.Stream, 3), []byte("noise")}} },
		"record lost": func(_ *Store, w *world) []write {
			return []write{{positionKey(kindRecord, w.Stream, Position{4 << 16, testID(3)}), nil}}
		},
		"counters damaged": func(_ *Store, w *world) []write {
			return []write{{streamKey(kindCounters, w.Stream), []byte("noise, noise")}}
		},
		"name lost": func(*Store, *world) []write { return []write{{namedKey(kindName, "room", nil), nil}} },
		"bucket value damaged": func(*Store, *world) []write {
			return []write{{namedKey(kindBucket, "bucket", []byte("3")), []byte("noise")}}
		},
		"wrong counts": func(s *Store, w *world) []write {
			k := streamKey(kindCounters, w.Stream)
			return []write{{k, s.seal.appendTag(k, counters{count: 7, arrival: 2}.encode())}}
		},
		"wrong digest": func(s *Store, w *world) []write {
			k := digestKey(w.Stream, 0)
			return []write{{k, s.seal.appendTag(k, make([]byte, 36))}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := mustOpen(t, testOptions(memoryDir(t)))
			w := fillWorld(t, s, 10)
			if err := s.eng.apply(harm(s, w)); err != nil {
				t.Fatal(err)
			}
			rep, err := s.Check(t.Context())
			if err != nil || rep.OK() {
				t.Fatalf("check: %+v, %v", rep, err)
			}
			if rep, err = s.Check(t.Context()); err != nil || !rep.OK() {
				t.Fatalf("second check: %+v, %v", rep, err)
			}
			var arrivals []uint64
			for r, err := range s.ScanArrival(t.Context(), w.Stream, 0, 0) {
				if err != nil {
					t.Fatal(err)
				}
				arrivals = append(arrivals, r.Arrival)
			}
			info, err := s.Info(t.Context(), w.Stream)
			if err != nil || info.Count != uint64(len(arrivals)) || info.Arrival != 10 || len(arrivals) < 9 {
				t.Fatalf("info %+v, arrivals %v, %v", info, arrivals, err)
			}
			if missing, told := w.compare(t, s); missing > 3 || told > 0 {
				t.Fatalf("%d missing, %d damaged", missing, told)
			}
		})
	}
}

// TestCanary: nothing that was stored can be read in the files.
func TestCanary(t *testing.T) {
	dir := memoryDir(t)
	s := mustOpen(t, testOptions(dir))
	canary := "canary-in-a-coal-mine"
	st, err := s.Stream(t.Context(), canary+"-stream")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		var b Batch
		b.Append(Record{Stream: st, Time: uint64(i), ID: testID(i), Value: []byte(canary)})
		b.Put(canary+"-bucket", []byte(canary+"-key"), []byte(canary))
		b.PutEphemeral(canary+"-secret", []byte(canary+"-key"), []byte(canary))
		b.Schedule(canary+"-queue", time.UnixMilli(1), testID(i), []byte(canary))
		b.Guard()
		if _, err := s.Commit(t.Context(), &b, Durable); err != nil {
			t.Fatal(err)
		}
		if err := s.Index(t.Context(), st, uint64(i+1), canary); err != nil {
			t.Fatal(err)
		}
	}
	look := func() {
		t.Helper()
		err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			for _, word := range []string{"canary", string(testKey[:16])} {
				if bytes.Contains(b, []byte(word)) {
					t.Errorf("%s holds %q", filepath.Base(path), word)
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	look()
	mustClose(t, s)
	look()
}

// TestClockJumps: records, queues and expiries bear a clock that is years off
// and comes back; nothing goes before its time by the clock of the moment.
func TestClockJumps(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	o := testOptions(memoryDir(t))
	o.Now = func() time.Time { return now }
	s := mustOpen(t, o)
	st, err := s.Stream(t.Context(), "room")
	if err != nil {
		t.Fatal(err)
	}
	times := []time.Duration{0, 24 * time.Hour, -24 * time.Hour, 3 * 365 * 24 * time.Hour, -3 * 365 * 24 * time.Hour, 0}
	began := now
	for i, jump := range times {
		now = began.Add(jump)
		var b Batch
		b.Append(Record{Stream: st, Time: ClockTime(now), ID: testID(i), Expires: began.Add(time.Hour), Value: []byte{byte(i)}})
		b.PutEphemeral("secret", []byte("state"), []byte{byte(i)})
		b.Schedule("queue", now.Add(time.Minute), testID(i), nil)
		if _, err := s.Commit(t.Context(), &b, Durable); err != nil {
			t.Fatal(err)
		}
		if err := s.RotateEpoch(t.Context()); err != nil {
			t.Fatal(err)
		}
		mustClose(t, s)
		s = mustOpen(t, o)
		if v, err := s.GetEphemeral(t.Context(), "secret", []byte("state")); err != nil || v[0] != byte(i) {
			t.Fatalf("jump %d: state %v, %v", i, v, err)
		}
	}
	if _, err := s.Sweep(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	for i := range times {
		if _, err := s.Get(t.Context(), testID(i)); err != nil {
			t.Errorf("record %d, before its time: %v", i, err)
		}
	}
	now = began.Add(2 * time.Hour)
	if _, err := s.Sweep(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	for i := range times {
		if _, err := s.Get(t.Context(), testID(i)); !errors.Is(err, ErrNotFound) {
			t.Errorf("record %d, after its time: %v", i, err)
		}
	}
	if rep, err := s.Check(t.Context()); err != nil || !rep.OK() {
		t.Fatalf("check: %+v, %v", rep, err)
	}
}
