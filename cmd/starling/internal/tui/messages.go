package tui

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/starling-chat/starling/node/api"
)

// painter turns messages into lines. It holds what their look depends on; style counts up whenever
// theme or language change, so that cached lines are made again.
type painter struct {
	theme theme
	words catalog
	zone  *time.Location
	style int
	links bool // mark addresses as hyperlinks (OSC 8)
}

// nickWidth is the column of nicks at a width.
func nickWidth(width int) int {
	switch {
	case width >= 70:
		return 14
	case width >= 40:
		return 9
	default:
		return 0
	}
}

// nickOf is the escaped name of a message's author, with the fingerprint where the nick alone does
// not say who it is.
func (p *painter) nickOf(nick, fingerprint string, shared bool) string {
	if nick == "" {
		return api.EscapeNick(fingerprint)
	}
	name := api.EscapeNick(nick)
	if shared {
		name += "~" + api.EscapeNick(fingerprint)
	}
	return name
}

// lines lays a message out at a width; cached until the message or the look changes.
func (p *painter) lines(r *room, e *entry, width int) []string {
	if e.lines == nil || e.width != width || e.style != p.style {
		e.lines, e.width, e.style = p.layout(r, e.msg, width), width, p.style
	}
	return e.lines
}

func (p *painter) layout(r *room, msg api.Message, width int) []string {
	column := nickWidth(width)
	stamp := msg.SentAt.In(p.zone).Format("15:04")
	if msg.Kind != api.KindMessage {
		return p.noticeLines(stamp, p.notice(msg), width)
	}
	name := p.nickOf(msg.Nick, msg.Fingerprint, msg.NickShared)
	text, action := strings.CutPrefix(msg.Text, "/me ")
	text = api.EscapeText(text)
	style := p.theme.nick(msg.Account)
	switch {
	case msg.Redacted:
		text = p.words.text("deleted")
	case action:
		text = name + " " + text
		name = "*"
	}
	if msg.Edited {
		text += " " + p.words.text("edited")
	}
	if msg.Own {
		text += p.mark(msg)
	}
	var head, indent string
	if column > 0 {
		head = p.theme.dim.Render(stamp) + " " + style.Render(right(name, column)) + p.theme.dim.Render(" │ ")
		indent = strings.Repeat(" ", 6+column) + p.theme.dim.Render(" │ ")
	} else {
		head = p.theme.dim.Render(stamp) + " " + style.Render(fit(name, min(cells(name), 10))) + ": "
		indent = "  "
	}
	room := max(4, width-cells(head))
	if column == 0 {
		room = max(4, width-max(cells(head), 2))
	}
	var out []string
	if msg.ReplyTo != "" {
		out = append(out, fit(indent+p.theme.dim.Render("↳ "+p.context(r, msg.ReplyTo)), width))
	}
	for i, line := range wrap(text, room) {
		if msg.Mention {
			line = p.theme.mark.Render(line)
		} else if msg.Redacted || msg.State == api.StateFailed {
			line = p.theme.dim.Render(line)
		}
		if i == 0 {
			out = append(out, head+p.linked(line))
		} else {
			out = append(out, indent+p.linked(line))
		}
	}
	if len(msg.Reactions) > 0 {
		out = append(out, fit(indent+p.theme.dim.Render(reactions(msg.Reactions)), width))
	}
	if msg.State == api.StateFailed && msg.Reason != "" {
		out = append(out, fit(indent+p.theme.warn.Render(p.words.text("state failed", api.Escape(msg.Reason))), width))
	}
	return out
}

// mark shows how far an own message got: a dot while it waits, one tick when it left, two when
// their device has it, an eye when it was read.
func (p *painter) mark(msg api.Message) string {
	switch msg.State {
	case api.StateAccepted, api.StateQueued:
		return " ·"
	case api.StateSent:
		return " ✓"
	case api.StateStored:
		return " ✓+"
	case api.StateDelivered:
		return " ✓✓"
	case api.StateRead:
		return " ✓✓°"
	case api.StateFailed:
		return " ✗"
	default:
		return ""
	}
}

// context is the beginning of the message that a reply answers.
func (p *painter) context(r *room, id string) string {
	e := r.byID[id]
	if e == nil {
		return "…"
	}
	return p.nickOf(e.msg.Nick, e.msg.Fingerprint, e.msg.NickShared) + ": " + api.Escape(e.msg.Text)
}

func reactions(list []api.Reaction) string {
	var b strings.Builder
	for _, r := range list {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "[%s %d]", api.EscapeNick(r.Text), len(r.Nicks))
	}
	return b.String()
}

// linked marks addresses as hyperlinks when the user asked for it. Nothing is ever fetched.
func (p *painter) linked(line string) string {
	if !p.links {
		return line
	}
	words := strings.Split(line, " ")
	for i, w := range words {
		if strings.HasPrefix(w, "https://") || strings.HasPrefix(w, "http://") {
			words[i] = "\x1b]8;;" + w + "\x1b\\" + w + "\x1b]8;;\x1b\\"
		}
	}
	return strings.Join(words, " ")
}

// notice is the text of an entry that is no message.
func (p *painter) notice(msg api.Message) string {
	who := p.nickOf(msg.Nick, msg.Fingerprint, msg.NickShared)
	switch msg.Kind {
	case api.KindJoin:
		return "→ " + who + " " + p.words.text("joined")
	case api.KindLeave:
		return "← " + who + " " + p.words.text("left")
	case api.KindProfile:
		return p.words.text("is now", api.EscapeNick(msg.Fingerprint), api.EscapeNick(msg.Text))
	case api.KindTopic:
		return p.words.text("set topic", who, api.Escape(msg.Text))
	case api.KindUnknown:
		return who + " " + p.words.text("unknown kind")
	default:
		return api.Escape(msg.Text)
	}
}

func (p *painter) noticeLines(stamp, text string, width int) []string {
	head := stamp + " "
	if c := nickWidth(width); c > 0 {
		head += right("--", c) + " │ "
	}
	var out []string
	for i, line := range wrap(text, max(4, width-cells(head))) {
		if i > 0 {
			head = strings.Repeat(" ", cells(head))
		}
		out = append(out, p.theme.dim.Render(head+line))
	}
	return out
}

// folds says whether an entry is one of those that come in crowds and are shown on one line.
func folds(m api.Message) bool {
	return m.Kind == api.KindJoin || m.Kind == api.KindLeave
}

// maxFolded is how many names a folded line gives.
const maxFolded = 4

// block returns what stands on the screen for entries[i]: the lines that belong before it (a new
// day, the unread mark) and its own; nothing for a join or leave that a later entry folds in.
func (p *painter) block(r *room, i, width int) []string {
	e := r.entries[i]
	var out []string
	day := e.msg.SentAt.In(p.zone).Format("2006-01-02")
	if i == 0 && r.atStart {
		out = append(out, p.rule(p.words.text("beginning"), width))
	}
	if i == 0 || r.entries[i-1].msg.SentAt.In(p.zone).Format("2006-01-02") != day {
		out = append(out, p.rule(day, width))
	}
	if r.unreadFrom != 0 && e.msg.Seq >= r.unreadFrom && !e.msg.Own && p.firstUnread(r, i) {
		out = append(out, p.theme.mark.Render(p.rule(p.words.text("new messages"), width)))
	}
	if folds(e.msg) {
		if i+1 < len(r.entries) && p.continues(r, i) {
			return out
		}
		start := i
		for start > 0 && p.continues(r, start-1) {
			start--
		}
		if start < i {
			return append(out, p.folded(r.entries[start:i+1], width)...)
		}
	}
	return append(out, p.lines(r, e, width)...)
}

// continues says whether entries[i] and the one after it fold into one line.
func (p *painter) continues(r *room, i int) bool {
	a, b := r.entries[i].msg, r.entries[i+1].msg
	return folds(a) && folds(b) && a.SentAt.In(p.zone).YearDay() == b.SentAt.In(p.zone).YearDay()
}

// firstUnread says that no entry before i is unread.
func (p *painter) firstUnread(r *room, i int) bool {
	return !slices.ContainsFunc(r.entries[:i], func(e *entry) bool {
		return e.msg.Seq >= r.unreadFrom && !e.msg.Own
	})
}

func (p *painter) folded(run []*entry, width int) []string {
	var in, out []string
	for _, e := range run {
		who := p.nickOf(e.msg.Nick, e.msg.Fingerprint, e.msg.NickShared)
		if e.msg.Kind == api.KindJoin {
			in = append(in, who)
		} else {
			out = append(out, who)
		}
	}
	var parts []string
	for _, side := range []struct {
		sign, word string
		names      []string
	}{{"→ ", "joined", in}, {"← ", "left", out}} {
		names := slices.Compact(slices.Sorted(slices.Values(side.names)))
		if len(names) == 0 {
			continue
		}
		list := strings.Join(names[:min(len(names), maxFolded)], ", ")
		if more := len(names) - maxFolded; more > 0 {
			list = p.words.text("and others", list, more)
		}
		parts = append(parts, side.sign+list+" "+p.words.text(side.word))
	}
	last := run[len(run)-1].msg.SentAt.In(p.zone).Format("15:04")
	return p.noticeLines(last, strings.Join(parts, "  "), width)
}

func (p *painter) rule(text string, width int) string {
	text = " " + text + " "
	left := max(0, (width-cells(text))/2)
	after := max(0, width-cells(text)-left)
	return p.theme.dim.Render(fit(strings.Repeat("─", left)+text+strings.Repeat("─", after), width))
}

// view returns exactly height lines that end where the reader is, and whether the top of the window
// shows, so that older messages should be loaded.
func (p *painter) view(r *room, width, height int) (lines []string, top bool) {
	i, skip := len(r.entries)-1, 0
	if !r.following {
		i, skip = min(r.bottom, i), r.skip
	}
	for ; i >= 0 && len(lines) < height; i-- {
		b := p.block(r, i, width)
		if skip > 0 {
			b = b[:max(0, len(b)-skip)]
			skip = 0
		}
		for _, line := range slices.Backward(b) {
			lines = append(lines, line)
		}
	}
	top = i < 0 && len(lines) <= height
	if len(lines) > height {
		lines = lines[:height]
	}
	slices.Reverse(lines)
	for len(lines) < height { // a short conversation stands at the bottom, next to the input
		lines = append([]string{""}, lines...)
	}
	return lines, top
}

// scroll moves the view by n lines; negative is towards older messages.
func (p *painter) scroll(r *room, n, width, height int) {
	if len(r.entries) == 0 {
		return
	}
	if r.following {
		r.bottom, r.skip, r.following = len(r.entries)-1, 0, false
	}
	for ; n < 0; n++ {
		if _, top := p.view(r, width, height); top && r.atStart {
			break
		}
		r.skip++
		for r.bottom > 0 && r.skip >= len(p.block(r, r.bottom, width)) {
			r.skip -= len(p.block(r, r.bottom, width))
			r.bottom--
		}
	}
	for ; n > 0; n-- {
		r.skip--
		for r.skip < 0 && r.bottom < len(r.entries)-1 {
			r.bottom++
			r.skip += len(p.block(r, r.bottom, width))
		}
		if r.skip < 0 || r.bottom == len(r.entries)-1 && r.skip == 0 {
			r.skip = 0
			r.following = r.atEnd
			break
		}
	}
}
