package chat_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/chattest"
	"github.com/starling-chat/starling/chat/wire"
)

// wan is a plain good network.
var wan = chattest.Conditions{Delay: 20 * time.Millisecond, Jitter: 10 * time.Millisecond}

func TestTwoTalk(t *testing.T) {
	world(t, 1, []string{"ada", "bob"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		n.Set(wan)
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

// equalDigests checks that all nodes hold the same messages, want of them unless that is negative, and
// know of no gap.
func equalDigests(t *testing.T, want int, room chat.Target, nodes ...*chattest.Node) func() error {
	return func() error {
		var first chat.Digest
		for i, nd := range nodes {
			d, err := nd.Service().Digest(t.Context(), room)
			if err != nil {
				return err
			}
			if i == 0 {
				first = d
			}
			if d.SHA256 != first.SHA256 || want >= 0 && d.Count != want || d.Gaps != 0 {
				return fmt.Errorf("%s holds %d with %d gaps (%x), want %d; %s holds %d (%x)",
					nd.Name, d.Count, d.Gaps, d.SHA256[:4], want, nodes[0].Name, first.Count, first.SHA256[:4])
			}
		}
		return nil
	}
}

func TestFiveTalkOverALossyNetwork(t *testing.T) {
	world(t, 3, []string{"ada", "bob", "cleo", "dan", "eve"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		n.Set(chattest.Conditions{Delay: 30 * time.Millisecond, Jitter: 200 * time.Millisecond, Loss: 0.2, Repeat: 0.1})
		room := join(t, "dev", nodes...)
		for i := range 20 {
			for _, nd := range nodes {
				say(t, nd, room, fmt.Sprintf("%s %d", nd.Name, i))
			}
			time.Sleep(100 * time.Millisecond)
		}
		eventually(t, 2*time.Minute, equalDigests(t, 100, room, nodes...))
		want := texts(t, nodes[0], room)
		for _, nd := range nodes[1:] {
			if got := texts(t, nd, room); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("%s shows another order than %s", nd.Name, nodes[0].Name)
			}
		}
		// Each author's messages are in the order in which they were said.
		next := make(map[string]int)
		for _, text := range want {
			who, _, _ := strings.Cut(text, " ")
			if text != fmt.Sprintf("%s %d", who, next[who]) {
				t.Fatalf("after %d messages of %s comes %q", next[who], who, text)
			}
			next[who]++
		}
		if n.Count().Lost == 0 {
			t.Error("nothing was lost: the test tests nothing")
		}
	})
}

func TestSpokenBeforeTheOtherJoins(t *testing.T) {
	for _, wait := range []time.Duration{time.Second, 10 * time.Second, time.Hour} {
		t.Run(wait.String(), func(t *testing.T) {
			world(t, 4, []string{"ada", "bob"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
				n.Set(wan)
				room := join(t, "lobby", nodes[0])
				say(t, nodes[0], room, "is anybody there?")
				time.Sleep(wait)
				join(t, "lobby", nodes[1])
				eventually(t, 5*time.Second, shows(t, nodes[1], room, "is anybody there?"))
			})
		})
	}
}

func TestPartitionHeals(t *testing.T) {
	names := []string{"a", "b", "c", "d", "e", "f"}
	world(t, 5, names, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		n.Set(wan)
		room := join(t, "lobby", nodes...)
		n.Partition(nodes[:2], nodes[2:4], nodes[4:])
		for i := range 30 {
			say(t, nodes[i%6], room, fmt.Sprint("cut ", i))
			time.Sleep(time.Second)
		}
		n.Heal()
		eventually(t, 30*time.Second, equalDigests(t, 30, room, nodes...))
	})
}

func TestRestartRejoins(t *testing.T) {
	world(t, 6, []string{"ada", "bob"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		n.Set(wan)
		ada, bob := nodes[0], nodes[1]
		room := join(t, "lobby", ada, bob)
		say(t, ada, room, "one")
		eventually(t, 5*time.Second, shows(t, bob, room, "one"))
		bob.Stop()
		say(t, ada, room, "two")
		time.Sleep(time.Hour)
		bob.Start()
		eventually(t, 5*time.Second, shows(t, bob, room, "one", "two"))
		say(t, bob, room, "three")
		eventually(t, 5*time.Second, shows(t, ada, room, "one", "two", "three"))
		c, err := bob.Service().Conversation(t.Context(), room)
		if err != nil || c.Unread != 2 || c.Members != 2 || c.Peers != 1 || len(c.Gaps) != 0 {
			t.Errorf("bob sees %+v, %v", c, err)
		}
	})
}

func TestLeaveAndComeBack(t *testing.T) {
	world(t, 7, []string{"ada", "bob"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		n.Set(wan)
		ada, bob := nodes[0], nodes[1]
		room := join(t, "lobby", ada, bob)
		say(t, bob, room, "hello")
		if err := bob.Service().Leave(t.Context(), room); err != nil {
			t.Fatal(err)
		}
		eventually(t, 5*time.Second, func() error {
			members, err := ada.Service().Members(t.Context(), room)
			if err != nil || len(members) != 1 {
				return fmt.Errorf("ada sees %d members, %v", len(members), err)
			}
			return nil
		})
		_, err := bob.Service().Send(t.Context(), chat.SendRequest{Target: room, Text: "still here?"})
		wantErr(t, "sending to a room that was left", err, chat.ErrNotJoined)
		if got := texts(t, bob, room); len(got) != 1 {
			t.Errorf("bob's history after leaving: %q", got)
		}
		say(t, ada, room, "come back")
		time.Sleep(time.Minute)
		join(t, "lobby", bob)
		say(t, bob, room, "I am back")
		eventually(t, 15*time.Second, shows(t, bob, room, "hello", "come back", "I am back"))
		eventually(t, 5*time.Second, shows(t, ada, room, "hello", "come back", "I am back"))
		eventually(t, 5*time.Second, equalDigests(t, 3, room, ada, bob))
	})
}

func TestEditDeleteReactReply(t *testing.T) {
	world(t, 8, []string{"ada", "bob"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		n.Set(wan)
		ada, bob := nodes[0], nodes[1]
		room := join(t, "lobby", ada, bob)
		m := say(t, ada, room, "helo")
		eventually(t, 5*time.Second, shows(t, bob, room, "helo"))
		do := func(nd *chattest.Node, action chat.SendAction, text string) chat.Message {
			t.Helper()
			got, err := nd.Service().Send(t.Context(), chat.SendRequest{Target: room, Action: action, Text: text, Ref: m.ID})
			if err != nil {
				t.Fatalf("%s does %s: %v", nd.Name, action, err)
			}
			return got
		}
		if got := do(ada, chat.ActionEdit, "hello"); got.ID != m.ID || got.Text != "hello" || !got.Edited {
			t.Errorf("editing answers %+v", got)
		}
		eventually(t, 5*time.Second, shows(t, bob, room, "hello"))
		do(bob, chat.ActionReact, "👍")
		do(ada, chat.ActionReact, "👍")
		eventually(t, 5*time.Second, func() error {
			got, err := ada.Service().Message(t.Context(), m.ID)
			if err != nil || fmt.Sprint(got.Reactions) != "[{👍 [ada bob] true}]" {
				return fmt.Errorf("reactions %v, %v", got.Reactions, err)
			}
			return nil
		})
		if got := do(ada, chat.ActionReact, ""); fmt.Sprint(got.Reactions) != "[{👍 [bob] false}]" {
			t.Errorf("after taking it back: %v", got.Reactions)
		}
		_, err := bob.Service().Send(t.Context(), chat.SendRequest{Target: room, Action: chat.ActionEdit, Text: "x", Ref: m.ID})
		wantErr(t, "editing another's message", err, chat.ErrDenied)
		_, err = bob.Service().Send(t.Context(), chat.SendRequest{Target: room, Action: chat.ActionRedact, Ref: m.ID})
		wantErr(t, "deleting another's message", err, chat.ErrDenied)

		reply, err := bob.Service().Send(t.Context(), chat.SendRequest{Target: room, Text: "hi @ada", ReplyTo: m.ID})
		if err != nil || reply.ReplyTo != m.ID {
			t.Fatalf("replying: %+v, %v", reply, err)
		}
		eventually(t, 5*time.Second, func() error {
			got, err := ada.Service().Message(t.Context(), reply.ID)
			if err != nil || !got.Mention || got.ReplyTo != m.ID {
				return fmt.Errorf("ada sees the reply as %+v, %v", got, err)
			}
			return nil
		})
		do(ada, chat.ActionRedact, "")
		eventually(t, 5*time.Second, func() error {
			got, err := bob.Service().Message(t.Context(), m.ID)
			if err != nil || !got.Redacted || got.Text != "" || got.Edited || len(got.Reactions) != 0 {
				return fmt.Errorf("bob sees the deleted message as %+v, %v", got, err)
			}
			return nil
		})
		for _, nd := range nodes {
			noText(t, nd, "helo", "hello")
		}
		eventually(t, 5*time.Second, equalDigests(t, 2, room, ada, bob))
	})
}

func TestUnreadAndMentions(t *testing.T) {
	world(t, 9, []string{"ada", "bob"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		n.Set(chattest.Conditions{Delay: 20 * time.Millisecond}) // without jitter they arrive in order
		ada, bob := nodes[0], nodes[1]
		room := join(t, "lobby", ada, bob)
		for i := range 5 {
			say(t, ada, room, fmt.Sprint("message ", i))
		}
		say(t, ada, room, "lunch, @bob?")
		unread := func(want, mentions int) func() error {
			return func() error {
				c, err := bob.Service().Conversation(t.Context(), room)
				if err != nil || c.Unread != want || c.Mentions != mentions {
					return fmt.Errorf("unread %d, mentions %d, %v; want %d, %d", c.Unread, c.Mentions, err, want, mentions)
				}
				return nil
			}
		}
		eventually(t, 5*time.Second, unread(6, 1))
		got := messages(t, bob, room)
		if err := bob.Service().MarkRead(t.Context(), room, got[2].Seq); err != nil {
			t.Fatal(err)
		}
		eventually(t, time.Second, unread(3, 1))
		bob.Stop()
		bob.Start()
		eventually(t, time.Second, unread(3, 1))
		// The mark never goes back, and stops at what is here.
		if err := bob.Service().MarkRead(t.Context(), room, 1); err != nil {
			t.Fatal(err)
		}
		eventually(t, time.Second, unread(3, 1))
		if err := bob.Service().MarkRead(t.Context(), room, 1<<40); err != nil {
			t.Fatal(err)
		}
		eventually(t, time.Second, unread(0, 0))
		if c, err := ada.Service().Conversation(t.Context(), room); err != nil || c.Unread != 0 {
			t.Errorf("own messages are unread: %+v, %v", c, err)
		}
		// A message with an old clock is new all the same.
		ada.SetSkew(-time.Hour)
		say(t, ada, room, "from the past")
		eventually(t, 5*time.Second, unread(1, 0))
	})
}

func TestNickClashAndTopic(t *testing.T) {
	world(t, 10, []string{"ada", "bob", "eve"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		n.Set(wan)
		ada, bob, eve := nodes[0], nodes[1], nodes[2]
		room := join(t, "lobby", nodes...)
		if err := ada.Service().SetTopic(t.Context(), room, "birds"); err != nil {
			t.Fatal(err)
		}
		if err := eve.Service().SetNick(t.Context(), "Ada"); err != nil {
			t.Fatal(err)
		}
		m := say(t, ada, room, "I am ada")
		eventually(t, 5*time.Second, func() error {
			got, err := bob.Service().Message(t.Context(), m.ID)
			if err != nil || !got.NickShared {
				return fmt.Errorf("bob sees %+v, %v", got, err)
			}
			c, err := bob.Service().Conversation(t.Context(), room)
			if err != nil || c.Topic != "birds" {
				return fmt.Errorf("topic %q, %v", c.Topic, err)
			}
			return nil
		})
		_, err := bob.Service().Resolve("@ada")
		var amb *chat.AmbiguousError
		if !errors.As(err, &amb) || len(amb.Candidates) != 2 {
			t.Fatalf("resolving a shared nick: %v", err)
		}
		// A fingerprint is what is shown of who has no nick. To claim somebody else's as a nick deceives nobody.
		fp := wire.Fingerprint(ada.Account())
		if target, err := bob.Service().Resolve("@" + strings.ToLower(fp)); err != nil || *target.Account != ada.Account() {
			t.Errorf("resolving a fingerprint: %v, %v", target, err)
		}
		if err := eve.Service().SetNick(t.Context(), fp); err != nil {
			t.Fatal(err)
		}
		eventually(t, 5*time.Second, func() error {
			if _, err := bob.Service().Resolve("@" + fp); !errors.As(err, &amb) || len(amb.Candidates) != 2 {
				return fmt.Errorf("resolving a fingerprint that somebody has as a nick: %w", err)
			}
			return nil
		})
		if err := eve.Service().SetNick(t.Context(), "Ada"); err != nil {
			t.Fatal(err)
		}
		if _, err := bob.Service().AddContact(t.Context(), ada.Account().String(), "my ada"); err != nil {
			t.Fatal(err)
		}
		if target, err := bob.Service().Resolve("@My Ada"); err != nil || *target.Account != ada.Account() {
			t.Errorf("resolving a petname: %v, %v", target, err)
		}
		if got, err := bob.Service().Message(t.Context(), m.ID); err != nil || got.Nick != "my ada" || got.NickShared {
			t.Errorf("with a petname: %+v, %v", got, err)
		}
		// Whoever leaves gives the nick back.
		if err := eve.Service().Leave(t.Context(), room); err != nil {
			t.Fatal(err)
		}
		eventually(t, 5*time.Second, func() error {
			members, err := ada.Service().Members(t.Context(), room)
			if err != nil || len(members) != 2 || members[0].NickShared || members[1].NickShared {
				return fmt.Errorf("members %+v, %v", members, err)
			}
			return nil
		})
	})
}

func TestBlockedAuthor(t *testing.T) {
	world(t, 11, []string{"ada", "eve"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		n.Set(wan)
		ada, eve := nodes[0], nodes[1]
		room := join(t, "lobby", nodes...)
		say(t, eve, room, "before")
		eventually(t, 5*time.Second, shows(t, ada, room, "before"))
		if _, err := ada.Service().SetContact(t.Context(), "@eve", chat.ContactBlock, ""); err != nil {
			t.Fatal(err)
		}
		say(t, eve, room, "blocked")
		time.Sleep(time.Minute)
		if err := shows(t, ada, room, "before")(); err != nil {
			t.Error(err)
		}
		st := ada.Service().Stats()
		if st.Refused == 0 || st.Gaps != 0 {
			t.Errorf("refused %d, gaps %d; what is refused is not missing", st.Refused, st.Gaps)
		}
		if _, err := ada.Service().SetContact(t.Context(), "@eve", chat.ContactUnblock, ""); err != nil {
			t.Fatal(err)
		}
		say(t, eve, room, "after")
		eventually(t, 5*time.Second, shows(t, ada, room, "before", "after"))
	})
}

func TestAuthorOverTheRateIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := chattest.New(t, 12)
		ada, eve := n.Node("ada"), n.Node("eve")
		ada.Config.Limits = chat.Limits{AuthorRate: 1, AuthorBurst: 10}
		ada.Start()
		eve.Start()
		defer ada.Stop()
		defer eve.Stop()
		room := join(t, "lobby", ada, eve)
		for i := range 50 {
			say(t, eve, room, fmt.Sprint("flood ", i))
		}
		time.Sleep(time.Second)
		got := len(texts(t, ada, room))
		if st := ada.Service().Stats(); got < 6 || got > 12 || st.Refused < 38 || st.Gaps != 0 {
			t.Errorf("%d of 50 shown, %d refused, %d gaps", got, st.Refused, st.Gaps)
		}
		time.Sleep(20 * time.Second)
		say(t, eve, room, "sorry")
		eventually(t, 5*time.Second, func() error {
			all := texts(t, ada, room)
			if all[len(all)-1] != "sorry" {
				return fmt.Errorf("the last of %d is %q", len(all), all[len(all)-1])
			}
			return nil
		})
	})
}

func TestClientIDMakesOneMessage(t *testing.T) {
	world(t, 13, []string{"ada", "bob"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		n.Set(wan)
		ada, bob := nodes[0], nodes[1]
		room := join(t, "lobby", nodes...)
		toBob, _ := meet(t, ada, bob)
		for _, target := range []chat.Target{room, toBob} {
			send := func() chat.MessageID {
				t.Helper()
				m, err := ada.Service().Send(t.Context(), chat.SendRequest{Target: target, Text: "once", ClientID: "c1"})
				if err != nil || m.ClientID != "c1" {
					t.Fatalf("sending: %+v, %v", m, err)
				}
				return m.ID
			}
			first := send()
			ids := make(chan chat.MessageID, 10)
			for range cap(ids) {
				go func() { ids <- send() }()
			}
			for range cap(ids) {
				if id := <-ids; id != first {
					t.Errorf("a second message %s beside %s", id, first)
				}
			}
			ada.Stop()
			ada.Start()
			if id := send(); id != first {
				t.Errorf("after a restart a second message %s beside %s", id, first)
			}
			if got := texts(t, ada, target); len(got) != 1 {
				t.Errorf("history shows %q", got)
			}
		}
	})
}

func TestClocksThatDisagree(t *testing.T) {
	world(t, 14, []string{"ada", "bob", "cleo"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		n.Set(wan)
		ada, bob, cleo := nodes[0], nodes[1], nodes[2]
		bob.SetSkew(time.Minute)
		cleo.SetSkew(-12 * time.Hour)
		room := join(t, "lobby", nodes...)
		// An answer comes after what it answers, whatever the clocks say.
		say(t, bob, room, "question")
		eventually(t, 5*time.Second, shows(t, ada, room, "question"))
		say(t, ada, room, "answer")
		eventually(t, 5*time.Second, shows(t, bob, room, "question", "answer"))
		// Cleo's clock is half a day behind: the others lie in her future and wait, her own are back-dated.
		m := say(t, cleo, room, "this morning")
		eventually(t, 5*time.Second, shows(t, ada, room, "this morning", "question", "answer"))
		if got := texts(t, cleo, room); len(got) != 1 {
			t.Errorf("cleo shows %q", got)
		}
		_ = m
		cleo.SetSkew(0) // the clock is put right
		eventually(t, 10*time.Second, shows(t, cleo, room, "this morning", "question", "answer"))
		eventually(t, 10*time.Second, equalDigests(t, 3, room, nodes...))
		m = say(t, cleo, room, "now")
		eventually(t, 5*time.Second, shows(t, ada, room, "this morning", "question", "answer", "now"))
		if m.BackDated {
			t.Error("a message made with the right clock is marked as back-dated")
		}
	})
}

func TestBadInput(t *testing.T) {
	world(t, 15, []string{"ada", "bob"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada := nodes[0].Service()
		room := join(t, "lobby", nodes[0])
		toBob, _ := meet(t, nodes[0], nodes[1])
		for _, target := range []chat.Target{room, toBob} {
			for name, c := range map[string]struct {
				req  chat.SendRequest
				want error
			}{
				"empty":         {chat.SendRequest{}, chat.ErrEmpty},
				"too large":     {chat.SendRequest{Text: strings.Repeat("x", 16<<10+1)}, chat.ErrTooLarge},
				"not UTF-8":     {chat.SendRequest{Text: "\xff"}, chat.ErrInvalidUTF8},
				"NUL":           {chat.SendRequest{Text: "a\x00b"}, chat.ErrInvalidUTF8},
				"action":        {chat.SendRequest{Text: "x", Action: "shout"}, chat.ErrBadRequest},
				"style":         {chat.SendRequest{Text: "x", Style: "loud"}, chat.ErrBadRequest},
				"edit nothing":  {chat.SendRequest{Text: "x", Action: chat.ActionEdit}, chat.ErrNotFound},
				"long clientID": {chat.SendRequest{Text: "x", ClientID: strings.Repeat("c", 129)}, chat.ErrTooLarge},
			} {
				c.req.Target = target
				_, err := ada.Send(t.Context(), c.req)
				wantErr(t, name, err, c.want)
			}
		}
		_, err := ada.Join(t.Context(), "no spaces please", "")
		wantErr(t, "bad room name", err, chat.ErrBadName)
		_, err = ada.Join(t.Context(), "lobby", "secret")
		wantErr(t, "the same name with a password", err, chat.ErrConflict)
		wantErr(t, "bad nick", ada.SetNick(t.Context(), "new\nline"), chat.ErrBadName)
		_, err = ada.Resolve("#nowhere")
		wantErr(t, "unknown room", err, chat.ErrNotFound)
		_, err = ada.Resolve("@nobody")
		wantErr(t, "unknown nick", err, chat.ErrNotFound)
		_, err = ada.Message(t.Context(), chat.MessageID{1})
		wantErr(t, "unknown message", err, chat.ErrNotFound)
		if got := texts(t, nodes[0], room); len(got) != 0 {
			t.Errorf("something was accepted: %q", got)
		}
		// The largest text goes through.
		m := say(t, nodes[0], room, strings.Repeat("x", 16<<10))
		if len(m.Text) != 16<<10 {
			t.Errorf("%d bytes of text came back", len(m.Text))
		}
	})
}

func TestPasswordRoomIsAnother(t *testing.T) {
	world(t, 16, []string{"ada", "bob", "eve"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		n.Set(wan)
		for i, password := range []string{"pw", "pw", ""} {
			if _, err := nodes[i].Service().Join(t.Context(), "club", password); err != nil {
				t.Fatal(err)
			}
		}
		club, err := nodes[0].Service().Resolve("club")
		if err != nil {
			t.Fatal(err)
		}
		open, err := nodes[2].Service().Resolve("club")
		if err != nil || open.ID() == club.ID() {
			t.Fatalf("the room with a password has the id of the one without: %v", err)
		}
		say(t, nodes[0], club, "psst")
		eventually(t, 5*time.Second, shows(t, nodes[1], club, "psst"))
		if got := texts(t, nodes[2], open); len(got) != 0 {
			t.Errorf("the open room shows %q", got)
		}
	})
}
