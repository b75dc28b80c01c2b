package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/starling-chat/starling/cmd/starling/internal/tui"
	"github.com/starling-chat/starling/node/api"
)

// chatCommand is one /command: how it is typed, what it does, and its work.
type chatCommand struct {
	usage string
	help  string
	least int // arguments it needs
	do    func(l *lineChat, ctx context.Context, args []string, rest string) error
}

// quitCommand is looked at by name: it ends the loop.
const quitCommand = "quit"

func chatCommands() map[string]chatCommand {
	return map[string]chatCommand{
		"help":      {"/help [COMMAND]", "show this, or one command", 0, (*lineChat).help},
		"join":      {"/join ROOM [PASSWORD] | LINK", "join a room and talk there, or follow a starling: link", 1, (*lineChat).join},
		"part":      {"/part [ROOM]", "leave a room", 0, (*lineChat).part},
		"query":     {"/query @NAME", "talk with somebody alone", 1, (*lineChat).query},
		"msg":       {"/msg TARGET [TEXT]", "write to somebody, or switch to the conversation", 1, (*lineChat).msg},
		"switch":    {"/switch [TARGET]", "list the conversations, or go to one", 0, (*lineChat).switchTo},
		"me":        {"/me TEXT", "say what you do", 1, (*lineChat).action},
		"nick":      {"/nick NAME", "change your nick", 1, (*lineChat).nick},
		"topic":     {"/topic [TEXT | -delete]", "show, set or remove the topic", 0, (*lineChat).topic},
		"names":     {"/names", "who was seen here", 0, (*lineChat).names},
		"whois":     {"/whois [@NAME]", "what is known about somebody", 0, (*lineChat).who},
		"contact":   {"/contact [add|accept|reject|rename|block|unblock|remove WHO [NAME]]", "people you know, with requests", 0, (*lineChat).contact},
		"accept":    {"/accept [@NAME]", "answer a contact request", 0, changing(api.ContactAccept)},
		"reject":    {"/reject [@NAME]", "drop a contact request", 0, changing(api.ContactReject)},
		"ignore":    {"/ignore [@NAME]", "block somebody", 0, changing(api.ContactBlock)},
		"unignore":  {"/unignore [@NAME]", "take a block back", 0, changing(api.ContactUnblock)},
		"verify":    {"/verify [@NAME] [yes|no]", "compare safety numbers, and say whether they match", 0, (*lineChat).verify},
		"invite":    {"/invite [ROOM|me|@NAME] [once] [DURATION]", "a link that lets somebody in; @NAME is sent one into this room", 0, (*lineChat).invite},
		"create":    {"/create NAME [none|all]", "make a private room; newcomers see nothing or all of what was said", 1, (*lineChat).create},
		"kick":      {"/kick @NAME [REASON]", "take somebody out of a private room", 1, membership(api.MemberRemove)},
		"ban":       {"/ban @NAME [REASON]", "and let nobody admit them again", 1, membership(api.MemberBan)},
		"unban":     {"/unban @NAME", "take a ban back", 1, membership(api.MemberUnban)},
		"op":        {"/op @NAME [moderator|admin|owner]", "give a role in a private room", 1, (*lineChat).op},
		"deop":      {"/deop @NAME", "take the role back", 1, (*lineChat).deop},
		"policy":    {"/policy history none|all, invite ROLE, post ROLE", "change what a private room allows", 2, (*lineChat).policy},
		"mute":      {"/mute", "this conversation does not notify", 0, muting(true)},
		"unmute":    {"/unmute", "it does again", 0, muting(false)},
		"read":      {"/read", "mark everything read", 0, (*lineChat).read},
		"search":    {"/search [-all] WORDS", "find messages here, or everywhere", 1, (*lineChat).search},
		"reply":     {"/reply ID TEXT", "answer a message; ^ is the last one by somebody else", 2, (*lineChat).reply},
		"edit":      {"/edit TEXT", "replace your last message; /edit ID TEXT another", 1, (*lineChat).edit},
		"delete":    {"/delete [ID]", "delete your last message, or another: moderators anybody's", 0, (*lineChat).redact},
		"react":     {"/react ID EMOJI", "react to a message; without EMOJI or with - take it back", 1, (*lineChat).react},
		"raw":       {"/raw [ID]", "a message byte by byte", 0, (*lineChat).raw},
		"peers":     {"/peers", "who is connected, and how", 0, (*lineChat).peers},
		"ping":      {"/ping [@NAME | PEER | ADDRESS]", "one round trip", 0, (*lineChat).ping},
		"doctor":    {"/doctor", "check the connection and say what to do", 0, (*lineChat).doctor},
		"status":    {"/status", "the state of the node", 0, (*lineChat).status},
		"outbox":    {"/outbox [retry|cancel ID]", "what was not acknowledged yet", 0, (*lineChat).outbox},
		"history":   {"/history [N]", "the last messages with their ids", 0, (*lineChat).history},
		"set":       {"/set typing|receipts on|off", "whether others see that you write, and that you read", 2, (*lineChat).set},
		quitCommand: {"/quit", "end", 0, nil},
	}
}

// chatAliases are other names of commands, from irssi and weechat.
var chatAliases = map[string]string{
	"j": "join", "leave": "part", "q": "query", "m": "msg", "n": "names", "who": "whois", "wi": "whois", "contacts": "contact",
	"block": "ignore", "unblock": "unignore", "b": "switch", "buffer": "switch", "window": "switch", "s": "search", "lastlog": "search",
	"del": "delete", "redact": "delete", "h": "help", "exit": quitCommand, "bye": quitCommand,
}

func chatCommandNames() []string {
	var names []string
	for name := range chatCommands() {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// command does a line that begins with a slash.
func (l *lineChat) command(ctx context.Context, line string) (quit bool, err error) {
	name, rest, _ := strings.Cut(strings.TrimPrefix(line, "/"), " ")
	rest = strings.TrimSpace(rest)
	name = strings.ToLower(name)
	if alias, ok := chatAliases[name]; ok {
		name = alias
	}
	cmd, ok := chatCommands()[name]
	if why := tui.Impossible(name); why != "" {
		return false, usagef("%s", why)
	}
	if name == "lang" || name == "language" {
		return false, usagef("lines are in English only; the full screen has /lang")
	}
	if !ok {
		return false, usagef("unknown command /%s%s (//%s sends it as text)", name, suggestSlash(name), name)
	}
	if name == quitCommand {
		return true, nil
	}
	args := strings.Fields(rest)
	if len(args) < cmd.least {
		return false, usagef("usage: %s", cmd.usage)
	}
	ctx, cancel := context.WithTimeout(ctx, api.DefaultTimeout)
	defer cancel()
	return false, cmd.do(l, ctx, args, rest)
}

func suggestSlash(name string) string {
	names := chatCommandNames()
	for i := range names {
		names[i] = "/" + names[i]
	}
	return orSee("/"+name, names, "/help")
}

func (l *lineChat) help(_ context.Context, args []string, _ string) error {
	if len(args) > 0 {
		name := strings.TrimPrefix(args[0], "/")
		if alias, ok := chatAliases[name]; ok {
			name = alias
		}
		if cmd, ok := chatCommands()[name]; ok {
			return l.app.say("%s: %s", cmd.usage, cmd.help)
		}
	}
	rows := make([][]string, 0, len(chatCommands()))
	for _, name := range chatCommandNames() {
		cmd := chatCommands()[name]
		rows = append(rows, []string{cmd.usage, cmd.help})
	}
	rows = append(rows, []string{"//TEXT", "send a text that begins with a slash"})
	return l.app.printTable(nil, rows)
}

func (l *lineChat) join(ctx context.Context, args []string, _ string) error {
	switch {
	case strings.HasPrefix(args[0], linkPrefix):
		return l.follow(ctx, args[0])
	case len(args) == 1:
		return l.enter(ctx, args[0])
	}
	room, err := l.client.Join(ctx, api.JoinRequest{Room: args[0], Password: args[1]})
	if err != nil {
		return err
	}
	l.setTarget(room.Target)
	l.info("%s: %s", room.Target, membersAndPeers(room))
	return nil
}

func (l *lineChat) part(ctx context.Context, args []string, _ string) error {
	target := l.here()
	if len(args) > 0 {
		target = args[0]
	}
	if target == "" {
		return usagef("usage: /part ROOM")
	}
	if err := l.client.Leave(ctx, target); err != nil {
		return err
	}
	l.info("left %s", target)
	if target == l.here() {
		l.setTarget("")
	}
	return nil
}

func (l *lineChat) msg(ctx context.Context, args []string, rest string) error {
	if len(args) == 1 {
		return l.enter(ctx, args[0])
	}
	return l.send(ctx, api.SendRequest{Target: args[0], Text: strings.TrimSpace(strings.TrimPrefix(rest, args[0]))})
}

// action says something in the third person.
func (l *lineChat) action(ctx context.Context, _ []string, rest string) error {
	return l.send(ctx, api.SendRequest{Target: l.here(), Text: rest, Style: api.StyleAction})
}

func (l *lineChat) nick(ctx context.Context, _ []string, rest string) error {
	me, err := l.client.SetNick(ctx, rest)
	if err != nil {
		return err
	}
	l.info("you are now known as %s", api.EscapeNick(me.Nick))
	return nil
}

func (l *lineChat) topic(ctx context.Context, _ []string, rest string) error {
	switch rest {
	case "":
	case "-delete":
		return l.client.SetTopic(ctx, l.here(), "")
	default:
		return l.client.SetTopic(ctx, l.here(), rest)
	}
	all, err := l.client.Conversations(ctx)
	if err != nil {
		return err
	}
	for _, c := range all {
		if c.Target == l.here() {
			l.info("topic of %s: %s", c.Target, orDash(c.Topic))
			return nil
		}
	}
	return usagef("no room is open: /join ROOM")
}

func (l *lineChat) names(ctx context.Context, _ []string, _ string) error {
	members, err := l.client.Members(ctx, l.here())
	if err != nil {
		return err
	}
	return l.app.printTable(nil, memberRows(members))
}

func (l *lineChat) reply(ctx context.Context, args []string, rest string) error {
	m, err := l.find(args[0])
	if err != nil {
		return err
	}
	text := strings.TrimSpace(strings.TrimPrefix(rest, args[0]))
	return l.send(ctx, api.SendRequest{Target: l.here(), Text: text, ReplyTo: m.ID})
}

// edit takes the first word for an id only when it is one of a message here.
func (l *lineChat) edit(ctx context.Context, args []string, rest string) error {
	m, err := l.find(args[0])
	text := strings.TrimSpace(strings.TrimPrefix(rest, args[0]))
	if err != nil || len(args) == 1 || args[0] == "^" {
		if m, err = l.find(""); err != nil {
			return err
		}
		text = rest
	}
	return l.send(ctx, api.SendRequest{Target: l.here(), Action: api.ActionEdit, Ref: m.ID, Text: text})
}

func (l *lineChat) redact(ctx context.Context, args []string, _ string) error {
	ref := ""
	if len(args) > 0 {
		ref = args[0]
	}
	m, err := l.find(ref)
	if err != nil {
		return err
	}
	return l.send(ctx, api.SendRequest{Target: l.here(), Action: api.ActionRedact, Ref: m.ID})
}

func (l *lineChat) react(ctx context.Context, args []string, rest string) error {
	m, err := l.find(args[0])
	if err != nil {
		return err
	}
	text := strings.TrimSpace(strings.TrimPrefix(rest, args[0]))
	if text == "-" {
		text = ""
	}
	return l.send(ctx, api.SendRequest{Target: l.here(), Action: api.ActionReact, Ref: m.ID, Text: text})
}

func (l *lineChat) peers(ctx context.Context, _ []string, _ string) error {
	peers, err := l.client.Peers(ctx)
	if err != nil {
		return err
	}
	rows := make([][]string, len(peers))
	for i, p := range peers {
		rows[i] = []string{shortPeer(p.PeerID), orDash(p.Nick), p.Path, fmt.Sprintf("%.1f ms", p.RTTMS), p.Addr}
	}
	return l.app.printTable(nil, rows)
}

func (l *lineChat) status(ctx context.Context, _ []string, _ string) error {
	st, err := l.client.Status(ctx)
	if err != nil {
		return err
	}
	return l.app.printStatus(st)
}

func (l *lineChat) outbox(ctx context.Context, args []string, _ string) error {
	if len(args) == 2 && (args[0] == api.OutboxRetry || args[0] == api.OutboxCancel) {
		id, err := findOutbox(ctx, l.client, args[1])
		if err != nil {
			return err
		}
		return l.client.ChangeOutbox(ctx, id, args[0])
	}
	return l.app.listOutbox(ctx, l.client)
}

func (l *lineChat) history(ctx context.Context, args []string, _ string) error {
	n := backlog
	if len(args) > 0 {
		var err error
		if n, err = strconv.Atoi(args[0]); err != nil || n < 1 {
			return usagef("usage: /history [N]")
		}
	}
	messages, err := lastMessages(ctx, l.client, api.HistoryQuery{Target: l.here()}, n)
	if err != nil {
		return err
	}
	return l.listed(messages)
}
