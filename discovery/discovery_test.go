package discovery

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

func newPeer(t testing.TB) peer.ID {
	t.Helper()
	_, pub, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p, err := peer.IDFromPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func addrs(t testing.TB, texts ...string) []ma.Multiaddr {
	t.Helper()
	out := make([]ma.Multiaddr, len(texts))
	for i, text := range texts {
		a, err := ma.NewMultiaddr(text)
		if err != nil {
			t.Fatal(err)
		}
		out[i] = a
	}
	return out
}

func at(t testing.TB, p peer.ID, texts ...string) peer.AddrInfo {
	t.Helper()
	return peer.AddrInfo{ID: p, Addrs: addrs(t, texts...)}
}

// fakeNetwork is a network in which a peer answers at one address, or not at all.
type fakeNetwork struct {
	subnets []string

	mu        sync.Mutex
	answers   map[peer.ID]string // where a peer is up
	connected map[peer.ID]bool
	dials     map[peer.ID]int
	tried     []string
	running   int
	most      int // dials at once
}

func newFakeNetwork() *fakeNetwork {
	return &fakeNetwork{answers: map[peer.ID]string{}, connected: map[peer.ID]bool{}, dials: map[peer.ID]int{}}
}

func (n *fakeNetwork) Connect(ctx context.Context, info peer.AddrInfo) error {
	n.mu.Lock()
	n.dials[info.ID]++
	n.running++
	n.most = max(n.most, n.running)
	up, ok := n.answers[info.ID]
	for _, a := range info.Addrs {
		n.tried = append(n.tried, a.String())
		ok = ok && (up == "" || up == a.String() || len(info.Addrs) > 1)
	}
	n.mu.Unlock()
	var err error
	select {
	case <-time.After(100 * time.Millisecond):
	case <-ctx.Done():
		err = ctx.Err()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.running--
	if err == nil && !ok {
		err = errors.New("connection refused")
	}
	if err == nil {
		n.connected[info.ID] = true
	}
	return err
}

func (n *fakeNetwork) Connected(p peer.ID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.connected[p]
}

func (n *fakeNetwork) LocalSubnets() []string { return n.subnets }

// up makes a peer answer at its first address.
func (n *fakeNetwork) up(info peer.AddrInfo) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answers[info.ID] = info.Addrs[0].String()
}

func (n *fakeNetwork) disconnect(p peer.ID) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.connected, p)
}

func (n *fakeNetwork) dialsTo(p peer.ID) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dials[p]
}

// memStore keeps the cache in memory.
type memStore struct {
	mu sync.Mutex
	m  map[string][]byte
}

func (s *memStore) Put(_ context.Context, k, v []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = map[string][]byte{}
	}
	s.m[string(k)] = append([]byte(nil), v...)
	return nil
}

func (s *memStore) Delete(_ context.Context, k []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, string(k))
	return nil
}

func (s *memStore) Each(_ context.Context, prefix []byte, f func(k, v []byte) bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, v := range s.m {
		if strings.HasPrefix(k, string(prefix)) && !f([]byte(k), v) {
			return nil
		}
	}
	return nil
}

// meetingPlace is a rendezvous in memory, shared by several finders.
type meetingPlace struct {
	mu    sync.Mutex
	found map[Key]map[peer.ID]peer.AddrInfo
	fail  int // the next so many announcements fail
	tries int
}

// announcements counts the attempts to announce.
func (p *meetingPlace) announcements() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tries
}

// under counts who is announced under a key.
func (p *meetingPlace) under(key Key) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.found[key])
}

// visitor is one peer's view of it.
type visitor struct {
	place *meetingPlace
	self  peer.AddrInfo
	ready bool
}

func (v *visitor) Ready() bool {
	v.place.mu.Lock()
	defer v.place.mu.Unlock()
	return v.ready
}

func (v *visitor) Provide(_ context.Context, key Key) error {
	v.place.mu.Lock()
	defer v.place.mu.Unlock()
	v.place.tries++
	if v.place.fail > 0 {
		v.place.fail--
		return errors.New("nobody took it")
	}
	if v.place.found == nil {
		v.place.found = map[Key]map[peer.ID]peer.AddrInfo{}
	}
	if v.place.found[key] == nil {
		v.place.found[key] = map[peer.ID]peer.AddrInfo{}
	}
	v.place.found[key][v.self.ID] = v.self
	return nil
}

func (v *visitor) Find(_ context.Context, key Key, limit int) ([]peer.AddrInfo, error) {
	v.place.mu.Lock()
	defer v.place.mu.Unlock()
	var out []peer.AddrInfo
	for _, info := range v.place.found[key] {
		if len(out) < limit {
			out = append(out, info)
		}
	}
	return out, nil
}

func (v *visitor) FindPeer(context.Context, peer.ID) (peer.AddrInfo, error) {
	return peer.AddrInfo{}, errors.New("not found")
}

func (v *visitor) setReady() {
	v.place.mu.Lock()
	defer v.place.mu.Unlock()
	v.ready = true
}

// runFinder runs a finder until the returned function is called.
func runFinder(t testing.TB, cfg Config) (*Finder, func()) {
	t.Helper()
	f, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	return f, func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("finder ended with %v", err)
		}
	}
}

func TestParsePeerAddr(t *testing.T) {
	id := newPeer(t).String()
	good := "/ip4/198.51.100.7/udp/4001/quic-v1/p2p/" + id
	info, err := ParsePeerAddr(good)
	if err != nil || info.ID.String() != id || len(info.Addrs) != 1 {
		t.Fatalf("ParsePeerAddr(%s) = %v, %v", good, info, err)
	}
	for text, want := range map[string]string{
		"198.51.100.7:4001":          "multiaddr",
		"/ip4/198.51.100.7/tcp/4001": "/p2p/",
		"/p2p/" + id:                 "where",
		"/ip4/1.2.3.4/tcp/1/p2p/xyz": "multiaddr",
	} {
		if _, err := ParsePeerAddr(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParsePeerAddr(%q): %v, want it to mention %q", text, err, want)
		}
	}
	infos, err := ParsePeerAddrs([]string{good, "/ip4/198.51.100.7/tcp/4001/p2p/" + id})
	if err != nil || len(infos) != 1 || len(infos[0].Addrs) != 2 {
		t.Errorf("two addresses of one peer gave %v, %v", infos, err)
	}
}

func TestPolicy(t *testing.T) {
	const (
		public   = "/ip4/198.51.100.7/tcp/1" // documentation range: libp2p takes it as not public
		real     = "/ip4/8.8.8.8/udp/1/quic-v1"
		lan      = "/ip4/192.168.1.9/tcp/1"
		otherLAN = "/ip4/10.9.9.9/tcp/1"
		loop     = "/ip4/127.0.0.1/tcp/1"
		circuit  = "/ip4/8.8.8.8/tcp/1/p2p/12D3KooWBLkwBGRbG93YK9PPqXRxzqVXkz4aXJXtw8bRrEKBCkim/p2p-circuit"
		dns      = "/dns4/relay.example.org/tcp/1"
		any      = "/ip4/0.0.0.0/tcp/1"
	)
	all := addrs(t, real, lan, otherLAN, loop, circuit, dns, any, public)
	for _, c := range []struct {
		name      string
		bootstrap string
		subnets   []string
		dial      []string
		publish   []string
	}{
		{"internet", real, nil, []string{real, circuit, dns}, []string{real, circuit, dns}},
		{"internet, same subnet", real, []string{"192.168.1.20/24"}, []string{real, lan, circuit, dns}, []string{real, circuit, dns}},
		{"private network", lan, nil, []string{real, lan, otherLAN, circuit, dns, public}, []string{real, lan, otherLAN, circuit, dns, public}},
		{"one machine", loop, nil, []string{real, lan, otherLAN, loop, circuit, dns, public}, []string{real, lan, otherLAN, loop, circuit, dns, public}},
		{"no bootstrap", "", nil, []string{real, circuit, dns}, []string{real, circuit, dns}},
	} {
		var boots []peer.AddrInfo
		if c.bootstrap != "" {
			boots = []peer.AddrInfo{at(t, newPeer(t), c.bootstrap)}
		}
		p := PolicyFor(boots)
		if got := texts(p.dialable(all, parseSubnets(c.subnets))); fmt.Sprint(got) != fmt.Sprint(c.dial) {
			t.Errorf("%s: dialable %v, want %v", c.name, got, c.dial)
		}
		if got := texts(p.Publish(all)); fmt.Sprint(got) != fmt.Sprint(c.publish) {
			t.Errorf("%s: published %v, want %v", c.name, got, c.publish)
		}
	}
	if got := (Policy{}).Publish(all); len(got) != 3 {
		t.Errorf("the zero policy publishes %v", texts(got))
	}
}

func texts(addrs []ma.Multiaddr) []string {
	out := []string{}
	for _, a := range addrs {
		out = append(out, a.String())
	}
	return out
}
