package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/identity"
	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// testKeys are keys that lie in memory only.
type testKeys struct {
	account *identity.Account
	device  *identity.Device
}

func newTestKeys(t testing.TB) *testKeys {
	t.Helper()
	account, err := identity.NewAccount(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	device, err := identity.NewDevice(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &testKeys{account: account, device: device}
}

func (k *testKeys) Device() *identity.Device { return k.device }

func (k *testKeys) Certificate(now time.Time) (wire.Certificate, error) {
	return k.account.CertificateAt(k.device.ID(), now)
}

func (k *testKeys) SubKey(label string) [32]byte { return k.account.SubKey(label) }

func (k *testKeys) Protected() bool { return false }

// loopback returns a laptop's configuration that stays on this machine.
func loopback(t testing.TB) Config {
	t.Helper()
	cfg := DefaultLaptop()
	cfg.Keys = newTestKeys(t)
	cfg.Listen = []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"}
	cfg.MDNS = false
	cfg.Network = "test"
	if os.Getenv("STARLING_TEST_LOG") != "" {
		cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return cfg
}

// start runs a node until the test ends, or the returned function is called.
func start(t testing.TB, cfg Config) (*Node, func()) {
	t.Helper()
	n, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		began := time.Now()
		if err := <-done; err != nil {
			t.Errorf("node ended with %v", err)
		}
		if took := time.Since(began); took > stopTimeout {
			t.Errorf("stopping took %s", took)
		}
	}
	t.Cleanup(stop)
	select {
	case <-n.Ready():
	case err := <-done:
		stopped = true
		t.Fatalf("node ended before it was ready: %v", err)
	}
	return n, stop
}

// inbox follows the events of a node's chat service.
type inbox struct {
	t   testing.TB
	sub *chat.Subscription
}

func follow(t testing.TB, n *Node) *inbox {
	t.Helper()
	sub := n.Chat().Events(0)
	t.Cleanup(sub.Close)
	return &inbox{t: t, sub: sub}
}

// wait returns the first message with a text, and fails after a time.
func (b *inbox) wait(text string, within time.Duration) chat.Message {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), within)
	defer cancel()
	for {
		e, err := b.sub.Next(ctx)
		if err != nil {
			b.t.Fatalf("no %q within %s: %v", text, within, err)
		}
		if e.Message != nil && e.Message.Text == text {
			return *e.Message
		}
	}
}

func joinRoom(t testing.TB, n *Node, name string) chat.Target {
	t.Helper()
	if _, err := n.Chat().Join(t.Context(), name, ""); err != nil {
		t.Fatal(err)
	}
	target, err := n.Chat().Resolve("#" + name)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

func say(t testing.TB, n *Node, to chat.Target, text string) chat.Message {
	t.Helper()
	m, err := n.Chat().Send(t.Context(), chat.SendRequest{Target: to, Text: text})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// befriend makes each the other's contact and returns the second as a target for the first.
func befriend(t testing.TB, a, b *Node) chat.Target {
	t.Helper()
	var to chat.Target
	for _, pair := range [2][2]*Node{{b, a}, {a, b}} {
		account := accountOf(pair[1])
		if _, err := pair[0].Chat().AddContact(t.Context(), account.String(), ""); err != nil {
			t.Fatal(err)
		}
		to = chat.Target{Account: &account}
	}
	return to
}

func accountOf(n *Node) wire.AccountID { return n.plan.Keys.(*testKeys).account.ID() }

// until polls a condition.
func until(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(within)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %s: %s", within, what)
		}
	}
}

func TestTwoNodesTalk(t *testing.T) {
	a, _ := start(t, loopback(t))
	cfg := loopback(t)
	cfg.Bootstraps = a.Addrs()
	b, _ := start(t, cfg)
	roomA, roomB := joinRoom(t, a, "lobby"), joinRoom(t, b, "lobby")
	fromA, fromB := follow(t, a), follow(t, b)

	say(t, a, roomA, "hello from a")
	fromB.wait("hello from a", 10*time.Second)
	say(t, b, roomB, "hello from b")
	fromA.wait("hello from b", 10*time.Second)
	for i := range 100 {
		text := fmt.Sprintf("message %d", i)
		say(t, a, roomA, text)
		fromB.wait(text, 10*time.Second)
	}

	dm := befriend(t, a, b)
	m := say(t, a, dm, "just for you")
	fromB.wait("just for you", 10*time.Second)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := a.Chat().WaitState(ctx, m.ID, chat.StateDelivered); err != nil {
		t.Fatalf("direct message not delivered: %v", err)
	}
	if got := a.direct.Path(b.plan.Keys.Device().ID()); got != chat.PathLAN {
		t.Errorf("path is %q, want lan", got)
	}
}

func TestConfigSaysWhatIsWrong(t *testing.T) {
	base := loopback(t)
	for name, change := range map[string]func(*Config){
		"no keys":          func(c *Config) { c.Keys = nil },
		"bad network name": func(c *Config) { c.Network = "Not Good" },
		"bad listen":       func(c *Config) { c.Listen = []string{"127.0.0.1:4001"} },
		"bootstrap alone":  func(c *Config) { c.Bootstraps = []string{"/ip4/127.0.0.1/tcp/1"} },
		"bad reachability": func(c *Config) { c.Reachability = "maybe" },
	} {
		cfg := base
		change(&cfg)
		n, err := New(t.Context(), cfg)
		if err == nil {
			t.Errorf("%s: no error", name)
			if err := n.Close(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestBusyPortIsAnError(t *testing.T) {
	a, _ := start(t, loopback(t))
	for _, addr := range a.host.Network().ListenAddresses() {
		if isCircuit(addr) {
			continue
		}
		cfg := loopback(t)
		cfg.Listen = []string{addr.String()}
		n, err := New(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		err = n.Run(ctx)
		cancel()
		if err == nil || !strings.Contains(err.Error(), "--listen") {
			t.Errorf("the busy port of %s gave %v", addr, err)
		}
	}
}

// getPages fetches everything a status page serves.
func getPages(t testing.TB, addr string) string {
	t.Helper()
	var out strings.Builder
	for _, path := range []string{"/", "/healthz", "/metrics"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		tr := &http.Transport{DisableKeepAlives: true}
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("GET %s: %s, %v", path, resp.Status, err)
		}
		out.Write(body)
	}
	return out.String()
}

// A store with a damaged table is refused with a hint, repaired by CheckStore, and opens then.
func TestCheckRepairsTheStore(t *testing.T) {
	cfg := loopback(t)
	cfg.StoreDir = t.TempDir()
	_, stop := start(t, cfg)
	stop()
	tables, err := filepath.Glob(filepath.Join(cfg.StoreDir, "db", "*.sst"))
	if err != nil || len(tables) == 0 {
		t.Fatalf("no tables: %v", err)
	}
	b, err := os.ReadFile(tables[0])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(tables[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := New(t.Context(), cfg); !errors.Is(err, storage.ErrCorrupt) || !strings.Contains(err.Error(), "run the check command") {
		if err == nil {
			n.Close(t.Context())
		}
		t.Fatalf("starting on a damaged table: %v", err)
	}
	report, err := CheckStore(t.Context(), cfg)
	if err != nil || report.OK || len(report.Problems) == 0 {
		t.Fatalf("check: %+v, %v", report, err)
	}
	if report, err = CheckStore(t.Context(), cfg); err != nil || !report.OK {
		t.Fatalf("second check: %+v, %v", report, err)
	}
	_, stop = start(t, cfg)
	stop()
}
