package tui

import (
	"context"
	"maps"
	"slices"
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
	if run := commands[name]; run != nil {
		return run(m, strings.TrimSpace(rest))
	}
	m.say(m.t("unknown command", m.line(name)) + m.suggest(name))
	return nil
}

// aliases are other names of commands, from irssi and weechat.
var aliases = map[string]string{
	"j": "join", "leave": "part", "close": "part", "q": "query", "m": "msg", "who": "names", "n": "names",
	"wi": "whois", "block": "ignore", "unblock": "unignore", "h": "help", "exit": "quit", "bye": "quit", "disconnect": "quit",
	"s": "search", "lastlog": "search", "del": "delete", "redact": "delete", "language": "lang", "contacts": "contact",
	"mode": "policy", "buffer": "switch", "window": "switch", "b": "switch", "w": "switch",
	"send": "upload", "back": "away",
}

var commands map[string]func(m *model, args string) tea.Cmd

func init() {
	commands = map[string]func(*model, string) tea.Cmd{
		"help": (*model).cmdHelp, "quit": func(*model, string) tea.Cmd { return tea.Quit },
		"join": (*model).cmdJoin, "part": (*model).cmdPart, "query": (*model).cmdQuery, "msg": (*model).cmdMsg,
		"switch": func(m *model, _ string) tea.Cmd { return m.quickSwitch() },
		"me":     (*model).cmdMe, "nick": (*model).cmdNick, "topic": (*model).cmdTopic, "names": (*model).cmdNames,
		"whois": (*model).cmdWhois, "invite": (*model).cmdInvite, "contact": (*model).cmdContact, "verify": (*model).cmdVerify,
		"accept":   func(m *model, who string) tea.Cmd { return m.changeContact("accept", who, api.ContactAccept, "") },
		"reject":   func(m *model, who string) tea.Cmd { return m.changeContact("reject", who, api.ContactReject, "") },
		"ignore":   func(m *model, who string) tea.Cmd { return m.changeContact("ignore", who, api.ContactBlock, "") },
		"unignore": func(m *model, who string) tea.Cmd { return m.changeContact("unignore", who, api.ContactUnblock, "") },
		"mute":     func(m *model, _ string) tea.Cmd { return m.setMuted(true) },
		"unmute":   func(m *model, _ string) tea.Cmd { return m.setMuted(false) },
		"search":   (*model).cmdSearch, "history": (*model).cmdHistory,
		"reply": (*model).cmdReply, "edit": (*model).cmdEdit, "delete": (*model).cmdDelete, "react": (*model).cmdReact,
		"create": (*model).cmdCreate, "policy": (*model).cmdPolicy, "op": (*model).cmdOp,
		"deop":  func(m *model, who string) tea.Cmd { return m.setRole("deop", who, roleMember) },
		"kick":  func(m *model, args string) tea.Cmd { return m.changeMember("kick", args, api.MemberRemove) },
		"ban":   func(m *model, args string) tea.Cmd { return m.changeMember("ban", args, api.MemberBan) },
		"unban": func(m *model, args string) tea.Cmd { return m.changeMember("unban", args, api.MemberUnban) },
		"raw":   (*model).cmdRaw, "read": (*model).cmdRead,
		"status": (*model).cmdStatus, "peers": (*model).cmdPeers, "ping": (*model).cmdPing, "doctor": (*model).cmdDoctor,
		"outbox": (*model).cmdOutbox, "set": (*model).cmdSet,
		"lang": func(m *model, l string) tea.Cmd { return m.cmdSet(strings.TrimSpace("lang " + l)) },
	}
	for name := range impossible {
		commands[name] = func(m *model, _ string) tea.Cmd {
			m.say(m.t(impossible[name]))
			return nil
		}
	}
}

// impossible are commands that people know from elsewhere and that nothing stands behind here; the
// answer says why, and what to do instead.
var impossible = map[string]string{
	"away": "no away", "upload": "no upload", "download": "no download",
	"purge": "shell purge", "export": "shell export", "import": "shell import", "retention": "shell retention",
	"backup": "shell backup", "check": "shell check",
}

// AsTyped turns the shell commands that an error of the node advises into what is typed in a chat.
func AsTyped(advice string) string { return typed.Replace(advice) }

var typed = strings.NewReplacer(
	"`starling rooms`", "`/switch`", "`starling contact list`", "`/contact`", "`starling contact verify`", "`/verify`",
	"`starling contact accept`", "`/contact accept`", "`starling contact unblock @NAME`", "`/unignore @NAME`",
	"`starling join ROOM`", "`/join ROOM`", "`starling peers`", "`/peers`", "`starling doctor`", "`/doctor`",
	"`starling status`", "`/status`",
)

// Commands are the names of all commands, in order. Line mode offers the same where they make sense there.
func Commands() []string { return slices.Sorted(maps.Keys(commands)) }

// Impossible says why a command that people know from elsewhere is none here, in English; nothing for
// any other.
func Impossible(name string) string {
	if alias, ok := aliases[name]; ok {
		name = alias
	}
	if key := impossible[name]; key != "" {
		return newCatalog("en").text(key)
	}
	return ""
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

// usage says how a command is typed. Its help has the form and, behind a tab, what it does.
func (m *model) usage(name string) tea.Cmd {
	form, does, _ := strings.Cut(m.t(helpKey(name)), "\t")
	m.say(m.t("usage", form, does))
	return nil
}

// together are commands whose help stands with another's.
var together = map[string]string{"unmute": "mute", "unban": "ban", "deop": "op"}

func helpKey(name string) string {
	if with, ok := together[name]; ok {
		name = with
	}
	return "cmd " + name
}

func (m *model) cmdHelp(name string) tea.Cmd {
	name = strings.TrimPrefix(name, "/")
	if alias, ok := aliases[name]; ok {
		name = alias
	}
	if _, ok := phrases[helpKey(name)]; ok && name != "" {
		return m.usage(name)
	}
	m.show(&pager{title: m.t("help title"), make: (*model).help})
	return nil
}

// help is the page of keys and commands.
func (m *model) help() string {
	var commands []string
	for _, key := range slices.Sorted(maps.Keys(phrases)) {
		if strings.HasPrefix(key, helpKey("")) {
			commands = append(commands, m.t(key))
		}
	}
	return m.table(strings.Split(m.t("help keys"), "\n")) + "\n" + m.table(commands)
}

// table lays rows out, each a term, a tab and what it means, in two columns where there is room.
func (m *model) table(rows []string) string {
	const longest = 32 // a longer term has a line to itself
	width, indent := m.contentWidth(), 4
	columns := width >= 60
	if columns {
		for _, r := range rows {
			term, _, _ := strings.Cut(r, "\t")
			if w := m.metric.width(term); w <= longest {
				indent = max(indent, w+2)
			}
		}
	}
	var b strings.Builder
	for _, r := range rows {
		term, means, _ := strings.Cut(r, "\t")
		lines := m.metric.lines(means, max(8, width-indent))
		if columns && m.metric.width(term) <= longest {
			b.WriteString(m.fit(term, indent) + lines[0] + "\n")
			lines = lines[1:]
		} else {
			b.WriteString(term + "\n")
		}
		for _, line := range lines {
			b.WriteString(spaces(indent) + line + "\n")
		}
	}
	return b.String()
}

func (m *model) cmdJoin(args string) tea.Cmd {
	name, password, _ := strings.Cut(args, " ")
	switch {
	case name == "":
		return m.usage("join")
	case strings.HasPrefix(name, linkPrefix):
		return m.follow(name)
	}
	return m.join(api.JoinRequest{Room: name, Password: strings.TrimSpace(password)})
}

func (m *model) cmdPart(target string) tea.Cmd {
	c := m.find(m.current)
	if target != "" {
		if c = m.findTarget(target); c == nil {
			c = m.findTarget("#" + target)
		}
	}
	switch {
	case c == nil:
		return m.usage("part")
	case c.Kind != kindRoom:
		m.say(m.t("part direct", m.title(c)))
		return nil
	}
	id, target, name := c.ID, c.Target, m.title(c)
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		if err := m.api.Leave(ctx, target); err != nil {
			return nil, err
		}
		return func(m *model) tea.Cmd {
			m.drop(id)
			cmd := m.arrive()
			m.say(m.t("left room", name))
			return cmd
		}, nil
	})
}

// drop takes a conversation off the screen.
func (m *model) drop(id string) {
	m.conversations = slices.DeleteFunc(m.conversations, func(c api.Conversation) bool { return c.ID == id })
	delete(m.rooms, id)
	delete(m.opened, id)
	if m.current == id {
		m.current = m.last
		m.input.set("")
		if r := m.rooms[m.current]; r != nil {
			m.input.set(r.writing.Text)
		}
	}
}

// at makes a TARGET of a name as people type it.
func at(who string) string {
	if who == "" || strings.HasPrefix(who, "@") || strings.HasPrefix(who, linkPrefix) {
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
	text = strings.TrimSpace(text)
	switch {
	case who == "":
		return m.usage("msg")
	case !strings.HasPrefix(who, "#"):
		who = at(who)
	}
	if text == "" {
		return m.goTo(who)
	}
	m.say(m.t("sent to", m.line(who)))
	return m.send(api.SendRequest{Target: who, Text: text})
}

// cmdMe says something in the third person.
func (m *model) cmdMe(text string) tea.Cmd {
	c, r := m.here()
	if c == nil || text == "" {
		return m.usage("me")
	}
	r.unreadFrom = 0
	return tea.Batch(m.send(api.SendRequest{Target: c.Target, Text: text, Style: api.StyleAction}), m.toEnd())
}

func (m *model) cmdNick(nick string) tea.Cmd {
	if nick == "" {
		return m.usage("nick")
	}
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		me, err := m.api.SetNick(ctx, nick)
		if err != nil {
			return nil, err
		}
		return func(m *model) tea.Cmd {
			m.setMe(me)
			m.say(m.t("nick set", m.name(me.Nick)))
			return m.loadMembers()
		}, nil
	})
}

func (m *model) cmdTopic(text string) tea.Cmd {
	c := m.find(m.current)
	switch {
	case c == nil || c.Kind != kindRoom:
		m.say(m.t("only in rooms"))
		return nil
	case text == "" && c.Topic == "":
		m.say(m.t("no topic", m.title(c)))
		return nil
	case text == "":
		m.say(m.line(c.Topic))
		return nil
	case text == "-delete":
		text = ""
	}
	target := c.Target
	return m.do(func(ctx context.Context) error { return m.api.SetTopic(ctx, target, text) })
}

// do makes a call whose only answer is that it was done.
func (m *model) do(f func(ctx context.Context) error) tea.Cmd {
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		if err := f(ctx); err != nil {
			return nil, err
		}
		return func(m *model) tea.Cmd {
			m.say(m.t("done"))
			return nil
		}, nil
	})
}

func (m *model) setMuted(muted bool) tea.Cmd {
	c := m.find(m.current)
	if c == nil {
		return nil
	}
	id, target := c.ID, c.Target
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		if err := m.api.SetMuted(ctx, target, muted); err != nil {
			return nil, err
		}
		return func(m *model) tea.Cmd {
			c := m.find(id)
			if c == nil {
				return nil
			}
			if c.Muted = muted; muted {
				m.say(m.t("muted", m.title(c)))
			} else {
				m.say(m.t("unmuted", m.title(c)))
			}
			return nil
		}, nil
	})
}

func (m *model) cmdRead(string) tea.Cmd {
	var cmds []tea.Cmd
	for i := range m.conversations {
		c := &m.conversations[i]
		if c.Unread > 0 {
			cmds = append(cmds, m.markRead(*c, c.LastSeq))
		}
		m.room(c.ID).unreadFrom = 0
	}
	m.say(m.t("all read"))
	return tea.Batch(cmds...)
}
