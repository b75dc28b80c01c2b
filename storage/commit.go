package storage

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

const (
	// groupOps and groupBytes bound what one transaction and one sync carry.
	groupOps   = 256
	groupBytes = 1 << 20
	// requestQueue is how many requests may wait for the committer; beyond it
	// Commit blocks until its context ends.
	requestQueue = 512
	// relaxedDelay is how long after a relaxed batch others may share its sync, and relaxedPause the least
	// time between the last sync and one that nobody waits for: the longest a relaxed batch waits. A sync
	// costs more than the batch, and each page of the log that is written after it faults anew.
	relaxedDelay = 20 * time.Millisecond
	relaxedPause = 250 * time.Millisecond
)

// request asks the committer to run fn in a transaction.
type request struct {
	fn      func(t *tx) error
	ops     int
	bytes   int
	mode    Durability
	history bool // adds records that others still hold
	cleanup bool // only removes or reseals: allowed while there is any room
	alone   bool // reads by scan: no other request in its transaction
	err     error
	done    chan struct{} // closed when err is valid; nil in memory
	// applied is closed once the request's writes are visible, or when it is
	// done without; nil if nobody waits for that.
	applied chan struct{}
	visible bool // valid once applied is closed
}

// Commit applies a batch. It returns ErrTooBig, ErrNotFound, ErrNoSpace,
// ErrClosed and the like with nothing written. When ctx ends first, the
// outcome is unknown: the batch is applied whole or not at all, and since
// appends are idempotent it can be committed again from a fresh Batch.
func (s *Store) Commit(ctx context.Context, b *Batch, d Durability) (Result, error) {
	res := new(Result)
	r, err := b.request(d, res)
	switch {
	case err != nil:
	case r == nil:
		return Result{}, s.check(ctx)
	default:
		err = s.submit(ctx, r)
	}
	if err != nil {
		return Result{}, fmt.Errorf("committing batch: %w", err)
	}
	return *res, nil
}

// Pending is a batch that is visible and on its way to the disk.
type Pending struct{ r *request }

// Wait returns once the batch is durable, or the error that keeps it from being
// so: then the store has stopped writing. When ctx ends first, the outcome is
// unknown.
func (p Pending) Wait(ctx context.Context) error {
	if p.r == nil || p.r.done == nil {
		return nil
	}
	select {
	case <-p.r.done:
		return p.r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Begin is Commit with Durable, in two steps: it returns once the batch is
// visible and survives a kill of the process, so that the next one can be made
// while the disk works. What tells others that the batch is kept has to wait for
// the Pending. Errors are those of Commit.
func (s *Store) Begin(ctx context.Context, b *Batch) (Pending, error) {
	r, err := b.request(Durable, new(Result))
	switch {
	case err != nil:
	case r == nil:
		return Pending{}, s.check(ctx)
	default:
		r.applied = make(chan struct{})
		err = s.submit(ctx, r)
	}
	if err != nil {
		return Pending{}, fmt.Errorf("committing batch: %w", err)
	}
	return Pending{r}, nil
}

// request turns a batch into what the committer does; nil if it is empty.
func (b *Batch) request(d Durability, res *Result) (*request, error) {
	if b.err != nil {
		return nil, b.err
	}
	if b.spent {
		return nil, errors.New("it was committed before")
	}
	b.spent = true
	if len(b.ops) == 0 {
		return nil, nil
	}
	return &request{
		ops: len(b.ops), bytes: b.bytes, mode: d,
		history: d == Relaxed && b.appends > 0,
		fn:      func(t *tx) error { return b.run(t, res) },
	}, nil
}

func (b *Batch) run(t *tx, res *Result) error {
	res.Appended = make([]Appended, 0, b.appends)
	for _, o := range b.ops {
		if err := o.apply(t, res); err != nil {
			return err
		}
	}
	if b.guarded {
		return t.guardBatch(b.ops)
	}
	return nil
}

// update runs a maintenance function in a transaction of its own.
func (s *Store) update(ctx context.Context, d Durability, fn func(t *tx) error) error {
	return s.submit(ctx, &request{fn: fn, mode: d, ops: groupOps, alone: true, cleanup: true})
}

// submit hands a request to the committer and waits for the answer, or until it
// is visible if that is asked for.
func (s *Store) submit(ctx context.Context, r *request) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if !s.users.enter() {
		return ErrClosed
	}
	defer s.users.leave()
	if s.requests == nil {
		s.writeMu.Lock()
		defer s.writeMu.Unlock()
		s.commitGroup([]*request{r})
		return r.err
	}
	r.done = make(chan struct{})
	select {
	case s.requests <- r:
	case <-ctx.Done():
		return ctx.Err()
	}
	abandon := ctx.Done()
	if r.alone {
		abandon = nil // its function writes to variables of the caller, who must wait
	}
	select {
	case <-r.applied: // never, if nil
		if r.visible {
			return nil
		}
		<-r.done
		return r.err
	case <-r.done:
		return r.err
	case <-abandon:
		return ctx.Err()
	}
}

// Sync returns once everything that was committed before it is durable, relaxed
// batches as well.
func (s *Store) Sync(ctx context.Context) error {
	if !s.unsynced.Load() {
		return s.check(ctx)
	}
	if err := s.submit(ctx, &request{fn: func(*tx) error { return nil }, mode: Durable, cleanup: true}); err != nil {
		return fmt.Errorf("syncing: %w", err)
	}
	return nil
}

// commitLoop is the committer: it takes what waits, commits it at once, and
// lets others gather while the sync runs. It ends after quit is closed, which
// happens when no caller is left, and the last sync is done.
func (s *Store) commitLoop() {
	defer close(s.done)
	var held *request        // did not fit into the last group
	var due <-chan time.Time // fires at until, when what is applied has waited long enough for a sync
	var until time.Time
	timer := time.NewTimer(relaxedDelay)
	defer timer.Stop()
	for {
		var group []*request
		if held != nil {
			group, held = append(group, held), nil
		} else {
			select {
			case r := <-s.requests:
				group = append(make([]*request, 0, 16), r)
			case <-due:
			case <-s.quit: // nobody is inside any more, so nothing waits
				if s.waitsForSync() {
					s.syncNow()
				}
				return
			}
		}
		if len(group) > 0 {
			group, held = s.gather(group)
			s.commitGroup(group)
		}
		switch now := time.Now(); {
		case !s.waitsForSync():
			due = nil
		case due == nil:
			wait := max(relaxedDelay, relaxedPause-now.Sub(s.synced))
			until = now.Add(wait)
			timer.Reset(wait)
			due = timer.C
		case !now.Before(until):
			// Also when relaxed requests keep coming: a log that Badger has replaced
			// twice since the last sync is harder to keep track of.
			s.syncNow()
			due = nil
		}
	}
}

// waitsForSync says whether something was applied that is not durable yet. After a failed sync nothing is.
func (s *Store) waitsForSync() bool { return s.unsynced.Load() && s.failed.Load() == nil }

// gather adds what is waiting to a group, without waiting itself. A request
// that does not fit is returned to start the next group.
func (s *Store) gather(group []*request) (full []*request, held *request) {
	ops, size := group[0].ops, group[0].bytes
	if group[0].alone {
		return group, nil
	}
	for {
		select {
		case r := <-s.requests:
			if r.alone || ops+r.ops > groupOps || size+r.bytes > groupBytes {
				return group, r
			}
			group, ops, size = append(group, r), ops+r.ops, size+r.bytes
		default:
			return group, nil
		}
	}
}

func (r *request) finish(err error) {
	r.err = err
	if r.done != nil {
		close(r.done)
	}
	if r.applied != nil && !r.visible {
		close(r.applied)
	}
}

// show tells whoever waits for it that the request's writes are visible.
func (r *request) show() {
	if r.applied != nil {
		r.visible = true
		close(r.applied)
	}
}

// commitGroup runs the requests of a group in one transaction and answers them.
func (s *Store) commitGroup(group []*request) {
	s.growFilter()
	t := s.begin()
	durable := false
	accepted := make([]*request, 0, len(group))
	free, known := s.room()
	for _, r := range group {
		if err := s.admit(r, free, known); err != nil {
			r.finish(err)
			continue
		}
		m := t.mark()
		if err := r.fn(t); err != nil {
			t.rollback(m)
			r.finish(err)
			continue
		}
		accepted = append(accepted, r)
		durable = durable || r.mode == Durable
	}
	if len(accepted) == 0 {
		t.snap.release()
		return
	}
	err := s.applyTx(t)
	t.snap.release()
	if err == nil {
		for _, fn := range t.after {
			fn()
		}
	}
	if err == nil && durable {
		for _, r := range accepted {
			r.show()
		}
		answerRelaxed(accepted)
		err = s.syncAll()
	}
	for _, r := range accepted {
		r.finishOnce(err)
	}
}

// answerRelaxed answers the relaxed requests of a group before the sync that
// its durable ones wait for.
func answerRelaxed(group []*request) {
	for _, r := range group {
		if r.mode == Relaxed {
			r.finishOnce(nil)
		}
	}
}

// finishOnce is finish for a request that may have been answered already.
func (r *request) finishOnce(err error) {
	if r.fn == nil {
		return
	}
	r.fn = nil
	r.finish(err)
}

// applyTx seals and applies a transaction with the next commit number.
func (s *Store) applyTx(t *tx) error {
	if t.empty() {
		return nil
	}
	if err := s.opts.hook("before-commit"); err != nil {
		return err
	}
	s.unsynced.Store(true)
	t.put(storeKey(headName), be64(s.seq+1))
	writes, err := t.writes()
	if err != nil {
		return err
	}
	if err := s.writeGuard(t); err != nil {
		return err
	}
	if err := s.eng.apply(writes); err != nil {
		return s.fail(fmt.Errorf("writing to the database failed; stop and start again: %w", err))
	}
	s.seq++
	return s.opts.hook("after-commit")
}

// headName is the key under which the last commit number is stored.
const headName = "head"

// readHead returns the last commit number in the database.
func readHead(sl *sealer, snap snapshot) (uint64, error) {
	b, err := openFrom(sl, snap, storeKey(headName))
	if err != nil || b == nil {
		return 0, err
	}
	if len(b) != 8 {
		return 0, fmt.Errorf("commit number of %d bytes: %w", len(b), ErrCorrupt)
	}
	return binary.BigEndian.Uint64(b), nil
}

// syncNow is the delayed sync of relaxed batches.
func (s *Store) syncNow() {
	if err := s.syncAll(); err != nil {
		s.log.Error("delayed sync failed", "error", err)
	}
}

// syncAll makes everything applied so far durable. A failed sync cannot be
// repeated (the kernel drops the dirty pages), so the store stops writing.
func (s *Store) syncAll() error {
	err := s.opts.hook("before-sync")
	if err == nil {
		err = s.syncFiles()
	}
	if err == nil {
		s.unsynced.Store(false) // nobody writes meanwhile
		s.synced = time.Now()
	}
	if err != nil {
		return s.fail(fmt.Errorf("syncing to disk failed, so what was stored last is unknown; stop and start again: %w", err))
	}
	return s.opts.hook("after-sync")
}

// fail stops all writing.
func (s *Store) fail(err error) error {
	s.failed.CompareAndSwap(nil, &err)
	return err
}
