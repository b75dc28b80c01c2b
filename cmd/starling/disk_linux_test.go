package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/starling-chat/starling/node/api"
)

// memoryDisk mounts a file system of a size in memory; only root can.
func memoryDisk(t *testing.T, size string) string {
	t.Helper()
	dir := filepath.Dir(shortHome(t))
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("needs a file system of its own, which only root can mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Errorf("unmounting: %v", err)
		}
	})
	return dir
}

// refused runs starling, which must fail with a code and one line that holds want (and before it
// perhaps the line about new keys).
func refused(t *testing.T, code int, want string, args ...string) {
	t.Helper()
	cmd := exec.Command("starling", args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	_ = cmd.Run() // the exit code is looked at below
	lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
	last := lines[len(lines)-1]
	if got := cmd.ProcessState.ExitCode(); got != code || !strings.HasPrefix(last, "starling: ") || !strings.Contains(last, want) || stdout.Len() > 0 || len(lines) > 2 {
		t.Errorf("starling %s ended with %d and\n%s%s\nwant %d and one line with %q", strings.Join(args, " "), got, stdout.String(), stderr.String(), code, want)
	}
}

func TestReadOnlyHome(t *testing.T) {
	t.Parallel()
	dir := memoryDisk(t, "1g")
	home := filepath.Join(dir, "h")
	p, c, _ := launch(t, home)
	c.Close()
	kill(p)
	if err := syscall.Mount("none", dir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	for _, h := range []string{home, filepath.Join(dir, "new")} {
		refused(t, exitFailure, "read-only file system; make the directory writable, or choose another with --home", append([]string{"run"}, loopback(h)...)...)
	}
}

// TestFullDisk starts on a disk without room, and fills one under a running node: nothing is accepted
// that is not kept, and it goes on once there is room again.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	tiny := memoryDisk(t, "8m")
	refused(t, exitFailure, "the disk is full", append([]string{"run"}, loopback(filepath.Join(tiny, "h"))...)...)

	dir := memoryDisk(t, "600m")
	home := filepath.Join(dir, "h")
	_, c, _ := launch(t, home)
	if _, err := c.Join(t.Context(), api.JoinRequest{Room: "lobby"}); err != nil {
		t.Fatal(err)
	}
	accepted := map[string]string{}
	send := func(id string) error {
		res, err := c.Send(t.Context(), api.SendRequest{Target: "lobby", Text: "message " + id, ClientID: id})
		if err == nil {
			accepted[id] = res.ID
		}
		return err
	}
	if err := send("before"); err != nil {
		t.Fatal(err)
	}
	filler := filepath.Join(dir, "filler")
	if err := os.WriteFile(filler, make([]byte, 400<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	var e *api.Error
	eventually(t, "the full disk is noticed", func() bool { return errors.As(send("during"), &e) })
	if e.Code != api.CodeReadOnly || e.Hint == "" {
		t.Errorf("a send on a full disk gave %s: %v", e.Code, e)
	}
	refused(t, exitFailure, "nothing was accepted", "--home", home, "send", "lobby", "during too")
	st, err := c.Status(t.Context())
	if err != nil || st.Storage.State == "ok" || len(st.Problems) == 0 {
		t.Errorf("the status of a full disk is %+v, problems %q, %v", st.Storage, st.Problems, err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	eventually(t, "there is room again", func() bool { return send("after") == nil })
	checkHistory(t, c, accepted)
}
