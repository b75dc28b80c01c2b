package natlab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	// maxCapture bounds the memory of one capture, in bytes; what comes later makes the
	// capture incomplete.
	maxCapture = 256 << 20
	// captureQueue is the socket's receive buffer in bytes, enough for a burst while the
	// reader waits for a processor.
	captureQueue = 32 << 20
	// maxFrame is the longest frame on a veth pair: the kernel passes aggregated TCP
	// segments as one.
	maxFrame = 64<<10 + 256
	// captureQuiet is how long no packet may come before the socket counts as drained, and
	// captureRounds how often that is tried where packets never cease.
	captureQuiet  = 50 * time.Millisecond
	captureRounds = 20
)

// Capture is a recording of the packets of one interface. On the way in it also has those
// that loss, a cut or a partition drops right behind.
type Capture struct {
	tb   testing.TB
	name string
	file *os.File
	done chan struct{} // closed when the reader has ended

	mu      sync.Mutex // guards the rest
	frames  []byte     // one after the other
	starts  []int      // where each begins
	streams map[flow]*stream
	full    bool
	err     error
	lost    uint64 // dropped by the kernel for want of room
}

// capture opens a packet socket on an interface and records until the test ends.
func capture(tb testing.TB, name string, on end) *Capture {
	tb.Helper()
	c := &Capture{tb: tb, name: name, done: make(chan struct{}), streams: map[flow]*stream{}}
	var fd int
	err := on.configure(func(_ *netlink.Handle, dev netlink.Link) error {
		var err error
		fd, err = packetSocket(dev.Attrs().Index)
		return err
	})
	if err != nil {
		tb.Fatalf("natlab: capturing at %s: %v", name, err)
	}
	c.file = os.NewFile(uintptr(fd), "capture "+name)
	// Ends when stop closes the socket; stop waits for it.
	go c.read()
	tb.Cleanup(c.stop)
	return c
}

// packetSocket opens a socket that receives all frames of an interface, in both
// directions, in the calling thread's namespace.
func packetSocket(index int) (fd int, err error) {
	// Protocol 0 keeps it deaf until it is bound, or it would hear loopback as well.
	fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("opening a packet socket: %w", err)
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, captureQueue)
	if err == nil {
		all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index})
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("setting up a packet socket: %w", err)
	}
	return fd, nil
}

// read records frames until the socket is closed.
func (c *Capture) read() {
	defer close(c.done)
	buf := make([]byte, maxFrame)
	for {
		n, err := c.file.Read(buf)
		if err != nil {
			c.mu.Lock()
			if !errors.Is(err, os.ErrClosed) {
				c.err = err
			}
			c.mu.Unlock()
			return
		}
		c.record(buf[:n])
	}
}

func (c *Capture) record(frame []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.frames)+len(frame) > maxCapture {
		c.full = true
		return
	}
	c.starts = append(c.starts, len(c.frames))
	c.frames = append(c.frames, frame...)
	if key, seq, payload, ok := tcpSegment(frame); ok {
		s := c.streams[key]
		if s == nil {
			s = &stream{}
			c.streams[key] = s
		}
		s.add(seq, payload)
	}
}

// stop ends the recording; it may be called more than once.
func (c *Capture) stop() {
	_ = c.file.Close()
	<-c.done
}

// settle waits until packets already sent have been recorded, and reads how many the
// kernel had to drop.
func (c *Capture) settle() {
	before := -1
	for range captureRounds {
		c.mu.Lock()
		now := len(c.starts)
		c.mu.Unlock()
		if now == before {
			break
		}
		before = now
		select {
		case <-c.done:
			return
		case <-time.After(captureQuiet):
		}
	}
	conn, err := c.file.SyscallConn()
	if err != nil {
		return // stopped already
	}
	_ = conn.Control(func(fd uintptr) {
		stats, err := unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS)
		if err == nil {
			c.mu.Lock()
			c.lost += uint64(stats.Drops)
			c.mu.Unlock()
		}
	})
}

// Contains reports whether a byte sequence was in a packet so far, headers included, or
// in a TCP stream across packets. If it was not found but the recording has holes, the
// test fails, since then nothing is proved.
func (c *Capture) Contains(canary []byte) bool {
	c.tb.Helper()
	c.settle()
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, start := range c.starts {
		end := len(c.frames)
		if i+1 < len(c.starts) {
			end = c.starts[i+1]
		}
		if bytes.Contains(c.frames[start:end], canary) {
			return true
		}
	}
	for _, s := range c.streams {
		if bytes.Contains(s.data, canary) {
			return true
		}
	}
	if c.full || c.lost > 0 || c.err != nil {
		c.tb.Errorf("natlab: the capture at %s is incomplete (full %t, lost %d, error %v): it proves nothing",
			c.name, c.full, c.lost, c.err)
	}
	return false
}

// Count returns how many packets and bytes, with link headers, were recorded so far. A
// test that looks for the absence of something should check that there was anything.
func (c *Capture) Count() (packets, octets int) {
	c.settle()
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.starts), len(c.frames)
}

// flow is one direction of a TCP connection: addresses and ports as in the headers.
type flow [12]byte

// stream is the payload of a flow, in the order of arrival without what was sent twice.
type stream struct {
	started bool
	next    uint32 // the sequence number after the last byte of data
	data    []byte
}

// add appends a segment. After a hole it appends all the same: each piece on its own is
// still searched as a packet.
func (s *stream) add(seq uint32, payload []byte) {
	if s.started {
		if old := s.next - seq; old < 1<<31 { // overlaps by old bytes, modulo 2^32
			if int(old) >= len(payload) {
				return
			}
			payload = payload[old:]
			seq += old
		}
	}
	s.started = true
	s.data = append(s.data, payload...)
	s.next = seq + uint32(len(payload))
}

// tcpSegment takes a frame apart: Ethernet, IPv4 (RFC 791), TCP (RFC 9293).
func tcpSegment(frame []byte) (key flow, seq uint32, payload []byte, ok bool) {
	const ethernet, minIPv4, minTCP = 14, 20, 20
	if len(frame) < ethernet+minIPv4 || binary.BigEndian.Uint16(frame[12:]) != unix.ETH_P_IP {
		return key, 0, nil, false
	}
	ip := frame[ethernet:]
	header, total := int(ip[0]&0x0f)*4, int(binary.BigEndian.Uint16(ip[2:]))
	if ip[9] != unix.IPPROTO_TCP || header < minIPv4 || total < header+minTCP || total > len(ip) {
		return key, 0, nil, false
	}
	tcp := ip[header:total]
	offset := int(tcp[12]>>4) * 4
	if offset < minTCP || offset >= len(tcp) {
		return key, 0, nil, false
	}
	copy(key[:8], ip[12:20])
	copy(key[8:], tcp[:4])
	return key, binary.BigEndian.Uint32(tcp[4:]), tcp[offset:], true
}
