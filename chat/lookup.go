package chat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// This file leaves this device's signed records in the network's lookup table and finds those of others
// there, so that somebody can be written to who is away and was never met (docs/spec/identity.md, section 4).

const (
	bucketLists = "devicelists" // account: the newest device list seen, as signed

	profileList = "devicelist" // the own device list, as signed

	// listUse is after how long the own device list is signed anew, and listLife how long one holds.
	listUse  = 7 * 24 * time.Hour
	listLife = 28 * 24 * time.Hour
	// putAgain is how often records are left again: who keeps them may have gone.
	putAgain = 8 * time.Hour
	// putTimeout bounds leaving or fetching one record.
	putTimeout = time.Minute
	// lookAgain is the least time between two look-ups of an account's records while all are held.
	lookAgain = time.Hour
)

// records returns the lookup table, or nil when the network has none.
func (s *Service) records() Records {
	r, _ := s.cfg.Directory.(Records)
	return r
}

// publishRecords keeps this device's records in the lookup table until ctx ends: when they change, and
// every few hours.
func (s *Service) publishRecords(ctx context.Context) {
	table := s.records()
	if table == nil {
		return
	}
	left := make(map[wire.RecordKey]time.Time) // when what lies there now was left
	held := make(map[wire.RecordKey][]byte)
	failures, next := 0, time.Time{}
	var looked time.Time
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		if now.Before(next) {
			continue
		}
		var err error
		for _, r := range s.ownRecords(ctx, table, &looked) {
			key, value := wire.EncodeLookup(r)
			if bytes.Equal(held[key], value) && now.Sub(left[key]) < s.spread(putAgain) {
				continue
			}
			pctx, cancel := context.WithTimeout(ctx, putTimeout)
			perr := table.PutRecord(pctx, key, value)
			cancel()
			if perr == nil {
				held[key], left[key] = value, now
			}
			err = errors.Join(err, perr)
		}
		s.left.Store(len(left) > 0)
		if err == nil {
			failures, next = 0, now.Add(retryPauses[1])
			continue
		}
		failures++
		next = now.Add(s.retryPause(failures + 1))
		if ctx.Err() == nil {
			s.log.Debug("leaving own records failed", "error", err)
		}
	}
}

// Away says how others can write to this device while it is away: how many mailboxes it has, and whether
// its records were left in the lookup table.
func (s *Service) Away() (mailboxes int, findable bool) { return int(s.boxes.Load()), s.left.Load() }

// ownRecords returns what this device has to say now: its prekeys and its account's device list.
func (s *Service) ownRecords(ctx context.Context, table Records, looked *time.Time) []*wire.LookupRecord {
	var raw []byte
	err := s.dialogs.do(ctx, func() error {
		raw = s.dialogs.sealer.own.Record
		return nil
	})
	if err != nil || len(raw) == 0 || s.disowned.Load() {
		return nil
	}
	var list []*wire.LookupRecord
	if r, err := wire.ParsePrekeyRecord(raw); err == nil {
		list = append(list, &wire.LookupRecord{Prekeys: r, Raw: raw})
	}
	own, err := s.ownList(ctx, table, looked)
	switch {
	case own != nil:
		list = append(list, own)
	case err != nil && ctx.Err() == nil:
		s.log.Warn("making the own device list failed", "error", err)
	}
	return list
}

// ownList returns the account's device list, signed anew when it is a week old. Devices of the account
// that others of it have listed stay, as long as they renew their own records: a device that is lost falls
// out by itself. looked is when the list that lies in the table was looked at last.
func (s *Service) ownList(ctx context.Context, table Records, looked *time.Time) (*wire.LookupRecord, error) {
	if s.cfg.SignDeviceList == nil {
		return nil, nil
	}
	now := s.cfg.Clock.Now()
	cert, err := s.certificate(now)
	if err != nil {
		return nil, err
	}
	old, err := s.heldList(ctx)
	if err != nil {
		return nil, err
	}
	fresh := false
	if old != nil {
		age := now.Sub(old.DeviceList.Issued)
		mine := slices.ContainsFunc(old.DeviceList.Devices, func(c wire.Certificate) bool { return c.Signature == cert.Signature })
		fresh = mine && age < listUse && age > -listUse
	}
	if fresh && now.Sub(*looked).Abs() < s.spread(putAgain) {
		return old, nil
	}
	// What other devices of the account say: that there are such, and which are revoked.
	*looked = now
	listed := fetch(ctx, table, wire.DeviceListKey(s.self.account), now)
	switch {
	case listed != nil && slices.Contains(listed.DeviceList.Revoked, s.self.device):
		if !s.disowned.Swap(true) {
			s.log.Warn("this device was revoked by another one of the account: nobody takes anything from it any more")
		}
		return nil, nil
	case fresh && (listed == nil || listed.Sequence() <= old.Sequence()):
		return old, nil
	}
	lives := make(map[wire.DeviceID]bool)
	for _, before := range []*wire.LookupRecord{old, listed} {
		if before == nil {
			continue
		}
		for _, c := range before.DeviceList.Devices {
			lives[c.Device] = lives[c.Device] || fetch(ctx, table, wire.PrekeysKey(c.Device), now) != nil
		}
	}
	s.listMu.Lock()
	defer s.listMu.Unlock()
	if old, err = s.heldList(ctx); err != nil {
		return nil, err
	}
	l := newList(now, cert)
	for _, before := range []*wire.LookupRecord{old, listed} {
		if before != nil {
			s.takeOver(l, before, func(dev wire.DeviceID) bool { return lives[dev] })
		}
	}
	return s.signList(ctx, l)
}

// heldList returns the own device list as it was signed last, or nil.
func (s *Service) heldList(ctx context.Context) (*wire.LookupRecord, error) {
	raw, err := s.store.GetBucket(ctx, bucketProfile, []byte(profileList))
	if errors.Is(err, storage.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	l, err := wire.ParseDeviceList(raw)
	if err != nil {
		return nil, fmt.Errorf("reading the own device list: %w", err)
	}
	return &wire.LookupRecord{DeviceList: l, Raw: raw}, nil
}

// fetch looks a record up and checks it; nil when nobody has a good one.
func fetch(ctx context.Context, table Records, key wire.RecordKey, now time.Time) *wire.LookupRecord {
	ctx, cancel := context.WithTimeout(ctx, putTimeout)
	defer cancel()
	value, err := table.GetRecord(ctx, key)
	if err != nil {
		return nil
	}
	r, err := wire.CheckLookup(key, value, now)
	if err != nil {
		return nil
	}
	return r
}

// lookUp fetches the records of an account that is away, if some are missing or name no mailbox, or an hour has passed. For
// the owner only; the answer comes later.
func (d *dialogs) lookUp(ctx context.Context, g *dialog) {
	table := d.s.records()
	if table == nil || g.looking {
		return
	}
	now := time.Now()
	devices := d.s.people.devicesOf(g.account)
	missing := len(devices) == 0
	for _, dev := range devices {
		p, err := d.sealer.peer(ctx, dev)
		missing = missing || err == nil && (p == nil || len(p.record.Mailboxes) == 0 || !p.record.Current(d.s.cfg.Clock.Now()))
	}
	if pause := now.Sub(g.looked); !g.looked.IsZero() && pause < lookAgain && !(missing && pause >= retryPauses[0]) {
		return
	}
	g.looking, g.looked = true, now
	d.s.running.Go(func() { // ends with ctx or the look-ups' time-outs; Run waits for it
		list, found := d.s.recordsOf(ctx, table, g.account, devices)
		d.later(func() {
			g.looking = false
			d.found(ctx, g, list, found)
		})
	})
}

// recordsOf fetches an account's device list, and the prekeys of the devices it names and of those known.
func (s *Service) recordsOf(ctx context.Context, table Records, account wire.AccountID, devices []wire.DeviceID) (list *wire.LookupRecord, found []*wire.LookupRecord) {
	now := s.cfg.Clock.Now()
	if list = fetch(ctx, table, wire.DeviceListKey(account), now); list != nil {
		for _, c := range list.DeviceList.Devices {
			if !slices.Contains(devices, c.Device) {
				devices = append(devices, c.Device)
			}
		}
		devices = slices.DeleteFunc(devices, func(dev wire.DeviceID) bool { return slices.Contains(list.DeviceList.Revoked, dev) })
	}
	for _, dev := range devices[:min(len(devices), wire.MaxDevices)] {
		if r := fetch(ctx, table, wire.PrekeysKey(dev), now); r != nil && r.Prekeys.Certificate.Account == account {
			found = append(found, r)
		}
	}
	return list, found
}

// found takes in the records of an account that were looked up, and goes on with what waits for it.
func (d *dialogs) found(ctx context.Context, g *dialog, list *wire.LookupRecord, records []*wire.LookupRecord) {
	if list != nil {
		if err := d.takeList(ctx, list); err != nil && ctx.Err() == nil {
			d.s.log.Debug("a device list was not taken", "error", err)
		}
	}
	news := false
	for _, r := range records {
		dev := r.Prekeys.Certificate.Device
		if d.s.people.revoked(dev) {
			continue
		}
		before, err := d.sealer.peer(ctx, dev)
		if err == nil {
			_, err = d.sealer.learn(ctx, r.Raw)
		}
		if err != nil {
			d.s.log.Debug("prekeys that were looked up were not taken", "error", err)
			continue
		}
		news = news || before == nil || before.record.Signature != r.Prekeys.Signature
		d.s.people.device(g.account, dev)
	}
	d.noticeDevices(ctx, g)
	if !news {
		return
	}
	d.unpark(ctx, g.account)
	if !g.unreached {
		g.nextKnock = time.Time{} // its devices may be known only now
		d.pump(ctx, g)
		return
	}
	for _, o := range g.out {
		if o.row.State != StateStored && o.row.State != StateFailed {
			o.next = time.Time{}
		}
	}
	d.mail(ctx, g)
}

// takeList takes in an account's device list: its number must not fall, and a device that it revokes
// speaks for nobody from now on.
func (d *dialogs) takeList(ctx context.Context, r *wire.LookupRecord) error {
	l := r.DeviceList
	if l.Account == d.s.self.account {
		return nil
	}
	raw, err := d.s.store.GetBucket(ctx, bucketLists, l.Account[:])
	switch {
	case errors.Is(err, storage.ErrNotFound):
	case err != nil:
		return err
	default:
		old, err := wire.ParseDeviceList(raw)
		if err != nil {
			return fmt.Errorf("reading a stored device list: %w", err)
		}
		if l.Sequence <= old.Sequence {
			return nil
		}
	}
	var b storage.Batch
	b.Put(bucketLists, l.Account[:], r.Raw)
	var news []wire.DeviceID
	for _, dev := range l.Revoked {
		d.sealer.forget(&b, dev)
		if account, ok := d.s.people.account(dev); ok && account == l.Account {
			news = append(news, dev)
		}
	}
	after := d.s.revokedRows(&b, l)
	if _, err := d.s.store.Commit(ctx, &b, storage.Durable); err != nil {
		return fmt.Errorf("storing a device list: %w", d.s.storeError(err))
	}
	after()
	d.noticeRevoked(ctx, l.Account, news)
	for i := range l.Devices {
		d.s.people.device(l.Account, l.Devices[i].Device)
	}
	return nil
}

// unpark takes what waited for the records of an account's devices.
func (d *dialogs) unpark(ctx context.Context, account wire.AccountID) {
	for _, dev := range d.s.people.devicesOf(account) {
		if waiting := d.pending[dev]; waiting != nil {
			delete(d.pending, dev)
			d.takeFrames(ctx, waiting)
		}
	}
}

// noticeDevices says in the conversation that a contact has a device that was not seen before.
func (d *dialogs) noticeDevices(ctx context.Context, g *dialog) {
	row := d.s.people.contact(g.account)
	if row == nil {
		return
	}
	in := d.newReceiving()
	if d.newDevices(ctx, in, g.account, row) {
		in.people[g.account] = row
		d.keepTaken(ctx, in)
	}
}

// noticeRevoked says in the conversation with a contact that devices of theirs are none any more.
func (d *dialogs) noticeRevoked(ctx context.Context, account wire.AccountID, devices []wire.DeviceID) {
	row := d.s.people.contact(account)
	if row == nil || row.State != ContactFriend || len(devices) == 0 {
		return
	}
	in := d.newReceiving()
	g, err := d.with(ctx, account)
	for _, dev := range devices {
		if err == nil {
			err = d.notice(ctx, &in.batch, in.lines, g, fmt.Sprintf("%s revoked a device (%s). Nothing is sent to it or taken from it any more.", d.s.nick(account).Nick, shortDevice(dev)))
		}
	}
	if err != nil {
		d.s.log.Warn("noting a revoked device failed", "error", err)
		return
	}
	in.people[account] = row
	d.keepTaken(ctx, in)
}

// newDevices adds a line to the conversation with a contact for each device that the user was not told of
// yet, and says whether there are such. The first device of a contact is no news.
func (d *dialogs) newDevices(ctx context.Context, in *receiving, account wire.AccountID, row *contactRow) bool {
	news := false
	first := len(row.Told) == 0
	for _, dev := range d.s.people.devicesOf(account) {
		if slices.Contains(row.Told, dev) {
			continue
		}
		news = true
		row.Told = append(slices.Clone(row.Told), dev)
		if first || row.State != ContactFriend && row.State != ContactAsked {
			continue
		}
		g, err := d.with(ctx, account)
		if err == nil {
			err = d.notice(ctx, &in.batch, in.lines, g, fmt.Sprintf("%s uses a new device (%s). Their account key is the same.", d.s.nick(account).Nick, shortDevice(dev)))
		}
		if err != nil && ctx.Err() == nil {
			d.s.log.Warn("noting a new device failed", "error", err)
		}
	}
	return news
}

// shortDevice is the end of a device's id, as people see it: enough to tell two apart.
func shortDevice(dev wire.DeviceID) string {
	text := dev.String()
	return text[len(text)-8:]
}
