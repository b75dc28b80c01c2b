package sync

import (
	"encoding/binary"
	"slices"
)

// reconciler finds the difference of two windows in rounds. It takes and gives frames of kind Round;
// who is to send the next one is its caller's business.
type reconciler struct {
	hash   hasher
	items  []Item // own window, oldest first
	floor  Item
	cut    Item
	budget int // bytes of Round frames this side may still send

	round   int     // the last round that was begun, by either side
	claimed []int32 // number of a claim of this side: index in items
	theirs  uint64  // claims of the other side so far
	wants   []want  // of those, what this side misses and did not ask for; ascending numbers
	partial bool    // limits left something out

	in  walk        // the other side's round that is being read
	out roundWriter // the answer to it
}

// want is a claim of the other side that this side misses.
type want struct {
	number uint64
	short  uint64
}

// walk is the position in an incoming round.
type walk struct {
	active bool
	open   bool // a range wants an answer
	bound  Item
}

// opening returns round 1: the newest items as a list, older and older ones in ranges that double in
// size as fingerprints.
func (r *reconciler) opening() [][]byte {
	r.beginOut()
	hi, upper := len(r.items), r.cut
	for size := listAt; ; size *= 2 {
		lo := max(hi-size, 0)
		lower := r.boundAt(lo)
		if size == listAt {
			r.list(lower, upper, lo, hi)
		} else {
			r.sum(lower, upper, lo, hi)
		}
		if lo == 0 {
			return r.out.finish(r)
		}
		hi, upper = lo, lower
	}
}

// equal returns round 1 for two sides that hold the same: closed and empty.
func (r *reconciler) equal() [][]byte {
	r.beginOut()
	return r.out.finish(r)
}

func (r *reconciler) beginOut() {
	r.round++
	r.out = roundWriter{bound: r.cut}
}

// boundAt returns a lower bound that keeps items[at] in and items[at-1] out, as short as it can be sent.
func (r *reconciler) boundAt(at int) Item {
	if at == 0 {
		return r.floor
	}
	below, item := r.items[at-1], r.items[at]
	switch {
	case below.Time.Milli() < item.Time.Milli():
		return Item{Time: timeOf(item.Time.Milli(), 0)}
	case below.Time < item.Time:
		return Item{Time: item.Time}
	}
	b := Item{Time: item.Time}
	for i := range item.ID {
		b.ID[i] = item.ID[i]
		if item.ID[i] != below.ID[i] {
			break
		}
	}
	return b
}

// receive takes one frame of the other side's round. After its last frame it returns the answering
// round, if one is due; over says that no further round comes from either side.
func (r *reconciler) receive(m *round) (answer [][]byte, over bool, fault *Misbehaviour) {
	if !r.in.active {
		r.round++
		r.in = walk{active: true, bound: r.cut}
		r.out = roundWriter{bound: r.cut}
	}
	for i := range m.spans {
		if fault := r.receiveSpan(&m.spans[i]); fault != nil {
			return nil, false, fault
		}
	}
	for i := range len(m.claims) / shortSize {
		r.miss(shortAt(m.claims, i))
	}
	if m.more {
		return nil, false, nil
	}
	r.in.active = false
	if !r.in.open {
		return nil, true, nil
	}
	r.round++
	answer = r.out.finish(r)
	return answer, !r.out.open, nil
}

// receiveSpan compares one range of the other side with the own items in it.
func (r *reconciler) receiveSpan(s *span) *Misbehaviour {
	upper := r.in.bound
	if s.back > upper.Time.Milli() {
		return misbehave(BadRange, "bound before the beginning of time")
	}
	lower := Item{timeOf(upper.Time.Milli()-s.back, s.counter), s.id}
	if lower.Compare(upper) >= 0 || lower.Compare(r.floor) < 0 {
		return misbehave(BadRange, "bound is not below the one before, or below the floor")
	}
	if s.open() && r.round >= MaxRounds {
		return misbehave(LimitExceeded, "round %d asks for an answer", MaxRounds)
	}
	r.in.bound = lower
	r.in.open = r.in.open || s.open()
	lo, hi := search(r.items, lower), search(r.items, upper)
	switch s.says {
	case saysSum:
		if r.hash.sum(r.items[lo:hi]) != s.sum {
			r.differ(lower, upper, lo, hi)
		}
	case saysList:
		r.compare(s.list, lo, hi)
	case saysNothing:
	}
	return nil
}

// differ answers a range whose fingerprints differ: a list if it is short or this is the last chance
// for one, else fingerprints of parts.
func (r *reconciler) differ(lower, upper Item, lo, hi int) {
	answer := r.round + 1
	switch n := hi - lo; {
	case answer > listRound, answer == listRound && n > maxList:
		r.partial = true
		return
	case answer == listRound, n <= listAt:
		r.list(lower, upper, lo, hi)
		return
	}
	for parts := min(splitParts, (hi-lo+splitItems-1)/splitItems); parts > 0; parts-- {
		at := hi - (hi-lo)/parts
		bound := lower
		if parts > 1 {
			bound = r.boundAt(at)
		}
		r.sum(bound, upper, at, hi)
		hi, upper = at, bound
	}
}

// compare answers a list: what the other side lacks is claimed, what this side lacks is wanted.
func (r *reconciler) compare(list []byte, lo, hi int) {
	both := make(map[uint64]bool, len(list)/shortSize) // short id listed: this side has it too
	for i := range len(list) / shortSize {
		both[shortAt(list, i)] = false
	}
	for i := hi - 1; i >= lo; i-- {
		short := r.hash.short(&r.items[i].ID)
		if _, listed := both[short]; listed {
			both[short] = true
		} else {
			r.out.claim(r, i, short)
		}
	}
	for i := range len(list) / shortSize {
		if short := shortAt(list, i); both[short] {
			r.theirs++
		} else {
			r.miss(short)
		}
	}
}

// miss notes a claim of the other side for something this side misses.
func (r *reconciler) miss(short uint64) {
	r.wants = append(r.wants, want{r.theirs, short})
	r.theirs++
}

// sum sends a fingerprint of items[lo:hi], which are those from lower up to upper.
func (r *reconciler) sum(lower, upper Item, lo, hi int) {
	r.out.add(r, lower, upper, span{says: saysSum, sum: r.hash.sum(r.items[lo:hi])}, nil)
}

// list sends the short ids of items[lo:hi], newest first.
func (r *reconciler) list(lower, upper Item, lo, hi int) {
	s := span{says: saysList, list: make([]byte, 0, (hi-lo)*shortSize)}
	indices := make([]int32, 0, hi-lo)
	for i := hi - 1; i >= lo; i-- {
		s.list = binary.LittleEndian.AppendUint64(s.list, r.hash.short(&r.items[i].ID))
		indices = append(indices, int32(i))
	}
	r.out.add(r, lower, upper, s, indices)
}

// claimedItem returns the item behind one of this side's claims.
func (r *reconciler) claimedItem(number uint64) (Item, bool) {
	if number >= uint64(len(r.claimed)) {
		return Item{}, false
	}
	return r.items[r.claimed[number]], true
}

// takeWants removes up to n of the first wants: the newest items come first.
func (r *reconciler) takeWants(n int) []want {
	n = min(n, len(r.wants))
	taken := r.wants[:n:n]
	r.wants = r.wants[n:]
	return taken
}

// returnWants puts back the end of what takeWants gave out, in its place.
func (r *reconciler) returnWants(wants []want) {
	if len(wants) == 0 {
		return
	}
	at, _ := slices.BinarySearchFunc(r.wants, wants[0].number, func(w want, n uint64) int {
		if w.number < n {
			return -1
		}
		return 1
	})
	r.wants = slices.Concat(r.wants[:at], wants, r.wants[at:])
}

// roundWriter builds the frames of one outgoing round within the budget of its reconciler.
type roundWriter struct {
	bound   Item // lower bound of the last range written
	frames  [][]byte
	spans   []byte  // encoded ranges of the current frame
	count   int     // of them
	claims  []byte  // short ids
	listed  []int32 // items behind the lists of the current frame
	missing []int32 // items behind its claims
	open    bool    // a range wants an answer
	full    bool    // the budget is used up: everything older is left to a later session
}

// add appends a range from lower up to upper, with a skipped one before it if need be. indices are
// the items behind its list.
func (w *roundWriter) add(r *reconciler, lower, upper Item, s span, indices []int32) {
	if upper.Compare(w.bound) < 0 {
		w.write(r, upper, span{}, nil)
	}
	w.write(r, lower, s, indices)
}

func (w *roundWriter) write(r *reconciler, lower Item, s span, indices []int32) {
	s.back = w.bound.Time.Milli() - lower.Time.Milli()
	s.counter, s.id = lower.Time.counter(), lower.ID
	encoded := appendBytes(nil, 1, s.append(nil))
	if !w.reserve(r, len(encoded)) {
		return
	}
	w.bound = lower
	w.spans = append(w.spans, encoded...)
	w.count++
	w.listed = append(w.listed, indices...)
	w.open = w.open || s.open()
}

// claim appends a claim for items[index].
func (w *roundWriter) claim(r *reconciler, index int, short uint64) {
	if w.reserve(r, shortSize) {
		w.claims = binary.LittleEndian.AppendUint64(w.claims, short)
		w.missing = append(w.missing, int32(index))
	}
}

// reserve makes room for n bytes in the current frame and reports whether the budget allows them.
func (w *roundWriter) reserve(r *reconciler, n int) bool {
	const overhead = 16 // of a frame: length, kind, tag and length of the claims, more
	pending := len(w.spans) + len(w.claims)
	if w.full || pending+n+2*overhead > r.budget {
		w.full, r.partial = true, true
		return false
	}
	if pending+n > roundPayload || w.count == maxRanges {
		w.flush(r, true)
	}
	return true
}

// flush ends the current frame. Claims are numbered here: first a frame's lists, then its claims.
func (w *roundWriter) flush(r *reconciler, more bool) {
	body := w.spans
	if len(w.claims) > 0 {
		body = appendBytes(body, 2, w.claims)
	}
	frame := wrapFrame(nil, kindRound, appendFlag(body, 3, more))
	w.frames = append(w.frames, frame)
	r.budget -= len(frame)
	r.claimed = append(append(r.claimed, w.listed...), w.missing...)
	w.spans, w.claims, w.count, w.listed, w.missing = nil, nil, 0, nil, nil
}

// finish returns the frames of the round.
func (w *roundWriter) finish(r *reconciler) [][]byte {
	w.flush(r, false)
	return w.frames
}
