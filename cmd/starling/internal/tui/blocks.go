package tui

import (
	"slices"
	"strings"

	"github.com/starling-chat/starling/node/api"
)

// This file puts messages under each other: with rules for a new day, for what is unread and for
// what is missing, and with crowds of joins on one line. The unit is the block: what belongs to one
// entry of the window. Only blocks that are seen are made.

const dayLayout = "2006-01-02"

func (p *painter) day(e *entry) string { return e.msg.SentAt.In(p.zone).Format(dayLayout) }

// block returns what stands on the screen for entries[i]: the rules before it, its own lines, and
// what is missing after it; nothing for a join that a later entry folds in.
func (p *painter) block(r *room, i, width int) []string {
	e := r.entries[i]
	var out []string
	if i == 0 && r.atStart {
		out = append(out, p.rule(p.t("beginning"), width))
	}
	if i == 0 || p.day(r.entries[i-1]) != p.day(e) {
		out = append(out, p.rule(p.day(e), width))
	}
	if i == r.unreadAt {
		out = append(out, p.theme.mark.paint(p.plainRule(p.t("new messages"), width)))
	}
	switch {
	case folds(e.msg) && p.continues(r, i):
		return out
	case folds(e.msg):
		out = append(out, p.folded(r, i, width)...)
	default:
		out = append(out, p.lines(r, e, width)...)
	}
	for _, g := range r.gaps[e.msg.ID] {
		out = append(out, p.theme.warn.paint(p.plainRule(p.gap(g), width)))
	}
	return out
}

func (p *painter) gap(g api.Gap) string {
	who := p.name(g.Nick)
	if g.Nick == "" {
		who = p.name(g.Account)
	}
	return p.t("gap", g.Count, who)
}

// folds says whether an entry is one of those that come in crowds and are shown on one line.
func folds(m api.Message) bool {
	return m.Kind == api.KindJoin || m.Kind == api.KindLeave || m.Kind == api.KindProfile
}

// continues says whether entries[i] and the one after it fold into one line.
func (p *painter) continues(r *room, i int) bool {
	if i+1 >= len(r.entries) || i+1 == r.unreadAt || len(r.gaps[r.entries[i].msg.ID]) > 0 {
		return false
	}
	a, b := r.entries[i], r.entries[i+1]
	return folds(a.msg) && folds(b.msg) && p.day(a) == p.day(b)
}

// maxFolded is how many names a folded line gives for each of joined, left and renamed.
const maxFolded = 4

// folded is the line of the joins, leaves and new nicks that end with entries[i].
func (p *painter) folded(r *room, i, width int) []string {
	start := i
	for start > 0 && p.continues(r, start-1) {
		start--
	}
	var joined, left, named []string
	came := map[string]bool{}
	for _, e := range r.entries[start : i+1] {
		if e.msg.Kind == api.KindJoin {
			came[e.msg.Account] = true
		}
	}
	for at := start; at <= i; at++ {
		m := r.entries[at].msg
		who := p.nickOf(m.Nick, m.Fingerprint, m.NickShared)
		switch m.Kind {
		case api.KindJoin:
			joined = append(joined, who)
		case api.KindLeave:
			if reason := p.line(m.Text); reason != "" {
				who += " (" + reason + ")"
			}
			left = append(left, who)
		default:
			if line := p.renamed(r, at, came[m.Account]); line != "" {
				named = append(named, line)
			}
		}
	}
	var parts []string
	if len(joined) > 0 {
		parts = append(parts, "→ "+p.t("joined", p.enumerate(joined)))
	}
	if len(left) > 0 {
		parts = append(parts, "← "+p.t("left", p.enumerate(left)))
	}
	if len(named) > 0 {
		parts = append(parts, p.enumerate(named))
	}
	if len(parts) == 0 {
		return nil
	}
	return p.noticeLines(r.entries[i].msg.SentAt.In(p.zone).Format("15:04"), strings.Join(parts, "  "), width)
}

// renamed says who took which nick. The first nick of somebody who joins at the same time says
// nothing that the join does not.
func (p *painter) renamed(r *room, i int, came bool) string {
	m := r.entries[i].msg
	now := p.name(m.Text)
	for at := i - 1; at >= 0; at-- {
		before := r.entries[at].msg
		if before.Kind != api.KindProfile || before.Account != m.Account {
			continue
		}
		if before.Text == m.Text {
			return ""
		}
		return p.t("is now", p.name(before.Text), now)
	}
	if came {
		return ""
	}
	return p.t("is now", p.name(m.Fingerprint), now)
}

func (p *painter) enumerate(names []string) string {
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	list := strings.Join(names[:min(len(names), maxFolded)], ", ")
	if more := len(names) - maxFolded; more > 0 {
		return p.t("and others", list, more)
	}
	return list
}

func (p *painter) rule(text string, width int) string {
	return p.theme.dim.paint(p.plainRule(text, width))
}

// plainRule is a line across the window with a text in it.
func (p *painter) plainRule(text string, width int) string {
	text = " " + p.cut(text, max(1, width-4)) + " "
	left := max(0, (width-p.width(text))/2)
	after := max(0, width-p.width(text)-left)
	return strings.Repeat("─", left) + text + strings.Repeat("─", after)
}

// view returns exactly height lines that end where the reader is.
func (p *painter) view(r *room, width, height int) []string {
	r.unreadAt = r.firstUnread()
	out := make([]string, height)
	row := height
	if len(r.entries) == 0 {
		out[height-1] = p.theme.dim.paint(p.t("empty"))
	}
	i, skip := len(r.entries)-1, 0
	if !r.following {
		i, skip = min(r.bottom, i), r.skip
	}
	for ; i >= 0 && row > 0; i-- {
		b := p.block(r, i, width)
		b = b[:max(0, len(b)-skip)] // the block may have become shorter since it was scrolled
		skip = 0
		for at := len(b) - 1; at >= 0 && row > 0; at-- {
			row--
			out[row] = b[at]
		}
	}
	return out // a short conversation stands at the bottom, next to the input
}

// scroll moves the view by n lines, towards older messages if n is negative, and says by how many it
// did move: no further than what is loaded.
func (p *painter) scroll(r *room, n, width, height int) int {
	if len(r.entries) == 0 {
		return 0
	}
	r.unreadAt = r.firstUnread()
	if r.following {
		r.bottom, r.skip, r.following = len(r.entries)-1, 0, false
	}
	r.bottom = min(r.bottom, len(r.entries)-1)
	moved := 0
	if n < 0 {
		moved = -p.up(r, -n, width, height)
	} else {
		moved = p.down(r, n, width)
	}
	if r.bottom == len(r.entries)-1 && r.skip == 0 {
		r.following = r.atEnd
	}
	return moved
}

func (p *painter) up(r *room, n, width, height int) int {
	have := max(0, len(p.block(r, r.bottom, width))-r.skip)
	for i := r.bottom - 1; i >= 0 && have < height+n; i-- {
		have += len(p.block(r, i, width))
	}
	n = min(n, max(0, have-height))
	r.skip += n
	for r.bottom > 0 {
		b := len(p.block(r, r.bottom, width))
		if r.skip < b {
			break
		}
		r.skip -= b
		r.bottom--
	}
	return n
}

func (p *painter) down(r *room, n, width int) int {
	r.skip -= n
	for r.skip < 0 && r.bottom < len(r.entries)-1 {
		r.bottom++
		r.skip += len(p.block(r, r.bottom, width))
	}
	if r.skip < 0 {
		n += r.skip
		r.skip = 0
	}
	return n
}

// reveal moves the view so that the block of entries[i] begins in a row, or as near to it as the end
// of the window allows.
func (p *painter) reveal(r *room, i, row, width, height int) {
	r.unreadAt = r.firstUnread()
	r.following = false
	lines, want := 0, max(1, height-row)
	for at := i; at < len(r.entries); at++ {
		lines += len(p.block(r, at, width))
		if lines >= want {
			r.bottom, r.skip = at, lines-want
			return
		}
	}
	r.bottom, r.skip, r.following = len(r.entries)-1, 0, r.atEnd
}
