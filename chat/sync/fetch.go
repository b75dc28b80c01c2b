package sync

import (
	"fmt"
	"slices"
)

// fetcher is the pulling half of a session: what was asked for, and the batch that is coming in.
type fetcher struct {
	pending  []request // oldest first, at most MaxPending
	requests int
	received int  // bytes of batches, decompressed
	before   Item // pages: where the next one starts
	items    int  // pages: items covered so far
	paged    bool // pages: nothing is left to ask

	active  bool // a batch is coming in
	head    records
	data    []byte
	stretch stretch
}

// stretch is what pages made known complete: consecutive pages with no record unavailable.
type stretch struct {
	Interval
	going  bool // the last page was complete
	listed bool // it is the last one of Report.Complete
	page   Time // the last page's lower end, which counts once its records are committed
	broken bool // the last page was not complete
}

// request is a Get or, with a limit, a Page.
type request struct {
	wants  []want
	before Item
	limit  int
}

func (r *request) count() int {
	if r.limit > 0 {
		return r.limit
	}
	return len(r.wants)
}

// spent reports whether the session's limits allow no further request.
func (f *fetcher) spent() bool { return f.received >= MaxFetch || f.requests >= MaxRequests }

// idle reports whether nothing is asked for and nothing will be.
func (f *fetcher) idle(s *Session) bool {
	if len(f.pending) > 0 {
		return false
	}
	if s.pages != nil {
		return f.paged
	}
	return len(s.rec.wants) == 0 || f.spent()
}

// unserved counts claims that were asked for and not answered.
func (f *fetcher) unserved() int {
	n := 0
	for i := range f.pending {
		n += len(f.pending[i].wants)
	}
	return n
}

// ask sends as many requests as may be unanswered at once.
func (s *Session) ask() {
	if s.sentDone {
		return
	}
	if s.pages != nil {
		s.askPage()
		return
	}
	for len(s.fetch.pending) < MaxPending && len(s.rec.wants) > 0 && !s.fetch.spent() {
		wants := s.rec.takeWants(MaxGet)
		s.fetch.pending = append(s.fetch.pending, request{wants: wants})
		s.fetch.requests++
		s.send(&get{runsOf(wants)})
	}
}

// askPage asks for one page at a time: where the next one starts is in the answer.
func (s *Session) askPage() {
	f := &s.fetch
	if len(f.pending) > 0 || f.paged {
		return
	}
	left := s.pages.Events - f.items
	switch {
	case left <= 0 || s.report.PageEnd:
		f.paged = true
		return
	case f.spent():
		f.paged, s.report.Partial = true, true
		return
	}
	r := request{before: f.before, limit: min(left, MaxPage)}
	f.pending = append(f.pending, r)
	f.requests++
	s.send(&page{r.before, uint64(r.limit)})
}

// runsOf names wants, which ascend, as runs of consecutive numbers.
func runsOf(wants []want) []run {
	var runs []run
	next := uint64(0)
	for _, w := range wants {
		if skip := w.number - next; skip > 0 || len(runs) == 0 {
			runs = append(runs, run{skip: skip})
		}
		runs[len(runs)-1].take++
		next = w.number + 1
	}
	return runs
}

// handleRecords takes one frame of a batch.
func (s *Session) handleRecords(m *records) *Misbehaviour {
	f := &s.fetch
	if !f.active {
		if len(f.pending) == 0 {
			return misbehave(OutOfTurn, "records that were not asked for")
		}
		if err := checkHead(m, &f.pending[0]); err != nil {
			return faultOf(err)
		}
		f.active, f.head = true, *m
		f.head.chunk = nil
		f.data = make([]byte, 0, m.travels()) // at most MaxBatch
	} else if m.header() || len(m.chunk) == 0 {
		return misbehave(Malformed, "continued batch with a head or without a chunk")
	}
	if total := f.head.travels(); len(f.data)+len(m.chunk) > total {
		return misbehave(Malformed, "batch of more than %d bytes", total)
	}
	f.data = append(f.data, m.chunk...)
	if len(f.data) < f.head.travels() {
		return nil
	}
	return s.takeBatch()
}

// travels returns the bytes of all chunks of a batch together.
func (m *records) travels() int {
	if m.packed > 0 {
		return int(m.packed)
	}
	return int(m.size)
}

// checkHead checks a batch's announcements against the request before anything is reserved for them.
func checkHead(m *records, r *request) error {
	none := m.next == Item{}
	switch {
	case m.answered > uint64(r.count()):
		return malformed("%d answers to %d questions", m.answered, r.count())
	case m.packed > 0 && m.packed >= m.size:
		return malformed("packed batch is not smaller")
	case m.answered == 0 && (m.size > 0 || r.limit == 0 || !m.end):
		return malformed("empty batch")
	case r.limit == 0 && (m.end || !none):
		return malformed("answer to a get with fields of a page")
	case r.limit > 0 && m.end != none:
		return malformed("page with neither or both of next and end")
	case !none && m.next.Compare(r.before) >= 0:
		return malformed("next page does not begin below this one")
	}
	return nil
}

// takeBatch verifies a complete batch as a whole and asks for its records to be committed.
func (s *Session) takeBatch() *Misbehaviour {
	f := &s.fetch
	head, data, r := f.head, f.data, f.pending[0]
	f.pending = slices.Delete(f.pending, 0, 1)
	f.active, f.data = false, nil
	f.received += int(head.size)
	entries, err := unpackBatch(data, int(head.size), head.packed > 0, int(head.answered))
	if err != nil {
		return faultOf(err)
	}
	var present []Record
	for _, e := range entries {
		if len(e) > 0 {
			present = append(present, Record{Bytes: e})
		}
	}
	if len(present) > 0 {
		s.room.Check(present)
	}
	for i := range present {
		if present[i].Err != nil {
			return misbehave(InvalidRecord, "record %d of %d", i, len(present))
		}
	}
	var fault *Misbehaviour
	if r.limit > 0 {
		fault = s.matchPage(&r, &head, entries, present)
	} else {
		fault = s.matchWants(&r, entries, present)
	}
	if fault != nil {
		return fault
	}
	s.report.Unavailable += len(entries) - len(present)
	if len(present) > 0 {
		s.effect = CommitRecords{present}
	} else {
		s.noteStretch()
	}
	return nil
}

// matchWants compares records with the claims they answer and puts back what was not answered.
func (s *Session) matchWants(r *request, entries [][]byte, present []Record) *Misbehaviour {
	for i, e := range entries {
		if len(e) == 0 {
			continue
		}
		item := present[0].Item
		present = present[1:]
		if s.rec.hash.short(&item.ID) != r.wants[i].short || !s.inWindow(item) {
			return misbehave(Unclaimed, "record is not the one that claim %d named", r.wants[i].number)
		}
	}
	s.rec.returnWants(r.wants[len(entries):])
	return nil
}

// matchPage checks that records descend from the bound that was asked for to the one that was answered.
func (s *Session) matchPage(r *request, head *records, entries [][]byte, present []Record) *Misbehaviour {
	last := r.before
	for i := range present {
		item := present[i].Item
		if item.Compare(last) >= 0 || !s.inWindow(item) || item.Compare(head.next) < 0 {
			return misbehave(Unclaimed, "record %d of a page is out of order", i)
		}
		last = item
	}
	f := &s.fetch
	f.items += len(entries)
	f.before = head.next
	s.report.PageEnd = head.end
	f.stretch.broken = len(entries) > len(present)
	if f.stretch.page = head.next.Time + 1; head.end {
		f.stretch.page = s.report.Floor
	}
	if !f.stretch.going {
		f.stretch.Interval = Interval{To: r.before.Time}
	}
	return nil
}

func (s *Session) inWindow(item Item) bool {
	return item.Time >= s.report.Floor && item.Time < s.report.Cut
}

// Committed answers [CommitRecords]: one outcome for each record, in the same order.
func (s *Session) Committed(outcomes []Outcome) error {
	e, ok := s.effect.(CommitRecords)
	if !ok {
		return fmt.Errorf("committing records: %w", ErrNotAsked)
	}
	if len(outcomes) != len(e.Records) {
		return fmt.Errorf("committing records: %d outcomes for %d records", len(outcomes), len(e.Records))
	}
	s.effect = nil
	for _, o := range outcomes {
		switch o {
		case Accepted:
			s.report.Accepted++
		case Known:
			s.report.Known++
		case Refused:
			s.report.Refused++
		}
	}
	s.noteStretch()
	s.advance()
	return nil
}

// noteStretch reports what a page made complete, now that its records are committed.
func (s *Session) noteStretch() {
	t := &s.fetch.stretch
	if s.pages == nil {
		return
	}
	if t.broken {
		t.going, t.listed = false, false
		return
	}
	t.going, t.From = true, t.page
	switch {
	case t.listed:
		s.report.Complete[len(s.report.Complete)-1] = t.Interval
	case t.From < t.To:
		s.report.Complete = append(s.report.Complete, t.Interval)
		t.listed = true
	}
}
