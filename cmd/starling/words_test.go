package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/starling-chat/starling/chat/identity"
	"github.com/starling-chat/starling/node"
	"github.com/starling-chat/starling/node/api"
)

func TestVerdict(t *testing.T) {
	tests := []struct {
		name string
		err  error
		code int
		says string // part of what is printed; empty for silence
	}{
		{"nothing", nil, exitOK, ""},
		{"usage", usagef("use it so"), exitUsage, "use it so"},
		{"silent", &silentError{code: exitDenied}, exitDenied, ""},
		{"interrupted", context.Canceled, exitInterrupted, ""},
		{"deadline", context.DeadlineExceeded, exitUnreachable, "--timeout"},
		{"bad request", &api.Error{Code: api.CodeBadRequest, Message: "m", Hint: "h"}, exitUsage, "m; h"},
		{"too large", &api.Error{Code: api.CodeTooLarge, Message: "m"}, exitUsage, "m"},
		{"not running", &api.Error{Code: api.CodeNotRunning, Message: "m"}, exitNotRunning, "m"},
		{"timeout", &api.Error{Code: api.CodeTimeout, Message: "m"}, exitUnreachable, "m"},
		{"unreachable", &api.Error{Code: api.CodeUnreachable, Message: "m"}, exitUnreachable, "m"},
		{"not found", &api.Error{Code: api.CodeNotFound, Message: "m"}, exitNotFound, "m"},
		{"ambiguous", &api.Error{Code: api.CodeAmbiguous, Message: "m"}, exitNotFound, "m"},
		{"denied", &api.Error{Code: api.CodeDenied, Message: "m"}, exitDenied, "m"},
		{"conflict", &api.Error{Code: api.CodeConflict, Message: "m"}, exitFailure, "m"},
		{"read only", &api.Error{Code: api.CodeReadOnly, Message: "m"}, exitFailure, "m"},
		{"internal", &api.Error{Code: api.CodeInternal, Message: "m"}, exitFailure, "m"},
		{"a code of a newer node", &api.Error{Code: "later", Message: "m"}, exitFailure, "m"},
		{"wrapped", fmt.Errorf("doing: %w", &api.Error{Code: api.CodeDenied, Message: "m"}), exitDenied, "m"},
		{"passphrase needed", identity.ErrPassphraseNeeded, exitDenied, "--passphrase-file"},
		{"wrong passphrase", identity.ErrWrongPassphrase, exitDenied, "wrong passphrase"},
		{"open keys", identity.ErrKeysPermissions, exitDenied, "chmod"},
		{"second node", node.ErrLocked, exitFailure, "starling stop"},
		{"second api", node.ErrInUse, exitFailure, "starling stop"},
		{"full store", node.ErrNoSpace, exitFailure, "disk is full"},
		{"full disk", &fs.PathError{Op: "write", Path: "x", Err: syscall.ENOSPC}, exitFailure, "disk is full"},
		{"read-only file system", &fs.PathError{Op: "mkdir", Path: "x", Err: syscall.EROFS}, exitFailure, "writable"},
		{"no permission", &fs.PathError{Op: "mkdir", Path: "x", Err: syscall.EACCES}, exitFailure, "writable"},
		{"store not writable", node.ErrNotWritable, exitFailure, "writable"},
		{"busy port", &os.SyscallError{Syscall: "bind", Err: syscall.EADDRINUSE}, exitFailure, "--listen"},
		{"anything else", errors.New("odd"), exitFailure, "odd"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var stderr strings.Builder
			a := newApp(strings.NewReader(""), &strings.Builder{}, &stderr, func(string) string { return "" })
			code := exitOK
			if tt.err != nil {
				code = a.fail(tt.err)
			}
			if code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			out := stderr.String()
			if (out == "") != (tt.says == "") || !strings.Contains(out, tt.says) {
				t.Errorf("says %q, want %q in it", out, tt.says)
			}
			if strings.Count(out, "\n") > 1 {
				t.Errorf("more than one line: %q", out)
			}
		})
	}
}

func TestFailEscapesAndListsCandidates(t *testing.T) {
	var stderr strings.Builder
	a := newApp(strings.NewReader(""), &strings.Builder{}, &stderr, func(string) string { return "" })
	a.fail(&api.Error{
		Code: api.CodeAmbiguous, Message: "two\x1b[31m", Hint: "choose",
		Candidates: []api.Candidate{{Account: "12D3A", Nick: "a\u202eda", Fingerprint: "F1"}, {Account: "12D3B", Nick: "ada", Fingerprint: "F2"}},
	})
	want := "starling: two\\x1b[31m; choose\n  @12D3A  a\\u202eda  F1\n  @12D3B  ada  F2\n"
	if stderr.String() != want {
		t.Errorf("says %q, want %q", stderr.String(), want)
	}
}

func TestSuggest(t *testing.T) {
	names := []string{"join", "history", "rooms", "send"}
	tests := []struct{ typed, want string }{
		{"jion", "join"},
		{"histroy", "history"},
		{"room", "rooms"},
		{"snd", "send"},
		{"xyz", ""},
		{"j", ""},
		{"", ""},
	}
	for _, tt := range tests {
		got := suggest(tt.typed, names)
		if (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) {
			t.Errorf("suggest(%q) = %q, want %q", tt.typed, got, tt.want)
		}
	}
	for _, d := range []struct {
		a, b string
		want int
	}{{"", "abc", 3}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"kitten", "sitting", 3}, {"öl", "ol", 1}} {
		if got := distance(d.a, d.b); got != d.want {
			t.Errorf("distance(%q, %q) = %d, want %d", d.a, d.b, got, d.want)
		}
	}
}

func TestParseTime(t *testing.T) {
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	tests := []struct {
		in   string
		want time.Time
	}{
		{"2h", now.Add(-2 * time.Hour)},
		{"2026-01-31T08:00:00Z", time.Date(2026, 1, 31, 8, 0, 0, 0, time.UTC)},
		{"2026-01-30", time.Date(2026, 1, 30, 0, 0, 0, 0, time.Local)},
		{"2026-01-30 07:30", time.Date(2026, 1, 30, 7, 30, 0, 0, time.Local)},
	}
	for _, tt := range tests {
		got, err := parseTime(tt.in, now)
		if err != nil || !got.Equal(tt.want) {
			t.Errorf("parseTime(%q) = %v, %v; want %v", tt.in, got, err, tt.want)
		}
	}
	for _, bad := range []string{"", "yesterday", "-2h", "25:00"} {
		if got, err := parseTime(bad, now); err == nil {
			t.Errorf("parseTime(%q) = %v", bad, got)
		}
	}
}

func TestReplaceKey(t *testing.T) {
	const file = "# head\nrelays = [\n  \"a\", # one ]\n  \"b\",\n]\nnetwork = \"lab\" # ours\n# tail\n"
	tests := []struct{ name, text, key, line, want string }{
		{"into nothing", "", "network", "network = 'x'", "network = 'x'\n"},
		{"nothing from nothing", "", "network", "", ""},
		{"one line", file, "network", "network = 'x'", "# head\nrelays = [\n  \"a\", # one ]\n  \"b\",\n]\nnetwork = 'x'\n# tail\n"},
		{"several lines", file, "relays", "relays = []", "# head\nrelays = []\nnetwork = \"lab\" # ours\n# tail\n"},
		{"remove", file, "relays", "", "# head\nnetwork = \"lab\" # ours\n# tail\n"},
		{"append", "dht = false", "mdns", "mdns = false", "dht = false\nmdns = false\n"},
		{"quoted key", "\"mdns\" = true\n", "mdns", "mdns = false", "mdns = false\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := replaceKey(tt.text, tt.key, tt.line); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestMessageLine(t *testing.T) {
	at := api.Time{Time: time.Now()}
	stamp := at.Local().Format("15:04")
	base := api.Message{Target: "#lobby", Nick: "ada", Fingerprint: "F1", Kind: api.KindMessage, Text: "hi", SentAt: at, State: api.StateReceived}
	with := func(change func(*api.Message)) api.Message {
		m := base
		change(&m)
		return m
	}
	tests := []struct {
		name string
		m    api.Message
		here string
		want string
	}{
		{"here", base, "#lobby", "<ada> hi"},
		{"elsewhere", base, "#dev", "#lobby <ada> hi"},
		{"shared nick", with(func(m *api.Message) { m.NickShared = true }), "#lobby", "<ada~F1> hi"},
		{"no nick", with(func(m *api.Message) { m.Nick = "" }), "#lobby", "<~F1> hi"},
		{"hostile", with(func(m *api.Message) { m.Nick, m.Text = "a\x1b", "b\nc" }), "#lobby", `<a\x1b> b\nc`},
		{"edited", with(func(m *api.Message) { m.Edited = true }), "#lobby", "<ada> hi (edited)"},
		{"deleted", with(func(m *api.Message) { m.Redacted = true }), "#lobby", "<ada> (deleted)"},
		{"reply", with(func(m *api.Message) { m.ReplyTo = "x" }), "#lobby", "<ada> (reply) hi"},
		{"reactions", with(func(m *api.Message) {
			m.Reactions = []api.Reaction{{Text: "+1\x1b", Nicks: []string{"bob", "e\u202eve"}}}
		}), "#lobby", `<ada> hi [+1\x1b bob e\u202eve]`},
		{"failed", with(func(m *api.Message) { m.State, m.Reason = api.StateFailed, "too old" }), "#lobby", "<ada> hi (not sent: too old)"},
		{"waiting", with(func(m *api.Message) { m.Target, m.State = "@bob", api.StateQueued }), "@bob", "<ada> hi (waiting)"},
		{"join", with(func(m *api.Message) { m.Kind = api.KindJoin }), "#lobby", "-> ada joined"},
		{"leave", with(func(m *api.Message) { m.Kind = api.KindLeave }), "#lobby", "<- ada left"},
		{"topic", with(func(m *api.Message) { m.Kind = api.KindTopic }), "#lobby", "-- ada set the topic: hi"},
		{"nick", with(func(m *api.Message) { m.Kind = api.KindProfile }), "#lobby", "-- ~F1 is now known as hi"},
		{"notice", with(func(m *api.Message) { m.Kind = api.KindNotice }), "#lobby", "-- hi"},
		{"newer", with(func(m *api.Message) { m.Kind = api.KindUnknown }), "#lobby", "-- a message that needs a newer version of starling"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := messageLine(tt.m, tt.here); got != stamp+" "+tt.want {
				t.Errorf("got %q, want %q", got, stamp+" "+tt.want)
			}
		})
	}
}

func TestTableEscapesAndAligns(t *testing.T) {
	var out strings.Builder
	a := newApp(strings.NewReader(""), &out, &strings.Builder{}, func(string) string { return "" })
	if err := a.printTable([]string{"NAME", "X"}, [][]string{{"你好", "1"}, {"a\nb", "\x1b"}}); err != nil {
		t.Fatal(err)
	}
	if want := "NAME  X\n你好  1\na\\nb  \\x1b\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 5 << 20: "5.0 MiB", 3 << 40: "3.0 TiB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %s, want %s", n, got, want)
		}
	}
}

func TestRecentForgets(t *testing.T) {
	r := newRecent(2)
	for i, c := range []struct {
		id   string
		want bool
	}{{"a", true}, {"a", false}, {"b", true}, {"c", true}, {"b", false}, {"a", true}} {
		if got := r.add(c.id); got != c.want {
			t.Errorf("step %d: add(%s) = %v", i, c.id, got)
		}
	}
}
