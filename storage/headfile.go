package storage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// headFile remembers, beside the database, the last commit number that was
// acknowledged as durable. Badger drops what follows a damaged byte of its log
// without a word; the number tells. Two slots are written in turn, each the
// number and its tag, so a torn write spoils one of them only. It is not
// synced with every commit: after a power cut it may be behind, never ahead.
type headFile struct {
	f *os.File
	s *sealer
}

const headSlotSize = 8 + tagSize

// openHead opens or creates the file. known is false if it held no valid slot.
func openHead(dir string, s *sealer) (h *headFile, seq uint64, known bool, err error) {
	f, err := os.OpenFile(filepath.Join(dir, headFileName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, 0, false, err
	}
	b := make([]byte, 2*headSlotSize)
	n, _ := f.ReadAt(b, 0)
	for b = b[:n]; len(b) >= headSlotSize; b = b[headSlotSize:] {
		if v, ok := parseHeadSlot(s, b[:headSlotSize]); ok {
			seq, known = max(seq, v), true
		}
	}
	return &headFile{f, s}, seq, known, nil
}

func parseHeadSlot(s *sealer, b []byte) (uint64, bool) {
	v := binary.BigEndian.Uint64(b)
	return v, binary.BigEndian.Uint64(b[8:]) == s.tag([]byte(headFileName), b[:8])
}

// reset makes seq the number of both slots.
func (h *headFile) reset(seq uint64) error {
	b := h.slot(seq)
	if _, err := h.f.WriteAt(append(b, b...), 0); err != nil {
		return fmt.Errorf("writing the head file: %w", err)
	}
	return nil
}

func (h *headFile) slot(seq uint64) []byte {
	b := be64(seq)
	return binary.BigEndian.AppendUint64(b, h.s.tag([]byte(headFileName), b))
}

func (h *headFile) write(seq uint64) error {
	if _, err := h.f.WriteAt(h.slot(seq), int64(seq%2)*headSlotSize); err != nil {
		return fmt.Errorf("writing the head file: %w", err)
	}
	return nil
}

func (h *headFile) close() error { return errors.Join(h.f.Sync(), h.f.Close()) }
