package chat

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/starling-chat/starling/chat/wire"
)

// This file is what happens when somebody whom the user verified is seen under another account key
// (docs/spec/identity.md, section 7). An account is its key, so a key never changes silently: what changes
// is who uses a verified name, or whose a verified contact's device says it is. Then nothing is sent until
// the user says which key it is.

// suspended says whether nothing is sent to an account because its key is in question.
func (p *people) suspended(account wire.AccountID) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	c := p.contacts[account]
	return c != nil && c.Trust == TrustChanged
}

// verifiedAs returns the contact whom the user verified, or had verified before their key came into question,
// and who goes by a name; account is somebody else. Of several the one with the smallest key.
func (p *people) verifiedAs(name string, account wire.AccountID) (wire.AccountID, bool) {
	var found wire.AccountID
	if name == "" {
		return found, false
	}
	key := foldNick(name)
	p.mu.RLock()
	defer p.mu.RUnlock()
	for id, c := range p.contacts {
		if id == account || c.State == ContactBlocked || c.Trust != TrustVerified && !c.Questioned {
			continue
		}
		if (foldNick(c.Petname) == key || foldNick(c.Nick) == key) && (found.IsZero() || bytes.Compare(id[:], found[:]) < 0) {
			found = id
		}
	}
	return found, !found.IsZero()
}

// question notes that a stranger goes by the name of a verified contact: their key is not that contact's,
// whatever they say. It says so once, in the conversation with the stranger.
func (d *dialogs) question(ctx context.Context, in *receiving, g *dialog, row *contactRow) {
	if row.Trust == TrustChanged || row.Trust == TrustVerified || row.State != ContactRequest {
		return
	}
	known, ok := d.s.people.verifiedAs(row.Nick, g.account)
	if !ok {
		return
	}
	row.Trust, row.Instead = TrustChanged, &known
	text := fmt.Sprintf("They call themselves %s, like a contact whom you verified, and their key is another (%s, not %s). Nothing is sent to them until you accept them.",
		row.Nick, wire.Fingerprint(g.account), wire.Fingerprint(known))
	if err := d.notice(ctx, &in.batch, in.lines, g, text); err != nil && ctx.Err() == nil {
		d.s.log.Warn("noting a changed key failed", "error", err)
	}
}

// otherAccount deals with a device of a contact that greets for another account: a verified contact's key is
// in question from then on, and nothing the device says is taken.
func (d *dialogs) otherAccount(ctx context.Context, in *receiving, known, now wire.AccountID) error {
	refused := errors.New("a device greets for another account than before")
	row := d.contactRow(in, known)
	if row == nil || row.Trust != TrustVerified {
		return refused
	}
	g, err := d.with(ctx, known)
	if err != nil {
		return err
	}
	row.Trust, row.Questioned = TrustChanged, true
	in.people[known] = row
	text := fmt.Sprintf("The device of %s speaks for another account now (%s, not %s). Nothing is sent until you accept or verify.",
		d.s.nick(known).Nick, wire.Fingerprint(now), wire.Fingerprint(known))
	return errors.Join(refused, d.notice(ctx, &in.batch, in.lines, g, text))
}

// reclaim begins to give the name of a verified contact to another account, as a new link for the same person
// asks for: nothing is sent to either until the user accepts one of the two.
func (s *Service) reclaim(ctx context.Context, petname string, from, to wire.AccountID) error {
	old := s.people.contact(from)
	if old == nil {
		return ErrNotFound
	}
	row := s.people.contact(to)
	if row == nil {
		row = &contactRow{State: ContactAsked, Added: s.cfg.Clock.Now(), Nick: s.people.claimed(to)}
	}
	if row.State == ContactBlocked {
		return ErrBlocked
	}
	old.Trust, old.Questioned = TrustChanged, true
	row.Trust, row.Instead, row.Wants = TrustChanged, &from, petname
	return errors.Join(s.storeContact(ctx, from, old), s.storeContact(ctx, to, row))
}

// takeKey ends the question in favour of an account: it takes over the name that was asked for, and whoever
// had it keeps neither name nor verification. trust is what the account has from now on.
func (s *Service) takeKey(ctx context.Context, account wire.AccountID, row *contactRow, trust Trust) error {
	instead, wants := row.Instead, row.Wants
	row.Trust, row.Questioned, row.Instead, row.Wants = trust, false, nil, ""
	if instead != nil && wants != "" {
		if old := s.people.contact(*instead); old != nil {
			old.Trust, old.Questioned = TrustUnverified, false
			if foldNick(old.Petname) == foldNick(wants) {
				old.Petname = ""
			}
			if err := s.storeContact(ctx, *instead, old); err != nil {
				return err
			}
		}
		if s.freePetname(wants, account) == nil {
			row.Petname = wants
		}
	}
	if instead == nil { // the old key stays: whoever was to take its place does not
		for id, c := range s.people.list() {
			if c.Instead != nil && *c.Instead == account && c.Wants != "" {
				c.Instead, c.Wants, c.Trust = nil, "", TrustUnverified
				if err := s.storeContact(ctx, id, &c); err != nil {
					return err
				}
			}
		}
	}
	s.dialogs.resume(account)
	return nil
}

// dropKey ends the question against an account that is rejected, removed or blocked: whom it would have
// replaced is verified again.
func (s *Service) dropKey(ctx context.Context, row *contactRow) error {
	if row.Instead == nil || row.Wants == "" {
		return nil
	}
	old := s.people.contact(*row.Instead)
	if old == nil || !old.Questioned {
		return nil
	}
	account := *row.Instead
	old.Trust, old.Questioned = TrustVerified, false
	row.Instead, row.Wants = nil, ""
	if err := s.storeContact(ctx, account, old); err != nil {
		return err
	}
	s.dialogs.resume(account)
	return nil
}

// resume sends what waited while an account's key was in question.
func (d *dialogs) resume(account wire.AccountID) {
	g := d.find(account)
	if g == nil {
		return
	}
	g.nextTry, g.nextKnock = time.Time{}, time.Time{} // the next look, within a second, sends it
	for _, o := range g.out {
		o.next = time.Time{}
	}
}
