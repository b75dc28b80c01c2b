package tui

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/starling-chat/starling/node/api"
)

// painter turns messages into lines. It holds what their look depends on; style counts up whenever
// that changes, so that cached lines are made again.
type painter struct {
	metric
	theme theme
	words catalog
	zone  *time.Location
	style int
	links bool   // mark addresses as hyperlinks (OSC 8)
	nick  string // the user's own, to see when it is mentioned
}

func (p *painter) t(key string, args ...any) string { return p.words.text(key, args...) }

// nickWidth is the column of nicks at a width; none where there is no room for one.
func nickWidth(width int) int {
	switch {
	case width >= 90:
		return 16
	case width >= 50:
		return 12
	case width >= 34:
		return 8
	}
	return 0
}

// nickOf is the escaped name of somebody, with the fingerprint where the nick alone does not say who
// it is.
func (p *painter) nickOf(nick, fingerprint string, shared bool) string {
	if nick == "" {
		return p.name(fingerprint)
	}
	if name := p.name(nick); !shared {
		return name
	} else {
		return name + "~" + p.name(fingerprint)
	}
}

// nickIn is nickOf in at most n cells; where it must be cut the fingerprint stays.
func (p *painter) nickIn(nick, fingerprint string, shared bool, n int) string {
	name := p.nickOf(nick, fingerprint, shared)
	if p.width(name) <= n || !shared || nick == "" {
		return p.cut(name, n)
	}
	mark := "~" + p.name(fingerprint)
	if left := n - p.width(mark); left > 1 {
		return p.cut(p.name(nick), left) + mark
	}
	return p.cut(p.name(fingerprint), n)
}

// lines lays a message out at a width. The lines are kept until the message or the look changes,
// except for replies, whose look depends on another message.
func (p *painter) lines(r *room, e *entry, width int) []string {
	if e.lines == nil || e.width != width || e.style != p.style || e.msg.ReplyTo != "" {
		e.lines, e.width, e.style = p.layout(r, e.msg, width), width, p.style
	}
	return e.lines
}

// mark is ink on a range of bytes of a text.
type mark struct {
	span
	ink
}

func (p *painter) layout(r *room, msg api.Message, width int) []string {
	stamp := msg.SentAt.In(p.zone).Format("15:04")
	if msg.Kind != api.KindMessage {
		return p.noticeLines(stamp, p.notice(msg), width)
	}
	head, indent := p.margin(stamp, msg, width)
	room := max(4, width-max(p.width(head), p.width(indent)))
	var out []string
	if msg.ReplyTo != "" {
		out = append(out, p.cut(indent+p.theme.dim.paint("↳ "+p.quotation(r, msg.ReplyTo)), width))
	}
	text, marks := p.text(r, msg)
	for i, sp := range p.wrap(text, room) {
		line := marked(text, sp, marks)
		if i == 0 {
			out = append(out, head+line)
		} else {
			out = append(out, indent+line)
		}
	}
	if len(msg.Reactions) > 0 {
		for _, line := range p.metric.lines(p.reactions(msg.Reactions), room) {
			out = append(out, indent+p.theme.accent.paint(line))
		}
	}
	if msg.State == api.StateFailed {
		reason := p.line(msg.Reason)
		if reason == "" {
			reason = "?"
		}
		for _, line := range p.metric.lines(p.t("state failed", reason), room) {
			out = append(out, indent+p.theme.warn.paint(line))
		}
	}
	return out
}

// margin is what stands left of a message's first line and of the others.
func (p *painter) margin(stamp string, msg api.Message, width int) (head, indent string) {
	column := nickWidth(width)
	tone := p.theme.nick(msg.Account)
	switch {
	case p.mentions(msg):
		tone = p.theme.mark
	case msg.Own:
		tone = p.theme.bold
	}
	if column == 0 {
		return p.theme.dim.paint(stamp) + " " + tone.paint(p.speaker(msg, min(10, max(3, width-14)))) + " ", "  "
	}
	name := p.speaker(msg, column)
	bar := p.theme.dim.paint(" │ ")
	return p.theme.dim.paint(stamp) + " " + tone.paint(p.right(name, column)) + bar, spaces(6+column) + bar
}

// speaker is what stands in the column of nicks: a star when the text tells what its author does.
func (p *painter) speaker(msg api.Message, n int) string {
	switch {
	case msg.Redacted:
	case msg.Style == api.StyleAction:
		return "*"
	case msg.Style == api.StyleNotice && n > 4:
		return "-" + p.nickIn(msg.Nick, msg.Fingerprint, msg.NickShared, n-2) + "-"
	}
	return p.nickIn(msg.Nick, msg.Fingerprint, msg.NickShared, n)
}

// text is what a message says, ready to be wrapped, and how parts of it are painted.
func (p *painter) text(r *room, msg api.Message) (text string, marks []mark) {
	text = p.body(msg.Text)
	if msg.Style == api.StyleAction {
		text = p.nickOf(msg.Nick, msg.Fingerprint, msg.NickShared) + " " + text
	}
	whole := ink{}
	switch {
	case msg.Redacted:
		text, whole = p.t("deleted"), p.theme.dim
	case r.hit != "" && msg.ID == r.hit:
		whole = p.theme.hit
	case msg.State == api.StateFailed:
		whole = p.theme.dim
	case p.mentions(msg):
		whole = p.theme.mark
	}
	if p.links && !msg.Redacted {
		marks = links(text)
	}
	if whole.open != "" {
		marks = []mark{{span{0, len(text)}, whole}}
	}
	end := len(text)
	if msg.Edited {
		text += " " + p.t("edited")
	}
	if msg.BackDated {
		text += " " + p.t("back-dated")
	}
	if msg.Own && !msg.Redacted {
		text += stateMark(msg.State)
	}
	if len(text) > end {
		marks = append(marks, mark{span{end, len(text)}, p.theme.dim})
	}
	return text, marks
}

// marked paints the parts of one line of a text; marks are in order and do not overlap.
func marked(text string, line span, marks []mark) string {
	if len(marks) == 0 {
		return text[line.from:line.to]
	}
	var b strings.Builder
	at := line.from
	for _, m := range marks {
		from, to := max(m.from, line.from), min(m.to, line.to)
		if from >= to {
			continue
		}
		b.WriteString(text[at:from])
		b.WriteString(m.paint(text[from:to]))
		at = to
	}
	b.WriteString(text[at:line.to])
	return b.String()
}

// links finds the addresses in a text, to mark them as hyperlinks when the user asked for it.
// Nothing is ever fetched. What is not plain ASCII is not linked: it could look like another.
func links(text string) []mark {
	var out []mark
	for at := 0; at < len(text); {
		end := strings.IndexAny(text[at:], " \n")
		if end < 0 {
			end = len(text) - at
		}
		word := text[at : at+end]
		if strings.HasPrefix(word, "https://") || strings.HasPrefix(word, "http://") {
			word = strings.TrimRight(word, ".,;:!?)'\"")
			if !strings.ContainsFunc(word, func(r rune) bool { return r <= ' ' || r > '~' }) {
				target := strings.ReplaceAll(word, ";", "%3B") // a semicolon ends a field of OSC 8
				out = append(out, mark{span{at, at + len(word)}, ink{"\x1b]8;;" + target + "\x1b\\", "\x1b]8;;\x1b\\"}})
			}
		}
		at += end + 1
	}
	return out
}

// mentions says whether a message by somebody else names the user: by the node's judgement, or by
// the nick as a word of its own, as people write on IRC.
func (p *painter) mentions(msg api.Message) bool {
	return !msg.Own && msg.Kind == api.KindMessage && (msg.Mention || hasWord(msg.Text, p.nick))
}

// hasWord looks for a word, without regard to case.
func hasWord(text, word string) bool {
	if word == "" {
		return false
	}
	text, word = strings.ToLower(text), strings.ToLower(word)
	for from := 0; ; {
		i := strings.Index(text[from:], word)
		if i < 0 {
			return false
		}
		i += from
		before, _ := utf8.DecodeLastRuneInString(text[:i])
		after, _ := utf8.DecodeRuneInString(text[i+len(word):])
		if !isWordRune(before) && !isWordRune(after) {
			return true
		}
		from = i + len(word)
	}
}

func isWordRune(r rune) bool {
	return r != utf8.RuneError && !isIdeographic(r) && (unicode.IsLetter(r) || unicode.IsDigit(r) || r == '_')
}

// stateMark shows how far an own message got: a dot while it waits, one tick when it left, a plus
// when a mailbox keeps it, two ticks when their device has it, a ring when it was read.
func stateMark(state string) string {
	switch state {
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
	}
	return ""
}

// quotation is the beginning of the message that a reply answers.
func (p *painter) quotation(r *room, id string) string {
	msg, ok := r.quoted[id]
	if e := r.byID[id]; e != nil {
		msg, ok = e.msg, true
	}
	switch {
	case !ok:
		return "…"
	case msg.Redacted:
		return p.nickOf(msg.Nick, msg.Fingerprint, msg.NickShared) + ": " + p.t("deleted")
	}
	return p.nickOf(msg.Nick, msg.Fingerprint, msg.NickShared) + ": " + p.line(msg.Text)
}

func (p *painter) reactions(list []api.Reaction) string {
	var b strings.Builder
	for _, r := range list {
		if b.Len() > 0 {
			b.WriteByte(' ')
		}
		var who []string
		for _, n := range r.Nicks[:min(len(r.Nicks), maxFolded)] {
			who = append(who, p.name(n))
		}
		if more := len(r.Nicks) - maxFolded; more > 0 {
			who = append(who, fmt.Sprintf("+%d", more))
		}
		fmt.Fprintf(&b, "[%s %s]", p.name(r.Text), strings.Join(who, ", "))
	}
	return b.String()
}

// notice is the text of an entry that is no message.
func (p *painter) notice(msg api.Message) string {
	who := p.nickOf(msg.Nick, msg.Fingerprint, msg.NickShared)
	switch msg.Kind {
	case api.KindTopic:
		if msg.Text == "" {
			return p.t("removed topic", who)
		}
		return p.t("set topic", who, p.line(msg.Text))
	case api.KindUnknown:
		return p.t("unknown kind", who)
	}
	return p.line(msg.Text)
}

func (p *painter) noticeLines(stamp, text string, width int) []string {
	head, indent := stamp+" ", spaces(2)
	if c := nickWidth(width); c > 0 {
		head += p.right("--", c) + " │ "
		indent = spaces(6+c) + " │ "
	}
	var out []string
	for i, line := range p.metric.lines(text, max(4, width-max(p.width(head), p.width(indent)))) {
		if i > 0 {
			head = indent
		}
		out = append(out, p.theme.dim.paint(head+line))
	}
	return out
}
