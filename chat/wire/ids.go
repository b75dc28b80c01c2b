package wire

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"math/big"
	"strings"
)

// Every identifier has its own type, so that none is taken for another.
type (
	// RoomID names a room: the id of its create event for a private room,
	// PublicRoomID of its topic key for a public one.
	RoomID [32]byte
	// EventID is SHA-256("starling/event/1" || header).
	EventID [32]byte
	// SealedID names a sealed event; see PeekSealedID for its formula.
	SealedID [32]byte
	// AccountID is an account's Ed25519 public key.
	AccountID [32]byte
	// DeviceID is a device's Ed25519 public key, which is its libp2p host key.
	DeviceID [32]byte
	// TopicKey is the Ed25519 public key of a room's epoch; it names the topic.
	TopicKey [32]byte
	// MailboxID is the Ed25519 public key under which a device's mailbox lies at
	// a relay; whoever holds the private key may collect.
	MailboxID [32]byte
	// DepositID names one deposit in a mailbox.
	DepositID [32]byte
	// ConversationID names a direct conversation; see DirectConversation.
	ConversationID [32]byte
	// MsgID is the random id of a direct message.
	MsgID [16]byte
	// Hash is a SHA-256 digest.
	Hash [32]byte
	// Signature is an Ed25519 signature.
	Signature [64]byte
)

// String returns the id in lower-case hexadecimal.
func (id RoomID) String() string { return hex.EncodeToString(id[:]) }

// String returns the id in lower-case hexadecimal.
func (id EventID) String() string { return hex.EncodeToString(id[:]) }

// String returns the id in lower-case hexadecimal.
func (id SealedID) String() string { return hex.EncodeToString(id[:]) }

// String returns the id in lower-case hexadecimal.
func (id DepositID) String() string { return hex.EncodeToString(id[:]) }

// String returns the id in lower-case hexadecimal.
func (id ConversationID) String() string { return hex.EncodeToString(id[:]) }

// String returns the id in lower-case hexadecimal.
func (id MsgID) String() string { return hex.EncodeToString(id[:]) }

// String returns the digest in lower-case hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// String returns the account in the form of a libp2p peer id ("12D3Koo...").
func (id AccountID) String() string { return peerIDText(id) }

// String returns the device in the form of its libp2p peer id ("12D3Koo...").
func (id DeviceID) String() string { return peerIDText(id) }

// String returns the key in lower-case base32 without padding.
func (k TopicKey) String() string { return base32Lower.EncodeToString(k[:]) }

// String returns the id in lower-case base32 without padding.
func (id MailboxID) String() string { return base32Lower.EncodeToString(id[:]) }

// IsZero says whether the id is unset.
func (id RoomID) IsZero() bool { return id == RoomID{} }

// IsZero says whether the id is unset.
func (id EventID) IsZero() bool { return id == EventID{} }

// IsZero says whether the id is unset.
func (id AccountID) IsZero() bool { return id == AccountID{} }

// IsZero says whether the id is unset.
func (id DeviceID) IsZero() bool { return id == DeviceID{} }

// IsZero says whether the key is unset.
func (k TopicKey) IsZero() bool { return k == TopicKey{} }

// IsZero says whether the id is unset.
func (id MsgID) IsZero() bool { return id == MsgID{} }

// PeerID returns the device's libp2p peer id in binary: the identity multihash
// of the protobuf-encoded public key, 38 bytes.
func (id DeviceID) PeerID() []byte { return append([]byte(peerIDPrefix), id[:]...) }

// DeviceFromPeerID is the inverse of DeviceID.PeerID. It refuses ids of other
// key types.
func DeviceFromPeerID(b []byte) (DeviceID, error) {
	key, ok := strings.CutPrefix(string(b), peerIDPrefix)
	if !ok || len(key) != 32 {
		return DeviceID{}, invalidf("peer id is not that of an Ed25519 key")
	}
	return DeviceID([]byte(key)), nil
}

// ParseRoomID reads the form that String writes.
func ParseRoomID(s string) (RoomID, error) {
	b, err := parseHex("room id", s, 32)
	return RoomID(b), err
}

// ParseEventID reads the form that String writes.
func ParseEventID(s string) (EventID, error) {
	b, err := parseHex("event id", s, 32)
	return EventID(b), err
}

// ParseSealedID reads the form that String writes.
func ParseSealedID(s string) (SealedID, error) {
	b, err := parseHex("sealed id", s, 32)
	return SealedID(b), err
}

// ParseDepositID reads the form that String writes.
func ParseDepositID(s string) (DepositID, error) {
	b, err := parseHex("deposit id", s, 32)
	return DepositID(b), err
}

// ParseConversationID reads the form that String writes.
func ParseConversationID(s string) (ConversationID, error) {
	b, err := parseHex("conversation id", s, 32)
	return ConversationID(b), err
}

// ParseMsgID reads the form that String writes.
func ParseMsgID(s string) (MsgID, error) {
	b, err := parseHex("message id", s, 16)
	return MsgID(b), err
}

// ParseHash reads the form that String writes.
func ParseHash(s string) (Hash, error) {
	b, err := parseHex("hash", s, 32)
	return Hash(b), err
}

// ParseAccountID reads the form that String writes.
func ParseAccountID(s string) (AccountID, error) {
	b, err := parsePeerIDText("account id", s)
	return AccountID(b), err
}

// ParseDeviceID reads the form that String writes.
func ParseDeviceID(s string) (DeviceID, error) {
	b, err := parsePeerIDText("device id", s)
	return DeviceID(b), err
}

// ParseTopicKey reads the form that String writes.
func ParseTopicKey(s string) (TopicKey, error) {
	b, err := parseBase32("topic key", s)
	return TopicKey(b), err
}

// ParseMailboxID reads the form that String writes.
func ParseMailboxID(s string) (MailboxID, error) {
	b, err := parseBase32("mailbox id", s)
	return MailboxID(b), err
}

// TopicPrefix begins the name of every gossip topic of starling.
const TopicPrefix = "/starling/t/1/"

// Topic returns the gossip topic of a key: TopicPrefix and the key in base32.
func Topic(k TopicKey) string { return TopicPrefix + k.String() }

// ParseTopic is the inverse of Topic; any other topic name is an error.
func ParseTopic(topic string) (TopicKey, error) {
	text, ok := strings.CutPrefix(topic, TopicPrefix)
	if !ok {
		return TopicKey{}, invalidf("topic does not begin with %s", TopicPrefix)
	}
	return ParseTopicKey(text)
}

// Fingerprint returns the short form of an account that is shown beside nicks:
// the first 40 bits of SHA-256("starling/fingerprint/1" || account) as 8
// characters of Crockford's base32. It tells apart two claims of one nick; it
// is too short to prove who somebody is (see identity.SafetyNumber).
func Fingerprint(id AccountID) string {
	sum := hashDomain(domainFingerprint, id[:])
	return crockford.EncodeToString(sum[:5])
}

// PublicRoomID returns the id of a public room: SHA-256("starling/room-id/1" ||
// topic key).
func PublicRoomID(k TopicKey) RoomID { return RoomID(hashDomain(domainRoomID, k[:])) }

// DirectConversation returns the id of the direct conversation of two accounts,
// the same in either order: SHA-256("starling/conversation/1" || smaller ||
// larger).
func DirectConversation(a, b AccountID) ConversationID {
	if string(a[:]) > string(b[:]) {
		a, b = b, a
	}
	return ConversationID(hashDomain(domainConversation, a[:], b[:]))
}

var (
	base32Lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
	crockford   = base32.NewEncoding("0123456789ABCDEFGHJKMNPQRSTVWXYZ").WithPadding(base32.NoPadding)
)

// peerIDPrefix begins the binary peer id of every Ed25519 key: identity
// multihash, 36 bytes, protobuf {type: Ed25519, data: 32 bytes}.
const peerIDPrefix = "\x00\x24\x08\x01\x12\x20"

const base58Alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

// peerIDTextLength is the length of every Ed25519 peer id in base58btc.
const peerIDTextLength = 52

func peerIDText(key [32]byte) string {
	raw := append([]byte(peerIDPrefix), key[:]...)
	n := new(big.Int).SetBytes(raw)
	radix, digit := big.NewInt(58), new(big.Int)
	out := make([]byte, 0, peerIDTextLength)
	for n.Sign() > 0 {
		n.DivMod(n, radix, digit)
		out = append(out, base58Alphabet[digit.Int64()])
	}
	out = append(out, '1') // the multihash begins with one zero byte
	for i, j := 0, len(out)-1; i < j; i, j = i+1, j-1 {
		out[i], out[j] = out[j], out[i]
	}
	return string(out)
}

func parsePeerIDText(what, s string) ([32]byte, error) {
	if len(s) != peerIDTextLength || s[0] != '1' {
		return [32]byte{}, invalidf("%s %q: want %d characters beginning with 12D3Koo", what, clip(s), peerIDTextLength)
	}
	n, radix := new(big.Int), big.NewInt(58)
	for i := 1; i < len(s); i++ {
		digit := strings.IndexByte(base58Alphabet, s[i])
		if digit < 0 {
			return [32]byte{}, invalidf("%s %q: character %d is not base58", what, clip(s), i+1)
		}
		n.Mul(n, radix)
		n.Add(n, big.NewInt(int64(digit)))
	}
	raw := n.Bytes() // without the leading zero byte
	key, ok := strings.CutPrefix("\x00"+string(raw), peerIDPrefix)
	if !ok || len(key) != 32 {
		return [32]byte{}, invalidf("%s %q: not an Ed25519 key", what, clip(s))
	}
	return [32]byte([]byte(key)), nil
}

func parseBase32(what, s string) ([32]byte, error) {
	b, err := base32Lower.DecodeString(s)
	if err != nil || len(b) != 32 || base32Lower.EncodeToString(b) != s {
		return [32]byte{}, invalidf("%s %q: want 52 characters of lower-case base32", what, clip(s))
	}
	return [32]byte(b), nil
}

// parseHex returns size zero bytes with an error, so that callers can convert.
func parseHex(what, s string, size int) ([]byte, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != size || hex.EncodeToString(b) != s {
		return make([]byte, size), invalidf("%s %q: want %d characters of lower-case hexadecimal", what, clip(s), 2*size)
	}
	return b, nil
}

// clip shortens what an error quotes.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	return fmt.Sprintf("%s... (%d bytes)", s[:most], len(s))
}

// hashDomain returns SHA-256(domain || parts...).
func hashDomain(domain string, parts ...[]byte) [32]byte {
	h := sha256.New()
	h.Write([]byte(domain))
	for _, p := range parts {
		h.Write(p)
	}
	var sum [32]byte
	h.Sum(sum[:0])
	return sum
}

// InviteToken is the random one-time token of an invite.
type InviteToken [16]byte

// String returns the token in lower-case hexadecimal.
func (t InviteToken) String() string { return hex.EncodeToString(t[:]) }
