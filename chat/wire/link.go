package wire

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// Links carry what somebody needs to begin talking, in a chat, a mail or a QR
// code. A link has exactly one text form:
//
//	starling:contact/<payload>
//	starling:invite/<payload>
//	starling:room/<name>[?network=<name>][&password=1][&addr=<multiaddr>]...
//
// A payload is base64url without padding over the canonical encoding followed
// by the first 4 bytes of its SHA-256, so that a mistyped or cut link says so.

const linkScheme = "starling:"

// Link is one of *ContactLink, *InviteLink, *RoomLink.
type Link interface {
	// Text returns the link's text form, or an error naming what is wrong.
	Text() (string, error)
}

// ParseLink reads any link. It checks the form, not signatures or expiry.
func ParseLink(text string) (Link, error) {
	if len(text) > MaxLink {
		return nil, invalidf("link of %d bytes is too long: at most %d", len(text), MaxLink)
	}
	rest, ok := strings.CutPrefix(text, linkScheme)
	if !ok {
		return nil, invalidf("link does not begin with %s", linkScheme)
	}
	kind, rest, _ := strings.Cut(rest, "/")
	var link Link
	var err error
	switch kind {
	case "contact":
		link, err = parsePayload(rest, parseContactLink)
	case "invite":
		link, err = parsePayload(rest, parseInviteLink)
	case "room":
		link, err = parseRoomLink(rest)
	default:
		return nil, unsupportedf("link of type %q", clip(kind))
	}
	if err != nil {
		return nil, err
	}
	// One text form: what does not come back the same was not written by us.
	again, err := link.Text()
	if err != nil {
		return nil, err
	}
	if again != text {
		return nil, invalidf("link is not in its proper form, which is %s", clip(again))
	}
	return link, nil
}

// ContactLink says who somebody is and where to reach them.
//
// Encoding: {1 version varint, 2 certificate, 3 nick, 4 addresses (repeated),
// 5 token 16}.
type ContactLink struct {
	Certificate Certificate
	Nick        string // a claim; may be empty
	Addresses   []string
	// Token lets its bearer, once, past the bounds on strangers; zero if the
	// link is public. See ContactBody.
	Token InviteToken
}

// RoomLink names a public room.
type RoomLink struct {
	Name      string // canonical
	Network   string // empty: the receiver's own
	Password  bool   // the room has a password, which a link never carries
	Addresses []string
}

// InviteLink invites to a private room. It is redeemed with any member that has
// the right to add; the inviter's device signed it, so that such a member can
// see who invited.
//
// Encoding: {1 version varint, 2 room 32, 3 certificate of the inviter, 4 token
// 16, 5 expires fixed64 (Unix ms), 6 room name, 7 addresses (repeated), 8
// reusable flag, 9 doors (repeated): {1 account 32, 2 device 32}, 15 signature
// 64 under DomainInvite}.
type InviteLink struct {
	Room      RoomID
	Inviter   Certificate
	Token     InviteToken
	Expires   time.Time // UTC, milliseconds
	Name      string    // for display
	Addresses []string
	Reusable  bool   // good for more than one account
	Doors     []Door // others who may admit, should the inviter be away
	Signature Signature
}

// Door is a member who could admit when the invite was made, and where that
// member might be met. It is a hint: whoever is met must prove the account.
type Door struct {
	Account AccountID
	Device  DeviceID
}

// Text implements Link.
func (l *ContactLink) Text() (string, error) {
	if err := l.check(); err != nil {
		return "", err
	}
	var e encoder
	e.uint(1, 1)
	e.bytes(2, l.Certificate.Encode())
	e.string(3, l.Nick)
	for _, a := range l.Addresses {
		e.string(4, a)
	}
	e.id(5, l.Token[:])
	return payloadText("contact", e.b), nil
}

func (l *ContactLink) check() error {
	if l.Certificate.Account.IsZero() {
		return invalidf("contact link without a certificate")
	}
	if l.Nick != "" {
		if err := CheckNick(l.Nick); err != nil {
			return err
		}
	}
	return checkAddresses(l.Addresses)
}

// Verify checks the certificate.
func (l *ContactLink) Verify() error { return l.Certificate.Verify() }

func parseContactLink(raw []byte) (Link, error) {
	l := &ContactLink{}
	d := newDecoder("contact link", raw, MaxLink)
	for d.next() {
		switch d.num {
		case 1:
			d.version()
		case 2:
			l.Certificate = d.certificate()
		case 3:
			l.Nick = d.string(MaxNick)
		case 4:
			l.Addresses = append(l.Addresses, string(d.item(MaxAddress, len(l.Addresses), MaxLinkAddresses)))
		case 5:
			d.id(l.Token[:])
		default:
			d.unknown()
		}
	}
	d.require(d.v1, "version")
	if d.err == nil {
		d.check(l.check())
	}
	return l, d.finish()
}

// Sign signs the invite with the inviter's device key, which must be that of
// the certificate.
func (l *InviteLink) Sign(device ed25519.PrivateKey) error {
	if DeviceID(device.Public().(ed25519.PublicKey)) != l.Inviter.Device {
		return fmt.Errorf("signing an invite: %w", invalidf("the certificate names another device"))
	}
	l.Expires = truncateMillis(l.Expires)
	if err := l.check(); err != nil {
		return fmt.Errorf("signing an invite: %w", err)
	}
	l.Signature = Sign(DomainInvite, device, l.signedPart())
	return nil
}

// Verify checks the inviter's certificate and signature; it does not look at
// the expiry.
func (l *InviteLink) Verify() error {
	if err := l.Inviter.Verify(); err != nil {
		return fmt.Errorf("invite: %w", err)
	}
	if !VerifySignature(DomainInvite, l.Inviter.Device, l.signedPart(), l.Signature) {
		return fmt.Errorf("%w on an invite", ErrSignature)
	}
	return nil
}

// Payload returns the signed encoding, as a DMJoinRequest carries it.
func (l *InviteLink) Payload() ([]byte, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	return appendRecordSignature(l.signedPart(), l.Signature), nil
}

// Text implements Link.
func (l *InviteLink) Text() (string, error) {
	raw, err := l.Payload()
	if err != nil {
		return "", err
	}
	return payloadText("invite", raw), nil
}

func (l *InviteLink) signedPart() []byte {
	var e encoder
	e.uint(1, 1)
	e.id(2, l.Room[:])
	e.bytes(3, l.Inviter.Encode())
	e.id(4, l.Token[:])
	e.fixed64(5, millis(l.Expires))
	e.string(6, l.Name)
	for _, a := range l.Addresses {
		e.string(7, a)
	}
	e.flag(8, l.Reusable)
	for i := range l.Doors {
		var in encoder
		in.id(1, l.Doors[i].Account[:])
		in.id(2, l.Doors[i].Device[:])
		e.bytes(9, in.b)
	}
	return e.b
}

// maxDoor bounds an encoded Door, in bytes.
const maxDoor = 72

func (d *decoder) door(list []Door) []Door {
	in := newDecoder("door", d.item(maxDoor, len(list), MaxDoors), maxDoor)
	var o Door
	for d.err == nil && in.next() {
		switch in.num {
		case 1:
			in.id(o.Account[:])
		case 2:
			in.id(o.Device[:])
		default:
			in.unknown()
		}
	}
	d.check(in.finish())
	return append(list, o)
}

func (l *InviteLink) check() error {
	switch {
	case l.Room.IsZero():
		return invalidf("invite without a room")
	case l.Inviter.Account.IsZero():
		return invalidf("invite without an inviter")
	case l.Token == (InviteToken{}):
		return invalidf("invite without a token")
	case l.Expires.IsZero():
		return invalidf("invite without an end")
	case l.Name == "":
		return invalidf("invite without the room's name")
	}
	if err := checkLine("room name", l.Name, MaxPrivateName); err != nil {
		return err
	}
	if len(l.Doors) > MaxDoors {
		return invalidf("%d doors, at most %d", len(l.Doors), MaxDoors)
	}
	for i := range l.Doors {
		if l.Doors[i].Account.IsZero() || l.Doors[i].Device == (DeviceID{}) {
			return invalidf("door without an account or device")
		}
	}
	return checkAddresses(l.Addresses)
}

// ParseInvite reads the encoding that Payload returns.
func ParseInvite(raw []byte) (*InviteLink, error) {
	l := &InviteLink{}
	signed := false
	d := newDecoder("invite", raw, MaxLink)
	for d.next() {
		switch d.num {
		case 1:
			d.version()
		case 2:
			d.id(l.Room[:])
		case 3:
			l.Inviter = d.certificate()
		case 4:
			d.id(l.Token[:])
		case 5:
			l.Expires = d.time()
		case 6:
			l.Name = d.string(MaxPrivateName)
		case 7:
			l.Addresses = append(l.Addresses, string(d.item(MaxAddress, len(l.Addresses), MaxLinkAddresses)))
		case 8:
			l.Reusable = d.flag()
		case 9:
			l.Doors = d.door(l.Doors)
		case recordSignature:
			d.exact(l.Signature[:])
			signed = true
		default:
			d.unknown()
		}
	}
	d.require(d.v1, "version")
	d.require(signed, "signature")
	if d.err == nil {
		d.check(l.check())
	}
	return l, d.finish()
}

func parseInviteLink(raw []byte) (Link, error) {
	l, err := ParseInvite(raw)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// Text implements Link.
func (l *RoomLink) Text() (string, error) {
	name, err := CanonicalRoomName(l.Name)
	if err != nil {
		return "", err
	}
	if name != l.Name {
		return "", invalidf("room name %q is not canonical", clip(l.Name))
	}
	var query []string
	if l.Network != "" {
		if err := CheckNetworkName(l.Network); err != nil {
			return "", err
		}
		query = append(query, "network="+url.QueryEscape(l.Network))
	}
	if l.Password {
		query = append(query, "password=1")
	}
	if err := checkAddresses(l.Addresses); err != nil {
		return "", err
	}
	for _, a := range l.Addresses {
		query = append(query, "addr="+url.QueryEscape(a))
	}
	text := linkScheme + "room/" + url.PathEscape(name)
	if len(query) > 0 {
		text += "?" + strings.Join(query, "&")
	}
	if len(text) > MaxLink {
		return "", invalidf("link of %d bytes is too long: at most %d", len(text), MaxLink)
	}
	return text, nil
}

func parseRoomLink(rest string) (Link, error) {
	path, query, asked := strings.Cut(rest, "?")
	name, err := url.PathUnescape(path)
	if err != nil {
		return nil, invalidf("room link: %w", err)
	}
	l := &RoomLink{Name: name}
	if !asked {
		return l, nil
	}
	for _, pair := range strings.Split(query, "&") {
		key, value, _ := strings.Cut(pair, "=")
		value, err := url.QueryUnescape(value)
		if err != nil {
			return nil, invalidf("room link: %w", err)
		}
		switch key {
		case "network":
			l.Network = value
		case "password":
			l.Password = true
		case "addr":
			if len(l.Addresses) >= MaxLinkAddresses {
				return nil, invalidf("more than %d addresses", MaxLinkAddresses)
			}
			l.Addresses = append(l.Addresses, value)
		default:
			return nil, unsupportedf("room link with %q", clip(key))
		}
	}
	return l, nil
}

const linkChecksum = 4 // bytes

// payloadText cannot pass MaxLink: the limits of the fields see to it.
func payloadText(kind string, raw []byte) string {
	sum := sha256.Sum256(raw)
	body := append(raw[:len(raw):len(raw)], sum[:linkChecksum]...)
	return linkScheme + kind + "/" + base64.RawURLEncoding.EncodeToString(body)
}

func parsePayload(text string, parse func([]byte) (Link, error)) (Link, error) {
	body, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(body) <= linkChecksum {
		return nil, invalidf("link is damaged or cut off: copy it again")
	}
	raw := body[: len(body)-linkChecksum : len(body)-linkChecksum]
	if sum := sha256.Sum256(raw); string(sum[:linkChecksum]) != string(body[len(raw):]) {
		return nil, invalidf("link is damaged or cut off: copy it again")
	}
	return parse(raw)
}

func checkAddresses(list []string) error {
	if len(list) > MaxLinkAddresses {
		return invalidf("%d addresses, at most %d", len(list), MaxLinkAddresses)
	}
	for _, a := range list {
		if err := checkAddress(a); err != nil {
			return err
		}
	}
	return nil
}
