package tui

import (
	"fmt"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/starling-chat/starling/node/api"
)

// hostile are texts that take over a terminal, or a screen, that shows them as they are.
var hostile = []string{
	"\x1b[2J\x1b[H\x1b[31mred\x1b]0;title\x07\x1b]52;c;cm0gLXJmIC8=\x07\x1bc\x1b[?1049l",
	"\u009b2J\u009d52;c;aGk=\u009c\u0090q\u009c",
	"\r\nfake line\r\x08\x08\x7f\x00",
	"\u202eevil\u202c \u2066x\u2069 \u200f\u061c",
	"Z" + strings.Repeat("\u0301\u0489\u20dd", 3_400),
	"क" + strings.Repeat("ा", 500),
	strings.Repeat("ᄒ", 500) + strings.Repeat("🇩", 999),
	strings.Repeat("👨\u200d", 300) + "👧🏽",
	"\xff\xfe\xc0\x80 \xed\xa0\x80",
	"\u2028\u2029\u0085\u000b\u000c",
	"\ufeff\u200b\u2060\u00ad\u180e\U000e0041",
	strings.Repeat("W", 3_000),
	strings.Repeat("\n", 500),
	"%s%n%d%!",
	"\u0301",
	"",
}

// poison fills every text of a shape of the API with hostile ones, but for those that tie shapes to
// each other.
func poison(v reflect.Value, i *int) {
	switch v.Kind() {
	case reflect.Struct:
		for f := range v.NumField() {
			switch v.Type().Field(f).Name {
			case "ID", "Conversation", "Kind", "Account", "After", "ReplyTo", "Own", "Request", "Time":
			default:
				poison(v.Field(f), i)
			}
		}
	case reflect.String:
		v.SetString(strings.ToValidUTF8(hostile[*i%len(hostile)], "\ufffd")) // JSON carries nothing else
		*i++
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 3, 3))
		for k := range 3 {
			poison(v.Index(k), i)
		}
	case reflect.Pointer:
		if !v.IsNil() {
			poison(v.Elem(), i)
		}
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(*i % 1000))
	case reflect.Uint64:
		v.SetUint(uint64(*i % 1000))
	case reflect.Float64:
		v.SetFloat(1e300)
	}
}

func poisoned[T any](seed int, v T) T {
	poison(reflect.ValueOf(&v).Elem(), &seed)
	return v
}

var styles = regexp.MustCompile("\x1b\\[[0-9;:]*m|\x1b\\]8;;[!-~]*\x1b\\\\")

// harmless says what is wrong with a screen: too many or too wide lines, or anything that is no
// printable text or one of our own styles.
func harmless(d *driver) error {
	v := d.View()
	lines := strings.Split(v.Content, "\n")
	if len(lines) > d.height {
		return fmt.Errorf("%d lines on a screen of %d", len(lines), d.height)
	}
	for i, line := range lines {
		if w := d.metric.width(line); w > d.model.width {
			return fmt.Errorf("line %d takes %d of %d cells: %q", i, w, d.model.width, line)
		}
		plain := styles.ReplaceAllString(line, "")
		if safe := api.Escape(plain); safe != plain {
			return fmt.Errorf("line %d has something in it: %.200q", i, plain)
		}
	}
	if safe := api.Escape(v.WindowTitle); safe != v.WindowTitle {
		return fmt.Errorf("the window title is %q", v.WindowTitle)
	}
	if c := v.Cursor; c != nil && (c.X < 0 || c.X >= d.model.width || c.Y < 0 || c.Y >= d.height) {
		return fmt.Errorf("the cursor is at %d, %d of %d by %d", c.X, c.Y, d.model.width, d.height)
	}
	return nil
}

// poisonedNode is a node all of whose texts are hostile.
func poisonedNode(tb testing.TB, seed int) *fakeNode {
	n := newFakeNode(tb)
	lobby := n.room("lobby")
	direct := n.direct("eve", "0EVE")
	for i := range hostile {
		m := poisoned(seed+i, n.message(lobby, "eve", ""))
		m.Kind = []string{api.KindMessage, api.KindMessage, api.KindTopic, api.KindNotice, api.KindUnknown, api.KindJoin, api.KindProfile, api.KindLeave}[(seed+i)%8]
		m.ID, m.Conversation, m.Account = fmt.Sprintf("%064x", i+1), lobby.ID, "0EVE"
		m.SentAt = api.Time{Time: zeroHour.Add(time.Duration(i) * time.Minute)}
		m.Seq = uint64(i + 1)
		n.keep(lobby, m)
		m.Conversation = direct.ID
		n.keep(direct, m)
	}
	for _, c := range n.list {
		c.Conversation = poisoned(seed, c.Conversation)
		c.Gaps[0].After = c.messages[2].ID
		c.members = []api.Member{poisoned(seed, api.Member{Account: "0EVE"}), poisoned(seed+1, api.Member{Account: "0X"})}
		c.ReadSeq = 1
	}
	direct.Request = true
	n.me.Nick = poisoned(seed, n.me).Nick
	n.contacts = []api.Contact{poisoned(seed, api.Contact{Account: "0EVE", State: "request"})}
	n.outbox = []api.OutboxEntry{poisoned(seed, api.OutboxEntry{ID: "x"})}
	n.status = poisoned(seed, n.status)
	return n
}

func TestHostileTextIsHarmless(t *testing.T) {
	sizes := [][2]int{{80, 24}, {44, 12}, {120, 40}, {20, 6}, {5, 2}}
	for seed := range len(hostile) {
		for _, size := range [][2]int{sizes[seed%len(sizes)], sizes[(seed+2)%len(sizes)]} {
			n := poisonedNode(t, seed)
			d := newDriver(t, n, size[0], size[1])
			look := func(where string) {
				t.Helper()
				if err := harmless(d); err != nil {
					t.Fatalf("seed %d, %dx%d, %s: %v", seed, size[0], size[1], where, err)
				}
			}
			look("at first")
			for _, id := range []string{"0EVE", n.room("lobby").ID} {
				d.run(d.open(id))
				look("in " + id)
				d.keys("pgup", "pgup")
				look("above in " + id)
			}
			typing := poisoned(seed, api.Typing{Account: "0EVE"})
			typing.Conversation = d.current
			d.event(api.Event{Type: api.EventTyping, Typing: &typing})
			look("typing")
			for _, name := range []string{"/help", "/names", "/status", "/peers", "/outbox", "/contact", "/search x", "/switch", "/history", "/whois eve", "/verify eve", "/invite", "/raw", "/reply", "/doctor", "/topic"} {
				d.keys("esc")
				d.enter(name)
				look(name)
				d.keys("down", "enter", "esc")
			}
			d.fail(ptr(poisoned(seed, api.Error{Code: api.CodeAmbiguous})))
			look("an error")
			d.typed(hostile[seed])
			look("the input")
		}
	}
}

func ptr[T any](v T) *T { return &v }

// TestScreensFit draws the screen at any size, with anything in it, in both ways of counting cells.
func TestScreensFit(t *testing.T) {
	n := newFakeNode(t)
	lobby := n.room("lobby")
	d := newDriver(t, n, 80, 24)
	rapid.Check(t, func(t *rapid.T) {
		d.model.width, d.height = rapid.IntRange(1, 150).Draw(t, "width"), rapid.IntRange(1, 50).Draw(t, "height")
		d.metric = rapid.SampledFrom([]metric{byRune, byCluster}).Draw(t, "metric")
		d.input.metric = d.metric
		d.style++
		m := api.Message{
			ID: fmt.Sprint(rapid.Uint64().Draw(t, "id")), Conversation: lobby.ID, Nick: texts(t, "nick"), Fingerprint: "0BOBBOBB", Kind: api.KindMessage,
			NickShared: rapid.Bool().Draw(t, "shared"), Text: texts(t, "text"), Seq: rapid.Uint64Range(1, 99).Draw(t, "seq"), SentAt: api.Time{Time: zeroHour},
		}
		d.event(api.Event{Type: api.EventMessage, Message: &m})
		d.input.set(clean(texts(t, "input")))
		d.input.cursor = rapid.IntRange(0, len(d.input.text)).Draw(t, "cursor")
		if err := harmless(d); err != nil {
			t.Fatal(err)
		}
	})
}

func TestRawShowsWhatHides(t *testing.T) {
	n := newFakeNode(t)
	n.say(n.room("lobby"), "eve", "pay \u202e100\x1b[8m")
	d := newDriver(t, n, 100, 30)
	d.wants(`pay \u202e100\x1b[8m`)
	d.enter("/raw")
	d.wants(`"pay \u202e100\x1b[8m"`, "14 bytes of text", "account  0EVE")
}
