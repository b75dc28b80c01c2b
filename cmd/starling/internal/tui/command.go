package tui

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"

	tea "charm.land/bubbletea/v2"

	"github.com/starling-chat/starling/node/api"
)

// command runs a slash command, given without its slash.
func (m *model) command(line string) tea.Cmd {
	name, rest, _ := strings.Cut(line, " ")
	name = strings.ToLower(name)
	if alias, ok := aliases[name]; ok {
		name = alias
	}
	run := commands[name]
	if run == nil {
		m.flash = m.t("unknown command", clean(name)) + m.suggest(name)
		return nil
	}
	return run(m, strings.TrimSpace(rest))
}

// aliases are other names of commands, from irssi and weechat.
var aliases = map[string]string{
	"j": "join", "leave": "part", "close": "part", "q": "query", "m": "msg", "who": "names", "n": "names",
	"wi": "whois", "block": "ignore", "unblock": "unignore", "h": "help", "exit": "quit", "bye": "quit",
	"s": "search", "react+": "react", "del": "delete", "redact": "delete", "language": "lang",
}

var commands map[string]func(m *model, args string) tea.Cmd

func init() {
	commands = map[string]func(*model, string) tea.Cmd{
		"help": (*model).cmdHelp, "quit": func(*model, string) tea.Cmd { return tea.Quit },
		"join": (*model).cmdJoin, "part": (*model).cmdPart, "query": (*model).cmdQuery, "msg": (*model).cmdMsg,
		"nick": (*model).cmdNick, "topic": (*model).cmdTopic, "names": (*model).cmdNames, "whois": (*model).cmdWhois,
		"invite": (*model).cmdInvite, "contact": (*model).cmdContact, "verify": (*model).cmdVerify,
		"mute":     func(m *model, _ string) tea.Cmd { return m.setMuted(true) },
		"unmute":   func(m *model, _ string) tea.Cmd { return m.setMuted(false) },
		"ignore":   func(m *model, who string) tea.Cmd { return m.changeContact("ignore", who, "block", "") },
		"unignore": func(m *model, who string) tea.Cmd { return m.changeContact("ignore", who, "unblock", "") },
		"search":   (*model).cmdSearch, "history": (*model).cmdHistory,
		"reply": (*model).cmdReply, "edit": (*model).cmdEdit, "delete": (*model).cmdDelete, "react": (*model).cmdReact,
		"raw": (*model).cmdRaw, "read": (*model).cmdRead,
		"status": (*model).cmdStatus, "peers": (*model).cmdPeers, "ping": (*model).cmdPing, "doctor": (*model).cmdDoctor,
		"outbox": (*model).cmdOutbox, "set": (*model).cmdSet,
		"lang": func(m *model, l string) tea.Cmd { return m.cmdSet(strings.TrimSpace("lang " + l)) },
	}
}

// suggest names the command that was probably meant.
func (m *model) suggest(name string) string {
	best, distance := "", 3
	for _, have := range slices.Sorted(maps.Keys(commands)) {
		if d := editDistance(name, have); d < distance {
			best, distance = have, d
		}
	}
	if best == "" {
		return m.t("see help")
	}
	return m.t("did you mean", best)
}

// editDistance is Levenshtein's, over bytes; names are short.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			next := min(row[j+1], row[j]) + 1
			if a[i] == b[j] {
				next = min(next, diagonal)
			} else {
				next = min(next, diagonal+1)
			}
			diagonal, row[j+1] = row[j+1], next
		}
	}
	return row[len(b)]
}

func (m *model) usage(name string) tea.Cmd {
	m.flash = m.t("usage", m.t("cmd "+name))
	return nil
}

func (m *model) cmdHelp(name string) tea.Cmd {
	if name = strings.TrimPrefix(name, "/"); name != "" {
		if _, ok := phrases["cmd "+name]; ok {
			return m.usage(name)
		}
	}
	var b strings.Builder
	b.WriteString(m.t("help keys") + "\n\n")
	for _, key := range slices.Sorted(maps.Keys(phrases)) {
		if strings.HasPrefix(key, "cmd ") {
			b.WriteString(m.t(key) + "\n")
		}
	}
	b.WriteString(m.t("slash"))
	m.show(m.t("help title"), b.String())
	return nil
}

func (m *model) cmdJoin(args string) tea.Cmd {
	name, password, _ := strings.Cut(args, " ")
	if name == "" {
		return m.usage("join")
	}
	return m.join(api.JoinRequest{Room: name, Password: strings.TrimSpace(password)})
}

func (m *model) cmdPart(target string) tea.Cmd {
	c := m.find(m.current)
	if target != "" {
		c = m.findTarget(target)
	}
	if c == nil || c.Kind != "room" {
		return m.usage("part")
	}
	id, name := c.ID, c.Target
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		err := m.api.Leave(ctx, name)
		return func(m *model) tea.Cmd {
			m.conversations = slices.DeleteFunc(m.conversations, func(c api.Conversation) bool { return c.ID == id })
			delete(m.rooms, id)
			var cmd tea.Cmd
			if m.current == id {
				m.current = ""
				if len(m.conversations) > 0 {
					cmd = m.open(m.conversations[0].ID)
				}
			}
			m.flash = m.t("left room", api.EscapeNick(name))
			return cmd
		}, err
	})
}

func at(who string) string {
	if who == "" || strings.HasPrefix(who, "@") || strings.HasPrefix(who, "starling:") {
		return who
	}
	return "@" + who
}

func (m *model) cmdQuery(who string) tea.Cmd {
	if who == "" {
		return m.usage("query")
	}
	return m.goTo(at(who))
}

func (m *model) cmdMsg(args string) tea.Cmd {
	who, text, _ := strings.Cut(args, " ")
	if text = strings.TrimSpace(text); who == "" || text == "" {
		return m.usage("msg")
	}
	if !strings.HasPrefix(who, "#") {
		who = at(who)
	}
	return m.send(api.SendRequest{Target: who, Text: text})
}

func (m *model) cmdNick(nick string) tea.Cmd {
	if nick == "" {
		return m.usage("nick")
	}
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		me, err := m.api.SetNick(ctx, nick)
		return func(m *model) tea.Cmd {
			m.me = me
			m.flash = m.t("nick set", api.EscapeNick(me.Nick))
			return nil
		}, err
	})
}

func (m *model) cmdTopic(text string) tea.Cmd {
	c := m.find(m.current)
	if c == nil || c.Kind != "room" {
		return m.usage("topic")
	}
	if text == "" {
		m.flash = api.Escape(c.Topic)
		return nil
	}
	target := c.Target
	return m.do(func(ctx context.Context) error { return m.api.SetTopic(ctx, target, text) })
}

// do makes a call whose only answer is that it was done.
func (m *model) do(f func(ctx context.Context) error) tea.Cmd {
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		err := f(ctx)
		return func(m *model) tea.Cmd {
			m.flash = m.t("done")
			return nil
		}, err
	})
}

func (m *model) setMuted(muted bool) tea.Cmd {
	c := m.find(m.current)
	if c == nil {
		return nil
	}
	target, word := c.Target, "unmuted"
	if muted {
		word = "muted"
	}
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		err := m.api.SetMuted(ctx, target, muted)
		return func(m *model) tea.Cmd {
			if c := m.findTarget(target); c != nil {
				c.Muted = muted
			}
			m.flash = m.t(word, api.EscapeNick(target))
			return nil
		}, err
	})
}

func (m *model) cmdRead(string) tea.Cmd {
	var cmds []tea.Cmd
	for _, c := range m.conversations {
		cmds = append(cmds, m.markRead(c.ID, c.LastSeq))
	}
	return tea.Batch(cmds...)
}

func (m *model) cmdSearch(words string) tea.Cmd {
	p := newSearch(m)
	m.overlay = p
	if words == "" {
		return nil
	}
	p.filter.set(words)
	p.asked = words
	return p.ask(m, words)
}

// numbered takes a leading number off the arguments; 1 without one.
func numbered(args string) (n int, rest string) {
	first, rest, _ := strings.Cut(args, " ")
	if v, err := strconv.Atoi(first); err == nil && v > 0 {
		return v, strings.TrimSpace(rest)
	}
	return 1, args
}

// pick finds the nth last message of the conversation on screen.
func (m *model) pick(n int, own bool) (target string, msg api.Message, ok bool) {
	c, r := m.find(m.current), m.rooms[m.current]
	if c == nil || r == nil {
		return "", msg, false
	}
	msg, ok = r.nth(n, own)
	if !ok {
		m.flash = m.t("no message")
	}
	return c.Target, msg, ok
}

func (m *model) cmdReply(args string) tea.Cmd {
	n, text := numbered(args)
	target, msg, ok := m.pick(n, false)
	if !ok {
		return nil
	}
	if text == "" {
		m.rooms[m.current].replyTo = msg.ID
		return nil
	}
	return m.send(api.SendRequest{Target: target, Text: text, ReplyTo: msg.ID})
}

func (m *model) cmdEdit(text string) tea.Cmd {
	target, msg, ok := m.pick(1, true)
	if !ok {
		return nil
	}
	if text == "" {
		r := m.rooms[m.current]
		r.editing = msg.ID
		m.input.set(msg.Text)
		return nil
	}
	return m.send(api.SendRequest{Target: target, Text: text, Action: api.ActionEdit, Ref: msg.ID})
}

func (m *model) cmdDelete(string) tea.Cmd {
	target, msg, ok := m.pick(1, true)
	if !ok {
		return nil
	}
	return m.send(api.SendRequest{Target: target, Action: api.ActionRedact, Ref: msg.ID})
}

func (m *model) cmdReact(args string) tea.Cmd {
	n, text := numbered(args)
	if text == "" {
		return m.usage("react")
	}
	target, msg, ok := m.pick(n, false)
	if !ok {
		return nil
	}
	return m.send(api.SendRequest{Target: target, Text: text, Action: api.ActionReact, Ref: msg.ID})
}

// cmdRaw shows a message's text so that nothing in it can hide: every rune beyond ASCII by its number.
func (m *model) cmdRaw(args string) tea.Cmd {
	n, _ := numbered(args)
	_, msg, ok := m.pick(n, false)
	if !ok {
		return nil
	}
	m.show(m.t("raw title"), strconv.QuoteToASCII(msg.Nick)+"\n"+strconv.QuoteToASCII(msg.Text))
	return nil
}

func (m *model) cmdSet(args string) tea.Cmd {
	name, value, _ := strings.Cut(args, " ")
	key, ok := map[string]string{
		"theme": settingTheme, "typing": settingTyping, "bell": settingBell, "links": settingLinks, "lang": settingLang,
	}[name]
	allowed := map[string][]string{"theme": themeNames, "lang": languages}[name]
	if allowed == nil {
		allowed = []string{"on", "off"}
	}
	if !ok || !slices.Contains(allowed, value) {
		m.flash = m.t("settings")
		return nil
	}
	switch name {
	case "theme":
		m.theme = newTheme(value)
	case "lang":
		m.words = newCatalog(value)
	case "typing":
		m.typingOn = value == "on"
	case "bell":
		m.bell = value == "on"
	case "links":
		m.links = value == "on"
	}
	m.style++
	m.flash = m.t("setting", name, value)
	return m.saveSetting(key, value)
}
