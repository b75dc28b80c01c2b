package nodetest

import (
	"net"
	"sync/atomic"

	"github.com/libp2p/go-libp2p"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/marcopolo/simnet"
	"github.com/quic-go/quic-go"
	"go.uber.org/fx"
)

// transport returns the option that makes a host send and receive its packets here.
func (n *Network) transport(l *Node) libp2p.Option {
	var source sourceAddress
	line := simnet.LinkSettings{BitsPerSecond: n.opts.BitsPerSecond}
	reuse := []quicreuse.Option{
		quicreuse.OverrideSourceIPSelector(func() (quicreuse.SourceIPSelector, error) { return &source, nil }),
		quicreuse.OverrideListenUDP(func(_ string, addr *net.UDPAddr) (net.PacketConn, error) {
			source.ip.Store(&addr.IP)
			c := n.sim.NewEndpoint(addr, simnet.NodeBiDiLinkSettings{Uplink: line, Downlink: line})
			return &lossy{SimConn: c, net: n, from: l.address()}, nil
		}),
	}
	return libp2p.ChainOptions(
		libp2p.Transport(libp2pquic.NewTransport),
		libp2p.QUICReuse(newConnManager, reuse...),
	)
}

// newConnManager makes the owner of a host's sockets and has it closed with the host.
func newConnManager(life fx.Lifecycle, reset quic.StatelessResetKey, token quic.TokenGeneratorKey, opts ...quicreuse.Option) (*quicreuse.ConnManager, error) {
	cm, err := quicreuse.NewConnManager(reset, token, opts...)
	if err != nil {
		return nil, err
	}
	life.Append(fx.StopHook(cm.Close))
	return cm, nil
}

// sourceAddress answers which of its addresses a host sends from: it has one.
type sourceAddress struct{ ip atomic.Pointer[net.IP] }

// PreferredSourceIPForDestination implements quicreuse.SourceIPSelector.
func (s *sourceAddress) PreferredSourceIPForDestination(*net.UDPAddr) (net.IP, error) {
	return *s.ip.Load(), nil
}

// lossy is a socket whose packets the network may lose.
type lossy struct {
	*simnet.SimConn
	net  *Network
	from string
}

// WriteTo implements net.PacketConn.
func (c *lossy) WriteTo(b []byte, to net.Addr) (int, error) {
	if c.net.lost(c.from, to.String()) {
		return len(b), nil
	}
	return c.SimConn.WriteTo(b, to)
}
