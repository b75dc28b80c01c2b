package nodetest

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-chat/starling/chat"
)

// everybodyHas waits until each node shows all texts, each once.
func everybodyHas(t *testing.T, n *Network, nodes []*Node, rooms []chat.Target, want []string, within time.Duration) time.Duration {
	t.Helper()
	slices.Sort(want)
	return n.Eventually(within, "everybody shows everything", func() bool {
		for i, l := range nodes {
			got := l.Texts(rooms[i])
			slices.Sort(got)
			if !slices.Equal(got, want) {
				return false
			}
		}
		return true
	})
}

func joinAll(nodes []*Node, room string) []chat.Target {
	out := make([]chat.Target, len(nodes))
	for i, l := range nodes {
		out[i] = l.Join(room)
	}
	return out
}

// Two, five and twenty nodes talk in a room and by direct message, on a local network and through a
// relay alone, with and without loss.
func TestNodesTalk(t *testing.T) {
	for _, c := range []struct {
		name   string
		opts   Options
		each   int // messages of each node
		within time.Duration
	}{
		{"two on a local network", Options{Nodes: 2, LAN: true}, 20, 10 * time.Second},
		{"two through a relay", Options{Nodes: 2, Relays: 1}, 20, 10 * time.Second},
		{"five through two relays with loss", Options{Nodes: 5, Relays: 2, Loss: 0.02}, 5, 20 * time.Second},
		{"five find each other in the DHT", Options{Nodes: 5, Relays: 1, DHT: true}, 5, 20 * time.Second},
		{"twenty through a relay", Options{Nodes: 20, Relays: 1}, 2, 20 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			if testing.Short() && c.opts.Nodes > 5 {
				t.Skip("twenty nodes are too slow for -short")
			}
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				n := Start(t, c.opts)
				rooms := joinAll(n.Nodes, "lobby")
				time.Sleep(3 * time.Second)
				var want []string
				for j := range c.each {
					for i, l := range n.Nodes {
						text := fmt.Sprintf("%d says %d", i, j)
						l.Say(rooms[i], text)
						want = append(want, text)
					}
				}
				took := everybodyHas(t, n, n.Nodes, rooms, want, c.within)
				a, b := n.Nodes[0], n.Nodes[len(n.Nodes)-1]
				Befriend(a, b)
				for i := range 5 {
					a.Say(b.Account(), fmt.Sprintf("private %d", i))
				}
				n.Eventually(c.within, "direct messages arrive in order", func() bool {
					return slices.Equal(b.Texts(a.Account()), []string{"private 0", "private 1", "private 2", "private 3", "private 4"})
				})
				t.Logf("%d messages at %d nodes %s after the last was sent; virtual time %s", len(want), len(n.Nodes), took, time.Since(began))
				n.Stop()
			})
		})
	}
}

// A node that stops and comes back takes part again, and two relays lose nothing when one dies.
func TestChurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := Start(t, Options{Nodes: 4, Relays: 2})
		rooms := joinAll(n.Nodes, "lobby")
		time.Sleep(3 * time.Second)
		n.Nodes[0].Say(rooms[0], "one")
		everybodyHas(t, n, n.Nodes, rooms, []string{"one"}, 10*time.Second)

		n.Relays[0].Stop()
		n.Nodes[1].Say(rooms[1], "two")
		everybodyHas(t, n, n.Nodes, rooms, []string{"one", "two"}, 30*time.Second)

		n.Nodes[3].Stop()
		n.Nodes[2].Say(rooms[2], "three")
		everybodyHas(t, n, n.Nodes[:3], rooms[:3], []string{"one", "two", "three"}, 30*time.Second)
		n.Nodes[3].Start()
		rooms[3] = n.Nodes[3].Join("lobby")
		time.Sleep(3 * time.Second)
		n.Nodes[3].Say(rooms[3], "four")
		everybodyHas(t, n, n.Nodes[:3], rooms[:3], []string{"one", "two", "three", "four"}, 30*time.Second)
		n.Stop()
	})
}

// After the only relay restarts, all of its clients are back within a minute and a half, and nobody is turned
// away because all come at once.
func TestRelayRestartBringsAllBack(t *testing.T) {
	clients := 24
	if os.Getenv("STARLING_FULL") != "" {
		clients = 200
	}
	synctest.Test(t, func(t *testing.T) {
		n := Start(t, Options{Nodes: clients, Relays: 1})
		rooms := joinAll(n.Nodes, "lobby")
		attached := func(want bool) func() bool {
			return func() bool {
				for _, l := range n.Nodes {
					st, err := l.Status(t.Context())
					if err != nil || len(st.Relays) != 1 || st.Relays[0].Connected != want || (st.Relays[0].Topics > 0) != want {
						return false
					}
				}
				return true
			}
		}
		n.Eventually(time.Minute, "everybody is attached", attached(true))
		n.Relays[0].Stop()
		n.Eventually(time.Minute, "everybody has noticed", attached(false))
		n.Relays[0].Start()
		took := n.Eventually(90*time.Second, "everybody is attached again", attached(true))
		t.Logf("%d clients are back after %s", clients, took)
		n.Nodes[0].Say(rooms[0], "back")
		everybodyHas(t, n, n.Nodes, rooms, []string{"back"}, 10*time.Second)
		n.Stop()
	})
}

// After a partition heals, what is said reaches everybody again.
func TestPartitionHeals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := Start(t, Options{Nodes: 4, LAN: true})
		rooms := joinAll(n.Nodes, "lobby")
		time.Sleep(3 * time.Second)
		n.Split(n.Nodes[:2], n.Nodes[2:])
		time.Sleep(time.Minute)
		n.Nodes[0].Say(rooms[0], "left")
		n.Nodes[3].Say(rooms[3], "right")
		everybodyHas(t, n, n.Nodes[:2], rooms[:2], []string{"left"}, 10*time.Second)
		everybodyHas(t, n, n.Nodes[2:], rooms[2:], []string{"right"}, 10*time.Second)
		n.Heal()
		n.Eventually(5*time.Minute, "the parts are connected again", func() bool {
			st, err := n.Nodes[0].Status(t.Context())
			return err == nil && st.Peers.Total == 3
		})
		n.Nodes[1].Say(rooms[1], "whole")
		n.Eventually(30*time.Second, "the other part hears again", func() bool {
			return slices.Contains(n.Nodes[3].Texts(rooms[3]), "whole")
		})
		n.Stop()
	})
}

// The same seed gives the same nodes, and the same result to a few milliseconds.
func TestSameSeedSameResult(t *testing.T) {
	type result struct {
		ids  []string
		took time.Duration
	}
	run := func(seed uint64) (r result) {
		synctest.Test(t, func(t *testing.T) {
			n := Start(t, Options{Nodes: 3, Relays: 1, Seed: seed, Loss: 0.05})
			rooms := joinAll(n.Nodes, "lobby")
			time.Sleep(3 * time.Second)
			var want []string
			for i, l := range n.Nodes {
				r.ids = append(r.ids, l.PeerID())
				want = append(want, fmt.Sprint(i))
				l.Say(rooms[i], fmt.Sprint(i))
			}
			r.took = everybodyHas(t, n, n.Nodes, rooms, want, 20*time.Second)
			n.Stop()
		})
		return r
	}
	a, b, other := run(7), run(7), run(8)
	if !slices.Equal(a.ids, b.ids) || slices.Equal(a.ids, other.ids) {
		t.Errorf("ids %v, %v and with another seed %v", a.ids, b.ids, other.ids)
	}
	if d := (a.took - b.took).Abs(); d > 500*time.Millisecond {
		t.Errorf("took %s and %s", a.took, b.took)
	}
}

// A running node makes old session states unreadable every hour, and on demand.
func TestEpochsAreRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := Start(t, Options{Nodes: 2, LAN: true, Durable: true})
		a, b := n.Nodes[0], n.Nodes[1]
		Befriend(a, b)
		for hour := range 2 {
			text := fmt.Sprintf("private %d", hour)
			a.Say(b.Account(), text)
			n.Eventually(10*time.Second, "a direct message arrives", func() bool {
				return slices.Contains(b.Texts(a.Account()), text)
			})
			before := a.store.State().Epoch
			time.Sleep(time.Hour + time.Minute)
			if now := a.store.State().Epoch; now == before {
				t.Errorf("hour %d: the epoch key is still number %d", hour, now)
			}
		}
		n.Stop()
	})
}
