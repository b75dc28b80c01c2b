package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	basichost "github.com/libp2p/go-libp2p/p2p/host/basic"
	"github.com/libp2p/go-libp2p/p2p/muxer/yamux"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"go.uber.org/fx"
)

// userAgent says which protocol generation this is and nothing else: a full version would tell
// everybody which known holes to try.
const userAgent = "starling/1"

// quicHeadStart is how much longer than libp2p's quarter of a second TCP waits for QUIC at a public
// address. The transport by which we reach a relay is the one whose outside address we learn, so two
// people have to come by the same one to be able to punch; a busy machine or a far relay must not
// decide it. A network without UDP pays it once for each new connection.
const quicHeadStart = 500 * time.Millisecond

// hostParts are what newHost wires into the host for the rest of the node.
type hostParts struct {
	bandwidth *bandwidth
	observed  *basichost.ObservedAddrsManager // is set
	gater     connmgr.ConnectionGater         // nil: everybody may connect
	own       *interfaces                     // corrects the addresses that are told to others
}

// newHost makes the libp2p host. It does not listen yet, so that nobody is answered before the
// node can.
func newHost(p *plan, parts hostParts) (host.Host, error) {
	key, err := crypto.UnmarshalEd25519PrivateKey(p.Keys.Device().PrivateKey())
	if err != nil {
		return nil, fmt.Errorf("reading the device key: %w", err)
	}
	rm, err := newResourceManager(p.Limits.Connections)
	if err != nil {
		return nil, err
	}
	cm, err := newConnManager(p.Limits.Connections)
	if err != nil {
		return nil, errors.Join(err, rm.Close())
	}
	opts := []libp2p.Option{
		libp2p.Identity(key),
		libp2p.NoListenAddrs,
		libp2p.EnableRelay(), // NoListenAddrs alone would switch it off
		libp2p.UserAgent(userAgent),
		libp2p.ProtocolVersion(userAgent),
		libp2p.ResourceManager(rm),
		libp2p.ConnectionManager(cm),
		libp2p.BandwidthReporter(parts.bandwidth),
		libp2p.DisableMetrics(),
		libp2p.SwarmOpts(swarm.WithDialRanker(rankDials)),
		libp2p.WithFxOption(fx.Invoke(func(o basichost.ObservedAddrsManager) { *parts.observed = o })),
	}
	if parts.gater != nil {
		opts = append(opts, libp2p.ConnectionGater(parts.gater))
	}
	if p.Simulation == nil {
		opts = append(opts, libp2p.AddrsFactory(parts.own.correct))
	}
	opts = append(opts, transportOptions(p)...)
	opts = append(opts, reachabilityOptions(p)...)
	h, err := libp2p.New(opts...)
	if err != nil {
		return nil, fmt.Errorf("making the host: %w", err)
	}
	parts.own.listensOn(h.Network().ListenAddresses)
	return h, nil
}

func transportOptions(p *plan) []libp2p.Option {
	if p.Simulation != nil {
		return append([]libp2p.Option{libp2p.DisableIdentifyAddressDiscovery()}, p.Simulation.Options...)
	}
	opts := []libp2p.Option{
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Transport(libp2pquic.NewTransport),
		// TLS first: over TCP it agrees on a post-quantum key, Noise does not. Noise stays for
		// peers whose clock is so wrong that no certificate is valid.
		libp2p.Security(libp2ptls.ID, libp2ptls.New),
		libp2p.Security(noise.ID, noise.New),
		libp2p.Muxer(yamux.ID, yamux.DefaultTransport),
		libp2p.EnableAutoNATv2(),
	}
	onlyLoopback := len(p.listen) > 0 && !slices.ContainsFunc(p.listen, func(a ma.Multiaddr) bool { return !manet.IsIPLoopback(a) })
	if p.PortMap && p.Reachability != ReachabilityPublic && !onlyLoopback {
		opts = append(opts, libp2p.NATPortMap())
	}
	return opts
}

// rankDials is libp2p's order with a longer head start for QUIC.
func rankDials(addrs []ma.Multiaddr) []network.AddrDelay {
	public := func(a ma.Multiaddr, protocol int) bool {
		_, err := a.ValueForProtocol(protocol)
		return err == nil && manet.IsPublicAddr(a) && !isCircuit(a)
	}
	quic := slices.ContainsFunc(addrs, func(a ma.Multiaddr) bool { return public(a, ma.P_QUIC_V1) })
	ranked := swarm.DefaultDialRanker(addrs)
	for i := range ranked {
		if quic && public(ranked[i].Addr, ma.P_TCP) {
			ranked[i].Delay += quicHeadStart
		}
	}
	return ranked
}

func reachabilityOptions(p *plan) []libp2p.Option {
	switch p.Reachability {
	case ReachabilityPublic:
		return []libp2p.Option{libp2p.ForceReachabilityPublic(), libp2p.EnableNATService()}
	case ReachabilityPrivate:
		return []libp2p.Option{libp2p.ForceReachabilityPrivate()}
	}
	return nil
}

// listen opens the configured addresses, or the default ones at a port. It returns the port that
// the next start should ask for; 0 says that there is none to remember.
func listen(h host.Host, configured []ma.Multiaddr, port int) (int, error) {
	if len(configured) > 0 {
		for _, a := range configured {
			if err := listenAt(h, a); err != nil {
				return 0, fmt.Errorf("listening on %s: %w", a, err)
			}
		}
		return 0, nil
	}
	chosen, err := listenDefault(h, port)
	if err != nil && port != 0 {
		chosen, err = listenDefault(h, 0) // somebody else has last time's port
	}
	if err != nil {
		return 0, fmt.Errorf("listening: %w", err)
	}
	return chosen, nil
}

// listenDefault opens TCP and QUIC on one port number, IPv4 and IPv6. IPv4 over TCP decides the
// port; each other may be missing, as on a machine without IPv6.
func listenDefault(h host.Host, port int) (int, error) {
	if err := listenText(h, "/ip4/0.0.0.0/tcp/"+strconv.Itoa(port)); err != nil {
		return 0, err
	}
	// The list is in no order, and has more in it than what was opened here.
	for _, a := range h.Network().ListenAddresses() {
		if text, err := a.ValueForProtocol(ma.P_TCP); err == nil && port == 0 {
			if port, err = strconv.Atoi(text); err != nil {
				return 0, fmt.Errorf("reading the port listened on: %w", err)
			}
		}
	}
	at := strconv.Itoa(port)
	for _, pattern := range [...][2]string{
		{"/ip4/0.0.0.0/udp/", "/quic-v1"}, {"/ip6/::/tcp/", ""}, {"/ip6/::/udp/", "/quic-v1"},
	} {
		if listenText(h, pattern[0]+at+pattern[1]) == nil {
			continue
		}
		// The port may be taken for this one only; any other will do, or none.
		_ = listenText(h, pattern[0]+"0"+pattern[1])
	}
	return port, nil
}

func listenText(h host.Host, text string) error {
	a, err := ma.NewMultiaddr(text)
	if err != nil {
		return err
	}
	return listenAt(h, a)
}

// listenAt opens one address. The TCP transport lets several sockets share a port, which hole punching
// needs, so a port that another program has would not be noticed: it is tried without sharing first.
func listenAt(h host.Host, a ma.Multiaddr) error {
	if _, err := a.ValueForProtocol(ma.P_TCP); err == nil && fixedPort(a) {
		probe, err := manet.Listen(a)
		if err != nil {
			return listenCause(err)
		}
		if err := probe.Close(); err != nil {
			return err
		}
	}
	return listenCause(h.Network().Listen(a))
}

func fixedPort(a ma.Multiaddr) bool {
	port, err := a.ValueForProtocol(ma.P_TCP)
	return err == nil && port != "0"
}

// listenCause says in words what the operating system refused.
func listenCause(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.EADDRINUSE) || strings.Contains(err.Error(), syscall.EADDRINUSE.Error()):
		return errors.New("another program uses this port; choose another with --listen, or stop that program")
	case errors.Is(err, syscall.EACCES) || strings.Contains(err.Error(), syscall.EACCES.Error()):
		return errors.New("this user may not use this port; choose one above 1023 with --listen")
	case errors.Is(err, syscall.EADDRNOTAVAIL) || strings.Contains(err.Error(), syscall.EADDRNOTAVAIL.Error()):
		return errors.New("no interface of this machine has this address; choose another with --listen")
	}
	return err
}

// closeHost closes a host; libp2p's Close has no deadline of its own.
func closeHost(ctx context.Context, h host.Host) error {
	done := make(chan error, 1)
	go func() { done <- h.Close() }() // ends with Close; waited for below unless ctx ends
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("closing the host: %w", ctx.Err())
	}
}

// fullAddrs renders addresses with the peer id, as others need them.
func fullAddrs(id peer.ID, addrs []ma.Multiaddr) []string {
	out := make([]string, 0, len(addrs))
	for _, a := range addrs {
		out = append(out, a.String()+"/p2p/"+id.String())
	}
	return out
}
