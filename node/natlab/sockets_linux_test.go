package natlab_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/starling-chat/starling/node/natlab"
)

const (
	// soon is how long an answer may take inside the lab, where a round trip is well
	// under a millisecond; the margin is for a busy machine.
	soon = 5 * time.Second
	// silence is how long no answer must come before a path counts as closed.
	silence = 300 * time.Millisecond
	// retry is the pace of attempts that need both sides.
	retry = 50 * time.Millisecond
)

// question is what a mirror is asked.
const question = "who am I"

// shared lets several sockets use one local port, as libp2p does for hole punching.
func shared(_, _ string, conn syscall.RawConn) error {
	var err error
	ctrlErr := conn.Control(func(fd uintptr) {
		err = errors.Join(
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
	})
	return errors.Join(ctrlErr, err)
}

// listenUDP opens a UDP socket on a host; port 0 picks one.
func listenUDP(t *testing.T, h *natlab.Host, port uint16) *net.UDPConn {
	t.Helper()
	var conn *net.UDPConn
	err := h.Do(func() (err error) {
		conn, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.IPv4Unspecified(), port)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func localPort(a net.Addr) uint16 { return netip.MustParseAddrPort(a.String()).Port() }

// mirrorUDP starts a server that answers each datagram with the address it saw.
func mirrorUDP(t *testing.T, h *natlab.Host) netip.AddrPort {
	t.Helper()
	conn := listenUDP(t, h, 0)
	go func() {
		buf := make([]byte, 2048)
		for {
			_, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = conn.WriteToUDPAddrPort([]byte(plain(from).String()), from)
		}
	}()
	return netip.AddrPortFrom(h.Addr(), localPort(conn.LocalAddr()))
}

// plain strips the IPv6 form from an IPv4 address.
func plain(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

// mirrorTCP starts a server that greets each connection with the address it saw.
func mirrorTCP(t *testing.T, h *natlab.Host) netip.AddrPort {
	t.Helper()
	var l net.Listener
	err := h.Do(func() (err error) {
		l, err = net.Listen("tcp4", "0.0.0.0:0")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.WriteString(conn, conn.RemoteAddr().String())
			_ = conn.Close()
		}
	}()
	return netip.AddrPortFrom(h.Addr(), localPort(l.Addr()))
}

// askUDP returns the address under which a mirror sees a socket. It repeats the question,
// as datagrams may get lost, for at most the given time.
func askUDP(conn *net.UDPConn, server netip.AddrPort, limit time.Duration) (netip.AddrPort, error) {
	buf := make([]byte, 2048)
	for end := time.Now().Add(limit); time.Now().Before(end); {
		// A failing write is an ICMP error for an earlier one, or a missing route.
		if _, err := conn.WriteToUDPAddrPort([]byte(question), server); err != nil {
			return netip.AddrPort{}, err
		}
		_ = conn.SetReadDeadline(time.Now().Add(min(limit, 4*retry)))
		n, from, err := conn.ReadFromUDPAddrPort(buf)
		if err == nil && plain(from) == server {
			return netip.ParseAddrPort(string(buf[:n]))
		}
	}
	return netip.AddrPort{}, fmt.Errorf("no answer from %s in %s", server, limit)
}

// askTCP is askUDP over a connection from a local port, 0 for any.
func askTCP(h *natlab.Host, port uint16, server netip.AddrPort, limit time.Duration) (seen netip.AddrPort, err error) {
	err = h.Do(func() error {
		d := net.Dialer{Control: shared, Timeout: limit, LocalAddr: &net.TCPAddr{Port: int(port)}}
		conn, err := d.DialContext(context.Background(), "tcp4", server.String())
		if err != nil {
			return err
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(limit))
		text, err := io.ReadAll(conn)
		if err != nil {
			return err
		}
		seen, err = netip.ParseAddrPort(string(text))
		return err
	})
	return seen, err
}

// wait returns how long to try for an answer that should come, or should not.
func wait(expected bool) time.Duration {
	if expected {
		return soon
	}
	return silence
}

// checkUDP and checkTCP test whether a server answers a host.
func checkUDP(t *testing.T, what string, h *natlab.Host, server netip.AddrPort, want bool) {
	t.Helper()
	if _, err := askUDP(listenUDP(t, h, 0), server, wait(want)); (err == nil) != want {
		t.Errorf("%s: UDP from %s to %s: answered %t, want %t", what, h.Name(), server, err == nil, want)
	}
}

func checkTCP(t *testing.T, what string, h *natlab.Host, server netip.AddrPort, want bool) {
	t.Helper()
	if _, err := askTCP(h, 0, server, wait(want)); (err == nil) != want {
		t.Errorf("%s: TCP from %s to %s: answered %t, want %t", what, h.Name(), server, err == nil, want)
	}
}
