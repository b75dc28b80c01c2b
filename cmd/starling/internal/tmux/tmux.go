//go:build unix

// Package tmux is a test kit: it runs a program in a real terminal, types into it as a person does,
// and reads what is on the screen. Each terminal is a tmux server of its own, so that tests neither see
// each other nor a user's sessions. A terminal belongs to the goroutine of its test.
package tmux

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	// Patience bounds every wait. It is far over what anything takes on an idle machine, since tests
	// run beside others on few cores.
	Patience = 60 * time.Second
	// look is how often the screen is read while a test waits for something on it.
	look = 25 * time.Millisecond
)

// Terminal is one terminal with one program in it.
type Terminal struct {
	tb            testing.TB
	dir           string
	width, height int
	pid           int // of the program
}

// New opens a terminal of a size in cells and runs a program in it, with the test's environment and
// the variables of env, each as name=value. It skips the test where tmux is missing. The program is
// killed at the end of the test if it still runs.
func New(tb testing.TB, width, height int, env []string, program ...string) *Terminal {
	tb.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		tb.Skip("tmux is not installed")
	}
	dir, err := os.MkdirTemp("", "tm") // short enough for the socket's path
	if err != nil {
		tb.Fatal(err)
	}
	term := &Terminal{tb: tb, dir: dir, width: width, height: height}
	tb.Cleanup(term.close)
	// The shell stays behind, so that what the program leaves on the terminal can be looked at.
	script := `sh -c 'echo $$ >"$0/pid"; exec env "$@"' "$0" "$@"; echo $? >"$0/status"; stty -a >"$0/s.tty"; mv "$0/s.tty" "$0/stty"; exec cat`
	args := []string{"-f", os.DevNull, "new-session", "-d", "-x", strconv.Itoa(width), "-y", strconv.Itoa(height)}
	args = append(args, "sh", "-c", script, dir, "LANG=C.UTF-8", "LC_ALL=", "NO_COLOR=")
	term.run(slices.Concat(args, env, program)...)
	term.run("set-option", "-g", "escape-time", "0")
	term.run("pipe-pane", "-o", "cat >"+filepath.Join(dir, "raw"))
	term.Until("the program to start", func() bool {
		b, err := os.ReadFile(filepath.Join(dir, "pid"))
		if err != nil {
			return false
		}
		term.pid, err = strconv.Atoi(strings.TrimSpace(string(b)))
		return err == nil
	})
	return term
}

func (t *Terminal) close() {
	if t.pid > 0 && !t.ended() {
		syscall.Kill(t.pid, syscall.SIGKILL)
	}
	t.command("kill-server").Run() // it may be gone
	os.RemoveAll(t.dir)
}

func (t *Terminal) command(args ...string) *exec.Cmd {
	return exec.Command("tmux", append([]string{"-u", "-S", filepath.Join(t.dir, "s")}, args...)...)
}

func (t *Terminal) run(args ...string) string {
	t.tb.Helper()
	out, err := t.command(args...).Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		t.tb.Fatalf("tmux %q: %v", args, err)
	}
	return string(out)
}

// Until waits for something and fails the test, showing the screen, when it does not come.
func (t *Terminal) Until(what string, ok func() bool) {
	t.tb.Helper()
	if t.wait(ok) {
		return
	}
	t.tb.Fatalf("waited in vain for %s; the screen is:\n%s", what, t.Screen())
}

func (t *Terminal) wait(ok func() bool) bool {
	tick := time.NewTicker(look)
	defer tick.Stop()
	late := time.After(Patience)
	for {
		if ok() {
			return true
		}
		select {
		case <-tick.C:
		case <-late:
			return ok()
		}
	}
}

// Screen is what is on the terminal: one line a row, without the spaces at their ends.
func (t *Terminal) Screen() string {
	t.tb.Helper()
	return t.run("capture-pane", "-p")
}

// Rows are the rows of the screen, as many as it is high.
func (t *Terminal) Rows() []string {
	t.tb.Helper()
	rows := strings.Split(strings.TrimSuffix(t.Screen(), "\n"), "\n")
	for len(rows) < t.height {
		rows = append(rows, "")
	}
	return rows
}

// See waits until every text is on the screen at once.
func (t *Terminal) See(texts ...string) {
	t.tb.Helper()
	t.Until(fmt.Sprintf("%q", texts), func() bool {
		screen := t.Screen()
		for _, s := range texts {
			if !strings.Contains(screen, s) {
				return false
			}
		}
		return true
	})
}

// Miss waits until a text is not on the screen.
func (t *Terminal) Miss(text string) {
	t.tb.Helper()
	t.Until(fmt.Sprintf("%q to go", text), func() bool { return !strings.Contains(t.Screen(), text) })
}

// Cursor is the cell of the cursor, from 0 at the upper left.
func (t *Terminal) Cursor() (x, y int) {
	t.tb.Helper()
	s := t.run("display-message", "-p", "#{cursor_x} #{cursor_y}")
	if _, err := fmt.Sscan(s, &x, &y); err != nil {
		t.tb.Fatalf("reading the cursor from %q: %v", s, err)
	}
	return x, y
}

// CursorAt waits until the cursor is in a cell.
func (t *Terminal) CursorAt(x, y int) {
	t.tb.Helper()
	t.Until(fmt.Sprintf("the cursor at %d,%d", x, y), func() bool {
		gotX, gotY := t.Cursor()
		return gotX == x && gotY == y
	})
}

// Type types text as it is.
func (t *Terminal) Type(text string) {
	t.tb.Helper()
	t.run("send-keys", "-l", "--", text)
}

// Press presses keys by the names that tmux has for them, such as Enter, M-a or C-g.
func (t *Terminal) Press(keys ...string) {
	t.tb.Helper()
	t.run(append([]string{"send-keys", "--"}, keys...)...)
}

// Enter types a line and presses Enter.
func (t *Terminal) Enter(line string) {
	t.tb.Helper()
	t.Type(line)
	t.Press("Enter")
}

// Paste pastes text as a terminal with bracketed paste does: with CR between the lines, or as it is.
func (t *Terminal) Paste(text string, asItIs bool) {
	t.tb.Helper()
	t.run("set-buffer", "-b", "paste", "--", text)
	args := []string{"paste-buffer", "-p", "-d", "-b", "paste"}
	if asItIs {
		args = append(args, "-r")
	}
	t.run(args...)
}

// Resize changes the size of the terminal.
func (t *Terminal) Resize(width, height int) {
	t.tb.Helper()
	t.width, t.height = width, height
	t.run("resize-window", "-x", strconv.Itoa(width), "-y", strconv.Itoa(height))
}

// Signal sends the program a signal.
func (t *Terminal) Signal(s syscall.Signal) {
	t.tb.Helper()
	if err := syscall.Kill(t.pid, s); err != nil {
		t.tb.Fatal(err)
	}
}

// PID is that of the program.
func (t *Terminal) PID() int { return t.pid }

func (t *Terminal) ended() bool {
	_, err := os.Stat(filepath.Join(t.dir, "stty"))
	return err == nil
}

// Ended waits until the program ended and gives its exit status.
func (t *Terminal) Ended() int {
	t.tb.Helper()
	t.Until("the program to end", t.ended)
	b, err := os.ReadFile(filepath.Join(t.dir, "status"))
	if err != nil {
		t.tb.Fatal(err)
	}
	status, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.tb.Fatal(err)
	}
	return status
}

// Raw is everything that the program wrote so far, escape sequences included.
func (t *Terminal) Raw() string {
	t.tb.Helper()
	b, err := os.ReadFile(filepath.Join(t.dir, "raw"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.tb.Fatal(err)
	}
	return string(b)
}

// modes are the switches of a terminal that a full-screen program turns on, and must turn off.
var modes = []struct{ name, on, off string }{
	{"the alternate screen", "\x1b[?1049h", "\x1b[?1049l"},
	{"bracketed paste", "\x1b[?2004h", "\x1b[?2004l"},
	{"focus reports", "\x1b[?1004h", "\x1b[?1004l"},
	{"the hidden cursor", "\x1b[?25l", "\x1b[?25h"},
	{"synchronized output", "\x1b[?2026h", "\x1b[?2026l"},
	{"mouse reports", "\x1b[?1003h", "\x1b[?1003l"},
}

// Restored fails the test unless the program left the terminal as it found it: every mode off that
// was on, and the line discipline echoing lines. tmux may take what was written last a while after the end.
func (t *Terminal) Restored() {
	t.tb.Helper()
	t.Ended()
	var left []string
	t.wait(func() bool {
		left = t.left()
		return len(left) == 0
	})
	for _, what := range left {
		t.tb.Error(what)
	}
}

// left says what of the terminal is not as it was found.
func (t *Terminal) left() (list []string) {
	t.tb.Helper()
	raw := t.Raw()
	for _, m := range modes {
		if on := strings.LastIndex(raw, m.on); on >= 0 && strings.LastIndex(raw, m.off) < on {
			list = append(list, m.name+" is still on")
		}
	}
	if got := strings.TrimSpace(t.run("display-message", "-p", "#{alternate_on} #{cursor_flag}")); got != "0 1" {
		list = append(list, fmt.Sprintf("alternate screen and cursor are %q, want 0 1", got))
	}
	b, err := os.ReadFile(filepath.Join(t.dir, "stty"))
	if err != nil {
		t.tb.Fatal(err)
	}
	for _, flag := range []string{"echo", "icanon", "isig", "icrnl", "opost"} {
		if !strings.Contains(" "+strings.ReplaceAll(string(b), "\n", " "), " "+flag) {
			list = append(list, fmt.Sprintf("the terminal is left without %s:\n%s", flag, b))
		}
	}
	return list
}
