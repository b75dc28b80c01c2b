package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/charmbracelet/x/term"
	"github.com/mattn/go-runewidth"

	"github.com/starling-chat/starling/node/api"
)

// printJSON prints one object on one line.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.stdout)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// printObjects prints a list, one object a line.
func printObjects[T any](a *app, list []T) error {
	for _, v := range list {
		if err := a.printJSON(v); err != nil {
			return err
		}
	}
	return nil
}

// printTable prints rows in columns; every cell is escaped here, so that no command can forget it.
// An empty header is left out, and the last column is not padded.
func (a *app) printTable(header []string, rows [][]string) error {
	if header != nil {
		rows = append([][]string{header}, rows...)
	}
	var widths []int
	for _, row := range rows {
		for i, cell := range row {
			row[i] = api.Escape(cell)
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], runewidth.StringWidth(row[i]))
		}
	}
	var b strings.Builder
	for _, row := range rows {
		for i, cell := range row {
			b.WriteString(cell)
			if i < len(row)-1 {
				b.WriteString(strings.Repeat(" ", widths[i]-runewidth.StringWidth(cell)+2))
			}
		}
		b.WriteString("\n")
	}
	_, err := fmt.Fprint(a.stdout, b.String())
	return err
}

// say prints one line of the answer, escaped.
func (a *app) say(format string, args ...any) error {
	_, err := fmt.Fprintln(a.stdout, api.Escape(fmt.Sprintf(format, args...)))
	return err
}

// isTerminal says whether a stream is a terminal that a person sits at.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(f.Fd())
}

// interactive says whether somebody can be asked.
func (a *app) interactive() bool { return isTerminal(a.stdin) && isTerminal(a.stderr) }

// ago says how long a time is past, roughly.
func ago(t api.Time) string {
	if t.IsZero() {
		return "never"
	}
	d := time.Since(t.Time)
	switch {
	case d < time.Minute:
		return "now"
	case d < time.Hour:
		return fmt.Sprintf("%dm ago", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh ago", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd ago", int(d.Hours()/24))
	}
}

// clock is a time as people read it: local, without the date when it is today.
func clock(t api.Time) string {
	if t.IsZero() {
		return "-"
	}
	local, now := t.Local(), time.Now()
	if local.YearDay() == now.YearDay() && local.Year() == now.Year() {
		return local.Format("15:04")
	}
	return local.Format("2006-01-02 15:04")
}

// who is a nick as shown: with the fingerprint when two claim it, and the fingerprint alone when
// there is none.
func who(nick, fingerprint string, shared bool) string {
	switch {
	case nick == "":
		return "~" + api.Escape(fingerprint)
	case shared:
		return api.EscapeNick(nick) + "~" + api.Escape(fingerprint)
	default:
		return api.EscapeNick(nick)
	}
}

// orDash keeps an empty cell visible.
func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
