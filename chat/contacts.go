package chat

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/starling-chat/starling/chat/identity"
	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// storeContact stores a contact's row and shows it.
func (s *Service) storeContact(ctx context.Context, account wire.AccountID, row *contactRow) error {
	var b storage.Batch
	commit := s.people.putContact(&b, account, row)
	if _, err := s.store.Commit(ctx, &b, storage.Durable); err != nil {
		return fmt.Errorf("storing a contact: %w", s.storeError(err))
	}
	commit()
	s.showContact(account)
	return nil
}

// showContact tells the subscribers how a contact stands.
func (s *Service) showContact(account wire.AccountID) {
	c := s.contactView(account)
	s.events.publish(Event{Type: EventContact, Contact: &c})
}

// contactView returns a contact as front-ends see it; of somebody who is none the state is empty.
func (s *Service) contactView(account wire.AccountID) Contact {
	c := Contact{Account: account, Fingerprint: wire.Fingerprint(account), Trust: TrustUnverified, Path: s.people.pathTo(account)}
	c.Devices = s.people.devicesOf(account)
	c.Nick = s.people.claimed(account)
	if c.Nick == "" {
		c.Nick = s.nickInRooms(account)
	}
	if c.Nick == "" {
		c.Nick = c.Fingerprint
	}
	if row := s.people.contact(account); row != nil {
		c.Petname, c.State, c.Trust, c.LastSeen = row.Petname, row.State, row.Trust, row.LastSeen
		c.Instead, c.Wants = row.Instead, row.Wants
	}
	return c
}

// Contacts lists contacts, requests and blocked accounts, by name.
func (s *Service) Contacts(context.Context) ([]Contact, error) {
	var list []Contact
	for account := range s.people.list() {
		list = append(list, s.contactView(account))
	}
	name := func(c Contact) string {
		if c.Petname != "" {
			return foldNick(c.Petname)
		}
		return foldNick(c.Nick)
	}
	slices.SortFunc(list, func(a, b Contact) int {
		if c := strings.Compare(name(a), name(b)); c != 0 {
			return c
		}
		return bytes.Compare(a.Account[:], b.Account[:])
	})
	return list, nil
}

// AddContact adds somebody by account id, contact link or nick. Adding a contact again changes its
// petname only.
func (s *Service) AddContact(ctx context.Context, who, petname string) (Contact, error) {
	if err := checkPetname(petname); err != nil {
		return Contact{}, err
	}
	account, addrs, err := s.whoIs(who)
	if err != nil {
		return Contact{}, err
	}
	if account == s.self.account {
		return Contact{}, fmt.Errorf("%w: that is your own account", ErrBadRequest)
	}
	if err := s.freePetname(petname, account); err != nil {
		known, ok := s.people.verifiedAs(petname, account)
		if !ok || foldNick(s.people.petname(known)) != foldNick(petname) {
			return Contact{}, err
		}
		err = s.dialogs.do(ctx, func() error { return s.reclaim(ctx, petname, known, account) })
		return s.contactView(account), err
	}
	err = s.dialogs.do(ctx, func() error {
		row := s.people.contact(account)
		switch {
		case row == nil:
			row = &contactRow{State: ContactAsked, Added: s.cfg.Clock.Now(), Nick: s.people.claimed(account)}
			row.Told = s.people.devicesOf(account) // those are no news; every other one is
		case row.State == ContactRequest:
			if err := s.dialogs.welcome(ctx, account, row); err != nil {
				return err
			}
		case row.State == ContactBlocked:
			return ErrBlocked
		}
		if petname != "" {
			row.Petname = petname
		}
		if len(addrs) > 0 {
			row.Addrs = addrs
		}
		return s.storeContact(ctx, account, row)
	})
	return s.contactView(account), err
}

// pasted takes out of a link what was put in when it was copied off a screen or out of a mail: the breaks of
// lines. A link has no white space.
func pasted(text string) string {
	if !strings.HasPrefix(strings.TrimSpace(text), "starling:") {
		return text
	}
	return strings.Join(strings.Fields(text), "")
}

// whoIs finds an account from an id, a contact link or a name, with the addresses that a link carries.
func (s *Service) whoIs(who string) (wire.AccountID, []string, error) {
	if who = pasted(who); strings.HasPrefix(who, "starling:") {
		link, err := wire.ParseLink(who)
		if err != nil {
			return wire.AccountID{}, nil, fmt.Errorf("%w: %w", ErrBadRequest, err)
		}
		l, ok := link.(*wire.ContactLink)
		if !ok {
			return wire.AccountID{}, nil, fmt.Errorf("%w: the link is not a contact's", ErrBadRequest)
		}
		if err := l.Verify(); err != nil {
			return wire.AccountID{}, nil, fmt.Errorf("%w: %w", ErrBadRequest, err)
		}
		account := l.Certificate.Account
		s.people.device(account, l.Certificate.Device)
		s.people.greeted(account, l.Nick)
		s.cfg.Direct.Hint(l.Certificate.Device, l.Addresses)
		return account, l.Addresses, nil
	}
	account, err := s.resolvePerson(strings.TrimPrefix(who, "@"))
	return account, nil, err
}

// freePetname says whether another contact has a petname already.
func (s *Service) freePetname(petname string, account wire.AccountID) error {
	for id, c := range s.people.list() {
		if petname != "" && id != account && foldNick(c.Petname) == foldNick(petname) {
			return fmt.Errorf("%w: another contact is called %q", ErrConflict, petname)
		}
	}
	return nil
}

// SetContact does something to a contact, named as in [Service.Resolve] without or with '@'.
func (s *Service) SetContact(ctx context.Context, who, action, petname string) (Contact, error) {
	account, _, err := s.whoIs(who)
	if err != nil {
		return Contact{}, err
	}
	if account == s.self.account {
		return Contact{}, fmt.Errorf("%w: that is your own account", ErrBadRequest)
	}
	err = s.dialogs.do(ctx, func() error { return s.setContact(ctx, account, action, petname) })
	return s.contactView(account), err
}

func (s *Service) setContact(ctx context.Context, account wire.AccountID, action, petname string) error {
	row := s.people.contact(account)
	if row == nil && action != ContactBlock {
		return fmt.Errorf("contact: %w", ErrNotFound)
	}
	switch action {
	case ContactAccept:
		changed := row.Trust == TrustChanged
		if changed {
			if err := s.takeKey(ctx, account, row, TrustUnverified); err != nil {
				return err
			}
		}
		if changed && row.State != ContactRequest {
			break
		}
		if row.State != ContactRequest {
			return fmt.Errorf("%w: there is no request to accept", ErrConflict)
		}
		if err := s.dialogs.welcome(ctx, account, row); err != nil {
			return err
		}
	case ContactReject:
		if row.State != ContactRequest {
			return fmt.Errorf("%w: there is no request to reject", ErrConflict)
		}
		if err := s.dropKey(ctx, row); err != nil {
			return err
		}
		return s.forget(ctx, account)
	case ContactRename:
		if err := errors.Join(checkPetname(petname), s.freePetname(petname, account)); err != nil {
			return err
		}
		row.Petname = petname
	case ContactBlock:
		if row == nil {
			row = &contactRow{Added: s.cfg.Clock.Now()}
		}
		if row.State == ContactBlocked {
			return nil
		}
		if err := s.dropKey(ctx, row); err != nil {
			return err
		}
		row.Before, row.State = row.State, ContactBlocked
		s.dialogs.cancelAll(ctx, account)
	case ContactUnblock:
		if row.State != ContactBlocked {
			return fmt.Errorf("%w: the account is not blocked", ErrConflict)
		}
		if row.Before == "" {
			return s.storeContact(ctx, account, nil)
		}
		row.State, row.Before = row.Before, ""
	case ContactRemove:
		if err := s.dropKey(ctx, row); err != nil {
			return err
		}
		s.dialogs.cancelAll(ctx, account)
		return s.storeContact(ctx, account, nil)
	default:
		return fmt.Errorf("%w: unknown action %.40q", ErrBadRequest, action)
	}
	return s.storeContact(ctx, account, row)
}

// forget drops a rejected request with its messages.
func (s *Service) forget(ctx context.Context, account wire.AccountID) error {
	d := s.dialogs
	if g := d.find(account); g != nil {
		var b storage.Batch
		b.Delete(bucketDialogs, account[:])
		if _, err := s.store.Commit(ctx, &b, storage.Durable); err != nil {
			return s.storeError(err)
		}
		if err := s.store.DropStream(ctx, g.stream); err != nil {
			return s.storeError(err)
		}
		d.mu.Lock()
		delete(d.byAccount, account)
		delete(d.byStream, g.stream)
		d.mu.Unlock()
	}
	return s.storeContact(ctx, account, nil)
}

// welcome accepts a stranger: their first messages are acknowledged, and they are told.
func (d *dialogs) welcome(ctx context.Context, account wire.AccountID, row *contactRow) error {
	row.State, row.Messages, row.Bytes = ContactFriend, 0, 0
	if err := d.s.storeContact(ctx, account, row); err != nil {
		return err
	}
	d.acknowledgeAll(account)
	return d.whisper(ctx, account, wire.DMAccept)
}

// cancelAll takes everything for an account out of the outbox.
func (d *dialogs) cancelAll(ctx context.Context, account wire.AccountID) {
	g := d.find(account)
	if g == nil {
		return
	}
	for _, o := range slices.Clone(g.out) {
		if err := d.outboxAction(ctx, g, o, OutboxCancel); err != nil {
			d.s.log.Warn("cancelling a message failed", "error", err)
		}
	}
}

// Verification returns what the user and somebody else compare to know that nobody sits between them.
func (s *Service) Verification(_ context.Context, who string) (Verification, error) {
	account, _, err := s.whoIs(who)
	if err != nil {
		return Verification{}, err
	}
	if account == s.self.account {
		return Verification{}, fmt.Errorf("%w: that is your own account", ErrBadRequest)
	}
	number := identity.NewSafetyNumber(s.self.account, account)
	v := Verification{
		Account: account, Nick: s.nick(account).Nick, SafetyNumber: number.String(), QR: number.QRText(), Trust: TrustUnverified,
	}
	if row := s.people.contact(account); row != nil {
		v.Trust = row.Trust
	}
	return v, nil
}

// SetTrust notes whether a contact's key was compared. Somebody who is no contact becomes one that was
// asked.
func (s *Service) SetTrust(ctx context.Context, who string, trust Trust) (Contact, error) {
	if trust != TrustUnverified && trust != TrustVerified {
		return Contact{}, fmt.Errorf("%w: trust is %q or %q", ErrBadRequest, TrustUnverified, TrustVerified)
	}
	account, _, err := s.whoIs(who)
	if err != nil {
		return Contact{}, err
	}
	if account == s.self.account {
		return Contact{}, fmt.Errorf("%w: that is your own account", ErrBadRequest)
	}
	err = s.dialogs.do(ctx, func() error {
		row := s.people.contact(account)
		if row == nil {
			row = &contactRow{State: ContactAsked, Added: s.cfg.Clock.Now()}
		}
		if row.Trust == TrustChanged {
			if err := s.takeKey(ctx, account, row, trust); err != nil {
				return err
			}
		}
		row.Trust = trust
		return s.storeContact(ctx, account, row)
	})
	return s.contactView(account), err
}

// bucketInvites holds the links that were made: id: inviteRow.
const bucketInvites = "invites"

// inviteRow is a link that was handed out.
type inviteRow struct {
	Version int       `json:"v"`
	Link    string    `json:"link"`
	Target  string    `json:"target,omitempty"`
	Expires time.Time `json:"expires"`
	// Of an invite into a private room.
	Room    wire.RoomID      `json:"room,omitzero"`
	Token   wire.InviteToken `json:"token,omitzero"`
	OneTime bool             `json:"one_time,omitempty"`
}

// defaultInvite is how long a link is listed.
const defaultInvite = 7 * 24 * time.Hour

// Invites lists the links that were made and have not expired, by id.
func (s *Service) Invites(ctx context.Context) ([]Invite, error) {
	var list []Invite
	for kv, err := range s.store.ScanBucket(ctx, bucketInvites, nil) {
		if err != nil {
			return nil, err
		}
		row, err := decodeRow[inviteRow]("invite", kv.Value)
		if err != nil {
			return nil, err
		}
		if s.cfg.Clock.Now().Before(row.Expires) {
			list = append(list, s.inviteView(kv.Key, row))
		}
	}
	return list, nil
}

// CreateInvite makes an invite into a private room, a link to a public one, or, with a zero target, a
// link to this account. The latter two name what is public: they cannot be limited to one use, nor be
// taken back from who has them.
func (s *Service) CreateInvite(ctx context.Context, req InviteRequest) (Invite, error) {
	if req.Expiry <= 0 {
		req.Expiry = defaultInvite
	}
	if req.Target.Room != nil {
		r, err := s.joinedRoom(*req.Target.Room)
		if err != nil {
			return Invite{}, err
		}
		if r.private {
			return s.inviteRoom(ctx, r, req)
		}
	}
	if req.OneTime {
		return Invite{}, fmt.Errorf("%w: a link to a public room or a contact cannot be limited to one use", ErrBadRequest)
	}
	row := inviteRow{Version: rowVersion, Expires: s.cfg.Clock.Now().Add(req.Expiry).UTC()}
	switch {
	case req.Target.Room != nil:
		r, err := s.joinedRoom(*req.Target.Room)
		if err != nil {
			return Invite{}, err
		}
		link := wire.RoomLink{
			Name: r.name(), Network: s.cfg.Network, Password: r.access() == AccessPassword, Addresses: linkAddresses(s.cfg.Addrs()),
		}
		if row.Link, err = link.Text(); err != nil {
			return Invite{}, fmt.Errorf("making a link: %w", err)
		}
		row.Target = "#" + r.name()
	case req.Target.Account != nil:
		return Invite{}, fmt.Errorf("%w: links lead to rooms or to this account", ErrBadRequest)
	default:
		if row.Link = s.Me().Link; row.Link == "" {
			return Invite{}, errors.New("making the own contact link failed")
		}
	}
	id := sha256.Sum256([]byte(row.Link))
	var b storage.Batch
	b.Put(bucketInvites, id[:8], encodeRow(row))
	if _, err := s.store.Commit(ctx, &b, storage.Durable); err != nil {
		return Invite{}, fmt.Errorf("storing a link: %w", s.storeError(err))
	}
	return Invite{ID: hex.EncodeToString(id[:8]), Link: row.Link, Target: row.Target, ExpiresAt: row.Expires}, nil
}

// RevokeInvite takes a link off the list. An invite into a private room lets nobody in any more.
func (s *Service) RevokeInvite(ctx context.Context, id string) error {
	key, err := hex.DecodeString(id)
	if err != nil || len(key) != 8 {
		return fmt.Errorf("link %.40q: %w", id, ErrNotFound)
	}
	stored, err := s.store.GetBucket(ctx, bucketInvites, key)
	if err != nil {
		return fmt.Errorf("link %s: %w", id, ErrNotFound)
	}
	row, err := decodeRow[inviteRow]("invite", stored)
	if err != nil {
		return err
	}
	if err := s.revokeRoomInvite(ctx, row); err != nil {
		return err
	}
	var b storage.Batch
	b.Delete(bucketInvites, key)
	_, err = s.store.Commit(ctx, &b, storage.Durable)
	return s.storeError(err)
}
