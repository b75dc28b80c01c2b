package chat_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/chattest"
	"github.com/starling-chat/starling/storage"
)

// fill says many things on as many days, which pass for all the nodes by their clocks alone.
func fill(t *testing.T, nodes []*chattest.Node, room chat.Target, days, each int) []string {
	t.Helper()
	var want []string
	for d := range days {
		nd := nodes[0]
		for i := range each {
			want = append(want, fmt.Sprintf("day %d line %d", d, i))
			say(t, nd, room, want[len(want)-1])
		}
		for _, nd := range nodes {
			time.Sleep(time.Second)
			nd.SetSkew(time.Duration(d+1) * 24 * time.Hour)
		}
	}
	return want
}

// scrollBack reads a room page by page, as a front-end does, until nothing older comes.
func scrollBack(t *testing.T, nd *chattest.Node, room chat.Target) []string {
	t.Helper()
	var all []string
	q := chat.HistoryQuery{Target: room, N: 50}
	for range 1000 {
		page, err := nd.Service().History(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for _, m := range page {
			if m.Kind == chat.KindMessage {
				lines = append(lines, m.Text)
			}
		}
		all = append(lines, all...)
		if len(page) == 0 {
			return all
		}
		q.Before = page[0].ID
	}
	t.Fatal("the history has no end")
	return nil
}

func TestNewcomerScrollsBackToTheFirstWord(t *testing.T) {
	world(t, 310, []string{"ada", "bob", "cleo"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada, bob, cleo := nodes[0], nodes[1], nodes[2]
		room := join(t, "lobby", ada, bob)
		want := fill(t, nodes, room, 30, 40)
		sub := cleo.Service().Events(0)
		defer sub.Close()
		join(t, "lobby", cleo)
		time.Sleep(30 * time.Second)
		c, err := cleo.Service().Conversation(t.Context(), room)
		if err != nil {
			t.Fatal(err)
		}
		page, err := cleo.Service().History(t.Context(), chat.HistoryQuery{Target: room, N: 1000})
		if err != nil {
			t.Fatal(err)
		}
		recent := len(page)
		if recent == 0 || recent > 8*40+10 {
			t.Fatalf("a newcomer is given %d messages, want at most those of 8 days", recent)
		}
		if got := scrollBack(t, cleo, room); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("%d lines, want %d", len(got), len(want))
		}
		after, err := cleo.Service().Conversation(t.Context(), room)
		if err != nil || after.Unread != c.Unread {
			t.Errorf("looking back made %d unread of %d, %v", after.Unread, c.Unread, err)
		}
		// Everything is here now: nobody is asked again.
		ada.Stop()
		bob.Stop()
		if got := scrollBack(t, cleo, room); len(got) != len(want) {
			t.Errorf("%d lines without the others, want %d", len(got), len(want))
		}
	})
}

func TestOldMessagesGoAndDoNotComeBack(t *testing.T) {
	world(t, 311, []string{"ada", "bob"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada, bob := nodes[0], nodes[1]
		room := join(t, "lobby", ada, bob)
		first := say(t, ada, room, "the very first")
		time.Sleep(time.Second)
		if _, err := bob.Service().Send(t.Context(), chat.SendRequest{Target: room, Action: chat.ActionReact, Ref: first.ID, Text: "+"}); err != nil {
			t.Fatal(err)
		}
		fill(t, nodes, room, 20, 20)
		svc := bob.Service()
		if err := svc.SetRetention(t.Context(), room, &chat.Retention{Age: 5 * 24 * time.Hour}); err != nil {
			t.Fatal(err)
		}
		kept := len(messages(t, bob, room))
		if kept < 5*20 || kept > 6*20 {
			t.Errorf("%d messages are kept of 5 days, want 100 to 120", kept)
		}
		if _, err := svc.Message(t.Context(), first.ID); err == nil {
			t.Error("the first message is still found")
		}
		if hits, err := svc.Search(t.Context(), chat.SearchQuery{Query: "very first"}); err != nil || len(hits) != 0 {
			t.Errorf("search still finds %v, %v", hits, err)
		}
		noText(t, bob, "the very first")
		c, err := svc.Conversation(t.Context(), room)
		if err != nil || len(c.Gaps) != 0 || c.Unread > kept {
			t.Errorf("gaps %v, %d unread of %d kept, %v", c.Gaps, c.Unread, kept, err)
		}
		// Neither sync nor scrolling back nor a restart brings it back.
		say(t, ada, room, "one more")
		time.Sleep(20 * time.Minute)
		if got := len(scrollBack(t, bob, room)); got != kept+1 {
			t.Errorf("%d messages after sync, want %d", got, kept+1)
		}
		bob.Stop()
		bob.Start()
		time.Sleep(12 * time.Minute)
		if got := len(messages(t, bob, room)); got > kept+1 {
			t.Errorf("%d messages after a restart, want at most %d", got, kept+1)
		}
		if got := len(scrollBack(t, ada, room)); got != 402 {
			t.Errorf("ada keeps %d messages, want all 402", got)
		}
		// By number.
		if err := bob.Service().SetRetention(t.Context(), chat.Target{}, &chat.Retention{Count: 100}); err != nil {
			t.Fatal(err)
		}
		if err := bob.Service().SetRetention(t.Context(), room, nil); err != nil {
			t.Fatal(err)
		}
		stream, err := bob.Store.LookupStream(t.Context(), "room/"+string(room.Room[:]))
		if err != nil {
			t.Fatal(err)
		}
		if count, err := bob.Store.Count(t.Context(), stream); err != nil || count > 100 {
			t.Errorf("%d records are kept, want at most 100, %v", count, err)
		}
		checkStore(t, bob)
	})
}

// checkStore says that counts, indexes and digests of a node's store agree.
func checkStore(t *testing.T, nd *chattest.Node) {
	t.Helper()
	rep, err := nd.Store.Check(t.Context())
	if err != nil || !rep.OK() {
		t.Errorf("the store is not whole: %+v, %v", rep, err)
	}
}

func TestDiskBoundTakesFromTheBiggestRoom(t *testing.T) {
	world(t, 312, []string{"ada"}, func(t *testing.T, n *chattest.Network, nodes []*chattest.Node) {
		ada := nodes[0]
		small, big := join(t, "small", ada), join(t, "big", ada)
		for i := range 20 {
			say(t, ada, small, fmt.Sprint("small ", i))
		}
		long := strings.Repeat("x", 16_000)
		for i := range 1200 {
			if _, err := ada.Service().Send(t.Context(), chat.SendRequest{Target: big, Text: fmt.Sprint(i, long)}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(300 * time.Millisecond)
		}
		if err := ada.Service().SetRetention(t.Context(), chat.Target{}, &chat.Retention{Disk: 16 << 20}); err != nil {
			t.Fatal(err)
		}
		if got := len(messages(t, ada, small)); got != 20 {
			t.Errorf("the small room has %d messages, want 20", got)
		}
		stream, err := ada.Store.LookupStream(t.Context(), "room/"+string(big.Room[:]))
		if err != nil {
			t.Fatal(err)
		}
		var info storage.StreamInfo
		if info, err = ada.Store.Info(t.Context(), stream); err != nil || info.Bytes > 16<<20 || info.Count < 800 {
			t.Errorf("the big room has %d records of %d bytes, %v", info.Count, info.Bytes, err)
		}
		checkStore(t, ada)
	})
}
