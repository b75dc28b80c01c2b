package chat

import (
	"bytes"
	"slices"

	"github.com/starling-chat/starling/chat/wire"
)

// MaxGapCount is the largest number of missing messages that is said of one hole: a device may claim
// any sequence number, so beyond it the number means nothing.
const MaxGapCount = 9999

const (
	// maxSpans bounds the spans kept of one device; beyond it the oldest hole is forgotten.
	maxSpans = 64
	// maxDevices bounds the devices of a room whose sequence is followed.
	maxDevices = 4096
	// maxWaiting bounds the unknown events that known ones name as parents; of those that are not counted as
	// missing the oldest give way.
	maxWaiting = 4096
	// maxChildren bounds the events that are kept of those that name one unknown event, and maxAllChildren
	// those of all together: of more, it will not be said that they are back-dated.
	maxChildren    = 64
	maxAllChildren = 16384
	// maxHeads bounds the events without children that are kept as parents for the next own event.
	maxHeads = 64
)

// span is a run of a device's sequence numbers without a hole.
type span struct {
	From, To uint64
	Last     wire.EventID // the event with number To
}

// track is what is known of one device's sequence in a room.
type track struct {
	Account wire.AccountID
	Spans   []span // ascending, never adjacent
	Gone    uint64 // what has a number up to this one may be here as an id only, or no longer
	Read    uint64 // own numbers up to this one were read there
}

// child is an event that names an unknown one.
type child struct {
	ID  wire.EventID
	HLC wire.HLC
}

// waiting is an event that is named as a parent and not here.
type waiting struct {
	Children []child
	Account  wire.AccountID // whose event it is, if it is a device's predecessor; else zero
	Counted  bool           // it counts as a gap of its own
}

// head is an event that no known event names as a parent.
type head struct {
	ID  wire.EventID
	HLC wire.HLC
}

// tracker follows what of a room is here and what is known to be missing: holes in the sequences of
// devices, and parents that nobody has sent. It has no lock of its own.
type tracker struct {
	devices  map[wire.DeviceID]*track
	waiting  map[wire.EventID]*waiting
	children int    // of all that is waited for
	heads    []head // ascending by (hlc, id)
}

func newTracker() *tracker {
	return &tracker{devices: make(map[wire.DeviceID]*track), waiting: make(map[wire.EventID]*waiting)}
}

// seen says what one event changed in a tracker.
type seen struct {
	backDated bool           // its clock is not after that of a known parent
	late      []wire.EventID // known events that turn out to be back-dated
	gaps      bool           // holes were opened or filled
	device    bool           // the device's spans changed
	filled    bool           // it was being waited for
	opened    []wire.EventID // events waited for whose rows change, or go
}

// see takes note of a verified event. known returns the clock reading of an event that is here.
func (t *tracker) see(id wire.EventID, h *wire.Header, known func(wire.EventID) (wire.HLC, bool)) seen {
	var s seen
	if w := t.waiting[id]; w != nil {
		t.drop(id)
		s.filled = true
		s.gaps = w.Counted
		for _, c := range w.Children {
			if c.HLC <= h.HLC {
				s.late = append(s.late, c.ID)
			}
		}
	}
	holes := t.holes(h.Device())
	previous, hasPrevious := wire.HLC(0), false
	if !h.Previous.IsZero() {
		previous, hasPrevious = known(h.Previous)
		s.note(t, h.Previous, id, h, previous, hasPrevious, false)
	}
	for _, p := range h.Parents {
		hlc, ok := known(p)
		// What somebody's first event here names may lie before our time in the room, so it is not
		// missed; once the author's chain is known, what it names ought to be here.
		s.note(t, p, id, h, hlc, ok, hasPrevious)
	}
	s.device = t.extend(h, id)
	s.gaps = s.gaps || t.holes(h.Device()) != holes
	if !s.filled {
		t.addHead(head{id, h.HLC})
	}
	for _, p := range h.Parents {
		t.dropHead(p)
	}
	t.dropHead(h.Previous)
	return s
}

// note looks at one event that another names.
func (s *seen) note(t *tracker, p, id wire.EventID, h *wire.Header, hlc wire.HLC, known, counted bool) {
	if known {
		s.backDated = s.backDated || h.HLC <= hlc
		return
	}
	w := t.waiting[p]
	if w == nil {
		if len(t.waiting) >= maxWaiting {
			old, ok := t.oldest()
			if !ok {
				return
			}
			t.drop(old)
			s.opened = append(s.opened, old)
		}
		w = &waiting{}
		t.waiting[p] = w
	}
	s.opened = append(s.opened, p)
	if len(w.Children) < maxChildren && t.children < maxAllChildren {
		w.Children = append(w.Children, child{id, h.HLC})
		t.children++
	}
	if p == h.Previous {
		w.Account = h.Account() // its hole is counted by the sequence numbers
	}
	if counted && !w.Counted {
		w.Counted, s.gaps = true, true
	}
}

// wait adds what an earlier run waited for.
func (t *tracker) wait(id wire.EventID, w *waiting) {
	t.waiting[id] = w
	t.children += len(w.Children)
}

// drop stops waiting for an event.
func (t *tracker) drop(id wire.EventID) {
	if w := t.waiting[id]; w != nil {
		t.children -= len(w.Children)
		delete(t.waiting, id)
	}
}

// oldest returns that of the events waited for, and not counted as missing, whose newest child is oldest.
func (t *tracker) oldest() (id wire.EventID, ok bool) {
	best := wire.HLC(0)
	for k, w := range t.waiting {
		if w.Counted || !w.Account.IsZero() {
			continue
		}
		newest := wire.HLC(0)
		for _, c := range w.Children {
			newest = max(newest, c.HLC)
		}
		if !ok || newest < best || newest == best && bytes.Compare(k[:], id[:]) < 0 {
			id, best, ok = k, newest, true
		}
	}
	return id, ok
}

// extend adds the event's number to its device's spans.
func (t *tracker) extend(h *wire.Header, id wire.EventID) bool {
	d := t.devices[h.Device()]
	if d == nil {
		if len(t.devices) >= maxDevices {
			return false
		}
		d = &track{Account: h.Account()}
		t.devices[h.Device()] = d
	}
	n := h.DeviceSeq
	at, _ := slices.BinarySearchFunc(d.Spans, n, func(s span, n uint64) int {
		switch {
		case s.To < n:
			return -1
		case s.To > n:
			return 1
		}
		return 0
	})
	// Spans[at] is the first that ends at or after n.
	if at < len(d.Spans) && d.Spans[at].From <= n {
		s := &d.Spans[at]
		if s.To == n && bytes.Compare(id[:], s.Last[:]) < 0 {
			s.Last = id // a device that used a number twice: the choice must not depend on the order
			return true
		}
		return false
	}
	joinsLeft := at > 0 && d.Spans[at-1].To+1 == n
	joinsRight := at < len(d.Spans) && n+1 == d.Spans[at].From
	switch {
	case joinsLeft && joinsRight:
		d.Spans[at].From = d.Spans[at-1].From
		d.Spans = slices.Delete(d.Spans, at-1, at)
	case joinsLeft:
		d.Spans[at-1].To, d.Spans[at-1].Last = n, id
	case joinsRight:
		d.Spans[at].From = n
	default:
		d.Spans = slices.Insert(d.Spans, at, span{n, n, id})
	}
	if len(d.Spans) > maxSpans {
		d.Spans[1].From = d.Spans[0].From
		d.Spans = slices.Delete(d.Spans, 0, 1)
	}
	return true
}

// holes counts the missing numbers of a device.
func (t *tracker) holes(dev wire.DeviceID) int {
	d := t.devices[dev]
	if d == nil {
		return 0
	}
	n := 0
	for i := 1; i < len(d.Spans); i++ {
		n += holeSize(d.Spans[i-1], d.Spans[i])
	}
	return n
}

func holeSize(a, b span) int { return int(min(b.From-a.To-1, MaxGapCount)) }

// gap is a hole as the tracker knows it.
type gap struct {
	Account wire.AccountID // zero if unknown
	Count   int
	After   wire.EventID
}

// gaps lists the holes, by account and place.
func (t *tracker) gaps() []gap {
	var list []gap
	for _, d := range t.devices {
		for i := 1; i < len(d.Spans); i++ {
			list = append(list, gap{d.Account, holeSize(d.Spans[i-1], d.Spans[i]), d.Spans[i-1].Last})
		}
	}
	unknown := 0
	for _, w := range t.waiting {
		if w.Counted && w.Account.IsZero() {
			unknown++
		}
	}
	slices.SortFunc(list, func(a, b gap) int {
		if c := bytes.Compare(a.Account[:], b.Account[:]); c != 0 {
			return c
		}
		return bytes.Compare(a.After[:], b.After[:])
	})
	// An unknown parent is usually the missing message of a hole that is listed already.
	if known := sumGaps(list); unknown > known {
		list = append(list, gap{Count: unknown - known})
	}
	return list
}

func sumGaps(list []gap) int {
	n := 0
	for _, g := range list {
		n += g.Count
	}
	return n
}

// missing counts the messages known to exist and not here.
func (t *tracker) missing() int { return sumGaps(t.gaps()) }

// forget counts what events up to cut name as missing no more: a completed sync has shown that it most
// likely lies before the history that is kept. Should it come all the same, because others were cut off or
// its time has not come, what names it is still known. Holes in sequences stay. It returns whose rows change.
func (t *tracker) forget(cut wire.HLC) []wire.EventID {
	var list []wire.EventID
	for id, w := range t.waiting {
		if w.Counted && w.Account.IsZero() && !slices.ContainsFunc(w.Children, func(c child) bool { return c.HLC > cut }) {
			w.Counted = false
			list = append(list, id)
		}
	}
	return list
}

func compareHeads(a, b head) int {
	return stamp{a.HLC, wire.SealedID(a.ID)}.compare(stamp{b.HLC, wire.SealedID(b.ID)})
}

func (t *tracker) addHead(h head) {
	at, found := slices.BinarySearchFunc(t.heads, h, compareHeads)
	if found {
		return
	}
	t.heads = slices.Insert(t.heads, at, h)
	if len(t.heads) > maxHeads {
		t.heads = slices.Delete(t.heads, 0, 1)
	}
}

func (t *tracker) dropHead(id wire.EventID) {
	if at := slices.IndexFunc(t.heads, func(h head) bool { return h.ID == id }); at >= 0 {
		t.heads = slices.Delete(t.heads, at, at+1)
	}
}

// parents returns the newest heads other than the own last event, as an event names them.
func (t *tracker) parents(own wire.EventID) (ids []wire.EventID, clocks []wire.HLC) {
	for i := len(t.heads) - 1; i >= 0 && len(ids) < wire.MaxParents; i-- {
		if h := t.heads[i]; h.ID != own {
			ids, clocks = append(ids, h.ID), append(clocks, h.HLC)
		}
	}
	slices.SortFunc(ids, func(a, b wire.EventID) int { return bytes.Compare(a[:], b[:]) })
	return ids, clocks
}
