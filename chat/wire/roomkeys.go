package wire

import (
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/text/unicode/norm"
)

// RoomSecret is what makes somebody a member of a room's epoch.
type RoomSecret [32]byte

// Cost of a public room's secret. Slow on purpose: it is what a guesser of
// names pays per guess.
const (
	roomArgonTime   = 3
	roomArgonMemory = 64 << 10 // KiB
	roomArgonLanes  = 4
)

// PublicRoomSecret derives a public room's secret from the network's name, the
// room's canonical name and an optional password:
//
//	Argon2id(name [|| 0x00 || NFC(password)], SHA-256("starling/room/1" || network), t=3, 64 MiB, p=4, 32 bytes)
//
// It takes about a tenth of a second and 64 MiB: callers cache the result. name
// is made canonical first.
func PublicRoomSecret(network, name, password string) (RoomSecret, error) {
	input, err := roomSecretInput(network, name, password)
	if err != nil {
		return RoomSecret{}, err
	}
	salt := sha256.Sum256([]byte("starling/room/1" + network))
	return RoomSecret(argon2.IDKey(input, salt[:], roomArgonTime, roomArgonMemory, roomArgonLanes, 32)), nil
}

func roomSecretInput(network, name, password string) ([]byte, error) {
	canonical, err := CanonicalRoomName(name)
	if err != nil {
		return nil, err
	}
	if err := CheckNetworkName(network); err != nil {
		return nil, err
	}
	if len(password) > MaxRoomPassword || !utf8.ValidString(password) || strings.ContainsRune(password, 0) {
		return nil, invalidf("room password must be UTF-8 text of at most %d bytes", MaxRoomPassword)
	}
	input := []byte(canonical)
	if password != "" {
		input = append(input, 0)
		input = append(input, norm.NFC.String(password)...)
	}
	return input, nil
}

// CheckNetworkName says what is wrong with a network's name: 1 to
// MaxNetworkName of lower-case ASCII letters, digits, '-', '_' and '.'.
func CheckNetworkName(network string) error {
	if network == "" || len(network) > MaxNetworkName {
		return invalidf("network name must have 1 to %d characters", MaxNetworkName)
	}
	for _, c := range []byte(network) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' && c != '.' {
			return invalidf("network name %q: use lower-case letters, digits, '-', '_' and '.'", clip(network))
		}
	}
	return nil
}

// RoomKeys are the keys of one epoch of a room, all derived from its secret by
// HKDF-SHA256 without salt. Safe for concurrent use.
type RoomKeys struct {
	// Topic is the public half of the topic key pair.
	Topic TopicKey

	signer     ed25519.PrivateKey
	head, body cipher.AEAD
	nonce      [32]byte
	rendezvous [32]byte
}

// DeriveRoomKeys derives the keys of a secret.
func DeriveRoomKeys(secret RoomSecret) (*RoomKeys, error) {
	k := &RoomKeys{}
	var seed, head, body [32]byte
	for _, out := range []struct {
		label string
		key   *[32]byte
	}{
		{"starling/room/topic/1", &seed},
		{"starling/room/head/1", &head},
		{"starling/room/body/1", &body},
		{"starling/room/nonce/1", &k.nonce},
		{"starling/room/rendezvous/1", &k.rendezvous},
	} {
		b, err := hkdf.Key(sha256.New, secret[:], nil, out.label, len(out.key))
		if err != nil {
			return nil, fmt.Errorf("deriving room keys: %w", err)
		}
		copy(out.key[:], b)
	}
	k.signer = ed25519.NewKeyFromSeed(seed[:])
	copy(k.Topic[:], k.signer.Public().(ed25519.PublicKey))
	var err error
	if k.head, err = chacha20poly1305.NewX(head[:]); err != nil {
		return nil, fmt.Errorf("deriving room keys: %w", err)
	}
	if k.body, err = chacha20poly1305.NewX(body[:]); err != nil {
		return nil, fmt.Errorf("deriving room keys: %w", err)
	}
	return k, nil
}

// RendezvousKey returns the key under which members find each other on a day
// (see UTCDay): HMAC-SHA256(rendezvous key, "starling/rendezvous/1" || day as
// 8 bytes, big-endian).
func (k *RoomKeys) RendezvousKey(day int64) [32]byte {
	m := hmac.New(sha256.New, k.rendezvous[:])
	m.Write([]byte("starling/rendezvous/1"))
	m.Write(binary.BigEndian.AppendUint64(nil, uint64(day)))
	return [32]byte(m.Sum(nil))
}

// UTCDay returns the number of days since 1970-01-01 in UTC.
func UTCDay(t time.Time) int64 {
	const day = 24 * 60 * 60
	s := t.Unix()
	if s < 0 {
		s -= day - 1
	}
	return s / day
}

// ProveSync signs a sync session's transcript, which shows membership.
func (k *RoomKeys) ProveSync(transcript []byte) Signature {
	return Sign(DomainSync, k.signer, transcript)
}

// ProveStanding signs what this member says of somebody's events: that it holds or has read them.
func (k *RoomKeys) ProveStanding(statement []byte) Signature {
	return Sign(DomainStanding, k.signer, statement)
}

// VerifySync says whether a member of the topic signed the transcript.
func VerifySync(topic TopicKey, transcript []byte, proof Signature) bool {
	return VerifySignature(DomainSync, topic, transcript, proof)
}
