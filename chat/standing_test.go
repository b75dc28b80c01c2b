package chat_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/chattest"
)

// standsAt checks how far an own message has come.
func standsAt(t *testing.T, nd *chattest.Node, id chat.MessageID, want chat.State) func() error {
	return func() error {
		m, err := nd.Service().Message(t.Context(), id)
		if err == nil && m.State != want {
			err = fmt.Errorf("%s's message is %q, want %q", nd.Name, m.State, want)
		}
		return err
	}
}

func TestNobodyThereIsNotSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := chattest.New(t, 301)
		ada, bob := n.Node("ada"), n.Node("bob")
		ada.Start()
		defer ada.Stop()
		room := join(t, "lobby", ada)
		sub := ada.Service().Events(0)
		defer sub.Close()
		m := say(t, ada, room, "is anybody here?")
		eventually(t, 3*time.Second, standsAt(t, ada, m.ID, chat.StateQueued))
		if got, _ := ada.Service().Message(t.Context(), m.ID); got.Reason == "" {
			t.Error("a queued message does not say why")
		}
		told := false
		for ctx := within(t, time.Second); !told; {
			e, err := sub.Next(ctx)
			if err != nil {
				t.Fatal("nobody was told that the message waits")
			}
			told = e.Message != nil && e.Message.ID == m.ID && e.Message.State == chat.StateQueued
		}
		if _, err := ada.Service().WaitState(within(t, time.Minute), m.ID, chat.StateSent); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waiting alone for sent ends with %v", err)
		}
		bob.Start()
		defer bob.Stop()
		join(t, "lobby", bob)
		eventually(t, 10*time.Second, standsAt(t, ada, m.ID, chat.StateStored))
		eventually(t, 10*time.Second, shows(t, bob, room, "is anybody here?"))
	})
}

// TestManyWordsToNobody leaves all but the newest of what was said alone to sync, so that who comes does not
// get it twice; all of it is said to be stored once it is.
func TestManyWordsToNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := chattest.New(t, 302)
		ada, bob := n.Node("ada"), n.Node("bob")
		ada.Start()
		defer ada.Stop()
		room := join(t, "lobby", ada)
		time.Sleep(time.Minute) // no newcomer any more
		var ids []chat.MessageID
		for i := range 300 {
			ids = append(ids, say(t, ada, room, fmt.Sprint("to nobody ", i)).ID)
		}
		time.Sleep(10 * time.Second)
		for _, id := range ids {
			if err := standsAt(t, ada, id, chat.StateQueued)(); err != nil {
				t.Fatal(err)
			}
		}
		ada.Stop()
		ada.Start()
		time.Sleep(5 * time.Second)
		for _, id := range ids {
			if err := standsAt(t, ada, id, chat.StateQueued)(); err != nil {
				t.Fatalf("after a restart: %v", err)
			}
		}
		before := n.Count().Published
		bob.Start()
		defer bob.Stop()
		join(t, "lobby", bob)
		eventually(t, 30*time.Second, func() error {
			for _, id := range ids {
				if err := standsAt(t, ada, id, chat.StateStored)(); err != nil {
					return err
				}
			}
			return nil
		})
		if got := n.Count().Published - before; got > 80 {
			t.Errorf("%d events were published once somebody came, want at most 64 and bob's own", got)
		}
	})
}

func TestStoredWithTheMirror(t *testing.T) {
	world(t, 303, []string{"ada"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada := nodes[0]
		relay := n.Relay()
		room := join(t, "garden", ada)
		time.Sleep(time.Minute)
		n.Set(chattest.Conditions{Loss: 1}) // the mirror hears nothing by gossip
		m := say(t, ada, room, "keep this")
		time.Sleep(3 * time.Second)
		if err := standsAt(t, ada, m.ID, chat.StateSent)(); err != nil {
			t.Error(err) // it was given to a neighbour, and that is all that is known
		}
		eventually(t, 2*time.Minute, standsAt(t, ada, m.ID, chat.StateStored))
		if relay.Count().Sessions == 0 {
			t.Error("nobody asked the mirror")
		}
	})
}

func TestReadInASmallRoom(t *testing.T) {
	world(t, 304, []string{"ada", "bob", "cleo"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada, bob, cleo := nodes[0], nodes[1], nodes[2]
		room := join(t, "lobby", nodes...)
		m := say(t, ada, room, "read me")
		eventually(t, 5*time.Second, standsAt(t, ada, m.ID, chat.StateStored))
		read := func(nd *chattest.Node) {
			t.Helper()
			c, err := nd.Service().Conversation(t.Context(), room)
			if err != nil {
				t.Fatal(err)
			}
			if err := nd.Service().MarkRead(t.Context(), room, c.LastSeq); err != nil {
				t.Fatal(err)
			}
		}
		if err := cleo.Service().SetSetting(t.Context(), "receipts", "off"); err != nil {
			t.Fatal(err)
		}
		read(cleo)
		time.Sleep(5 * time.Second)
		if err := standsAt(t, ada, m.ID, chat.StateStored)(); err != nil {
			t.Errorf("who keeps it to herself: %v", err)
		}
		read(bob)
		eventually(t, 5*time.Second, standsAt(t, ada, m.ID, chat.StateRead))
		if got, _ := ada.Service().Message(t.Context(), m.ID); got.ReadBy != 1 {
			t.Errorf("read by %d, want 1", got.ReadBy)
		}
		ada.Stop()
		ada.Start()
		if err := standsAt(t, ada, m.ID, chat.StateRead)(); err != nil {
			t.Errorf("after a restart: %v", err)
		}
	})
}

// TestABlockedAuthorIsNotHeld: whoever refuses an author's words keeps only their ids, and does not sign.
func TestABlockedAuthorIsNotHeld(t *testing.T) {
	world(t, 305, []string{"ada", "bob"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada, bob := nodes[0], nodes[1]
		room := join(t, "lobby", nodes...)
		say(t, ada, room, "hello")
		time.Sleep(2 * time.Second)
		if _, err := bob.Service().SetContact(t.Context(), "@ada", chat.ContactBlock, ""); err != nil {
			t.Fatal(err)
		}
		m := say(t, ada, room, "are you cross?")
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if err := standsAt(t, ada, m.ID, chat.StateSent)(); err != nil {
			t.Error(err)
		}
	})
}

// TestHeadsDiffer loses the last message of a conversation for one member. Nobody says anything that would show
// the hole; its author sees that the member does not sign for it, and syncs long before the next look around.
func TestHeadsDiffer(t *testing.T) {
	world(t, 304, []string{"ada", "bob"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		room := join(t, "lobby", nodes...)
		time.Sleep(30 * time.Second)
		first := say(t, nodes[0], room, "first")
		time.Sleep(10 * time.Second)
		if err := standsAt(t, nodes[0], first.ID, chat.StateStored)(); err != nil {
			t.Fatal(err)
		}
		n.Set(chattest.Conditions{Loss: 1})
		last := say(t, nodes[0], room, "last")
		time.Sleep(time.Second)
		n.Set(chattest.Conditions{})
		eventually(t, time.Minute, shows(t, nodes[1], room, "first", "last"))
		eventually(t, 5*time.Second, standsAt(t, nodes[0], last.ID, chat.StateStored))
	})
}
