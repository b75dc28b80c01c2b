package relay

import (
	"bytes"
	"context"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	pbv2 "github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/pb"
	ma "github.com/multiformats/go-multiaddr"

	"github.com/starling-chat/starling/chat/wire"
)

// circuitTo connects a host to another one over the relay.
func (w *world) circuitTo(t *testing.T, from, to host.Host) error {
	t.Helper()
	way, err := ma.NewMultiaddr("/p2p/" + w.id.String() + "/p2p-circuit")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(network.WithAllowLimitedConn(t.Context(), "test"), 10*time.Second)
	defer cancel()
	return from.Connect(ctx, peer.AddrInfo{ID: to.ID(), Addrs: []ma.Multiaddr{way}})
}

// A peer has as many circuits as are configured, whoever opened them.
func TestCircuitsOfOnePeer(t *testing.T) {
	const most = 3
	w := newWorld(t, Config{Circuits: Circuits{PerPeer: most}})
	caller := w.other(t)
	open := 0
	for range most + 2 {
		target := w.other(t)
		if got := w.reserve(t, target); got != pbv2.Status_OK {
			t.Fatalf("reserving: %s", got)
		}
		if w.circuitTo(t, caller, target) == nil {
			open++
		}
	}
	if open != most {
		t.Errorf("%d circuits are open, want %d", open, most)
	}
	if sn := w.server.Snapshot(); sn.Circuits != most {
		t.Errorf("the relay counts %d circuits, want %d", sn.Circuits, most)
	}
}

// pour writes to a stream over a circuit until it breaks or the time is over; it returns what arrived at the
// other end and how long the circuit stood.
func (w *world) pour(t *testing.T, pause time.Duration) (arrived int64, stood time.Duration) {
	t.Helper()
	caller, target := w.other(t), w.other(t)
	if got := w.reserve(t, target); got != pbv2.Status_OK {
		t.Fatalf("reserving: %s", got)
	}
	counted := make(chan int64, 1)
	target.SetStreamHandler("/test/pour", func(st network.Stream) {
		n, _ := io.Copy(io.Discard, st) // ends with the circuit
		counted <- n
	})
	if err := w.circuitTo(t, caller, target); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	ctx, cancel := context.WithTimeout(network.WithAllowLimitedConn(t.Context(), "test"), 30*time.Second)
	defer cancel()
	st, err := caller.NewStream(ctx, target.ID(), "/test/pour")
	if err != nil {
		t.Fatal(err)
	}
	if err := st.SetDeadline(began.Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	piece := make([]byte, 4<<10)
	tick := time.NewTicker(max(pause, time.Microsecond))
	defer tick.Stop()
	for {
		if _, err := st.Write(piece); err != nil {
			break
		}
		if pause > 0 {
			<-tick.C
		}
	}
	stood = time.Since(began)
	_ = st.Reset()
	select {
	case arrived = <-counted:
	case <-time.After(10 * time.Second):
		t.Fatal("the circuit stands at the other end")
	}
	return arrived, stood
}

// A circuit carries as many bytes as are configured, encryption and framing included, and ends.
func TestBytesOfOneCircuit(t *testing.T) {
	const most = 1 << 20
	w := newWorld(t, Config{Circuits: Circuits{Bytes: most, CircuitRate: 100 << 20, PeerRate: 100 << 20, Rate: 100 << 20}})
	arrived, _ := w.pour(t, 0)
	if arrived > most {
		t.Errorf("%d bytes arrived, the circuit was to end after %d", arrived, most)
	}
	// What was carried last dies with the circuit, so the relay's own count tells.
	aTenth(t, "bytes of a circuit", float64(w.server.counts.circuitBytes.Load()), most)
}

// A circuit stands for as long as is configured.
func TestDurationOfOneCircuit(t *testing.T) {
	const longest = 2 * time.Second
	w := newWorld(t, Config{Circuits: Circuits{Duration: longest}})
	_, stood := w.pour(t, 20*time.Millisecond)
	if stood < longest*9/10 || stood > longest+2*time.Second {
		t.Errorf("the circuit stood for %s, want %s", stood, longest)
	}
}

// A cap on a month's bytes counts over the days, and the next month begins anew.
func TestMonthlyCap(t *testing.T) {
	now := time.Date(2030, 1, 30, 12, 0, 0, 0, time.UTC)
	var sent int64
	m := newMeter(Circuits{Daily: 1000, Monthly: 1500}, func() int64 { return sent }, nil, func() time.Time { return now })
	look := func() string {
		m.checked = time.Time{}
		return m.exceeded()
	}
	sent = 900
	if over := look(); over != "" {
		t.Errorf("under both caps: %q", over)
	}
	now = now.Add(24 * time.Hour)
	sent = 1499
	if over := look(); over != "" {
		t.Errorf("the next day, one byte under the month's cap: %q", over)
	}
	sent = 1500
	if look() == "" {
		t.Error("at the month's cap it goes on")
	}
	now = now.Add(24 * time.Hour)
	if over := look(); over != "" {
		t.Errorf("the next month: %q", over)
	}
}

// A relay forwards so many rooms in all, for so many clients, and says which of its limits it is.
func TestTotals(t *testing.T) {
	t.Run("rooms", func(t *testing.T) {
		w := newWorld(t, Config{Topics: 2})
		rooms := []*wire.RoomKeys{room("a"), room("b"), room("c")}
		slices.SortFunc(rooms, func(a, b *wire.RoomKeys) int { return bytes.Compare(a.Topic[:], b.Topic[:]) })
		got := w.attach(wire.WantForward, time.Minute, rooms...)
		codes := map[wire.RelayCode]int{}
		for _, g := range got.Grants {
			codes[g.Code]++
		}
		if codes[wire.RelayOK] != 2 || codes[wire.RelayFull] != 1 || got.Detail == "" {
			t.Errorf("answered %+v", got)
		}
		if sn := w.server.Snapshot(); sn.Topics != 2 {
			t.Errorf("%d topics are forwarded", sn.Topics)
		}
	})
	t.Run("clients", func(t *testing.T) {
		w := newWorld(t, Config{Clients: 1})
		if got := w.attach(wire.WantForward, time.Minute, room("a")); got.Grants[0].Code != wire.RelayOK {
			t.Fatalf("the first was answered %+v", got)
		}
		// Another client of the same relay.
		w.clients, w.client = newHost(t)
		if err := w.clients.Connect(t.Context(), peer.AddrInfo{ID: w.id, Addrs: w.server.host.Addrs()}); err != nil {
			t.Fatal(err)
		}
		w.stream = nil
		if got := w.attach(wire.WantForward, time.Minute, room("a")); got.Grants[0].Code != wire.RelayFull || got.Detail == "" {
			t.Errorf("the second was answered %+v", got)
		}
	})
}
