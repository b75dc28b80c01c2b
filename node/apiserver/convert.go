package apiserver

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/node/api"
)

// This file translates what the chat service shows into the shapes of the API, field by field.

// text gives "" for an id that is unset, instead of the text of the zero key.
func text[T interface {
	comparable
	String() string
}](id T) string {
	var zero T
	if id == zero {
		return ""
	}
	return id.String()
}

func texts[T interface {
	comparable
	String() string
}](ids []T) []string {
	return list(ids, text[T])
}

// list converts a slice; nil becomes an empty list, so that JSON never says null.
func list[A, B any](in []A, convert func(A) B) []B {
	out := make([]B, len(in))
	for i, v := range in {
		out[i] = convert(v)
	}
	return out
}

func stamp(t time.Time) api.Time { return api.Time{Time: t} }

func message(m chat.Message) api.Message {
	return api.Message{
		Schema: api.Schema, ID: m.ID.String(), ClientID: m.ClientID,
		Target: m.Target, Conversation: conversationID(m.Conversation, m.Room == ""), Room: m.Room,
		Account: text(m.Account), Device: text(m.Device),
		Nick: m.Nick, Fingerprint: m.Fingerprint, NickShared: m.NickShared,
		Own: m.Own, Kind: m.Kind, Text: m.Text, Style: string(m.Style),
		ReplyTo: m.ReplyTo.String(), Edited: m.Edited, Redacted: m.Redacted, Mention: m.Mention,
		Reactions: reactions(m.Reactions),
		SentAt:    stamp(m.SentAt), ReceivedAt: stamp(m.ReceivedAt), Seq: m.Seq,
		State: string(m.State), Reason: m.Reason, ReadBy: m.ReadBy, Path: string(m.Path), BackDated: m.BackDated,
	}
}

// conversationID writes a conversation's id as [chat.Conversation.IDString] does: an account's text
// for a direct one.
func conversationID(id chat.ConversationID, direct bool) string {
	if direct {
		return wire.AccountID(id).String()
	}
	return id.String()
}

func reactions(in []chat.Reaction) []api.Reaction {
	if len(in) == 0 {
		return nil
	}
	return list(in, func(r chat.Reaction) api.Reaction {
		return api.Reaction{Text: r.Text, Nicks: r.Nicks, Own: r.Own}
	})
}

func conversation(c chat.Conversation) api.Conversation {
	out := api.Conversation{
		ID: c.IDString(), Target: c.Target, Kind: c.Kind, Room: c.Room, Account: text(c.Account),
		Topic: c.Topic, Access: c.Access, Members: c.Members, Peers: c.Peers,
		Unread: c.Unread, Mentions: c.Mentions, ReadSeq: c.ReadSeq, LastSeq: c.LastSeq, LastAt: stamp(c.LastAt),
		Muted: c.Muted, Trust: string(c.Trust), Request: c.Request, Policy: c.Policy,
		Membership: c.Membership, Role: c.Role, History: c.History, Post: c.Post, Note: c.Note,
	}
	if c.Split != nil {
		out.Split = &api.Split{Since: stamp(c.Split.Since), Nicks: c.Split.Nicks}
	}
	for _, g := range c.Gaps {
		out.Gaps = append(out.Gaps, api.Gap{Account: text(g.Account), Nick: g.Nick, Count: g.Count, After: g.After.String()})
	}
	return out
}

func member(m chat.Member) api.Member {
	return api.Member{
		Account: text(m.Account), Devices: texts(m.Devices),
		Nick: m.Nick, Fingerprint: m.Fingerprint, NickShared: m.NickShared, Petname: m.Petname,
		Role: m.Role, Own: m.Own, Online: m.Online, Path: string(m.Path), LastSeen: stamp(m.LastSeen),
	}
}

func contact(c chat.Contact) api.Contact {
	out := api.Contact{
		Account: text(c.Account), Devices: texts(c.Devices), Petname: c.Petname,
		Nick: c.Nick, Fingerprint: c.Fingerprint, State: string(c.State), Trust: string(c.Trust),
		Path: string(c.Path), LastSeen: stamp(c.LastSeen), Wants: c.Wants,
	}
	if c.Instead != nil {
		out.Instead = text(*c.Instead)
	}
	return out
}

func verification(v chat.Verification) api.Verification {
	return api.Verification{Account: text(v.Account), Nick: v.Nick, SafetyNumber: v.SafetyNumber, QR: v.QR, Trust: string(v.Trust)}
}

func outboxEntry(e chat.OutboxEntry) api.OutboxEntry {
	return api.OutboxEntry{
		ID: e.ID.String(), Target: e.Target, Account: text(e.Account), State: string(e.State),
		Attempts: e.Attempts, NextAttempt: stamp(e.NextAttempt), CreatedAt: stamp(e.CreatedAt), Reason: e.Reason,
	}
}

func invite(i chat.Invite) api.Invite {
	return api.Invite{ID: i.ID, Link: i.Link, Target: i.Target, ExpiresAt: stamp(i.ExpiresAt), OneTime: i.OneTime, Used: i.Used}
}

func device(d chat.OwnDevice) api.Device {
	return api.Device{ID: d.Device.String(), Here: d.Here, Revoked: d.Revoked, Path: string(d.Path)}
}

func digest(d chat.Digest) api.Digest {
	return api.Digest{Count: d.Count, SHA256: hex.EncodeToString(d.SHA256[:]), Gaps: d.Gaps}
}

func me(m chat.Me) api.Me {
	addrs := m.Addrs
	if addrs == nil {
		addrs = []string{}
	}
	return api.Me{
		Account: text(m.Account), Device: text(m.Device), PeerID: text(m.Device),
		Nick: m.Nick, Fingerprint: m.Fingerprint, Link: m.Link, Addrs: addrs,
	}
}

// event translates one change; what it carries depends on its type.
func event(ev chat.Event) api.Event {
	out := api.Event{Cursor: ev.Cursor, Type: ev.Type}
	if ev.Message != nil {
		m := message(*ev.Message)
		out.Message = &m
	}
	if ev.Conversation != nil {
		c := conversation(*ev.Conversation)
		out.Conversation = &c
	}
	if ev.Contact != nil {
		c := contact(*ev.Contact)
		out.Contact = &c
	}
	if ev.Typing != nil {
		t := ev.Typing
		direct := [32]byte(t.Account) == [32]byte(t.Conversation) // of the two in it, only the other is heard
		out.Typing = &api.Typing{Conversation: conversationID(t.Conversation, direct), Account: text(t.Account), Nick: t.Nick}
	}
	return out
}

// overlay adds to the node's status what the chat service knows.
func overlay(st *api.Status, svc *chat.Service) {
	me, stats := svc.Me(), svc.Stats()
	st.Account, st.Nick = text(me.Account), me.Nick
	st.Rooms, st.Outbox, st.Gaps, st.Unread = stats.Rooms, stats.Outbox, stats.Gaps, stats.Unread
	st.Storage = api.Storage{
		State:     strings.ReplaceAll(stats.StorageState, "-", "_"),
		FreeBytes: stats.FreeBytes, Messages: stats.Messages, Bytes: stats.Bytes,
	}
	st.Problems = slices.Concat(diskProblems(st.Storage), st.Problems)
	for _, target := range stats.Split {
		st.Problems = append(st.Problems, "some members of "+api.Escape(target)+" are in another part of the network: what they say comes late, by comparing; joining them is under way, a relay that both sides know helps")
	}
}

// diskProblems says in words what a store does not accept; it comes first, since it loses messages.
func diskProblems(s api.Storage) []string {
	free := fmt.Sprintf("%d MiB are free", s.FreeBytes>>20)
	switch s.State {
	case api.StorageOK:
		return nil
	case api.StorageNoHistory:
		return []string{"the disk is nearly full (" + free + "): messages of others are not kept until there is room"}
	case api.StorageReadOnly:
		return []string{"the disk is full (" + free + "): nothing is accepted or kept until there is room"}
	default:
		return []string{"the store failed: nothing is accepted; stop the node, look at its log, and run `starling check`"}
	}
}
