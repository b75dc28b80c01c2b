package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/starling-chat/starling/node/api"
	"github.com/starling-chat/starling/node/natlab"
)

// The tests in this file's neighbours are field tests: the real binary, one process a person, each in
// a network namespace behind a real NAT. A test speaks to a node as a front-end does, over its unix
// socket, which works across network namespaces.

const (
	// logTail is how many lines of a node's log a failed test shows.
	logTail = 60
	// pollEvery is how often a condition without an event of its own is looked at.
	pollEvery = 20 * time.Millisecond
	// fullEnv switches on the rows that an ordinary run leaves out.
	fullEnv = "STARLING_FULL"
	// keepEnv, if set, is a directory that keeps the homes and logs of field tests.
	keepEnv = "STARLING_LAB_KEEP"
)

// field is one lab with the nodes in it.
type field struct {
	*natlab.Lab
	t   *testing.T
	dir string // of the homes
}

func newField(t *testing.T) *field {
	t.Helper()
	natlab.Require(t)
	dir, err := os.MkdirTemp(os.Getenv(keepEnv), "field")
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv(keepEnv) == "" {
		t.Cleanup(func() { os.RemoveAll(dir) })
	}
	return &field{Lab: natlab.New(t), t: t, dir: dir}
}

// onlyFull skips a test that an ordinary run leaves out.
func onlyFull(t *testing.T) {
	t.Helper()
	if os.Getenv(fullEnv) == "" {
		t.Skip("runs with " + fullEnv + "=1 only: the ordinary run has a shorter one of this kind")
	}
}

// station is a node in the lab, across its restarts.
type station struct {
	f     *field
	t     *testing.T
	name  string
	home  string
	host  *natlab.Host
	kind  string // run or relay
	flags []string

	cmd   *natlab.Cmd
	log   *os.File
	ready readyLine
	began time.Time // when it was started last
	api   *api.Client
	ear   *ear
}

// run starts `starling run` on a host and listens to its events.
func (f *field) run(h *natlab.Host, flags ...string) *station {
	f.t.Helper()
	return f.station(h, "run", flags)
}

// relay starts `starling relay` on a host.
func (f *field) relay(h *natlab.Host, flags ...string) *station {
	f.t.Helper()
	return f.station(h, "relay", flags)
}

func (f *field) station(h *natlab.Host, kind string, flags []string) *station {
	f.t.Helper()
	s := &station{f: f, t: f.t, name: h.Name(), host: h, kind: kind, flags: flags, home: filepath.Join(f.dir, h.Name())}
	if err := os.Mkdir(s.home, 0o700); err != nil {
		f.t.Fatal(err)
	}
	s.api = api.NewClient(filepath.Join(s.home, api.SocketName))
	f.t.Cleanup(s.showLog)
	s.start()
	return s
}

// start starts the process and returns when it is ready.
func (s *station) start() {
	s.t.Helper()
	s.launch()
	s.waitReady()
}

func (s *station) launch() {
	s.t.Helper()
	binary, err := exec.LookPath("starling")
	if err != nil {
		s.t.Fatal(err)
	}
	if s.log, err = os.OpenFile(s.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		s.t.Fatal(err)
	}
	args := append([]string{s.kind, "--home", s.home, "--log-level", "debug"}, s.flags...)
	s.cmd = s.host.Command(context.WithoutCancel(s.t.Context()), binary, args...)
	s.cmd.Env = append(os.Environ(), "HOME="+s.home, "STARLING_HOME=")
	s.cmd.Stderr = s.log
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	s.began = time.Now()
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	line := make(chan []byte, 1)
	go func() { // ends with the process
		b, _ := lines.ReadBytes('\n')
		line <- b
		_, _ = lines.WriteTo(discard{})
	}()
	s.ready = readyLine{}
	select {
	case b := <-line:
		if err := json.Unmarshal(b, &s.ready); err != nil || s.ready.Event != "ready" {
			s.t.Fatalf("%s is not ready: it said %q (%v)", s.name, b, err)
		}
	case <-time.After(patience):
		s.t.Fatalf("%s is not ready after %s", s.name, patience)
	}
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// waitReady hears the node's events from now on. A relay has none.
func (s *station) waitReady() {
	s.t.Helper()
	if s.kind == "relay" {
		return
	}
	if s.ear != nil {
		s.ear.stop()
	}
	s.ear = listenTo(s.t, s)
}

func (s *station) logPath() string { return filepath.Join(s.f.dir, s.name+".log") }

// showLog shows the end of the log of a failed test's node.
func (s *station) showLog() {
	if !s.t.Failed() {
		return
	}
	b, err := os.ReadFile(s.logPath())
	if err != nil {
		return
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	s.t.Logf("the end of the log of %s (%s):\n%s", s.name, s.ready.PeerID, strings.Join(lines[max(0, len(lines)-logTail):], "\n"))
}

// kill ends the process as a power cut does.
func (s *station) kill() {
	s.t.Helper()
	if err := s.cmd.Process.Kill(); err != nil {
		s.t.Fatal(err)
	}
	s.gone()
}

// stop ends the process in order and expects it to end well.
func (s *station) stop() {
	s.t.Helper()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	if err := s.gone(); err != nil {
		s.t.Fatalf("%s ended with %v", s.name, err)
	}
}

func (s *station) gone() error {
	err := s.cmd.Wait()
	if s.ear != nil {
		s.ear.stop()
		s.ear = nil
	}
	_ = s.log.Close()
	return err
}

// addrs are the addresses by which others reach a public node.
func (s *station) addrs() []string {
	return slices.DeleteFunc(slices.Clone(s.ready.Addrs), func(a string) bool {
		return !strings.HasPrefix(a, "/ip4/"+s.host.Addr().String()+"/")
	})
}

// by gives the flags of a node that uses these relays.
func by(relays ...*station) []string {
	var flags []string
	for _, r := range relays {
		for _, a := range r.addrs() {
			flags = append(flags, "--relay", a)
		}
	}
	return flags
}

// ask runs a call of the local API.
func ask[T any](s *station, what string, do func(context.Context) (T, error)) T {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	v, err := do(ctx)
	if err != nil {
		s.t.Fatalf("%s: %s: %v", s.name, what, err)
	}
	return v
}

func (s *station) join(room string) {
	s.t.Helper()
	ask(s, "join", func(ctx context.Context) (api.Conversation, error) {
		return s.api.Join(ctx, api.JoinRequest{Room: room})
	})
}

func (s *station) send(target, text string) {
	s.t.Helper()
	r := ask(s, "send", func(ctx context.Context) (api.SendResult, error) {
		return s.api.Send(ctx, api.SendRequest{Target: target, Text: text})
	})
	if r.Error != nil {
		s.t.Fatalf("%s: send: %v", s.name, r.Error)
	}
}

// sendAll sends n different texts and returns them.
func (s *station) sendAll(target, what string, n int) []string {
	s.t.Helper()
	var texts []string
	for i := range n {
		texts = append(texts, fmt.Sprintf("%s %d of %s", what, i+1, s.name))
		s.send(target, texts[i])
	}
	return texts
}

// befriend makes two people contacts of each other, so that neither is a stranger.
func befriend(a, b *station) {
	a.t.Helper()
	for _, pair := range [][2]*station{{a, b}, {b, a}} {
		from, to := pair[0], pair[1]
		me := ask(to, "me", to.api.Me)
		ask(from, "contact add", func(ctx context.Context) (api.Contact, error) {
			return from.api.AddContact(ctx, api.ContactRequest{Who: me.Link, Petname: to.name})
		})
	}
}

// path gives the label under which s reaches another node, or "".
func (s *station) path(to *station) string {
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	peers, err := s.api.Peers(ctx)
	if err != nil {
		return ""
	}
	for _, p := range peers {
		if p.PeerID == to.ready.PeerID {
			return p.Path
		}
	}
	return ""
}

// awaitPath waits until the label is one of these on both sides.
func awaitPath(a, b *station, within time.Duration, labels ...string) {
	a.t.Helper()
	var ab, ba string
	ok := until(a.t, within, func() bool {
		ab, ba = a.path(b), b.path(a)
		return slices.Contains(labels, ab) && slices.Contains(labels, ba)
	})
	if !ok {
		a.t.Fatalf("%s reaches %s by %q and is reached by %q after %s, want %v", a.name, b.name, ab, ba, within, labels)
	}
}

// until waits for a condition.
func until(t *testing.T, within time.Duration, true func() bool) bool {
	t.Helper()
	deadline := time.After(within)
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for !true() {
		select {
		case <-tick.C:
		case <-deadline:
			return true()
		case <-t.Context().Done():
			return false
		}
	}
	return true()
}

// ear hears the messages that a node shows.
type ear struct {
	s      *station
	cancel context.CancelFunc
	done   chan struct{} // closed when the stream ended

	mu    sync.Mutex           // guards all below
	heard map[string]time.Time // texts of others
	ids   map[string]bool
	twice []string      // texts shown more than once
	more  chan struct{} // closed and replaced when heard grows
}

// listenTo returns once the node's event stream has begun.
func listenTo(t *testing.T, s *station) *ear {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	e := &ear{
		s: s, cancel: cancel, done: make(chan struct{}),
		heard: map[string]time.Time{}, ids: map[string]bool{}, more: make(chan struct{}),
	}
	t.Cleanup(e.stop)
	begun := make(chan struct{})
	go func() { // ends with stop
		defer close(e.done)
		first := sync.OnceFunc(func() { close(begun) })
		for ev, err := range s.api.Events(ctx, 0) {
			if err == nil {
				first()
			}
			if ev.Type == api.EventMessage && !ev.Message.Own && ev.Message.Kind == api.KindMessage {
				e.hear(ev.Message)
			}
		}
	}()
	select {
	case <-begun:
	case <-time.After(patience):
		t.Fatalf("%s sends no events", s.name)
	}
	return e
}

func (e *ear) stop() {
	e.cancel()
	<-e.done
}

func (e *ear) hear(m *api.Message) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ids[m.ID] {
		e.twice = append(e.twice, m.Text)
	}
	e.ids[m.ID] = true
	if _, ok := e.heard[m.Text]; !ok {
		e.heard[m.Text] = time.Now()
	}
	close(e.more)
	e.more = make(chan struct{})
}

// missing lists those of the texts that were not heard yet.
func (e *ear) missing(texts []string) ([]string, <-chan struct{}) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []string
	for _, text := range texts {
		if _, ok := e.heard[text]; !ok {
			out = append(out, text)
		}
	}
	return out, e.more
}

// at says when a text was heard.
func (e *ear) at(text string) time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.heard[text]
}

var errNotHeard = errors.New("not heard")

// wait returns when all texts were heard.
func (e *ear) wait(within time.Duration, texts ...string) error {
	deadline := time.After(within)
	for {
		missing, more := e.missing(texts)
		if len(missing) == 0 {
			return nil
		}
		select {
		case <-more:
		case <-e.done:
			return fmt.Errorf("%w: the events of %s ended", errNotHeard, e.s.name)
		case <-deadline:
			return fmt.Errorf("%w: %s got %d of %d within %s; the first it misses is %q",
				errNotHeard, e.s.name, len(texts)-len(missing), len(texts), within, missing[0])
		}
	}
}

// hears ends the test unless all texts are shown within the time, each of them once.
func (s *station) hears(within time.Duration, texts ...string) {
	s.t.Helper()
	if err := s.ear.wait(within, texts...); err != nil {
		s.t.Fatal(err)
	}
	s.ear.mu.Lock()
	defer s.ear.mu.Unlock()
	if len(s.ear.twice) > 0 {
		s.t.Fatalf("%s showed %d messages twice, such as %q", s.name, len(s.ear.twice), s.ear.twice[0])
	}
}

// holds ends the test unless the history of a conversation has each text exactly once.
func (s *station) holds(target string, texts []string) {
	s.t.Helper()
	count := map[string]int{}
	page := api.HistoryQuery{Target: target, N: 1000}
	for _, m := range ask(s, "history", func(ctx context.Context) ([]api.Message, error) { return s.api.History(ctx, page) }) {
		count[m.Text]++
	}
	for _, text := range texts {
		if count[text] != 1 {
			s.t.Fatalf("%q is %d times in the history of %s", text, count[text], s.name)
		}
	}
}
