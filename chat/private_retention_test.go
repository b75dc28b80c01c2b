package chat_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/chattest"
	"github.com/starling-chat/starling/storage"
)

// TestRetentionOfAPrivateRoom removes old messages of a private room from one member's device, the lines about
// its membership among them. Who is in it, and who may do what, stays as it was, across a restart too.
func TestRetentionOfAPrivateRoom(t *testing.T) {
	world(t, 312, []string{"ada", "bob", "cleo", "dan"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada, bob, cleo, dan := nodes[0], nodes[1], nodes[2], nodes[3]
		room := create(t, "all", ada, bob, cleo, dan)
		admit(t, ada, room, bob, cleo)
		setRole(t, ada, room, bob, "admin")
		say(t, ada, room, "the very first")
		for i := range 300 {
			say(t, nodes[i%3], room, fmt.Sprint("message ", i))
			time.Sleep(2 * time.Minute)
		}
		svc := bob.Service()
		if err := svc.SetRetention(t.Context(), room, &chat.Retention{Count: 100}); err != nil {
			t.Fatal(err)
		}
		keeps := func() {
			t.Helper()
			if got := texts(t, bob, room); len(got) < 90 || len(got) > 100 || got[len(got)-1] != "message 299" {
				t.Errorf("%d messages are kept, the last is %q", len(got), got[len(got)-1])
			}
			noText(t, bob, "the very first")
		}
		keeps()
		for kv, err := range bob.Store.ScanBucket(t.Context(), "topics", nil) {
			if err != nil {
				t.Fatal(err)
			}
			if has, err := bob.Store.Has(t.Context(), []storage.ID{storage.ID(kv.Key[8:])}); err != nil || !has[0] {
				t.Fatalf("something is kept about a record that is gone, %v", err)
			}
		}
		time.Sleep(20 * time.Minute) // nothing comes back by sync
		keeps()
		bob.Stop()
		bob.Start()
		time.Sleep(12 * time.Minute)
		keeps()
		// An admin lets somebody in and another one go.
		accept(t, dan, link(t, bob, room, true).Link)
		eventually(t, time.Minute, all(stands(t, dan, room, chat.MembershipMember, 4), stands(t, bob, room, chat.MembershipMember, 4)))
		remove(t, bob, room, cleo)
		eventually(t, time.Minute, all(stands(t, ada, room, chat.MembershipMember, 3), stands(t, dan, room, chat.MembershipMember, 3)))
		say(t, dan, room, "new here")
		eventually(t, time.Minute, func() error {
			for _, nd := range []*chattest.Node{ada, bob} {
				if got := texts(t, nd, room); got[len(got)-1] != "new here" {
					return fmt.Errorf("%s sees %q last", nd.Name, got[len(got)-1])
				}
			}
			return nil
		})
		if got := texts(t, ada, room); len(got) != 302 {
			t.Errorf("ada keeps %d messages, want all 302", len(got))
		}
	})
}

// TestRemovalOlderThanWhatIsKept has an admin remove somebody while apart. The others hear of it only when one of
// them keeps nothing from that time any more: it counts all the same.
func TestRemovalOlderThanWhatIsKept(t *testing.T) {
	world(t, 313, []string{"ada", "bob", "cleo", "dan"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada, bob, cleo, dan := nodes[0], nodes[1], nodes[2], nodes[3]
		room := create(t, "all", nodes[0], nodes[1:]...)
		admit(t, ada, room, bob, cleo, dan)
		setRole(t, ada, room, cleo, "admin")
		eventually(t, time.Minute, func() error {
			c, err := cleo.Service().Conversation(t.Context(), room)
			if err == nil && c.Role != "admin" {
				err = fmt.Errorf("cleo is %s", c.Role)
			}
			return err
		})
		n.Partition([]*chattest.Node{cleo}, []*chattest.Node{ada, bob, dan})
		time.Sleep(time.Minute)
		remove(t, cleo, room, dan)
		for i := range 150 {
			say(t, nodes[i%2], room, fmt.Sprint("message ", i))
			time.Sleep(2 * time.Minute)
		}
		if err := bob.Service().SetRetention(t.Context(), room, &chat.Retention{Count: 100}); err != nil {
			t.Fatal(err)
		}
		n.Heal()
		for _, nd := range []*chattest.Node{ada, bob, cleo} {
			eventually(t, 10*time.Minute, stands(t, nd, room, chat.MembershipMember, 3))
		}
	})
}
