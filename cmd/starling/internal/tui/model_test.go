package tui

import (
	"fmt"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/starling-chat/starling/node/api"
)

func TestSays(t *testing.T) {
	n := newFakeNode(t)
	d := newDriver(t, n, 80, 24)
	d.wants("#lobby", "ada>")
	d.enter("hello there")
	d.sync(n, 0)
	d.wants("ada │ hello there ✓")
	if got := n.requests(); len(got) != 1 || got[0].Text != "hello there" || got[0].Target != "#lobby" {
		t.Errorf("sent %+v", got)
	}
}

func TestASlashIsSentWithTwo(t *testing.T) {
	n := newFakeNode(t)
	d := newDriver(t, n, 80, 24)
	d.enter("//etc/passwd")
	d.enter("/me waves")
	got := n.requests()
	if len(got) != 2 || got[0].Text != "/etc/passwd" || got[1].Text != "waves" || got[1].Style != api.StyleAction {
		t.Errorf("sent %+v", got)
	}
	d.sync(n, 0)
	d.wants("* │ ada waves")
}

func TestMessagesGoOutInOrder(t *testing.T) {
	n := newFakeNode(t)
	d := newDriver(t, n, 80, 24)
	var waiting []tea.Cmd
	for i := range 5 {
		d.input.set(fmt.Sprint("line ", i))
		_, cmd := d.Update(keyPress("enter"))
		waiting = append(waiting, cmd)
	}
	for _, cmd := range waiting[1:] { // whatever order commands run in
		d.run(cmd)
	}
	d.run(waiting[0])
	var texts []string
	for _, r := range n.requests() {
		texts = append(texts, r.Text)
	}
	if strings.Join(texts, ",") != "line 0,line 1,line 2,line 3,line 4" {
		t.Errorf("sent %q", texts)
	}
}

func TestALostAnswerMakesNoSecondMessage(t *testing.T) {
	n := newFakeNode(t)
	d := newDriver(t, n, 80, 24)
	d.outgoing.count++
	req := api.SendRequest{Target: "#lobby", Text: "once", ClientID: "c1"}
	d.outgoing.queue = append(d.outgoing.queue, req)
	if _, err := d.api.Send(t.Context(), req); err != nil { // the answer to this one was lost
		t.Fatal(err)
	}
	d.event(api.Event{Type: api.EventHello})
	if got := n.requests(); len(got) != 1 {
		t.Errorf("sent %+v", got)
	}
	if len(d.outgoing.queue) != 0 {
		t.Error("the message still waits")
	}
}

func TestARefusedTextComesBack(t *testing.T) {
	n := newFakeNode(t)
	d := newDriver(t, n, 80, 24)
	n.refuse = &api.Error{Code: api.CodeReadOnly, Message: "the disk is full", Hint: "free some space"}
	d.enter("precious")
	d.wants("the disk is full; free some space", "ada> precious")
	n.refuse = nil
	d.keys("enter")
	if got := n.requests(); len(got) != 1 || got[0].Text != "precious" {
		t.Errorf("sent %+v", got)
	}
}

func TestOutageKeepsWhatIsWritten(t *testing.T) {
	n := newFakeNode(t)
	d := newDriver(t, n, 80, 24)
	d.typed("half a sen")
	d.send(eventsMsg{{err: &api.Error{Code: api.CodeNotRunning, Message: "no node is running"}}})
	d.wants("the node does not answer", "[no node]", "half a sen")
	d.typed("tence")
	d.keys("enter")
	d.wants("nothing was sent", "ada> half a sentence")
	d.event(api.Event{Type: api.EventHello})
	d.lacks("[no node]", "the node does not answer:")
	d.keys("enter")
	if got := n.requests(); len(got) != 1 || got[0].Text != "half a sentence" {
		t.Errorf("sent %+v", got)
	}
}

func TestDraftsBelongToConversations(t *testing.T) {
	n := newFakeNode(t)
	n.room("dev")
	d := newDriver(t, n, 80, 24)
	d.keys("alt+2")
	d.typed("for the lobby")
	d.keys("alt+1")
	d.wants("ada>")
	d.lacks("for the lobby")
	d.typed("for dev")
	d.keys("alt+/")
	d.wants("ada> for the lobby")
	d.second()
	// Another screen, as after a crash: what was typed a second ago is there.
	e := newDriver(t, n, 80, 24)
	e.wants("ada> for the lobby")
	e.keys("alt+1")
	e.wants("ada> for dev")
}

func TestADraftIsNotSavedOutOfOrder(t *testing.T) {
	n := newFakeNode(t)
	d := newDriver(t, n, 80, 24)
	d.typed("a")
	first := d.keepDraft()
	d.typed("b")
	d.run(d.keepDraft())
	d.run(first)
	d.second()
	if got := n.setting(draftKey(d.current)); !strings.Contains(got, `"ab"`) {
		t.Errorf("kept %q", got)
	}
}

func TestFinishHandsOverWhatWaits(t *testing.T) {
	n := newFakeNode(t)
	d := newDriver(t, n, 80, 24)
	d.input.set("just entered")
	d.Update(keyPress("enter")) // its command never runs: the program ends
	d.typed("being written")
	if left := d.finish(t.Context()); left != 0 {
		t.Errorf("%d messages are left", left)
	}
	if got := n.requests(); len(got) != 1 || got[0].Text != "just entered" {
		t.Errorf("sent %+v", got)
	}
	newDriver(t, n, 80, 24).wants("ada> being written")
}

func TestFinishWithoutNodeKeepsTextsAsDraft(t *testing.T) {
	n := newFakeNode(t)
	d := newDriver(t, n, 80, 24)
	n.refuse = &api.Error{Code: api.CodeReadOnly, Message: "the disk is full"}
	d.input.set("just entered")
	d.Update(keyPress("enter"))
	d.typed("and more")
	if left := d.finish(t.Context()); left != 1 {
		t.Errorf("%d messages are left", left)
	}
	if got := n.setting(draftKey(d.current)); !strings.Contains(got, `just entered\nand more`) {
		t.Errorf("kept %q", got)
	}
}

func TestEditGoesBackToTheDraft(t *testing.T) {
	n := newFakeNode(t)
	d := newDriver(t, n, 80, 24)
	d.enter("teh first")
	at := d.sync(n, 0)
	d.typed("unfinished")
	d.Update(keyPress("ctrl+a"))
	d.startEdit(d.rooms[d.current].entries[0].msg.ID, "teh first")
	d.wants("editing your message")
	d.keys("ctrl+u")
	d.enter("the first")
	d.sync(n, at)
	d.wants("the first (edited)", "ada> unfinished")
	d.startEdit(d.rooms[d.current].entries[0].msg.ID, "the first")
	d.keys("esc")
	d.wants("ada> unfinished")
}

func TestReplyReactDelete(t *testing.T) {
	n := newFakeNode(t)
	c := n.room("lobby")
	n.say(c, "bob", "who comes along?")
	n.say(c, "cleo", "not me")
	d := newDriver(t, n, 80, 24)
	d.enter("/reply @bob I do")
	at := d.sync(n, 0)
	d.enter("/react 2 👍")
	d.wants("↳ bob: who comes along?", "ada │ I do ✓")
	got := n.requests()
	if got[0].ReplyTo != c.messages[0].ID || got[1].Ref != c.messages[1].ID {
		t.Errorf("sent %+v", got)
	}
	d.enter("/delete")
	d.wants("Ask everybody to delete \"I do\"?")
	d.keys("y")
	d.sync(n, at)
	d.wants("(deleted)")
	d.enter("/edit changed")
	d.wants("no such message here")
}

func TestReplyPicker(t *testing.T) {
	n := newFakeNode(t)
	c := n.room("lobby")
	n.say(c, "bob", "first thing")
	n.say(c, "bob", "second thing")
	d := newDriver(t, n, 80, 24)
	d.enter("/reply")
	d.typed("first")
	d.keys("enter")
	d.wants("reply to bob: first thing")
	d.enter("answer")
	if got := n.requests(); len(got) != 1 || got[0].ReplyTo != c.messages[0].ID {
		t.Errorf("sent %+v", got)
	}
}

func TestAReplyShowsWhatIsFarAway(t *testing.T) {
	n := newFakeNode(t)
	c := n.room("lobby")
	far := n.say(c, "bob", "long ago")
	n.fill(c, 300)
	n.say(c, "cleo", "as you said", func(m *api.Message) { m.ReplyTo = far.ID })
	newDriver(t, n, 80, 24).wants("↳ bob: long ago")
}

func TestUnreadMarkAndJump(t *testing.T) {
	for _, unread := range []int{3, 90, 1500} {
		t.Run(fmt.Sprint(unread), func(t *testing.T) {
			n := newFakeNode(t)
			c := n.room("lobby")
			n.fill(c, 200)
			for i := range unread {
				n.say(c, "bob", fmt.Sprintf("news %d", i+1))
			}
			d := newDriver(t, n, 80, 24)
			d.keys("alt+u")
			d.wants(" new ", "news 1\n", "news 3\n")
			if unread > 20 {
				d.wants("older messages")
				d.keys("end")
				d.wants(fmt.Sprintf("news %d\n", unread))
				d.lacks("older messages")
			}
		})
	}
}

func TestWhatIsSeenIsRead(t *testing.T) {
	n := newFakeNode(t)
	lobby, dev := n.room("lobby"), n.room("dev")
	d := newDriver(t, n, 80, 24)
	d.keys("alt+2") // the lobby: dev comes before it
	n.say(lobby, "bob", "here")
	n.say(dev, "bob", "there")
	d.sync(n, 0)
	if lobby.ReadSeq != 1 || dev.ReadSeq != 0 {
		t.Errorf("read up to %d and %d", lobby.ReadSeq, dev.ReadSeq)
	}
	d.wants("[Act: 1]")
	d.keys("alt+a")
	d.wants("bob │ there")
	d.lacks("[Act:")
	d.send(tea.BlurMsg{})
	n.say(dev, "bob", "unseen")
	d.sync(n, 3)
	if dev.ReadSeq != 1 {
		t.Error("a message was read while nobody looked")
	}
	d.send(tea.FocusMsg{})
	if dev.ReadSeq != 2 {
		t.Error("a message was not read when the user came back")
	}
}

func TestSearchAndJump(t *testing.T) {
	n := newFakeNode(t)
	c := n.room("lobby")
	n.fill(c, 300)
	n.say(c, "bob", "the needle is here")
	n.fill(c, 900)
	d := newDriver(t, n, 80, 24)
	d.lacks("needle")
	d.enter("/search needle")
	d.wants("search #lobby: needle", "bob: the needle is here")
	d.keys("enter")
	d.wants("bob │ the needle is here", "older messages")
	d.keys("end")
	d.lacks("needle")
}

func TestQuickSwitch(t *testing.T) {
	n := newFakeNode(t)
	for i := range 30 {
		n.room(fmt.Sprintf("room%02d", i))
	}
	d := newDriver(t, n, 80, 24)
	d.keys("ctrl+g")
	d.typed("m17")
	d.wants("go to: m17", "> #room17")
	d.keys("enter")
	d.wants(" #room17  ")
}

func TestPasteOfSeveralLines(t *testing.T) {
	for name, text := range map[string]string{"LF": "one\ntwo\nthree", "CR": "one\rtwo\rthree", "CRLF": "one\r\ntwo\r\nthree\r\n"} {
		t.Run(name, func(t *testing.T) {
			n := newFakeNode(t)
			d := newDriver(t, n, 80, 24)
			d.typed("see: ")
			d.send(tea.PasteMsg{Content: text})
			d.wants("Send 3 lines as one message?", "see: one")
			d.keys("n")
			d.wants("ada> see:")
			d.send(tea.PasteMsg{Content: text})
			d.keys("e")
			d.wants("ada> see: one\n", "\n     two\n", "\n     three")
			d.keys("enter")
			if got := n.requests(); len(got) != 1 || got[0].Text != "see: one\ntwo\nthree" {
				t.Errorf("sent %+v", got)
			}
		})
	}
}

func TestAVeryLongPasteIsRefused(t *testing.T) {
	n := newFakeNode(t)
	d := newDriver(t, n, 80, 24)
	d.send(tea.PasteMsg{Content: strings.Repeat("x", maxInput+1)})
	d.wants("nothing was pasted")
	d.send(tea.PasteMsg{Content: strings.Repeat("x", maxText+1)})
	d.wants("too long: 16385 of 16384 bytes")
}

func TestCtrlCClearsAndThenQuits(t *testing.T) {
	n := newFakeNode(t)
	d := newDriver(t, n, 80, 24)
	d.typed("oops")
	d.keys("ctrl+c")
	d.wants("cleared; Up brings it back")
	d.keys("up")
	d.wants("ada> oops")
	d.keys("ctrl+c")
	if _, cmd := d.Update(keyPress("ctrl+c")); cmd != nil {
		t.Error("it quits at the first press on an empty input")
	}
	_, cmd := d.Update(keyPress("ctrl+c"))
	if cmd == nil {
		t.Fatal("it does not quit")
	}
	if _, ok := cmd().(tea.QuitMsg); !ok {
		t.Error("it does not quit")
	}
}

func TestARequestSaysWhatToDo(t *testing.T) {
	n := newFakeNode(t)
	c := n.direct("eve", "0EVE")
	c.Request = true
	n.say(c, "eve", "hi, it is me")
	d := newDriver(t, n, 80, 24)
	d.wants("? @eve", "[Act: @eve(1)]")
	d.keys("alt+2")
	d.wants("@eve wants to write to you", "/accept", "/reject")
	d.enter("hello eve")
	d.wants("accepts the request. Send? (y/n)")
	d.keys("n")
	d.wants("ada> hello eve")
	d.keys("enter", "y")
	if got := n.requests(); len(got) != 1 || got[0].Text != "hello eve" {
		t.Errorf("sent %+v", got)
	}
}

func TestAResetKeepsTheReadersPlace(t *testing.T) {
	n := newFakeNode(t)
	c := n.room("lobby")
	n.fill(c, 1000)
	d := newDriver(t, n, 80, 24)
	for range 20 {
		d.keys("pgup")
	}
	before := d.screen()
	d.event(api.Event{Type: api.EventReset})
	if after := d.screen(); after != before {
		t.Errorf("the view moved from\n%s\nto\n%s", before, after)
	}
}

func TestEventsDuringAPageAreNotLost(t *testing.T) {
	n := newFakeNode(t)
	c := n.room("lobby")
	n.fill(c, 50)
	d := newDriver(t, n, 80, 24)
	_, load := d.Update(eventsMsg{{event: api.Event{Type: api.EventReset}}})
	// The page is asked for now, and answers after the event.
	var answers []tea.Msg
	var collect func(cmd tea.Cmd)
	collect = func(cmd tea.Cmd) {
		if cmd == nil {
			return
		}
		if batch, ok := cmd().(tea.BatchMsg); ok {
			for _, c := range batch {
				collect(c)
			}
			return
		}
		answers = append(answers, cmd())
	}
	collect(load)
	n.say(c, "bob", "in between")
	d.sync(n, 0)
	for _, a := range answers {
		d.send(a)
	}
	d.wants("in between")
}

func TestTheStatusBarIsTruthful(t *testing.T) {
	n := newFakeNode(t)
	d := newDriver(t, n, 120, 24)
	for _, c := range []struct {
		name   string
		change func(s *api.Status)
		want   string
	}{
		{"paths", func(*api.Status) {}, "[peers 2, 1 lan, 1 relayed]"},
		{"nobody", func(s *api.Status) { s.Peers = api.PathCount{} }, "[not connected: nobody found yet]"},
		{"outbox", func(s *api.Status) { s.Outbox = 3 }, "[outbox 3]"},
		{"gaps", func(s *api.Status) { s.Gaps = 7 }, "[gaps 7]"},
		{"problem", func(s *api.Status) { s.Problems = []string{"no relay can be reached; try `starling doctor`"} }, "no relay can be reached"},
		{"clock ahead", func(s *api.Status) { s.ClockSkewMS = 300_000 }, "clock is wrong by about 5m0s"},
		{"clock behind", func(s *api.Status) { s.ClockSkewMS = -3600_000 }, "clock is wrong by about 1h0m0s"},
		{"disk low", func(s *api.Status) { s.Storage.FreeBytes = 50 << 20 }, "only 50 MiB left"},
		{"disk full", func(s *api.Status) { s.Storage.State = "read_only" }, "the disk is full"},
		{"history", func(s *api.Status) { s.Storage.State = "no_history" }, "the history cannot be opened"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := n.status
			c.change(&s)
			d.event(api.Event{Type: api.EventStatus, Status: &s})
			d.wants(c.want)
		})
	}
	n.say(n.room("lobby"), "bob", "", func(m *api.Message) { m.Kind = api.KindUnknown })
	d.event(api.Event{Type: api.EventStatus, Status: &n.status})
	d.sync(n, 0)
	d.wants("something came that needs a newer version")
}

func TestMentionsRingAndMutedDoNot(t *testing.T) {
	n := newFakeNode(t)
	lobby := n.room("lobby")
	n.room("dev")
	d := newDriver(t, n, 80, 24)
	d.keys("alt+1") // dev
	rings := func(text string) bool {
		d.rangAt = d.now.Add(-bellPause)
		m := n.say(lobby, "bob", text)
		return d.alert(m) != nil
	}
	if !rings("Ada: are you there?") {
		t.Error("a mention by nick does not ring")
	}
	if rings("adamant people are here") {
		t.Error("half a word rings")
	}
	d.find(lobby.ID).Muted = true
	if rings("ada!") {
		t.Error("a muted room rings")
	}
}

func TestTheBellCarriesNoText(t *testing.T) {
	n := newFakeNode(t)
	c := n.direct("eve", "0EVE")
	d := newDriver(t, n, 80, 24)
	d.rangAt = d.now.Add(-bellPause)
	m := n.say(c, "eve\x1b]52;c;aGk=\x07", "\x1b]9;gotcha\x07 text")
	cmd := d.alert(m)
	if cmd == nil {
		t.Fatal("a direct message does not ring")
	}
	raw, _ := cmd().(tea.RawMsg).Msg.(string)
	inner := strings.TrimSuffix(strings.TrimPrefix(raw, "\a\x1b]9;"), "\x1b\\")
	if strings.Contains(raw, "text") || strings.ContainsFunc(inner, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		t.Errorf("the bell carries %q", raw)
	}
}

func TestCompletion(t *testing.T) {
	n := newFakeNode(t)
	c := n.room("lobby")
	n.room("lounge")
	c.members = append(c.members, api.Member{Account: "0BARB", Nick: "Barbara"})
	n.say(c, "bertil", "hello")
	for _, tc := range []struct{ typed, want string }{
		{"/jo", "/join "},
		{"b", "bertil: "}, // who spoke last
		{"ba", "Barbara: "},
		{"hi ba", "hi Barbara "},
		{"/msg @ba", "/msg @Barbara "},
		{"#lo", "#lobby "},
		{"/set th", "/set theme "},
		{"nothing such", "nothing such"},
	} {
		d := newDriver(t, n, 80, 24)
		d.goTo("#lobby")
		d.typed(tc.typed)
		d.keys("tab")
		if got := d.input.String(); got != tc.want {
			t.Errorf("%q completes to %q, want %q", tc.typed, got, tc.want)
		}
	}
	d := newDriver(t, n, 80, 24)
	d.typed("#lo")
	d.keys("tab", "tab")
	if got := d.input.String(); got != "#lounge " {
		t.Errorf("the second candidate is %q", got)
	}
	d.send(tea.KeyPressMsg{Code: tea.KeyTab, Mod: tea.ModShift})
	if got := d.input.String(); got != "#lobby " {
		t.Errorf("back it is %q", got)
	}
}

func TestEveryCommandAnswers(t *testing.T) {
	n := newFakeNode(t)
	n.direct("bob", "0BOB")
	n.say(n.room("lobby"), "bob", "hi")
	for name := range commands {
		if name == "quit" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			d := newDriver(t, n, 80, 24)
			d.goTo("#lobby")
			before := d.screen()
			d.enter("/" + name)
			if d.screen() == before {
				t.Errorf("/%s says nothing", name)
			}
			d.lacks("%!")
		})
	}
	for alias, name := range aliases {
		if commands[name] == nil {
			t.Errorf("/%s stands for /%s, which does not exist", alias, name)
		}
	}
}

// TestTheCommandsOfTheDesign holds the list of commands that the UI promises.
func TestTheCommandsOfTheDesign(t *testing.T) {
	list := "help join part query msg me nick topic names whois invite kick ban mute ignore op create away search history reply edit " +
		"delete react read upload download contact verify status peers ping doctor set lang quit"
	for _, name := range strings.Fields(list) {
		if commands[name] == nil {
			t.Errorf("/%s is missing", name)
		}
	}
}

func TestAnUnknownCommandIsNotSent(t *testing.T) {
	n := newFakeNode(t)
	d := newDriver(t, n, 80, 24)
	d.enter("/jion #x")
	d.wants("unknown command /jion; did you mean /join?")
	d.enter("/frobnicate")
	d.wants("/help lists them")
	if len(n.requests()) != 0 {
		t.Error("it was sent")
	}
}

func TestKeysOverAPage(t *testing.T) {
	n := newFakeNode(t)
	n.room("zoo")
	d := newDriver(t, n, 80, 24)
	d.enter("/help")
	d.wants("Ctrl+G, Ctrl+F")
	d.keys("alt+/") // Esc and a slash, quickly
	d.typed("he")
	if got := d.input.String(); d.overlay != nil || got != "/he" {
		t.Errorf("the input is %q", got)
	}
	d.keys("ctrl+u")
	d.enter("/help")
	d.keys("alt+2")
	d.wants(" #zoo")
	d.lacks("Ctrl+G, Ctrl+F")
	d.keys("ctrl+f", "alt+b") // which edits what is searched
	d.wants("search #zoo")
	d.keys("esc", "alt+l")
	d.lacks("1 #lobby")
	d.keys("alt+l")
	d.wants("1 #lobby")
}

func TestHelpAtEveryWidth(t *testing.T) {
	for _, lang := range languages {
		for _, width := range []int{20, 44, 60, 80, 200} {
			d := newDriver(t, newFakeNode(t), 200, 100)
			d.run(d.cmdSet("lang " + lang))
			d.enter("/help")
			d.send(tea.WindowSizeMsg{Width: width, Height: 400})
			p := d.overlay.(*pager)
			for _, line := range p.lines {
				if have := d.metric.width(line); have > width {
					t.Errorf("%s at %d: %q takes %d", lang, width, line, have)
				}
			}
			d.wants("/help", "Ctrl+G", "/whois")
		}
	}
}

func TestSaysWhyNobodyIsConnected(t *testing.T) {
	n := newFakeNode(t)
	d := newDriver(t, n, 100, 24)
	for _, c := range []struct {
		change func(s *api.Status)
		says   string
	}{
		{func(s *api.Status) {}, "[not connected: nobody found yet]"},
		{func(s *api.Status) { s.Relays = []api.Relay{{Error: "timeout"}} }, "[not connected: no relay answers]"},
		{func(s *api.Status) { s.Relays = []api.Relay{{Error: "timeout"}, {Connected: true}} }, "[not connected: nobody found yet]"},
		{func(s *api.Status) { s.Addrs = nil }, "[not connected: this machine has no network]"},
		{func(s *api.Status) { s.Ready = false }, "[not connected: the node is starting]"},
	} {
		st := n.status
		st.Peers = api.PathCount{}
		c.change(&st)
		d.event(api.Event{Type: api.EventStatus, Status: &st})
		d.wants(c.says)
	}
}

// TestAsksForOlderAgain comes to the beginning of what is here: the node asks others for what is older,
// who may have it only later.
func TestAsksForOlderAgain(t *testing.T) {
	n := newFakeNode(t)
	c := n.room("lobby")
	n.fill(c, 60)
	early := c.messages[:40]
	c.messages = c.messages[40:]
	for i, m := range c.messages {
		c.at[m.ID] = i
	}
	d := newDriver(t, n, 80, 24)
	d.keys("home", "home") // the second shows the line before the first message
	d.wants("the beginning of what is here", "message 41 of many")
	n.mu.Lock()
	c.messages = append(early, c.messages...)
	for i, m := range c.messages {
		c.at[m.ID] = i
	}
	n.mu.Unlock()
	d.keys("pgup")
	d.lacks("message 40 of many") // it was asked a moment ago
	d.now = d.now.Add(askAgain)
	d.keys("pgup", "pgup")
	d.wants("message 40 of many")
	d.keys("home", "home")
	d.wants("the beginning of what is here", "message 1 of many")
	_, r := d.here()
	r.loading, r.since = true, d.now.Add(-time.Second)
	d.wants("asking the others for what is older")
}
