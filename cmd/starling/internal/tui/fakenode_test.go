package tui

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/starling-chat/starling/node/api"
)

// fakeNode serves the part of the local API that the UI uses, from memory, on a real unix socket. It
// holds rooms of a hundred thousand messages, floods, and goes away when told to, none of which a
// real node does at once.
type fakeNode struct {
	home string // as --home: the socket is in it

	mu       sync.Mutex // guards all below
	me       api.Me
	status   api.Status
	list     map[string]*fakeConversation // by id
	contacts []api.Contact
	outbox   []api.OutboxEntry
	settings map[string]string
	sent     []api.SendRequest
	read     map[string]uint64
	log      []api.Event
	dropped  int // events that are no longer in log
	more     chan struct{}
	refuse   *api.Error // what sends are answered with
	serial   int
	changes  []string // to private rooms
	invites  []api.Invite
	srv      *http.Server
}

type fakeConversation struct {
	api.Conversation
	messages []api.Message
	at       map[string]int
	members  []api.Member
}

const ownAccount = "0MYACCOUNT"

// zeroHour is when the first message of a test was sent.
var zeroHour = time.Date(2026, 3, 1, 9, 0, 0, 0, time.UTC)

// newFakeNode starts a node that knows #lobby.
func newFakeNode(tb testing.TB) *fakeNode {
	tb.Helper()
	home, err := os.MkdirTemp("", "ui") // short enough for the socket's path
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(home) })
	n := &fakeNode{
		home: home, list: map[string]*fakeConversation{}, settings: map[string]string{}, read: map[string]uint64{},
		more: make(chan struct{}),
		me:   api.Me{Account: ownAccount, Nick: "ada", Fingerprint: "0MYACCOU", Link: "starling:contact/me"},
		status: api.Status{
			Schema: 1, Version: "test", Ready: true, Addrs: []string{"/ip4/127.0.0.1/tcp/1"}, Peers: api.PathCount{Total: 2, LAN: 1, Relayed: 1},
			Storage: api.Storage{State: "ok", FreeBytes: 1 << 40},
		},
	}
	n.room("lobby")
	n.start(tb)
	tb.Cleanup(n.stop)
	return n
}

func (n *fakeNode) start(tb testing.TB) {
	tb.Helper()
	l, err := net.Listen("unix", filepath.Join(n.home, api.SocketName))
	if err != nil {
		tb.Fatal(err)
	}
	srv := &http.Server{Handler: n.routes()}
	n.mu.Lock()
	n.srv = srv
	n.mu.Unlock()
	go srv.Serve(l) // ends with stop
}

// stop breaks every connection, as a node that ends does.
func (n *fakeNode) stop() {
	n.mu.Lock()
	srv := n.srv
	n.mu.Unlock()
	srv.Close()
}

func (n *fakeNode) client() *api.Client {
	return api.NewClient(filepath.Join(n.home, api.SocketName))
}

func (n *fakeNode) room(name string) *fakeConversation {
	return n.add(api.Conversation{ID: (hex.EncodeToString([]byte(name)) + strings.Repeat("0", 64))[:64], Target: "#" + name, Kind: kindRoom, Room: name, Access: "public", Members: 2, Peers: 1})
}

func (n *fakeNode) direct(nick, account string) *fakeConversation {
	return n.add(api.Conversation{ID: account, Target: "@" + nick, Kind: kindDirect, Account: account, Members: 2, Trust: api.TrustUnverified})
}

func (n *fakeNode) add(c api.Conversation) *fakeConversation {
	n.mu.Lock()
	defer n.mu.Unlock()
	if have := n.list[c.ID]; have != nil {
		return have
	}
	f := &fakeConversation{Conversation: c, at: map[string]int{}}
	f.members = []api.Member{
		{Account: ownAccount, Nick: n.me.Nick, Fingerprint: n.me.Fingerprint, Own: true},
		{Account: "0BOB", Nick: "bob", Fingerprint: "0BOBBOBB", Online: true, Path: "lan"},
	}
	n.list[c.ID] = f
	return f
}

// message makes a message of a conversation; n.mu is held.
func (n *fakeNode) message(c *fakeConversation, nick, text string) api.Message {
	n.serial++
	account := "0" + strings.ToUpper(nick)
	m := api.Message{
		Schema: 1, ID: fmt.Sprintf("%064x", n.serial*0x1357+1<<60), Target: c.Target, Conversation: c.ID, Room: c.Room,
		Account: account, Nick: nick, Fingerprint: account + "XYZ", Kind: api.KindMessage, Text: text, State: api.StateReceived,
		SentAt: api.Time{Time: zeroHour.Add(time.Duration(n.serial) * time.Second)}, Seq: uint64(len(c.messages) + 1),
	}
	if nick == n.me.Nick {
		m.Account, m.Own, m.State, m.Fingerprint = ownAccount, true, api.StateSent, n.me.Fingerprint
	}
	return m
}

// keep stores a message and counts it; n.mu is held.
func (n *fakeNode) keep(c *fakeConversation, m api.Message) {
	c.at[m.ID] = len(c.messages)
	c.messages = append(c.messages, m)
	c.LastSeq, c.LastAt = m.Seq, m.SentAt
	if !m.Own && m.Kind == api.KindMessage {
		c.Unread++
		if m.Mention {
			c.Mentions++
		}
	}
}

// fill gives a conversation messages that were read already.
func (n *fakeNode) fill(c *fakeConversation, count int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := range count {
		nick := []string{"bob", "cleo", "ada"}[i%3]
		n.keep(c, n.message(c, nick, fmt.Sprintf("message %d of many, with enough words in it to take more than one line of a narrow window", i+1)))
	}
	c.ReadSeq, c.Unread, c.Mentions = c.LastSeq, 0, 0
}

// say lets somebody say something now; change may alter the message first.
func (n *fakeNode) say(c *fakeConversation, nick, text string, change ...func(*api.Message)) api.Message {
	n.mu.Lock()
	defer n.mu.Unlock()
	m := n.message(c, nick, text)
	for _, f := range change {
		f(&m)
	}
	n.keep(c, m)
	n.publish(api.Event{Type: api.EventMessage, Message: &m})
	n.tellConversation(c)
	return m
}

func (n *fakeNode) tellConversation(c *fakeConversation) {
	conversation := c.Conversation
	n.publish(api.Event{Type: api.EventConversation, Conversation: &conversation})
}

// publish logs an event for the streams; n.mu is held.
func (n *fakeNode) publish(ev api.Event) {
	ev.Cursor = uint64(n.dropped + len(n.log) + 1)
	n.log = append(n.log, ev)
	close(n.more)
	n.more = make(chan struct{})
}

func (n *fakeNode) setting(key string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.settings[key]
}

func (n *fakeNode) requests() []api.SendRequest {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.sent)
}

// find gives a conversation by target; n.mu is held.
func (n *fakeNode) find(target string) *fakeConversation {
	for _, c := range n.list {
		if c.Target == target || "@"+c.Account == target {
			return c
		}
	}
	return nil
}

// answering is a route: it runs under n.mu.
func (n *fakeNode) answering(f func(r *http.Request) (any, *api.Error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		n.mu.Lock()
		v, err := f(r)
		var b []byte
		if err != nil {
			b, _ = json.Marshal(err)
		} else {
			b, _ = json.Marshal(v)
		}
		n.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
		}
		w.Write(b)
	}
}

func body[T any](r *http.Request) (v T) {
	_ = json.NewDecoder(r.Body).Decode(&v)
	return v
}

var errNoSuch = &api.Error{Code: api.CodeNotFound, Message: "no such thing", Hint: "see elsewhere"}

func (n *fakeNode) routes() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, f func(r *http.Request) (any, *api.Error)) {
		mux.HandleFunc(pattern, n.answering(f))
	}
	handle("GET /v1/me", func(*http.Request) (any, *api.Error) { return n.me, nil })
	handle("PUT /v1/me/nick", func(r *http.Request) (any, *api.Error) {
		n.me.Nick = body[api.NickRequest](r).Nick
		return n.me, nil
	})
	handle("GET /v1/status", func(*http.Request) (any, *api.Error) { return n.status, nil })
	handle("GET /v1/contacts", func(*http.Request) (any, *api.Error) { return n.contacts, nil })
	handle("GET /v1/outbox", func(*http.Request) (any, *api.Error) { return n.outbox, nil })
	handle("GET /v1/conversations", func(*http.Request) (any, *api.Error) {
		list := []api.Conversation{}
		for _, id := range slices.Sorted(maps.Keys(n.list)) {
			list = append(list, n.list[id].Conversation)
		}
		return list, nil
	})
	handle("GET /v1/members", func(r *http.Request) (any, *api.Error) {
		if c := n.find(r.URL.Query().Get("target")); c != nil {
			return c.members, nil
		}
		return nil, errNoSuch
	})
	handle("GET /v1/settings", func(r *http.Request) (any, *api.Error) {
		key := r.URL.Query().Get("key")
		if len(key) > 64 {
			return nil, &api.Error{Code: api.CodeBadRequest, Message: "the key is too long"}
		}
		return api.Setting{Key: key, Value: n.settings[key]}, nil
	})
	handle("PUT /v1/settings", func(r *http.Request) (any, *api.Error) {
		s := body[api.Setting](r)
		if len(s.Key) > 64 || len(s.Value) > 64<<10 {
			return nil, &api.Error{Code: api.CodeTooLarge, Message: "the setting is too large"}
		}
		n.settings[s.Key] = s.Value
		return nil, nil
	})
	handle("PUT /v1/read", func(r *http.Request) (any, *api.Error) { return nil, n.markRead(body[api.ReadRequest](r)) })
	handle("PUT /v1/mute", func(r *http.Request) (any, *api.Error) {
		req := body[api.MuteRequest](r)
		if c := n.find(req.Target); c != nil {
			c.Muted = req.Muted
		}
		return nil, nil
	})
	handle("POST /v1/typing", func(*http.Request) (any, *api.Error) { return nil, nil })
	handle("POST /v1/messages", func(r *http.Request) (any, *api.Error) { return n.takeMessage(body[api.SendRequest](r)) })
	handle("GET /v1/messages", n.history)
	handle("GET /v1/messages/{id}", func(r *http.Request) (any, *api.Error) {
		for _, c := range n.list {
			if i, ok := c.at[r.PathValue("id")]; ok {
				return c.messages[i], nil
			}
		}
		return nil, errNoSuch
	})
	handle("GET /v1/search", n.search)
	handle("GET /v1/verification", func(r *http.Request) (any, *api.Error) {
		who := strings.TrimPrefix(r.URL.Query().Get("who"), "@")
		for _, c := range n.list {
			if c.Kind == kindDirect && (c.Account == who || c.Target == "@"+who) {
				who = c.Account
			}
		}
		digits := strings.Repeat("12345 67890 13579 24680\n", 3)
		return api.Verification{Account: who, Nick: strings.ToLower(strings.TrimPrefix(who, "0")), SafetyNumber: digits, QR: "starling:safety/" + strings.Repeat("1234567890", 6), Trust: api.TrustUnverified}, nil
	})
	handle("POST /v1/rooms", func(r *http.Request) (any, *api.Error) {
		name := strings.TrimPrefix(body[api.JoinRequest](r).Room, "#")
		n.mu.Unlock()
		c := n.room(name)
		n.mu.Lock()
		c.Policy = "newcomers see the last week"
		return c.Conversation, nil
	})
	n.privateRoutes(handle)
	mux.HandleFunc("GET /v1/events", n.events)
	return mux
}

// privateRoutes note what is asked of private rooms, and make and revoke invites.
func (n *fakeNode) privateRoutes(handle func(string, func(*http.Request) (any, *api.Error))) {
	note := func(format string, args ...any) (any, *api.Error) {
		n.changes = append(n.changes, fmt.Sprintf(format, args...))
		return nil, nil
	}
	handle("POST /v1/private-rooms", func(r *http.Request) (any, *api.Error) {
		req := body[api.CreateRoomRequest](r)
		n.mu.Unlock()
		c := n.room(req.Name)
		n.mu.Lock()
		c.Access, c.Membership, c.Role = "private", api.MembershipMember, "owner"
		note("create %s %s", req.Name, req.History)
		return c.Conversation, nil
	})
	handle("PUT /v1/policy", func(r *http.Request) (any, *api.Error) {
		req := body[api.PolicyRequest](r)
		return note("%s history %s", req.Target, req.History)
	})
	handle("PUT /v1/members", func(r *http.Request) (any, *api.Error) {
		req := body[api.MemberChange](r)
		return note("%s %s %s %s %s", req.Target, req.Who, req.Action, req.Role, req.Reason)
	})
	handle("GET /v1/invites", func(*http.Request) (any, *api.Error) { return n.invites, nil })
	handle("POST /v1/invites", func(r *http.Request) (any, *api.Error) {
		req := body[api.InviteRequest](r)
		id := strconv.Itoa(len(n.invites))
		inv := api.Invite{ID: id, Link: "starling:invite/" + id, Target: req.Target, OneTime: req.OneTime}
		inv.ExpiresAt = api.Time{Time: zeroHour.Add(time.Duration(req.ExpiryMS) * time.Millisecond)}
		n.invites = append(n.invites, inv)
		return inv, nil
	})
	handle("DELETE /v1/invites", func(r *http.Request) (any, *api.Error) {
		n.invites = slices.DeleteFunc(n.invites, func(inv api.Invite) bool { return inv.ID == r.URL.Query().Get("id") })
		return nil, nil
	})
}

func (n *fakeNode) markRead(req api.ReadRequest) *api.Error {
	c := n.find(req.Target)
	if c == nil {
		return errNoSuch
	}
	if req.Seq > c.ReadSeq {
		c.ReadSeq, c.Unread, c.Mentions = req.Seq, 0, 0
		for _, m := range c.messages[min(int(req.Seq), len(c.messages)):] {
			if !m.Own {
				c.Unread++
			}
		}
		n.tellConversation(c)
	}
	return nil
}

func (n *fakeNode) takeMessage(req api.SendRequest) (any, *api.Error) {
	if n.refuse != nil {
		return nil, n.refuse
	}
	c := n.find(req.Target)
	if c == nil {
		return nil, errNoSuch
	}
	for _, have := range n.sent {
		if have.ClientID == req.ClientID {
			return api.SendResult{ClientID: req.ClientID, State: api.StateAccepted}, nil
		}
	}
	n.sent = append(n.sent, req)
	switch req.Action {
	case "", api.ActionMessage:
		m := n.message(c, n.me.Nick, req.Text)
		m.ClientID, m.ReplyTo, m.Style, m.State = req.ClientID, req.ReplyTo, req.Style, api.StateAccepted
		n.keep(c, m)
		n.publish(api.Event{Type: api.EventMessage, Message: &m})
		m.State = api.StateSent
		c.messages[c.at[m.ID]] = m
		n.publish(api.Event{Type: api.EventUpdate, Message: &m})
		n.tellConversation(c)
		return api.SendResult{ClientID: req.ClientID, ID: m.ID, State: m.State}, nil
	}
	i, ok := c.at[req.Ref]
	if !ok {
		return nil, errNoSuch
	}
	m := &c.messages[i]
	switch req.Action {
	case api.ActionEdit:
		m.Text, m.Edited = req.Text, true
	case api.ActionRedact:
		m.Text, m.Redacted = "", true
	case api.ActionReact:
		m.Reactions = []api.Reaction{{Text: req.Text, Nicks: []string{n.me.Nick}, Own: true}}
	}
	copied := *m
	n.publish(api.Event{Type: api.EventUpdate, Message: &copied})
	return api.SendResult{ClientID: req.ClientID, ID: m.ID, State: m.State}, nil
}

func (n *fakeNode) history(r *http.Request) (any, *api.Error) {
	q := r.URL.Query()
	c := n.find(q.Get("target"))
	if c == nil {
		return []api.Message{}, nil
	}
	count, _ := strconv.Atoi(q.Get("n"))
	if count == 0 {
		count = 50
	}
	from, to := 0, len(c.messages)
	if before := q.Get("before"); before != "" {
		to = c.at[before]
	}
	if after := q.Get("after"); after != "" {
		from = c.at[after] + 1
		to = min(to, from+count)
	}
	return c.messages[max(from, to-count):to], nil
}

func (n *fakeNode) search(r *http.Request) (any, *api.Error) {
	hits := []api.Message{}
	for _, c := range n.list {
		if in := r.URL.Query().Get("in"); in != "" && in != c.Target {
			continue
		}
		for _, m := range slices.Backward(c.messages) {
			if strings.Contains(m.Text, r.URL.Query().Get("q")) && len(hits) < 100 {
				hits = append(hits, m)
			}
		}
	}
	return hits, nil
}

func (n *fakeNode) events(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	send := func(ev api.Event) bool {
		b, _ := json.Marshal(ev)
		_, err := fmt.Fprintf(w, "data: %s\n\n", b)
		return err == nil && rc.Flush() == nil
	}
	since, err := strconv.ParseUint(r.URL.Query().Get("since"), 10, 64)
	n.mu.Lock()
	at := n.dropped + len(n.log)
	reset := err == nil && int(since) < n.dropped
	if err == nil && !reset {
		at = int(since)
	}
	n.mu.Unlock()
	if !send(api.Event{Type: api.EventHello, Cursor: uint64(at)}) || reset && !send(api.Event{Type: api.EventReset, Cursor: uint64(at)}) {
		return
	}
	for {
		n.mu.Lock()
		if at < n.dropped {
			at = n.dropped
		}
		news, more := slices.Clone(n.log[at-n.dropped:]), n.more
		n.mu.Unlock()
		for _, ev := range news {
			at++
			if !send(ev) {
				return
			}
		}
		select {
		case <-more:
		case <-r.Context().Done():
			return
		}
	}
}
