package apiserver

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/chattest"
	"github.com/starling-chat/starling/node/api"
)

// person is a chat service on an in-memory network with its API.
type person struct {
	*api.Client
	node *chattest.Node
	fake *fakeNode
}

// people makes connected persons whose services and servers run in real time.
func people(t *testing.T, change func(*chat.Config), names ...string) []person {
	t.Helper()
	network := chattest.New(t, 1)
	out := make([]person, len(names))
	for i, name := range names {
		nd := network.Node(name)
		if change != nil {
			change(&nd.Config)
		}
		svc := nd.Start()
		t.Cleanup(nd.Stop)
		fake := &fakeNode{stopped: make(chan struct{})}
		c := serve(t, Config{Chat: svc, Node: fake, Maintenance: fake, Version: "v0"})
		out[i] = person{Client: c, node: nd, fake: fake}
	}
	return out
}

// eventually waits for what the other side brings about.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		<-tick.C
	}
}

func (p person) join(t *testing.T, room string) api.Conversation {
	t.Helper()
	c, err := p.Join(t.Context(), api.JoinRequest{Room: room})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (p person) texts(t *testing.T, target string) []string {
	t.Helper()
	page, err := p.History(t.Context(), api.HistoryQuery{Target: target, N: 1000})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, m := range page {
		if m.Kind == api.KindMessage {
			out = append(out, m.Text)
		}
	}
	return out
}

func TestRoomOverTheAPI(t *testing.T) {
	ps := people(t, nil, "ada", "bob")
	ada, bob := ps[0], ps[1]
	ctx := t.Context()
	if me, err := ada.SetNick(ctx, "ada"); err != nil || me.Nick != "ada" || me.PeerID != me.Device || me.Addrs == nil {
		t.Fatalf("me is %+v, %v", me, err)
	}
	room := ada.join(t, "#Lobby")
	if room.Target != "#lobby" || room.Kind != "room" || room.Access != "public" || len(room.ID) != 64 {
		t.Errorf("room is %+v", room)
	}
	bob.join(t, "lobby")
	eventually(t, "meeting", func() error {
		members, err := bob.Members(ctx, "#lobby")
		if err != nil || len(members) != 2 {
			return fmt.Errorf("members %+v, %w", members, err)
		}
		return nil
	})
	sent, err := ada.Send(ctx, api.SendRequest{Target: "lobby", Text: "hello", ClientID: "k"})
	if err != nil || sent.ClientID != "k" || len(sent.ID) != 64 {
		t.Fatalf("result %+v, %v", sent, err)
	}
	again, err := ada.Send(ctx, api.SendRequest{Target: "lobby", Text: "hello", ClientID: "k"})
	if err != nil || again.ID != sent.ID {
		t.Errorf("the same client id gave %+v, %v", again, err)
	}
	eventually(t, "arrival", func() error {
		if got := bob.texts(t, "#lobby"); !slices.Equal(got, []string{"hello"}) {
			return fmt.Errorf("texts %q", got)
		}
		return nil
	})
	m, err := bob.Message(ctx, sent.ID)
	if err != nil || m.Nick != "ada" || m.Room != "lobby" || m.Conversation != room.ID || m.State != api.StateReceived || m.Own || m.SentAt.IsZero() {
		t.Errorf("message %+v, %v", m, err)
	}
	for _, req := range []api.SendRequest{
		{Target: "lobby", Action: api.ActionEdit, Ref: sent.ID, Text: "hello all"},
		{Target: "lobby", Action: api.ActionReact, Ref: sent.ID, Text: "+1"},
		{Target: "lobby", ReplyTo: sent.ID, Text: "as I said"},
	} {
		if _, err := ada.Send(ctx, req); err != nil {
			t.Errorf("%s: %v", req.Action, err)
		}
	}
	if err := ada.SetTopic(ctx, "lobby", "birds"); err != nil {
		t.Error(err)
	}
	eventually(t, "changes", func() error {
		m, err := bob.Message(ctx, sent.ID)
		all, err2 := bob.Conversations(ctx)
		if err != nil || err2 != nil || !m.Edited || m.Text != "hello all" || len(m.Reactions) != 1 || all[0].Topic != "birds" || len(bob.texts(t, "lobby")) != 2 {
			return fmt.Errorf("message %+v, conversations %+v, %w", m, all, err)
		}
		return nil
	})
	da, err := ada.Digest(ctx, "lobby")
	db, err2 := bob.Digest(ctx, "lobby")
	if err != nil || err2 != nil || da != db || da.Count != 2 {
		t.Errorf("digests %+v and %+v, %v %v", da, db, err, err2)
	}
	found, err := bob.Search(ctx, api.SearchQuery{Query: "hello", In: "lobby", From: "@ada"})
	if err != nil || len(found) != 1 {
		t.Errorf("search found %+v, %v", found, err)
	}
	all, err := bob.Conversations(ctx)
	if err != nil || all[0].Unread == 0 {
		t.Errorf("conversations %+v, %v", all, err)
	}
	if err := bob.MarkRead(ctx, "lobby", all[0].LastSeq); err != nil {
		t.Error(err)
	}
	if err := bob.SetMuted(ctx, "lobby", true); err != nil {
		t.Error(err)
	}
	if all, err = bob.Conversations(ctx); err != nil || all[0].Unread != 0 || !all[0].Muted {
		t.Errorf("conversations %+v, %v", all, err)
	}
	st, err := bob.Status(ctx)
	if err != nil || st.Rooms != 1 || st.Account == "" || st.Storage.State == "" {
		t.Errorf("status %+v, %v", st, err)
	}
	if err := bob.Leave(ctx, "lobby"); err != nil {
		t.Error(err)
	}
	_, err = bob.Send(ctx, api.SendRequest{Target: "lobby", Text: "x"})
	wantCode(t, err, api.CodeNotFound)
}

func TestDirectMessageOverTheAPI(t *testing.T) {
	ps := people(t, nil, "ada", "bob")
	ada, bob := ps[0], ps[1]
	ctx := t.Context()
	for _, p := range []struct{ from, to person }{{ada, bob}, {bob, ada}} {
		them, err := p.to.Me(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.from.AddContact(ctx, api.ContactRequest{Who: them.Link, Petname: "friend"}); err != nil {
			t.Fatal(err)
		}
	}
	res, err := ada.Send(ctx, api.SendRequest{Target: "@friend", Text: "psst", Wait: api.StateDelivered})
	if err != nil || res.Error != nil || res.State != api.StateDelivered {
		t.Fatalf("result %+v (%v), %v", res, res.Error, err)
	}
	if got := bob.texts(t, "@friend"); !slices.Equal(got, []string{"psst"}) {
		t.Errorf("texts %q", got)
	}
	m, err := bob.Message(ctx, res.ID)
	me, err2 := ada.Me(ctx)
	if err != nil || err2 != nil || m.Conversation != me.Account || m.Target != "@friend" {
		t.Errorf("message %+v, %v; its conversation is the other's account %s", m, err, me.Account)
	}
	ada.fake.ping = func(peer string) (api.PingResult, error) { return api.PingResult{PeerID: peer}, nil }
	them, err := bob.Me(ctx)
	if ping, err2 := ada.Ping(ctx, "@friend"); err != nil || err2 != nil || ping.PeerID != them.PeerID {
		t.Errorf("ping reached %+v, %v", ping, err2)
	}
	v, err := ada.Verification(ctx, "@friend")
	w, err2 := bob.Verification(ctx, "@friend")
	if err != nil || err2 != nil || v.SafetyNumber != w.SafetyNumber || v.Trust != api.TrustUnverified {
		t.Errorf("verifications %+v and %+v", v, w)
	}
	if c, err := ada.SetTrust(ctx, "@friend", api.TrustVerified); err != nil || c.Trust != api.TrustVerified {
		t.Errorf("contact %+v, %v", c, err)
	}

	bob.node.Stop()
	res, err = ada.Send(ctx, api.SendRequest{Target: "@friend", Text: "later", Wait: api.StateDelivered, TimeoutMS: 50})
	if err != nil || res.Error == nil || res.Error.Code != api.CodeTimeout || res.ID == "" || res.State == api.StateFailed {
		t.Errorf("a time-out leaves the message standing: %+v (%v), %v", res, res.Error, err)
	}
	entries, err := ada.Outbox(ctx)
	if err != nil || len(entries) != 1 || entries[0].ID != res.ID || entries[0].CreatedAt.IsZero() {
		t.Errorf("outbox %+v, %v", entries, err)
	}
	if err := ada.ChangeOutbox(ctx, res.ID, api.OutboxCancel); err != nil {
		t.Error(err)
	}
	if entries, err = ada.Outbox(ctx); err != nil || len(entries) != 0 {
		t.Errorf("outbox after the cancel %+v, %v", entries, err)
	}
	if err := ada.ChangeContact(ctx, api.ContactChange{Who: "@friend", Action: api.ContactBlock}); err != nil {
		t.Error(err)
	}
	_, err = ada.Send(ctx, api.SendRequest{Target: "@friend", Text: "x"})
	wantCode(t, err, api.CodeDenied)
}

func TestSettingsOverTheAPI(t *testing.T) {
	ada := people(t, nil, "ada")[0]
	ctx := t.Context()
	if v, err := ada.Setting(ctx, "draft"); err != nil || v != "" {
		t.Errorf("a setting that was never set is %q, %v", v, err)
	}
	if err := ada.SetSetting(ctx, "draft", "half a"); err != nil {
		t.Fatal(err)
	}
	if v, err := ada.Setting(ctx, "draft"); err != nil || v != "half a" {
		t.Errorf("setting is %q, %v", v, err)
	}
}

func TestRefusals(t *testing.T) {
	ada := people(t, nil, "ada")[0]
	ada.join(t, "lobby")
	ctx := t.Context()
	send := func(req api.SendRequest) func() error {
		return func() error { _, err := ada.Send(ctx, req); return err }
	}
	tests := []struct {
		name string
		do   func() error
		code api.Code
	}{
		{"bad room", func() error { _, err := ada.Join(ctx, api.JoinRequest{Room: "a b"}); return err }, api.CodeBadRequest},
		{"bad nick", func() error { _, err := ada.SetNick(ctx, strings.Repeat("n", 65)); return err }, api.CodeBadRequest},
		{"unknown room", send(api.SendRequest{Target: "dev", Text: "x"}), api.CodeNotFound},
		{"unknown person", send(api.SendRequest{Target: "@bob", Text: "x"}), api.CodeNotFound},
		{"empty text", send(api.SendRequest{Target: "lobby"}), api.CodeBadRequest},
		{"long text", send(api.SendRequest{Target: "lobby", Text: strings.Repeat("x", 17<<10)}), api.CodeTooLarge},
		{"bad reference", send(api.SendRequest{Target: "lobby", Text: "x", ReplyTo: "zz"}), api.CodeBadRequest},
		{"receipt of a room", send(api.SendRequest{Target: "lobby", Text: "x", Wait: api.StateDelivered}), api.CodeBadRequest},
		{"unknown message", func() error { _, err := ada.Message(ctx, strings.Repeat("0", 64)); return err }, api.CodeNotFound},
		{"ping a room", func() error { _, err := ada.Ping(ctx, "starling:nonsense"); return err }, api.CodeBadRequest},
		{"search by a room", func() error { _, err := ada.Search(ctx, api.SearchQuery{Query: "x", From: "lobby"}); return err }, api.CodeBadRequest},
		{"endless invite", func() error { _, err := ada.CreateInvite(ctx, api.InviteRequest{ExpiryMS: 1 << 50}); return err }, api.CodeBadRequest},
		{"unknown outbox entry", func() error { return ada.ChangeOutbox(ctx, strings.Repeat("0", 64), api.OutboxRetry) }, api.CodeNotFound},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := wantCode(t, tt.do(), tt.code)
			if strings.Contains(e.Message, "\n") {
				t.Errorf("more than one line: %q", e.Message)
			}
		})
	}
	if got := ada.texts(t, "lobby"); len(got) != 0 {
		t.Errorf("something refused was sent: %q", got)
	}
}

// TestBatchOverTheAPI mixes good and bad lines: answers come in order, and what is accepted is in the
// history in the order of the lines.
func TestBatchOverTheAPI(t *testing.T) {
	ada := people(t, nil, "ada")[0]
	ada.join(t, "lobby")
	var in, want strings.Builder
	var texts []string
	line := func(s, state string) {
		in.WriteString(s + "\n")
		want.WriteString(state + " ")
	}
	for i := range 1000 {
		text := "message " + strconv.Itoa(i)
		b, _ := json.Marshal(api.BatchItem{ClientID: strconv.Itoa(i), Text: text})
		line(string(b), strconv.Itoa(i)+"=ok")
		texts = append(texts, text)
	}
	line(`{"client_id":"7","text":"message 7"}`, "7=ok")
	line(`no json`, "=bad_request")
	line(`{"client_id":"e","text":""}`, "e=bad_request")
	line(`{"client_id":"f","txt":"typo"}`, "f=bad_request")
	line("{\"client_id\":\"u\",\"text\":\"a\xff\"}", "=bad_request")
	line(`{"client_id":"l","text":"`+strings.Repeat("x", 17<<10)+`"}`, "l=too_large")
	line(`{"client_id":"L","text":"`+strings.Repeat("x", 200<<10)+`"}`, "=too_large")
	in.WriteString("\n   \n") // blank lines have no answer
	line(`{"text":"without an id"}`, "=ok")
	in.WriteString(`{"client_id":"end","text":"without a newline"}`)
	want.WriteString("end=ok ")
	texts = append(texts, "without an id", "without a newline")

	var got strings.Builder
	err := ada.Batch(t.Context(), "#lobby", strings.NewReader(in.String()), func(r api.SendResult) error {
		state := "ok"
		switch {
		case r.Error != nil:
			state = string(r.Error.Code)
			if r.State != api.StateFailed || r.ID != "" {
				t.Errorf("refused line has %+v", r)
			}
		case len(r.ID) != 64 || r.State == "":
			t.Errorf("accepted line has %+v", r)
		}
		fmt.Fprintf(&got, "%s=%s ", r.ClientID, state)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != want.String() {
		t.Errorf("answers end with\n%s\nwant\n%s", tailOf(got.String()), tailOf(want.String()))
	}
	all := ada.texts(t, "lobby")
	if want := texts[len(texts)-1000:]; !slices.Equal(all, want) { // a page has 1,000
		t.Errorf("history has %d texts, ending with %q", len(all), all[max(0, len(all)-3):])
	}
}

func tailOf(s string) string { return s[max(0, len(s)-300):] }

// TestStopBreaksABatch checks that a server that stops answers what was accepted and then breaks
// the stream, so that nobody takes the part for the whole.
func TestStopBreaksABatch(t *testing.T) {
	network := chattest.New(t, 1)
	nd := network.Node("ada")
	svc := nd.Start()
	t.Cleanup(nd.Stop)
	fake := &fakeNode{}
	srv, err := New(Config{Chat: svc, Node: fake, Maintenance: fake})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := Listen(runtimeDir(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx, ln) }()
	c := api.NewClient(ln.Path())
	defer c.Close()
	if _, err := c.Join(t.Context(), api.JoinRequest{Room: "lobby"}); err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	defer w.Close()
	go io.WriteString(w, `{"client_id":"1","text":"one"}`+"\n") // the pipe stays open: more could come
	n := 0
	err = c.Batch(t.Context(), "lobby", r, func(res api.SendResult) error {
		n++
		stop()
		return nil
	})
	wantCode(t, err, api.CodeNotRunning)
	if n != 1 {
		t.Errorf("%d answers, want 1", n)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestEventsOverTheAPI follows a room, breaks off, and resumes: nothing is missed, nothing comes twice.
func TestEventsOverTheAPI(t *testing.T) {
	ps := people(t, nil, "ada", "bob")
	ada, bob := ps[0], ps[1]
	ada.join(t, "lobby")
	bob.join(t, "lobby")
	eventually(t, "meeting", func() error {
		if m, err := bob.Members(t.Context(), "lobby"); err != nil || len(m) != 2 {
			return fmt.Errorf("members %v, %w", m, err)
		}
		return nil
	})
	var cursor uint64
	for ev, err := range bob.Events(t.Context(), 0) {
		if err != nil || ev.Type != api.EventHello || ev.Cursor == 0 {
			t.Fatalf("first event is %+v, %v; want a hello with the present cursor", ev, err)
		}
		cursor = ev.Cursor
		break
	}
	// Nothing was listening while these were sent.
	want := []string{"one", "two", "three"}
	for _, text := range want {
		if _, err := ada.Send(t.Context(), api.SendRequest{Target: "lobby", Text: text}); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	last := cursor
	for ev, err := range bob.Events(t.Context(), cursor) {
		if err != nil {
			t.Fatal(err)
		}
		if ev.Type == api.EventReset {
			t.Fatal("a cursor that is still in the log gave a reset")
		}
		if ev.Type != api.EventHello && ev.Cursor != 0 {
			if ev.Cursor <= last {
				t.Errorf("cursor %d after %d", ev.Cursor, last)
			}
			last = ev.Cursor
		}
		if ev.Type == api.EventMessage && ev.Message.Kind == api.KindMessage {
			got = append(got, ev.Message.Text)
		}
		if len(got) == len(want) {
			break
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("texts %q, want %q", got, want)
	}
}

// TestOldCursorResets uses cursors that the log no longer holds, or never gave out.
func TestOldCursorResets(t *testing.T) {
	ada := people(t, func(c *chat.Config) { c.Limits.EventLog = 4 }, "ada")[0]
	ada.join(t, "lobby")
	var cursor uint64
	for ev := range ada.Events(t.Context(), 0) {
		cursor = ev.Cursor
		break
	}
	for i := range 20 {
		if _, err := ada.Send(t.Context(), api.SendRequest{Target: "lobby", Text: strconv.Itoa(i)}); err != nil {
			t.Fatal(err)
		}
	}
	for _, since := range []uint64{cursor, 1, 1 << 60} {
		var types []string
		for ev, err := range ada.Events(t.Context(), since) {
			if err != nil {
				t.Fatal(err)
			}
			types = append(types, ev.Type)
			if ev.Type == api.EventReset && ev.Cursor == 0 {
				t.Error("a reset does not say where the stream goes on")
			}
			if len(types) == 2 {
				break
			}
		}
		if want := []string{api.EventHello, api.EventReset}; !slices.Equal(types, want) {
			t.Errorf("since %d gave %v, want %v", since, types, want)
		}
	}
}
