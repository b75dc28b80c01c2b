package chat_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/chattest"
	"github.com/starling-chat/starling/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world runs a test on an in-memory network in virtual time, and stops every node at the end.
func world(t *testing.T, seed uint64, names []string, test func(t *testing.T, n *chattest.Network, nodes []*chattest.Node)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := chattest.New(t, seed)
		nodes := make([]*chattest.Node, len(names))
		for i, name := range names {
			nodes[i] = n.Node(name)
		}
		for _, nd := range nodes {
			nd.Start()
		}
		defer func() {
			for _, nd := range nodes {
				nd.Stop()
			}
		}()
		test(t, n, nodes)
	})
}

// join makes nodes join a room under their names.
func join(t *testing.T, room string, nodes ...*chattest.Node) chat.Target {
	t.Helper()
	for _, nd := range nodes {
		if err := nd.Service().SetNick(t.Context(), nd.Name); err != nil {
			t.Fatalf("%s takes its nick: %v", nd.Name, err)
		}
		if _, err := nd.Service().Join(t.Context(), room, ""); err != nil {
			t.Fatalf("%s joins: %v", nd.Name, err)
		}
	}
	target, err := nodes[0].Service().Resolve(room)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(2 * time.Second)
	return target
}

// say sends a text and returns the message.
func say(t *testing.T, nd *chattest.Node, target chat.Target, text string) chat.Message {
	t.Helper()
	m, err := nd.Service().Send(t.Context(), chat.SendRequest{Target: target, Text: text})
	if err != nil {
		t.Fatalf("%s says %q: %v", nd.Name, text, err)
	}
	return m
}

// texts returns what a conversation shows of messages, oldest first.
func texts(t *testing.T, nd *chattest.Node, target chat.Target) []string {
	t.Helper()
	var list []string
	for _, m := range messages(t, nd, target) {
		list = append(list, m.Text)
	}
	return list
}

// messages returns all messages of a conversation, oldest first.
func messages(t *testing.T, nd *chattest.Node, target chat.Target) []chat.Message {
	t.Helper()
	var list []chat.Message
	q := chat.HistoryQuery{Target: target, N: 1000, Local: true} // nothing is fetched to be looked at
	for {
		page, err := nd.Service().History(t.Context(), q)
		if err != nil {
			t.Fatalf("%s reads history: %v", nd.Name, err)
		}
		if len(page) == 0 {
			break
		}
		q.Before = page[0].ID
		list = append(page, list...)
	}
	n := 0
	for _, m := range list {
		if m.Kind == chat.KindMessage {
			list[n] = m
			n++
		}
	}
	return list[:n]
}

// eventually waits in virtual time until check returns nil.
func eventually(t *testing.T, limit time.Duration, check func() error) {
	t.Helper()
	var err error
	pause := max(limit/200, 50*time.Millisecond)
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(pause) {
		synctest.Wait()
		if err = check(); err == nil {
			return
		}
	}
	t.Fatalf("not within %v: %v", limit, err)
}

// shows checks that a node shows exactly these texts in this order.
func shows(t *testing.T, nd *chattest.Node, target chat.Target, want ...string) func() error {
	return func() error {
		got := texts(t, nd, target)
		if fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Errorf("%s shows %q, want %q", nd.Name, got, want)
		}
		return nil
	}
}

// wantErr checks an error's kind.
func wantErr(t *testing.T, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got error %v, want %v", what, err, want)
	}
}

// within is a context that ends after a virtual time.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// noText checks that no live value of the store holds a text in clear after unsealing.
func noText(t *testing.T, nd *chattest.Node, texts ...string) {
	t.Helper()
	check := func(what string, b []byte) {
		for _, text := range texts {
			if bytes.Contains(b, []byte(text)) {
				t.Errorf("%s: %s still holds %q", nd.Name, what, text)
			}
		}
	}
	streams, err := nd.Store.Streams(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range streams {
		for rec, err := range nd.Store.Scan(t.Context(), s.ID, storage.Range{}) {
			if err != nil {
				t.Fatal(err)
			}
			check("a record", rec.Value)
		}
	}
	for _, bucket := range []string{"modifier", "events", "state", "outstate"} {
		for kv, err := range nd.Store.ScanBucket(t.Context(), bucket, nil) {
			if err != nil {
				t.Fatal(err)
			}
			check("bucket "+bucket, kv.Value)
		}
	}
}
