package storage

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
)

// syncFile makes a file's content durable, also what was written to it through
// a mapping. A missing file is os.ErrNotExist.
func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(syncData(f), f.Close())
}

// syncDir makes names created in a directory durable. Windows has no such call.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// writeFile replaces a file atomically: after a crash it is the old or the new
// one, whole.
func writeFile(path string, data []byte) error {
	next := path + ".new"
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(next, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// writeSecretFile is writeFile for keys: the old content is overwritten in
// place after it was replaced. (A copy-on-write file system or flash may keep
// it nevertheless.)
func writeSecretFile(path string, data []byte) error {
	old, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if old != nil {
		defer old.Close()
	}
	if err := writeFile(path, data); err != nil {
		return err
	}
	if old == nil || runtime.GOOS == "windows" {
		return nil
	}
	info, err := old.Stat()
	if err != nil {
		return err
	}
	_, err = old.WriteAt(make([]byte, info.Size()), 0)
	return errors.Join(err, old.Sync())
}

// readLimited reads a file of at most limit bytes.
func readLimited(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	// MinRead more than there is, so that the end is met without growing.
	buf := bytes.NewBuffer(make([]byte, 0, min(info.Size(), limit)+bytes.MinRead))
	if _, err := buf.ReadFrom(io.LimitReader(f, limit+1)); err != nil {
		return nil, err
	}
	b := buf.Bytes()
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s is longer than %d bytes: %w", filepath.Base(path), limit, ErrCorrupt)
	}
	return b, nil
}

// fill writes size bytes that no file system can compress away.
func fill(f *os.File, size int64) error {
	_, err := io.CopyN(f, rand.Reader, size)
	return err
}
