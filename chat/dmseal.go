package chat

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/mlkem"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/starling-chat/starling/chat/ratchet"
	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// sealer is the one place where direct messages are encrypted and decrypted, always end to end and
// never otherwise. It holds this device's prekeys, the records of others, and the session states. It
// belongs to the goroutine that owns the direct messages.
//
// A state that seal or open changed is kept by store in the caller's transaction; the caller says
// what became of that with committed or rollback before anything leaves the process.
type sealer struct {
	s       *Service
	self    ratchet.Party
	secrets ratchet.Secrets
	own     ownKeys
	peers   map[wire.DeviceID]*sealPeer
	dirty   map[wire.DeviceID]*sealPeer
	boxes   []wire.Mailbox // as the own record says
	spent   []spentPrekey  // restart prekeys that began a session, to be erased with its state
}

// ownKeys says which prekeys this device hands out.
type ownKeys struct {
	Version  int                  `json:"v"`
	Sequence uint64               `json:"sequence"` // of the record
	Record   []byte               `json:"record"`   // the signed record, as given to others
	Issued   time.Time            `json:"issued"`
	Made     map[uint32]time.Time `json:"made"` // when each prekey was made
	Newest   uint32               `json:"newest"`
	Last     uint32               `json:"last,omitempty"` // number given out last, to a restart prekey too
}

// nextID returns a prekey number that was never used.
func (k *ownKeys) nextID() uint32 { return max(k.Newest, k.Last) + 1 }

// sealPeer is what is known of another device's keys.
type sealPeer struct {
	record    *wire.PrekeyRecord
	raw       []byte // record as signed
	set       *ratchet.Set
	live      bool                // a session was begun
	restarted time.Time           // when a session was last begun anew because messages did not open
	restart   *wire.RestartPrekey // what they gave us to begin anew with
	changed   bool                // the row has to be written with the state
	refused   int                 // of what we sealed, how many in a row they could not open
}

// peerKeysRow is a device's record as it is stored.
type peerKeysRow struct {
	Version   int       `json:"v"`
	Record    []byte    `json:"record"`
	Restarted time.Time `json:"restarted"`
	// Of the restart prekey they gave us, until it is used.
	RestartID  uint32 `json:"restart_id,omitempty"`
	RestartKey []byte `json:"restart_key,omitempty"`
	RestartKEM []byte `json:"restart_kem,omitempty"`
}

const (
	bucketPeerKeys = "peerkeys" // device: peerKeysRow
	// In ephemeral buckets, whose old values become unreadable:
	bucketSessions = "sessions" // device: ratchet.Set
	bucketPrekeys  = "prekeys"  // prekey id 4: X25519 key 32, ML-KEM seed 64, of a restart prekey the contact's account 32; "envelope": X25519 key 32

	profilePrekeys = "prekeys"  // ownKeys
	envelopeName   = "envelope" // in bucketPrekeys

	// prekeyUse is how long a prekey is handed out, recordLife how long a record with it holds, and
	// prekeyLife how long the prekey opens: mail that was sealed with the record's last breath may lie in
	// a mailbox for wire.MaxMailboxLife.
	prekeyUse  = 7 * 24 * time.Hour
	recordLife = 21 * 24 * time.Hour
	prekeyLife = recordLife + wire.MaxMailboxLife
	// restartPause is the least time between two sessions begun anew with one device.
	restartPause = time.Hour
	// maxSealPeers bounds the devices whose state is kept in memory.
	maxSealPeers = 256
)

// errNoKeys says that a device's prekeys are needed first.
var errNoKeys = errors.New("prekeys of the device are not known")

func newSealer(ctx context.Context, s *Service) (*sealer, error) {
	identity := s.cfg.Device.Agreement()
	e := &sealer{
		s: s, peers: make(map[wire.DeviceID]*sealPeer), dirty: make(map[wire.DeviceID]*sealPeer),
		self:    ratchet.Party{Account: s.self.account, Device: s.self.device, Identity: [32]byte(identity.PublicKey().Bytes())},
		secrets: ratchet.Secrets{Identity: identity, Prekeys: make(map[uint32]ratchet.Prekey)},
	}
	if err := e.loadOwn(ctx); err != nil {
		return nil, fmt.Errorf("reading own prekeys: %w", err)
	}
	return e, nil
}

func (e *sealer) loadOwn(ctx context.Context) error {
	b, err := e.s.store.GetBucket(ctx, bucketProfile, []byte(profilePrekeys))
	switch {
	case errors.Is(err, storage.ErrNotFound):
		e.own = ownKeys{Version: rowVersion, Made: make(map[uint32]time.Time)}
		return nil // the first rotation makes them
	case err != nil:
		return err
	}
	if e.own, err = decodeRow[ownKeys]("prekeys", b); err != nil {
		return err
	}
	record, err := wire.ParsePrekeyRecord(e.own.Record)
	if err != nil {
		return err
	}
	e.boxes = record.Mailboxes
	for id := range e.own.Made {
		b, err := e.s.store.GetEphemeral(ctx, bucketPrekeys, prekeyKey(id))
		if errors.Is(err, storage.ErrNotFound) {
			continue
		}
		if err == nil {
			e.secrets.Prekeys[id], err = parsePrekey(b)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func prekeyKey(id uint32) []byte { return binary.BigEndian.AppendUint32(nil, id) }

func parsePrekey(b []byte) (ratchet.Prekey, error) {
	if len(b) != 32+mlkem.SeedSize {
		return ratchet.Prekey{}, fmt.Errorf("stored prekey of %d bytes: %w", len(b), storage.ErrCorrupt)
	}
	dh, err := ecdh.X25519().NewPrivateKey(b[:32])
	if err != nil {
		return ratchet.Prekey{}, err
	}
	kem, err := mlkem.NewDecapsulationKey768(b[32:])
	return ratchet.Prekey{DH: dh, KEM: kem}, err
}

// rotate makes a new prekey when the newest is a week old, and erases those that are four weeks old.
func (e *sealer) rotate(ctx context.Context) error {
	now := e.s.cfg.Clock.Now()
	age := now.Sub(e.own.Issued)
	if e.own.Newest != 0 && age >= -prekeyUse && age < prekeyUse {
		return nil
	}
	var b storage.Batch
	envelope, err := e.envelopeKey(ctx, &b)
	if err != nil {
		return err
	}
	secret := make([]byte, 32+mlkem.SeedSize)
	if _, err := io.ReadFull(e.s.cfg.Rand, secret); err != nil {
		return fmt.Errorf("reading randomness for a prekey: %w", err)
	}
	prekey, err := parsePrekey(secret)
	if err != nil {
		return err
	}
	cert, err := e.s.certificate(now)
	if err != nil {
		return err
	}
	next := e.own
	next.Made = maps.Clone(e.own.Made)
	next.Newest, next.Sequence, next.Issued = e.own.nextID(), max(e.own.Sequence+1, uint64(now.UnixMilli())), now
	next.Made[next.Newest] = now
	record := wire.PrekeyRecord{
		Certificate: cert, Sequence: next.Sequence, Issued: now, Expires: now.Add(recordLife),
		Agreement: e.self.Identity, PrekeyID: next.Newest, Prekey: [32]byte(prekey.DH.PublicKey().Bytes()),
		KEM: prekey.KEM.EncapsulationKey().Bytes(), Envelope: [32]byte(envelope.PublicKey().Bytes()),
		Mailboxes: e.boxes,
	}
	if next.Record, err = record.Sign(e.s.cfg.Device.PrivateKey()); err != nil {
		return err
	}
	b.PutEphemeral(bucketPrekeys, prekeyKey(next.Newest), secret)
	var erased []uint32
	for id, made := range next.Made {
		if now.Sub(made) > prekeyLife {
			b.DeleteEphemeral(bucketPrekeys, prekeyKey(id))
			delete(next.Made, id)
			erased = append(erased, id)
		}
	}
	b.Put(bucketProfile, []byte(profilePrekeys), encodeRow(next))
	if _, err := e.s.store.Commit(ctx, &b, storage.Durable); err != nil {
		return fmt.Errorf("storing a prekey: %w", e.s.storeError(err))
	}
	e.own = next
	e.secrets.Prekeys[next.Newest] = prekey
	for _, id := range erased {
		delete(e.secrets.Prekeys, id)
	}
	return nil
}

// move makes a new record that names other mailboxes.
func (e *sealer) move(ctx context.Context, boxes []wire.Mailbox) error {
	if e.own.Newest == 0 {
		e.boxes = boxes // the first record will say so
		return nil
	}
	record, err := wire.ParsePrekeyRecord(e.own.Record)
	if err != nil {
		return fmt.Errorf("reading the own prekeys: %w", err)
	}
	next := e.own
	next.Sequence = max(e.own.Sequence+1, uint64(e.s.cfg.Clock.Now().UnixMilli()))
	record.Sequence, record.Mailboxes = next.Sequence, boxes
	if next.Record, err = record.Sign(e.s.cfg.Device.PrivateKey()); err != nil {
		return err
	}
	var b storage.Batch
	b.Put(bucketProfile, []byte(profilePrekeys), encodeRow(next))
	if _, err := e.s.store.Commit(ctx, &b, storage.Durable); err != nil {
		return fmt.Errorf("storing the own prekeys: %w", e.s.storeError(err))
	}
	e.own, e.boxes = next, boxes
	return nil
}

// envelopeKey returns the key for the outer envelope of mailboxes, making it the first time.
func (e *sealer) envelopeKey(ctx context.Context, b *storage.Batch) (*ecdh.PrivateKey, error) {
	raw, err := e.s.store.GetEphemeral(ctx, bucketPrekeys, []byte(envelopeName))
	if errors.Is(err, storage.ErrNotFound) {
		raw = make([]byte, 32)
		if _, err := io.ReadFull(e.s.cfg.Rand, raw); err != nil {
			return nil, fmt.Errorf("reading randomness for a key: %w", err)
		}
		b.PutEphemeral(bucketPrekeys, []byte(envelopeName), raw)
	} else if err != nil {
		return nil, err
	}
	return ecdh.X25519().NewPrivateKey(raw)
}

// peer returns what is known of a device, or nil.
func (e *sealer) peer(ctx context.Context, dev wire.DeviceID) (*sealPeer, error) {
	if p := e.peers[dev]; p != nil {
		return p, nil
	}
	b, err := e.s.store.GetBucket(ctx, bucketPeerKeys, dev[:])
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	row, err := decodeRow[peerKeysRow]("prekeys of a device", b)
	if err != nil {
		return nil, err
	}
	record, err := wire.ParsePrekeyRecord(row.Record)
	if err != nil {
		return nil, fmt.Errorf("reading stored prekeys: %w", err)
	}
	p := &sealPeer{record: record, raw: row.Record, restarted: row.Restarted, restart: row.restart()}
	party := partyOf(record)
	state, err := e.s.store.GetEphemeral(ctx, bucketSessions, dev[:])
	switch {
	case errors.Is(err, storage.ErrNotFound):
		p.set = ratchet.NewSet(e.self, party)
	case err != nil:
		return nil, err
	default:
		if p.set, err = ratchet.UnmarshalSet(e.self, party, state); err != nil {
			// The sessions are lost; both sides begin anew and what is not acknowledged is sealed again.
			e.s.log.Warn("a stored session cannot be read; a new one will be begun", "error", err)
			p.set = ratchet.NewSet(e.self, party)
		} else {
			p.live = true
		}
	}
	e.keep(dev, p)
	return p, nil
}

func (e *sealer) keep(dev wire.DeviceID, p *sealPeer) {
	if len(e.peers) >= maxSealPeers {
		for d := range e.peers {
			if e.dirty[d] == nil {
				delete(e.peers, d)
				break
			}
		}
	}
	e.peers[dev] = p
}

func partyOf(r *wire.PrekeyRecord) ratchet.Party {
	return ratchet.Party{Account: r.Certificate.Account, Device: r.Certificate.Device, Identity: r.Agreement}
}

// learn takes in the record of a device: its signatures must hold, its number must rise, and the
// device's identity key must stay.
func (e *sealer) learn(ctx context.Context, raw []byte) (*wire.PrekeyRecord, error) {
	record, err := wire.ParsePrekeyRecord(raw)
	if err == nil {
		err = record.Verify()
	}
	if err == nil && !record.Current(e.s.cfg.Clock.Now()) {
		err = errors.New("it has expired: its owner's clock or ours is wrong")
	}
	if err != nil {
		return nil, fmt.Errorf("taking in prekeys: %w", err)
	}
	dev := record.Certificate.Device
	old, err := e.peer(ctx, dev)
	if err != nil {
		return nil, err
	}
	p := old
	if p == nil {
		p = &sealPeer{set: ratchet.NewSet(e.self, partyOf(record))}
	} else {
		switch {
		case partyOf(old.record) != partyOf(record):
			return nil, errors.New("taking in prekeys: the device's identity key changed")
		case record.Sequence < old.record.Sequence:
			return nil, errors.New("taking in prekeys: they are older than those known")
		case record.Sequence == old.record.Sequence:
			return old.record, nil // of two with one number the first stays
		}
	}
	next := *p
	next.record, next.raw = record, raw
	var b storage.Batch
	b.Put(bucketPeerKeys, dev[:], next.row())
	if _, err := e.s.store.Commit(ctx, &b, storage.Durable); err != nil {
		return nil, fmt.Errorf("storing prekeys: %w", e.s.storeError(err))
	}
	p.record, p.raw = record, raw
	e.keep(dev, p)
	return record, nil
}

// ready says whether seal can be called for a device: a session stands, or one can be begun.
func (e *sealer) ready(ctx context.Context, dev wire.DeviceID) (bool, error) {
	p, err := e.peer(ctx, dev)
	if err != nil || p == nil {
		return false, err
	}
	return p.live || p.restart != nil || p.record.Current(e.s.cfg.Clock.Now()), nil
}

// holds says whether what was sealed on a session can still be expected to open.
func (e *sealer) holds(dev wire.DeviceID, session ratchet.SessionID) bool {
	p := e.peers[dev]
	return p != nil && p.set.Holds(session)
}

// sealedCopy is one direct message as it was sealed for one device.
type sealedCopy struct {
	envelope []byte
	session  ratchet.SessionID
	// first says that the device may need this device's record to open it.
	first bool
}

// seal encrypts content for a device, on the session that stands or on a new one. errNoKeys says that
// the device's record is needed first.
func (e *sealer) seal(ctx context.Context, dev wire.DeviceID, content []byte) (sealedCopy, error) {
	p, err := e.peer(ctx, dev)
	if err != nil {
		return sealedCopy{}, err
	}
	if p == nil {
		return sealedCopy{}, errNoKeys
	}
	e.dirty[dev] = p
	envelope, session, err := p.set.Seal(e.s.cfg.Rand, content, nil)
	if errors.Is(err, ratchet.ErrNoSession) {
		if err = e.begin(dev, p, false); err == nil {
			envelope, session, err = p.set.Seal(e.s.cfg.Rand, content, nil)
		}
	}
	if err != nil {
		return sealedCopy{}, err
	}
	p.live = true
	h, err := ratchet.ReadHeader(envelope)
	return sealedCopy{envelope, session, h.Init}, err
}

// begin starts a session: with prefer from the prekey that the device gave us for that, and otherwise from
// its record, whichever can be had.
func (e *sealer) begin(dev wire.DeviceID, p *sealPeer, prefer bool) error {
	current := p.record.Current(e.s.cfg.Clock.Now())
	bundle := ratchet.Bundle{Owner: partyOf(p.record), PrekeyID: p.record.PrekeyID, Prekey: p.record.Prekey, KEM: p.record.KEM}
	useRestart := p.restart != nil && (prefer || !current)
	switch {
	case useRestart:
		bundle.PrekeyID, bundle.Prekey, bundle.KEM = p.restart.PrekeyID, p.restart.Prekey, p.restart.KEM
	case !current:
		return errNoKeys
	}
	e.dirty[dev] = p
	if _, err := p.set.Initiate(e.s.cfg.Rand, &e.secrets, &bundle); err != nil {
		return err
	}
	if useRestart {
		p.restart, p.changed = nil, true // good for one session
	}
	return nil
}

// open decrypts what a device sent; its record must be known.
func (e *sealer) open(ctx context.Context, dev wire.DeviceID, envelope []byte) (ratchet.Opened, error) {
	p, err := e.peer(ctx, dev)
	if err != nil {
		return ratchet.Opened{}, err
	}
	if p == nil {
		return ratchet.Opened{}, errNoKeys
	}
	opened, err := e.openWith(ctx, p.set, envelope)
	if err == nil {
		e.dirty[dev], p.live = p, true
	}
	return opened, err
}

// restart begins a new session with a device whose messages do not open, or that cannot open ours, at
// most once an hour. It says whether it did; something must then be sealed and sent, so that the device
// learns of it.
func (e *sealer) restart(ctx context.Context, dev wire.DeviceID) (bool, error) {
	p, err := e.peer(ctx, dev)
	now := e.s.cfg.Clock.Now()
	if err != nil || p == nil || !p.set.NeedsRestart() && p.refused < ratchet.FailuresBeforeRestart || now.Sub(p.restarted).Abs() < restartPause {
		return false, err
	}
	if err := e.begin(dev, p, true); err != nil {
		return false, err
	}
	p.restarted, p.changed, p.refused = now, true, 0
	return true, nil
}

// store adds the states that changed to the caller's transaction.
func (e *sealer) store(b *storage.Batch) {
	devices := slices.SortedFunc(maps.Keys(e.dirty), func(a, b wire.DeviceID) int { return bytes.Compare(a[:], b[:]) })
	for _, dev := range devices {
		p := e.dirty[dev]
		b.PutEphemeral(bucketSessions, dev[:], p.set.Marshal())
		if p.changed {
			b.Put(bucketPeerKeys, dev[:], p.row())
		}
	}
	for _, s := range e.spent {
		b.DeleteEphemeral(bucketPrekeys, prekeyKey(s.id))
		b.Delete(bucketHanded, s.account[:]) // a new one is handed over
	}
}

// committed says that the transaction of store is durable.
func (e *sealer) committed() {
	for _, p := range e.dirty {
		p.changed = false
	}
	clear(e.dirty)
	for _, s := range e.spent {
		if g := e.s.dialogs.find(s.account); g != nil {
			g.handed = nil
		}
	}
	e.spent = nil
}

// rollback throws the states away that were not stored; what is stored is read again.
func (e *sealer) rollback() {
	for dev := range e.dirty {
		delete(e.peers, dev)
	}
	clear(e.dirty)
	e.spent = nil
}
