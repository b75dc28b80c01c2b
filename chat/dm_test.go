package chat_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/chattest"
	"github.com/starling-chat/starling/storage"
)

// meet makes two nodes contacts of each other.
func meet(t *testing.T, a, b *chattest.Node) (toB, toA chat.Target) {
	t.Helper()
	for _, p := range [][2]*chattest.Node{{a, b}, {b, a}} {
		if _, err := p[0].Service().AddContact(t.Context(), p[1].Account().String(), p[1].Name); err != nil {
			t.Fatalf("%s adds %s: %v", p[0].Name, p[1].Name, err)
		}
	}
	return to(b), to(a)
}

// to is the direct conversation with a node's user.
func to(nd *chattest.Node) chat.Target {
	id := nd.Account()
	return chat.Target{Account: &id}
}

// delivered waits until an own message was acknowledged.
func delivered(t *testing.T, nd *chattest.Node, id chat.MessageID, limit time.Duration) {
	t.Helper()
	m, err := nd.Service().WaitState(within(t, limit), id, chat.StateDelivered)
	if err != nil || m.State != chat.StateDelivered && m.State != chat.StateRead {
		t.Fatalf("%s waits for delivery: state %q (%s), %v", nd.Name, m.State, m.Reason, err)
	}
}

// emptyOutbox checks that nothing waits.
func emptyOutbox(t *testing.T, nd *chattest.Node) func() error {
	return func() error {
		out, err := nd.Service().Outbox(t.Context())
		if err == nil && len(out) != 0 {
			err = fmt.Errorf("%s's outbox still holds %d: %+v", nd.Name, len(out), out[0])
		}
		return err
	}
}

func TestDirectMessages(t *testing.T) {
	world(t, 2, []string{"ada", "bob"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		n.Set(wan)
		ada, bob := nodes[0], nodes[1]
		toBob, toAda := meet(t, ada, bob)
		m := say(t, ada, toBob, "hello")
		if m.State != chat.StateQueued {
			t.Errorf("accepted with state %q, want queued", m.State)
		}
		delivered(t, ada, m.ID, 10*time.Second)
		if m, err := ada.Service().Message(t.Context(), m.ID); err != nil || m.Path != chat.PathLAN {
			t.Errorf("delivered as %+v, %v", m, err)
		}
		eventually(t, time.Second, shows(t, bob, toAda, "hello"))
		for i := range 20 {
			say(t, bob, toAda, fmt.Sprint("answer ", i))
			say(t, ada, toBob, fmt.Sprint("again ", i))
		}
		eventually(t, 20*time.Second, func() error {
			a, b := texts(t, ada, toBob), texts(t, bob, toAda)
			if len(a) != 41 || fmt.Sprint(a) != fmt.Sprint(b) {
				return fmt.Errorf("ada shows %d, bob %d: %q %q", len(a), len(b), a, b)
			}
			return nil
		})
		eventually(t, 10*time.Second, emptyOutbox(t, ada))
		eventually(t, 10*time.Second, emptyOutbox(t, bob))
	})
}

func TestDirectMessageWaitsForTheOther(t *testing.T) {
	world(t, 20, []string{"ada", "bob"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		n.Set(wan)
		ada, bob := nodes[0], nodes[1]
		toBob, toAda := meet(t, ada, bob)
		delivered(t, ada, say(t, ada, toBob, "hello").ID, 10*time.Second)
		bob.Stop()
		var last chat.MessageID
		want := []string{"hello"}
		for i := range 1500 {
			want = append(want, fmt.Sprint("away ", i))
			last = say(t, ada, toBob, want[len(want)-1]).ID
			if i%500 == 499 { // the sender restarts, twice in between
				ada.Stop()
				time.Sleep(10 * time.Minute)
				ada.Start()
			}
		}
		out, err := ada.Service().Outbox(t.Context())
		if err != nil || len(out) != 1500 || out[0].State != chat.StateQueued {
			t.Fatalf("ada's outbox holds %d, %v", len(out), err)
		}
		time.Sleep(24 * time.Hour)
		bob.Start()
		delivered(t, ada, last, time.Minute)
		eventually(t, time.Minute, shows(t, bob, toAda, want...))
		eventually(t, time.Minute, emptyOutbox(t, ada))
	})
}

func TestDirectMessagesOverABadLink(t *testing.T) {
	// Streams break again and again in the middle of a busy conversation.
	world(t, 21, []string{"ada", "bob"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		n.Set(chattest.Conditions{Delay: 50 * time.Millisecond, Jitter: 100 * time.Millisecond})
		ada, bob := nodes[0], nodes[1]
		toBob, toAda := meet(t, ada, bob)
		for i := range 60 {
			say(t, ada, toBob, fmt.Sprint("a", i))
			say(t, bob, toAda, fmt.Sprint("b", i))
			time.Sleep(time.Duration(n.Intn(200)) * time.Millisecond)
			if i%4 == 0 {
				n.Partition(nodes[:1], nodes[1:])
				time.Sleep(time.Duration(n.Intn(1500)) * time.Millisecond)
				n.Heal()
			}
		}
		eventually(t, 2*time.Minute, func() error {
			a, b := texts(t, ada, toBob), texts(t, bob, toAda)
			if len(a) != 120 || fmt.Sprint(a) != fmt.Sprint(b) {
				return fmt.Errorf("ada shows %d, bob %d", len(a), len(b))
			}
			return nil
		})
		eventually(t, 2*time.Minute, emptyOutbox(t, ada))
		eventually(t, 2*time.Minute, emptyOutbox(t, bob))
	})
}

func TestBothBeginAtOnce(t *testing.T) {
	for seed := range uint64(10) {
		world(t, 100+seed, []string{"ada", "bob"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
			n.Set(wan)
			ada, bob := nodes[0], nodes[1]
			toBob, toAda := meet(t, ada, bob)
			a, b := say(t, ada, toBob, "from ada"), say(t, bob, toAda, "from bob")
			delivered(t, ada, a.ID, 20*time.Second)
			delivered(t, bob, b.ID, 20*time.Second)
			for range 3 {
				delivered(t, ada, say(t, ada, toBob, "x").ID, 10*time.Second)
				delivered(t, bob, say(t, bob, toAda, "y").ID, 10*time.Second)
			}
		})
	}
}

func TestStrangerWaitsUntilAccepted(t *testing.T) {
	world(t, 22, []string{"ada", "eve"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		n.Set(wan)
		ada, eve := nodes[0], nodes[1]
		var ids []chat.MessageID
		for i := range 8 {
			ids = append(ids, say(t, eve, to(ada), fmt.Sprint("please ", i)).ID)
		}
		time.Sleep(time.Minute)
		if got := texts(t, ada, to(eve)); len(got) != 5 {
			t.Errorf("%d messages of a stranger were taken, want 5: %q", len(got), got)
		}
		m, err := eve.Service().Message(t.Context(), ids[0])
		if err != nil || m.State != chat.StateSent {
			t.Errorf("a stranger learns state %q, %v", m.State, err)
		}
		m, err = eve.Service().Message(t.Context(), ids[5])
		if err != nil || m.Reason != "waiting to be accepted" {
			t.Errorf("the sixth message: %q %q, %v", m.State, m.Reason, err)
		}
		c, err := ada.Service().Conversation(t.Context(), to(eve))
		if err != nil || !c.Request || c.Unread != 5 {
			t.Errorf("ada sees %+v, %v", c, err)
		}
		if _, err := ada.Service().SetContact(t.Context(), "@"+eve.Account().String(), chat.ContactAccept, ""); err != nil {
			t.Fatal(err)
		}
		for _, id := range ids {
			delivered(t, eve, id, time.Minute)
		}
		if got := texts(t, ada, to(eve)); len(got) != 8 {
			t.Errorf("after accepting ada shows %q", got)
		}
		list, err := eve.Service().Contacts(t.Context())
		if err != nil || len(list) != 1 || list[0].State != chat.ContactFriend {
			t.Errorf("eve's contacts: %+v, %v", list, err)
		}
	})
}

func TestStrangerIsRejectedOrAnswered(t *testing.T) {
	world(t, 23, []string{"ada", "eve"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		n.Set(wan)
		ada, eve := nodes[0], nodes[1]
		say(t, eve, to(ada), "buy this")
		eventually(t, 5*time.Second, shows(t, ada, to(eve), "buy this"))
		if _, err := ada.Service().SetContact(t.Context(), eve.Account().String(), chat.ContactReject, ""); err != nil {
			t.Fatal(err)
		}
		if got := texts(t, ada, to(eve)); len(got) != 0 {
			t.Errorf("after rejecting ada shows %q", got)
		}
		list, err := ada.Service().Conversations(t.Context())
		if err != nil || len(list) != 0 {
			t.Errorf("after rejecting ada lists %+v, %v", list, err)
		}
		// Writing back is accepting.
		m := say(t, eve, to(ada), "sorry, hello")
		eventually(t, 15*time.Second, func() error {
			if got := texts(t, ada, to(eve)); len(got) == 0 || got[len(got)-1] != "sorry, hello" {
				return fmt.Errorf("ada shows %q", got)
			}
			return nil
		})
		delivered(t, ada, say(t, ada, to(eve), "hello").ID, 10*time.Second)
		delivered(t, eve, m.ID, 10*time.Second)
	})
}

func TestBlockedStranger(t *testing.T) {
	world(t, 24, []string{"ada", "eve"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		n.Set(wan)
		ada, eve := nodes[0], nodes[1]
		toEve, toAda := meet(t, ada, eve)
		delivered(t, eve, say(t, eve, toAda, "hello").ID, 10*time.Second)
		if _, err := ada.Service().SetContact(t.Context(), "@eve", chat.ContactBlock, ""); err != nil {
			t.Fatal(err)
		}
		m := say(t, eve, toAda, "why?")
		time.Sleep(time.Minute)
		if err := shows(t, ada, toEve, "hello")(); err != nil {
			t.Error(err)
		}
		if m, err := eve.Service().Message(t.Context(), m.ID); err != nil || m.State != chat.StateSent {
			t.Errorf("a blocked sender learns %q, %v", m.State, err)
		}
		_, err := ada.Service().Send(t.Context(), chat.SendRequest{Target: toEve, Text: "x"})
		wantErr(t, "writing to a blocked account", err, chat.ErrBlocked)
		if _, err := ada.Service().SetContact(t.Context(), "@eve", chat.ContactUnblock, ""); err != nil {
			t.Fatal(err)
		}
		delivered(t, eve, m.ID, 30*time.Minute)
	})
}

func TestDirectEditDeleteReact(t *testing.T) {
	world(t, 25, []string{"ada", "bob"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		n.Set(wan)
		ada, bob := nodes[0], nodes[1]
		toBob, toAda := meet(t, ada, bob)
		m := say(t, ada, toBob, "helo")
		delivered(t, ada, m.ID, 10*time.Second)
		do := func(nd *chattest.Node, target chat.Target, action chat.SendAction, text string) chat.Message {
			t.Helper()
			got, err := nd.Service().Send(t.Context(), chat.SendRequest{Target: target, Action: action, Text: text, Ref: m.ID})
			if err != nil {
				t.Fatalf("%s does %s: %v", nd.Name, action, err)
			}
			return got
		}
		if got := do(ada, toBob, chat.ActionEdit, "hello"); got.Text != "hello" || !got.Edited || got.ID != m.ID {
			t.Errorf("editing answers %+v", got)
		}
		eventually(t, 5*time.Second, shows(t, bob, toAda, "hello"))
		do(bob, toAda, chat.ActionReact, "🐦")
		eventually(t, 5*time.Second, func() error {
			got, err := ada.Service().Message(t.Context(), m.ID)
			if err != nil || fmt.Sprint(got.Reactions) != "[{🐦 [bob] false}]" {
				return fmt.Errorf("reactions %v, %v", got.Reactions, err)
			}
			return nil
		})
		reply, err := bob.Service().Send(t.Context(), chat.SendRequest{Target: toAda, Text: "hi", ReplyTo: m.ID})
		if err != nil || reply.ReplyTo != m.ID {
			t.Fatalf("replying: %+v, %v", reply, err)
		}
		delivered(t, bob, reply.ID, 10*time.Second)
		if got, err := ada.Service().Message(t.Context(), reply.ID); err != nil || got.ReplyTo != m.ID {
			t.Errorf("ada sees the reply as %+v, %v", got, err)
		}
		_, err = bob.Service().Send(t.Context(), chat.SendRequest{Target: toAda, Action: chat.ActionRedact, Ref: m.ID})
		wantErr(t, "deleting another's message", err, chat.ErrDenied)
		do(ada, toBob, chat.ActionRedact, "")
		eventually(t, 5*time.Second, func() error {
			got, err := bob.Service().Message(t.Context(), m.ID)
			if err != nil || !got.Redacted || got.Text != "" || len(got.Reactions) != 0 {
				return fmt.Errorf("bob sees %+v, %v", got, err)
			}
			return nil
		})
		noText(t, ada, "helo", "hello")
		noText(t, bob, "helo", "hello")
	})
}

func TestReadReceipts(t *testing.T) {
	world(t, 26, []string{"ada", "bob"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		n.Set(wan)
		ada, bob := nodes[0], nodes[1]
		toBob, toAda := meet(t, ada, bob)
		m := say(t, ada, toBob, "hello")
		delivered(t, ada, m.ID, 10*time.Second)
		read := func() {
			t.Helper()
			got := messages(t, bob, toAda)
			if err := bob.Service().MarkRead(t.Context(), toAda, got[len(got)-1].Seq); err != nil {
				t.Fatal(err)
			}
		}
		read()
		if _, err := ada.Service().WaitState(within(t, 5*time.Second), m.ID, chat.StateRead); err != nil {
			t.Fatal(err)
		}
		if err := bob.Service().SetSetting(t.Context(), "receipts", "off"); err != nil {
			t.Fatal(err)
		}
		m = say(t, ada, toBob, "and this?")
		delivered(t, ada, m.ID, 10*time.Second)
		read()
		time.Sleep(time.Minute)
		if got, err := ada.Service().Message(t.Context(), m.ID); err != nil || got.State != chat.StateDelivered {
			t.Errorf("with receipts off ada learns %q, %v", got.State, err)
		}
	})
}

func TestOutboxActions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := chattest.New(t, 27)
		n.Set(wan)
		ada, bob := n.Node("ada"), n.Node("bob")
		ada.Config.Limits.OutboxLife = 24 * time.Hour
		ada.Start()
		bob.Start()
		defer ada.Stop()
		defer bob.Stop()
		toBob, toAda := meet(t, ada, bob)
		bob.Stop()
		cancelled, kept := say(t, ada, toBob, "never mind"), say(t, ada, toBob, "important")
		if err := ada.Service().OutboxAction(t.Context(), cancelled.ID, chat.OutboxCancel); err != nil {
			t.Fatal(err)
		}
		if m, err := ada.Service().Message(t.Context(), cancelled.ID); err != nil || m.State != chat.StateFailed || m.Reason != "cancelled" {
			t.Errorf("cancelled: %+v, %v", m, err)
		}
		wantErr(t, "cancelling twice", ada.Service().OutboxAction(t.Context(), cancelled.ID, chat.OutboxCancel), chat.ErrConflict)
		time.Sleep(25 * time.Hour)
		m, err := ada.Service().Message(t.Context(), kept.ID)
		if err != nil || m.State != chat.StateFailed {
			t.Errorf("after 25 hours: %q %q, %v", m.State, m.Reason, err)
		}
		bob.Start()
		time.Sleep(time.Minute)
		if got := texts(t, bob, toAda); len(got) != 0 {
			t.Errorf("a failed message arrived without being retried: %q", got)
		}
		if err := ada.Service().OutboxAction(t.Context(), kept.ID, chat.OutboxRetry); err != nil {
			t.Fatal(err)
		}
		delivered(t, ada, kept.ID, 10*time.Second)
		eventually(t, time.Second, shows(t, bob, toAda, "important"))
	})
}

func TestLostSessionsHeal(t *testing.T) {
	// Bob's disk is restored without his sessions: what ada seals does not open, a new session is begun,
	// and nothing is lost.
	world(t, 28, []string{"ada", "bob"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		n.Set(wan)
		ada, bob := nodes[0], nodes[1]
		toBob, toAda := meet(t, ada, bob)
		delivered(t, ada, say(t, ada, toBob, "one").ID, 10*time.Second)
		delivered(t, bob, say(t, bob, toAda, "two").ID, 10*time.Second)
		bob.Stop()
		var b storage.Batch
		id := ada.ID()
		b.DeleteEphemeral("sessions", id[:])
		if _, err := bob.Store.Commit(t.Context(), &b, storage.Durable); err != nil {
			t.Fatal(err)
		}
		bob.Start()
		delivered(t, ada, say(t, ada, toBob, "three").ID, 5*time.Minute)
		delivered(t, bob, say(t, bob, toAda, "four").ID, 5*time.Minute)
		eventually(t, time.Second, shows(t, ada, toBob, "one", "two", "three", "four"))
		eventually(t, time.Second, shows(t, bob, toAda, "one", "two", "three", "four"))
		notices := 0
		list, err := bob.Service().History(t.Context(), chat.HistoryQuery{Target: toAda})
		for _, m := range list {
			if m.Kind == chat.KindNotice {
				notices++
			}
		}
		if err != nil || notices != 1 {
			t.Errorf("bob sees %d notices of the new session, %v", notices, err)
		}
	})
}

func TestFoundByAccountAlone(t *testing.T) {
	// Nobody has met: the directory leads from the account to its device, whose greeting proves it.
	synctest.Test(t, func(t *testing.T) {
		n := chattest.New(t, 29)
		n.Set(wan)
		ada, bob := n.Node("ada"), n.Node("bob")
		bob.Config.AcceptStrangers = true
		ada.Start()
		bob.Start()
		defer ada.Stop()
		defer bob.Stop()
		m := say(t, ada, to(bob), "are you the one?")
		delivered(t, ada, m.ID, 30*time.Second)
		bob.Stop()
		m = say(t, ada, to(bob), "and tomorrow?")
		time.Sleep(30 * time.Hour)
		bob.Start()
		delivered(t, ada, m.ID, time.Minute)
	})
}

func TestNothingTravelsInClear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := chattest.New(t, 30)
		n.Set(wan)
		ada, bob := n.Node("ada"), n.Node("bob")
		n.Watch("canary", "sekrit-room")
		ada.Start()
		bob.Start()
		defer ada.Stop()
		defer bob.Stop()
		room := join(t, "sekrit-room", ada, bob)
		toBob, toAda := meet(t, ada, bob)
		say(t, ada, room, "canary in the room")
		delivered(t, ada, say(t, ada, toBob, "canary in private").ID, 10*time.Second)
		delivered(t, bob, say(t, bob, toAda, "canary back").ID, 10*time.Second)
		bob.Stop()
		say(t, ada, room, "canary while away")
		time.Sleep(time.Minute)
		bob.Start()
		eventually(t, 5*time.Second, shows(t, bob, room, "canary in the room", "canary while away"))
		if seen := n.Seen(); len(seen) != 0 {
			t.Errorf("seen on the wire in clear: %q", seen)
		}
	})
}
