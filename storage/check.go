package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Report is what Check found.
type Report struct {
	Streams, Records, Stubs int
	Values                  int // sealed and tagged values opened
	// Damaged lists what could not be read, at most maxFindings of them.
	// Damaged records cannot be repaired here: they are removed, so that sync
	// fetches them again.
	Damaged []string
	// Repaired lists what was put right: counts, indexes, digests.
	Repaired []string
}

// OK tells whether nothing was damaged or repaired.
func (r Report) OK() bool { return len(r.Damaged) == 0 && len(r.Repaired) == 0 }

// maxFindings bounds the lists of a Report; further findings are counted by
// the last entry.
const maxFindings = 1000

func note(list *[]string, format string, args ...any) {
	switch {
	case len(*list) < maxFindings:
		*list = append(*list, fmt.Sprintf(format, args...))
	case len(*list) == maxFindings:
		*list = append(*list, "and more")
	}
}

// Check reads the whole store and verifies every seal and tag, and for every
// stream the counts, indexes and digests. It repairs what can be derived and
// removes what is damaged beyond that. Writers wait while one stream is
// checked.
func (s *Store) Check(ctx context.Context) (Report, error) {
	var rep Report
	if err := s.checkValues(ctx, &rep); err != nil {
		return rep, fmt.Errorf("checking values: %w", err)
	}
	var ids []StreamID
	err := s.view(ctx, func(snap snapshot) (err error) {
		ids, err = streamIDs(snap)
		return err
	})
	for i := 0; err == nil && i < len(ids); i++ {
		rep.Streams++
		err = s.checkStream(ctx, ids[i], &rep)
	}
	if err == nil {
		err = s.checkOrphans(ctx, ids, &rep)
	}
	if err != nil {
		return rep, fmt.Errorf("checking streams: %w", err)
	}
	return rep, nil
}

// checkValues opens every value and deletes those that do not open.
func (s *Store) checkValues(ctx context.Context, rep *Report) error {
	for _, kind := range []byte(kinds) {
		var bad [][]byte
		err := s.view(ctx, func(snap snapshot) error {
			sp := prefixSpan([]byte{kind})
			var inner error
			err := snap.scan(sp, func(key []byte, value func() ([]byte, error)) bool {
				if inner = s.check(ctx); inner != nil {
					return false
				}
				rep.Values++
				stored, err := value()
				if err == nil {
					_, err = s.seal.open(key, stored)
				}
				if err != nil && !(errors.Is(err, errErased) && (kind == kindRecord || kind == kindEphemeral)) {
					bad = append(bad, slices.Clone(key))
				}
				return true
			})
			return errors.Join(inner, err)
		})
		if err != nil {
			return err
		}
		for part := range slices.Chunk(bad, dropChunk) {
			if err := s.update(ctx, Durable, func(t *tx) error { return t.dropDamaged(part, rep) }); err != nil {
				return err
			}
		}
	}
	return nil
}

// dropDamaged deletes values that do not open. Deleting derived data lets it
// be derived again; other data is reported as lost.
func (t *tx) dropDamaged(keys [][]byte, rep *Report) error {
	for _, key := range keys {
		if _, err := t.get(key); err == nil {
			continue // written anew meanwhile
		}
		switch key[0] {
		case kindID, kindArrival, kindStub, kindDigest, kindExpiry, kindQueued, kindPosting, kindIndexed, kindCounters, kindName:
			note(&rep.Repaired, "dropped a damaged index entry of kind %q", key[0])
		case kindRecord:
			note(&rep.Damaged, "record %x does not open; removed, sync may bring it back", key[17:])
		default:
			note(&rep.Damaged, "value of kind %q does not open; removed", key[0])
		}
		t.del(key)
	}
	return nil
}
