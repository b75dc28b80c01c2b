package chat_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/chattest"
)

// split checks whether a node sees a room in several islands.
func split(t *testing.T, nd *chattest.Node, room chat.Target, want int) func() error {
	return func() error {
		c, err := nd.Service().Conversation(t.Context(), room)
		if err != nil {
			return err
		}
		got := 0
		if c.Split != nil {
			got = len(c.Split.Nicks)
		}
		if got != want {
			return fmt.Errorf("%s sees %d members in another island, want %d", nd.Name, got, want)
		}
		return nil
	}
}

// TestTwoIslands lets gossip pass within two halves of a room only, with nothing but a mirror or streams
// between them. Both halves notice, each message crosses all the same, and once the halves are joined all
// is well again.
func TestTwoIslands(t *testing.T) {
	for _, how := range []string{"mirror", "streams"} {
		t.Run(how, func(t *testing.T) {
			world(t, 330, []string{"ada", "bob", "cleo", "dan"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
				if how == "mirror" {
					n.Relay()
				}
				room := join(t, "lobby", nodes...)
				for _, nd := range nodes {
					say(t, nd, room, "all together "+nd.Name)
				}
				time.Sleep(5 * time.Minute)
				for _, nd := range nodes {
					if err := split(t, nd, room, 0)(); err != nil {
						t.Error(err)
					}
				}
				if how == "mirror" {
					n.Partition(nodes[:2], nodes[2:])
				} else {
					n.Deafen(nodes[:2], nodes[2:])
				}
				for i := range 60 {
					say(t, nodes[i%4], room, fmt.Sprint("apart ", i))
					time.Sleep(20 * time.Second)
				}
				for _, nd := range nodes {
					if err := split(t, nd, room, 2)(); err != nil {
						t.Error(err)
					}
				}
				if st := nodes[0].Service().Stats(); len(st.Split) != 1 || st.Split[0] != "#lobby" {
					t.Errorf("the node's state says %v", st.Split)
				}
				eventually(t, 11*time.Minute, equalDigests(t, 64, room, nodes...))
				n.Heal()
				n.Deafen()
				say(t, nodes[0], room, "together again")
				say(t, nodes[3], room, "indeed")
				for _, nd := range nodes {
					eventually(t, 20*time.Second, split(t, nd, room, 0))
				}
			})
		})
	}
}

// TestSilenceIsDoubted lets sync streams open and stay silent, as over a relay that was killed. The connection is
// asked as soon as a session has begun, and never while others answer.
func TestSilenceIsDoubted(t *testing.T) {
	world(t, 331, []string{"ada", "bob"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		room := join(t, "lobby", nodes...)
		say(t, nodes[0], room, "heard")
		time.Sleep(time.Hour)
		if got := nodes[0].Probes() + nodes[1].Probes(); got != 0 {
			t.Errorf("connections that work were asked %d times", got)
		}
		n.Silence(true)
		eventually(t, 11*time.Minute, func() error {
			if nodes[0].Probes()+nodes[1].Probes() == 0 {
				return fmt.Errorf("nobody asked")
			}
			return nil
		})
	})
}
