package natlab_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/discovery/mdns"
	"github.com/libp2p/go-libp2p/p2p/host/autorelay"
	"github.com/libp2p/go-libp2p/p2p/protocol/holepunch"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/starling-chat/starling/node/natlab"
)

// Environment of the libp2p children.
const (
	listenEnv = "NATLAB_TEST_LISTEN" // a multiaddr
	relayEnv  = "NATLAB_TEST_RELAY"  // a full multiaddr
)

// relayNode is a circuit relay on a public host.
func relayNode(ctx context.Context) error {
	h, err := libp2p.New(libp2p.ListenAddrStrings(os.Getenv(listenEnv)),
		libp2p.ForceReachabilityPublic(), libp2p.EnableRelayService(), libp2p.DisableRelay())
	if err != nil {
		return err
	}
	defer h.Close()
	return sayReady(ctx, h, func(a ma.Multiaddr) bool {
		_, err := a.ValueForProtocol(ma.P_IP4)
		return err == nil && !strings.Contains(a.String(), "/127.")
	})
}

// peerNode is a laptop behind a NAT: it reserves a slot at the relay, connects to the
// address on its standard input, if any, and reports the direct connection.
func peerNode(ctx context.Context) error {
	relay, err := peer.AddrInfoFromString(os.Getenv(relayEnv))
	if err != nil {
		return err
	}
	h, err := libp2p.New(libp2p.ListenAddrStrings(os.Getenv(listenEnv)), libp2p.ForceReachabilityPrivate(),
		libp2p.EnableHolePunching(), libp2p.EnableAutoRelayWithStaticRelays([]peer.AddrInfo{*relay},
			autorelay.WithBootDelay(0), autorelay.WithMinInterval(time.Second)))
	if err != nil {
		return err
	}
	defer h.Close()
	reportDirect(ctx, h, relay.ID)
	go connectTo(ctx, h, os.Stdin) // ends with the process
	// The hole puncher of libp2p looks for an observed address every quarter of a second at
	// first, and takes no notice of circuits that came before it found one.
	return sayReady(ctx, h, func(a ma.Multiaddr) bool {
		return isCircuit(a) && slices.Contains(h.Mux().Protocols(), holepunch.Protocol)
	})
}

// lanNode finds its neighbours by mDNS and nothing else.
func lanNode(ctx context.Context) error {
	h, err := libp2p.New(libp2p.ListenAddrStrings(os.Getenv(listenEnv)), libp2p.DisableRelay())
	if err != nil {
		return err
	}
	defer h.Close()
	reportDirect(ctx, h, "")
	service := mdns.NewMdnsService(h, "_natlab._udp", dialer{ctx, h})
	if err := service.Start(); err != nil {
		return err
	}
	defer service.Close()
	<-ctx.Done()
	return nil
}

// dialer connects to each peer with a larger id that mDNS finds. If both sides dial at the
// same moment over TCP, each from the port it listens on, the kernels make one connection
// of it, and both ends take themselves for the client of the handshake.
type dialer struct {
	ctx  context.Context
	host host.Host
}

func (d dialer) HandlePeerFound(p peer.AddrInfo) {
	if p.ID < d.host.ID() {
		return
	}
	if err := d.host.Connect(d.ctx, p); err != nil {
		fmt.Fprintln(os.Stderr, "connecting to a neighbour:", err)
	}
}

func isCircuit(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_CIRCUIT)
	return err == nil
}

// sayReady waits for an address that is wanted, reports it with the peer id, and returns
// when ctx ends.
func sayReady(ctx context.Context, h host.Host, wanted func(ma.Multiaddr) bool) error {
	sub, err := h.EventBus().Subscribe([]any{new(event.EvtLocalAddressesUpdated), new(event.EvtLocalProtocolsUpdated)})
	if err != nil {
		return err
	}
	defer sub.Close()
	for said := false; ; {
		for _, a := range h.Addrs() {
			if !said && wanted(a) {
				said = true
				if err := say(report{Addr: fmt.Sprintf("%s/p2p/%s", a, h.ID())}); err != nil {
					return err
				}
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-sub.Out():
		}
	}
}

// reportDirect reports connections that are neither limited nor to the relay.
func reportDirect(ctx context.Context, h host.Host, relay peer.ID) {
	h.Network().Notify(&network.NotifyBundle{ConnectedF: func(_ network.Network, c network.Conn) {
		if c.RemotePeer() == relay || c.Stat().Limited || isCircuit(c.RemoteMultiaddr()) {
			return
		}
		// Callbacks must not block; ends after one answer or with the context.
		go func() {
			if r := <-ping.Ping(ctx, h, c.RemotePeer()); r.Error != nil {
				fmt.Fprintln(os.Stderr, "ping:", r.Error)
				return
			}
			_ = say(report{Direct: c.RemoteMultiaddr().String()})
		}()
	}})
}

// connectTo connects to the addresses it reads, one a line.
func connectTo(ctx context.Context, h host.Host, in io.Reader) {
	for lines := bufio.NewScanner(in); lines.Scan(); {
		p, err := peer.AddrInfoFromString(lines.Text())
		if err == nil {
			err = h.Connect(ctx, *p)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "connecting through the relay:", err)
		}
	}
}

// Two laptops behind cones and a public relay: libp2p gets from a circuit to a direct
// connection, over QUIC as over TCP. Both homes use the same private addresses.
func TestPunchLibp2p(t *testing.T) {
	for name, listen := range map[string]string{"quic": "/ip4/0.0.0.0/udp/0/quic-v1", "tcp": "/ip4/0.0.0.0/tcp/0"} {
		t.Run(name, func(t *testing.T) {
			lab := natlab.New(t)
			relay := hear(t, "relay", start(t, lab.Public("relay"), "relay", listenEnv+"="+listen)).Addr

			homes := []*natlab.Network{lab.Home("homeA", natlab.Cone), lab.Home("homeB", natlab.Cone)}
			var peers []*running
			var addrs []string
			for i, home := range homes {
				p := start(t, home.Host(fmt.Sprint("laptop ", i)), "peer", listenEnv+"="+listen, relayEnv+"="+relay)
				peers = append(peers, p)
				addrs = append(addrs, hear(t, "laptop", p).Addr)
			}
			begin := time.Now()
			if _, err := fmt.Fprintln(peers[0].in, addrs[1]); err != nil {
				t.Fatal(err)
			}
			for i, p := range peers {
				direct := hear(t, fmt.Sprint("laptop ", i), p).Direct
				if want := "/ip4/" + homes[1-i].WAN().String() + "/"; !strings.HasPrefix(direct, want) {
					t.Errorf("laptop %d is connected to %q, want %s...", i, direct, want)
				}
			}
			t.Logf("direct after %s", time.Since(begin).Round(time.Millisecond))
		})
	}
}

// Neighbours without a router, a relay or any configuration find each other by mDNS.
func TestMDNSLibp2p(t *testing.T) {
	lab := natlab.New(t)
	office := lab.LAN("office")
	a, b := office.Host("a"), office.Host("b")
	first := start(t, a, "lan", listenEnv+"=/ip4/0.0.0.0/tcp/0")
	second := start(t, b, "lan", listenEnv+"=/ip4/0.0.0.0/tcp/0")
	for who, pair := range map[string]struct {
		child *running
		other *natlab.Host
	}{"a": {first, b}, "b": {second, a}} {
		direct := hear(t, who, pair.child).Direct
		if want := "/ip4/" + pair.other.Addr().String() + "/"; !strings.HasPrefix(direct, want) {
			t.Errorf("%s is connected to %q, want %s...", who, direct, want)
		}
	}
}
