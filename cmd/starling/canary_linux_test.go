package main

import (
	"bytes"
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/starling-chat/starling/node/api"
	"github.com/starling-chat/starling/node/natlab"
)

// Nothing that people say, and no name they use, is seen by anybody on the way: not in any packet, not on
// a relay's disk, not in its log.
func TestLabCanary(t *testing.T) {
	t.Parallel()
	onlyFull(t)
	f := newField(t)
	relays := f.relays(1)
	homeA, homeB := f.Home("home A", natlab.Cone), f.Home("home B", natlab.UDPBlocked)
	hostA, hostB, hostC := homeA.Host("ada"), homeB.Host("bob"), homeA.Host("cleo")
	captures := []*natlab.Capture{relays[0].host.Capture(t), hostA.Capture(t), hostB.Capture(t), hostC.Capture(t)}
	a, b, c := f.run(hostA, by(relays...)...), f.run(hostB, by(relays...)...), f.run(hostC, by(relays...)...)
	const room, nick, text, private, topic, petname = "canaryroom", "canarynick", "canarytext", "canarywhisper", "canarytopic", "canarypet"
	for _, s := range []*station{a, b, c} {
		ask(s, "nick", func(ctx context.Context) (api.Me, error) { return s.api.SetNick(ctx, nick+s.name) })
		s.join(room)
	}
	me := ask(b, "me", b.api.Me)
	ask(a, "contact add", func(ctx context.Context) (api.Contact, error) {
		return a.api.AddContact(ctx, api.ContactRequest{Who: me.Link, Petname: petname})
	})
	ask(a, "topic", func(ctx context.Context) (struct{}, error) { return struct{}{}, a.api.SetTopic(ctx, "#"+room, topic) })
	a.send("#"+room, text)
	a.send("@"+petname, private)
	b.hears(volleyTime, text, private)
	c.hears(volleyTime, text)

	canaries := []string{room, nick, text, private, topic, petname}
	for i, capture := range captures {
		if packets, _ := capture.Count(); packets == 0 {
			t.Fatalf("capture %d recorded nothing", i)
		}
		for _, canary := range canaries {
			if capture.Contains([]byte(canary)) {
				t.Errorf("capture %d has %q", i, canary)
			}
		}
	}
	// The control: what does go in clear is found.
	if !captures[2].Contains([]byte("/multistream/1.0.0")) {
		t.Error("the capture does not even have the greeting of libp2p's handshake")
	}
	relays[0].stop()
	for _, canary := range canaries {
		for _, place := range []string{relays[0].home, relays[0].logPath()} {
			if file := fileWith(t, place, canary); file != "" {
				t.Errorf("%q is in %s of the relay", canary, file)
			}
		}
	}
	if fileWith(t, relays[0].logPath(), a.ready.PeerID) == "" {
		t.Error("the search through files does not even find what is there")
	}
}

// fileWith gives the first file under a path whose bytes have the text in them, or "".
func fileWith(t *testing.T, root, text string) string {
	t.Helper()
	found := ""
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err == nil && bytes.Contains(b, []byte(text)) {
			found = path
			return fs.SkipAll
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
