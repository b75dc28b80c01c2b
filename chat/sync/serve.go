package sync

import (
	"fmt"
	"slices"
)

// server is the giving half of a session: the requests of the other side, in order.
type server struct {
	queue    []question // at most MaxPending
	requests int
	sent     int  // bytes of batches, decompressed
	paged    bool // the initiator asks for pages
}

// question is a request of the other side as items of this side's window.
type question struct {
	items []Item // in the order of the answer
	page  bool
	end   bool // pages: nothing older is in the window
}

// handleGet notes a request for claims.
func (s *Session) handleGet(m *get) *Misbehaviour {
	items := make([]Item, 0, 8)
	next := uint64(0)
	for _, r := range m.runs {
		if r.skip > uint64(len(s.rec.claimed)) {
			return misbehave(Unclaimed, "get of a claim that was not made")
		}
		next += r.skip
		for range r.take {
			item, ok := s.rec.claimedItem(next)
			if !ok {
				return misbehave(Unclaimed, "get of claim %d of %d", next, len(s.rec.claimed))
			}
			items = append(items, item)
			next++
		}
	}
	return s.enqueue(question{items: items})
}

// handlePage notes a request for the newest items below a bound.
func (s *Session) handlePage(m *page) *Misbehaviour {
	if s.initiator || s.rec.round > 0 {
		return misbehave(OutOfTurn, "page")
	}
	s.serve.paged = true
	below := s.rec.items[:search(s.rec.items, m.before)]
	q := question{page: true, end: len(below) <= int(m.limit)}
	q.items = slices.Clone(below[max(0, len(below)-int(m.limit)):])
	slices.Reverse(q.items)
	return s.enqueue(q)
}

func (s *Session) enqueue(q question) *Misbehaviour {
	v := &s.serve
	v.requests++
	if v.requests > MaxRequests || len(v.queue) == MaxPending {
		return misbehave(LimitExceeded, "%d requests, %d unanswered", v.requests, len(v.queue)+1)
	}
	if s.peerDone {
		return misbehave(OutOfTurn, "request after done")
	}
	v.queue = append(v.queue, q)
	return nil
}

// serveNext begins the next answer, once all output was taken.
func (s *Session) serveNext() *Misbehaviour {
	for len(s.serve.queue) > 0 && len(s.out) == 0 {
		if s.serve.sent >= MaxFetch+maxFetchSlack {
			return misbehave(LimitExceeded, "more than %d bytes of records asked for", MaxFetch)
		}
		q := &s.serve.queue[0]
		if len(q.items) > 0 {
			s.effect = ReadRecords{Items: q.items, Enough: MaxBatch}
			return nil
		}
		s.answer(nil)
	}
	return nil
}

// Read answers [ReadRecords]: the records of the first len(records) items, at least one, in order. Nil
// stands for a record that is not available: a stub, or removed since.
func (s *Session) Read(found [][]byte) error {
	e, ok := s.effect.(ReadRecords)
	if !ok {
		return fmt.Errorf("reading records: %w", ErrNotAsked)
	}
	if len(found) == 0 || len(found) > len(e.Items) {
		return fmt.Errorf("reading records: %d records for %d items", len(found), len(e.Items))
	}
	s.effect = nil
	s.answer(found)
	s.advance()
	return nil
}

// answer sends the batch that answers the oldest request, as much of it as fits.
func (s *Session) answer(found [][]byte) {
	q := s.serve.queue[0]
	s.serve.queue = slices.Delete(s.serve.queue, 0, 1)
	entries := make([][]byte, 0, len(found))
	size := 0
	for _, record := range found {
		if len(record) > MaxRecord { // was never valid; the other side would take it for a violation
			record = nil
		}
		if size += entrySize(record); size > MaxBatch {
			break
		}
		entries = append(entries, record)
		if len(record) > 0 {
			s.report.Served++
		}
	}
	batch, packed := packBatch(entries)
	s.serve.sent += len(batch)
	head := records{answered: uint64(len(entries)), size: uint64(len(batch)), packed: uint64(len(packed))}
	if q.page {
		if head.end = q.end && len(entries) == len(q.items); !head.end {
			head.next = q.items[len(entries)-1]
		}
	}
	if packed != nil {
		batch = packed
	}
	s.sendBatch(head, batch)
}

// sendBatch queues the frames of one batch.
func (s *Session) sendBatch(head records, batch []byte) {
	s.out = slices.Grow(s.out, len(batch)+len(batch)/chunkSize*8+64)
	for m := head; ; m = (records{}) {
		m.chunk = batch[:min(chunkSize, len(batch))]
		batch = batch[len(m.chunk):]
		s.send(&m)
		if len(batch) == 0 {
			return
		}
	}
}
