package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/starling-chat/starling/node/api"
	"github.com/starling-chat/starling/node/natlab"
)

// Nothing that people say, and no name they use, is seen by anybody on the way: not in any packet, not on
// a relay's disk, not in its log, its metrics or its status; not as it is, nor in hexadecimal or base64.
func TestLabCanary(t *testing.T) {
	t.Parallel()
	onlyFull(t)
	f := newField(t)
	const page = "127.0.0.1:9300"
	relays := []*station{f.relay(f.Public("relay1"), "--status", page)}
	homeA, homeB := f.Home("home A", natlab.Cone), f.Home("home B", natlab.UDPBlocked)
	hostA, hostB, hostC := homeA.Host("ada"), homeB.Host("bob"), homeA.Host("cleo")
	captures := []*natlab.Capture{relays[0].host.Capture(t), hostA.Capture(t), hostB.Capture(t), hostC.Capture(t)}
	a, b, c := f.run(hostA, by(relays...)...), f.run(hostB, by(relays...)...), f.run(hostC, by(relays...)...)
	const room, nick, text, private, topic, petname = "canaryroom", "canarynick", "canarytext", "canarywhisper", "canarytopic", "canarypet"
	const den, secret, absent = "canaryden", "canarysecret", "canaryabsent"
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
	canarySecrets(a, b, den, secret)
	b.stop() // what waits for him lies in a mailbox
	ask(a, "send", func(ctx context.Context) (api.SendResult, error) {
		return a.api.Send(ctx, api.SendRequest{Target: "@" + petname, Text: absent, Wait: "stored", TimeoutMS: 60_000})
	})

	canaries := []string{room, nick, text, private, topic, petname, den, secret, absent}
	for i, capture := range captures {
		if packets, _ := capture.Count(); packets == 0 {
			t.Fatalf("capture %d recorded nothing", i)
		}
		for _, canary := range canaries {
			for how, form := range formsOf(canary) {
				if capture.Contains([]byte(form)) {
					t.Errorf("capture %d has %q, %s", i, canary, how)
				}
			}
		}
	}
	// The control: what does go in clear is found.
	if !captures[2].Contains([]byte("/multistream/1.0.0")) {
		t.Error("the capture does not even have the greeting of libp2p's handshake")
	}
	told := map[string]string{}
	for _, path := range []string{"/", "/metrics", "/healthz"} {
		told[path] = fetched(t, relays[0].host, page, path)
	}
	status := ask(relays[0], "status", relays[0].api.Status)
	encoded, err := json.Marshal(status)
	if err != nil {
		t.Fatal(err)
	}
	told["the API's status"] = string(encoded)
	if !strings.Contains(told["/metrics"], "starling_") || !strings.Contains(told["the API's status"], relays[0].ready.PeerID) {
		t.Errorf("the relay's metrics or status were not fetched: %.200q, %.200q", told["/metrics"], told["the API's status"])
	}
	relays[0].stop()
	if size := bytesIn(t, relays[0].home); size < 1000 {
		t.Errorf("the relay's disk holds %d bytes: nothing was left with it", size)
	}
	for _, canary := range canaries {
		for how, form := range formsOf(canary) {
			for _, place := range []string{relays[0].home, relays[0].logPath()} {
				if file := fileWith(t, place, form); file != "" {
					t.Errorf("%q is in %s of the relay, %s", canary, file, how)
				}
			}
			for path, text := range told {
				if strings.Contains(text, form) {
					t.Errorf("%q is in %s of the relay, %s", canary, path, how)
				}
			}
		}
	}
	if fileWith(t, relays[0].logPath(), a.ready.PeerID) == "" {
		t.Error("the search through files does not even find what is there")
	}
}

// canarySecrets lets one let the other into a private room, and say something there.
func canarySecrets(a, b *station, den, secret string) {
	a.t.Helper()
	ask(a, "room create", func(ctx context.Context) (api.Conversation, error) {
		return a.api.CreateRoom(ctx, api.CreateRoomRequest{Name: den, History: api.HistoryAll})
	})
	made := ask(a, "invite create", func(ctx context.Context) (api.Invite, error) {
		return a.api.CreateInvite(ctx, api.InviteRequest{Target: "#" + den, OneTime: true})
	})
	ask(b, "invite accept", func(ctx context.Context) (api.Conversation, error) {
		return b.api.Join(ctx, api.JoinRequest{Room: made.Link})
	})
	a.send("#"+den, secret)
	b.hears(volleyTime, secret)
}

// formsOf gives a text as it may be met: as it is, and as the usual encodings write it wherever it stands.
func formsOf(text string) map[string]string {
	forms := map[string]string{
		"as it is": text, "in hexadecimal": hex.EncodeToString([]byte(text)), "in capital hexadecimal": strings.ToUpper(hex.EncodeToString([]byte(text))),
		"in capitals": strings.ToUpper(text), "in UTF-16": strings.Join(strings.Split(text, ""), "\x00"),
	}
	for shift := range 3 { // base64 depends on how many bytes are in front, and its ends on what is beside
		encoded := base64.RawStdEncoding.EncodeToString([]byte("___"[:shift] + text))
		from := (shift*8 + 5) / 6
		forms["in base64, "+strconv.Itoa(shift)] = encoded[from : len(encoded)-1]
	}
	return forms
}

// TestFormsOf leaks a text in every encoding, at every offset: the search above must find it.
func TestFormsOf(t *testing.T) {
	for before := range 7 {
		leak := []byte(strings.Repeat("x", before) + "canarytext" + strings.Repeat("y", before%4))
		file := filepath.Join(t.TempDir(), "leak")
		for how, text := range map[string]string{
			"raw": string(leak), "hex": hex.EncodeToString(leak), "HEX": strings.ToUpper(hex.EncodeToString(leak)),
			"base64": base64.StdEncoding.EncodeToString(leak), "base64url": base64.RawURLEncoding.EncodeToString(leak),
		} {
			if err := os.WriteFile(file, []byte("some "+text+" more"), 0o600); err != nil {
				t.Fatal(err)
			}
			found := false
			for _, form := range formsOf("canarytext") {
				found = found || fileWith(t, file, form) != ""
			}
			if !found {
				t.Errorf("%s with %d bytes in front is not found", how, before)
			}
		}
	}
	for how, form := range formsOf("canarytext") {
		if len(form) < 8 {
			t.Errorf("%s the text is %q: too short to prove anything", how, form)
		}
	}
}

// fetched gets a page of a program that runs on a host of the lab.
func fetched(t *testing.T, h *natlab.Host, addr, path string) string {
	t.Helper()
	var b []byte
	err := h.Do(func() error {
		conn, err := net.DialTimeout("tcp", addr, patience)
		if err != nil {
			return err
		}
		defer conn.Close()
		if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
			return err
		}
		if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.0\r\nHost: "+addr+"\r\n\r\n"); err != nil {
			return err
		}
		b, err = io.ReadAll(conn)
		return err
	})
	if err != nil {
		t.Fatalf("fetching %s: %v", path, err)
	}
	return string(b)
}

// bytesIn sums up the files under a path.
func bytesIn(t *testing.T, root string) (total int64) {
	t.Helper()
	err := filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			total += info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return total
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
