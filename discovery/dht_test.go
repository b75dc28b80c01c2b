package discovery

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
)

func newHost(t testing.TB) host.Host {
	t.Helper()
	h, err := libp2p.New(
		libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"),
		libp2p.DisableMetrics(),
		libp2p.ResourceManager(&network.NullResourceManager{}),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

func newTestDHT(t testing.TB, h host.Host, cfg DHTConfig) *DHT {
	t.Helper()
	d := NewDHT(h, cfg)
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- d.Run(ctx, func() { close(ready) }) }()
	<-ready
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return d
}

func poll(t testing.TB, within time.Duration, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(within)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %s: %s", within, what)
		}
	}
}

// Two clients of one server find each other under a key; a client of another network does not.
func TestDHTMeetsAndSeparatesNetworks(t *testing.T) {
	server := newHost(t)
	boot := peer.AddrInfo{ID: server.ID(), Addrs: server.Addrs()}
	newTestDHT(t, server, DHTConfig{Network: "one", Server: true})
	newTestDHT(t, server, DHTConfig{Network: "two", Server: true})
	client := func(name string) (host.Host, *DHT) {
		h := newHost(t)
		d := newTestDHT(t, h, DHTConfig{Network: name, Bootstraps: []peer.AddrInfo{boot}})
		if err := h.Connect(t.Context(), boot); err != nil {
			t.Fatal(err)
		}
		poll(t, 10*time.Second, "the server is in the table", d.Ready)
		return h, d
	}
	a, da := client("one")
	_, db := client("one")
	_, dx := client("two")
	key := Key{1, 2, 3}
	if err := da.Provide(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	// An announcement is not answered, so it may still be on its way.
	poll(t, 10*time.Second, "the one who announced is found", func() bool {
		got, err := db.Find(t.Context(), key, 10)
		return err == nil && len(got) == 1 && got[0].ID == a.ID() && len(got[0].Addrs) > 0
	})
	if got, err := dx.Find(t.Context(), key, 10); err != nil || len(got) != 0 {
		t.Errorf("another network found %v, %v", got, err)
	}
	if info, err := db.FindPeer(t.Context(), a.ID()); err != nil || len(info.Addrs) == 0 {
		t.Errorf("looking the peer up gave %v, %v", info, err)
	}
	if da.Size() != 1 {
		t.Errorf("%d servers in the table, want 1", da.Size())
	}
}

// More servers in one address range than the diversity filter takes stay outside the table.
func TestDHTTableIsDiverse(t *testing.T) {
	me := newHost(t)
	d := newTestDHT(t, me, DHTConfig{Network: "one"})
	for range dhtPerTable + 4 {
		h := newHost(t)
		newTestDHT(t, h, DHTConfig{Network: "one", Server: true})
		me.Peerstore().AddAddrs(h.ID(), h.Addrs(), peerstore.PermanentAddrTTL)
		if err := me.Connect(t.Context(), peer.AddrInfo{ID: h.ID()}); err != nil {
			t.Fatal(err)
		}
	}
	poll(t, 10*time.Second, "the table fills", func() bool { return d.Size() >= dhtPerCPL })
	if n := d.Size(); n > dhtPerTable {
		t.Errorf("%d servers of one range in the table, want at most %d", n, dhtPerTable)
	}
}

// A machine whose only interface is the loopback starts, and stops at once.
func TestMDNSWithoutMulticast(t *testing.T) {
	h := newHost(t)
	m := NewMDNS(h, "test", slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx, func(peer.AddrInfo) {}) }()
	m.Restart()
	m.Restart()
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("local discovery did not stop")
	}
}

func TestServiceNameFitsAndDiffers(t *testing.T) {
	a, b := serviceName("main"), serviceName("other")
	if a == b || a != serviceName("main") {
		t.Errorf("%q and %q", a, b)
	}
	// RFC 6335: at most 15 characters, and a letter among them.
	if label := a[1 : len(a)-len("._udp")]; len(label) > 15 {
		t.Errorf("label %q is too long", label)
	}
}
