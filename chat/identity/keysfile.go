package identity

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/text/unicode/norm"
)

// The keys file, version 1, integers big-endian:
//
//	offset  size  content
//	     0     8  "starkeys"
//	     8     1  version, 1
//	     9     1  wrap: 0 none, 1 Argon2id
//	    10     4  Argon2id passes (0 for wrap 0)
//	    14     4  Argon2id memory, KiB (0 for wrap 0)
//	    18     1  Argon2id lanes (0 for wrap 0)
//	    19    16  salt (random)
//	    35    24  nonce of the wrapped master key
//	    59    48  master key, XChaCha20-Poly1305, associated data = bytes 0..58
//	   107    24  nonce of the payload
//	   131   112  payload, XChaCha20-Poly1305, associated data = bytes 0..130
//	   243    32  SHA-256 of bytes 0..242
//
// The wrapping key is Argon2id(NFKC(passphrase), salt); for wrap 0 it is
// SHA-256("starling/keys/unprotected/1"), which protects nothing and keeps one
// path. The payload's key is HKDF-SHA256(master key, info
// "starling/keys/payload/1"). The payload is the account's entropy, the device's
// Ed25519 seed and its X25519 private key, 32 bytes each. Every version ends with
// the SHA-256 of what precedes it, which tells damage from a wrong passphrase.
const (
	keysMagic     = "starkeys"
	keysVersion   = 1
	wrapNone      = 0
	wrapArgon2id  = 1
	saltSize      = 16
	headerSize    = 35
	masterSize    = 32
	payloadSize   = 96
	keysFileSize  = headerSize + 2*chacha20poly1305.NonceSizeX + masterSize + payloadSize + 2*chacha20poly1305.Overhead + sha256.Size
	maxKeysFile   = 64 << 10 // bytes read at most, of any version
	maxPassphrase = 1024     // bytes
)

// Errors of the keys file; each says what to do.
var (
	// ErrWrongPassphrase: the file is whole and the passphrase is not its own.
	ErrWrongPassphrase = errors.New("wrong passphrase: try again, mind capital letters and the keyboard layout")
	// ErrPassphraseNeeded: the file is wrapped and no passphrase was given.
	ErrPassphraseNeeded = errors.New("the keys file needs a passphrase: give it with --passphrase-file")
	// ErrNotProtected: a passphrase was given and the file has none.
	ErrNotProtected = errors.New("the keys file has no passphrase: open it with --no-passphrase, then set one")
	// ErrKeysDamaged: the file is not what was written.
	ErrKeysDamaged = errors.New("the keys file is damaged: put back a copy of it, or move it away and restore the account from its recovery phrase")
	// ErrKeysVersion: a newer version wrote the file.
	ErrKeysVersion = errors.New("the keys file was written by a newer version of starling: use that version")
	// ErrKeysPermissions: others than the owner may read or write the file.
	ErrKeysPermissions = errors.New("the keys file is open to other users: run chmod 600 on it")
	// ErrKeysCost: the Argon2id parameters are outside the bounds.
	ErrKeysCost = errors.New("the keys file asks for password hashing outside the permitted bounds: it was not written by starling, put back a copy of it")
	// ErrPassphrase: the passphrase cannot be used.
	ErrPassphrase = errors.New("passphrase must be UTF-8 text of 1 to 1024 bytes")
)

// Passphrase is a passphrase or the explicit choice to have none. The zero value
// is neither; see NewPassphrase and NoPassphrase.
type Passphrase struct {
	text []byte // NFKC
	none bool
}

// NewPassphrase takes a passphrase of 1 to 1024 bytes of UTF-8. It is compared
// in NFKC, so that keyboards that compose differently agree.
func NewPassphrase(text string) (Passphrase, error) {
	if text == "" || len(text) > maxPassphrase || !utf8.ValidString(text) {
		return Passphrase{}, ErrPassphrase
	}
	return Passphrase{text: norm.NFKC.Bytes([]byte(text))}, nil
}

// NoPassphrase is the choice to leave the keys file unprotected.
func NoPassphrase() Passphrase { return Passphrase{none: true} }

// Cost is the cost of Argon2id (RFC 9106).
type Cost struct {
	Passes    uint32
	MemoryKiB uint32
	Lanes     uint8
}

// DefaultCost takes about a tenth of a second and 64 MiB on a laptop.
func DefaultCost() Cost { return Cost{Passes: 3, MemoryKiB: 64 << 10, Lanes: 4} }

// costBounds are what a file may ask for: less would be a downgrade, more would
// be a way to exhaust memory.
type costBounds struct{ low, high Cost }

var productionBounds = costBounds{
	low:  Cost{Passes: 2, MemoryKiB: 32 << 10, Lanes: 1},
	high: Cost{Passes: 16, MemoryKiB: 1 << 20, Lanes: 16},
}

func (b costBounds) check(c Cost) error {
	if c.Passes < b.low.Passes || c.Passes > b.high.Passes ||
		c.MemoryKiB < b.low.MemoryKiB || c.MemoryKiB > b.high.MemoryKiB ||
		c.Lanes < b.low.Lanes || c.Lanes > b.high.Lanes {
		return ErrKeysCost
	}
	return nil
}

// keysHeader is the readable part of a keys file.
type keysHeader struct {
	protected bool
	cost      Cost
	salt      []byte
}

// parseKeysHeader checks the checksum, magic, version and cost.
func parseKeysHeader(raw []byte, bounds costBounds) (keysHeader, error) {
	var h keysHeader
	if len(raw) < len(keysMagic)+1+sha256.Size || !bytes.HasPrefix(raw, []byte(keysMagic)) {
		return h, ErrKeysDamaged
	}
	end := len(raw) - sha256.Size
	if sha256.Sum256(raw[:end]) != [sha256.Size]byte(raw[end:]) {
		return h, ErrKeysDamaged
	}
	if raw[8] != keysVersion {
		return h, fmt.Errorf("%w (version %d)", ErrKeysVersion, raw[8])
	}
	if len(raw) != keysFileSize {
		return h, ErrKeysDamaged
	}
	h.cost = Cost{
		Passes:    binary.BigEndian.Uint32(raw[10:]),
		MemoryKiB: binary.BigEndian.Uint32(raw[14:]),
		Lanes:     raw[18],
	}
	h.salt = raw[19:headerSize]
	switch raw[9] {
	case wrapNone:
	case wrapArgon2id:
		h.protected = true
		return h, bounds.check(h.cost)
	default:
		return h, fmt.Errorf("%w (wrap %d)", ErrKeysVersion, raw[9])
	}
	return h, nil
}

// wrappingKey derives the key that wraps the master key.
func wrappingKey(pass Passphrase, salt []byte, c Cost) []byte {
	if pass.none {
		key := sha256.Sum256([]byte("starling/keys/unprotected/1"))
		return key[:]
	}
	return argon2.IDKey(pass.text, salt, c.Passes, c.MemoryKiB, c.Lanes, chacha20poly1305.KeySize)
}

func payloadKey(master [32]byte) [32]byte { return derive(master[:], "starling/keys/payload/1") }

// seal returns the file's bytes with a fresh salt and nonces.
func (k *Keys) seal(pass Passphrase, cost Cost) ([]byte, error) {
	switch {
	case pass.none:
		cost = Cost{}
	case len(pass.text) == 0:
		return nil, ErrPassphrase
	default:
		if err := k.bounds.check(cost); err != nil {
			return nil, err
		}
	}
	raw := make([]byte, 0, keysFileSize)
	raw = append(raw, keysMagic...)
	raw = append(raw, keysVersion)
	if pass.none {
		raw = append(raw, wrapNone)
	} else {
		raw = append(raw, wrapArgon2id)
	}
	raw = binary.BigEndian.AppendUint32(raw, cost.Passes)
	raw = binary.BigEndian.AppendUint32(raw, cost.MemoryKiB)
	raw = append(raw, cost.Lanes)
	raw, err := appendRandom(raw, saltSize, k.random)
	if err != nil {
		return nil, err
	}
	wrap := wrappingKey(pass, raw[headerSize-saltSize:headerSize], cost)
	if raw, err = appendSealed(raw, wrap, k.master[:], k.random); err != nil {
		return nil, err
	}
	payload := make([]byte, 0, payloadSize)
	payload = append(payload, k.account.entropy[:]...)
	payload = append(payload, k.device.key.Seed()...)
	payload = append(payload, k.device.agreement.Bytes()...)
	inner := payloadKey(k.master)
	if raw, err = appendSealed(raw, inner[:], payload, k.random); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(raw)
	return append(raw, sum[:]...), nil
}

// unseal fills in account, device and master key from the file's bytes.
func (k *Keys) unseal(raw []byte, pass Passphrase) error {
	h, err := parseKeysHeader(raw, k.bounds)
	if err != nil {
		return err
	}
	switch {
	case h.protected && len(pass.text) == 0:
		return ErrPassphraseNeeded
	case !h.protected && !pass.none:
		return ErrNotProtected
	}
	const masterEnd = headerSize + chacha20poly1305.NonceSizeX + masterSize + chacha20poly1305.Overhead
	master, err := openSealed(raw, headerSize, masterEnd, wrappingKey(pass, h.salt, h.cost))
	if err != nil {
		if h.protected {
			return ErrWrongPassphrase
		}
		return ErrKeysDamaged
	}
	copy(k.master[:], master)
	inner := payloadKey(k.master)
	payload, err := openSealed(raw, masterEnd, keysFileSize-sha256.Size, inner[:])
	if err != nil {
		return ErrKeysDamaged
	}
	if k.account, err = accountFromEntropy([32]byte(payload)); err != nil {
		return err
	}
	k.device, err = deviceFromSecret([32]byte(payload[32:]), [32]byte(payload[64:]))
	return err
}

func appendRandom(raw []byte, n int, random io.Reader) ([]byte, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(random, b); err != nil {
		return nil, fmt.Errorf("reading random bytes: %w", err)
	}
	return append(raw, b...), nil
}

// appendSealed appends a nonce and the sealed plain text, bound to all that
// stands before.
func appendSealed(raw, key, plain []byte, random io.Reader) ([]byte, error) {
	raw, err := appendRandom(raw, chacha20poly1305.NonceSizeX, random)
	if err != nil {
		return nil, err
	}
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, err
	}
	nonce := raw[len(raw)-chacha20poly1305.NonceSizeX:]
	return append(raw, aead.Seal(nil, nonce, plain, raw)...), nil
}

// openSealed opens what appendSealed put at raw[from:to].
func openSealed(raw []byte, from, to int, key []byte) ([]byte, error) {
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		return nil, err
	}
	body := from + chacha20poly1305.NonceSizeX
	return aead.Open(nil, raw[from:body], raw[body:to], raw[:body])
}

// readFile reads a keys file after checking its kind, permissions and size.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	// Windows keeps permissions elsewhere and reports none here.
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s (mode %04o): %w", path, info.Mode().Perm(), ErrKeysPermissions)
	}
	if !info.Mode().IsRegular() || info.Size() > maxKeysFile {
		return nil, fmt.Errorf("%s: %w", path, ErrKeysDamaged)
	}
	return io.ReadAll(io.LimitReader(f, maxKeysFile))
}

// writeFile puts the file in place as a whole or not at all, durably. Without
// replace it fails with fs.ErrExist if there is one already, even when two
// processes try at once: linking, unlike renaming, never replaces.
func writeFile(path string, raw []byte, replace bool) error {
	// A name of its own for each writer: with one shared name a second process
	// could put its own bytes under the link that the first is about to make.
	// CreateTemp makes the file 0600.
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*"+tempSuffix)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if err := writeAndSync(f, raw); err != nil {
		return err
	}
	if !replace {
		if err := os.Link(f.Name(), path); err != nil {
			return err
		}
		return syncDirectory(filepath.Dir(path))
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return errors.Join(removeStale(path), syncDirectory(filepath.Dir(path)))
}

// tempSuffix ends the names of temporary files: "keys.1234.new".
const tempSuffix = ".new"

// removeStale removes what a crash between writing and renaming left behind.
func removeStale(path string) error {
	dir, prefix := filepath.Dir(path), filepath.Base(path)+"."
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), prefix) && strings.HasSuffix(e.Name(), tempSuffix) {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

func writeAndSync(f *os.File, raw []byte) error {
	if _, err := f.Write(raw); err != nil {
		f.Close()
		return err
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// syncDirectory makes the directory's entries durable.
func syncDirectory(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // directories cannot be synced there; renames are journalled
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
