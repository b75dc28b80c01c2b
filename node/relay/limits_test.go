package relay

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	circuit "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	pbv2 "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	ma "github.com/multiformats/go-multiaddr"

	roomsync "github.com/starling-chat/starling/chat/sync"
	"github.com/starling-chat/starling/chat/wire"
)

// aTenth fails unless got is want, give or take a tenth.
func aTenth(t *testing.T, what string, got, want float64) {
	t.Helper()
	if got < 0.9*want || got > 1.1*want {
		t.Errorf("%s: %.0f, want %.0f within a tenth", what, got, want)
	}
}

// A topic's events and bytes are what the configuration says, and a burst is ten seconds of them.
func TestTopicRatesAreExact(t *testing.T) {
	for _, tc := range []struct {
		name   string
		size   int
		perSec float64
	}{
		{"events", 100, 200},
		{"bytes", 64 << 10, 32}, // 2 MiB a second
	} {
		synctest.Test(t, func(t *testing.T) {
			var cfg Config
			cfg.Fill()
			b := newBucket(cfg)
			offer := func(d time.Duration) (admitted int) {
				const step = 500 * time.Microsecond
				for range d / step {
					time.Sleep(step)
					if b.take(time.Now(), tc.size) {
						admitted++
					}
				}
				return admitted
			}
			burst := 0
			for b.take(time.Now(), tc.size) {
				burst++
			}
			aTenth(t, tc.name+" at once", float64(burst), burstSeconds*tc.perSec)
			aTenth(t, tc.name+" in a minute", float64(offer(time.Minute)), 60*tc.perSec)
		})
	}
}

// quiet is a stream that always has something to read.
type quiet struct {
	network.Stream
	closed bool
}

func (q *quiet) Read(b []byte) (int, error) {
	if q.closed {
		return 0, io.EOF
	}
	return len(b), nil
}

func (q *quiet) Reset() error {
	q.closed = true
	return nil
}

// One circuit, the circuits of one peer, and all of them together run at their rates.
func TestCircuitRatesAreExact(t *testing.T) {
	for _, tc := range []struct {
		name    string
		streams int
		peers   int
		want    float64 // bytes a second, all together
	}{
		{"one circuit", 1, 1, 256 << 10},
		{"four circuits of one peer", 4, 1, 512 << 10},
		{"circuits of twenty peers", 20, 20, 2_500_000},
	} {
		synctest.Test(t, func(t *testing.T) {
			var cfg Config
			cfg.Fill()
			s := &Server{cfg: cfg, shaper: newShaper(cfg.Circuits), meter: newMeter(cfg.Circuits, nil, nil, time.Now)}
			const lasts = 2 * time.Minute
			end := time.Now().Add(lasts)
			carried := make(chan int, tc.streams)
			for i := range tc.streams {
				one, all, release := s.shaper.limits(peer.ID(rune('a' + i%tc.peers)))
				st := &shapedStream{Stream: &quiet{}, server: s, limits: append(all, one), release: release}
				go func() { // ends with the time
					sum, buf := 0, make([]byte, circuitBuffer)
					for time.Now().Before(end) {
						n, err := st.Read(buf)
						sum += n
						if err != nil {
							break
						}
					}
					carried <- sum
				}()
			}
			sum := 0
			for range tc.streams {
				sum += <-carried
			}
			aTenth(t, tc.name, float64(sum)/lasts.Seconds(), tc.want)
		})
	}
}

// A cap on a day's bytes ends grants and circuits when it is reached, and the next day begins anew.
func TestDailyCap(t *testing.T) {
	now := time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)
	var sent int64
	m := newMeter(Circuits{Daily: 1000}, func() int64 { return sent }, nil, func() time.Time { return now })
	look := func() string {
		m.checked = time.Time{}
		return m.exceeded()
	}
	sent = 999
	if over := look(); over != "" {
		t.Errorf("one byte under the cap: %q", over)
	}
	sent = 1000
	if look() == "" {
		t.Error("at the cap it goes on")
	}
	now = now.Add(12 * time.Hour)
	if over := look(); over != "" {
		t.Errorf("the next day: %q", over)
	}
}

func (w *world) other(t *testing.T) host.Host {
	t.Helper()
	h, err := libp2p.New(libp2p.NoListenAddrs, libp2p.EnableRelay(), libp2p.DisableMetrics())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	if err := h.Connect(t.Context(), peer.AddrInfo{ID: w.id, Addrs: w.server.host.Addrs()}); err != nil {
		t.Fatal(err)
	}
	return h
}

// reserve asks for a place and returns the status; the service starts with the server, which nothing announces.
func (w *world) reserve(t *testing.T, h host.Host) pbv2.Status {
	t.Helper()
	for range 500 {
		_, err := circuit.Reserve(t.Context(), h, peer.AddrInfo{ID: w.id})
		var refused circuit.ReservationError
		switch {
		case err == nil:
			return pbv2.Status_OK
		case errors.As(err, &refused) && refused.Status != pbv2.Status_CONNECTION_FAILED:
			return refused.Status
		}
	}
	t.Fatal("the relay answers no reservation")
	return 0
}

// As many places are given as are configured, to one address no more than its share.
func TestReservationsAreCounted(t *testing.T) {
	for _, tc := range []struct {
		name     string
		circuits Circuits
		want     int
	}{
		{"in all", Circuits{Reservations: 4}, 4},
		{"to one address", Circuits{PerIP: 3}, 3},
	} {
		w := newWorld(t, Config{Circuits: tc.circuits})
		got := 0
		for range tc.want + 3 {
			if w.reserve(t, w.other(t)) == pbv2.Status_OK {
				got++
			}
		}
		if got != tc.want {
			t.Errorf("%s: %d places were given, want %d", tc.name, got, tc.want)
		}
	}
}

// A relay connects nobody to anybody who did not ask for it: it is no way into a network.
func TestNoOpenProxy(t *testing.T) {
	w := newWorld(t, Config{})
	a, target := w.other(t), w.other(t) // connected, without a place
	if got := w.reserve(t, a); got != pbv2.Status_OK {
		t.Fatalf("reserving: %s", got)
	}
	way, err := ma.NewMultiaddr("/p2p/" + w.id.String() + "/p2p-circuit")
	if err != nil {
		t.Fatal(err)
	}
	outside, _ := newHost(t) // listens, and the relay knows nothing of it
	for name, to := range map[string]host.Host{"a client without a place": target, "a machine outside": outside} {
		ctx, cancel := context.WithTimeout(network.WithAllowLimitedConn(t.Context(), "test"), 5*time.Second)
		err := a.Connect(ctx, peer.AddrInfo{ID: to.ID(), Addrs: []ma.Multiaddr{way}})
		cancel()
		if err == nil || len(to.Network().ConnsToPeer(a.ID())) != 0 {
			t.Errorf("%s was reached over the relay: %v", name, err)
		}
	}
	if sn := w.server.Snapshot(); sn.Circuits != 0 {
		t.Errorf("%d circuits are open", sn.Circuits)
	}
}

// Garbage on any of its protocols ends the stream and nothing else.
func TestMalformedFrames(t *testing.T) {
	w := newWorld(t, Config{})
	k := room("a")
	w.attach(wire.WantMirror, time.Minute, k)
	noise := make([]byte, 512)
	if _, err := rand.Read(noise); err != nil {
		t.Fatal(err)
	}
	for _, proto := range []string{string(wire.RelayProtocol), string(wire.MailboxProtocol), string(roomsync.Protocol)} {
		for name, frame := range map[string][]byte{
			"an empty frame":        {0, 0, 0, 0},
			"a frame that is huge":  {0xff, 0xff, 0xff, 0xff, 1},
			"a kind nobody knows":   {0, 0, 0, 2, 0xee, 1},
			"noise":                 append([]byte{0, 0, 2, 0}, noise...),
			"a frame cut short":     {0, 0, 1, 0, 1, 2, 3},
			"noise without a frame": noise,
		} {
			st := w.dial(proto)
			if err := st.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := st.Write(frame); err != nil {
				t.Fatal(err)
			}
			_ = st.CloseWrite()
			if _, err := io.Copy(io.Discard, io.LimitReader(st, 1<<20)); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s on %s: the relay waits on", name, proto)
			}
			_ = st.Reset()
		}
	}
	w.stream = nil
	if got := w.attach(wire.WantForward, time.Minute, room("b")); got.Code != wire.RelayOK {
		t.Errorf("after all that the relay answers %+v", got)
	}
}
