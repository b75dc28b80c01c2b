package chat_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/chattest"
)

// friends lets two nodes write to each other once, so that each holds the other's keys and knows where
// the other's mailboxes are.
func friends(t *testing.T, a, b *chattest.Node) (toB, toA chat.Target) {
	t.Helper()
	accountA, accountB := a.Account(), b.Account()
	toB, toA = chat.Target{Account: &accountB}, chat.Target{Account: &accountA}
	say(t, a, toB, "hello")
	eventually(t, time.Minute, shows(t, b, toA, "hello"))
	say(t, b, toA, "hello yourself")
	eventually(t, time.Minute, shows(t, a, toB, "hello", "hello yourself"))
	time.Sleep(10 * time.Second)
	return toB, toA
}

// state checks how far a message came.
func state(t *testing.T, nd *chattest.Node, id chat.MessageID, want chat.State) func() error {
	return func() error {
		m, err := nd.Service().Message(t.Context(), id)
		if err != nil {
			return err
		}
		if m.State != want {
			return fmt.Errorf("message is %q (%s), want %q", m.State, m.Reason, want)
		}
		return nil
	}
}

func TestMailReachesWhoIsNeverThereWithTheSender(t *testing.T) {
	world(t, 51, []string{"ada", "ben"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada, ben := nodes[0], nodes[1]
		relay := n.Relay()
		n.Watch("the secret text")
		toBen, toAda := friends(t, ada, ben)
		ben.Stop()
		m := say(t, ada, toBen, "the secret text")
		eventually(t, time.Minute, state(t, ada, m.ID, chat.StateStored))
		ada.Stop()
		ben.Start()
		eventually(t, time.Minute, shows(t, ben, toAda, "hello", "hello yourself", "the secret text"))
		eventually(t, 2*time.Minute, func() error { // ben's receipt lies in ada's mailbox, ada's message nowhere
			if got := relay.Mail(); got != 1 {
				return fmt.Errorf("%d deposits at the relay, want the receipt", got)
			}
			return nil
		})
		ben.Stop()
		ada.Start()
		eventually(t, time.Minute, state(t, ada, m.ID, chat.StateDelivered))
		time.Sleep(20 * time.Minute)
		if got := relay.Mail(); got != 0 {
			t.Errorf("%d deposits left at the relay: receipts must not be acknowledged by mail", got)
		}
		if seen := n.Seen(); len(seen) > 0 {
			t.Errorf("travelled in clear: %q", seen)
		}
	})
}

func TestManyMessagesThroughTheMailboxAlone(t *testing.T) {
	world(t, 52, []string{"ada", "ben"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada, ben := nodes[0], nodes[1]
		first := n.Relay()
		second := n.Relay()
		toBen, toAda := friends(t, ada, ben)
		ben.Stop()
		count := 9_990 // with what friends said, as many as an outbox holds
		if testing.Short() {
			count = 600
		}
		want := []string{"hello", "hello yourself"}
		for i := range count {
			want = append(want, fmt.Sprintf("message %d", i))
			say(t, ada, toBen, want[len(want)-1])
			switch i {
			case count / 3:
				ada.Stop()
				ada.Start()
			case 2 * count / 3: // one relay is away for a while
				time.Sleep(time.Minute)
				ada.Stop()
				second.Set(false)
				ada.Start()
			}
		}
		stored := func() error {
			for _, e := range outbox(t, ada) {
				if e.State != chat.StateStored {
					return fmt.Errorf("%s is %q (%s)", e.ID, e.State, e.Reason)
				}
			}
			return nil
		}
		eventually(t, 30*time.Minute, stored)
		if got := len(outbox(t, ada)); got != count {
			t.Fatalf("%d messages in the outbox, want %d until they are acknowledged", got, count)
		}
		ada.Stop()
		if first.Mail() < count {
			t.Fatalf("%d deposits at the relay that was always there, want %d", first.Mail(), count)
		}
		second.Set(true)
		ben.Start()
		eventually(t, time.Minute, func() error {
			if got := len(texts(t, ben, toAda)); got != len(want) {
				return fmt.Errorf("ben shows %d of %d", got, len(want))
			}
			return nil
		})
		if err := shows(t, ben, toAda, want...)(); err != nil {
			t.Error(err)
		}
		time.Sleep(10 * time.Minute)
		if err := shows(t, ben, toAda, want...)(); err != nil {
			t.Errorf("after another look: %v", err)
		}
		ben.Stop()
		ada.Start()
		eventually(t, 5*time.Minute, func() error {
			if got := len(outbox(t, ada)); got != 0 {
				return fmt.Errorf("%d messages in ada's outbox although ben acknowledged all", got)
			}
			return nil
		})
	})
}

func outbox(t *testing.T, nd *chattest.Node) []chat.OutboxEntry {
	t.Helper()
	list, err := nd.Service().Outbox(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestAForgedReceiptIsNotBelieved(t *testing.T) {
	world(t, 53, []string{"ada", "ben"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada, ben := nodes[0], nodes[1]
		relay := n.Relay()
		toBen, _ := friends(t, ada, ben)
		relay.Forge()
		ben.Stop()
		m := say(t, ada, toBen, "hear me")
		time.Sleep(10 * time.Minute)
		if relay.Count().Deposits == 0 {
			t.Fatal("nothing was deposited")
		}
		if err := state(t, ada, m.ID, chat.StateQueued)(); err != nil {
			t.Error(err)
		}
	})
}

func TestAFullMailboxIsSaid(t *testing.T) {
	world(t, 54, []string{"ada", "ben"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada, ben := nodes[0], nodes[1]
		relay := n.Relay()
		toBen, toAda := friends(t, ada, ben)
		relay.Quota(2)
		ben.Stop()
		var list []chat.Message
		want := []string{"hello", "hello yourself"}
		for i := range 4 {
			want = append(want, fmt.Sprintf("message %d", i))
			list = append(list, say(t, ada, toBen, want[len(want)-1]))
		}
		eventually(t, time.Minute, state(t, ada, list[1].ID, chat.StateStored))
		eventually(t, time.Minute, func() error {
			m, err := ada.Service().Message(t.Context(), list[3].ID)
			if err == nil && (m.State != chat.StateQueued || m.Reason != "the recipient's mailbox is full") {
				err = fmt.Errorf("the fourth message is %q: %q", m.State, m.Reason)
			}
			return err
		})
		ben.Start() // both are there: the rest goes straight
		eventually(t, 5*time.Minute, shows(t, ben, toAda, want...))
		for _, m := range list {
			eventually(t, 5*time.Minute, state(t, ada, m.ID, chat.StateDelivered))
		}
	})
}

func TestAMailboxThatAppearsIsLearnt(t *testing.T) {
	world(t, 55, []string{"ada", "ben"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada, ben := nodes[0], nodes[1]
		toBen, toAda := friends(t, ada, ben)
		n.Relay() // ben's record changes, and ada is told
		time.Sleep(10 * time.Second)
		ben.Stop()
		m := say(t, ada, toBen, "later")
		eventually(t, time.Minute, state(t, ada, m.ID, chat.StateStored))
		ada.Stop()
		ben.Start()
		eventually(t, time.Minute, shows(t, ben, toAda, "hello", "hello yourself", "later"))
	})
}

func TestStrangersMailIsBounded(t *testing.T) {
	world(t, 56, []string{"ada", "ben"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada, ben := nodes[0], nodes[1]
		relay := n.Relay()
		account := ben.Account()
		toBen := chat.Target{Account: &account}
		time.Sleep(10 * time.Second)      // ben's mailbox is placed
		say(t, ada, toBen, "who are you") // a request
		time.Sleep(10 * time.Second)
		ben.Stop()
		for i := range 20 {
			say(t, ada, toBen, fmt.Sprintf("answer me %d", i))
		}
		eventually(t, 5*time.Minute, func() error {
			if got := relay.Mail(); got < 20 {
				return fmt.Errorf("%d deposits", got)
			}
			return nil
		})
		ada.Stop()
		ben.Start()
		time.Sleep(20 * time.Minute)
		adas := ada.Account()
		if got := len(texts(t, ben, chat.Target{Account: &adas})); got == 0 || got > 5 {
			t.Errorf("ben shows %d messages of a stranger, want 1 to 5", got)
		}
		if got := relay.Mail(); got != 0 {
			t.Errorf("%d deposits left: those refused must go, and strangers get no receipts", got)
		}
	})
}

func TestAMailboxPlacedWhileApartIsLearntAtTheNextMeeting(t *testing.T) {
	world(t, 57, []string{"ada", "ben"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada, ben := nodes[0], nodes[1]
		toBen, toAda := friends(t, ada, ben)
		ada.Stop()
		n.Relay()
		time.Sleep(10 * time.Second)
		ada.Start() // they meet and say nothing
		time.Sleep(30 * time.Second)
		ben.Stop()
		m := say(t, ada, toBen, "later")
		eventually(t, time.Minute, state(t, ada, m.ID, chat.StateStored))
		ada.Stop()
		ben.Start()
		eventually(t, time.Minute, shows(t, ben, toAda, "hello", "hello yourself", "later"))
	})
}

// TestARelayJustBeforeLeaving lets the first relay appear a twentieth of a second before somebody leaves, wherever
// the second's clocks stand: long enough to place a mailbox and to tell those who are there.
func TestARelayJustBeforeLeaving(t *testing.T) {
	for part := range 4 {
		t.Run(fmt.Sprint(part), func(t *testing.T) {
			world(t, 58, []string{"ada", "ben"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
				ada, ben := nodes[0], nodes[1]
				toBen, toAda := friends(t, ada, ben)
				time.Sleep(time.Duration(part) * 250 * time.Millisecond)
				n.Relay()
				time.Sleep(50 * time.Millisecond)
				ben.Stop()
				m := say(t, ada, toBen, "later")
				eventually(t, time.Minute, state(t, ada, m.ID, chat.StateStored))
				ada.Stop()
				ben.Start()
				eventually(t, time.Minute, shows(t, ben, toAda, "hello", "hello yourself", "later"))
			})
		})
	}
}

// Who was away for a moment gets what was left in a mailbox meanwhile by the stream as well: they may have
// looked there before it came, and here they cannot look at all.
func TestFreshMailIsSentToo(t *testing.T) {
	world(t, 59, []string{"ada", "ben"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada, ben := nodes[0], nodes[1]
		relay := n.Relay()
		toBen, toAda := friends(t, ada, ben)
		time.Sleep(time.Minute)
		n.Partition([]*chattest.Node{ada}, []*chattest.Node{ben})
		m := say(t, ada, toBen, "while you changed the Wi-Fi")
		eventually(t, 15*time.Second, state(t, ada, m.ID, chat.StateStored))
		relay.Set(false)
		n.Heal()
		eventually(t, 10*time.Second, shows(t, ben, toAda, "hello", "hello yourself", "while you changed the Wi-Fi"))
		eventually(t, 10*time.Second, state(t, ada, m.ID, chat.StateDelivered))
	})
}
