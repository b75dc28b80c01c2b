package node

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/node/relay"
)

// relayConfig returns a public relay's configuration that stays on this machine.
func relayConfig(t testing.TB) Config {
	t.Helper()
	cfg := loopback(t)
	cfg.Reachability = ReachabilityPublic
	cfg.Relay = &relay.Config{}
	cfg.Limits = RelayLimits()
	return cfg
}

// behind returns the configuration of a node that knows only relays: no DHT leads it to others.
func behind(t testing.TB, relays ...*Node) Config {
	t.Helper()
	cfg := loopback(t)
	cfg.DHT = false
	for _, r := range relays {
		cfg.Relays = append(cfg.Relays, r.Addrs()...)
	}
	return cfg
}

func (n *Node) relayStatus(t testing.TB) []string {
	t.Helper()
	st, err := n.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, r := range st.Relays {
		out = append(out, fmt.Sprintf("connected=%v reserved=%v topics=%d %s", r.Connected, r.Reserved, r.Topics, r.Error))
	}
	return out
}

// attached waits until a node's rooms are forwarded by a relay that also holds a place for it.
func attached(t testing.TB, n *Node, topics int) {
	t.Helper()
	until(t, 15*time.Second, "rooms are attached and a place is reserved", func() bool {
		for _, s := range n.relayStatus(t) {
			if strings.HasPrefix(s, fmt.Sprintf("connected=true reserved=true topics=%d", topics)) {
				return true
			}
		}
		return false
	})
}

func TestRelayForwardsRooms(t *testing.T) {
	r, _ := start(t, relayConfig(t))
	a, _ := start(t, behind(t, r))
	b, _ := start(t, behind(t, r))
	roomA, _ := joinRoom(t, a, "lobby"), joinRoom(t, b, "lobby")
	fromB := follow(t, b)
	attached(t, a, 1)
	attached(t, b, 1)
	for i := range 100 {
		text := fmt.Sprintf("message %d", i)
		say(t, a, roomA, text)
		fromB.wait(text, 10*time.Second)
	}
	if r.Chat() != nil {
		t.Error("the relay chats")
	}
	sn := r.server.Snapshot()
	if sn.Topics != 1 || sn.Clients != 2 || sn.Leases != 2 {
		t.Errorf("relay holds %+v", sn)
	}
	topic := a.gossip.joined()[0]
	if dev := r.plan.Keys.Device().ID(); slices.Contains(a.gossip.Peers(topic), dev) {
		t.Error("the relay counts as a member")
	}
	if err := a.Chat().Leave(t.Context(), roomA); err != nil {
		t.Fatal(err)
	}
	until(t, 10*time.Second, "the lease is given back", func() bool { return r.server.Snapshot().Leases == 1 })
}

// Direct messages between two who can reach each other only by way of the relay, after the circuit
// was found without any address.
func TestDirectMessageOverTheRelay(t *testing.T) {
	r, _ := start(t, relayConfig(t))
	cfgA, cfgB := behind(t, r), behind(t, r)
	cfgA.gater, cfgB.gater = &wall{only: r.id}, &wall{only: r.id}
	a, _ := start(t, cfgA)
	b, _ := start(t, cfgB)
	attached(t, a, 0)
	attached(t, b, 0)
	fromB := follow(t, b)
	dm := befriend(t, a, b)
	// The link tells the device; the account alone would have to be looked up in the DHT.
	if _, err := a.Chat().AddContact(t.Context(), b.Chat().Me().Link, ""); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		text := fmt.Sprintf("note %d", i)
		say(t, a, dm, text)
		m := fromB.wait(text, 15*time.Second)
		if m.Path != chat.PathRelayed {
			t.Errorf("%q came by path %q, want relayed", text, m.Path)
		}
	}
	if res, err := a.Ping(t.Context(), b.PeerID()); err != nil || res.Path != string(chat.PathRelayed) {
		t.Errorf("ping gave %+v, %v", res, err)
	}
}

// wall lets connections to one peer through, and circuits to everybody.
type wall struct{ only peer.ID }

func (w *wall) InterceptPeerDial(peer.ID) bool { return true }

func (w *wall) InterceptAddrDial(p peer.ID, a ma.Multiaddr) bool { return p == w.only || isCircuit(a) }

func (w *wall) InterceptAccept(network.ConnMultiaddrs) bool { return true }

func (w *wall) InterceptSecured(_ network.Direction, p peer.ID, c network.ConnMultiaddrs) bool {
	return p == w.only || isCircuit(c.RemoteMultiaddr())
}

func (w *wall) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }

// What is said as soon as the only relay is back is heard at once: nobody waits for the mesh to form again.
func TestRelayRestart(t *testing.T) {
	cfg := relayConfig(t)
	cfg.StoreDir = t.TempDir()
	r, stop := start(t, cfg)
	a, _ := start(t, behind(t, r))
	b, _ := start(t, behind(t, r))
	roomA, _ := joinRoom(t, a, "lobby"), joinRoom(t, b, "lobby")
	fromB := follow(t, b)
	attached(t, a, 1)
	attached(t, b, 1)
	listen := listensOn(r)
	stop()
	until(t, 20*time.Second, "the loss is noticed", func() bool { return len(a.knownRelays()) == 0 })
	cfg.Listen = listen
	start(t, cfg)
	attached(t, a, 1)
	attached(t, b, 1)
	say(t, a, roomA, "after the restart")
	fromB.wait("after the restart", 10*time.Second)
}

// What was said while nobody was there waits, and goes out when somebody comes.
func TestSaidToNobody(t *testing.T) {
	cfg := relayConfig(t)
	cfg.StoreDir = t.TempDir()
	r, stop := start(t, cfg)
	cfgA, cfgB := behind(t, r), behind(t, r)
	cfg.Listen = listensOn(r)
	stop()
	a, _ := start(t, cfgA)
	b, _ := start(t, cfgB)
	roomA, _ := joinRoom(t, a, "lobby"), joinRoom(t, b, "lobby")
	fromB := follow(t, b)
	say(t, a, roomA, "anybody here?")
	until(t, 10*time.Second, "gossip says that nobody is there", func() bool {
		return errors.Is(a.gossip.Publish(t.Context(), a.gossip.joined()[0], []byte("x")), chat.ErrUnreachable)
	})
	if a.Chat().Stats().Unpublished == 0 {
		t.Error("a message that nobody was given counts as published")
	}
	start(t, cfg)
	fromB.wait("anybody here?", 20*time.Second)
	until(t, 10*time.Second, "nothing waits any more", func() bool { return a.Chat().Stats().Unpublished == 0 })
}

// listensOn gives what a node listens on, for its next run.
func listensOn(n *Node) []string {
	var listen []string
	for _, addr := range n.host.Network().ListenAddresses() {
		if !isCircuit(addr) {
			listen = append(listen, addr.String())
		}
	}
	return listen
}

func TestRelayRefusalNamesTheLimit(t *testing.T) {
	cfg := relayConfig(t)
	cfg.Relay.TopicsPerPeer = 1
	r, _ := start(t, cfg)
	a, _ := start(t, behind(t, r))
	joinRoom(t, a, "one")
	attached(t, a, 1)
	joinRoom(t, a, "two")
	until(t, 10*time.Second, "the refusal shows in the status", func() bool {
		return strings.Contains(strings.Join(a.relayStatus(t), "\n"), "at most 1 rooms for each client")
	})
	if sn := r.server.Snapshot(); sn.Topics != 1 {
		t.Errorf("relay forwards %d topics, want 1", sn.Topics)
	}
}

func TestDenyListTakesEffectWhileRunning(t *testing.T) {
	cfg := relayConfig(t)
	cfg.Relay.Lists = filepath.Join(t.TempDir(), "lists")
	if err := os.WriteFile(cfg.Relay.Lists, []byte("# nobody yet\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, _ := start(t, cfg)
	a, _ := start(t, behind(t, r))
	b, _ := start(t, behind(t, r))
	joinRoom(t, a, "lobby")
	joinRoom(t, b, "lobby")
	attached(t, a, 1)
	attached(t, b, 1)
	if err := os.WriteFile(cfg.Relay.Lists, []byte("deny "+a.PeerID()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	until(t, 5*time.Second, "the denied peer is gone", func() bool {
		return r.host.Network().Connectedness(a.id) == network.NotConnected && r.server.Snapshot().Leases == 1
	})
	if r.host.Network().Connectedness(b.id) != network.Connected {
		t.Error("the other was cut off too")
	}
}

// syncBuffer collects logs.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// A relay forwards a room without its name or text ever being in its log, its store or its metrics.
func TestRelayIsBlind(t *testing.T) {
	const canary = "canarycanary"
	var log syncBuffer
	cfg := relayConfig(t)
	cfg.StoreDir = t.TempDir()
	cfg.Relay.Status = "127.0.0.1:0"
	cfg.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	r, stop := start(t, cfg)
	a, _ := start(t, behind(t, r))
	b, _ := start(t, behind(t, r))
	roomA, _ := joinRoom(t, a, canary), joinRoom(t, b, canary)
	fromB := follow(t, b)
	attached(t, a, 1)
	attached(t, b, 1)
	if err := a.Chat().SetNick(t.Context(), canary); err != nil {
		t.Fatal(err)
	}
	say(t, a, roomA, canary+" text")
	fromB.wait(canary+" text", 10*time.Second)
	pages := getPages(t, r.page.Addr())
	if !strings.Contains(pages, "starling_relay_topics 1") || !strings.Contains(pages, "starling_gossip_delivered_total") {
		t.Errorf("metrics miss what they should show:\n%s", pages)
	}
	stop()
	seen := pages + log.String()
	err := filepath.WalkDir(cfg.StoreDir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		seen += string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(seen, canary) {
		t.Error("the relay knows what it forwards")
	}
	topic := a.gossip.joined()[0].String()
	if strings.Contains(pages, topic) || strings.Contains(pages, a.PeerID()) {
		t.Error("the metrics name a topic or a peer")
	}
}

// A relay that knows another one has its connection and nothing else of it: it has no rooms, and nobody to tell.
func TestRelaysKnowEachOther(t *testing.T) {
	first, stop := start(t, relayConfig(t))
	cfg := relayConfig(t)
	cfg.Relays = first.Addrs()
	second, _ := start(t, cfg)
	until(t, 10*time.Second, "the relays are connected", func() bool { return len(second.trustedRelays()) == 1 })
	until(t, 10*time.Second, "the other relay is noted", func() bool { return len(second.leases.Relays()) == 1 })
	if st, err := second.Status(t.Context()); err != nil || len(st.Relays) != 1 || !st.Relays[0].Connected {
		t.Errorf("status %+v, %v", st.Relays, err)
	}
	stop()
	until(t, 10*time.Second, "its end is noted", func() bool { return len(second.leases.Relays()) == 0 })
}

// A lease needs the topic's key: who knows only the topic's name gets none.
func TestRelayGivesNoLeaseWithoutTheKey(t *testing.T) {
	r, _ := start(t, relayConfig(t))
	a, _ := start(t, behind(t, r))
	until(t, 10*time.Second, "the relay is known", func() bool { return len(a.knownRelays()) == 1 })
	secret := wire.RoomSecret{1}
	keys, err := wire.DeriveRoomKeys(secret)
	if err != nil {
		t.Fatal(err)
	}
	other, err := wire.DeriveRoomKeys(wire.RoomSecret{2})
	if err != nil {
		t.Fatal(err)
	}
	// The proof of one topic under the name of another.
	a.leases.mu.Lock()
	a.leases.rooms[other.Topic] = keys
	a.leases.mu.Unlock()
	answer, _, err := a.leases.request(t.Context(), r.id, []wire.TopicKey{other.Topic}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(answer.Grants) != 1 || answer.Grants[0].Code != wire.RelayBadProof {
		t.Errorf("relay answered %+v", answer)
	}
	if sn := r.server.Snapshot(); sn.Topics != 0 {
		t.Errorf("relay forwards %d topics", sn.Topics)
	}
}

// Members choose the same relays, and a relay that goes moves only its own topics.
func TestRendezvousOrder(t *testing.T) {
	relays := []peer.ID{"alpha", "beta", "gamma", "delta"}
	moved := 0
	first := map[peer.ID]int{}
	for i := range 1000 {
		topic := wire.TopicKey{byte(i), byte(i >> 8), 1}
		all := rendezvousOrder(topic, relays)
		shuffled := []peer.ID{"delta", "alpha", "gamma", "beta"}
		if !slices.Equal(all, rendezvousOrder(topic, shuffled)) {
			t.Fatal("the order depends on the input's")
		}
		first[all[0]]++
		rest := rendezvousOrder(topic, relays[:3])
		if !slices.Equal(rest, slices.DeleteFunc(slices.Clone(all), func(p peer.ID) bool { return p == "delta" })) {
			t.Fatal("losing one relay reordered the others")
		}
		if all[0] == "delta" {
			moved++
		}
	}
	for p, n := range first {
		if n < 180 || n > 320 {
			t.Errorf("%s is first for %d of 1000 topics", p, n)
		}
	}
	if moved == 0 {
		t.Error("nothing moved")
	}
}

// What is known of a peer's addresses comes in any order; the same ones are the same to the cache, which
// was written for every neighbour every 20 s otherwise.
func TestGoodAddressesHaveAnOrder(t *testing.T) {
	n, _ := start(t, loopback(t))
	var list []ma.Multiaddr
	for i := range 8 {
		list = append(list, ma.StringCast(fmt.Sprintf("/ip4/192.0.0.%d/tcp/4001", 200+i)))
	}
	p := newTestKeys(t).device.ID().PeerID()
	n.host.Peerstore().AddAddrs(peer.ID(p), list, time.Hour)
	first := n.goodAddrs(peer.ID(p))
	if len(first) != len(list) {
		t.Fatalf("%d of %d addresses", len(first), len(list))
	}
	for range 50 {
		if again := n.goodAddrs(peer.ID(p)); !slices.EqualFunc(first, again, ma.Multiaddr.Equal) {
			t.Fatalf("%v, then %v", first, again)
		}
	}
}
