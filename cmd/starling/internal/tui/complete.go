package tui

import (
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

// tab completes the word before the cursor: commands, rooms, nicks, or paths after /upload.
func (m *model) tab() tea.Cmd {
	c := &m.complete
	if len(c.words) > 0 {
		c.at = (c.at + 1) % len(c.words)
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
	m.input.cursor = len(clusters(c.head + c.words[c.at]))
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
	case strings.HasPrefix(head, "/contact add ") || strings.HasPrefix(word, "./") || strings.HasPrefix(word, "~/") || strings.HasPrefix(word, "/") && head != "":
		list = paths(word)
	case strings.HasPrefix(word, "#"):
		for _, c := range m.conversations {
			if c.Kind == "room" {
				list = append(list, c.Target+" ")
			}
		}
	default:
		list = m.people(head, word)
	}
	want := strings.ToLower(word)
	list = slices.DeleteFunc(list, func(s string) bool { return !strings.HasPrefix(strings.ToLower(s), want) })
	slices.Sort(list)
	return slices.Compact(list)
}

// people offers nicks: at the beginning of a line with a colon, after an @ with it.
func (m *model) people(head, word string) []string {
	at, end := "", " "
	if strings.HasPrefix(word, "@") {
		at = "@"
	} else if head == "" {
		end = ": "
	}
	var list []string
	if r := m.rooms[m.current]; r != nil {
		for _, who := range r.members {
			if nick := api.EscapeNick(who.Nick); nick != "" && !who.Own {
				list = append(list, at+nick+end)
			}
		}
	}
	for _, c := range m.conversations {
		if c.Kind == "dm" {
			list = append(list, at+strings.TrimPrefix(c.Target, "@")+end)
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
