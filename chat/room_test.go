package chat_test

import (
	"testing"
	"time"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/chattest"
)

func TestTwoTalk(t *testing.T) {
	world(t, 1, []string{"ada", "bob"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		n.Set(chattest.Conditions{Delay: 20 * time.Millisecond, Jitter: 10 * time.Millisecond})
		ada, bob := nodes[0], nodes[1]
		room := join(t, "#lobby", ada, bob)
		say(t, ada, room, "hello")
		eventually(t, 5*time.Second, shows(t, bob, room, "hello"))
		say(t, bob, room, "hi ada")
		eventually(t, 5*time.Second, shows(t, ada, room, "hello", "hi ada"))

		got := messages(t, ada, room)
		if m := got[0]; !m.Own || m.Nick != "ada" || m.Target != "#lobby" || m.State != chat.StateSent {
			t.Errorf("ada's own message is shown as %+v", m)
		}
		if m := got[1]; m.Own || m.Nick != "bob" || m.State != chat.StateReceived || m.Account != bob.Account() {
			t.Errorf("bob's message is shown as %+v", m)
		}
		members, err := ada.Service().Members(t.Context(), room)
		if err != nil || len(members) != 2 || !members[0].Online || !members[1].Online {
			t.Errorf("ada sees the members %+v, error %v", members, err)
		}
	})
}
