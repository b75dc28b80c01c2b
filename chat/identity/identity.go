// Package identity says who somebody is and proves which devices speak for
// them: account and device keys, certificates, the recovery phrase, fingerprint
// and safety number, and the keys file that holds the secrets at rest.
//
// An account is a key pair made from a 24-word recovery phrase; it signs device
// certificates and device lists and nothing else. A device is a random key pair
// that signs everything else and is the libp2p host key; it is never backed up
// or copied. The formats are specified in docs/spec/identity.md.
//
// Values are immutable and safe for concurrent use, except that Keys serializes
// its own writes.
package identity

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"fmt"
	"io"
	"time"

	"github.com/starling-chat/starling/chat/wire"
)

// Account is an account's secret: the entropy of its recovery phrase and the
// key made from it.
type Account struct {
	entropy [entropySize]byte
	seed    []byte // BIP-39 seed, 64 bytes
	key     ed25519.PrivateKey
}

// NewAccount makes a new account from 32 bytes of random (crypto/rand.Reader
// outside tests).
func NewAccount(random io.Reader) (*Account, error) {
	var entropy [entropySize]byte
	if _, err := io.ReadFull(random, entropy[:]); err != nil {
		return nil, fmt.Errorf("making an account: reading random bytes: %w", err)
	}
	return accountFromEntropy(entropy)
}

// ID returns the account's public key.
func (a *Account) ID() wire.AccountID {
	return wire.AccountID(a.key.Public().(ed25519.PublicKey))
}

// Certify issues a certificate for a device; zero times mean no bound.
func (a *Account) Certify(device wire.DeviceID, notBefore, notAfter time.Time) (wire.Certificate, error) {
	return wire.IssueCertificate(a.key, device, notBefore, notAfter)
}

// SignDeviceList fills in the account and signs the list; it returns the
// encoding.
func (a *Account) SignDeviceList(l *wire.DeviceList) ([]byte, error) { return l.Sign(a.key) }

// SubKey derives a secret that all of the account's devices share, by
// HKDF-SHA256 over the phrase's seed with the info "starling/account/" || label
// || "/1". Labels are constants of the caller, like "read-marker".
func (a *Account) SubKey(label string) [32]byte {
	return derive(a.seed, "starling/account/"+label+"/1")
}

// accountKeyInfo is the HKDF info of the account's Ed25519 seed. No label makes
// SubKey collide with it.
const accountKeyInfo = "starling/account-key/1"

// Device is a device's secret: the Ed25519 key that is also its libp2p host key,
// and the X25519 key for agreement.
type Device struct {
	key       ed25519.PrivateKey
	agreement *ecdh.PrivateKey
}

// NewDevice makes a new device from 64 bytes of random.
func NewDevice(random io.Reader) (*Device, error) {
	var secret [64]byte
	if _, err := io.ReadFull(random, secret[:]); err != nil {
		return nil, fmt.Errorf("making a device: reading random bytes: %w", err)
	}
	return deviceFromSecret([32]byte(secret[:32]), [32]byte(secret[32:]))
}

func deviceFromSecret(seed, agreement [32]byte) (*Device, error) {
	x, err := ecdh.X25519().NewPrivateKey(agreement[:])
	if err != nil {
		return nil, fmt.Errorf("making a device: %w", err)
	}
	return &Device{key: ed25519.NewKeyFromSeed(seed[:]), agreement: x}, nil
}

// ID returns the device's public key.
func (d *Device) ID() wire.DeviceID {
	return wire.DeviceID(d.key.Public().(ed25519.PublicKey))
}

// PrivateKey returns the signing key, which is the libp2p host key too.
func (d *Device) PrivateKey() ed25519.PrivateKey { return d.key }

// Agreement returns the X25519 identity key.
func (d *Device) Agreement() *ecdh.PrivateKey { return d.agreement }

// AgreementSignature returns the device's signature of its X25519 public key
// under wire.DomainAgreement.
func (d *Device) AgreementSignature() wire.Signature {
	return wire.Sign(wire.DomainAgreement, d.key, d.agreement.PublicKey().Bytes())
}

// VerifyAgreement says whether the device signed the X25519 public key as its
// own.
func VerifyAgreement(device wire.DeviceID, agreement [32]byte, sig wire.Signature) bool {
	return !wire.WeakKey(device) && wire.VerifySignature(wire.DomainAgreement, device, agreement[:], sig)
}

// Certificates begin on a grid of CertificateGrid and live CertificateLife, so
// that a device issues itself the same certificate for a whole grid period,
// others can cache it, and its dates do not tell when an account was made.
const (
	CertificateGrid = 90 * 24 * time.Hour
	CertificateLife = 2 * 365 * 24 * time.Hour
)

// CertificateAt returns the account's certificate for a device at a time; it is
// the same for all times of one grid period.
func (a *Account) CertificateAt(device wire.DeviceID, now time.Time) (wire.Certificate, error) {
	grid := int64(CertificateGrid / time.Second)
	period := max(now.Unix(), 0) / grid
	from := time.Unix(period*grid, 0).UTC()
	return a.Certify(device, from, from.Add(CertificateLife))
}

// derive is HKDF-SHA256 without salt to 32 bytes.
func derive(secret []byte, info string) [32]byte {
	b, err := hkdf.Key(sha256.New, secret, nil, info, 32)
	if err != nil {
		panic(err) // only for a length that HKDF cannot give, and 32 it can
	}
	return [32]byte(b)
}
