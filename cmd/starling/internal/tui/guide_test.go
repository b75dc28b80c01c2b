package tui

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/starling-chat/starling/node/api"
)

var update = flag.Bool("update", false, "draw the screens of the guide anew")

const guidePath = "../../../../docs/guide/tui.md"

// TestGuide compares every screen of the guide with what is drawn: a block after a line
// "<!-- screen NAME -->" is the scene of that name. With -update it writes the blocks.
func TestGuide(t *testing.T) {
	b, err := os.ReadFile(guidePath)
	if err != nil {
		t.Fatal(err)
	}
	guide, seen := string(b), map[string]bool{}
	var out strings.Builder
	for {
		before, rest, found := strings.Cut(guide, "<!-- screen ")
		out.WriteString(before)
		if !found {
			break
		}
		name, rest, _ := strings.Cut(rest, " -->\n```\n")
		block, rest, closed := strings.Cut(rest, "```\n")
		scene := scenes[name]
		if scene == nil || !closed {
			t.Fatalf("the guide has a screen %q that no scene draws, or that has no end", name)
		}
		seen[name] = true
		drawn := plain(scene(t))
		if drawn != block && !*update {
			t.Errorf("the screen %q of the guide is not what is drawn (run with -update):\n%s", name, drawn)
		}
		out.WriteString("<!-- screen " + name + " -->\n```\n" + drawn + "```\n")
		guide = rest
	}
	for name := range scenes {
		if !seen[name] {
			t.Errorf("the guide does not show the screen %q", name)
		}
	}
	if *update && !t.Failed() {
		if err := os.WriteFile(guidePath, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// plain takes the spaces off the ends of lines.
func plain(screen string) string {
	var b strings.Builder
	for line := range strings.Lines(screen) {
		b.WriteString(strings.TrimRight(line, " \n") + "\n")
	}
	return b.String()
}

var scenes = map[string]func(t *testing.T) string{
	"first run":    func(t *testing.T) string { return sceneFirstRun(t) },
	"room":         func(t *testing.T) string { return sceneRoom(t, 100, 22).screen() },
	"narrow":       func(t *testing.T) string { return sceneRoom(t, 44, 14).screen() },
	"chinese":      func(t *testing.T) string { return sceneChinese(t) },
	"request":      func(t *testing.T) string { return sceneRequest(t) },
	"verification": func(t *testing.T) string { return sceneWith(t, 80, 25, "/verify @cleo") },
	"search":       func(t *testing.T) string { return sceneSearch(t) },
	"switch":       func(t *testing.T) string { return sceneKeys(t, 80, 8, "ctrl+g") },
	"paste":        func(t *testing.T) string { return scenePaste(t) },
	"outbox":       func(t *testing.T) string { return sceneWith(t, 80, 7, "/outbox") },
	"raw":          func(t *testing.T) string { return sceneRaw(t) },
	"gone":         func(t *testing.T) string { return sceneGone(t) },
	"help":         func(t *testing.T) string { return sceneWith(t, 80, 72, "/help") },
}

// quietDay is a node with a day's conversation.
func quietDay(t *testing.T) (n *fakeNode, lobby *fakeConversation) {
	t.Helper()
	n = newFakeNode(t)
	lobby = n.room("lobby")
	lobby.Topic, lobby.Members, lobby.Peers = "birds and whoever watches them", 4, 2
	n.room("dev").Unread = 7
	cleo := n.direct("cleo", "0CLEO")
	cleo.Unread, cleo.LastSeq = 1, 1
	n.contacts = []api.Contact{{Account: "0CLEO", Nick: "cleo", Fingerprint: "0CLEO7F3", State: "contact", Trust: api.TrustUnverified, Path: "direct"}}
	lobby.members = []api.Member{
		{Account: ownAccount, Nick: "ada", Fingerprint: n.me.Fingerprint, Own: true},
		{Account: "0BOB", Nick: "bob", Fingerprint: "0BOBBOBB", Online: true, Path: "lan"},
		{Account: "0CLEO", Nick: "cleo", Fingerprint: "0CLEO7F3", Online: true, Path: "relayed"},
		{Account: "0DAN", Nick: "dan", Fingerprint: "0DANDAN2"},
	}
	n.outbox = []api.OutboxEntry{{ID: "1", Target: "@dan", State: "queued", Attempts: 3, CreatedAt: api.Time{Time: zeroHour}, NextAttempt: api.Time{Time: zeroHour.Add(9 * time.Minute)}}}
	n.status.Outbox = 1
	kind := func(k string) func(*api.Message) { return func(m *api.Message) { m.Kind = k } }
	n.say(lobby, "bob", "", kind(api.KindJoin))
	n.say(lobby, "cleo", "", kind(api.KindJoin))
	n.say(lobby, "dan", "", kind(api.KindJoin))
	first := n.say(lobby, "bob", "a whole murmuration over the pier just now")
	n.say(lobby, "ada", "how many?", func(m *api.Message) { m.ReplyTo = first.ID })
	n.say(lobby, "bob", "thousands; 两三千只, as they say 🐦", func(m *api.Message) {
		m.Edited, m.Reactions = true, []api.Reaction{{Text: "👍", Nicks: []string{"ada", "cleo"}}}
	})
	n.say(lobby, "cleo", "waves", func(m *api.Message) { m.Style = api.StyleAction })
	n.say(lobby, "dan", "", kind(api.KindLeave))
	lobby.ReadSeq = lobby.LastSeq
	n.say(lobby, "cleo", "ada: will you come out?", func(m *api.Message) { m.Mention = true })
	n.say(lobby, "bob", "the wind is right, and the light is worth it for anybody who has a camera")
	lobby.Unread = 2
	return n, lobby
}

func sceneRoom(t *testing.T, width, height int) *driver {
	n, lobby := quietDay(t)
	d := newDriver(t, n, width, height)
	d.run(d.open(lobby.ID))
	d.sync(n, 0)
	d.typed("on my way")
	return d
}

func sceneWith(t *testing.T, width, height int, command string) string {
	d := sceneRoom(t, width, height)
	d.keys("ctrl+u")
	d.enter(command)
	return d.screen()
}

func sceneKeys(t *testing.T, width, height int, keys ...string) string {
	d := sceneRoom(t, width, height)
	d.keys(keys...)
	return d.screen()
}

func sceneChinese(t *testing.T) string {
	d := sceneRoom(t, 80, 16)
	d.keys("ctrl+u")
	d.enter("/lang zh")
	return d.screen()
}

func sceneRequest(t *testing.T) string {
	n, _ := quietDay(t)
	eve := n.direct("eve", "0EVE")
	eve.Request = true
	n.say(eve, "eve", "we met at the pier")
	d := newDriver(t, n, 80, 12)
	d.run(d.open(eve.ID))
	return d.screen()
}

func sceneSearch(t *testing.T) string {
	d := sceneRoom(t, 80, 8)
	d.keys("ctrl+f")
	d.typed("the")
	d.keys("enter")
	return d.screen()
}

func scenePaste(t *testing.T) string {
	d := sceneRoom(t, 80, 12)
	d.send(tea.PasteMsg{Content: ":\rthe camera,\rand a coat"})
	return d.screen()
}

func sceneRaw(t *testing.T) string {
	n, lobby := quietDay(t)
	n.say(lobby, "eve", "look: \x1b]52;c;aGk=\x07 photo\u202egnp.exe")
	d := newDriver(t, n, 80, 14)
	d.run(d.open(lobby.ID))
	d.enter("/raw")
	return d.screen()
}

func sceneGone(t *testing.T) string {
	d := sceneRoom(t, 80, 12)
	d.send(eventsMsg{{err: errors.New("the event stream broke")}})
	return d.screen()
}

func sceneFirstRun(t *testing.T) string {
	var out bytes.Buffer
	answers := []string{"ada", "", "", "water", "lamp"}
	ask := func(q string) (string, error) {
		a := answers[0]
		answers = answers[1:]
		out.WriteString(q + a + "\n")
		return a, nil
	}
	w := Welcome{Out: &out, Line: ask, Secret: ask, MaxNick: 64, Environ: []string{"LANG=C.UTF-8"}, Pick: func(int) int { return 4 }}
	if _, err := w.Ask("~/.local/share/starling/keys"); err != nil {
		t.Fatal(err)
	}
	words := strings.Fields(strings.Repeat("bird over pier wind water and light camera coat lamp ", 3))[:24]
	if err := w.ShowPhrase(strings.Join(words, " ")); err != nil {
		t.Fatal(err)
	}
	return out.String()
}
