package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// State says what the store accepts at the moment and how much room there is.
func (s *Store) State() State {
	s.recoveryMu.Lock()
	st := State{Recovery: s.recovery}
	s.recoveryMu.Unlock()
	if err := s.failed.Load(); err != nil {
		st.Mode, st.Err = ModeFailed, *err
	}
	st.Epoch, _ = s.seal.ring.peek()
	st.Free, st.FreeKnown = s.free()
	if st.Mode == ModeOK {
		st.Mode = s.mode(st.Free, st.FreeKnown)
	}
	if st.Mode < ModeReadOnly && s.disk != nil && s.disk.engine.gate.full() > 0 {
		st.Mode = ModeReadOnly
	}
	return st
}

// FreeMemory gives back memory that holds what the disk has as well: what is needed of it is read again. It is
// meant for a time when little happens, and holds up merges of tables for milliseconds.
func (s *Store) FreeMemory() error {
	if s.disk == nil {
		return nil
	}
	if !s.users.enter() {
		return ErrClosed
	}
	defer s.users.leave()
	if err := s.disk.engine.release(); err != nil {
		return fmt.Errorf("freeing memory: %w", err)
	}
	return nil
}

// room is free for the committer: there is none while tables wait for some, or
// the next log has not got its own.
func (s *Store) room() (free uint64, known bool) {
	if s.disk == nil {
		return s.free()
	}
	e := s.disk.engine
	if e.gate.full() > 0 {
		return 0, true
	}
	if err := e.makeSpare(); err != nil {
		if !errors.Is(err, ErrNoSpace) {
			s.log.Warn("cannot reserve room for the next log", "error", err)
		}
		return 0, true
	}
	return s.free()
}

// free asks the file system how much room there is.
func (s *Store) free() (free uint64, known bool) {
	if s.opts.Space.Off || s.opts.FreeSpace == nil {
		return 0, false
	}
	free, err := s.opts.FreeSpace(s.opts.Dir)
	return free, err == nil
}

func (s *Store) mode(free uint64, known bool) Mode {
	switch {
	case !known:
		return ModeOK
	case free < s.opts.Space.ReadOnly:
		return ModeReadOnly
	case free < s.opts.Space.NoHistory:
		return ModeNoHistory
	}
	return ModeOK
}

// admit refuses a request that the store's state forbids.
func (s *Store) admit(r *request, free uint64, known bool) error {
	if err := s.failed.Load(); err != nil {
		return *err
	}
	limit := s.opts.Space.ReadOnly
	switch {
	case !known:
		return nil
	case r.cleanup:
		limit /= 2 // what frees room or erases keys goes on a little longer
	case r.history:
		limit = s.opts.Space.NoHistory
	}
	if free >= limit {
		return nil
	}
	return noSpace(free, limit)
}

func noSpace(free, limit uint64) error {
	return fmt.Errorf("%d MiB free on the disk, %d MiB needed; free some space and try again: %w",
		free>>20, (limit+1<<20-1)>>20, ErrNoSpace)
}

// flushRoom is the room Badger needs to write its buffers out as tables, when
// it closes or after an unclean stop; smallRoom is for all else that opening
// and closing write.
func flushRoom(memTable uint64) uint64 { return 2*memTable + smallRoom }

const smallRoom = 4 << 20

// openRoom is the room without which opening is refused. old is nil for a new
// store. Where files have their blocks before they are mapped, a new log needs
// its own, and tables wait for theirs.
func (o *Options) openRoom(old *diskState) uint64 {
	memTable := uint64(o.Sizes.MemTable)
	unclean := old != nil && !old.Clean
	if unclean {
		memTable = max(memTable, uint64(old.MemTable))
	}
	switch {
	case reserves:
		return memTable + memTable/4 + smallRoom
	case unclean:
		return flushRoom(memTable)
	}
	return smallRoom
}

// openSpace makes sure that there is room to open. It deletes the ballast if
// need be, and refuses to open when even that does not help.
func (s *Store) openSpace(old *diskState) error {
	need := s.opts.openRoom(old)
	if free, ok := s.makeRoom(max(need, s.opts.Space.ReadOnly), need); !ok {
		return noSpace(free, need)
	}
	return s.makeBallast()
}

// makeRoom deletes the ballast if less than wish is free, and tells whether at
// least need is free then.
func (s *Store) makeRoom(wish, need uint64) (free uint64, ok bool) {
	free, known := s.free()
	if !known || free >= wish {
		return free, true
	}
	if err := os.Remove(s.ballastPath()); err == nil {
		s.log.Warn("disk is nearly full; released the ballast", "free", free)
		free, _ = s.free()
	}
	return free, free >= need
}

func (s *Store) ballastPath() string { return filepath.Join(s.opts.Dir, ballastName) }

// makeBallast puts the ballast in place if there is plenty of room.
func (s *Store) makeBallast() error {
	if s.disk == nil {
		return nil
	}
	free, known := s.free()
	if !known || free < s.opts.Space.NoHistory+s.opts.Space.Ballast {
		return nil
	}
	f, err := os.OpenFile(s.ballastPath(), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return notWritable(err)
	}
	err = allocate(f, int64(s.opts.Space.Ballast))
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("making the ballast file: %w", err), os.Remove(s.ballastPath()))
	}
	return nil
}
