package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	_ "unsafe" // for go:linkname

	"golang.org/x/sys/unix"
)

// Badger maps its files through golang.org/x/sys/unix and offers no place to
// allocate their blocks between making and mapping them. That package calls
// mmap through a variable, and we stand in between; docs/adr/0008 weighs it.
// TestMappedFilesHaveBlocks fails if an update moves the variable.

// unixMapper mirrors the type of unix.mapper.
type unixMapper struct {
	sync.Mutex
	_    map[*byte][]byte
	mmap func(addr, length uintptr, prot, flags, fd int, offset int64) (uintptr, error)
	_    func(addr, length uintptr) error
}

//go:linkname mapper golang.org/x/sys/unix.mapper
var mapper *unixMapper

// plainMmap is what mapper called before.
var plainMmap func(addr, length uintptr, prot, flags, fd int, offset int64) (uintptr, error)

// init runs before anything can map a file, so nobody sees a half-made change.
func init() { plainMmap, mapper.mmap = mapper.mmap, mapWithBlocks }

// gates are the gates of the open engines, by directory.
var gates sync.Map

func (g *roomGate) register()   { gates.Store(g.dir, g) }
func (g *roomGate) unregister() { gates.CompareAndDelete(g.dir, g) }

// mapWithBlocks maps a file. If it belongs to an engine and may be written, it
// has its blocks first.
func mapWithBlocks(addr, length uintptr, prot, flags, fd int, offset int64) (uintptr, error) {
	fresh := false
	if flags&unix.MAP_SHARED != 0 && prot&unix.PROT_WRITE != 0 && fd >= 0 {
		var err error
		if fresh, err = allocateMapped(fd, int64(length)); err != nil {
			return 0, err
		}
	}
	at, err := plainMmap(addr, length, prot, flags, fd, offset)
	if fresh && err == nil {
		// Where nothing was written there is nothing to read ahead, and to clear: up to
		// megabytes at the first byte. An error costs just that.
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, at, length, unix.MADV_RANDOM)
	}
	return at, err
}

// allocateMapped also tells whether the file is a log that has just been made.
func allocateMapped(fd int, size int64) (fresh bool, err error) {
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		return false, nil // no /proc: the thresholds have to do
	}
	v, ok := gates.Load(filepath.Dir(path))
	if !ok {
		return false, nil
	}
	g := v.(*roomGate)
	bytes, wait := g.want(path, size)
	if !wait {
		return g.fresh(path), allocateBlocks(fd, bytes)
	}
	g.await(func() error { return allocateBlocks(fd, bytes) })
	return false, nil
}

// allocateBlocks gives the first bytes of a file their blocks if it has not as
// many. What it got before an error is given back.
func allocateBlocks(fd int, bytes int64) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Blocks*512 >= bytes {
		return nil
	}
	err := fallocate(fd, unix.FALLOC_FL_KEEP_SIZE, bytes)
	if err != nil && st.Blocks == 0 {
		_ = unix.Fallocate(fd, unix.FALLOC_FL_KEEP_SIZE|unix.FALLOC_FL_PUNCH_HOLE, 0, bytes)
	}
	return err
}

// fallocate is the system call, repeated when interrupted. A file system that
// does not know it is no error.
func fallocate(fd int, mode uint32, bytes int64) error {
	for {
		err := unix.Fallocate(fd, mode, 0, bytes)
		switch {
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return nil
		case !errors.Is(err, unix.EINTR):
			return err
		}
	}
}

// reserve gives a file blocks without making it longer: what is appended or
// mapped later finds them there.
func reserve(f *os.File, bytes int64) error {
	return fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, bytes)
}

// reserves tells whether reserve does anything here.
const reserves = true
