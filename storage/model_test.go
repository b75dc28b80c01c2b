package storage

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// model is what a store must look like: plain maps.
type model struct {
	records map[ID]Record // stubs included
	arrival map[StreamID]uint64
	bucket  map[string]string
	secret  map[string]string
	queue   map[ID]Item
	held    map[ID]string
}

func newModel() *model {
	return &model{map[ID]Record{}, map[StreamID]uint64{}, map[string]string{}, map[string]string{}, map[ID]Item{}, map[ID]string{}}
}

func (m *model) clone() *model {
	return &model{maps.Clone(m.records), maps.Clone(m.arrival), maps.Clone(m.bucket), maps.Clone(m.secret), maps.Clone(m.queue), maps.Clone(m.held)}
}

func (m *model) append(r Record) Appended {
	old, ok := m.records[r.ID]
	stub := r.Flags&FlagStub != 0
	upgrade := ok && old.Flags&FlagStub != 0 && !stub && old.Stream == r.Stream && old.Time == r.Time
	if ok && !upgrade {
		return Appended{Arrival: old.Arrival}
	}
	r.Arrival = 0
	if !stub {
		m.arrival[r.Stream]++
		r.Arrival = m.arrival[r.Stream]
	}
	m.records[r.ID] = r
	return Appended{New: true, Arrival: r.Arrival}
}

// stream returns the records of a stream in order, with or without stubs.
func (m *model) stream(s StreamID, stubs bool) (out []Record) {
	for _, r := range m.records {
		if r.Stream == s && (stubs || r.Flags&FlagStub == 0) {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b Record) int { return a.Position().Compare(b.Position()) })
	return out
}

// machine drives a store and its model side by side.
type machine struct {
	ctx     context.Context
	store   *Store
	streams []StreamID
	model   *model
	reopen  func() *Store // nil in memory
}

func (m *machine) record(t *rapid.T) Record {
	r := Record{
		Stream: rapid.SampledFrom(m.streams).Draw(t, "stream"),
		Time:   uint64(rapid.IntRange(1, 4).Draw(t, "day"))*msPerDay<<16 + uint64(rapid.IntRange(0, 9).Draw(t, "time")),
		ID:     testID(rapid.IntRange(0, 30).Draw(t, "id")),
	}
	if rapid.IntRange(0, 5).Draw(t, "stub") == 0 {
		r.Flags = FlagStub
	} else {
		r.Value = rapid.SliceOfN(rapid.Byte(), 0, 20).Draw(t, "value")
		r.Flags = rapid.Uint8Range(0, 3).Draw(t, "flags")
	}
	return r
}

// commit builds a batch of random operations; it is refused as a whole if one
// of them is.
func (m *machine) commit(t *rapid.T) {
	var b Batch
	next := m.model.clone()
	var want []Appended
	refused := false
	key := rapid.StringMatching("[ab]{0,3}")
	for range rapid.IntRange(1, 6).Draw(t, "ops") {
		id := testID(rapid.IntRange(0, 30).Draw(t, "id"))
		value := rapid.String().Draw(t, "value")
		switch rapid.IntRange(0, 11).Draw(t, "op") {
		case 0, 1, 2:
			r := m.record(t)
			b.Append(r)
			want = append(want, next.append(r))
		case 3:
			b.Replace(id, 1, []byte(value))
			old, ok := next.records[id]
			if !ok || old.Flags&FlagStub != 0 {
				refused = true
				continue
			}
			old.Flags, old.Value = 1, []byte(value)
			next.records[id] = old
		case 4:
			b.Remove(id)
			delete(next.records, id)
		case 5:
			k := key.Draw(t, "key")
			b.Put("bucket", []byte(k), []byte(value))
			next.bucket[k] = value
		case 6:
			k := key.Draw(t, "key")
			b.Delete("bucket", []byte(k))
			delete(next.bucket, k)
		case 7:
			k := key.Draw(t, "key")
			b.PutEphemeral("bucket", []byte(k), []byte(value))
			next.secret[k] = value
		case 8:
			due := time.UnixMilli(rapid.Int64Range(0, 5).Draw(t, "due")).UTC()
			b.Schedule("queue", due, id, []byte(value))
			next.queue[id] = Item{id, due, []byte(value)}
		case 9:
			b.Unschedule("queue", id)
			delete(next.queue, id)
		case 10:
			b.Hold("held", id, []byte(value))
			next.held[id] = value
		case 11:
			b.Release("held", id)
			delete(next.held, id)
		}
	}
	if rapid.Bool().Draw(t, "guard") {
		b.Guard()
	}
	res, err := m.store.Commit(m.ctx, &b, Durability(rapid.IntRange(0, 1).Draw(t, "mode")))
	switch {
	case refused && !errors.Is(err, ErrNotFound):
		t.Fatalf("got %v, want a refusal", err)
	case !refused && err != nil:
		t.Fatal(err)
	case !refused:
		if !slices.Equal(res.Appended, want) {
			t.Fatalf("appended %v, want %v", res.Appended, want)
		}
		m.model = next
	}
}

func (m *machine) trim(t *rapid.T) {
	s := rapid.SampledFrom(m.streams).Draw(t, "stream")
	n := rapid.IntRange(1, 6).Draw(t, "keep")
	if _, err := m.store.Trim(m.ctx, s, Retention{Count: uint64(n)}); err != nil {
		t.Fatal(err)
	}
	list := m.model.stream(s, false)
	if len(list) <= n {
		return
	}
	floor := uint64(0)
	for _, r := range list[:len(list)-n] {
		delete(m.model.records, r.ID)
		floor = max(floor, r.Time+1)
	}
	for _, r := range m.model.stream(s, true) {
		if r.Flags&FlagStub != 0 && r.Time < floor {
			delete(m.model.records, r.ID)
		}
	}
}

func (m *machine) rotate(t *rapid.T) {
	if err := m.store.RotateEpoch(m.ctx); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) restart(t *rapid.T) {
	if m.reopen != nil {
		m.store = m.reopen()
		if r := m.store.State().Recovery; r != (Recovery{}) {
			t.Fatalf("recovery %+v", r)
		}
	}
}

// check compares everything that can be read.
func (m *machine) check(t *rapid.T) {
	for _, s := range m.streams {
		m.checkStream(t, s)
	}
	for id, want := range m.model.records {
		got, err := m.store.Get(m.ctx, id)
		if err != nil || !sameRecord(got, want) {
			t.Fatalf("get: %+v, %v, want %+v", got, err, want)
		}
	}
	m.checkValues(t, m.store.ScanBucket(m.ctx, "bucket", nil), m.model.bucket)
	m.checkValues(t, m.store.ScanEphemeral(m.ctx, "bucket", nil), m.model.secret)
	items, err := m.store.Due(m.ctx, "queue", time.UnixMilli(3), 0)
	if err != nil {
		t.Fatal(err)
	}
	var want []Item
	for _, it := range m.model.queue {
		if it.Due.UnixMilli() <= 3 {
			want = append(want, it)
		}
	}
	slices.SortFunc(want, func(a, b Item) int {
		if c := a.Due.Compare(b.Due); c != 0 {
			return c
		}
		return bytes.Compare(a.ID[:], b.ID[:])
	})
	if fmt.Sprint(items) != fmt.Sprint(want) {
		t.Fatalf("due %v, want %v", items, want)
	}
	held := make(map[ID]string)
	for it, err := range m.store.Queue(m.ctx, "held") {
		if err != nil {
			t.Fatal(err)
		}
		held[it.ID] = string(it.Value)
	}
	if !maps.Equal(held, m.model.held) {
		t.Fatalf("held %v, want %v", held, m.model.held)
	}
}

func sameRecord(a, b Record) bool {
	return a.Position() == b.Position() && a.Stream == b.Stream && a.Flags == b.Flags && a.Arrival == b.Arrival && bytes.Equal(a.Value, b.Value)
}

func (m *machine) checkStream(t *rapid.T, s StreamID) {
	want := m.model.stream(s, false)
	var bytesSum uint64
	i := 0
	for r, err := range m.store.Scan(m.ctx, s, Range{}) {
		if err != nil || i >= len(want) || !sameRecord(r, want[i]) {
			t.Fatalf("scan: record %d is %+v, %v", i, r, err)
		}
		bytesSum += uint64(len(r.Value))
		i++
	}
	all := m.model.stream(s, true)
	info, err := m.store.Info(m.ctx, s)
	if err != nil || i != len(want) || int(info.Count) != len(want) || info.Bytes != bytesSum ||
		int(info.Stubs) != len(all)-len(want) || info.Arrival != m.model.arrival[s] {
		t.Fatalf("info %+v, %v; scanned %d, want %d", info, err, i, len(want))
	}
	i = 0
	for p, err := range m.store.Keys(m.ctx, s, Range{}) {
		if err != nil || i >= len(all) || p != all[i].Position() {
			t.Fatalf("keys: %d is %+v, %v", i, p, err)
		}
		i++
	}
	days := map[uint32]int{}
	for _, r := range all {
		days[Day(r.Time)]++
	}
	for d, err := range m.store.Digests(m.ctx, s, 0, 10) {
		if err != nil || int(d.Count) != days[d.Day] {
			t.Fatalf("digest %+v, %v, want %d", d, err, days[d.Day])
		}
	}
	slices.SortFunc(want, func(a, b Record) int { return int(a.Arrival) - int(b.Arrival) })
	after := uint64(3)
	want = slices.DeleteFunc(want, func(r Record) bool { return r.Arrival <= after })
	i = 0
	for r, err := range m.store.ScanArrival(m.ctx, s, after, 0) {
		if err != nil || i >= len(want) || !sameRecord(r, want[i]) {
			t.Fatalf("arrival: record %d is %+v, %v", i, r, err)
		}
		i++
	}
	if n, err := m.store.CountAfter(m.ctx, s, after, 0); err != nil || n != len(want) || i != n {
		t.Fatalf("count after: %d, %v, scanned %d, want %d", n, err, i, len(want))
	}
}

func (m *machine) checkValues(t *rapid.T, seq func(func(KeyValue, error) bool), want map[string]string) {
	got := map[string]string{}
	for kv, err := range seq {
		if err != nil {
			t.Fatal(err)
		}
		got[string(kv.Key)] = string(kv.Value)
	}
	if !maps.Equal(got, want) {
		t.Fatalf("values %q, want %q", got, want)
	}
}

func runModel(t *rapid.T, m *machine) {
	for _, name := range []string{"a", "b"} {
		s, err := m.store.Stream(m.ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		m.streams = append(m.streams, s)
	}
	t.Repeat(map[string]func(*rapid.T){
		"commit":  m.commit,
		"commit2": m.commit,
		"commit3": m.commit,
		"trim":    m.trim,
		"rotate":  m.rotate,
		"restart": m.restart,
		"":        m.check,
	})
	if rep, err := m.store.Check(m.ctx); err != nil || !rep.OK() {
		t.Fatalf("check: %+v, %v", rep, err)
	}
}

func TestModelMemory(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s, err := OpenMemory(Options{})
		if err != nil {
			rt.Fatal(err)
		}
		defer s.Close()
		runModel(rt, &machine{ctx: t.Context(), store: s, model: newModel()})
	})
}

func TestModelDisk(t *testing.T) {
	base := memoryDir(t)
	if f := flag.Lookup("rapid.checks"); f.Value.String() == f.DefValue { // each opens a store several times
		f.Value.Set("25")
		defer f.Value.Set(f.DefValue)
	}
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(base, "store")
		if err != nil {
			rt.Fatal(err)
		}
		open := func() *Store {
			s, err := Open(t.Context(), testOptions(dir))
			if err != nil {
				rt.Fatal(err)
			}
			return s
		}
		m := &machine{ctx: t.Context(), store: open(), model: newModel()}
		m.reopen = func() *Store {
			if err := m.store.Close(); err != nil {
				rt.Fatal(err)
			}
			return open()
		}
		defer func() {
			m.store.Close()
			os.RemoveAll(dir)
		}()
		runModel(rt, m)
	})
}
