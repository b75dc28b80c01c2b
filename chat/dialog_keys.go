package chat

import (
	"context"
	"errors"
	"time"

	"github.com/starling-chat/starling/chat/ratchet"
	"github.com/starling-chat/starling/chat/wire"
)

// This file is how the owner of the direct messages learns keys of others, and what it does when messages
// do not open.

// takePrekeys learns a device's keys, and opens what waited for them.
func (d *dialogs) takePrekeys(ctx context.Context, in *receiving, f frameIn, raw []byte) error {
	if d.s.people.revoked(f.from) {
		return errRevoked
	}
	if r, err := wire.ParsePrekeyRecord(raw); err != nil || r.Certificate.Device != f.from {
		return errors.Join(err, errors.New("a device sent another one's prekeys"))
	}
	record, err := d.sealer.learn(ctx, raw)
	if err != nil {
		return err
	}
	dev, account := record.Certificate.Device, record.Certificate.Account
	d.s.people.device(account, dev)
	delete(d.asked, dev)
	waiting := d.pending[dev]
	delete(d.pending, dev)
	for _, w := range waiting {
		if err := d.takeFrame(ctx, in, w); err != nil {
			d.s.log.Debug("a frame was not taken", "error", err)
		}
	}
	if g := d.find(account); g != nil {
		in.after = append(in.after, func() {
			g.nextTry = time.Time{}
			d.pump(ctx, g)
		})
	}
	return nil
}

// takeRecords learns the sender's newest record from inside the session.
func (d *dialogs) takeRecords(ctx context.Context, in *receiving, f frameIn, g *dialog, c *wire.DMContent) error {
	d.acknowledge(in, f.from, g.account, c.ID)
	body, err := wire.ParseDMBody(c.Kind, c.Body)
	if err != nil {
		return err
	}
	records, ok := body.(*wire.RecordsBody)
	if !ok {
		return nil
	}
	if len(records.DeviceList) > 0 {
		l, err := wire.ParseDeviceList(records.DeviceList)
		if err != nil || l.Account != g.account {
			return errors.Join(err, errors.New("a device list that is not the sender's"))
		}
		r := &wire.LookupRecord{DeviceList: l, Raw: records.DeviceList}
		key, value := wire.EncodeLookup(r)
		if _, err := wire.CheckLookup(key, value, d.s.cfg.Clock.Now()); err != nil {
			return err
		}
		in.after = append(in.after, func() {
			if err := d.takeList(ctx, r); err != nil && ctx.Err() == nil {
				d.s.log.Warn("taking in a device list failed", "error", err)
			}
			d.noticeDevices(ctx, g)
		})
	}
	if records.Restart != nil {
		d.sealer.takeRestart(f.from, records.Restart)
	}
	if len(records.PrekeyRecord) == 0 {
		return nil
	}
	record, err := wire.ParsePrekeyRecord(records.PrekeyRecord)
	if err != nil || record.Certificate.Device != f.from {
		return errors.Join(err, errors.New("prekeys that are not the sender's"))
	}
	_, err = d.sealer.learn(ctx, records.PrekeyRecord)
	return err
}

// unopened deals with an envelope that does not open: after several, or when the sender uses a session
// that is lost here, a new session is begun.
func (d *dialogs) unopened(ctx context.Context, in *receiving, f frameIn, account wire.AccountID, envelope []byte, cause error) {
	if errors.Is(cause, ratchet.ErrMalformed) || errors.Is(cause, ratchet.ErrWrongPeer) || errors.Is(cause, ratchet.ErrDuplicate) {
		return
	}
	row := d.contactRow(in, account)
	if f.mail && (row == nil || row.State == ContactRequest) {
		return
	}
	if !f.mail {
		in.rejects = append(in.rejects, rejection{f.from, wire.RejectUndecryptable, envelope})
	}
	d.beginAnew(ctx, in, f, account, row)
}

// beginAnew begins a new session with a device if one is due, says so in the conversation, and sends what
// is not acknowledged again. By mail anybody can leave what does not open: that costs a message an hour at
// most, and no line.
func (d *dialogs) beginAnew(ctx context.Context, in *receiving, f frameIn, account wire.AccountID, row *contactRow) {
	began, err := d.sealer.restart(ctx, f.from)
	if errors.Is(err, errNoKeys) {
		if g := d.find(account); f.mail && g != nil {
			d.lookUp(ctx, g)
		} else {
			d.wantPrekeys(f.from)
		}
		return
	}
	if err != nil {
		d.s.log.Warn("beginning a new session failed", "error", err)
		return
	}
	if !began || row == nil || row.State == ContactRequest {
		return
	}
	g, err := d.with(ctx, account)
	if err == nil && !f.mail {
		err = d.notice(ctx, &in.batch, in.lines, g, "Some messages could not be opened. A new secure session was begun; what is missing is sent again.")
	}
	if err != nil {
		d.s.log.Warn("noting a new session failed", "error", err)
		return
	}
	in.after = append(in.after, func() {
		d.sealAnew(ctx, g, f.from)
		if err := d.whisper(ctx, account, wire.DMReceipt); err != nil {
			d.s.log.Warn("telling of a new session failed", "error", err)
		}
	})
}

// sealAnew forgets what was sealed for a device, so that it is sealed on the session that stands, and
// sends it: what lies in a mailbox as well, since it may be sealed on a session that is lost.
func (d *dialogs) sealAnew(ctx context.Context, g *dialog, dev wire.DeviceID) {
	for _, o := range g.out {
		d.sendAnew(o, dev)
	}
	g.nextTry = time.Time{}
	d.pump(ctx, g)
}

// sendAnew makes a message be sealed for a device again.
func (d *dialogs) sendAnew(o *outgoingDM, dev wire.DeviceID) {
	if o.row.State == StateFailed || o.copies[dev] == nil && o.row.State != StateStored {
		return
	}
	delete(o.copies, dev)
	o.kept, o.again, o.next = nil, false, time.Time{}
	if o.row.State == StateStored {
		o.row.State = StateQueued
		d.setLive(o)
	}
}

// notOpened notes that a device could not open a message of ours. After several in a row the session is
// taken for lost: our own state may have been rolled back.
func (d *dialogs) notOpened(ctx context.Context, f frameIn, account wire.AccountID) {
	p := d.sealer.peers[f.from]
	if p == nil {
		return
	}
	if p.refused++; p.refused < ratchet.FailuresBeforeRestart {
		return
	}
	in := d.newReceiving()
	d.beginAnew(ctx, in, f, account, d.contactRow(in, account))
	d.keepTaken(ctx, in)
}
