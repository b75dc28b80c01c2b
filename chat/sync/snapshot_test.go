package sync

import (
	"crypto/sha256"
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// digestByHand follows the specification word by word, without any cache.
func digestByHand(items []Item, floor, cut Time) Digest {
	days := map[uint32][]Item{}
	for _, i := range items {
		if i.Time >= floor && i.Time < cut {
			days[i.Time.Day()] = append(days[i.Time.Day()], i)
		}
	}
	all := []byte("starling/sync/window/1")
	for _, d := range slices.Sorted(maps.Keys(days)) {
		all = binary.BigEndian.AppendUint32(all, d)
		all = binary.BigEndian.AppendUint32(all, uint32(len(days[d])))
		var ids []string
		for _, i := range days[d] {
			ids = append(ids, string(i.ID[:]))
		}
		slices.Sort(ids)
		sum := sha256.Sum256([]byte(strings.Join(ids, "")))
		all = append(all, sum[:]...)
	}
	return sha256.Sum256(all)
}

// drawItem keeps to few days, readings and ids, so that everything meets everything.
func drawItem(t *rapid.T) Item {
	milli := uint64(rapid.IntRange(0, 4).Draw(t, "day"))*dayMillis + uint64(rapid.IntRange(0, 2).Draw(t, "ms"))*40_000_000
	return Item{
		Time: timeOf(milli, uint16(rapid.IntRange(0, 1).Draw(t, "counter"))),
		ID:   ID{0: byte(rapid.IntRange(0, 3).Draw(t, "id")), 31: byte(rapid.IntRange(0, 1).Draw(t, "id"))},
	}
}

func TestSnapshotIsASortedSet(t *testing.T) {
	type taken struct {
		view   View
		items  []Item
		digest Digest
	}
	rapid.Check(t, func(t *rapid.T) {
		start := rapid.SliceOf(rapid.Custom(drawItem)).Draw(t, "loaded")
		model := map[Item]bool{}
		for _, i := range start {
			model[i] = true
		}
		s := NewSnapshot(start)
		var views []taken
		bounds := []Time{0, DayStart(1), DayStart(1) + 5, DayStart(3) + timeOf(40_000_000, 1), DayStart(4), 1<<64 - 1}
		for range rapid.IntRange(0, 40).Draw(t, "steps") {
			item := drawItem(t)
			switch rapid.IntRange(0, 6).Draw(t, "step") {
			case 0, 1:
				if s.Add(item) == model[item] {
					t.Fatal("Add misjudges what is new")
				}
				model[item] = true
			case 2:
				many := rapid.SliceOf(rapid.Custom(drawItem)).Draw(t, "many")
				before := len(model)
				for _, i := range many {
					model[i] = true
				}
				if n := s.AddAll(many); n != len(model)-before {
					t.Fatalf("AddAll says %d new, %d are", n, len(model)-before)
				}
			case 3:
				if s.Remove(item) != model[item] {
					t.Fatal("Remove misjudges what was there")
				}
				delete(model, item)
			case 4:
				floor := rapid.SampledFrom(bounds[:5]).Draw(t, "floor")
				before := len(model)
				maps.DeleteFunc(model, func(i Item, _ bool) bool { return i.Time < floor })
				if n := s.Expire(floor); n != before-len(model) {
					t.Fatalf("Expire says %d, %d were below", n, before-len(model))
				}
			default:
				v := s.View()
				views = append(views, taken{v, slices.Clone(v.items), digestByHand(v.items, 0, 1<<64-1)})
			}
			want := slices.SortedFunc(maps.Keys(model), Item.Compare)
			if !slices.Equal(s.items, want) || s.Len() != len(want) {
				t.Fatalf("holds %v, want %v", s.items, want)
			}
			if newest, ok := s.Newest(); ok != (len(want) > 0) || ok && newest != want[len(want)-1] {
				t.Fatalf("newest %v, %v", newest, ok)
			}
			fresh := NewSnapshot(want)
			if !slices.EqualFunc(s.days, fresh.days, func(a, b day) bool { return a.day == b.day && a.count == b.count }) {
				t.Fatalf("counts %v, want %v", s.days, fresh.days)
			}
			floor, cut := rapid.SampledFrom(bounds).Draw(t, "floor"), rapid.SampledFrom(bounds).Draw(t, "cut")
			digest, count := s.Digest(floor, cut)
			again := NewView(want)
			if d, n := again.Digest(floor, cut); d != digest || n != count {
				t.Fatal("a snapshot and a fresh view disagree")
			}
			if digest != digestByHand(want, floor, cut) || count != len(again.Window(floor, cut)) {
				t.Fatalf("digest of %d items from %d to %d is not what the specification says", count, floor, cut)
			}
		}
		for _, v := range views {
			if d, n := v.view.Digest(0, 1<<64-1); !slices.Equal(v.view.items, v.items) || d != v.digest || n != v.view.Len() {
				t.Fatal("a view changed")
			}
		}
	})
}

// The digest of a day that expired in part must not be taken for the rest of it.
func TestExpiryInsideADay(t *testing.T) {
	items := benchItems(10)
	s := NewSnapshot(slices.Clone(items))
	s.View()
	s.Expire(items[4].Time)
	s.Add(Item{items[9].Time, ID{1}})
	s.Add(Item{items[9].Time, ID{2}})
	if d, n := s.Digest(0, 1<<64-1); n != 8 || d != digestByHand(s.items, 0, 1<<64-1) {
		t.Errorf("digest of %d items is wrong", n)
	}
}

func TestTheEndOfTimeIsADayToo(t *testing.T) {
	items := []Item{{Time: 1<<64 - 2}, {Time: 1<<64 - 1, ID: ID{1}}}
	v := NewView(items)
	if _, n := v.Digest(0, 1<<64-1); n != 1 {
		t.Errorf("%d items below the last reading", n)
	}
	if len(v.days) != 1 || v.days[0].count != 2 {
		t.Errorf("days %v", v.days)
	}
}

func TestTimes(t *testing.T) {
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	at := TimeAt(noon)
	if at.Milli() != uint64(noon.UnixMilli()) || at.Day() != uint32(noon.Unix()/86400) {
		t.Errorf("%v is %d ms, day %d", noon, at.Milli(), at.Day())
	}
	if start := DayStart(at.Day()); start > at || start.Day() != at.Day() || (start-1).Day() != at.Day()-1 {
		t.Errorf("day starts at %d", start)
	}
	if TimeAt(time.Unix(-5, 0)) != 0 || TimeAt(time.UnixMilli(1<<50)) != timeOf(maxMilli, 0) || DayStart(1<<32-1) != timeOf(maxMilli, 0) {
		t.Error("times beyond the range are not held at its ends")
	}
}

func BenchmarkSnapshotAddNewest(b *testing.B) {
	s := NewSnapshot(benchItems(10_000))
	last, _ := s.Newest()
	for i := 0; b.Loop(); i++ {
		s.Add(Item{Time: last.Time + Time(i) + 1})
	}
}

func BenchmarkSnapshotDigest10000(b *testing.B) {
	s := NewSnapshot(benchItems(10_000))
	s.View()
	for b.Loop() {
		s.Digest(0, 1<<64-1)
	}
}

// benchItems are one every 30 s: 3.5 days for 10,000.
func benchItems(n int) []Item {
	items := make([]Item, n)
	for i := range items {
		items[i] = Item{timeOf(testStart+uint64(i)*30_000, 0), sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i)))}
	}
	return items
}
