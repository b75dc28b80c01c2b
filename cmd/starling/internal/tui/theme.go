package tui

import (
	"hash/fnv"
	"strings"

	"charm.land/lipgloss/v2"
)

// ink is a style as the escape sequences around what it paints: lipgloss makes them once, and
// painting a line costs no more than joining strings.
type ink struct{ open, close string }

func newInk(s lipgloss.Style) ink {
	open, end, _ := strings.Cut(s.Render("x"), "x")
	return ink{open, end}
}

func (i ink) paint(s string) string {
	if i.open == "" || s == "" {
		return s
	}
	return i.open + s + i.close
}

// theme holds the styles of the screen.
type theme struct {
	dim, bold, accent, warn, bar, mark, hit ink
	nicks                                   []ink
}

// themeNames are what /set theme takes.
var themeNames = []string{"dark", "light", "none"}

// newTheme makes a theme. None has no colors; bars stay reversed and what matters stays bold.
func newTheme(name string) theme {
	plain := lipgloss.NewStyle()
	color := func(c string) lipgloss.Style { return plain.Foreground(lipgloss.Color(c)) }
	t := theme{bold: newInk(plain.Bold(true)), bar: newInk(plain.Reverse(true)), hit: newInk(plain.Reverse(true))}
	var palette []string
	switch name {
	case "none":
		t.mark, t.warn, t.accent = t.bold, t.bold, ink{}
		return t
	case "light":
		palette = []string{"1", "2", "4", "5", "6", "22", "53", "88", "94", "18", "54", "23"}
		t.dim, t.warn, t.accent = newInk(color("245")), newInk(color("1").Bold(true)), newInk(color("4"))
		t.mark = newInk(color("4").Bold(true))
	default:
		palette = []string{"1", "2", "3", "4", "5", "6", "9", "10", "11", "12", "13", "14"}
		t.dim, t.warn, t.accent = newInk(color("8")), newInk(color("9").Bold(true)), newInk(color("14"))
		t.mark = newInk(color("14").Bold(true))
	}
	for _, c := range palette {
		t.nicks = append(t.nicks, newInk(color(c)))
	}
	return t
}

// nick gives an account its color, the same every time.
func (t theme) nick(account string) ink {
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

// lookup finds a variable in an environment; the last one counts.
func lookup(environ []string, name string) string {
	for i := len(environ) - 1; i >= 0; i-- {
		if v, ok := strings.CutPrefix(environ[i], name+"="); ok {
			return v
		}
	}
	return ""
}
