package chat_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/starling-chat/starling/chat/chattest"
)

func TestAwayMemberGetsEverythingFromTheMirror(t *testing.T) {
	world(t, 41, []string{"ada", "ben"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada, ben := nodes[0], nodes[1]
		relay := n.Relay()
		room := join(t, "garden", ada, ben)
		say(t, ben, room, "I go now")
		time.Sleep(10 * time.Second)
		ben.Stop()
		// A third of it does not reach the mirror by gossip: it fetches the rest from ada.
		n.Set(chattest.Conditions{Loss: 0.3})
		want := []string{"I go now"}
		count := 400
		if testing.Short() {
			count = 60
		}
		for i := range count {
			want = append(want, fmt.Sprintf("message %d", i))
			say(t, ada, room, want[len(want)-1])
		}
		time.Sleep(12 * time.Minute)
		ada.Stop()
		ben.Start()
		eventually(t, time.Minute, shows(t, ben, room, want...))
		if relay.Count().Sessions == 0 {
			t.Error("nobody asked the mirror")
		}
	})
}

func TestMembersMeetAtTheMirrorOnly(t *testing.T) {
	world(t, 42, []string{"ada", "ben"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada, ben := nodes[0], nodes[1]
		n.Partition([]*chattest.Node{ada}, []*chattest.Node{ben}) // they never see each other
		room := join(t, "garden", ada, ben)
		say(t, ada, room, "one")
		time.Sleep(time.Minute)
		n.Relay() // a mirror that appears is asked at once
		eventually(t, 40*time.Second, shows(t, ben, room, "one"))
		say(t, ben, room, "two")
		eventually(t, 15*time.Minute, shows(t, ada, room, "one", "two"))
	})
}

func TestAMirrorThatWentAwayIsAskedAgain(t *testing.T) {
	world(t, 43, []string{"ada", "ben"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada, ben := nodes[0], nodes[1]
		relay := n.Relay()
		room := join(t, "garden", ada, ben)
		ben.Stop()
		relay.Set(false)
		say(t, ada, room, "while the mirror is down")
		time.Sleep(time.Minute)
		relay.Set(true)
		time.Sleep(time.Minute)
		ada.Stop()
		ben.Start()
		eventually(t, time.Minute, shows(t, ben, room, "while the mirror is down"))
	})
}

func TestARelayThatWasNotChosenIsNotAsked(t *testing.T) {
	world(t, 44, []string{"ada"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada := nodes[0]
		relay := n.Relay()
		join(t, "garden", ada)
		before := relay.Count().Sessions
		ada.Config.Relays = nil
		ada.Stop()
		ada.Start()
		time.Sleep(10 * time.Minute)
		if got := relay.Count().Sessions; got != before {
			t.Fatalf("%d sessions with a relay that was not chosen", got-before)
		}
	})
}
