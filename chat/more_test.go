package chat_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/chattest"
	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

func TestSearch(t *testing.T) {
	world(t, 60, []string{"ada", "bob"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		n.Set(wan)
		ada, bob := nodes[0], nodes[1]
		room := join(t, "lobby", ada, bob)
		toBob, toAda := meet(t, ada, bob)
		say(t, ada, room, "The quick brown fox")
		edited := say(t, bob, room, "jumps over a lazy cat")
		say(t, ada, room, "你好，世界")
		gone := say(t, ada, room, "a fox that is deleted")
		for _, req := range []chat.SendRequest{
			{Target: room, Action: chat.ActionEdit, Ref: edited.ID, Text: "jumps over the lazy dog"},
		} {
			if _, err := bob.Service().Send(t.Context(), req); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := ada.Service().Send(t.Context(), chat.SendRequest{Target: room, Action: chat.ActionRedact, Ref: gone.ID}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		delivered(t, ada, say(t, ada, toBob, "a private fox").ID, 10*time.Second)
		time.Sleep(time.Second)
		find := func(q chat.SearchQuery, want ...string) {
			t.Helper()
			got, err := bob.Service().Search(t.Context(), q)
			var found []string
			for _, m := range got {
				found = append(found, m.Text)
			}
			if err != nil || fmt.Sprint(found) != fmt.Sprint(want) {
				t.Errorf("searching %+v finds %q, %v; want %q", q, found, err, want)
			}
		}
		for range 2 {
			find(chat.SearchQuery{Query: "fox"}, "a private fox", "The quick brown fox")
			find(chat.SearchQuery{Query: "FOX quick"}, "The quick brown fox")
			find(chat.SearchQuery{Query: "fox", In: room}, "The quick brown fox")
			find(chat.SearchQuery{Query: "fox", In: toAda}, "a private fox")
			find(chat.SearchQuery{Query: "lazy dog"}, "jumps over the lazy dog")
			find(chat.SearchQuery{Query: "lazy cat"})
			find(chat.SearchQuery{Query: "世界"}, "你好，世界")
			find(chat.SearchQuery{Query: "lazy", From: ada.Account()})
			find(chat.SearchQuery{Query: "fox", N: 1}, "a private fox")
			// The index in memory is lost with the process and made again.
			bob.Stop()
			bob.Start()
			time.Sleep(time.Second)
		}
		_, err := bob.Service().Search(t.Context(), chat.SearchQuery{})
		wantErr(t, "searching nothing", err, chat.ErrBadRequest)
	})
}

func TestHistoryPages(t *testing.T) {
	world(t, 61, []string{"ada"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada := nodes[0]
		room := join(t, "lobby", ada)
		var all []chat.Message
		for i := range 25 {
			all = append(all, say(t, ada, room, fmt.Sprint(i)))
			time.Sleep(time.Second)
		}
		get := func(q chat.HistoryQuery) string {
			t.Helper()
			q.Target = room
			list, err := ada.Service().History(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			text := ""
			for _, m := range list {
				if m.Kind == chat.KindMessage {
					text += m.Text + " "
				}
			}
			return text
		}
		for _, c := range []struct {
			q    chat.HistoryQuery
			want string
		}{
			{chat.HistoryQuery{N: 3}, "22 23 24 "},
			{chat.HistoryQuery{N: 3, Before: all[22].ID}, "19 20 21 "},
			{chat.HistoryQuery{N: 3, After: all[3].ID}, "4 5 6 "},
			{chat.HistoryQuery{N: 9, After: all[22].ID}, "23 24 "},
			{chat.HistoryQuery{N: 9, After: all[3].ID, Before: all[7].ID}, "4 5 6 "},
			{chat.HistoryQuery{N: 9, Since: all[22].SentAt}, "22 23 24 "},
			{chat.HistoryQuery{N: 2, Since: all[20].SentAt}, "23 24 "},
		} {
			if got := get(c.q); got != c.want {
				t.Errorf("page %+v: %q, want %q", c.q, got, c.want)
			}
		}
		_, err := ada.Service().History(t.Context(), chat.HistoryQuery{Target: room, Before: chat.MessageID{9}})
		wantErr(t, "a page before a message that does not exist", err, chat.ErrNotFound)
	})
}

func TestUnknownKindsAreKeptAndShown(t *testing.T) {
	world(t, 62, []string{"ada", "bob"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		n.Set(wan)
		n.Record()
		ada, bob := nodes[0], nodes[1]
		room := join(t, "lobby", ada, bob)
		topic := n.Recording()[0].Topic
		secret, err := bob.Config.RoomSecret("test", "lobby", "")
		if err != nil {
			t.Fatal(err)
		}
		keys, err := wire.DeriveRoomKeys(secret)
		if err != nil || keys.Topic != topic {
			t.Fatal(err)
		}
		// Somebody with a newer version says something of kind 77, as the first event of a new device.
		stranger := n.Node("new")
		cert, err := stranger.Config.Certificate(stranger.Now())
		if err != nil {
			t.Fatal(err)
		}
		ev, err := wire.NewEvent(wire.Header{
			Kind: 77, Room: *room.Room, Certificate: cert, HLC: wire.HLCFromTime(stranger.Now()), DeviceSeq: 1,
		}, []byte("from the future"), stranger.Config.Device.PrivateKey(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := keys.Seal(ev)
		if err != nil {
			t.Fatal(err)
		}
		ada.Deliver(chattest.Recorded{Topic: topic, Sealed: sealed.Bytes()})
		for _, nd := range nodes { // bob learns it by sync, from ada, who does not understand it either
			eventually(t, 10*time.Minute, func() error {
				list, err := nd.Service().History(t.Context(), chat.HistoryQuery{Target: room})
				if err != nil {
					return err
				}
				for _, m := range list {
					if m.ID == chat.MessageID(ev.ID) && m.Kind == chat.KindUnknown && m.Account == stranger.Account() {
						return nil
					}
				}
				return fmt.Errorf("%s does not show it", nd.Name)
			})
		}
	})
}

func TestForeignEventsMeanNothing(t *testing.T) {
	// A member of the room seals what is not true: another room's id, a signature that does not hold, a
	// body that does not parse. It stays in the set and is not shown, and authors are not harmed by it.
	world(t, 63, []string{"ada", "bob"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		n.Set(wan)
		ada, bob := nodes[0], nodes[1]
		room := join(t, "lobby", ada, bob)
		secret, err := ada.Config.RoomSecret("test", "lobby", "")
		if err != nil {
			t.Fatal(err)
		}
		keys, err := wire.DeriveRoomKeys(secret)
		if err != nil {
			t.Fatal(err)
		}
		eve := n.Node("eve")
		cert, err := eve.Config.Certificate(eve.Now())
		if err != nil {
			t.Fatal(err)
		}
		make := func(h wire.Header, content []byte) *wire.Event {
			h.Certificate, h.HLC, h.DeviceSeq = cert, wire.HLCFromTime(eve.Now()), 1
			ev, err := wire.NewEvent(h, content, eve.Config.Device.PrivateKey(), rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			return ev
		}
		text, err := wire.EncodeBody(&wire.MessageBody{Text: "lies"})
		if err != nil {
			t.Fatal(err)
		}
		bad := []*wire.Event{
			make(wire.Header{Kind: wire.KindMessage, Room: wire.RoomID{7}}, text),
			make(wire.Header{Kind: wire.KindMessage, Room: *room.Room, Epoch: 3}, text),
			make(wire.Header{Kind: wire.KindMessage, Room: *room.Room}, []byte{0xff, 0xff}),
			make(wire.Header{Kind: wire.KindProfile, Room: *room.Room}, []byte{0x0a, 0x03, 'a', 0x1b, 'b'}),
		}
		forged := make(wire.Header{Kind: wire.KindMessage, Room: *room.Room}, text)
		raw := append([]byte(nil), forged.Bytes()...)
		raw[len(raw)-len(text)-16-2-1] ^= 1 // the last byte of the signature
		if ev, err := wire.ParseEvent(raw); err == nil && ev.Verify() != nil {
			bad = append(bad, ev)
		} else {
			t.Fatalf("the signature was not damaged: %v", err)
		}
		for _, ev := range bad {
			sealed, err := keys.Seal(ev)
			if err != nil {
				t.Fatal(err)
			}
			ada.Deliver(chattest.Recorded{Topic: keys.Topic, Sealed: sealed.Bytes()})
		}
		say(t, ada, room, "hello")
		eventually(t, 10*time.Second, shows(t, bob, room, "hello"))
		time.Sleep(10 * time.Minute) // sync brings them to bob
		for _, nd := range nodes {
			if err := shows(t, nd, room, "hello")(); err != nil {
				t.Error(err)
			}
			members, err := nd.Service().Members(t.Context(), room)
			if err != nil || len(members) != 2 {
				t.Errorf("%s sees %d members, %v", nd.Name, len(members), err)
			}
		}
		count := func(nd *chattest.Node) int {
			stream, err := nd.Store.LookupStream(t.Context(), "room/"+string(room.Room[:]))
			if err != nil {
				t.Fatal(err)
			}
			info, err := nd.Store.Info(t.Context(), stream)
			if err != nil {
				t.Fatal(err)
			}
			return int(info.Count)
		}
		if a, b := count(ada), count(bob); a != b {
			t.Errorf("the sets differ: %d and %d records", a, b)
		}
	})
}

// deafGossip fails to join and to publish until it is told otherwise.
type deafGossip struct {
	chat.Gossip
	works atomic.Bool
}

var errDeaf = errors.New("no network yet")

func (g *deafGossip) Join(ctx context.Context, keys *wire.RoomKeys, deliver func(chat.Incoming)) error {
	if !g.works.Load() {
		return errDeaf
	}
	return g.Gossip.Join(ctx, keys, deliver)
}

func (g *deafGossip) Publish(ctx context.Context, topic wire.TopicKey, sealed []byte) error {
	if !g.works.Load() {
		return errDeaf
	}
	return g.Gossip.Publish(ctx, topic, sealed)
}

func TestNetworkThatComesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := chattest.New(t, 64)
		n.Set(wan)
		ada, bob := n.Node("ada"), n.Node("bob")
		deaf := &deafGossip{Gossip: ada}
		ada.Config.Gossip = deaf
		ada.Start()
		bob.Start()
		defer ada.Stop()
		defer bob.Stop()
		room := join(t, "lobby", ada, bob)
		m := say(t, ada, room, "can you hear me?")
		if m.State != chat.StateAccepted {
			t.Errorf("an unpublished message has state %q", m.State)
		}
		time.Sleep(time.Minute)
		if got, err := ada.Service().Message(t.Context(), m.ID); err != nil || got.State != chat.StateStored {
			t.Errorf("a message that went by sync has state %q, %v", got.State, err)
		}
		if st := ada.Service().Stats(); st.Unpublished == 0 {
			t.Error("nothing is said to be unpublished")
		}
		ada.Stop() // what was not published survives
		ada.Start()
		time.Sleep(time.Second)
		synctest.Wait()
		deaf.works.Store(true)
		if got, err := ada.Service().WaitState(within(t, 30*time.Second), m.ID, chat.StateSent); err != nil {
			t.Fatalf("%q, %v", got.State, err)
		}
		eventually(t, 10*time.Second, shows(t, bob, room, "can you hear me?"))
	})
}

func TestFullDiskAcceptsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := chattest.New(t, 65)
		n.Set(wan)
		ada, bob := n.Node("ada"), n.Node("bob")
		var free atomic.Uint64
		free.Store(10 << 30)
		store, err := storage.OpenMemory(storage.Options{
			Now: ada.Now, FreeSpace: func(string) (uint64, error) { return free.Load(), nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		ada.Store, ada.Config.Store = store, store
		ada.Start()
		bob.Start()
		defer ada.Stop()
		defer bob.Stop()
		room := join(t, "lobby", ada, bob)
		toBob, toAda := meet(t, ada, bob)
		say(t, ada, room, "one")
		delivered(t, ada, say(t, ada, toBob, "private one").ID, 10*time.Second)
		free.Store(1 << 20)
		time.Sleep(time.Minute)
		for _, target := range []chat.Target{room, toBob} {
			_, err = ada.Service().Send(t.Context(), chat.SendRequest{Target: target, Text: "lost?"})
			wantErr(t, "sending with a full disk", err, chat.ErrReadOnly)
		}
		m := say(t, bob, toAda, "while full")
		say(t, bob, room, "said while full")
		time.Sleep(time.Minute)
		free.Store(10 << 30)
		time.Sleep(time.Minute)
		say(t, ada, room, "two")
		eventually(t, 10*time.Minute, shows(t, ada, room, "one", "said while full", "two"))
		eventually(t, time.Minute, shows(t, bob, room, "one", "said while full", "two"))
		delivered(t, bob, m.ID, 10*time.Minute)
		delivered(t, ada, say(t, ada, toBob, "private two").ID, time.Minute)
		eventually(t, time.Minute, shows(t, bob, toAda, "private one", "while full", "private two"))
		eventually(t, 10*time.Minute, equalDigests(t, 3, room, ada, bob))
	})
}

func TestGapsAreShownAndVanish(t *testing.T) {
	world(t, 66, []string{"ada", "bob"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		n.Set(wan)
		ada, bob := nodes[0], nodes[1]
		room := join(t, "lobby", ada, bob)
		say(t, ada, room, "one")
		eventually(t, 5*time.Second, shows(t, bob, room, "one"))
		n.Set(chattest.Conditions{Delay: 20 * time.Millisecond, Loss: 1})
		for i := range 3 {
			say(t, ada, room, fmt.Sprint("lost ", i))
		}
		time.Sleep(time.Second)
		n.Set(wan)
		say(t, ada, room, "two")
		eventually(t, 2*time.Second, func() error {
			c, err := bob.Service().Conversation(t.Context(), room)
			if err != nil || len(c.Gaps) != 1 || c.Gaps[0].Count != 3 || c.Gaps[0].Nick != "ada" || c.Gaps[0].After.IsZero() {
				return fmt.Errorf("gaps %+v, %v", c.Gaps, err)
			}
			return nil
		})
		eventually(t, time.Minute, shows(t, bob, room, "one", "lost 0", "lost 1", "lost 2", "two"))
		c, err := bob.Service().Conversation(t.Context(), room)
		if err != nil || len(c.Gaps) != 0 {
			t.Errorf("after sync the gaps are %+v, %v", c.Gaps, err)
		}
	})
}

func TestEventsTellEverythingInOrder(t *testing.T) {
	world(t, 67, []string{"ada", "bob"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		n.Set(wan)
		ada, bob := nodes[0], nodes[1]
		room := join(t, "lobby", ada, bob)
		sub := bob.Service().Events(0)
		defer sub.Close()
		m := say(t, ada, room, "hello")
		if _, err := ada.Service().Send(t.Context(), chat.SendRequest{Target: room, Action: chat.ActionEdit, Ref: m.ID, Text: "hello!"}); err != nil {
			t.Fatal(err)
		}
		var last uint64
		kind := chat.EventMessage // the first one is; when both come at once it is the only one
		for text := ""; text != "hello!"; {
			e, err := sub.Next(within(t, 10*time.Second))
			if err != nil {
				t.Fatalf("after %q: %v", text, err)
			}
			if e.Cursor <= last {
				t.Errorf("cursor %d after %d", e.Cursor, last)
			}
			last = e.Cursor
			if e.Message != nil && e.Message.ID == m.ID {
				if e.Type != kind {
					t.Errorf("event %q for %q, want %q", e.Type, e.Message.Text, kind)
				}
				kind, text = chat.EventUpdate, e.Message.Text
			}
		}
		// Typing is live, and only where both sides want it.
		for _, nd := range nodes {
			if err := nd.Service().SetSetting(t.Context(), "typing", "on"); err != nil {
				t.Fatal(err)
			}
		}
		toBob, _ := meet(t, ada, bob)
		delivered(t, ada, say(t, ada, toBob, "hi").ID, 10*time.Second)
		for _, target := range []chat.Target{room, toBob} {
			if err := ada.Service().Typing(t.Context(), target); err != nil {
				t.Fatal(err)
			}
			for {
				e, err := sub.Next(within(t, 10*time.Second))
				if err != nil {
					t.Fatalf("waiting for typing: %v", err)
				}
				if e.Type == chat.EventTyping {
					if e.Cursor != 0 || e.Typing.Nick != "ada" || e.Typing.Account != ada.Account() {
						t.Errorf("typing event %+v", e.Typing)
					}
					break
				}
			}
		}
	})
}

func TestContactsAndLinks(t *testing.T) {
	world(t, 68, []string{"ada", "bob"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		n.Set(wan)
		ada, bob := nodes[0].Service(), nodes[1].Service()
		if err := bob.SetNick(t.Context(), "bob"); err != nil {
			t.Fatal(err)
		}
		c, err := ada.AddContact(t.Context(), bob.Me().Link, "bobby")
		if err != nil || c.Account != nodes[1].Account() || c.Petname != "bobby" || c.State != chat.ContactAsked || c.Nick != "bob" {
			t.Fatalf("adding by link: %+v, %v", c, err)
		}
		_, err = ada.AddContact(t.Context(), nodes[0].Account().String(), "")
		wantErr(t, "adding oneself", err, chat.ErrBadRequest)
		_, err = ada.AddContact(t.Context(), "starling:contact/nonsense", "")
		wantErr(t, "adding a broken link", err, chat.ErrBadRequest)
		_, err = ada.SetContact(t.Context(), "@bobby", "hug", "")
		wantErr(t, "unknown action", err, chat.ErrBadRequest)
		v, err := ada.Verification(t.Context(), "@bobby")
		w, err2 := bob.Verification(t.Context(), nodes[0].Account().String())
		if err != nil || err2 != nil || v.SafetyNumber != w.SafetyNumber || v.Trust != chat.TrustUnverified {
			t.Errorf("safety numbers %q and %q, %v, %v", v.SafetyNumber, w.SafetyNumber, err, err2)
		}
		if c, err = ada.SetTrust(t.Context(), "bobby", chat.TrustVerified); err != nil || c.Trust != chat.TrustVerified {
			t.Errorf("verified: %+v, %v", c, err)
		}
		nodes[0].Stop()
		ada = nodes[0].Start()
		list, err := ada.Contacts(t.Context())
		if err != nil || len(list) != 1 || list[0].Petname != "bobby" || list[0].Trust != chat.TrustVerified {
			t.Errorf("after a restart: %+v, %v", list, err)
		}
		if c, err = ada.SetContact(t.Context(), "bobby", chat.ContactRename, "robert"); err != nil || c.Petname != "robert" {
			t.Errorf("renamed: %+v, %v", c, err)
		}
		if _, err := ada.SetContact(t.Context(), "robert", chat.ContactRemove, ""); err != nil {
			t.Fatal(err)
		}
		if list, err := ada.Contacts(t.Context()); err != nil || len(list) != 0 {
			t.Errorf("after removing: %+v, %v", list, err)
		}
		if _, err := ada.Join(t.Context(), "lobby", ""); err != nil {
			t.Fatal(err)
		}
		room, err := ada.Resolve("lobby")
		if err != nil {
			t.Fatal(err)
		}
		inv, err := ada.CreateInvite(t.Context(), chat.InviteRequest{Target: room})
		if err != nil || inv.Link != "starling:room/lobby?network=test" {
			t.Fatalf("room link: %+v, %v", inv, err)
		}
		if target, err := ada.Resolve(inv.Link); err != nil || target.ID() != room.ID() {
			t.Errorf("resolving the link: %v", err)
		}
		if all, err := ada.Invites(t.Context()); err != nil || len(all) != 1 {
			t.Errorf("invites: %+v, %v", all, err)
		}
		if err := ada.RevokeInvite(t.Context(), inv.ID); err != nil {
			t.Error(err)
		}
		wantErr(t, "revoking twice", ada.RevokeInvite(t.Context(), inv.ID), chat.ErrNotFound)
		if got, err := bob.Join(t.Context(), inv.Link, ""); err != nil || got.Room != "lobby" {
			t.Errorf("joining by link: %+v, %v", got, err)
		}
	})
}

func TestActionsAndNotices(t *testing.T) {
	world(t, 31, []string{"ada", "bob"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada, bob := nodes[0], nodes[1]
		room := join(t, "lobby", ada, bob)
		toBob, _ := meet(t, ada, bob)
		for _, target := range []chat.Target{room, toBob} {
			for _, style := range []chat.Style{"", chat.StyleAction, chat.StyleNotice} {
				sent, err := ada.Service().Send(t.Context(), chat.SendRequest{Target: target, Text: "* waves", Style: style})
				if err != nil || sent.Style != style || sent.Text != "* waves" {
					t.Fatalf("sending with style %q: %+v, %v", style, sent, err)
				}
				eventually(t, 10*time.Second, func() error {
					got, err := bob.Service().Message(t.Context(), sent.ID)
					if err != nil || got.Style != style || got.Text != "* waves" {
						return fmt.Errorf("bob sees style %q as %+v, %v", style, got, err)
					}
					return nil
				})
				edited, err := ada.Service().Send(t.Context(), chat.SendRequest{Target: target, Action: chat.ActionEdit, Ref: sent.ID, Text: "sleeps"})
				if err != nil || edited.Style != style || edited.Text != "sleeps" {
					t.Fatalf("an edit of style %q: %+v, %v", style, edited, err)
				}
			}
		}
	})
}
