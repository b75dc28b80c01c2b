package tui

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	tea "charm.land/bubbletea/v2"

	"github.com/starling-chat/starling/node/api"
)

// completion is a Tab press that may be followed by more: each further one takes the next candidate.
type completion struct {
	head, tail string   // the input around the word
	words      []string // candidates
	at         int
}

// tab completes the word before the cursor: commands, rooms, nicks, or paths; again, it takes the
// next candidate, or the one before.
func (m *model) tab(step int) tea.Cmd {
	c := &m.complete
	if n := len(c.words); n > 0 {
		c.at = (c.at + step + n) % n
	} else {
		before := strings.Join(m.input.text[:m.input.cursor], "")
		i := strings.LastIndexAny(before, " \n") + 1
		c.head, c.tail = before[:i], strings.Join(m.input.text[m.input.cursor:], "")
		c.words, c.at = m.candidates(c.head, before[i:]), 0
		if len(c.words) == 0 {
			return nil
		}
	}
	kept := *c
	m.input.set(c.head + c.words[c.at] + c.tail)
	m.input.cursor = len(m.input.clusters(c.head + c.words[c.at]))
	m.complete = kept
	return nil
}

func (m *model) candidates(head, word string) []string {
	var list []string
	switch {
	case head == "" && strings.HasPrefix(word, "/"):
		for name := range commands {
			list = append(list, "/"+name+" ")
		}
		slices.Sort(list)
	case strings.HasPrefix(word, "./") || strings.HasPrefix(word, "~/") || strings.HasPrefix(word, "/"):
		list = paths(word)
	case strings.HasPrefix(word, "#"):
		for i := range m.conversations {
			if c := &m.conversations[i]; c.Kind == kindRoom {
				list = append(list, c.Target+" ")
			}
		}
	case head == "/set ":
		for name := range knobs() {
			list = append(list, name+" ")
		}
		slices.Sort(list)
	case head == "/help ":
		list = slices.Sorted(maps.Keys(commands))
	default:
		list = m.people(head, word)
	}
	want := strings.ToLower(word)
	out := list[:0]
	for _, s := range list {
		if strings.HasPrefix(strings.ToLower(s), want) && !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return out
}

// people offers nicks: who spoke last first, at the beginning of a line with a colon, after an @
// with it. Somebody whose nick is not theirs alone is offered by account.
func (m *model) people(head, word string) []string {
	prefix, end := "", " "
	if strings.HasPrefix(word, "@") {
		prefix = "@"
	} else if head == "" {
		end = ": "
	}
	var list []string
	add := func(nick, account string, shared bool) {
		name := m.name(nick)
		if shared || strings.Contains(name, " ") {
			if prefix == "" {
				return
			}
			name = account
		}
		if nick != "" && account != m.me.Account {
			list = append(list, prefix+name+end)
		}
	}
	if _, r := m.here(); r != nil {
		r.spoken(func(msg api.Message) bool {
			add(msg.Nick, msg.Account, msg.NickShared)
			return true
		})
		members := slices.Clone(r.members)
		slices.SortFunc(members, func(a, b api.Member) int { return strings.Compare(strings.ToLower(a.Nick), strings.ToLower(b.Nick)) })
		for _, who := range members {
			add(who.Nick, who.Account, who.NickShared)
			add(who.Petname, who.Account, false)
		}
	}
	known := slices.SortedFunc(maps.Values(m.contacts), func(a, b api.Contact) int { return strings.Compare(a.Petname+a.Nick, b.Petname+b.Nick) })
	for _, k := range known {
		if k.Petname != "" {
			add(k.Petname, k.Account, false)
		} else if k.Nick != k.Fingerprint {
			add(k.Nick, k.Account, false)
		}
	}
	return list
}

func paths(word string) []string {
	dir, _ := filepath.Split(word)
	real := dir
	if rest, ok := strings.CutPrefix(dir, "~/"); ok {
		home, err := os.UserHomeDir()
		if err != nil {
			return nil
		}
		real = filepath.Join(home, rest)
	}
	if real == "" {
		real = "."
	}
	entries, err := os.ReadDir(real)
	if err != nil {
		return nil
	}
	var list []string
	for _, e := range entries {
		name := dir + e.Name()
		if e.IsDir() {
			name += "/"
		}
		list = append(list, clean(name))
	}
	return list
}
