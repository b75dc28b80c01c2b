package chat

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// people is what this node knows of accounts: contacts, blocked ones, and which devices speak for
// whom. Everybody who shows a name or sends something asks it, from any goroutine.
type people struct {
	store *storage.Store

	mu       sync.RWMutex // guards everything below
	contacts map[wire.AccountID]*contactRow
	devices  map[wire.DeviceID]wire.AccountID
	accounts map[wire.AccountID][]wire.DeviceID
	nicks    map[wire.AccountID]string // as they said when greeting; not stored
	paths    map[wire.DeviceID]Path    // connected devices
	gone     map[wire.DeviceID]revoked // by their account
}

// contactRow is one contact, request or blocked account.
type contactRow struct {
	Version int             `json:"v"`
	State   ContactState    `json:"state"`
	Petname string          `json:"petname,omitempty"`
	Nick    string          `json:"nick,omitempty"` // the last one they claimed
	Trust   Trust           `json:"trust"`
	Devices []wire.DeviceID `json:"devices,omitempty"`
	// Of a key that is in question, see trust.go.
	Questioned bool            `json:"questioned,omitempty"` // it was verified
	Instead    *wire.AccountID `json:"instead,omitempty"`    // the verified contact whose name this account uses
	Wants      string          `json:"wants,omitempty"`      // the petname it gets when it is accepted
	Told       []wire.DeviceID `json:"told,omitempty"`       // those the user knows of
	Addrs      []string        `json:"addrs,omitempty"`      // from their link
	Added      time.Time       `json:"added"`
	LastSeen   time.Time       `json:"last_seen"`
	// Messages and Bytes count what a stranger has written before being accepted.
	Messages int `json:"messages,omitempty"`
	Bytes    int `json:"bytes,omitempty"`
	// Before is the state to return to when unblocked.
	Before ContactState `json:"before,omitempty"`
}

// maxKnownDevices bounds the devices that are remembered for accounts.
const maxKnownDevices = 16384

// maxPetname bounds a petname, in bytes.
const maxPetname = 64

func newPeople(store *storage.Store) *people {
	return &people{
		store:    store,
		contacts: make(map[wire.AccountID]*contactRow), devices: make(map[wire.DeviceID]wire.AccountID),
		accounts: make(map[wire.AccountID][]wire.DeviceID), nicks: make(map[wire.AccountID]string),
		paths: make(map[wire.DeviceID]Path), gone: make(map[wire.DeviceID]revoked),
	}
}

// load reads the contacts, and which devices were revoked.
func (p *people) load(ctx context.Context) error {
	if err := p.loadRevoked(ctx); err != nil {
		return err
	}
	for kv, err := range p.store.ScanBucket(ctx, bucketContacts, nil) {
		if err != nil {
			return fmt.Errorf("reading contacts: %w", err)
		}
		row, err := decodeRow[contactRow]("contact", kv.Value)
		if err != nil {
			return err
		}
		account := wire.AccountID(kv.Key)
		p.contacts[account] = &row
		for _, d := range row.Devices {
			p.device(account, d)
		}
	}
	return nil
}

// device remembers that a device speaks for an account; the caller has verified the certificate.
func (p *people) device(account wire.AccountID, dev wire.DeviceID) {
	p.mu.RLock()
	known := p.devices[dev] == account
	p.mu.RUnlock()
	if known {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_, gone := p.gone[dev]
	if _, ok := p.devices[dev]; ok || gone || len(p.devices) >= maxKnownDevices || len(p.accounts[account]) >= wire.MaxDevices {
		return
	}
	p.devices[dev] = account
	p.accounts[account] = append(p.accounts[account], dev)
}

// account returns whom a device speaks for.
func (p *people) account(dev wire.DeviceID) (wire.AccountID, bool) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	a, ok := p.devices[dev]
	return a, ok
}

// devicesOf returns the known devices of an account, connected ones first.
func (p *people) devicesOf(account wire.AccountID) []wire.DeviceID {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.devicesLocked(account)
}

func (p *people) devicesLocked(account wire.AccountID) []wire.DeviceID {
	list := slices.Clone(p.accounts[account])
	slices.SortFunc(list, func(a, b wire.DeviceID) int {
		if ca, cb := p.paths[a] != PathNone, p.paths[b] != PathNone; ca != cb {
			if ca {
				return -1
			}
			return 1
		}
		return bytes.Compare(a[:], b[:])
	})
	return list
}

// pathTo returns the best path to any device of an account.
func (p *people) pathTo(account wire.AccountID) Path {
	p.mu.RLock()
	defer p.mu.RUnlock()
	best := PathNone
	for _, d := range p.accounts[account] {
		if path := p.paths[d]; pathRank(path) > pathRank(best) {
			best = path
		}
	}
	return best
}

// pathOrder lists the paths from worst to best. The stored form of a path is its place here.
var pathOrder = []Path{PathNone, PathRelayed, PathPunched, PathDirect, PathLAN}

// pathRank orders paths from worst to best.
func pathRank(p Path) int { return slices.Index(pathOrder, p) }

// connected notes how a device is reached now, and says how it was before and whether that is news.
func (p *people) connected(dev wire.DeviceID, path Path) (was Path, changed bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	was = p.paths[dev]
	if path == PathNone {
		delete(p.paths, dev)
	} else {
		p.paths[dev] = path
	}
	return was, was != path
}

// online says whether a device is connected, and how.
func (p *people) online(dev wire.DeviceID) Path {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.paths[dev]
}

// blocked says whether the user blocked an account.
func (p *people) blocked(account wire.AccountID) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	c := p.contacts[account]
	return c != nil && c.State == ContactBlocked
}

// contact returns a copy of what is stored of an account, or nil.
func (p *people) contact(account wire.AccountID) *contactRow {
	p.mu.RLock()
	defer p.mu.RUnlock()
	c := p.contacts[account]
	if c == nil {
		return nil
	}
	row := *c
	return &row
}

// putContact adds a contact's row to a batch, or its removal for nil, and returns what makes it
// effective in memory once the batch is committed.
func (p *people) putContact(b *storage.Batch, account wire.AccountID, row *contactRow) (commit func()) {
	if row == nil {
		b.Delete(bucketContacts, account[:])
		return func() {
			p.mu.Lock()
			defer p.mu.Unlock()
			delete(p.contacts, account)
		}
	}
	row.Version = rowVersion
	if row.Trust == "" {
		row.Trust = TrustUnverified
	}
	row.Devices = p.devicesOf(account)
	b.Put(bucketContacts, account[:], encodeRow(row))
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.contacts[account] = row
	}
}

// greeted remembers the nick somebody gave when greeting.
func (p *people) greeted(account wire.AccountID, nick string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if nick == "" || p.nicks[account] == "" && len(p.nicks) >= maxKnownDevices {
		return
	}
	p.nicks[account] = nick
}

// petname returns the user's own name for an account, or "".
func (p *people) petname(account wire.AccountID) string {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if c := p.contacts[account]; c != nil {
		return c.Petname
	}
	return ""
}

// claimed returns the nick that an account claims outside of any room, or "".
func (p *people) claimed(account wire.AccountID) string {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if n := p.nicks[account]; n != "" {
		return n
	}
	if c := p.contacts[account]; c != nil {
		return c.Nick
	}
	return ""
}

// list returns copies of all contacts, ordered by account.
func (p *people) list() map[wire.AccountID]contactRow {
	p.mu.RLock()
	defer p.mu.RUnlock()
	out := make(map[wire.AccountID]contactRow, len(p.contacts))
	for id, c := range p.contacts {
		out[id] = *c
	}
	return out
}

// shownName is how an account is called on the screen.
type shownName struct {
	Nick        string // petname, else claimed nick, else fingerprint
	Fingerprint string
	Shared      bool // somebody else claims the same nick
}

// nick names an account as this room's members know it.
func (r *room) nick(account wire.AccountID) shownName {
	n := shownName{Fingerprint: wire.Fingerprint(account)}
	if n.Nick = r.s.people.petname(account); n.Nick != "" {
		return n
	}
	r.mu.RLock()
	if m := r.roster.members[account]; m != nil && m.Nick.Value != "" {
		n.Nick, n.Shared = m.Nick.Value, r.roster.shared(m.Nick.Value)
	}
	r.mu.RUnlock()
	if n.Nick == "" {
		n.Nick = r.s.people.claimed(account)
	}
	if n.Nick == "" {
		n.Nick = n.Fingerprint
	}
	return n
}

// nick names an account outside of any room: the petname, the nick it greeted with, or one from a
// room both are in.
func (s *Service) nick(account wire.AccountID) shownName {
	n := shownName{Fingerprint: wire.Fingerprint(account)}
	if account == s.self.account {
		n.Nick = s.nickNow()
	} else if n.Nick = s.people.petname(account); n.Nick == "" {
		n.Nick = s.people.claimed(account)
	}
	if n.Nick == "" {
		n.Nick = s.nickInRooms(account)
	}
	if n.Nick == "" {
		n.Nick = n.Fingerprint
	}
	return n
}

func (s *Service) nickInRooms(account wire.AccountID) string {
	best := register[string]{}
	for _, r := range s.allRooms() {
		r.mu.RLock()
		if m := r.roster.members[account]; m != nil && m.Nick.Value != "" {
			best.offer(m.Nick.Value, m.Nick.At)
		}
		r.mu.RUnlock()
	}
	return best.Value
}

// Resolve finds what a user means by a target: "#room" or "room", "@nick", "@petname",
// "@ACCOUNTID", or a starling: link. It returns [*AmbiguousError] when a nick stands for several
// people and ErrNotFound when it stands for nobody.
func (s *Service) Resolve(text string) (Target, error) {
	text = pasted(text)
	switch {
	case text == "":
		return Target{}, fmt.Errorf("%w: empty target", ErrBadRequest)
	case strings.HasPrefix(text, "starling:"):
		return s.resolveLink(text)
	case strings.HasPrefix(text, "@"):
		account, err := s.resolvePerson(text[1:])
		if err != nil {
			return Target{}, err
		}
		return Target{Account: &account}, nil
	}
	name, err := wire.CanonicalRoomName(text)
	if err != nil {
		return Target{}, fmt.Errorf("%w: %w", ErrBadName, err)
	}
	r := s.roomByName(name)
	if p := s.warden.pendingByName(name); p != nil && (r == nil || !r.joined()) {
		return Target{Room: &p.room}, nil
	}
	if r == nil {
		return Target{}, fmt.Errorf("room #%s: %w", name, ErrNotFound)
	}
	return Target{Room: &r.id}, nil
}

func (s *Service) resolveLink(text string) (Target, error) {
	link, err := wire.ParseLink(text)
	if err != nil {
		return Target{}, fmt.Errorf("%w: %w", ErrBadRequest, err)
	}
	switch l := link.(type) {
	case *wire.RoomLink:
		return s.Resolve("#" + l.Name)
	case *wire.ContactLink:
		if err := l.Verify(); err != nil {
			return Target{}, fmt.Errorf("%w: %w", ErrBadRequest, err)
		}
		s.people.device(l.Certificate.Account, l.Certificate.Device)
		s.cfg.Direct.Hint(l.Certificate.Device, l.Addresses)
		return Target{Account: &l.Certificate.Account}, nil
	case *wire.InviteLink:
		if r := s.roomByID(l.Room); r != nil || s.warden.pendingRoom(l.Room) != nil {
			if r == nil {
				return Target{Room: &l.Room}, nil
			}
			return Target{Room: &r.id}, nil
		}
	}
	return Target{}, fmt.Errorf("the link's room is not joined here: %w", ErrNotFound)
}

// resolvePerson finds an account by id, petname, or what is shown of somebody without one: the nick, or the
// fingerprint.
func (s *Service) resolvePerson(who string) (wire.AccountID, error) {
	if account, err := wire.ParseAccountID(who); err == nil {
		return account, nil
	}
	if who == "" || !utf8.ValidString(who) {
		return wire.AccountID{}, fmt.Errorf("%w: empty name", ErrBadRequest)
	}
	key := foldNick(who)
	shown := func(id wire.AccountID, nick string) bool {
		return nick != "" && foldNick(nick) == key || foldNick(wire.Fingerprint(id)) == key
	}
	byPetname, byNick := make(map[wire.AccountID]bool), make(map[wire.AccountID]bool)
	for id, c := range s.people.list() {
		if foldNick(c.Petname) == key {
			byPetname[id] = true
		}
		if shown(id, s.people.claimed(id)) {
			byNick[id] = true
		}
	}
	for id, nick := range s.people.greetings() {
		if shown(id, nick) {
			byNick[id] = true
		}
	}
	for _, r := range s.allRooms() {
		r.mu.RLock()
		for id, m := range r.roster.members {
			if shown(id, m.Nick.Value) {
				byNick[id] = true
			}
		}
		r.mu.RUnlock()
	}
	if foldNick(s.nickNow()) == key && len(byNick) == 0 {
		byNick[s.self.account] = true
	}
	found := byPetname
	if len(found) == 0 {
		found = byNick
	}
	ids := slices.SortedFunc(maps.Keys(found), func(a, b wire.AccountID) int { return bytes.Compare(a[:], b[:]) })
	switch len(ids) {
	case 0:
		return wire.AccountID{}, fmt.Errorf("@%s: %w", who, ErrNotFound)
	case 1:
		return ids[0], nil
	}
	amb := &AmbiguousError{Name: who}
	for _, id := range ids {
		n := s.nick(id)
		amb.Candidates = append(amb.Candidates, Candidate{Account: id, Nick: n.Nick, Fingerprint: n.Fingerprint})
	}
	return wire.AccountID{}, amb
}

// greetings returns the nicks that were given when greeting.
func (p *people) greetings() map[wire.AccountID]string {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return maps.Clone(p.nicks)
}

// checkPetname says what is wrong with a petname.
func checkPetname(name string) error {
	if name == "" {
		return nil
	}
	if err := wire.CheckNick(name); err != nil {
		return fmt.Errorf("%w: %w", ErrBadName, err)
	}
	if strings.HasPrefix(name, "@") || strings.HasPrefix(name, "#") || len(name) > maxPetname {
		return fmt.Errorf("%w: a petname has at most %d bytes and does not begin with @ or #", ErrBadName, maxPetname)
	}
	return nil
}
