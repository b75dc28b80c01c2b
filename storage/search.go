package storage

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"

	"github.com/dchest/siphash"
)

const (
	// MaxIndexText is the longest text that Index and Search take, in bytes.
	MaxIndexText = 64 << 10
	// blockSize is how many arrival numbers one posting covers.
	blockSize = 2048
	// flushPostings is how many postings wait in memory before they are written.
	flushPostings = 128 << 10
	// flushChunk is how many postings one transaction rewrites.
	flushChunk = 1024
)

// searchIndex is the part of the search index that is not yet written.
// Postings are derived data: they are added to blocks on disk now and then,
// and a crash loses what waited here, to be indexed again (IndexedTo).
type searchIndex struct {
	mu       sync.Mutex // guards pending, flushing, postings
	pending  map[StreamID]*streamPostings
	flushing map[StreamID]*streamPostings // being written, still searched
	postings int

	flushMu sync.Mutex // serializes flushes and removals
}

// streamPostings maps a term's hash to arrival numbers, in any order.
type streamPostings struct {
	terms map[uint64][]uint64
	last  uint64 // highest arrival number indexed
}

func (x *searchIndex) drop(id StreamID) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.pending, id)
	delete(x.flushing, id)
}

// find returns the waiting arrival numbers of a term in a block, ascending.
func (x *searchIndex) find(id StreamID, term uint64, block uint32) []uint16 {
	var out []uint16
	x.each(id, term, func(arrival uint64) {
		if blockOf(arrival) == block {
			out = append(out, uint16(arrival%blockSize))
		}
	})
	slices.Sort(out)
	return slices.Compact(out)
}

func (x *searchIndex) each(id StreamID, term uint64, fn func(arrival uint64)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, m := range []map[StreamID]*streamPostings{x.pending, x.flushing} {
		if p := m[id]; p != nil {
			for _, a := range p.terms[term] {
				fn(a)
			}
		}
	}
}

func blockOf(arrival uint64) uint32 { return uint32(arrival / blockSize) }

// postingKey ends in the inverted block number: a scan meets the newest first.
func postingKey(id StreamID, term uint64, block uint32) []byte {
	k := binary.BigEndian.AppendUint64(streamKey(kindPosting, id), term)
	return binary.BigEndian.AppendUint32(k, ^block)
}

// encodePosting writes ascending offsets below blockSize as varints of the
// distance to the one before, the first to -1.
func encodePosting(offsets []uint16) []byte {
	b := make([]byte, 0, len(offsets)+8)
	last := -1
	for _, o := range offsets {
		b = binary.AppendUvarint(b, uint64(int(o)-last))
		last = int(o)
	}
	return b
}

func parsePosting(b []byte) ([]uint16, error) {
	out := make([]uint16, 0, min(len(b), blockSize))
	last := -1
	for len(b) > 0 {
		d, n := binary.Uvarint(b)
		if n <= 0 || d == 0 || d > blockSize || last+int(d) >= blockSize || n != len(binary.AppendUvarint(nil, d)) {
			return nil, fmt.Errorf("posting is malformed: %w", ErrCorrupt)
		}
		last += int(d)
		out = append(out, uint16(last))
		b = b[n:]
	}
	return out, nil
}

// termHash is how terms appear in keys: SipHash under a secret key, so that
// the index does not spell out the texts.
func (s *Store) termHash(term string) uint64 { return s.hashTerm([]byte(term)) }

func (s *Store) hashTerm(term []byte) uint64 { return siphash.Hash(s.seal.tag1, s.seal.tag0, term) }

// Index adds a text to the search index under its record's arrival number.
// Call it once for each record, in the order of arrival, with an empty text
// when there is nothing to find; repeating a call is harmless. The index is
// searchable at once and written later: after a crash IndexedTo says where to
// go on.
func (s *Store) Index(ctx context.Context, stream StreamID, arrival uint64, text string) error {
	if err := s.check(ctx); err != nil {
		return err
	}
	if len(text) > MaxIndexText {
		return fmt.Errorf("indexing text of %d bytes, at most %d: %w", len(text), MaxIndexText, ErrTooBig)
	}
	hashes := termHashes(text, s.hashTerm)
	x := &s.search
	x.mu.Lock()
	if x.pending == nil {
		x.pending = make(map[StreamID]*streamPostings)
	}
	p := x.pending[stream]
	if p == nil {
		p = &streamPostings{terms: make(map[uint64][]uint64)}
		x.pending[stream] = p
	}
	p.last = max(p.last, arrival)
	for _, h := range hashes {
		p.terms[h] = append(p.terms[h], arrival)
	}
	x.postings += len(hashes) + 1
	full := x.postings >= flushPostings
	x.mu.Unlock()
	if full {
		return s.FlushSearch(ctx)
	}
	return nil
}

// IndexedTo returns the highest arrival number of a stream that is in the
// written index; what arrived later has to be given to Index again after Open.
func (s *Store) IndexedTo(ctx context.Context, stream StreamID) (uint64, error) {
	b, err := s.lookup(ctx, streamKey(kindIndexed, stream))
	if err != nil || b == nil {
		return 0, err
	}
	if len(b) != 8 {
		return 0, fmt.Errorf("index mark of %d bytes: %w", len(b), ErrCorrupt)
	}
	return binary.BigEndian.Uint64(b), nil
}

// FlushSearch writes out the index entries that wait in memory. Close does it.
func (s *Store) FlushSearch(ctx context.Context) error {
	x := &s.search
	x.flushMu.Lock()
	defer x.flushMu.Unlock()
	x.mu.Lock()
	if x.flushing == nil {
		x.flushing, x.pending, x.postings = x.pending, nil, 0
	}
	work := maps.Clone(x.flushing)
	x.mu.Unlock()
	for id, p := range work {
		if err := s.flushStream(ctx, id, p); err != nil && !errors.Is(err, ErrNotFound) {
			return fmt.Errorf("writing search index: %w", err)
		}
	}
	x.mu.Lock()
	x.flushing = nil
	x.mu.Unlock()
	return nil
}

// posting is the arrival numbers of one term in one block.
type posting struct {
	term    uint64
	block   uint32
	offsets []uint16
}

// postings returns what waits for one stream, by term and block.
func (p *streamPostings) postings() []posting {
	var out []posting
	for _, term := range slices.Sorted(maps.Keys(p.terms)) {
		for _, a := range slices.Sorted(slices.Values(p.terms[term])) {
			if n := len(out); n == 0 || out[n-1].term != term || out[n-1].block != blockOf(a) {
				out = append(out, posting{term: term, block: blockOf(a)})
			}
			last := &out[len(out)-1]
			last.offsets = append(last.offsets, uint16(a%blockSize))
		}
	}
	return out
}

func (s *Store) flushStream(ctx context.Context, id StreamID, p *streamPostings) error {
	for rest := p.postings(); len(rest) > 0; {
		err := s.update(ctx, Relaxed, func(t *tx) error {
			if _, err := t.counters(id); err != nil {
				return err // the stream was dropped
			}
			for n := 0; len(rest) > 0 && n < flushChunk && t.bytes < groupBytes/2; n++ {
				if err := t.mergePosting(id, rest[0]); err != nil {
					return err
				}
				rest = rest[1:]
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return s.update(ctx, Relaxed, func(t *tx) error {
		if _, err := t.counters(id); err != nil {
			return err
		}
		b, err := t.get(streamKey(kindIndexed, id))
		if err != nil {
			return err
		}
		if len(b) != 8 || binary.BigEndian.Uint64(b) < p.last {
			t.put(streamKey(kindIndexed, id), be64(p.last))
		}
		return nil
	})
}

// mergePosting adds a posting to what is written.
func (t *tx) mergePosting(id StreamID, p posting) error {
	key := postingKey(id, p.term, p.block)
	b, err := t.get(key)
	if err != nil {
		return err
	}
	offsets, err := parsePosting(b)
	if err != nil {
		return err
	}
	offsets = append(offsets, p.offsets...)
	slices.Sort(offsets)
	t.put(key, encodePosting(slices.Compact(offsets)))
	return nil
}

// Unindex takes a text out of the index: call it with the old text when a
// record was redacted or removed, so that its words leave the index too. (They
// would not be found any more anyway: hits are verified.)
func (s *Store) Unindex(ctx context.Context, stream StreamID, arrival uint64, text string) error {
	if len(text) > MaxIndexText {
		return fmt.Errorf("unindexing text of %d bytes, at most %d: %w", len(text), MaxIndexText, ErrTooBig)
	}
	x := &s.search
	x.flushMu.Lock()
	defer x.flushMu.Unlock()
	hashes := termHashes(text, s.hashTerm)
	x.mu.Lock()
	for _, m := range []map[StreamID]*streamPostings{x.pending, x.flushing} {
		if p := m[stream]; p != nil {
			for _, h := range hashes {
				p.terms[h] = slices.DeleteFunc(p.terms[h], func(a uint64) bool { return a == arrival })
			}
		}
	}
	x.mu.Unlock()
	for part := range slices.Chunk(hashes, flushChunk) {
		err := s.update(ctx, Relaxed, func(t *tx) error {
			return t.removePostings(stream, part, arrival)
		})
		if err != nil {
			return fmt.Errorf("unindexing: %w", err)
		}
	}
	return nil
}

func (t *tx) removePostings(stream StreamID, terms []uint64, arrival uint64) error {
	for _, term := range terms {
		key := postingKey(stream, term, blockOf(arrival))
		b, err := t.get(key)
		if err != nil {
			return err
		}
		offsets, err := parsePosting(b)
		if err != nil {
			return err
		}
		i, found := slices.BinarySearch(offsets, uint16(arrival%blockSize))
		switch {
		case found && len(offsets) == 1:
			t.del(key)
		case found:
			t.put(key, encodePosting(slices.Delete(offsets, i, i+1)))
		}
	}
	return nil
}

// DropSearch deletes a stream's search index; IndexedTo is 0 afterwards, and
// indexing every record again rebuilds it.
func (s *Store) DropSearch(ctx context.Context, stream StreamID) error {
	s.search.flushMu.Lock()
	defer s.search.flushMu.Unlock()
	s.search.drop(stream)
	err := s.update(ctx, Relaxed, func(t *tx) error {
		t.del(streamKey(kindIndexed, stream))
		return nil
	})
	if err == nil {
		err = s.deleteSpan(ctx, prefixSpan(streamKey(kindPosting, stream)))
	}
	if err != nil {
		return fmt.Errorf("dropping search index: %w", err)
	}
	return nil
}

// Search finds records whose indexed text holds every word of the query, the
// latest arrivals first, at most limit (which must be positive). verify is
// asked for each candidate, with its record, whether it really matches (see
// TextMatches): the index may name records whose text has changed, and pairs
// of characters that do not stand together. Several streams are merged by
// time, newest first.
func (s *Store) Search(ctx context.Context, query string, streams []StreamID, limit int, verify func(Record) bool) ([]Record, error) {
	if len(query) > MaxIndexText {
		return nil, fmt.Errorf("searching for %d bytes, at most %d: %w", len(query), MaxIndexText, ErrTooBig)
	}
	terms := queryTerms(query)
	if len(terms) == 0 || limit <= 0 {
		return nil, nil
	}
	hashes := make([]uint64, len(terms))
	for i, t := range terms {
		hashes[i] = s.termHash(t)
	}
	var out []Record
	err := s.view(ctx, func(snap snapshot) (err error) {
		out, err = s.mergeHits(ctx, snap, streams, hashes, limit, verify)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("searching: %w", err)
	}
	slices.SortFunc(out, func(a, b Record) int { return b.Position().Compare(a.Position()) })
	return out, nil
}

// mergeHits takes the newest hit of all streams until there are enough.
func (s *Store) mergeHits(ctx context.Context, snap snapshot, streams []StreamID, terms []uint64, limit int, verify func(Record) bool) ([]Record, error) {
	type source struct {
		head Record
		next func() (Record, error, bool)
	}
	var sources []*source
	for _, id := range streams {
		next, stop := iter.Pull2(s.hits(ctx, snap, id, terms, verify))
		defer stop()
		head, err, ok := next()
		if err != nil {
			return nil, err
		}
		if ok {
			sources = append(sources, &source{head, next})
		}
	}
	var out []Record
	for len(sources) > 0 && len(out) < limit {
		i := 0
		for j, src := range sources {
			if src.head.Position().Compare(sources[i].head.Position()) > 0 {
				i = j
			}
		}
		out = append(out, sources[i].head)
		head, err, ok := sources[i].next()
		if err != nil {
			return nil, err
		}
		if !ok {
			sources = slices.Delete(sources, i, i+1)
			continue
		}
		sources[i].head = head
	}
	return out, nil
}

// hits yields the verified records of one stream that hold all terms, the
// latest arrival first.
func (s *Store) hits(ctx context.Context, snap snapshot, id StreamID, terms []uint64, verify func(Record) bool) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		var recent run // the last one used: hits stand close together
		blocks, err := s.blocks(snap, id, terms[0])
		for i := 0; err == nil && i < len(blocks); i++ {
			var offsets []uint16
			offsets, err = s.intersect(snap, id, terms, blocks[i])
			for j := len(offsets) - 1; err == nil && j >= 0; j-- {
				if err = ctx.Err(); err != nil {
					break
				}
				var r Record
				r, err = s.arrived(snap, id, uint64(blocks[i])*blockSize+uint64(offsets[j]), &recent)
				if errors.Is(err, ErrNotFound) {
					err = nil
					continue
				}
				if err == nil && verify(r) && !yield(r, nil) {
					return
				}
			}
		}
		if err != nil {
			yield(Record{}, err)
		}
	}
}

// blocks returns the numbers of the blocks that hold a term, newest first.
func (s *Store) blocks(snap snapshot, id StreamID, term uint64) (out []uint32, err error) {
	prefix := binary.BigEndian.AppendUint64(streamKey(kindPosting, id), term)
	err = snap.scan(prefixSpan(prefix), func(key []byte, _ func() ([]byte, error)) bool {
		if len(key) == len(prefix)+4 {
			out = append(out, ^binary.BigEndian.Uint32(key[len(prefix):]))
		}
		return true
	})
	s.search.each(id, term, func(arrival uint64) {
		if b := blockOf(arrival); len(out) == 0 || out[len(out)-1] != b {
			out = append(out, b)
		}
	})
	slices.SortFunc(out, func(a, b uint32) int { return int(int64(b) - int64(a)) })
	return slices.Compact(out), err
}

// intersect returns the offsets of a block that hold all terms, ascending.
func (s *Store) intersect(snap snapshot, id StreamID, terms []uint64, block uint32) (out []uint16, err error) {
	for i, term := range terms {
		b, err := openFrom(s.seal, snap, postingKey(id, term, block))
		if err != nil {
			return nil, err
		}
		offsets, err := parsePosting(b)
		if err != nil {
			return nil, err
		}
		if waiting := s.search.find(id, term, block); len(waiting) > 0 {
			offsets = slices.Compact(slices.Sorted(slices.Values(append(offsets, waiting...))))
		}
		if i == 0 {
			out = offsets
		} else {
			out = slices.DeleteFunc(out, func(o uint16) bool {
				_, found := slices.BinarySearch(offsets, o)
				return !found
			})
		}
		if len(out) == 0 {
			return nil, nil
		}
	}
	return out, nil
}

// arrived reads a record by its arrival number, or ErrNotFound.
func (s *Store) arrived(snap snapshot, id StreamID, arrival uint64, recent *run) (Record, error) {
	if arrival < recent.first || arrival >= recent.end() {
		r, err := runAt(s.seal, snap, id, arrival)
		if err != nil {
			return Record{}, err
		}
		*recent = r
	}
	return s.recordOf(snap, id, arrival, recent.positions[arrival-recent.first])
}
