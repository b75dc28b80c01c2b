package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// childModes are modes of the child process that this system only knows.
var childModes = map[string]func(ctx context.Context, dir string) error{
	"fulldisk": childFullDisk, "fulldiskagain": childFullDiskAgain, "disktaken": childDiskTaken, "million": childMillion,
}

// cpuTime is what the process has used so far.
func cpuTime() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// needRoot skips a test that mounts file systems.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting a file system needs root")
	}
}

func mountTmpfs(t *testing.T, flags uintptr, size int) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", flags, fmt.Sprintf("size=%d", size)); err != nil {
		t.Skipf("cannot mount a tmpfs here: %v", err)
	}
	t.Cleanup(func() { unmount(t, dir) })
	return dir
}

func unmount(t *testing.T, dir string) {
	t.Helper()
	if err := unix.Unmount(dir, 0); err != nil {
		t.Errorf("unmounting %s: %v", dir, err)
		unix.Unmount(dir, unix.MNT_DETACH)
	}
}

func TestReadOnlyDirectory(t *testing.T) {
	needRoot(t)
	dir := mountTmpfs(t, unix.MS_RDONLY, 1<<20)
	refuses(t, testOptions(filepath.Join(dir, "store")), ErrNotWritable)
	refuses(t, testOptions(dir), ErrNotWritable)

	// A store that has become read-only.
	source, w := cleanWorld(t)
	dir = mountTmpfs(t, 0, 400<<20)
	copyDir(t, source, filepath.Join(dir, "store"))
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	refuses(t, testOptions(filepath.Join(dir, "store")), ErrNotWritable)
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=400m"); err != nil {
		t.Fatal(err)
	}
	s := mustOpen(t, testOptions(filepath.Join(dir, "store")))
	w.whole(t, s)
	mustClose(t, s)
}

// fullDiskOptions fit a tmpfs of 300 MiB.
func fullDiskOptions(dir string) Options {
	o := DefaultOptions(filepath.Join(dir, "store"), testKey)
	o.Space = SpaceLimits{NoHistory: 160 << 20, ReadOnly: 110 << 20, Ballast: 64 << 20}
	return o
}

// TestFullDisk runs in child processes: a full disk kills a process that is
// not careful (SIGBUS in mapped files). Where the first cannot close the store,
// since a table still waits for room, or ends without closing it, the second is
// the next start.
func TestFullDisk(t *testing.T) {
	needRoot(t)
	t.Run("closed", func(t *testing.T) { onFullDiskTwice(t) })
	t.Run("cut off", func(t *testing.T) { onFullDiskTwice(t, cutOffEnv+"=1") })
}

// cutOffEnv makes the first child end on the full disk without closing the store.
const cutOffEnv = "STARLING_STORAGE_CUT_OFF"

func onFullDiskTwice(t *testing.T, env ...string) {
	t.Helper()
	dir := mountTmpfs(t, 0, 300<<20+fullDiskSpare)
	out, err := childCommand(t, "fulldisk", dir, env...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%.3000s", err, out)
	}
	if count, left := bytes.CutPrefix(out, []byte(leftOpen)); left {
		out, err := childCommand(t, "fulldiskagain", dir, leftOpen+string(bytes.TrimSpace(count))).CombinedOutput()
		if err != nil {
			t.Fatalf("the next start: %v\n%.3000s", err, out)
		}
		t.Logf("the store was not closed; the next start: %s", out)
	}
}

// leftOpen begins what the first child says if it could not close the store,
// before the number of records; the second finds it in its environment.
const leftOpen = "STARLING_STORAGE_LEFT="

// fullDiskSpare is what somebody else has on the disk from the start, and gives
// back in the end besides what was taken: with no more than before the store
// would be as near to its bound as before.
const fullDiskSpare = 32 << 20

// onFullDisk is a store of numbered records whose disk is filled up.
type onFullDisk struct {
	dir     string
	s       *Store
	st      StreamID
	n       int
	fillers []string
}

func (f *onFullDisk) open(ctx context.Context) (err error) {
	if f.s, err = Open(ctx, fullDiskOptions(f.dir)); err == nil {
		f.st, err = f.s.Stream(ctx, "room")
	}
	return err
}

var fullDiskValue = bytes.Repeat([]byte{1}, 60<<10)

func (f *onFullDisk) appendOne(ctx context.Context, d Durability) error {
	var b Batch
	b.Append(Record{Stream: f.st, Time: uint64(f.n), ID: testID(f.n), Value: append(fullDiskValue, testID(f.n).String()...)})
	_, err := f.s.Commit(ctx, &b, d)
	if err == nil {
		f.n++
	}
	return err
}

func (f *onFullDisk) verify(ctx context.Context, when string) error {
	got, err := f.s.Count(ctx, f.st)
	if err != nil || int(got) != f.n {
		return fmt.Errorf("%s: %d of %d records, %w", when, got, f.n, err)
	}
	for i := range f.n {
		if r, err := f.s.Get(ctx, testID(i)); err != nil || len(r.Value) != len(fullDiskValue)+64 {
			return fmt.Errorf("%s: record %d: %w", when, i, err)
		}
	}
	return nil
}

// refuse wants writes to be refused. Compaction may give room back at any
// moment, which the store may use: that is taken too.
func (f *onFullDisk) refuse(ctx context.Context) error {
	for range 20 {
		if err := f.appendOne(ctx, Durable); errors.Is(err, ErrNoSpace) {
			return nil
		} else if err != nil {
			return err
		}
		if err := f.fill(); err != nil {
			return err
		}
	}
	return errors.New("it is never refused")
}

func (f *onFullDisk) fill() error {
	f.fillers = append(f.fillers, filepath.Join(f.dir, fmt.Sprintf("filler%d", len(f.fillers))))
	return fillDisk(f.fillers[len(f.fillers)-1], math.MaxInt64)
}

// recovers wants everything to be there and to work again once there is room.
func (f *onFullDisk) recovers(ctx context.Context) error {
	if err := removeFiles(f.fillers); err != nil {
		return err
	}
	if err := writeAgain(f.s, func(d Durability) error { return f.appendOne(ctx, d) }); err != nil {
		return err
	}
	if err := f.verify(ctx, "after room was made"); err != nil {
		return err
	}
	return f.s.Close()
}

func childFullDisk(ctx context.Context, dir string) error {
	f := &onFullDisk{dir: dir, fillers: []string{filepath.Join(dir, "filler0")}}
	err := fillDisk(f.fillers[0], fullDiskSpare)
	if err == nil {
		err = f.open(ctx)
	}
	if err != nil {
		return err
	}
	for err = nil; err == nil; {
		err = f.appendOne(ctx, Relaxed)
	}
	if !errors.Is(err, ErrNoSpace) || f.s.State().Mode != ModeNoHistory {
		return fmt.Errorf("relaxed, after %d records: %w in state %v", f.n, err, f.s.State().Mode)
	}
	for err = nil; err == nil; {
		err = f.appendOne(ctx, Durable)
	}
	if !errors.Is(err, ErrNoSpace) || f.s.State().Mode != ModeReadOnly {
		return fmt.Errorf("durable, after %d records: %w in state %v", f.n, err, f.s.State().Mode)
	}
	if err := f.verify(ctx, "when nearly full"); err != nil {
		return err
	}
	if err := f.fill(); err != nil { // somebody else takes all the rest
		return err
	}
	if err := f.verify(ctx, "when full"); err != nil {
		return err
	}
	if err := f.refuse(ctx); err != nil {
		return fmt.Errorf("writing to a full disk: %w", err)
	}
	if os.Getenv(cutOffEnv) != "" {
		fmt.Printf("%s%d\n", leftOpen, f.n)
		return nil
	}
	// It cannot leave a clean state file behind, and where a table still waits it
	// keeps the directory until the process ends: that is for the next one.
	if err := f.s.Close(); errors.Is(err, errUnclosed) {
		fmt.Printf("%s%d\n", leftOpen, f.n)
		return nil
	}
	if err := f.open(ctx); err != nil {
		return fmt.Errorf("opening on a full disk: %w", err)
	}
	if err := f.verify(ctx, "reopened on a full disk"); err != nil {
		return err
	}
	if err := f.refuse(ctx); err != nil {
		return fmt.Errorf("writing to a full disk after reopening: %w", err)
	}
	return f.recovers(ctx)
}

// childFullDiskAgain starts where the process before could not close the store.
// On the full disk it may say that there is no room; with room all is there.
func childFullDiskAgain(ctx context.Context, dir string) error {
	f := &onFullDisk{dir: dir}
	var err error
	if f.n, err = strconv.Atoi(os.Getenv(strings.TrimSuffix(leftOpen, "="))); err != nil {
		return err
	}
	if f.fillers, err = filepath.Glob(filepath.Join(dir, "filler*")); err != nil {
		return err
	}
	switch err := f.open(ctx); {
	case errors.Is(err, ErrNoSpace):
		fmt.Println("refused while the disk is full")
		if err := removeFiles(f.fillers); err != nil {
			return err
		}
		if f.fillers, err = nil, f.open(ctx); err != nil {
			return fmt.Errorf("opening after room was made: %w", err)
		}
	case err != nil:
		return fmt.Errorf("opening on a full disk: %w", err)
	default:
		fmt.Println("opened on the full disk")
	}
	if err := f.verify(ctx, "opened anew"); err != nil {
		return err
	}
	return f.recovers(ctx)
}

func removeFiles(paths []string) error {
	for _, p := range paths {
		if err := os.Remove(p); err != nil {
			return err
		}
	}
	return nil
}

// TestDiskTaken: another process takes the last byte while the store writes and
// Badger flushes and compacts. The process must live on, read everything, and
// go on writing when there is room again.
func TestDiskTaken(t *testing.T) {
	needRoot(t)
	dir := mountTmpfs(t, 0, 300<<20)
	cmd := childCommand(t, "disktaken", dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%.3000s", err, out)
	}
	t.Logf("%s", out)
}

func childDiskTaken(ctx context.Context, dir string) error {
	o := fullDiskOptions(dir)
	o.Space.NoHistory, o.Space.ReadOnly = 2<<20, 1<<20 // the filler is faster than any threshold
	s, err := Open(ctx, o)
	if err != nil {
		return err
	}
	st, err := s.Stream(ctx, "room")
	if err != nil {
		return err
	}
	next, waited := 0, 0
	commit := func() error {
		var b Batch
		for i := range 8 {
			b.Append(Record{Stream: st, Time: uint64(next + i), ID: testID(next + i), Value: diskTakenValue(next + i)})
		}
		_, err := s.Commit(ctx, &b, Durable)
		if err == nil {
			next += 8
		}
		return err
	}
	e := s.disk.engine
	for round := range rounds(2) {
		// Leave room for two logs or so; take the rest when one is full and its
		// table is being written.
		fillers := []string{filepath.Join(dir, "filler0"), filepath.Join(dir, "filler1")}
		free, _ := freeSpace(dir)
		if err := fillDisk(fillers[0], int64(free)-70<<20); err != nil {
			return err
		}
		for last := e.lastLog; err == nil && e.lastLog == last; {
			err = commit()
		}
		for range rand.IntN(50) {
			err = commit()
		}
		if err := fillDisk(fillers[1], math.MaxInt64); err != nil {
			return err
		}
		for err == nil {
			err = commit()
		}
		if !errors.Is(err, ErrNoSpace) || s.State().Mode != ModeReadOnly {
			return fmt.Errorf("round %d: %w in state %v", round, err, s.State().Mode)
		}
		for i := range next {
			if r, err := s.Get(ctx, testID(i)); err != nil || !bytes.Equal(r.Value, diskTakenValue(i)) {
				return fmt.Errorf("round %d: record %d: %w", round, i, err)
			}
		}
		if e.gate.full() > 0 {
			waited++
		}
		for _, f := range fillers {
			if err := os.Remove(f); err != nil {
				return err
			}
		}
		deadline := time.Now().Add(20 * time.Second)
		for err = commit(); err != nil; err = commit() {
			if !errors.Is(err, ErrNoSpace) || time.Now().After(deadline) {
				return fmt.Errorf("round %d: writing after room was made: %w", round, err)
			}
			time.Sleep(roomTick)
		}
	}
	for range 2 {
		if err := s.Close(); err != nil {
			return err
		}
		if s, err = Open(ctx, o); err != nil {
			return err
		}
		if r := s.State().Recovery; r != (Recovery{}) {
			return fmt.Errorf("recovery %+v", r)
		}
		if rep, err := s.Check(ctx); err != nil || !rep.OK() || rep.Records != next {
			return fmt.Errorf("check: %+v, %w, want %d records", rep, err, next)
		}
	}
	fmt.Printf("%d records, tables waited in %d rounds\n", next, waited)
	return s.Close()
}

// diskTakenValue cannot be compressed, so that tables are as large as logs.
func diskTakenValue(i int) []byte {
	b := make([]byte, 8<<10)
	rand.NewChaCha8([32]byte{byte(i), byte(i >> 8), byte(i >> 16)}).Read(b)
	return b
}

// writeAgain wants writes to work again without reopening.
func writeAgain(s *Store, appendOne func(Durability) error) error {
	// A table that waits looks every now and then.
	for deadline := time.Now().Add(20 * time.Second); s.State().Mode == ModeReadOnly; time.Sleep(roomTick) {
		if time.Now().After(deadline) {
			return fmt.Errorf("still read-only with %d MiB free", s.State().Free>>20)
		}
	}
	for range 50 {
		if err := appendOne(Durable); err != nil {
			return fmt.Errorf("after room was made: %w", err)
		}
	}
	return nil
}

// fillDisk writes a file of so many bytes, or of what there is room for.
func fillDisk(path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, 64<<10)
	for ; size > 0; size -= int64(len(b)) {
		if _, err := f.Write(b); err != nil {
			if errors.Is(err, unix.ENOSPC) {
				return nil
			}
			return err
		}
	}
	return nil
}

// loopMount makes an ext4 file system in a file, or takes the one that is
// there, and mounts it through a loop device.
func loopMount(t *testing.T, image string) (dir string, release func()) {
	t.Helper()
	ctl, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no loop devices here: %v", err)
	}
	defer ctl.Close()
	back, err := os.OpenFile(image, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	var dev *os.File
	for range 20 { // others take devices too
		n, err := unix.IoctlRetInt(int(ctl.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			t.Skipf("no free loop device: %v", err)
		}
		if dev, err = os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0); err != nil {
			t.Skipf("no loop device: %v", err)
		}
		if err = unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_SET_FD, int(back.Fd())); err == nil {
			break
		}
		dev.Close()
		dev = nil
	}
	if dev == nil {
		t.Skip("no loop device could be taken")
	}
	dir = t.TempDir()
	if err := unix.Mount(dev.Name(), dir, "ext4", 0, ""); err != nil {
		unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_CLR_FD, 0)
		dev.Close()
		t.Skipf("cannot mount ext4 on a loop device: %v", err)
	}
	release = sync.OnceFunc(func() {
		unmount(t, dir)
		if err := unix.IoctlSetInt(int(dev.Fd()), unix.LOOP_CLR_FD, 0); err != nil {
			t.Errorf("releasing the loop device: %v", err)
		}
		dev.Close()
	})
	t.Cleanup(release)
	return dir, release
}

func makeExt4(t *testing.T, image string) {
	t.Helper()
	mkfs, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		if mkfs, err = exec.LookPath("/sbin/mkfs.ext4"); err != nil {
			t.Skip("mkfs.ext4 is not installed")
		}
	}
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(512<<20), f.Close()); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), mkfs, "-q", "-F", image).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// ext4Shutdown is EXT4_IOC_SHUTDOWN with its flag that flushes no journal: from
// that moment on, nothing more of what the kernel holds reaches the device.
const (
	ext4Shutdown   = 0x8004587d
	ext4NoLogFlush = 2
)

// cutPower ends a mounted ext4 as a power cut does.
func cutPower(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.IoctlSetPointerInt(int(f.Fd()), ext4Shutdown, ext4NoLogFlush); err != nil {
		t.Skipf("this kernel cannot shut an ext4 down: %v", err)
	}
}

// TestPowerCut cuts the power under a running writer and starts on what has
// reached the device. What was acknowledged must be there.
func TestPowerCut(t *testing.T) {
	needRoot(t)
	for range rounds(3) {
		image := filepath.Join(t.TempDir(), "disk")
		makeExt4(t, image)
		dir, release := loopMount(t, image)
		cmd := childCommand(t, "write", filepath.Join(dir, "store"))
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		a := readAcks(out)
		<-a.seen
		timer := time.NewTimer(time.Duration(100+rand.IntN(600)) * time.Millisecond)
		<-timer.C
		cutPower(t, dir)
		cmd.Process.Kill() // what it printed before is in the pipe
		acked := <-a.last
		cmd.Wait()
		release()
		again, release := loopMount(t, image)
		verifyCrash(t, filepath.Join(again, "store"), acked)
		release()
		t.Logf("%d records acknowledged", acked)
	}
}

// TestMappedFilesHaveBlocks: what Badger maps has its blocks by then, and the
// next log before it is made. Without that, a full disk is a SIGBUS.
func TestMappedFilesHaveBlocks(t *testing.T) {
	dir := memoryDir(t)
	s := mustOpen(t, testOptions(dir))
	st, err := s.Stream(t.Context(), "room")
	if err != nil {
		t.Fatal(err)
	}
	blocks := func(path string) int64 {
		t.Helper()
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks * 512
	}
	e := s.disk.engine
	first := e.lastLog
	for i := range 40 {
		var b Batch
		for j := range 9 {
			b.Append(Record{Stream: st, Time: uint64(i), ID: testID(9*i + j), Value: make([]byte, 100<<10)})
		}
		if _, err := s.Commit(t.Context(), &b, Durable); err != nil {
			t.Fatal(err)
		}
		if n := blocks(e.logPath(e.lastLog)); n < e.gate.logRoom() {
			t.Fatalf("the log has %d bytes in blocks", n)
		}
		if info, err := os.Stat(e.logPath(e.lastLog + 1)); e.spare && (err != nil || info.Size() != 0) {
			t.Fatalf("no spare log: %v", err)
		}
	}
	if e.lastLog == first || !s.disk.engine.spare {
		t.Fatal("no log was filled")
	}
	for where, want := range map[string]int64{filepath.Join(dir, engineDirName): 1 << 20, t.TempDir(): 0} {
		f, err := os.Create(filepath.Join(where, "99999"+tableExt))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := f.Truncate(1 << 20); err != nil {
			t.Fatal(err)
		}
		m, err := unix.Mmap(int(f.Fd()), 0, 1<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Munmap(m)
		if n := blocks(f.Name()); n != want {
			t.Errorf("%s has %d bytes in blocks, want %d", f.Name(), n, want)
		}
	}
}
