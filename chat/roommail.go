package chat

import (
	"context"
	"slices"

	"github.com/starling-chat/starling/chat/wire"
)

// This file is what direct messages do for private rooms: they carry mail to the wardens of other nodes
// and take in what comes for the own one.

// maxRoomMail bounds the mail of one sender that waits to be read.
const maxRoomMail = 256

// takeRoomMail puts a message into the warden's inbox, with the transaction that takes it in. It is
// acknowledged even to somebody unknown: an invite is no message to a person.
func (d *dialogs) takeRoomMail(ctx context.Context, in *receiving, f frameIn, g *dialog, c *wire.DMContent) error {
	body, err := wire.ParseDMBody(c.Kind, c.Body)
	if err != nil {
		return err
	}
	room, ok := roomOf(body)
	if !ok || !d.expects(room, g.account, c.Kind) {
		return nil
	}
	n := 0
	for _, err := range d.s.store.ScanBucket(ctx, bucketRoomMail, joinKey(room[:], g.account[:])) {
		if err != nil {
			return err
		}
		if n++; n >= maxRoomMail {
			return nil // not acknowledged: it comes again
		}
	}
	row := roomMailRow{Version: rowVersion, From: g.account, Kind: c.Kind, Body: c.Body, At: d.s.cfg.Clock.Now()}
	in.batch.Put(bucketRoomMail, joinKey(room[:], g.account[:], c.ID[:]), encodeRow(row))
	in.after = append(in.after, d.s.warden.poke)
	d.confirm(in, f.from, c.ID)
	return nil
}

// confirm plans an acknowledgement.
func (d *dialogs) confirm(in *receiving, dev wire.DeviceID, id wire.MsgID) {
	if !slices.Contains(in.acks[dev], id) {
		in.acks[dev] = append(in.acks[dev], id)
	}
}

// roomOf returns the room that a message for wardens is about.
func roomOf(body wire.DMBody) (wire.RoomID, bool) {
	switch b := body.(type) {
	case *wire.RoomSecretBody:
		return b.Room, true
	case *wire.RoomLogBody:
		return b.Room, true
	case *wire.RoomWantedBody:
		return b.Room, true
	case *wire.RoomRefusedBody:
		return b.Room, true
	case *wire.JoinRequestBody:
		link, err := wire.ParseInvite(b.Invite)
		if err != nil {
			return wire.RoomID{}, false
		}
		return link.Room, true
	}
	return wire.RoomID{}, false
}

// expects says whether mail about a room is of use here: the room is joined or an invite into it waits,
// and the sender is a member, or brings an invite, or is named by one.
func (d *dialogs) expects(room wire.RoomID, from wire.AccountID, kind wire.DMKind) bool {
	if p := d.s.warden.pendingRoom(room); p != nil && p.Refused == 0 {
		if from == p.Inviter || slices.ContainsFunc(p.Doors, func(o wire.Door) bool { return o.Account == from }) {
			return true
		}
	}
	r := d.s.roomByID(room)
	if r == nil || !r.private || !r.joined() {
		return false
	}
	return kind == wire.DMJoinRequest || r.members().role(from) != 0
}

// dropRequests takes join requests back that were decided by others.
func (d *dialogs) dropRequests(ctx context.Context, p *pendingRow) {
	to := []wire.AccountID{p.Inviter}
	for _, o := range p.Doors {
		to = append(to, o.Account)
	}
	for _, a := range to {
		g := d.find(a)
		if g == nil {
			continue
		}
		for _, o := range slices.Clone(g.out) {
			if o.row.Hidden && isRequest(o.row.Content, p.room) {
				if err := d.outboxAction(ctx, g, o, OutboxCancel); err != nil {
					d.s.log.Warn("taking a join request back failed", "error", err)
				}
			}
		}
	}
}

// isRequest says whether a queued message asks to be let into a room.
func isRequest(content []byte, room wire.RoomID) bool {
	c, err := wire.ParseDMContent(content)
	if err != nil || c.Kind != wire.DMJoinRequest {
		return false
	}
	body, err := wire.ParseDMBody(c.Kind, c.Body)
	if err != nil {
		return false
	}
	about, ok := roomOf(body)
	return ok && about == room
}
