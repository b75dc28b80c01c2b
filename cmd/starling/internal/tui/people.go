package tui

import (
	"context"
	"slices"
	"strings"

	tea "charm.land/bubbletea/v2"

	"github.com/starling-chat/starling/node/api"
)

// This file has the commands that are about people: contacts and requests, who somebody is, and
// whether the key is theirs.

// who gives the person that a command is about: the one named, or the other side of the conversation
// on screen.
func (m *model) who(args string) string {
	if args != "" {
		return at(args)
	}
	if c := m.find(m.current); c != nil && c.Kind == kindDirect {
		return "@" + c.Account
	}
	return ""
}

func (m *model) changeContact(command, args, action, petname string) tea.Cmd {
	who := m.who(args)
	if who == "" {
		return m.usage(command)
	}
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		if err := m.api.ChangeContact(ctx, api.ContactChange{Who: who, Action: action, Petname: petname}); err != nil {
			return nil, err
		}
		list, err := m.api.Contacts(ctx)
		if err != nil {
			return nil, err
		}
		return func(m *model) tea.Cmd {
			m.takeContacts(list)
			if action == api.ContactReject || action == api.ContactBlock || action == api.ContactRemove {
				if c := m.find(m.current); c != nil && "@"+c.Account == who {
					delete(m.opened, c.ID)
				}
			}
			m.say(m.t("done"))
			return m.loadConversations()
		}, nil
	})
}

// takeContacts takes the list as the node gave it.
func (m *model) takeContacts(list []api.Contact) {
	clear(m.contacts)
	for _, k := range list {
		m.contacts[k.Account] = k
	}
	if l, ok := m.overlay.(*listing); ok && l.title == m.t("contacts title") {
		l.rows = m.contactRows()
	}
}

// cmdContact lists the contacts, or does one thing to one of them.
func (m *model) cmdContact(args string) tea.Cmd {
	words := strings.Fields(args)
	if len(words) == 0 || words[0] == "list" {
		m.overlay = &listing{title: m.t("contacts title"), rows: m.contactRows(), keys: m.t("contact keys"), act: (*model).contactKey}
		return nil
	}
	name := strings.Join(words[min(2, len(words)):], " ")
	switch action := words[0]; action {
	case "add":
		if len(words) < 2 {
			return m.usage("contact")
		}
		return m.addContact(words[1], name)
	case api.ContactAccept, api.ContactReject, api.ContactRename, api.ContactBlock, api.ContactUnblock, api.ContactRemove:
		who := ""
		if len(words) > 1 {
			who = words[1]
		}
		return m.changeContact("contact", who, action, name)
	}
	return m.usage("contact")
}

func (m *model) addContact(who, petname string) tea.Cmd {
	if !strings.HasPrefix(who, linkPrefix) {
		who = at(who)
	}
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		k, err := m.api.AddContact(ctx, api.ContactRequest{Who: who, Petname: petname})
		if err != nil {
			return nil, err
		}
		return func(m *model) tea.Cmd {
			m.contacts[k.Account] = k
			cmd := m.openDirect(k.Account, k.Trust)
			m.say(m.t("contact added", m.nickOf(k.Nick, k.Fingerprint, true)))
			return cmd
		}, nil
	})
}

// contactRows lists requests first, then contacts by name, then who is blocked.
func (m *model) contactRows() []row {
	list := make([]api.Contact, 0, len(m.contacts))
	for _, k := range m.contacts {
		list = append(list, k)
	}
	rank := map[string]string{"request": "0", "blocked": "2"}
	sortKey := func(k api.Contact) string { return rank[k.State] + "1" + strings.ToLower(k.Petname+k.Nick) + k.Account }
	slices.SortFunc(list, func(a, b api.Contact) int { return strings.Compare(sortKey(a), sortKey(b)) })
	var rows []row
	for _, k := range list {
		name := m.nickOf(k.Nick, k.Fingerprint, true)
		if k.Petname != "" {
			name = m.name(k.Petname) + " (" + name + ")"
		}
		label := m.fit(name, 30) + " " + m.fit(m.standing(k.State), 12) + " " + m.fit(m.trust(k.Trust), 12)
		if k.Path != "" {
			label += " " + m.name(k.Path)
		}
		rows = append(rows, row{k.Account, label})
	}
	return rows
}

// contactKey does what a key means in the list of contacts.
func (m *model) contactKey(account, key string) tea.Cmd {
	k := m.contacts[account]
	who := "@" + account
	switch key {
	case "enter":
		m.overlay = nil
		return m.openDirect(account, k.Trust)
	case "a":
		return m.changeContact("accept", who, api.ContactAccept, "")
	case "r":
		return m.changeContact("reject", who, api.ContactReject, "")
	case "b":
		action := api.ContactBlock
		if k.State == "blocked" {
			action = api.ContactUnblock
		}
		return m.changeContact("ignore", who, action, "")
	case "v":
		return m.cmdVerify(who)
	}
	return nil
}

func (m *model) cmdWhois(args string) tea.Cmd {
	who := m.who(args)
	if who == "" {
		return m.usage("whois")
	}
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		v, err := m.api.Verification(ctx, who)
		if err != nil {
			return nil, err
		}
		return func(m *model) tea.Cmd {
			m.show(&pager{title: m.t("whois title"), text: m.whois(v)})
			return nil
		}, nil
	})
}

func (m *model) whois(v api.Verification) string {
	k := m.contacts[v.Account]
	seen := api.Member{Nick: v.Nick, Fingerprint: k.Fingerprint, Path: k.Path, LastSeen: k.LastSeen}
	var rooms []string
	for i := range m.conversations {
		c := &m.conversations[i]
		for _, w := range m.room(c.ID).members {
			if w.Account == v.Account {
				seen = w
				rooms = append(rooms, m.title(c))
			}
		}
	}
	text := m.t("whois", m.nickOf(v.Nick, "", false), m.name(seen.Fingerprint), m.name(v.Account), m.trust(v.Trust))
	if k.Petname != "" {
		text += "\n" + m.t("whois petname", m.name(k.Petname))
	}
	if k.State != "" {
		text += "\n" + m.t("whois contact", m.standing(k.State))
	}
	if seen.Path != "" {
		text += "\n" + m.t("whois path", m.name(seen.Path))
	} else if !seen.LastSeen.IsZero() {
		text += "\n" + m.t("whois seen", seen.LastSeen.In(m.zone).Format("2006-01-02 15:04"))
	}
	if len(rooms) > 0 {
		text += "\n" + m.t("whois rooms", strings.Join(rooms, " "))
	}
	return text
}

// cmdVerify shows what two people compare and takes the answer, on the page or with the command.
func (m *model) cmdVerify(args string) tea.Cmd {
	name, answer, _ := strings.Cut(args, " ")
	if name == "yes" || name == "no" {
		name, answer = "", name
	}
	who := m.who(name)
	if who == "" {
		return m.usage("verify")
	}
	switch strings.TrimSpace(answer) {
	case "yes":
		return m.setTrust(who, api.TrustVerified)
	case "no":
		return m.setTrust(who, api.TrustUnverified)
	}
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		v, err := m.api.Verification(ctx, who)
		if err != nil {
			return nil, err
		}
		return func(m *model) tea.Cmd {
			m.showVerification(v)
			return nil
		}, nil
	})
}

func (m *model) showVerification(v api.Verification) {
	who := "@" + v.Account
	name := m.nickOf(v.Nick, "", false)
	m.show(&pager{
		title: m.t("verify title", name), whole: true, keys: m.t("verify keys"),
		make: func(m *model) string {
			text := m.t("compare", name) + "\n\n"
			for group := range slices.Chunk(strings.Fields(v.SafetyNumber), 4) {
				text += "  " + m.line(strings.Join(group, "  ")) + "\n"
			}
			return m.withQR(text+"\n"+m.t("trust now", m.trust(v.Trust)), v.QR)
		},
		answers: map[string]func(*model) tea.Cmd{
			"y": func(m *model) tea.Cmd { return m.setTrust(who, api.TrustVerified) },
			"n": func(m *model) tea.Cmd { return m.setTrust(who, api.TrustUnverified) },
		},
	})
}

func (m *model) setTrust(who, trust string) tea.Cmd {
	return m.call(func(ctx context.Context) (func(*model) tea.Cmd, error) {
		k, err := m.api.SetTrust(ctx, who, trust)
		if err != nil {
			return nil, err
		}
		return func(m *model) tea.Cmd {
			m.contacts[k.Account] = k
			m.say(m.t("setting", m.nickOf(k.Nick, k.Fingerprint, true), m.trust(trust)))
			return m.loadConversations()
		}, nil
	})
}
