package tui

import (
	"reflect"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/starling-chat/starling/node/api"
)

// driver runs a model without a terminal: commands are executed at once, and events are handed over
// when the test says so.
type driver struct {
	*model
	tb testing.TB
}

func newDriver(tb testing.TB, n *fakeNode, width, height int) *driver {
	tb.Helper()
	client := n.client()
	tb.Cleanup(client.Close)
	d := &driver{newModel(tb.Context(), Config{Client: client, Environ: []string{"LANG=C.UTF-8"}, Zone: time.UTC}), tb}
	d.now = zeroHour
	d.send(tea.WindowSizeMsg{Width: width, Height: height})
	d.event(api.Event{Type: api.EventHello})
	return d
}

// send updates the model and runs what follows from it.
func (d *driver) send(msg tea.Msg) {
	d.tb.Helper()
	_, cmd := d.Update(msg)
	d.run(cmd)
}

func (d *driver) event(ev api.Event) { d.send(eventsMsg{{event: ev}}) }

// second lets a second pass: what a tick does but the next tick.
func (d *driver) second() {
	d.tb.Helper()
	d.run(d.tick(d.now.Add(time.Second)))
}

// run executes a command and all that come of it. What bubbletea does itself, such as writing to the
// terminal, is left out.
func (d *driver) run(cmd tea.Cmd) {
	d.tb.Helper()
	if cmd == nil {
		return
	}
	switch msg := cmd().(type) {
	case nil, tea.RawMsg, tea.QuitMsg:
	case tea.BatchMsg:
		for _, c := range msg {
			d.run(c)
		}
	default:
		if reflect.TypeOf(msg).PkgPath() == reflect.TypeFor[model]().PkgPath() {
			d.send(msg)
		}
	}
}

// keys presses keys by name, or types what is no name of one.
func (d *driver) keys(names ...string) {
	d.tb.Helper()
	for _, name := range names {
		d.send(keyPress(name))
	}
}

func (d *driver) typed(text string) {
	d.tb.Helper()
	for _, c := range d.input.clusters(text) {
		d.send(tea.KeyPressMsg{Text: c, Code: []rune(c)[0]})
	}
}

// command types a command and enters it.
func (d *driver) enter(text string) {
	d.tb.Helper()
	d.typed(text)
	d.keys("enter")
}

func keyPress(name string) tea.KeyPressMsg {
	var k tea.KeyPressMsg
	for {
		mod, rest, ok := strings.Cut(name, "+")
		if !ok || rest == "" {
			break
		}
		k.Mod |= map[string]tea.KeyMod{"ctrl": tea.ModCtrl, "alt": tea.ModAlt, "shift": tea.ModShift}[mod]
		name = rest
	}
	special := map[string]rune{
		"enter": tea.KeyEnter, "esc": tea.KeyEscape, "tab": tea.KeyTab, "up": tea.KeyUp, "down": tea.KeyDown, "left": tea.KeyLeft,
		"right": tea.KeyRight, "pgup": tea.KeyPgUp, "pgdown": tea.KeyPgDown, "home": tea.KeyHome, "end": tea.KeyEnd,
		"backspace": tea.KeyBackspace, "delete": tea.KeyDelete, "space": tea.KeySpace, "f1": tea.KeyF1,
	}
	if code, ok := special[name]; ok {
		k.Code = code
		return k
	}
	k.Code = []rune(name)[0]
	if k.Mod == 0 {
		k.Text = name
	}
	return k
}

// screen is what would be on the terminal, without styles.
func (d *driver) screen() string { return ansi.Strip(d.View().Content) }

func (d *driver) wants(what ...string) {
	d.tb.Helper()
	s := d.screen()
	for _, w := range what {
		if !strings.Contains(s, w) {
			d.tb.Fatalf("%q is not on the screen:\n%s", w, s)
		}
	}
}

func (d *driver) lacks(what ...string) {
	d.tb.Helper()
	s := d.screen()
	for _, w := range what {
		if strings.Contains(s, w) {
			d.tb.Fatalf("%q is on the screen:\n%s", w, s)
		}
	}
}

// sync hands the events over that the node has published since from, and gives where that ended.
func (d *driver) sync(n *fakeNode, from int) int {
	d.tb.Helper()
	n.mu.Lock()
	news := append([]api.Event(nil), n.log[from:]...)
	n.mu.Unlock()
	for _, ev := range news {
		d.event(ev)
	}
	return from + len(news)
}
