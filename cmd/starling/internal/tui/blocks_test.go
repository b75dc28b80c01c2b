package tui

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"pgregory.net/rapid"

	"github.com/starling-chat/starling/node/api"
)

func testPainter() *painter {
	return &painter{theme: newTheme("none"), words: newCatalog("en"), zone: time.UTC, nick: "ada"}
}

// someRoom draws a window of messages as the node would order them.
func someRoom(t *rapid.T) *room {
	r := newRoom()
	var page []api.Message
	at := zeroHour
	for i := range rapid.IntRange(0, 60).Draw(t, "messages") {
		at = at.Add(rapid.SampledFrom([]time.Duration{0, time.Second, time.Hour, 26 * time.Hour}).Draw(t, "pause"))
		kind := rapid.SampledFrom([]string{api.KindMessage, api.KindMessage, api.KindMessage, api.KindJoin, api.KindLeave, api.KindProfile, api.KindTopic}).Draw(t, "kind")
		m := api.Message{ID: fmt.Sprint("id", i), Kind: kind, Nick: "bob", Account: "0BOB", Seq: uint64(i + 1), SentAt: api.Time{Time: at}}
		m.Text = texts(t, "text")
		page = append(page, m)
	}
	r.newest(page)
	r.atStart, r.atEnd = true, true
	if len(page) > 0 {
		r.unreadFrom = uint64(rapid.IntRange(0, len(page)).Draw(t, "unread"))
		r.setGaps([]api.Gap{{Nick: "cleo", Count: 3, After: page[rapid.IntRange(0, len(page)-1).Draw(t, "gap")].ID}})
	}
	return r
}

// TestScrollingBackIsWhereItWas scrolls up and down by the lines that it moved.
func TestScrollingBackIsWhereItWas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, r := testPainter(), someRoom(t)
		width, height := rapid.IntRange(20, 100).Draw(t, "width"), rapid.IntRange(1, 30).Draw(t, "height")
		p.scroll(r, -rapid.IntRange(0, 40).Draw(t, "start"), width, height)
		before := p.view(r, width, height)
		n := rapid.IntRange(1, 50).Draw(t, "lines")
		moved := p.scroll(r, -n, width, height)
		if moved > 0 || moved < -n {
			t.Fatalf("scrolling by %d moved by %d", -n, moved)
		}
		if back := p.scroll(r, -moved, width, height); back != -moved {
			t.Fatalf("moved %d up and %d down", -moved, back)
		}
		if after := p.view(r, width, height); !slices.Equal(before, after) {
			t.Fatalf("the view changed from\n%s\nto\n%s", strings.Join(before, "\n"), strings.Join(after, "\n"))
		}
	})
}

// TestScrollingShowsEveryLineOnce walks from the end to the beginning, a page at a time, and compares
// what was seen with all blocks.
func TestScrollingShowsEveryLineOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, r := testPainter(), someRoom(t)
		width, height := rapid.IntRange(20, 100).Draw(t, "width"), rapid.IntRange(1, 30).Draw(t, "height")
		r.unreadAt = r.firstUnread()
		var all []string
		for i := range r.entries {
			all = append(all, p.block(r, i, width)...)
		}
		seen := p.view(r, width, height)
		seen = seen[max(0, height-len(all)):] // a short room has empty lines above
		for len(seen) < len(all) {
			moved := p.scroll(r, -height, width, height)
			if moved == 0 {
				t.Fatalf("stuck with %d of %d lines", len(seen), len(all))
			}
			seen = append(slices.Clone(p.view(r, width, height)[:-moved]), seen...)
		}
		if !slices.Equal(seen, all) {
			t.Fatalf("seen\n%s\nof\n%s", strings.Join(seen, "\n"), strings.Join(all, "\n"))
		}
		if p.scroll(r, -1, width, height) != 0 {
			t.Fatal("there is something above the first line")
		}
	})
}

func TestRevealPutsTheMessageInItsRow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, r := testPainter(), someRoom(t)
		if len(r.entries) == 0 {
			return
		}
		width, height := rapid.IntRange(20, 100).Draw(t, "width"), rapid.IntRange(2, 30).Draw(t, "height")
		i := rapid.IntRange(0, len(r.entries)-1).Draw(t, "entry")
		row := rapid.IntRange(0, height-1).Draw(t, "row")
		p.reveal(r, i, row, width, height)
		b := p.block(r, i, width)
		if len(b) == 0 {
			return // folded into another
		}
		view := p.view(r, width, height)
		if at := slices.Index(view, b[0]); at < row && at >= 0 && !slices.Contains(view[row:], b[0]) || at < 0 {
			t.Fatalf("block %d is in row %d, not %d or below, of\n%s", i, at, row, strings.Join(view, "\n"))
		}
	})
}

// TestWindowAgreesWithTheNode lets pages and live messages come in any order that the node can
// produce, and compares the window with a cut of the node's list.
func TestWindowAgreesWithTheNode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var all []api.Message
		grow := func() api.Message {
			i := len(all)
			m := api.Message{ID: fmt.Sprint("id", i), Kind: api.KindMessage, Seq: uint64(i + 1), SentAt: api.Time{Time: zeroHour.Add(time.Duration(i) * time.Second)}}
			all = append(all, m)
			return m
		}
		for range rapid.IntRange(0, 900).Draw(t, "history") {
			grow()
		}
		index := func(id string) int { return slices.IndexFunc(all, func(m api.Message) bool { return m.ID == id }) }
		p, r := testPainter(), newRoom()
		load := func(page []api.Message, put func([]api.Message)) {
			page = slices.Clone(page)
			r.loading = true
			for range rapid.IntRange(0, 3).Draw(t, "meanwhile") {
				r.arrived(grow())
			}
			r.loading = false
			put(page)
			r.caughtUp()
		}
		load(all[max(0, len(all)-pageSize):], r.newest)
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0:
				r.arrived(grow())
			case 1:
				p.scroll(r, -rapid.IntRange(1, 150).Draw(t, "up"), 80, 20)
			case 2:
				p.scroll(r, rapid.IntRange(1, 150).Draw(t, "down"), 80, 20)
			case 3:
				if first := r.first(); first != "" && !r.atStart && !r.following && r.bottom < pageSize { // as scrollBy does
					to := index(first)
					load(all[max(0, to-pageSize):to], r.older)
				}
			case 4:
				if last := r.lastID(); last != "" && !r.atEnd {
					from := index(last) + 1
					load(all[from:min(len(all), from+pageSize)], r.newer)
				}
			case 5:
				load(all[max(0, len(all)-pageSize):], r.newest)
			}
			checkWindow(t, r, all)
		}
	})
}

func checkWindow(t *rapid.T, r *room, all []api.Message) {
	if len(r.entries) == 0 {
		if len(all) > 0 && r.atEnd {
			t.Fatal("the window is empty")
		}
		return
	}
	from := int(r.entries[0].msg.Seq) - 1
	for i, e := range r.entries {
		if e.msg.ID != all[from+i].ID {
			t.Fatalf("entry %d is %s, not %s", i, e.msg.ID, all[from+i].ID)
		}
		if r.byID[e.msg.ID] != e {
			t.Fatalf("entry %d is not known by its id", i)
		}
	}
	if len(r.byID) != len(r.entries) {
		t.Fatalf("%d ids for %d entries", len(r.byID), len(r.entries))
	}
	if r.atEnd && from+len(r.entries) != len(all) {
		t.Fatalf("the window claims to reach the end: %d of %d", from+len(r.entries), len(all))
	}
	if r.atStart && from != 0 {
		t.Fatalf("the window claims to reach the beginning: %d", from)
	}
	if len(r.entries) > maxLoaded+pageSize {
		t.Fatalf("the window holds %d messages", len(r.entries))
	}
	if !r.following && (r.bottom < 0 || r.bottom >= len(r.entries)) {
		t.Fatalf("the view ends at %d of %d", r.bottom, len(r.entries))
	}
}

func TestFolding(t *testing.T) {
	p := testPainter()
	event := func(i int, kind, nick, text string) api.Message {
		return api.Message{
			ID: fmt.Sprint(i), Kind: kind, Nick: nick, Account: "0" + nick, Fingerprint: "FP" + nick, Text: text,
			Seq: uint64(i + 1), SentAt: api.Time{Time: zeroHour.Add(time.Duration(i) * time.Minute)},
		}
	}
	for _, c := range []struct {
		name string
		list []api.Message
		want string
	}{
		{"a join with its nick", []api.Message{event(0, "profile", "bob", "bob"), event(1, "join", "bob", "")}, "09:01           -- │ → bob joined"},
		{"a join before its nick", []api.Message{event(0, "join", "bob", ""), event(1, "profile", "bob", "bob")}, "09:01           -- │ → bob joined"},
		{"a new nick", []api.Message{event(0, "profile", "rob", "bob"), event(1, "message", "rob", "x"), event(2, "profile", "rob", "rob")}, "09:02           -- │ bob is now known as rob"},
		{"a first nick", []api.Message{event(0, "profile", "bob", "bob")}, "09:00           -- │ FPbob is now known as bob"},
		{"the same nick again", []api.Message{event(0, "profile", "bob", "bob"), event(1, "message", "bob", "x"), event(2, "profile", "bob", "bob")}, ""},
		{
			"many", []api.Message{
				event(0, "join", "a", ""), event(1, "join", "b", ""), event(2, "join", "c", ""), event(3, "join", "d", ""),
				event(4, "join", "e", ""), event(5, "leave", "a", "bye"),
			}, "09:05           -- │ → a, b, c, d and 1 more joined  ← a (bye) left",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRoom()
			r.newest(c.list)
			lines := p.block(r, len(r.entries)-1, 80)
			got := ""
			if len(lines) > 0 {
				got = lines[len(lines)-1]
			}
			if c.want == "" && strings.Contains(got, "known as") || c.want != "" && got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestMarksOfMessages(t *testing.T) {
	p := testPainter()
	for _, c := range []struct {
		name string
		msg  api.Message
		want []string
	}{
		{"plain", api.Message{Nick: "bob", Text: "hi"}, []string{"09:00          bob │ hi"}},
		{"no nick", api.Message{Nick: "", Fingerprint: "0BOBBOBB", Text: "hi"}, []string{"09:00     0BOBBOBB │ hi"}},
		{"shared nick", api.Message{Nick: "bob", NickShared: true, Fingerprint: "0BOBBOBB", Text: "hi"}, []string{"09:00 bob~0BOBBOBB │ hi"}},
		{"long shared nick", api.Message{Nick: "bobthebuilder", NickShared: true, Fingerprint: "0BOBBOBB", Text: "hi"}, []string{"09:00 bo…~0BOBBOBB │ hi"}},
		{"accepted", api.Message{Nick: "ada", Own: true, State: "accepted", Text: "hi"}, []string{"09:00          ada │ hi ·"}},
		{"delivered", api.Message{Nick: "ada", Own: true, State: "delivered", Text: "hi"}, []string{"09:00          ada │ hi ✓✓"}},
		{"failed", api.Message{Nick: "ada", Own: true, State: "failed", Reason: "14 days over", Text: "hi"}, []string{"09:00          ada │ hi ✗", "                   │ not delivered: 14 days over"}},
		{"edited", api.Message{Nick: "bob", Edited: true, Text: "hi"}, []string{"09:00          bob │ hi (edited)"}},
		{"deleted", api.Message{Nick: "bob", Redacted: true}, []string{"09:00          bob │ (deleted)"}},
		{"action", api.Message{Nick: "bob", Text: "waves", Style: api.StyleAction}, []string{"09:00            * │ bob waves"}},
		{"a list is no action", api.Message{Nick: "bob", Text: "* one\n* two"}, []string{"09:00          bob │ * one", "                   │ * two"}},
		{"reactions", api.Message{Nick: "bob", Text: "hi", Reactions: []api.Reaction{{Text: "+1", Nicks: []string{"ada", "cleo"}}}}, []string{"09:00          bob │ hi", "                   │ [+1 ada, cleo]"}},
		{"reply", api.Message{Nick: "bob", Text: "hi", ReplyTo: "gone"}, []string{"                   │ ↳ …", "09:00          bob │ hi"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.msg.Kind, c.msg.SentAt = api.KindMessage, api.Time{Time: zeroHour}
			got := strings.Split(ansi.Strip(strings.Join(p.layout(newRoom(), c.msg, 60), "\n")), "\n")
			if !slices.Equal(got, c.want) {
				t.Errorf("%q\nwant %q", got, c.want)
			}
		})
	}
}

func TestMentions(t *testing.T) {
	p := testPainter()
	for text, want := range map[string]bool{
		"ada: hi": true, "hi Ada!": true, "@ada": true, "ada": true, "adamant": false, "canada": false, "hi": false, "ada你好": true, "": false,
	} {
		if got := p.mentions(api.Message{Kind: api.KindMessage, Text: text}); got != want {
			t.Errorf("%q mentions ada: %v", text, got)
		}
	}
	if p.mentions(api.Message{Kind: api.KindMessage, Text: "ada", Own: true}) {
		t.Error("one does not mention oneself")
	}
}

func TestLinksOnRequest(t *testing.T) {
	p := testPainter()
	msg := api.Message{Kind: api.KindMessage, Nick: "bob", SentAt: api.Time{Time: zeroHour}, Text: "see https://example.org/a;b, or http://ex\u0430mple.org"}
	if got := strings.Join(p.layout(newRoom(), msg, 100), "\n"); strings.Contains(got, "\x1b]8") {
		t.Errorf("a link without being asked: %q", got)
	}
	p.links = true
	got := strings.Join(p.layout(newRoom(), msg, 100), "\n")
	if strings.Count(got, "\x1b]8;;http") != 1 || !strings.Contains(got, "\x1b]8;;https://example.org/a%3Bb\x1b\\https://example.org/a;b\x1b]8;;\x1b\\,") {
		t.Errorf("links in %q", got)
	}
	// A link that is broken over lines leads to the whole address from each of them.
	msg.Text = "https://example.org/" + strings.Repeat("x", 100)
	for _, line := range p.layout(newRoom(), msg, 60) {
		if !strings.Contains(line, msg.Text+"\x1b\\") {
			t.Errorf("%q does not lead to the address", line)
		}
	}
}
