package wire

import (
	"fmt"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// Body is the content of an event of one kind. The implementations are the
// structs of this package whose names end in Body.
type Body interface {
	// EventKind returns the kind whose content this is.
	EventKind() Kind
	encodeBody(e *encoder)
	decodeBody(d *decoder)
	checkBody() error
}

// EncodeBody returns the canonical content for NewEvent, or an error naming the
// limit that is broken.
func EncodeBody(b Body) ([]byte, error) {
	if err := b.checkBody(); err != nil {
		return nil, fmt.Errorf("encoding %s: %w", b.EventKind(), err)
	}
	var e encoder
	b.encodeBody(&e)
	if len(e.b) > MaxBody-BodySaltSize {
		return nil, fmt.Errorf("encoding %s: %w", b.EventKind(), invalidf("%d bytes, at most %d", len(e.b), MaxBody-BodySaltSize))
	}
	return e.b, nil
}

// ParseBody decodes the content of an event of the given kind. Kinds this
// version does not know give ErrUnsupported.
func ParseBody(k Kind, content []byte) (Body, error) {
	b := newBody(k)
	if b == nil {
		return nil, unsupportedf("event of %s", k)
	}
	d := newDecoder(k.String(), content, MaxBody-BodySaltSize)
	for d.next() {
		b.decodeBody(d)
	}
	if d.err == nil {
		d.check(b.checkBody())
	}
	if err := d.finish(); err != nil {
		return nil, err
	}
	return b, nil
}

func newBody(k Kind) Body {
	switch k {
	case KindMessage:
		return &MessageBody{}
	case KindEdit:
		return &EditBody{}
	case KindRedact:
		return &RedactBody{}
	case KindReact:
		return &ReactBody{}
	case KindProfile:
		return &ProfileBody{}
	case KindJoin:
		return &JoinBody{}
	case KindLeave:
		return &LeaveBody{}
	case KindTopic:
		return &TopicBody{}
	case KindBan:
		return &BanBody{}
	case KindReadMarker:
		return &ReadMarkerBody{}
	case KindCreate:
		return &CreateBody{}
	case KindAdd:
		return &AddBody{}
	case KindRemove:
		return &RemoveBody{}
	case KindRole:
		return &RoleBody{}
	case KindPolicy:
		return &PolicyBody{}
	case KindEpoch:
		return &EpochBody{}
	case KindRevoke:
		return &RevokeBody{}
	case KindTyping:
		return &TypingBody{}
	case KindPresence:
		return &PresenceBody{}
	default:
		return nil
	}
}

// Style says how a message is to be read.
type Style uint8

const (
	// StylePlain is ordinary speech.
	StylePlain Style = 0
	// StyleAction is told in the third person ("/me waves").
	StyleAction Style = 1
	// StyleNotice comes from a program; programs do not answer it.
	StyleNotice Style = 2
)

// File describes one attachment, in the order of Header.Attachments.
//
// Encoding: {1 name, 2 media type, 3 key 32}.
type File struct {
	Name      string   // a base name for display; never a path to write to
	MediaType string   // as the sender claims it, or empty
	Key       [32]byte // opens the encrypted bytes
}

// MessageBody is the content of a message.
//
// Encoding: {1 text, 2 mentions 32 (repeated, ascending), 3 files (repeated),
// 4 style varint, 100..127 extensions}.
type MessageBody struct {
	Text       string // 1 to MaxText bytes; may be empty with files
	Mentions   []AccountID
	Files      []File
	Style      Style
	Extensions Extensions
}

// EditBody replaces the text of the message in Header.Ref.
//
// Encoding: {1 text, 2 mentions 32 (repeated, ascending), 100..127 extensions}.
type EditBody struct {
	Text       string
	Mentions   []AccountID
	Extensions Extensions
}

// RedactBody asks everyone to drop the body of the event in Header.Ref.
//
// Encoding: {1 reason}.
type RedactBody struct{ Reason string }

// ReactBody adds a reaction to, or takes it from, the event in Header.Ref.
//
// Encoding: {1 symbol, 2 remove flag}.
type ReactBody struct {
	Symbol string // 1 to MaxReaction bytes, usually one emoji
	Remove bool
}

// ProfileBody says how the author wants to be called. It is a claim.
//
// Encoding: {1 nick, 2 about, 100..127 extensions}.
type ProfileBody struct {
	Nick       string // see CheckNick
	About      string
	Extensions Extensions
}

// JoinBody announces that the author is in the room. It is empty.
type JoinBody struct{}

// LeaveBody announces that the author left.
//
// Encoding: {1 reason}.
type LeaveBody struct{ Reason string }

// TopicBody sets the room's topic line; empty clears it.
//
// Encoding: {1 text}.
type TopicBody struct{ Text string }

// BanBody hides an account's later events, or lifts that.
//
// Encoding: {1 account 32, 2 until fixed64 (Unix ms), 3 reason, 4 lift flag}.
type BanBody struct {
	Account AccountID
	Until   time.Time // zero: for ever
	Reason  string
	Lift    bool
}

// ReadMarkerBody tells the author's other devices how far was read. Only they
// can open it; see SealReadMarker.
//
// Encoding: {1 box}.
type ReadMarkerBody struct{ Box []byte }

// TypingBody says that the author is typing, or stopped.
//
// Encoding: {1 stopped flag}.
type TypingBody struct{ Stopped bool }

// PresenceBody says that the author is there, away or gone.
//
// Encoding: {1 state varint}.
type PresenceBody struct{ State Presence }

// Presence is how reachable a person says they are.
type Presence uint8

// States of presence.
const (
	PresenceHere Presence = 1
	PresenceAway Presence = 2
	PresenceGone Presence = 3
)

// EventKind implements Body.
func (*MessageBody) EventKind() Kind { return KindMessage }

// EventKind implements Body.
func (*EditBody) EventKind() Kind { return KindEdit }

// EventKind implements Body.
func (*RedactBody) EventKind() Kind { return KindRedact }

// EventKind implements Body.
func (*ReactBody) EventKind() Kind { return KindReact }

// EventKind implements Body.
func (*ProfileBody) EventKind() Kind { return KindProfile }

// EventKind implements Body.
func (*JoinBody) EventKind() Kind { return KindJoin }

// EventKind implements Body.
func (*LeaveBody) EventKind() Kind { return KindLeave }

// EventKind implements Body.
func (*TopicBody) EventKind() Kind { return KindTopic }

// EventKind implements Body.
func (*BanBody) EventKind() Kind { return KindBan }

// EventKind implements Body.
func (*ReadMarkerBody) EventKind() Kind { return KindReadMarker }

// EventKind implements Body.
func (*TypingBody) EventKind() Kind { return KindTyping }

// EventKind implements Body.
func (*PresenceBody) EventKind() Kind { return KindPresence }

func (b *MessageBody) encodeBody(e *encoder) {
	e.string(1, b.Text)
	e.accounts(2, b.Mentions)
	for i := range b.Files {
		e.bytes(3, b.Files[i].encode())
	}
	e.uint(4, uint64(b.Style))
	e.raw(b.Extensions)
}

func (b *MessageBody) decodeBody(d *decoder) {
	switch d.num {
	case 1:
		b.Text = d.string(MaxText)
	case 2:
		b.Mentions = d.account(b.Mentions, MaxMentions)
	case 3:
		b.Files = d.file(b.Files)
	case 4:
		b.Style = Style(d.uint(uint64(StyleNotice)))
	default:
		d.extension(&b.Extensions)
	}
}

func (b *MessageBody) checkBody() error {
	if b.Text == "" && len(b.Files) == 0 {
		return invalidf("empty message")
	}
	if err := checkText("text", b.Text, MaxText); err != nil {
		return err
	}
	if b.Style > StyleNotice {
		return invalidf("style %d", b.Style)
	}
	if len(b.Files) > MaxAttachments {
		return invalidf("%d files, at most %d", len(b.Files), MaxAttachments)
	}
	for i := range b.Files {
		if err := b.Files[i].check(); err != nil {
			return err
		}
	}
	if err := checkAccounts(b.Mentions, MaxMentions); err != nil {
		return err
	}
	return checkExtensions(b.Extensions)
}

func (b *EditBody) encodeBody(e *encoder) {
	e.string(1, b.Text)
	e.accounts(2, b.Mentions)
	e.raw(b.Extensions)
}

func (b *EditBody) decodeBody(d *decoder) {
	switch d.num {
	case 1:
		b.Text = d.string(MaxText)
	case 2:
		b.Mentions = d.account(b.Mentions, MaxMentions)
	default:
		d.extension(&b.Extensions)
	}
}

func (b *EditBody) checkBody() error {
	if b.Text == "" {
		return invalidf("empty edit")
	}
	if err := checkText("text", b.Text, MaxText); err != nil {
		return err
	}
	if err := checkAccounts(b.Mentions, MaxMentions); err != nil {
		return err
	}
	return checkExtensions(b.Extensions)
}

func (b *RedactBody) encodeBody(e *encoder) { e.string(1, b.Reason) }
func (b *RedactBody) decodeBody(d *decoder) { d.only(1, &b.Reason, MaxReason) }
func (b *RedactBody) checkBody() error      { return checkText("reason", b.Reason, MaxReason) }

func (b *ReactBody) encodeBody(e *encoder) {
	e.string(1, b.Symbol)
	e.flag(2, b.Remove)
}

func (b *ReactBody) decodeBody(d *decoder) {
	switch d.num {
	case 1:
		b.Symbol = d.string(MaxReaction)
	case 2:
		b.Remove = d.flag()
	default:
		d.unknown()
	}
}

func (b *ReactBody) checkBody() error {
	if b.Symbol == "" {
		return invalidf("reaction without a symbol")
	}
	return checkLine("reaction", b.Symbol, MaxReaction)
}

func (b *ProfileBody) encodeBody(e *encoder) {
	e.string(1, b.Nick)
	e.string(2, b.About)
	e.raw(b.Extensions)
}

func (b *ProfileBody) decodeBody(d *decoder) {
	switch d.num {
	case 1:
		b.Nick = d.string(MaxNick)
	case 2:
		b.About = d.string(MaxAbout)
	default:
		d.extension(&b.Extensions)
	}
}

func (b *ProfileBody) checkBody() error {
	if err := CheckNick(b.Nick); err != nil {
		return err
	}
	if err := checkText("about", b.About, MaxAbout); err != nil {
		return err
	}
	return checkExtensions(b.Extensions)
}

func (*JoinBody) encodeBody(*encoder)   {}
func (*JoinBody) decodeBody(d *decoder) { d.unknown() }
func (*JoinBody) checkBody() error      { return nil }

func (b *LeaveBody) encodeBody(e *encoder) { e.string(1, b.Reason) }
func (b *LeaveBody) decodeBody(d *decoder) { d.only(1, &b.Reason, MaxReason) }
func (b *LeaveBody) checkBody() error      { return checkText("reason", b.Reason, MaxReason) }

func (b *TopicBody) encodeBody(e *encoder) { e.string(1, b.Text) }
func (b *TopicBody) decodeBody(d *decoder) { d.only(1, &b.Text, MaxTopicText) }
func (b *TopicBody) checkBody() error      { return checkText("topic", b.Text, MaxTopicText) }

func (b *BanBody) encodeBody(e *encoder) {
	e.id(1, b.Account[:])
	e.fixed64(2, millis(b.Until))
	e.string(3, b.Reason)
	e.flag(4, b.Lift)
}

func (b *BanBody) decodeBody(d *decoder) {
	switch d.num {
	case 1:
		d.id(b.Account[:])
	case 2:
		b.Until = d.time()
	case 3:
		b.Reason = d.string(MaxReason)
	case 4:
		b.Lift = d.flag()
	default:
		d.unknown()
	}
}

func (b *BanBody) checkBody() error {
	if b.Account.IsZero() {
		return invalidf("ban of nobody")
	}
	return checkText("reason", b.Reason, MaxReason)
}

func (b *ReadMarkerBody) encodeBody(e *encoder) { e.bytes(1, b.Box) }

func (b *ReadMarkerBody) decodeBody(d *decoder) {
	if d.num != 1 {
		d.unknown()
		return
	}
	b.Box = d.bytes(MaxReadMarkerBox)
}

func (b *ReadMarkerBody) checkBody() error {
	if len(b.Box) == 0 || len(b.Box) > MaxReadMarkerBox {
		return invalidf("read marker of %d bytes, want 1 to %d", len(b.Box), MaxReadMarkerBox)
	}
	return nil
}

func (b *TypingBody) encodeBody(e *encoder) { e.flag(1, b.Stopped) }

func (b *TypingBody) decodeBody(d *decoder) {
	if d.num != 1 {
		d.unknown()
		return
	}
	b.Stopped = d.flag()
}

func (*TypingBody) checkBody() error { return nil }

func (b *PresenceBody) encodeBody(e *encoder) { e.uint(1, uint64(b.State)) }

func (b *PresenceBody) decodeBody(d *decoder) {
	if d.num != 1 {
		d.unknown()
		return
	}
	b.State = Presence(d.uint(uint64(PresenceGone)))
}

func (b *PresenceBody) checkBody() error {
	if b.State < PresenceHere || b.State > PresenceGone {
		return invalidf("presence state %d", b.State)
	}
	return nil
}

func (f *File) encode() []byte {
	e := encoder{b: make([]byte, 0, 64)}
	e.string(1, f.Name)
	e.string(2, f.MediaType)
	e.bytes(3, f.Key[:])
	return e.b
}

func (f *File) check() error {
	if f.Name == "" {
		return invalidf("file without a name")
	}
	if err := checkLine("file name", f.Name, MaxFileName); err != nil {
		return err
	}
	return checkLine("media type", f.MediaType, MaxMediaType)
}

func (d *decoder) file(list []File) []File {
	const limit = MaxFileName + MaxMediaType + 48
	raw := d.item(limit, len(list), MaxAttachments)
	if d.err != nil {
		return nil
	}
	var f File
	keyed := false
	in := newDecoder("file", raw, limit)
	for in.next() {
		switch in.num {
		case 1:
			f.Name = in.string(MaxFileName)
		case 2:
			f.MediaType = in.string(MaxMediaType)
		case 3:
			in.exact(f.Key[:])
			keyed = true
		default:
			in.unknown()
		}
	}
	in.require(keyed, "key")
	d.check(in.finish())
	return append(list, f)
}

// only reads a message whose single field is a text.
func (d *decoder) only(num protowire.Number, dst *string, limit int) {
	if d.num != num {
		d.unknown()
		return
	}
	*dst = d.string(limit)
}

func (e *encoder) accounts(num protowire.Number, list []AccountID) {
	for i := range list {
		e.bytes(num, list[i][:])
	}
}

func (d *decoder) account(list []AccountID, most int) []AccountID {
	var id AccountID
	v := d.item(len(id), len(list), most)
	d.copyID(id[:], v)
	return append(list, id)
}

// checkAccounts wants a list ascending, distinct, without the zero account.
func checkAccounts(list []AccountID, most int) error {
	if len(list) > most {
		return invalidf("%d accounts, at most %d", len(list), most)
	}
	for i := range list {
		if list[i].IsZero() || i > 0 && string(list[i-1][:]) >= string(list[i][:]) {
			return invalidf("accounts not ascending")
		}
	}
	return nil
}

// CheckNick says what is wrong with a nick: 1 to MaxNick bytes of UTF-8 in one
// line, without control characters or marks that change the direction of text,
// and with no space at either end.
func CheckNick(nick string) error {
	if nick == "" {
		return invalidf("nick is empty")
	}
	if nick[0] == ' ' || nick[len(nick)-1] == ' ' {
		return invalidf("nick begins or ends with a space")
	}
	return checkLine("nick", nick, MaxNick)
}

// checkText wants valid UTF-8 without NUL, of at most limit bytes.
func checkText(what, s string, limit int) error {
	if len(s) > limit {
		return invalidf("%s of %d bytes is too long: at most %d", what, len(s), limit)
	}
	if !utf8.ValidString(s) {
		return invalidf("%s is not valid UTF-8", what)
	}
	for i := range len(s) {
		if s[i] == 0 {
			return invalidf("%s holds a NUL byte", what)
		}
	}
	return nil
}

// checkLine is checkText for one line that cannot disturb a display. The ranges
// are spelled out because the rule must not change with a Unicode table.
func checkLine(what, s string, limit int) error {
	if err := checkText(what, s, limit); err != nil {
		return err
	}
	for _, r := range s {
		switch {
		case r < 0x20, r >= 0x7f && r <= 0x9f, // C0, DEL, C1
			r == 0x2028, r == 0x2029, // line and paragraph separator
			r == 0x200e, r == 0x200f, r == 0x061c, // direction marks
			r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069: // overrides, isolates
			return invalidf("%s holds the control character %U", what, r)
		}
	}
	return nil
}
