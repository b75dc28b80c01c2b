package tui

import (
	"hash/fnv"
	"strings"

	"charm.land/lipgloss/v2"
)

// theme holds the styles of the screen. The zero theme draws without any.
type theme struct {
	name                                       string
	dim, bold, accent, warn, bar, mark, search lipgloss.Style
	nicks                                      []lipgloss.Style
}

// themeNames are what /set theme takes.
var themeNames = []string{"dark", "light", "none"}

func newTheme(name string) theme {
	plain := lipgloss.NewStyle()
	t := theme{name: name, dim: plain, bold: plain, accent: plain, warn: plain, bar: plain, mark: plain, search: plain}
	if name == "none" {
		return t
	}
	color := func(c string) lipgloss.Style { return plain.Foreground(lipgloss.Color(c)) }
	palette := []string{"1", "2", "3", "4", "5", "6", "9", "10", "11", "12", "13", "14"}
	t.dim, t.warn, t.accent = color("8"), color("9").Bold(true), color("14")
	if name == "light" {
		palette = []string{"1", "2", "4", "5", "6", "22", "53", "88", "94", "18", "54", "23"}
		t.dim, t.warn, t.accent = color("245"), color("1").Bold(true), color("4")
	}
	t.bold = plain.Bold(true)
	t.bar = plain.Reverse(true)
	t.mark = t.accent.Bold(true)
	t.search = plain.Underline(true)
	for _, c := range palette {
		t.nicks = append(t.nicks, color(c))
	}
	return t
}

// nick gives an account its color, the same every time.
func (t theme) nick(account string) lipgloss.Style {
	if len(t.nicks) == 0 {
		return t.bold
	}
	h := fnv.New32a()
	h.Write([]byte(account))
	return t.nicks[h.Sum32()%uint32(len(t.nicks))]
}

// pickTheme follows the setting; without one, NO_COLOR means none.
func pickTheme(setting string, environ []string) theme {
	for _, name := range themeNames {
		if setting == name {
			return newTheme(name)
		}
	}
	if lookup(environ, "NO_COLOR") != "" {
		return newTheme("none")
	}
	return newTheme("dark")
}

func lookup(environ []string, name string) string {
	for i := len(environ) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(environ[i], name+"="); ok {
			return v
		}
	}
	return ""
}

func isUTF8(locale string) bool {
	l := strings.ToLower(locale)
	return strings.Contains(l, "utf-8") || strings.Contains(l, "utf8")
}
