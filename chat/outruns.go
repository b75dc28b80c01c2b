package chat

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/starling-chat/starling/storage"
)

// outRun is how far a stretch of own direct messages came, by their own sequence numbers. Mostly a
// whole conversation is one run, so that an acknowledgement of hundreds is one write.
type outRun struct {
	first, last uint64
	state       State
	path        Path
}

// outRuns is the runs of one conversation, ascending and apart from each other.
type outRuns []outRun

// bucketOutRuns holds runs under stream and first number. Encoding: version, rank of the state, place
// of the path, last number 8.
const bucketOutRuns = "outruns"

func outRunKey(stream storage.StreamID, first uint64) []byte {
	return binary.BigEndian.AppendUint64(slices.Clone(stream[:]), first)
}

func (r outRun) encode() []byte {
	b := []byte{rowVersion, byte(r.state.rank()), byte(max(pathRank(r.path), 0))}
	return binary.BigEndian.AppendUint64(b, r.last)
}

func decodeOutRun(key, b []byte) (outRun, error) {
	if len(key) != 16 || len(b) != 11 || b[0] != rowVersion || int(b[1]) >= len(ranked) || int(b[2]) >= len(pathOrder) {
		return outRun{}, fmt.Errorf("reading a stored run of %d bytes: %w", len(b), storage.ErrCorrupt)
	}
	r := outRun{binary.BigEndian.Uint64(key[8:]), binary.BigEndian.Uint64(b[3:]), ranked[b[1]], pathOrder[b[2]]}
	if r.first > r.last {
		return outRun{}, fmt.Errorf("reading a stored run that ends before it begins: %w", storage.ErrCorrupt)
	}
	return r, nil
}

// loadOutRuns reads the runs of a conversation.
func loadOutRuns(ctx context.Context, store *storage.Store, stream storage.StreamID) (outRuns, error) {
	var l outRuns
	for kv, err := range store.ScanBucket(ctx, bucketOutRuns, stream[:]) {
		if err != nil {
			return nil, err
		}
		r, err := decodeOutRun(kv.Key, kv.Value)
		if err != nil {
			return nil, err
		}
		if n := len(l); n > 0 && l[n-1].last >= r.first {
			return nil, fmt.Errorf("reading stored runs that overlap: %w", storage.ErrCorrupt)
		}
		l = append(l, r)
	}
	return l, nil
}

// find returns the place of the run that holds a number, or where one would stand.
func (l outRuns) find(seq uint64) (int, bool) {
	return slices.BinarySearchFunc(l, seq, func(r outRun, seq uint64) int {
		switch {
		case r.last < seq:
			return -1
		case r.first > seq:
			return 1
		}
		return 0
	})
}

// at returns how far a message came; false if no run holds it.
func (l outRuns) at(seq uint64) (outStateRow, bool) {
	i, ok := l.find(seq)
	if !ok {
		return outStateRow{}, false
	}
	return outStateRow{State: l[i].state, Path: l[i].path}, true
}

// set gives one message a state and notes in dirty the first numbers of the runs that changed.
func (l outRuns) set(seq uint64, state State, path Path, dirty map[uint64]bool) outRuns {
	one := outRun{seq, seq, state, path}
	i, ok := l.find(seq)
	if ok {
		old := l[i]
		if old.state == state && old.path == path {
			return l
		}
		dirty[old.first] = true
		parts := make([]outRun, 0, 3)
		if old.first < seq {
			parts = append(parts, outRun{old.first, seq - 1, old.state, old.path})
		}
		parts = append(parts, one)
		if seq < old.last {
			dirty[seq+1] = true
			parts = append(parts, outRun{seq + 1, old.last, old.state, old.path})
		}
		l = slices.Replace(l, i, i+1, parts...)
		if old.first < seq {
			i++
		}
	} else {
		l = slices.Insert(l, i, one)
	}
	dirty[seq] = true
	// Join it with the neighbours that are alike.
	if i+1 < len(l) && l[i].joins(l[i+1]) {
		dirty[l[i+1].first] = true
		l[i].last = l[i+1].last
		l = slices.Delete(l, i+1, i+2)
	}
	if i > 0 && l[i-1].joins(l[i]) {
		dirty[l[i-1].first] = true
		l[i-1].last = l[i].last
		l = slices.Delete(l, i, i+1)
	}
	return l
}

// joins says whether the next run goes on with this one.
func (r outRun) joins(next outRun) bool {
	return r.last+1 == next.first && r.state == next.state && r.path == next.path
}

// store adds the runs that changed to a batch.
func (l outRuns) store(b *storage.Batch, stream storage.StreamID, dirty map[uint64]bool) {
	for first := range dirty {
		key := outRunKey(stream, first)
		if i, ok := l.find(first); ok && l[i].first == first {
			b.Put(bucketOutRuns, key, l[i].encode())
		} else {
			b.Delete(bucketOutRuns, key)
		}
	}
}
