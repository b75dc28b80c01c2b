package nodetest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/marcopolo/simnet"
	"github.com/quic-go/quic-go"
	"go.uber.org/fx"
)

// transport returns the option that makes a host send and receive its packets here.
func (n *Network) transport(l *Node) libp2p.Option {
	ip := net.ParseIP(l.ip())
	reuse := []quicreuse.Option{
		quicreuse.OverrideSourceIPSelector(func() (quicreuse.SourceIPSelector, error) { return sourceAddress(ip), nil }),
		quicreuse.OverrideListenUDP(func(_ string, addr *net.UDPAddr) (net.PacketConn, error) {
			if addr.String() != l.address() {
				return nil, fmt.Errorf("nodetest: %s has no address %s", l, addr)
			}
			return n.ports[l.index].open(), nil
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
type sourceAddress net.IP

// PreferredSourceIPForDestination implements quicreuse.SourceIPSelector.
func (s sourceAddress) PreferredSourceIPForDestination(*net.UDPAddr) (net.IP, error) {
	return net.IP(s), nil
}

// port is one node's place on the network. It is made before the network starts, since simnet takes no
// new places while packets travel, and stands across the node's restarts.
type port struct {
	net  *Network
	from string
	sim  *simnet.SimConn

	mu   sync.Mutex // guards all below
	rand *rand.Rand // of its own, so that what others send has no say in what it loses
	conn *conn      // nil while the node is down: packets are lost
}

func (n *Network) newPort(ip net.IP, from string, random *rand.Rand) *port {
	line := simnet.LinkSettings{BitsPerSecond: n.opts.BitsPerSecond}
	return &port{
		net: n, from: from, rand: random,
		sim: n.sim.NewEndpoint(&net.UDPAddr{IP: ip, Port: 4001}, simnet.NodeBiDiLinkSettings{Uplink: line, Downlink: line}),
	}
}

// loses says whether the next packet that is sent from here does not arrive.
func (p *port) loses(share float64) bool {
	if share <= 0 {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.rand.Float64() < share
}

// jitter is what the next packet takes longer, up to a most.
func (p *port) jitter(most time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Duration(p.rand.Int64N(int64(most) + 1))
}

// pump hands packets to whoever has the port open, until the network stops.
func (p *port) pump() {
	buf := make([]byte, 2048)
	for {
		n, from, err := p.sim.ReadFrom(buf)
		if err != nil {
			return
		}
		p.mu.Lock()
		c := p.conn
		p.mu.Unlock()
		if c == nil {
			continue
		}
		select {
		case c.packets <- packet{append([]byte(nil), buf[:n]...), from}:
		case <-c.closed:
		}
	}
}

func (p *port) open() *conn {
	c := &conn{port: p, packets: make(chan packet, 64), closed: make(chan struct{}), wake: make(chan struct{}, 1)}
	p.mu.Lock()
	p.conn = c
	p.mu.Unlock()
	return c
}

// packetHeaders are the bytes of the IP and UDP headers of a packet.
const packetHeaders = 28

type packet struct {
	data []byte
	from net.Addr
}

// conn is a socket on a port.
type conn struct {
	port    *port
	packets chan packet
	closed  chan struct{}
	once    sync.Once
	wake    chan struct{} // the read deadline changed

	mu       sync.Mutex // guards deadline
	deadline time.Time
}

var _ net.PacketConn = (*conn)(nil)

// ReadFrom implements net.PacketConn.
func (c *conn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		c.mu.Lock()
		deadline := c.deadline
		c.mu.Unlock()
		var expired <-chan time.Time
		if !deadline.IsZero() {
			if !time.Now().Before(deadline) {
				return 0, nil, os.ErrDeadlineExceeded
			}
			t := time.NewTimer(time.Until(deadline))
			defer t.Stop()
			expired = t.C
		}
		select {
		case p := <-c.packets:
			return copy(b, p.data), p.from, nil
		case <-c.closed:
			return 0, nil, net.ErrClosed
		case <-c.wake:
		case <-expired:
		}
	}
}

// WriteTo implements net.PacketConn.
func (c *conn) WriteTo(b []byte, to net.Addr) (int, error) {
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	default:
	}
	n := c.port.net
	n.packets.Add(1)
	n.bytes.Add(uint64(len(b)) + packetHeaders)
	if n.cut(c.port.from, to.String()) || c.port.loses(n.opts.Loss) {
		return len(b), nil
	}
	return c.port.sim.WriteTo(b, to)
}

// Close implements net.PacketConn.
func (c *conn) Close() error {
	c.once.Do(func() {
		close(c.closed)
		c.port.mu.Lock()
		defer c.port.mu.Unlock()
		if c.port.conn == c {
			c.port.conn = nil
		}
	})
	return nil
}

// LocalAddr implements net.PacketConn.
func (c *conn) LocalAddr() net.Addr { return c.port.sim.LocalAddr() }

// SetDeadline implements net.PacketConn.
func (c *conn) SetDeadline(t time.Time) error { return c.SetReadDeadline(t) }

// SetReadDeadline implements net.PacketConn.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	c.deadline = t
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return nil
}

// SetWriteDeadline implements net.PacketConn; writes do not block.
func (*conn) SetWriteDeadline(time.Time) error { return nil }

// SetReadBuffer and SetWriteBuffer keep quic-go from warning.
func (*conn) SetReadBuffer(int) error { return nil }

// SetWriteBuffer does nothing.
func (*conn) SetWriteBuffer(int) error { return nil }
