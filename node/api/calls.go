package api

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// This file has one method for each operation in the package comment, except batch and events,
// which stream. None retries: the caller knows whether a repeat is harmless.

// Me says who the node is.
func (c *Client) Me(ctx context.Context) (Me, error) {
	return fetch[Me](ctx, c, http.MethodGet, "/v1/me", nil, nil)
}

// SetNick changes the node's nick everywhere. Idempotent.
func (c *Client) SetNick(ctx context.Context, nick string) (Me, error) {
	return fetch[Me](ctx, c, http.MethodPut, "/v1/me/nick", nil, NickRequest{Nick: nick})
}

// Status describes the node as it stands.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return fetch[Status](ctx, c, http.MethodGet, "/v1/status", nil, nil)
}

// Peers lists the connected peers.
func (c *Client) Peers(ctx context.Context) ([]Peer, error) {
	return fetch[[]Peer](ctx, c, http.MethodGet, "/v1/peers", nil, nil)
}

// Ping measures one round trip; peer is a peer id, a multiaddr, or a person as in a target.
func (c *Client) Ping(ctx context.Context, peer string) (PingResult, error) {
	return fetch[PingResult](ctx, c, http.MethodPost, "/v1/ping", nil, PingRequest{Peer: peer})
}

// Doctor checks reachability, which may take some seconds.
func (c *Client) Doctor(ctx context.Context) (Doctor, error) {
	return fetch[Doctor](ctx, c, http.MethodGet, "/v1/doctor", nil, nil)
}

// Stop asks the node to end; it answers before it does.
func (c *Client) Stop(ctx context.Context) error {
	return c.call(ctx, http.MethodPost, "/v1/stop", nil, nil, nil)
}

// Check verifies the node's store. Without a deadline in ctx it may take minutes.
func (c *Client) Check(ctx context.Context) (CheckReport, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 30*time.Minute)
		defer cancel()
	}
	return fetch[CheckReport](ctx, c, http.MethodPost, "/v1/check", nil, nil)
}

// Purge makes the node rewrite its store, so that what was deleted leaves its files now. Without a deadline in
// ctx it may take minutes.
func (c *Client) Purge(ctx context.Context) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 30*time.Minute)
		defer cancel()
	}
	return c.call(ctx, http.MethodPost, "/v1/purge", nil, nil, nil)
}

// Backup returns what a backup of this node holds besides the account: contacts, the secrets of rooms,
// settings, and the direct messages if history is wanted. Without a deadline in ctx it may take minutes.
func (c *Client) Backup(ctx context.Context, history bool) (Backup, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, 30*time.Minute)
		defer cancel()
	}
	return fetch[Backup](ctx, c, http.MethodPost, "/v1/backup", nil, BackupRequest{History: history})
}

// Conversations lists the joined rooms and the direct conversations.
func (c *Client) Conversations(ctx context.Context) ([]Conversation, error) {
	return fetch[[]Conversation](ctx, c, http.MethodGet, "/v1/conversations", nil, nil)
}

// Join joins a room by name, name and password, or link. Joining a joined room is no error.
func (c *Client) Join(ctx context.Context, req JoinRequest) (Conversation, error) {
	return fetch[Conversation](ctx, c, http.MethodPost, "/v1/rooms", nil, req)
}

// Leave leaves a room.
func (c *Client) Leave(ctx context.Context, target string) error {
	return c.call(ctx, http.MethodDelete, "/v1/rooms", url.Values{"target": {target}}, nil, nil)
}

// CreateRoom makes a private room and joins it.
func (c *Client) CreateRoom(ctx context.Context, req CreateRoomRequest) (Conversation, error) {
	return fetch[Conversation](ctx, c, http.MethodPost, "/v1/private-rooms", nil, req)
}

// SetPolicy changes a private room's policy for everybody.
func (c *Client) SetPolicy(ctx context.Context, req PolicyRequest) error {
	return c.call(ctx, http.MethodPut, "/v1/policy", nil, req, nil)
}

// ChangeMember gives somebody in a private room another role, or removes, bans or unbans them.
func (c *Client) ChangeMember(ctx context.Context, req MemberChange) error {
	return c.call(ctx, http.MethodPut, "/v1/members", nil, req, nil)
}

// Members lists who was seen in a room.
func (c *Client) Members(ctx context.Context, target string) ([]Member, error) {
	return fetch[[]Member](ctx, c, http.MethodGet, "/v1/members", url.Values{"target": {target}}, nil)
}

// SetTopic sets a room's topic for everybody.
func (c *Client) SetTopic(ctx context.Context, target, topic string) error {
	return c.call(ctx, http.MethodPut, "/v1/topic", nil, TopicRequest{Target: target, Topic: topic}, nil)
}

// MarkRead marks everything up to the arrival number seq as read. Idempotent.
func (c *Client) MarkRead(ctx context.Context, target string, seq uint64) error {
	return c.call(ctx, http.MethodPut, "/v1/read", nil, ReadRequest{Target: target, Seq: seq}, nil)
}

// SetMuted says whether a conversation may notify. Idempotent.
func (c *Client) SetMuted(ctx context.Context, target string, muted bool) error {
	return c.call(ctx, http.MethodPut, "/v1/mute", nil, MuteRequest{Target: target, Muted: muted}, nil)
}

// Typing tells the others that this user writes. It does nothing when typing signals are off.
func (c *Client) Typing(ctx context.Context, target string) error {
	return c.call(ctx, http.MethodPost, "/v1/typing", nil, TargetRequest{Target: target}, nil)
}

// Send returns once the message is durable, or once it reached req.Wait. With a ClientID it may be
// repeated without making a second message. An error of code [CodeTimeout] leaves it accepted.
func (c *Client) Send(ctx context.Context, req SendRequest) (SendResult, error) {
	if req.Wait != "" && req.Wait != StateAccepted {
		wait := DefaultWait
		if req.TimeoutMS > 0 {
			wait = time.Duration(req.TimeoutMS) * time.Millisecond
		}
		if _, ok := ctx.Deadline(); !ok {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, wait+DefaultTimeout)
			defer cancel()
		}
	}
	return fetch[SendResult](ctx, c, http.MethodPost, "/v1/messages", nil, req)
}

// History gives a page of a conversation, oldest first.
func (c *Client) History(ctx context.Context, q HistoryQuery) ([]Message, error) {
	v := url.Values{"target": {q.Target}}
	if q.N != 0 {
		v.Set("n", strconv.Itoa(q.N))
	}
	setText(v, "before", q.Before)
	setText(v, "after", q.After)
	if !q.Since.IsZero() {
		v.Set("since", q.Since.UTC().Format(time.RFC3339Nano))
	}
	return fetch[[]Message](ctx, c, http.MethodGet, "/v1/messages", v, nil)
}

// Message gives one message by id.
func (c *Client) Message(ctx context.Context, id string) (Message, error) {
	return fetch[Message](ctx, c, http.MethodGet, "/v1/messages/"+url.PathEscape(id), nil, nil)
}

// Search gives the messages that hold every word of the query, newest first.
func (c *Client) Search(ctx context.Context, q SearchQuery) ([]Message, error) {
	v := url.Values{"q": {q.Query}}
	setText(v, "in", q.In)
	setText(v, "from", q.From)
	if q.N != 0 {
		v.Set("n", strconv.Itoa(q.N))
	}
	return fetch[[]Message](ctx, c, http.MethodGet, "/v1/search", v, nil)
}

// Digest says what a conversation holds.
func (c *Client) Digest(ctx context.Context, target string) (Digest, error) {
	return fetch[Digest](ctx, c, http.MethodGet, "/v1/digest", url.Values{"target": {target}}, nil)
}

// Contacts lists contacts, requests and blocked accounts.
func (c *Client) Contacts(ctx context.Context) ([]Contact, error) {
	return fetch[[]Contact](ctx, c, http.MethodGet, "/v1/contacts", nil, nil)
}

// AddContact adds somebody by account id or link. Idempotent.
func (c *Client) AddContact(ctx context.Context, req ContactRequest) (Contact, error) {
	return fetch[Contact](ctx, c, http.MethodPost, "/v1/contacts", nil, req)
}

// ChangeContact accepts, rejects, renames, blocks, unblocks or removes somebody. Idempotent.
func (c *Client) ChangeContact(ctx context.Context, req ContactChange) error {
	return c.call(ctx, http.MethodPut, "/v1/contacts", nil, req, nil)
}

// Verification gives what two people compare.
func (c *Client) Verification(ctx context.Context, who string) (Verification, error) {
	return fetch[Verification](ctx, c, http.MethodGet, "/v1/verification", url.Values{"who": {who}}, nil)
}

// SetTrust records the result of a comparison: verified or unverified. Idempotent.
func (c *Client) SetTrust(ctx context.Context, who, trust string) (Contact, error) {
	return fetch[Contact](ctx, c, http.MethodPut, "/v1/verification", nil, TrustRequest{Who: who, Trust: trust})
}

// Invites lists the links made here that still exist.
func (c *Client) Invites(ctx context.Context) ([]Invite, error) {
	return fetch[[]Invite](ctx, c, http.MethodGet, "/v1/invites", nil, nil)
}

// CreateInvite makes a link.
func (c *Client) CreateInvite(ctx context.Context, req InviteRequest) (Invite, error) {
	return fetch[Invite](ctx, c, http.MethodPost, "/v1/invites", nil, req)
}

// RevokeInvite makes a link worthless.
func (c *Client) RevokeInvite(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, "/v1/invites", url.Values{"id": {id}}, nil, nil)
}

// Devices lists the devices of this user's account that are known here.
func (c *Client) Devices(ctx context.Context) ([]Device, error) {
	return fetch[[]Device](ctx, c, http.MethodGet, "/v1/devices", nil, nil)
}

// RevokeDevice takes one of the account's devices out of it, for good. The id may be its last 8 characters or
// more. It is idempotent.
func (c *Client) RevokeDevice(ctx context.Context, id string) error {
	return c.call(ctx, http.MethodDelete, "/v1/devices", url.Values{"id": {id}}, nil, nil)
}

// Outbox lists own messages that nobody acknowledged yet.
func (c *Client) Outbox(ctx context.Context) ([]OutboxEntry, error) {
	return fetch[[]OutboxEntry](ctx, c, http.MethodGet, "/v1/outbox", nil, nil)
}

// ChangeOutbox cancels an entry or retries it now.
func (c *Client) ChangeOutbox(ctx context.Context, id, action string) error {
	return c.call(ctx, http.MethodPut, "/v1/outbox", nil, OutboxChange{ID: id, Action: action}, nil)
}

// Setting reads a front-end's setting; one that was never set is empty.
func (c *Client) Setting(ctx context.Context, key string) (string, error) {
	out, err := fetch[Setting](ctx, c, http.MethodGet, "/v1/settings", url.Values{"key": {key}}, nil)
	return out.Value, err
}

// SetSetting keeps a front-end's setting, such as a draft or a theme. Idempotent.
func (c *Client) SetSetting(ctx context.Context, key, value string) error {
	return c.call(ctx, http.MethodPut, "/v1/settings", nil, Setting{Key: key, Value: value}, nil)
}

func fetch[T any](ctx context.Context, c *Client, method, path string, query url.Values, in any) (T, error) {
	var out T
	err := c.call(ctx, method, path, query, in, &out)
	return out, err
}

func setText(v url.Values, key, value string) {
	if value != "" {
		v.Set(key, value)
	}
}
