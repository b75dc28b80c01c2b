package sync

import (
	"fmt"
	"slices"
)

// server is the giving half of a session: the requests of the other side, in order.
type server struct {
	question question // being answered while the effect is ReadRecords
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

// handleGet takes a request for claims.
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
	return s.serveQuestion(question{items: items})
}

// handlePage takes a request for the newest items below a bound.
func (s *Session) handlePage(m *page) *Misbehaviour {
	if s.initiator || s.rec.round > 0 {
		return misbehave(OutOfTurn, "page")
	}
	s.serve.paged = true
	below := s.rec.items[:search(s.rec.items, m.before)]
	q := question{page: true, end: len(below) <= int(m.limit)}
	q.items = slices.Clone(below[max(0, len(below)-int(m.limit)):])
	slices.Reverse(q.items)
	return s.serveQuestion(q)
}

// serveQuestion begins to answer. Requests that come meanwhile wait in the transport: no frame is taken
// while there is an effect to answer or output to write.
func (s *Session) serveQuestion(q question) *Misbehaviour {
	v := &s.serve
	v.requests++
	switch {
	case s.peerDone:
		return misbehave(OutOfTurn, "request after done")
	case v.requests > MaxRequests:
		return misbehave(LimitExceeded, "more than %d requests", MaxRequests)
	case v.sent >= MaxFetch+maxFetchSlack:
		return misbehave(LimitExceeded, "more than %d bytes of records asked for", MaxFetch)
	}
	v.question = q
	if len(q.items) == 0 {
		s.answer(nil)
		return nil
	}
	s.effect = ReadRecords{Items: q.items, Enough: MaxBatch}
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

// answer sends the batch that answers a request, as much of it as fits.
func (s *Session) answer(found [][]byte) {
	q := s.serve.question
	s.serve.question = question{}
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
