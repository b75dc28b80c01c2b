package chat

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/starling-chat/starling/chat/wire"
)

// anyAccount draws one of three accounts.
func anyAccount(t *rapid.T) wire.AccountID {
	return wire.AccountID{byte(rapid.IntRange(1, 3).Draw(t, "account"))}
}

func anyStamp(t *rapid.T) stamp {
	return stamp{
		HLC:    wire.HLC(rapid.IntRange(1, 5).Draw(t, "clock")),
		Sealed: wire.SealedID{byte(rapid.IntRange(0, 255).Draw(t, "sealed")), byte(rapid.IntRange(0, 255).Draw(t, "sealed"))},
	}
}

func anyModifier(t *rapid.T) modifier {
	m := modifier{At: anyStamp(t), Account: anyAccount(t)}
	m.ID = wire.EventID(m.At.Sealed) // one event, one sealed form
	switch rapid.IntRange(0, 5).Draw(t, "kind") {
	case 0:
		m.Kind, m.ByRole = wire.KindRedact, rapid.IntRange(0, 3).Draw(t, "moderator") == 0
	case 1, 2:
		m.Kind, m.Text = wire.KindEdit, rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "text")
	default:
		m.Kind, m.Text = wire.KindReact, rapid.SampledFrom([]string{"+", "-"}).Draw(t, "symbol")
		m.Remove = rapid.Bool().Draw(t, "remove")
	}
	return m
}

// shuffled returns list in another order with some entries repeated.
func shuffled[T any](t *rapid.T, list []T) []T {
	out := slices.Clone(list)
	for i := range list {
		if rapid.Bool().Draw(t, "repeat") {
			out = append(out, list[i])
		}
	}
	r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "order"), 0))
	r.Shuffle(len(out), func(i, k int) { out[i], out[k] = out[k], out[i] })
	return out
}

func TestFoldOfAMessageIsTheSameInEveryOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		author := anyAccount(t)
		mods := rapid.SliceOfNDistinct(rapid.Custom(anyModifier), 0, 12, func(m modifier) stamp { return m.At }).Draw(t, "mods")
		want := foldMessage(author, "text", false, mods)
		if got := foldMessage(author, "text", false, shuffled(t, mods)); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("in another order %+v, want %+v", got, want)
		}
		redacted := slices.ContainsFunc(mods, func(m modifier) bool { return m.Kind == wire.KindRedact && (m.Account == author || m.ByRole) })
		if redacted != want.Redacted || redacted && (want.Text != "" || want.Edited || len(want.Reactions) > 0) {
			t.Fatalf("deleted by who may: %v, but %+v", redacted, want)
		}
	})
}

func TestFoldOfAMessage(t *testing.T) {
	ada, bob := wire.AccountID{1}, wire.AccountID{2}
	at := func(n int) stamp { return stamp{HLC: wire.HLC(n)} }
	edit := func(n int, who wire.AccountID, text string) modifier {
		return modifier{At: at(n), Account: who, Kind: wire.KindEdit, Text: text}
	}
	react := func(n int, who wire.AccountID, symbol string, remove bool) modifier {
		return modifier{At: at(n), Account: who, Kind: wire.KindReact, Text: symbol, Remove: remove}
	}
	redact := func(n int, who wire.AccountID) modifier {
		return modifier{At: at(n), Account: who, Kind: wire.KindRedact}
	}
	for name, c := range map[string]struct {
		mods []modifier
		want string
	}{
		"nothing":                   {nil, "{text false false false []}"},
		"edit":                      {[]modifier{edit(2, ada, "new")}, "{new false true false []}"},
		"the later edit":            {[]modifier{edit(3, ada, "newer"), edit(2, ada, "new")}, "{newer false true false []}"},
		"another's edit":            {[]modifier{edit(2, bob, "new")}, "{text false false false []}"},
		"another's deletion":        {[]modifier{redact(2, bob)}, "{text false false false []}"},
		"a moderator's deletion":    {[]modifier{{At: at(2), Account: bob, Kind: wire.KindRedact, ByRole: true}, edit(3, ada, "new")}, "{ false false true []}"},
		"deletion":                  {[]modifier{redact(2, ada), edit(9, ada, "new"), react(9, bob, "+", false)}, "{ false false true []}"},
		"reactions":                 {[]modifier{react(2, bob, "+", false), react(3, ada, "+", false), react(4, bob, "-", false)}, fmt.Sprintf("{text false false false [{+ [%v %v]} {- [%v]}]}", ada, bob, bob)},
		"reaction taken back":       {[]modifier{react(3, bob, "+", true), react(2, bob, "+", false)}, "{text false false false []}"},
		"reaction given once again": {[]modifier{react(3, bob, "+", true), react(4, bob, "+", false)}, fmt.Sprintf("{text false false false [{+ [%v]}]}", bob)},
	} {
		if got := fmt.Sprint(foldMessage(ada, "text", false, c.mods)); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

// rosterEvent is an event that the roster folds.
type rosterEvent struct {
	at   stamp
	head wire.Header
	body wire.Body
}

func anyRosterEvent(t *rapid.T) rosterEvent {
	e := rosterEvent{at: anyStamp(t)}
	account := anyAccount(t)
	e.head.Certificate.Account = account
	e.head.Certificate.Device = wire.DeviceID{account[0], 1}
	e.head.HLC = e.at.HLC
	switch rapid.IntRange(0, 4).Draw(t, "kind") {
	case 0:
		e.body = &wire.ProfileBody{Nick: rapid.SampledFrom([]string{"ada", "Ada", "bob"}).Draw(t, "nick")}
	case 1:
		e.body = &wire.LeaveBody{}
	case 2:
		e.body = &wire.TopicBody{Text: rapid.SampledFrom([]string{"", "birds", "trees"}).Draw(t, "topic")}
	case 3:
		e.body = &wire.JoinBody{}
	default:
		e.body = &wire.MessageBody{Text: "hello"}
	}
	return e
}

func (r *roster) dump() string {
	type row struct {
		Account wire.AccountID
		Row     memberRow
	}
	var rows []row
	for id, m := range r.members {
		rows = append(rows, row{id, rowOfMember(m)})
	}
	slices.SortFunc(rows, func(a, b row) int { return bytes.Compare(a.Account[:], b.Account[:]) })
	b, err := json.Marshal(map[string]any{"members": rows, "topic": r.topic, "nicks": r.nicks, "present": r.present()})
	if err != nil {
		panic(err)
	}
	return string(b)
}

func TestRosterIsTheSameInEveryOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		events := rapid.SliceOfNDistinct(rapid.Custom(anyRosterEvent), 0, 15, func(e rosterEvent) stamp { return e.at }).Draw(t, "events")
		a, b := newRoster(), newRoster()
		for _, e := range events {
			a.apply(e.at, &e.head, e.body)
		}
		for _, e := range shuffled(t, events) {
			b.apply(e.at, &e.head, e.body)
		}
		if a.dump() != b.dump() {
			t.Fatalf("in another order\n%s, want\n%s", b.dump(), a.dump())
		}
	})
}

// history makes a set of events of a few devices that answer to each other.
func history(t *rapid.T) []wire.Header {
	type told struct {
		id  wire.EventID
		hlc wire.HLC
	}
	var list []wire.Header
	var all []told
	last := make(map[byte]told)
	seq := make(map[byte]uint64)
	for i := range rapid.IntRange(1, 25).Draw(t, "events") {
		dev := byte(rapid.IntRange(1, 7).Draw(t, "device"))
		h := wire.Header{HLC: wire.HLC(10 * (i + 1)), Previous: last[dev].id}
		if rapid.IntRange(0, 9).Draw(t, "clock") == 0 {
			h.HLC = wire.HLC(rapid.IntRange(1, 10*(i+1)).Draw(t, "back"))
		}
		h.Certificate.Device, h.Certificate.Account = wire.DeviceID{dev}, wire.AccountID{dev}
		seq[dev]++
		h.DeviceSeq = seq[dev]
		if len(all) > 0 && rapid.Bool().Draw(t, "answers") {
			if p := all[rapid.IntRange(max(0, len(all)-8), len(all)-1).Draw(t, "parent")].id; p != h.Previous {
				h.Parents = []wire.EventID{p}
			}
		}
		me := told{eventNumber(i), h.HLC}
		all, last[dev] = append(all, me), me
		list = append(list, h)
	}
	return list
}

func eventNumber(i int) wire.EventID { return wire.EventID{byte(i + 1), 0xee} }

// follow feeds a tracker the events whose numbers are given, and returns which were found back-dated. What is
// missing is given up after each, as after a sync with somebody who does not have it either.
func follow(headers []wire.Header, order []int) (*tracker, map[wire.EventID]bool) {
	t := newTracker()
	known := make(map[wire.EventID]wire.HLC)
	late := make(map[wire.EventID]bool)
	for _, i := range order {
		id := eventNumber(i)
		if _, again := known[id]; again {
			continue // the room drops what it has
		}
		s := t.see(id, &headers[i], func(id wire.EventID) (wire.HLC, bool) { h, ok := known[id]; return h, ok })
		known[id] = headers[i].HLC
		if s.backDated {
			late[id] = true
		}
		for _, l := range s.late {
			late[l] = true
		}
		t.forget(^wire.HLC(0))
	}
	return t, late
}

func TestTrackerIsTheSameInEveryOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		headers := history(t)
		var here []int
		for i := range headers {
			if rapid.IntRange(0, 4).Draw(t, "lost") > 0 {
				here = append(here, i)
			}
		}
		a, lateA := follow(headers, here)
		b, lateB := follow(headers, shuffled(t, here))
		if fmt.Sprint(lateA) != fmt.Sprint(lateB) {
			t.Fatalf("back-dated in another order: %v, want %v", lateB, lateA)
		}
		if fmt.Sprint(a.heads) != fmt.Sprint(b.heads) {
			t.Fatalf("heads in another order: %v, want %v", b.heads, a.heads)
		}
		for dev := range a.devices {
			if fmt.Sprint(a.devices[dev].Spans) != fmt.Sprint(b.devices[dev].Spans) {
				t.Fatalf("spans in another order: %v, want %v", b.devices[dev].Spans, a.devices[dev].Spans)
			}
		}
		// With everything here, nothing is missing, in whatever order it came.
		full, _ := follow(headers, shuffled(t, seqTo(len(headers))))
		if n := full.missing(); n != 0 || len(full.waiting) != 0 || full.children != 0 {
			t.Fatalf("%d missing of a complete history; waiting for %v, with %d children", n, full.waiting, full.children)
		}
		// Each hole between two events of a device is counted.
		holes := 0
		for dev := range a.devices {
			spans := a.devices[dev].Spans
			for k := 1; k < len(spans); k++ {
				holes += int(spans[k].From - spans[k-1].To - 1)
			}
		}
		if a.missing() < holes {
			t.Fatalf("%d missing, but the holes sum up to %d", a.missing(), holes)
		}
	})
}

func seqTo(n int) []int {
	list := make([]int, n)
	for i := range list {
		list[i] = i
	}
	return list
}

func TestTrackerStaysSmall(t *testing.T) {
	// A device that leaves out every other number, and names parents that do not exist.
	tr, free := newTracker(), newTracker()
	for i := range uint64(3 * maxWaiting) {
		h := wire.Header{HLC: wire.HLC(i + 1), DeviceSeq: 2*i + 2, Previous: wire.EventID{1, byte(i), byte(i >> 8), byte(i >> 16)}}
		h.Certificate.Device = wire.DeviceID{1}
		tr.see(wire.EventID{2, byte(i), byte(i >> 8), byte(i >> 16)}, &h, func(wire.EventID) (wire.HLC, bool) { return 0, false })
	}
	if n := len(tr.devices[wire.DeviceID{1}].Spans); n > maxSpans {
		t.Errorf("%d spans kept, at most %d", n, maxSpans)
	}
	// Many that name one parent, and many parents that nobody misses: the newest are kept.
	for i := range uint64(3 * maxWaiting) {
		h := wire.Header{HLC: wire.HLC(i + 1), DeviceSeq: 1, Parents: []wire.EventID{{4}, {5, byte(i), byte(i >> 8), byte(i >> 16)}}}
		h.Certificate.Device = wire.DeviceID{3, byte(i), byte(i >> 8)}
		free.see(wire.EventID{6, byte(i), byte(i >> 8), byte(i >> 16)}, &h, func(wire.EventID) (wire.HLC, bool) { return 0, false })
	}
	last := uint64(3*maxWaiting - 1)
	if free.waiting[wire.EventID{5, byte(last), byte(last >> 8), byte(last >> 16)}] == nil || len(free.waiting) > maxWaiting {
		t.Errorf("of %d unknown events the newest is not among them", len(free.waiting))
	}
	if n := len(free.waiting[wire.EventID{4}].Children); n != maxChildren || free.children > maxAllChildren {
		t.Errorf("%d children of one unknown event, %d of all", n, free.children)
	}
	if len(tr.waiting) > maxWaiting || len(tr.heads) > maxHeads {
		t.Errorf("%d unknown events and %d heads kept", len(tr.waiting), len(tr.heads))
	}
	// A jump to the largest number is one hole of a bounded count.
	h := wire.Header{HLC: 1 << 40, DeviceSeq: 1<<63 - 1, Previous: wire.EventID{9}}
	h.Certificate.Device = wire.DeviceID{2}
	one := h
	one.DeviceSeq, one.Previous = 1, wire.EventID{}
	known := func(wire.EventID) (wire.HLC, bool) { return 0, false }
	tr.see(wire.EventID{3, 1}, &one, known)
	tr.see(wire.EventID{3, 2}, &h, known)
	if n := tr.holes(wire.DeviceID{2}); n != MaxGapCount {
		t.Errorf("the hole counts %d, want %d", n, MaxGapCount)
	}
}

// TestTrackerKnowsEveryChild has more name an unknown event than there are devices in most rooms; all of them
// turn out to be back-dated when it comes.
func TestTrackerKnowsEveryChild(t *testing.T) {
	tr := newTracker()
	parent, unknown := wire.EventID{1}, func(wire.EventID) (wire.HLC, bool) { return 0, false }
	for i := range byte(maxChildren) {
		h := wire.Header{HLC: wire.HLC(i + 1), DeviceSeq: 1, Parents: []wire.EventID{parent}}
		h.Certificate.Device = wire.DeviceID{2, i}
		tr.see(wire.EventID{2, i}, &h, unknown)
	}
	tr.forget(1000) // a sync with somebody who does not have it either
	h := wire.Header{HLC: 1000, DeviceSeq: 1}
	h.Certificate.Device = wire.DeviceID{1}
	if s := tr.see(parent, &h, unknown); len(s.late) != maxChildren || !s.filled || s.gaps {
		t.Errorf("%d of %d turned out to be back-dated; filled %v, gaps %v", len(s.late), maxChildren, s.filled, s.gaps)
	}
	if len(tr.waiting) != 0 || tr.children != 0 {
		t.Errorf("still waiting for %v", tr.waiting)
	}
}
