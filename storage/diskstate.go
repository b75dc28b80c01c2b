package storage

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Files in the store's directory. Badger has its own directory below.
const (
	lockName      = "LOCK"
	stateName     = "state"
	epochName     = "epoch"
	headFileName  = "head"
	guardName     = "guard"
	ballastName   = "ballast"
	manifestCopy  = "MANIFEST.copy"
	registryCopy  = "KEYREGISTRY.copy"
	engineDirName = "db"
)

// stateVersion is the version of the directory's layout.
const stateVersion = 1

// maxStateFile bounds the state file, in bytes: 100,000 tables.
const maxStateFile = 16 << 20

// diskState is the state file: what has to be known before Badger may open
// the tables. It is replaced atomically at every open and close.
type diskState struct {
	Version int `json:"version"`
	// Clean: the store was closed, and the fields below describe it exactly.
	Clean bool `json:"clean"`
	// KeyCheck is derived from the master key, to tell a wrong one.
	KeyCheck string `json:"key_check"`
	// MemTable is the write buffer the logs were written with.
	MemTable int64 `json:"mem_table"`
	// Seq is the last commit number, Manifest the SHA-256 of the MANIFEST.
	Seq      uint64 `json:"seq"`
	Manifest string `json:"manifest"`
	// Journal: the database has all that the guard journal holds. Only after a
	// clean stop.
	Journal bool `json:"journal,omitempty"`
	// Tables were complete when the file was written. Tables never change, so
	// the list holds also after an unclean stop, for those that still exist.
	Tables []tableInfo `json:"tables"`
}

// tableInfo describes one table file.
type tableInfo struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
	CRC  uint32 `json:"crc32c"`
	// Changed is when the file was last written to, in Unix nanoseconds, as of
	// when it was known to have this CRC; 0 if that is not known.
	Changed int64 `json:"changed,omitempty"`
}

func keyCheck(master []byte) string { return hex.EncodeToString(subKey(master, "check")[:16]) }

func (st *diskState) keyMatches(master []byte) bool {
	return subtle.ConstantTimeCompare([]byte(st.KeyCheck), []byte(keyCheck(master))) == 1
}

// stateHeader is the first line of the state file; the SHA-256 of what follows
// the line stands after it.
const stateHeader = "starling-store 1 "

func (st *diskState) encode() []byte {
	body, err := json.MarshalIndent(st, "", " ")
	if err != nil {
		panic(err) // only for types that JSON does not know
	}
	sum := sha256.Sum256(body)
	return append([]byte(stateHeader+hex.EncodeToString(sum[:])+"\n"), body...)
}

func parseDiskState(b []byte) (*diskState, error) {
	line, body, ok := strings.Cut(string(b), "\n")
	if !ok || !strings.HasPrefix(line, "starling-store ") {
		return nil, fmt.Errorf("state file has no known format: %w", ErrCorrupt)
	}
	if !strings.HasPrefix(line, stateHeader) {
		return nil, fmt.Errorf("state file says %.40q: %w", line, ErrNewer)
	}
	sum := sha256.Sum256([]byte(body))
	if line[len(stateHeader):] != hex.EncodeToString(sum[:]) {
		return nil, fmt.Errorf("state file has a wrong checksum: %w", ErrCorrupt)
	}
	st := new(diskState)
	if err := json.Unmarshal([]byte(body), st); err != nil {
		return nil, fmt.Errorf("state file: %w: %w", err, ErrCorrupt)
	}
	if st.Version > stateVersion {
		return nil, fmt.Errorf("state file has version %d: %w", st.Version, ErrNewer)
	}
	return st, nil
}

// readDiskState reads the state file; nil if there is none, as in a new store.
func readDiskState(dir string) (*diskState, error) {
	b, err := readLimited(filepath.Join(dir, stateName), maxStateFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return parseDiskState(b)
}

func (st *diskState) write(dir string) error {
	return writeFile(filepath.Join(dir, stateName), st.encode())
}
