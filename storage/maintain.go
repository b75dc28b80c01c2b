package storage

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// How often Run does what, in ticks of maintainTick.
const (
	maintainTick = time.Minute
	flushTicks   = 10 // search index
	epochTicks   = 60 // epoch key, table list
)

// Run does the upkeep of an open store until ctx ends: it rotates the epoch
// key every hour if it was used, writes out the search index every ten minutes,
// keeps the table list up to date, and restores the ballast once there is room
// again. Expired records are left to the caller (Sweep). It returns nil.
func (s *Store) Run(ctx context.Context) error {
	ticker := time.NewTicker(maintainTick)
	defer ticker.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if err := s.upkeep(ctx, n); err != nil && ctx.Err() == nil && !errors.Is(err, ErrNoSpace) {
			if errors.Is(err, ErrClosed) {
				return nil
			}
			s.log.Warn("upkeep of the store failed", "error", err)
		}
	}
}

func (s *Store) upkeep(ctx context.Context, n int) error {
	errs := []error{s.makeBallast()}
	if n%flushTicks == 0 {
		errs = append(errs, s.FlushSearch(ctx))
	}
	if n%epochTicks == 0 {
		if s.seal.ring.used() {
			errs = append(errs, s.RotateEpoch(ctx))
		}
		errs = append(errs, s.noteTables())
	}
	return errors.Join(errs...)
}

// compactor is an engine that can be told to drop old versions now.
type compactor interface{ compact() error }

// Purge is "delete now": it rotates the epoch key and rewrites the database so
// that what was replaced, removed or deleted is no longer in its files. (The
// file system, a copy-on-write one above all, and flash storage may keep old
// blocks.) Loops over iterators that are running meanwhile keep what they may
// still see. It rewrites up to the whole database and holds up writers.
func (s *Store) Purge(ctx context.Context) error {
	err := s.FlushSearch(ctx)
	if err == nil {
		err = s.RotateEpoch(ctx)
	}
	if c, ok := s.eng.(compactor); ok && err == nil {
		err = s.update(ctx, Durable, func(t *tx) error {
			t.snap.release() // or compaction would keep what it sees
			defer func() { t.snap = s.eng.snapshot() }()
			return c.compact()
		})
	}
	if err != nil {
		return fmt.Errorf("purging: %w", err)
	}
	return nil
}

// checkAfter is when the tables are read that were not before the database was
// opened: when whoever opened it has read what it needs.
const checkAfter = 2 * time.Second

func (s *Store) checkLater(ctx context.Context) {
	select {
	case <-time.After(checkAfter):
		s.checkTables(ctx)
	case <-ctx.Done():
	}
}

// checkTables compares the CRCs that opening left for later. Damage ends all
// writing: what was damaged counts as absent for those who read.
func (s *Store) checkTables(ctx context.Context) {
	err := s.disk.tables.run(ctx)
	if err == nil || ctx.Err() != nil {
		return
	}
	err = damagedTable(err)
	s.log.Error("the store accepts nothing any more", "error", err)
	_ = s.fail(err)
	s.recoveryMu.Lock()
	defer s.recoveryMu.Unlock()
	s.recovery.Damage = errors.Join(s.recovery.Damage, err)
}

// verifier is an engine that can check its files.
type verifier interface{ verify() error }

// verifyCounts runs after an unclean stop: it checks the tables, counts the
// records of every stream, and calls for a whole check when the books do not
// agree.
func (s *Store) verifyCounts(ctx context.Context) {
	var damage error
	if v, ok := s.eng.(verifier); ok {
		if damage = v.verify(); damage != nil {
			s.log.Error("the database has damaged tables; run the check command", "error", damage)
		}
	}
	agree, err := s.countsAgree(ctx)
	var rep *Report
	if err == nil && !agree {
		var r Report
		if r, err = s.Check(ctx); err == nil {
			rep = &r
			s.log.Warn("counts did not agree after an unclean stop; checked the store",
				"damaged", len(r.Damaged), "repaired", len(r.Repaired))
		}
	}
	if err != nil && ctx.Err() == nil && !errors.Is(err, ErrNoSpace) {
		s.log.Error("checking the store after an unclean stop failed", "error", err)
		damage = errors.Join(damage, err)
	}
	s.recoveryMu.Lock()
	defer s.recoveryMu.Unlock()
	s.recovery.Damage, s.recovery.Check = damage, rep
}

// countsAgree compares, in one snapshot, the books of every stream with the
// number of its entries of each kind. It reads keys only.
func (s *Store) countsAgree(ctx context.Context) (agree bool, err error) {
	agree = true
	err = s.view(ctx, func(snap snapshot) error {
		ids, err := streamIDs(snap)
		if err != nil {
			return err
		}
		var all uint64
		for _, id := range ids {
			c, err := s.counters(snap, id)
			if errors.Is(err, ErrNotFound) {
				continue // half dropped
			}
			if err != nil {
				return err
			}
			for kind, want := range map[byte]uint64{kindRecord: c.count, kindStub: c.stubs} {
				n, err := s.countKeys(ctx, snap, prefixSpan(streamKey(kind, id)))
				if err != nil {
					return err
				}
				agree = agree && n == want
			}
			all += c.count + c.stubs
		}
		n, err := s.countKeys(ctx, snap, prefixSpan([]byte{kindID}))
		agree = agree && n == all
		return err
	})
	return agree, err
}

func (s *Store) countKeys(ctx context.Context, snap snapshot, sp span) (n uint64, err error) {
	var inner error
	err = snap.scan(sp, func([]byte, func() ([]byte, error)) bool {
		if n++; n%1024 == 0 {
			inner = s.check(ctx)
		}
		return inner == nil
	})
	return n, errors.Join(inner, err)
}
