package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/starling-chat/starling/chat/identity"
	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/node"
	"github.com/starling-chat/starling/node/api"
	"github.com/starling-chat/starling/storage"
)

// TestDiskForensics lets two people exchange 200 direct messages and 200 in a room, deletes some, takes what was
// deleted off the disk, and looks at what a thief finds: nothing in clear in any file, and, with the keys of the
// disk and of the room in hand, no deleted text and no session state but the last one.
func TestDiskForensics(t *testing.T) {
	const each, deleted = 100, 10 // by each of the two, in each of the two conversations
	homes := []string{shortHome(t), shortHome(t)}
	var procs []*proc
	var clients []*api.Client
	for _, home := range homes {
		p, c, _ := launch(t, home, "--no-passphrase")
		procs, clients = append(procs, p), append(clients, c)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for i, c := range clients {
		me, err := clients[1-i].Me(ctx)
		must(err)
		_, err = c.AddContact(ctx, api.ContactRequest{Who: me.Link, Petname: "peer"})
		must(err)
		_, err = c.Join(ctx, api.JoinRequest{Room: "lobby"})
		must(err)
	}
	secret, err := wire.PublicRoomSecret(node.DefaultNetwork, "lobby", "")
	must(err)
	lobby, err := wire.DeriveRoomKeys(secret)
	must(err)
	targets := []string{"@peer", "#lobby"}
	for _, target := range targets {
		for n := range each {
			for i, c := range clients {
				text := fmt.Sprintf("marker kept %s %d by %d", target, n, i)
				if n < deleted {
					text = fmt.Sprintf("marker erased %s %d by %d", target, n, i)
				}
				res, err := c.Send(ctx, api.SendRequest{Target: target, Text: text, Wait: waitFor(target)})
				must(err)
				if n < deleted {
					_, err = c.Send(ctx, api.SendRequest{Target: target, Action: "redact", Ref: res.ID})
					must(err)
				}
			}
		}
	}
	for i, c := range clients {
		for _, target := range targets {
			hears(t, c, target, fmt.Sprintf("marker kept %s %d by %d", target, each-1, 1-i))
		}
	}
	for i, c := range clients {
		must(c.Purge(ctx))
		must(c.Stop(ctx))
		<-procs[i].done
	}
	for i, home := range homes {
		for _, marker := range []string{"marker kept", "marker erased"} {
			if file := fileWith(t, home, marker); file != "" {
				t.Errorf("%q is in clear in %s", marker, file)
			}
		}
		keys, err := identity.OpenKeys(filepath.Join(home, "keys"), identity.NoPassphrase(), rand.Reader)
		must(err)
		key := keys.SubKey("store")
		kept, erased, sessions, said := 0, map[string]bool{}, 0, 0
		sealed, err := storage.EveryVersion(ctx, storage.DefaultOptions(filepath.Join(home, "store"), key[:]), func(k, plain []byte) {
			if bytes.Contains(plain, []byte("marker kept")) {
				kept++
			}
			if j := bytes.Index(plain, []byte("marker erased")); j >= 0 {
				erased[fmt.Sprintf("%q: %.40q", k[0], plain[j:])] = true
			}
			if k[0] == 'p' && bytes.Contains(k, []byte("sessions")) {
				sessions++
			}
			text := saidInRoom(lobby, plain)
			if bytes.Contains(text, []byte("marker kept")) {
				said++
			}
			if bytes.Contains(text, []byte("marker erased")) {
				erased[fmt.Sprintf("%q, under the room's key: %.60q", k[0], text)] = true
			}
		})
		must(err)
		if kept < 2*(each-deleted) { // a test that opens nothing proves nothing
			t.Errorf("node %d: only %d of the kept direct messages open", i, kept)
		}
		if said < 2*(each-deleted) {
			t.Errorf("node %d: only %d of the kept messages of the room open", i, said)
		}
		for text := range erased {
			t.Errorf("node %d: a deleted text opens: %s", i, text)
		}
		if sessions != 1 {
			t.Errorf("node %d: %d session states open, want the last one only", i, sessions)
		}
		t.Logf("node %d: %d values open with a kept text, %d more under the room's key, %d are sealed for ever", i, kept, said, sealed)
	}
}

// saidInRoom opens the sealed event of a room that a stored value ends with, and gives its body; nil if there
// is none.
func saidInRoom(keys *wire.RoomKeys, value []byte) []byte {
	version := []byte{1 << 3, 1} // field 1, a varint: how a sealed event begins
	for from := 0; from < min(len(value), 64); from++ {
		at := bytes.Index(value[from:], version)
		if at < 0 {
			return nil
		}
		from += at
		sealed, err := wire.CheckSealed(keys.Topic, value[from:])
		if err != nil {
			continue
		}
		if ev, err := keys.Open(sealed); err == nil {
			return ev.Bytes()
		}
	}
	return nil
}

func waitFor(target string) string {
	if strings.HasPrefix(target, "@") {
		return "sent"
	}
	return ""
}

// hears waits until a conversation shows a text.
func hears(t *testing.T, c *api.Client, target, text string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); {
		list, err := c.History(t.Context(), api.HistoryQuery{Target: target, N: 50})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range list {
			if m.Text == text {
				return
			}
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("%q did not arrive in %s", text, target)
}
