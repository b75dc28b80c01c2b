package storage

import (
	"fmt"
)

// State says what the store accepts at the moment and how much room there is.
func (s *Store) State() State {
	st := State{Recovery: s.recovery}
	if err := s.failed.Load(); err != nil {
		st.Mode, st.Err = ModeFailed, *err
	}
	free, known := s.free()
	st.Free, st.FreeKnown = free, known
	if st.Mode == ModeOK {
		st.Mode = s.mode(free, known)
	}
	return st
}

// free asks the file system how much room there is.
func (s *Store) free() (uint64, bool) {
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
func (s *Store) admit(r *request) error {
	if err := s.failed.Load(); err != nil {
		return *err
	}
	free, known := s.free()
	if s.mode(free, known) == ModeOK {
		return nil
	}
	limit := s.opts.Space.ReadOnly
	switch {
	case r.cleanup:
		limit /= 2 // what frees room or erases keys goes on a little longer
	case r.history:
		limit = s.opts.Space.NoHistory
	}
	if free >= limit {
		return nil
	}
	return fmt.Errorf("%d MiB free on the disk, %d MiB needed; free some space and try again: %w",
		free>>20, (limit+1<<20-1)>>20, ErrNoSpace)
}
