package chat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// This file is about devices that their account took the word from: the user's own, and those of others
// (docs/spec/identity.md, section 4).

// bucketRevoked holds the devices that their account revoked: device: revokedRow.
const bucketRevoked = "revoked"

const (
	// askTable bounds how long revoking a device looks for what other devices of the account listed.
	askTable = 10 * time.Second
	// shortID is how many characters of the end of a device's id may name it.
	shortID = 8
)

// revokedRow says whose a revoked device was. It stays although later lists leave the device out.
type revokedRow struct {
	Version int            `json:"v"`
	Account wire.AccountID `json:"account"`
	At      time.Time      `json:"at"` // not after it became known here
}

// OwnDevice is a device of this user's account.
type OwnDevice struct {
	Device  wire.DeviceID
	Here    bool // the one this is
	Revoked bool // it speaks for nobody any more
	Path    Path // how it is connected
}

// Devices returns the devices of this user's account that are known here: this one first, revoked ones last.
func (s *Service) Devices(ctx context.Context) ([]OwnDevice, error) {
	held, err := s.heldList(ctx)
	if err != nil {
		return nil, err
	}
	ids := append([]wire.DeviceID{s.self.device}, s.people.devicesOf(s.self.account)...)
	if held != nil {
		for i := range held.DeviceList.Devices {
			ids = append(ids, held.DeviceList.Devices[i].Device)
		}
		ids = append(ids, held.DeviceList.Revoked...)
	}
	for kv, err := range s.store.ScanBucket(ctx, bucketRevoked, nil) {
		if err != nil {
			return nil, err
		}
		row, err := decodeRow[revokedRow]("revoked device", kv.Value)
		if err != nil {
			return nil, err
		}
		if row.Account == s.self.account {
			ids = append(ids, wire.DeviceID(kv.Key))
		}
	}
	slices.SortFunc(ids, func(a, b wire.DeviceID) int { return bytes.Compare(a[:], b[:]) })
	ids = slices.Compact(ids)
	list := make([]OwnDevice, 0, len(ids))
	for _, id := range ids {
		list = append(list, OwnDevice{Device: id, Here: id == s.self.device, Revoked: s.people.revoked(id), Path: s.people.online(id)})
	}
	rank := func(d OwnDevice) int {
		switch {
		case d.Here:
			return 0
		case d.Revoked:
			return 2
		}
		return 1
	}
	slices.SortStableFunc(list, func(a, b OwnDevice) int { return rank(a) - rank(b) })
	return list, nil
}

// Revoked says whether another device of the account took this one's word back.
func (s *Service) Revoked() bool { return s.disowned.Load() }

// ownDevice finds one of the account's devices by its id or the end of it. An id in full need not be known:
// the device may have been gone for long.
func (s *Service) ownDevice(ctx context.Context, name string) (wire.DeviceID, error) {
	if id, err := wire.ParseDeviceID(name); err == nil {
		return id, nil
	}
	list, err := s.Devices(ctx)
	if err != nil {
		return wire.DeviceID{}, err
	}
	var found []wire.DeviceID
	for _, d := range list {
		if len(name) >= shortID && strings.HasSuffix(d.Device.String(), name) {
			found = append(found, d.Device)
		}
	}
	if len(found) != 1 {
		return wire.DeviceID{}, fmt.Errorf("no device of yours is called %.80q: %w", name, ErrNotFound)
	}
	return found[0], nil
}

// RevokeDevice takes a device of this user's account out of it, for good: a new device list says so, which
// contacts and members are sent and the lookup table gets. From then on they seal nothing for the device and
// take nothing from it, and private rooms get another key. It is idempotent.
func (s *Service) RevokeDevice(ctx context.Context, name string) error {
	dev, err := s.ownDevice(ctx, name)
	switch {
	case err != nil:
		return err
	case dev == s.self.device:
		return fmt.Errorf("%w: that is the device you are on; revoke it from another one", ErrBadRequest)
	case s.disowned.Load():
		return fmt.Errorf("%w: this device was revoked itself", ErrDenied)
	case s.cfg.SignDeviceList == nil:
		return fmt.Errorf("%w: the account's key is not here", ErrDenied)
	}
	if owner, ok := s.people.account(dev); ok && owner != s.self.account {
		return fmt.Errorf("%w: that is a device of %s", ErrDenied, s.nick(owner).Nick)
	}
	var listed *wire.LookupRecord
	if table := s.records(); table != nil {
		tctx, cancel := context.WithTimeout(ctx, askTable)
		listed = fetch(tctx, table, wire.DeviceListKey(s.self.account), s.cfg.Clock.Now())
		cancel()
	}
	if err := s.signRevocation(ctx, dev, listed); err != nil {
		return err
	}
	s.warden.poke()
	return s.dialogs.do(ctx, func() error {
		s.dialogs.tellRecords(ctx)
		return nil
	})
}

// signRevocation makes the device list that revokes a device, and keeps it.
func (s *Service) signRevocation(ctx context.Context, dev wire.DeviceID, listed *wire.LookupRecord) error {
	s.listMu.Lock()
	defer s.listMu.Unlock()
	held, err := s.heldList(ctx)
	if err != nil {
		return err
	}
	now := s.cfg.Clock.Now()
	cert, err := s.certificate(now)
	if err != nil {
		return err
	}
	l := newList(now, cert)
	if l.Revoked = []wire.DeviceID{dev}; held != nil && slices.Contains(held.DeviceList.Revoked, dev) {
		return nil
	}
	for _, before := range []*wire.LookupRecord{held, listed} {
		if before != nil {
			s.takeOver(l, before, func(wire.DeviceID) bool { return true })
		}
	}
	_, err = s.signList(ctx, l)
	return err
}

// newList begins a device list of the own account with this device's certificate.
func newList(now time.Time, cert wire.Certificate) *wire.DeviceList {
	return &wire.DeviceList{Sequence: uint64(now.UnixMilli()), Issued: now, Expires: now.Add(listLife), Devices: []wire.Certificate{cert}}
}

// takeOver takes over what an earlier list of the own account says of other devices: all that are revoked,
// and of those listed the ones that live.
func (s *Service) takeOver(l *wire.DeviceList, before *wire.LookupRecord, lives func(wire.DeviceID) bool) {
	l.Sequence = max(l.Sequence, before.Sequence()+1)
	for _, dev := range before.DeviceList.Revoked {
		if dev != s.self.device && !slices.Contains(l.Revoked, dev) && len(l.Revoked) < wire.MaxDevices {
			l.Revoked = append(l.Revoked, dev)
		}
	}
	l.Devices = slices.DeleteFunc(l.Devices, func(c wire.Certificate) bool { return slices.Contains(l.Revoked, c.Device) })
	for _, c := range before.DeviceList.Devices {
		known := slices.ContainsFunc(l.Devices, func(k wire.Certificate) bool { return k.Device == c.Device })
		if !known && len(l.Devices) < wire.MaxDevices && !slices.Contains(l.Revoked, c.Device) && lives(c.Device) {
			l.Devices = append(l.Devices, c)
		}
	}
}

// signList signs a list of the own account and keeps it. listMu is held.
func (s *Service) signList(ctx context.Context, l *wire.DeviceList) (*wire.LookupRecord, error) {
	slices.SortFunc(l.Devices, func(a, b wire.Certificate) int { return bytes.Compare(a.Device[:], b.Device[:]) })
	slices.SortFunc(l.Revoked, func(a, b wire.DeviceID) int { return bytes.Compare(a[:], b[:]) })
	raw, err := s.cfg.SignDeviceList(l)
	if err != nil {
		return nil, err
	}
	var b storage.Batch
	b.Put(bucketProfile, []byte(profileList), raw)
	after := s.revokedRows(&b, l)
	if _, err := s.store.Commit(ctx, &b, storage.Durable); err != nil {
		return nil, fmt.Errorf("storing the own device list: %w", s.storeError(err))
	}
	after()
	return &wire.LookupRecord{DeviceList: l, Raw: raw}, nil
}

// revokedRows adds to a batch what a list newly revokes; after does it in memory once that is stored.
func (s *Service) revokedRows(b *storage.Batch, l *wire.DeviceList) (after func()) {
	at := s.cfg.Clock.Now()
	if l.Issued.Before(at) {
		at = l.Issued
	}
	var fresh []wire.DeviceID
	for _, dev := range l.Revoked {
		if !s.people.revoked(dev) {
			fresh = append(fresh, dev)
			b.Put(bucketRevoked, dev[:], encodeRow(revokedRow{rowVersion, l.Account, at}))
		}
	}
	return func() {
		for _, dev := range fresh {
			s.people.revoke(dev, l.Account, at)
		}
		if len(fresh) > 0 {
			s.warden.poke()
		}
	}
}

// tellRecords sends the own records to all contacts, and to the members of the private rooms that this user is
// in: a device was revoked, and they are not to trust it until they happen to look. For the owner.
func (d *dialogs) tellRecords(ctx context.Context) {
	who := make(map[wire.AccountID]bool)
	for account, row := range d.s.people.list() {
		if row.State == ContactFriend && row.Trust != TrustChanged {
			who[account] = true
		}
	}
	for _, r := range d.s.joinedRooms() {
		if !r.private {
			continue
		}
		for account := range r.members().Members {
			if row := d.s.people.contact(account); account != d.s.self.account && (row == nil || row.State != ContactBlocked) {
				who[account] = true
			}
		}
	}
	body, err := d.recordsBody(ctx, nil)
	for account := range who {
		if err == nil {
			err = d.whisperBody(ctx, account, wire.DMRecords, body)
		}
	}
	if err != nil && ctx.Err() == nil {
		d.s.log.Warn("telling of a revoked device failed", "error", err)
	}
}

// loadRevoked reads which devices were revoked. Rows of earlier versions lie in the lists alone.
func (p *people) loadRevoked(ctx context.Context) error {
	for kv, err := range p.store.ScanBucket(ctx, bucketRevoked, nil) {
		if err != nil {
			return fmt.Errorf("reading revoked devices: %w", err)
		}
		row, err := decodeRow[revokedRow]("revoked device", kv.Value)
		if err != nil {
			return err
		}
		if len(kv.Key) != len(wire.DeviceID{}) {
			return fmt.Errorf("reading revoked devices: %w", storage.ErrCorrupt)
		}
		p.revoke(wire.DeviceID(kv.Key), row.Account, row.At)
	}
	for kv, err := range p.store.ScanBucket(ctx, bucketLists, nil) {
		if err != nil {
			return fmt.Errorf("reading device lists: %w", err)
		}
		l, err := wire.ParseDeviceList(kv.Value)
		if err != nil {
			return fmt.Errorf("reading a stored device list: %w", err)
		}
		for _, dev := range l.Revoked {
			if !p.revoked(dev) {
				p.revoke(dev, l.Account, l.Issued)
			}
		}
	}
	return nil
}

// revoke makes a device speak for nobody, now and later.
func (p *people) revoke(dev wire.DeviceID, account wire.AccountID, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone[dev] = revoked{account, at}
	if account, ok := p.devices[dev]; ok {
		delete(p.devices, dev)
		p.accounts[account] = slices.DeleteFunc(slices.Clone(p.accounts[account]), func(d wire.DeviceID) bool { return d == dev })
	}
}

// revoked is a device that speaks for nobody.
type revoked struct {
	account wire.AccountID
	at      time.Time
}

// revoked says whether a device's account took its word back.
func (p *people) revoked(dev wire.DeviceID) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	_, ok := p.gone[dev]
	return ok
}

// revokedBy says whether a device's account had taken its word back by a time.
func (p *people) revokedBy(dev wire.DeviceID, at time.Time) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	r, ok := p.gone[dev]
	return ok && at.After(r.at)
}

// lostSince says whether an account that fits revoked a device after a time.
func (p *people) lostSince(at time.Time, fits func(wire.AccountID) bool) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	for _, r := range p.gone {
		if r.at.After(at) && fits(r.account) {
			return true
		}
	}
	return false
}

// errRevoked says that a device speaks for nobody any more.
var errRevoked = errors.New("the device was revoked by its account")
