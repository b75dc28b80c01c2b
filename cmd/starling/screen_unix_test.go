//go:build unix

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/starling-chat/starling/cmd/starling/internal/tmux"
	"github.com/starling-chat/starling/node/api"
)

// These tests use the terminal UI as people do: the real binary in a real terminal, two nodes, keys
// and eyes. The sizes are a terminal as it comes, a telephone's, and a large screen's.

var screenSizes = [][2]int{{80, 24}, {44, 12}, {200, 50}}

func bySize(t *testing.T, test func(t *testing.T, width, height int)) {
	for _, size := range screenSizes {
		t.Run(fmt.Sprintf("%dx%d", size[0], size[1]), func(t *testing.T) { test(t, size[0], size[1]) })
	}
}

// couple is two nodes that know each other, as ada and bob.
type couple struct {
	adaHome, bobHome string
	ada, bob         *api.Client
	adaNode          *proc
}

func newCouple(t *testing.T) couple {
	t.Helper()
	dir, err := os.MkdirTemp("", "ui") // short enough for the sockets' paths
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	c := couple{adaHome: filepath.Join(dir, "a"), bobHome: filepath.Join(dir, "b")}
	c.adaNode, c.ada, _ = launch(t, c.adaHome)
	me := nicked(t, c.ada, "ada")
	_, c.bob, _ = launch(t, c.bobHome, "--bootstrap", me.Addrs[0])
	nicked(t, c.bob, "bob")
	return c
}

func nicked(t *testing.T, c *api.Client, nick string) api.Me {
	t.Helper()
	me, err := c.SetNick(t.Context(), nick)
	if err != nil {
		t.Fatal(err)
	}
	return me
}

// meetIn joins both in a room and waits until they see each other there.
func (c couple) meetIn(t *testing.T, room string) {
	t.Helper()
	for _, node := range []*api.Client{c.ada, c.bob} {
		if _, err := node.Join(t.Context(), api.JoinRequest{Room: room}); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "both to meet in "+room, func() bool {
		for _, node := range []*api.Client{c.ada, c.bob} {
			list, err := node.Members(t.Context(), room)
			if err != nil || len(list) < 2 || !list[0].Online && !list[1].Online {
				return false
			}
		}
		return true
	})
}

func (c couple) say(t *testing.T, node *api.Client, room, text string) api.SendResult {
	t.Helper()
	res, err := node.Send(t.Context(), api.SendRequest{Target: room, Text: text})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// screenAt opens the UI of a running node in a terminal.
func screenAt(t *testing.T, width, height int, home, target string) *tmux.Terminal {
	t.Helper()
	term := tmux.New(t, width, height, nil, "starling", "--home", home, "chat", target)
	term.Until("the conversation", func() bool { return strings.HasPrefix(term.Screen(), " "+target) })
	return term
}

// inputAt is the column where the text of the input begins.
func inputAt(width int, nick string) int {
	if width < 40 {
		return 2
	}
	return len(nick) + 2
}

func TestScreenTalk(t *testing.T) {
	t.Parallel()
	c := newCouple(t)
	bySize(t, func(t *testing.T, width, height int) {
		room := fmt.Sprintf("#talk%d", width)
		c.meetIn(t, room)
		ada, bob := screenAt(t, width, height, c.adaHome, room), screenAt(t, width, height, c.bobHome, room)

		ada.Enter("hello bob")
		bob.See("hello bob")
		bob.Enter("/me waves")
		ada.See("* │ bob waves")
		ada.Enter("/msg @bob psst")
		bob.See("@ada(")

		// The whole screen is used, and no line is longer than it.
		rows := ada.Rows()
		if len(rows) != height || !strings.HasPrefix(rows[height-1], "ada> ") && rows[height-1] != "ada>" {
			t.Errorf("the last of %d rows is %q", len(rows), rows[len(rows)-1])
		}
		if bar := rows[height-2]; !strings.HasPrefix(bar, "[") || !strings.Contains(bar, "["+room+"] [peers 1") {
			t.Errorf("the status bar is %q", bar)
		}

		// A resize while somebody types loses nothing and leaves nothing behind.
		ada.Type("half a ")
		ada.See("ada> half a")
		ada.Resize(width-4, height-2)
		ada.Type("thou")
		ada.Until("the input in the last row", func() bool {
			rows := ada.Rows()
			return rows[height-3] == "ada> half a thou" && strings.HasPrefix(rows[height-4], "[")
		})
		ada.Resize(width, height)
		ada.Type("ght")
		ada.Until("the input in the last row again", func() bool {
			rows := ada.Rows()
			return rows[height-1] == "ada> half a thought" && strings.HasPrefix(rows[height-2], "[") &&
				strings.Count(strings.Join(rows, "\n"), "half a") == 1
		})
		ada.CursorAt(inputAt(width, "ada")+len("half a thought"), height-1)
		ada.Press("C-c")
		ada.See("cleared")
	})
}

func TestScreenWideCharacters(t *testing.T) {
	t.Parallel()
	c := newCouple(t)
	bySize(t, func(t *testing.T, width, height int) {
		room := fmt.Sprintf("#wide%d", width)
		c.meetIn(t, room)
		ada, bob := screenAt(t, width, height, c.adaHome, room), screenAt(t, width, height, c.bobHome, room)
		from := inputAt(width, "ada")
		// Each part, and the cells it takes.
		for _, part := range []struct {
			text  string
			cells int
		}{{"你好", 4}, {"日本語", 6}, {"🎉", 2}, {"e\u0301", 1}, {"!", 1}} {
			ada.Type(part.text)
			from += part.cells
			ada.CursorAt(from, height-1)
		}
		ada.Press("Left", "Left", "Left", "Left")
		ada.CursorAt(from-1-1-2-2, height-1) // before 語
		ada.Type("x")
		ada.CursorAt(from-1-1-2-2+1, height-1)
		ada.Press("BSpace", "End")
		ada.CursorAt(from, height-1)
		ada.Press("Enter")
		bob.See("│ 你好日本語🎉\u00e9!") // composed for the terminal

		// A long line wraps between characters, inside the column of texts.
		ada.Enter(strings.Repeat("漢字", 30))
		bob.Until("all of the long line", func() bool { return strings.Count(bob.Screen(), "漢") == 30 })
		for _, row := range bob.Rows() {
			if at := strings.Index(row, "漢"); at >= 0 && !strings.Contains(row[:at], "│ ") {
				t.Errorf("the row %q is outside of the column", row)
			}
		}
	})
}

func TestScreenPaste(t *testing.T) {
	t.Parallel()
	c := newCouple(t)
	bySize(t, func(t *testing.T, width, height int) {
		room := fmt.Sprintf("#paste%d", width)
		c.meetIn(t, room)
		ada, bob := screenAt(t, width, height, c.adaHome, room), screenAt(t, width, height, c.bobHome, room)
		for _, way := range []struct {
			name   string
			asItIs bool
		}{{"CR", false}, {"LF", true}} {
			text := "one " + way.name + "\ntwo " + way.name + "\nthree " + way.name
			ada.Paste(text, way.asItIs)
			ada.See("Send 3 lines as one message?")
			ada.Press("y")
			bob.See("one "+way.name, "two "+way.name, "three "+way.name)
			history, err := c.bob.History(t.Context(), api.HistoryQuery{Target: room, N: 1})
			if err != nil || len(history) != 1 || history[0].Text != text {
				t.Fatalf("with %s bob has %+v, %v", way.name, history, err)
			}
		}
		// Dropped, it leaves what was typed before; kept, it can be edited and sent later.
		ada.Type("before")
		ada.Paste("\nfour\nfive", false)
		ada.See("Send 3 lines")
		ada.Press("n")
		ada.Until("the input as it was", func() bool { return ada.Rows()[height-1] == "ada> before" })
		ada.Paste("\nfour\nfive", false)
		ada.See("Send 3 lines")
		ada.Press("e")
		ada.Until("three rows of input", func() bool {
			rows := ada.Rows()
			return rows[height-3] == "ada> before" && rows[height-2] == "     four" && rows[height-1] == "     five"
		})
		ada.Press("Enter")
		bob.See("before", "four", "five")
	})
}

func TestScreenFindsWhatIsNew(t *testing.T) {
	t.Parallel()
	c := newCouple(t)
	c.meetIn(t, "#aside")
	bySize(t, func(t *testing.T, width, height int) {
		room := fmt.Sprintf("#news%d", width)
		c.meetIn(t, room)
		c.say(t, c.ada, room, "the needle is here")
		for i := range 60 {
			c.say(t, c.ada, room, fmt.Sprintf("old line %d", i))
		}
		c.say(t, c.ada, room, "the last old line")
		bob := screenAt(t, width, height, c.bobHome, room)
		bob.See("the last old line")
		bob.Press("M-1") // #aside sorts first
		bob.Until("#aside", func() bool { return strings.HasPrefix(bob.Screen(), " #aside") })
		for i := range 60 {
			c.say(t, c.ada, room, fmt.Sprintf("new line %d", i))
		}
		bob.See("Act: ")

		// The next with something new, and in it the first unread message.
		bob.Press("M-a")
		bob.See("new line 59")
		bob.Miss("Act: ")
		bob.Press("M-u")
		bob.See("─ new ─", "new line 0")
		bob.Press("End")
		bob.See("new line 59")

		// Search, and go there.
		bob.Press("C-f")
		bob.See("search " + room)
		bob.Enter("needle")
		bob.See("> ", "ada: the needle is here")
		bob.Press("Enter")
		bob.See("│ the needle is here", "old line 0")
		bob.Press("End")
		bob.See("new line 59")

		// Back by name.
		bob.Press("C-g")
		bob.See("go to")
		bob.Type("asi")
		bob.See("> #aside")
		bob.Press("Enter")
		bob.Until("#aside", func() bool { return strings.HasPrefix(bob.Screen(), " #aside") })
	})
}

func TestScreenKeepsDrafts(t *testing.T) {
	t.Parallel()
	c := newCouple(t)
	bySize(t, func(t *testing.T, width, height int) {
		room := fmt.Sprintf("#draft%d", width)
		c.meetIn(t, "#aside")
		c.meetIn(t, room)
		ada := screenAt(t, width, height, c.adaHome, room)
		ada.Enter("/react ^ ") // a command that fails, and is remembered
		ada.Type("a thought, 半分")
		ada.See("a thought, 半分")
		ada.Press("M-1")
		ada.Until("#aside", func() bool { return strings.HasPrefix(ada.Screen(), " #aside") })
		ada.Miss("a thought")
		ada.Enter("/quit")
		if status := ada.Ended(); status != 0 {
			t.Errorf("/quit ends with %d", status)
		}
		ada.Restored()

		ada = screenAt(t, width, height, c.adaHome, room)
		ada.See("a thought, 半分")
		ada.CursorAt(inputAt(width, "ada")+len("a thought, ")+4, height-1)
		ada.Type("!")
		ada.See("半分!")
		ada.Signal(syscall.SIGTERM)
		if status := ada.Ended(); status != 0 {
			t.Errorf("SIGTERM ends it with %d", status)
		}
		ada.Restored()

		ada = screenAt(t, width, height, c.adaHome, room)
		ada.See("a thought, 半分!")
		ada.Press("C-c")
		ada.See("cleared")
		ada.Press("C-c", "C-c")
		ada.Ended()
		ada.Restored()
		// What was cleared can be recalled in the next run, too.
		ada = screenAt(t, width, height, c.adaHome, room)
		ada.Press("Up")
		ada.See("a thought, 半分!")
		ada.Press("Enter")
		ada.See("│ a thought, 半分!")
	})
}

// TestScreenNodeGone stops the node under the UI.
func TestScreenNodeGone(t *testing.T) {
	t.Parallel()
	c := newCouple(t)
	parent, node := t, c.adaNode
	bySize(t, func(t *testing.T, width, height int) {
		room := fmt.Sprintf("#gone%d", width)
		if _, err := c.ada.Join(t.Context(), api.JoinRequest{Room: room}); err != nil {
			t.Fatal(err)
		}
		ada := screenAt(t, width, height, c.adaHome, room)
		ada.Type("before ")
		ada.See("ada> before")
		kill(node)
		gone := time.Now()
		ada.See("[no node]")
		if took := time.Since(gone); took > 2*time.Second {
			t.Errorf("it took %s to say that the node is gone", took)
		}
		ada.Type("and after")
		ada.See("ada> before and after")
		ada.Press("Enter")
		ada.See("your text")
		ada.See("ada> before and after")

		node, _, _ = launch(parent, c.adaHome) // it outlives the subtest
		ada.Miss("[no node]")
		ada.Press("Enter")
		ada.See("│ before and after")
		ada.Until("an empty input", func() bool { return ada.Rows()[height-1] == "ada>" })
	})
}

// TestScreenOwnNode is the first run: a node in the same process, keys made on the way.
func TestScreenOwnNode(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "ui")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	home := filepath.Join(dir, "h")
	args := append([]string{"starling", "chat"}, loopback(home)...)
	term := tmux.New(t, 80, 24, nil, args...)
	term.See("your nick:")
	term.Enter("grace")
	term.See("a passphrase")
	term.Press("Enter")
	term.See("These words are your account")
	words := shownWords(t, term.Screen())
	term.Press("Enter")
	for range 2 { // two of the words are asked for
		term.See("word ")
		term.Enter(askedWord(t, term, words))
	}
	term.See("grace>", "#lobby", "not connected")
	for _, w := range words[:4] {
		if strings.Contains(term.Screen(), " "+w+" ") {
			t.Errorf("the words are still on the screen")
		}
	}
	term.Enter("/quit")
	if status := term.Ended(); status != 0 {
		t.Errorf("/quit ends with %d", status)
	}
	term.Restored()

	// The second run asks nothing.
	term = tmux.New(t, 80, 24, nil, args...)
	term.See("grace>", "#lobby")
	term.Signal(syscall.SIGTERM)
	term.Ended()
	term.Restored()
}

// TestScreenOutOfPlace starts it where a full screen cannot be.
func TestScreenOutOfPlace(t *testing.T) {
	t.Parallel()
	c := newCouple(t)
	c.meetIn(t, "#lobby")
	for name, env := range map[string][]string{
		"dumb": {"TERM=dumb"},
		"C":    {"LANG=C"},
	} {
		t.Run(name, func(t *testing.T) {
			term := tmux.New(t, 80, 24, env, "starling", "--home", c.adaHome, "chat", "#lobby")
			term.See("using line mode", "-- #lobby: ")
			term.Enter("in line mode under " + name)
			eventually(t, "bob to hear it", func() bool {
				list, err := c.bob.History(t.Context(), api.HistoryQuery{Target: "#lobby", N: 1})
				return err == nil && len(list) == 1 && list[0].Text == "in line mode under "+name
			})
			term.Enter("/quit")
			if status := term.Ended(); status != 0 {
				t.Errorf("it ends with %d", status)
			}
			if raw := term.Raw(); strings.Contains(raw, "\x1b") {
				t.Errorf("escape sequences in line mode: %q", raw)
			}
		})
	}
	t.Run("20x5", func(t *testing.T) {
		term := tmux.New(t, 20, 5, nil, "starling", "--home", c.adaHome, "chat", "#lobby")
		term.See("too")
		term.Resize(40, 10)
		term.See("#lobby")
		term.Resize(1, 1)
		term.Resize(80, 24)
		term.See("[#lobby]")
		term.Press("C-c", "C-c")
		term.Ended()
		term.Restored()
	})
	t.Run("raw bytes", func(t *testing.T) {
		hostile := "x\x1b]52;c;aGk=\x07\u202egnp.exe" + strings.Repeat("\u0301", 2000)
		c.say(t, c.bob, "#lobby", hostile)
		term := tmux.New(t, 80, 24, nil, "starling", "--home", c.adaHome, "chat", "#lobby")
		term.See(`│ x\x1b]52;c;aGk=\x07`, "[#lobby]")
		if strings.Contains(term.Raw(), "\x1b]52") {
			t.Error("the sequence reached the terminal")
		}
		term.Enter("/raw")
		term.See(`"x\x1b]52;c;aGk=\a\u202egnp.exe\u0301\u0301`)
	})
}

// shownWords reads the recovery phrase off the screen.
func shownWords(t *testing.T, screen string) []string {
	t.Helper()
	words := make([]string, 24)
	for _, row := range strings.Split(screen, "\n") {
		fields := strings.Fields(row)
		for i := 0; i+1 < len(fields); i += 2 {
			var n int
			if _, err := fmt.Sscanf(fields[i], "%d", &n); err == nil && n >= 1 && n <= 24 {
				words[n-1] = fields[i+1]
			}
		}
	}
	for i, w := range words {
		if w == "" {
			t.Fatalf("word %d is not on the screen:\n%s", i+1, screen)
		}
	}
	return words
}

// askedWord is the word that the last question is for.
func askedWord(t *testing.T, term *tmux.Terminal, words []string) string {
	t.Helper()
	n := 0
	term.Until("a question for a word", func() bool {
		rows := strings.Split(strings.TrimSpace(term.Screen()), "\n")
		last := strings.TrimSpace(rows[len(rows)-1])
		_, err := fmt.Sscanf(last, "word %d", &n)
		return err == nil && strings.HasSuffix(last, ":")
	})
	return words[n-1]
}
