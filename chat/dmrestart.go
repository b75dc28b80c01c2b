package chat

import (
	"context"
	"crypto/mlkem"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/starling-chat/starling/chat/ratchet"
	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// This file gives contacts what they need to write to us later: our newest records, and a prekey made for
// them alone with which they can begin a new session when the old one is lost (docs/spec/dm.md, section 2).

const (
	bucketHanded = "handed" // account: handedRow

	// handPause is the least time between two handings-over to one contact.
	handPause = time.Hour
	// handQuiet is after how long without a word from a contact nothing is handed over any more.
	handQuiet = 60 * 24 * time.Hour
)

// handedRow is what a contact was given last, inside a session.
type handedRow struct {
	Version  int       `json:"v"`
	Sequence uint64    `json:"sequence"` // of the prekey record
	Restart  uint32    `json:"restart"`  // number of the restart prekey
	At       time.Time `json:"at"`
}

// spentPrekey is a restart prekey that began a session.
type spentPrekey struct {
	id      uint32
	account wire.AccountID
}

// restart returns the stored restart prekey of a device, or nil.
func (r *peerKeysRow) restart() *wire.RestartPrekey {
	if r.RestartID == 0 || len(r.RestartKey) != 32 || len(r.RestartKEM) != mlkem.EncapsulationKeySize768 {
		return nil
	}
	return &wire.RestartPrekey{PrekeyID: r.RestartID, Prekey: [32]byte(r.RestartKey), KEM: r.RestartKEM}
}

// row returns what is stored of a device's keys.
func (p *sealPeer) row() []byte {
	row := peerKeysRow{Version: rowVersion, Record: p.raw, Restarted: p.restarted}
	if p.restart != nil {
		row.RestartID, row.RestartKey, row.RestartKEM = p.restart.PrekeyID, p.restart.Prekey[:], p.restart.KEM
	}
	return encodeRow(row)
}

// takeRestart keeps the prekey that a device gave us to begin anew with.
func (e *sealer) takeRestart(dev wire.DeviceID, r *wire.RestartPrekey) {
	if p := e.peers[dev]; p != nil {
		p.restart, p.changed = r, true
		e.dirty[dev] = p
	}
}

// forget drops all that is known of a device's keys.
func (e *sealer) forget(b *storage.Batch, dev wire.DeviceID) {
	delete(e.peers, dev)
	delete(e.dirty, dev)
	b.Delete(bucketPeerKeys, dev[:])
	b.DeleteEphemeral(bucketSessions, dev[:])
}

// openWith opens a message on a set. A restart prekey that it needs is read for the moment, if it was made
// for the sender's account, and is spent when it began a session.
func (e *sealer) openWith(ctx context.Context, set *ratchet.Set, envelope []byte) (ratchet.Opened, error) {
	h, err := ratchet.ReadHeader(envelope)
	if err != nil {
		return ratchet.Opened{}, err
	}
	if _, ok := e.secrets.Prekeys[h.Prekey]; !h.Init || ok || set.Holds(h.Session) {
		return set.Open(&e.secrets, envelope, nil)
	}
	key, err := e.restartKey(ctx, h.Prekey, wire.AccountID(h.Account))
	if errors.Is(err, storage.ErrNotFound) {
		return set.Open(&e.secrets, envelope, nil) // which says so
	}
	if err != nil {
		return ratchet.Opened{}, err
	}
	e.secrets.Prekeys[h.Prekey] = key
	defer delete(e.secrets.Prekeys, h.Prekey)
	opened, err := set.Open(&e.secrets, envelope, nil)
	if err == nil && opened.Started {
		e.spent = append(e.spent, spentPrekey{h.Prekey, wire.AccountID(h.Account)})
	}
	return opened, err
}

// restartKey reads the private half of a restart prekey made for an account.
func (e *sealer) restartKey(ctx context.Context, id uint32, account wire.AccountID) (ratchet.Prekey, error) {
	for _, s := range e.spent {
		if s.id == id {
			return ratchet.Prekey{}, storage.ErrNotFound // used in this batch
		}
	}
	b, err := e.s.store.GetEphemeral(ctx, bucketPrekeys, prekeyKey(id))
	if err != nil {
		return ratchet.Prekey{}, err
	}
	const size = 32 + mlkem.SeedSize
	if len(b) != size+len(account) || wire.AccountID(b[size:]) != account {
		return ratchet.Prekey{}, storage.ErrNotFound
	}
	return parsePrekey(b[:size])
}

// makeRestart returns the restart prekey that is to be handed to an account: the one they have, or a new one
// that is stored with b. The returned function makes it effective once b is committed.
func (e *sealer) makeRestart(ctx context.Context, b *storage.Batch, account wire.AccountID, have uint32) (*wire.RestartPrekey, func(), error) {
	if have != 0 {
		switch key, err := e.restartKey(ctx, have, account); {
		case err == nil:
			return publicRestart(have, key), func() {}, nil
		case !errors.Is(err, storage.ErrNotFound):
			return nil, nil, err
		}
	}
	secret := make([]byte, 32+mlkem.SeedSize)
	if _, err := io.ReadFull(e.s.cfg.Rand, secret); err != nil {
		return nil, nil, fmt.Errorf("reading randomness for a prekey: %w", err)
	}
	key, err := parsePrekey(secret)
	if err != nil {
		return nil, nil, err
	}
	next := e.own
	next.Last = e.own.nextID()
	b.PutEphemeral(bucketPrekeys, prekeyKey(next.Last), append(secret, account[:]...))
	b.Put(bucketProfile, []byte(profilePrekeys), encodeRow(next))
	return publicRestart(next.Last, key), func() { e.own.Last = next.Last }, nil
}

func publicRestart(id uint32, key ratchet.Prekey) *wire.RestartPrekey {
	return &wire.RestartPrekey{PrekeyID: id, Prekey: [32]byte(key.DH.PublicKey().Bytes()), KEM: key.KEM.EncapsulationKey().Bytes()}
}

// openFirst opens a message of a device whose record is not known. It has to carry the record, which ties
// the identity key it claims to the device and its account; otherwise nothing is kept.
func (e *sealer) openFirst(ctx context.Context, h ratchet.Header, envelope []byte) (ratchet.Opened, error) {
	dev := wire.DeviceID(h.Device)
	party := ratchet.Party{Account: h.Account, Device: h.Device, Identity: h.Identity}
	if !h.Init {
		return ratchet.Opened{}, errNoKeys
	}
	set := ratchet.NewSet(e.self, party)
	opened, err := e.openWith(ctx, set, envelope)
	if err != nil {
		return ratchet.Opened{}, err
	}
	record, err := carriedRecord(opened.Content)
	if err != nil {
		return ratchet.Opened{}, err
	}
	if r, err := wire.ParsePrekeyRecord(record); err != nil || partyOf(r) != party {
		return ratchet.Opened{}, errors.Join(err, errors.New("the record that a message carries is another device's"))
	}
	if _, err := e.learn(ctx, record); err != nil {
		return ratchet.Opened{}, err
	}
	p := e.peers[dev]
	p.set, p.live = set, true
	e.dirty[dev] = p
	return opened, nil
}

// carriedRecord returns the prekey record inside a message, or errNoKeys.
func carriedRecord(content []byte) ([]byte, error) {
	c, err := wire.ParseDMContent(content)
	if err != nil {
		return nil, err
	}
	if c.Kind != wire.DMRecords {
		return nil, errNoKeys
	}
	body, err := wire.ParseDMBody(c.Kind, c.Body)
	if err != nil {
		return nil, err
	}
	if r, ok := body.(*wire.RecordsBody); ok && len(r.PrekeyRecord) > 0 {
		return r.PrekeyRecord, nil
	}
	return nil, errNoKeys
}

// recordsBody returns what says how this device is written to: its newest records, and restart if not nil.
func (d *dialogs) recordsBody(ctx context.Context, restart *wire.RestartPrekey) ([]byte, error) {
	body := &wire.RecordsBody{PrekeyRecord: d.sealer.own.Record, Restart: restart}
	list, err := d.s.heldList(ctx)
	if err != nil {
		return nil, err
	}
	if list != nil {
		body.DeviceList = list.Raw
	}
	return wire.EncodeDMBody(body)
}

// handOver gives every contact with whom a session stands what they lack: the records, when those have
// changed, and a restart prekey, when they have none. It travels as a message of its own, by mail if they
// are away.
func (d *dialogs) handOver(ctx context.Context) {
	now := d.s.cfg.Clock.Now()
	if d.sealer.own.Record == nil {
		return
	}
	for _, g := range d.all() {
		row := d.s.people.contact(g.account)
		if row == nil || row.State != ContactFriend || row.Trust == TrustChanged || now.Sub(row.LastSeen) > handQuiet {
			continue
		}
		if err := d.handTo(ctx, g, now); err != nil && ctx.Err() == nil {
			d.s.log.Warn("handing over prekeys failed", "error", err)
		}
	}
}

func (d *dialogs) handTo(ctx context.Context, g *dialog, now time.Time) error {
	if g.handed == nil {
		row, err := d.handedTo(ctx, g.account)
		if err != nil {
			return err
		}
		g.handed = &row
	}
	old := *g.handed
	if old.Sequence == d.sealer.own.Sequence || !old.At.IsZero() && now.Sub(old.At).Abs() < handPause {
		return nil
	}
	live := false
	for _, dev := range d.s.people.devicesOf(g.account) {
		p, err := d.sealer.peer(ctx, dev)
		if err != nil {
			return err
		}
		live = live || p != nil && p.live
	}
	if !live {
		return nil
	}
	var batch storage.Batch
	restart, commit, err := d.sealer.makeRestart(ctx, &batch, g.account, old.Restart)
	if err != nil {
		return err
	}
	body, err := d.recordsBody(ctx, restart)
	if err != nil {
		return err
	}
	next := handedRow{rowVersion, d.sealer.own.Sequence, restart.PrekeyID, now}
	batch.Put(bucketHanded, g.account[:], encodeRow(next))
	if err := d.whisperWith(ctx, &batch, g, wire.DMRecords, body); err != nil {
		return err
	}
	commit()
	g.handed = &next
	return nil
}

// handedTo reads what a contact was given last.
func (d *dialogs) handedTo(ctx context.Context, account wire.AccountID) (handedRow, error) {
	b, err := d.s.store.GetBucket(ctx, bucketHanded, account[:])
	if errors.Is(err, storage.ErrNotFound) {
		return handedRow{}, nil
	}
	if err != nil {
		return handedRow{}, err
	}
	return decodeRow[handedRow]("what was handed over", b)
}
