package identity

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/starling-chat/starling/chat/wire"
)

// Keys is an open keys file: the account, this device, and the master key under
// which everything at rest is sealed.
type Keys struct {
	path    string
	account *Account
	device  *Device
	master  [32]byte
	bounds  costBounds
	random  io.Reader

	mu        sync.Mutex // guards protected and writes of the file
	protected bool
}

// CreateKeys writes a new keys file for the account with a new device and a new
// master key, and never overwrites one: if path exists the error matches
// fs.ErrExist. To restore an account on a new device, pass the account of its
// recovery phrase.
func CreateKeys(path string, account *Account, pass Passphrase, random io.Reader) (*Keys, error) {
	return createKeys(path, account, pass, random, DefaultCost(), productionBounds)
}

func createKeys(path string, account *Account, pass Passphrase, random io.Reader, cost Cost, bounds costBounds) (*Keys, error) {
	k := &Keys{path: path, account: account, random: random, bounds: bounds, protected: !pass.none}
	var err error
	if k.device, err = NewDevice(random); err != nil {
		return nil, fmt.Errorf("creating keys: %w", err)
	}
	if _, err = io.ReadFull(random, k.master[:]); err != nil {
		return nil, fmt.Errorf("creating keys: reading random bytes: %w", err)
	}
	raw, err := k.seal(pass, cost)
	if err != nil {
		return nil, fmt.Errorf("creating keys: %w", err)
	}
	if err := writeFile(path, raw, false); err != nil {
		return nil, fmt.Errorf("creating keys: %w", err)
	}
	return k, nil
}

// OpenKeys reads a keys file. random serves later changes of the passphrase.
// Errors match fs.ErrNotExist, ErrKeysPermissions, ErrKeysDamaged,
// ErrKeysVersion, ErrKeysCost, ErrPassphraseNeeded, ErrNotProtected or
// ErrWrongPassphrase.
func OpenKeys(path string, pass Passphrase, random io.Reader) (*Keys, error) {
	return openKeys(path, pass, random, productionBounds)
}

func openKeys(path string, pass Passphrase, random io.Reader, bounds costBounds) (*Keys, error) {
	raw, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("opening keys: %w", err)
	}
	k := &Keys{path: path, random: random, bounds: bounds, protected: !pass.none}
	if err := k.unseal(raw, pass); err != nil {
		return nil, fmt.Errorf("opening keys %s: %w", path, err)
	}
	return k, nil
}

// KeysProtected says whether the keys file at path needs a passphrase, so that
// a person is asked only if it does. Errors are those of OpenKeys.
func KeysProtected(path string) (bool, error) {
	raw, err := readFile(path)
	if err != nil {
		return false, fmt.Errorf("opening keys: %w", err)
	}
	h, err := parseKeysHeader(raw, productionBounds)
	if err != nil {
		return false, fmt.Errorf("opening keys %s: %w", path, err)
	}
	return h.protected, nil
}

// Account returns the account.
func (k *Keys) Account() *Account { return k.account }

// Device returns this device.
func (k *Keys) Device() *Device { return k.device }

// Protected says whether the file is wrapped by a passphrase.
func (k *Keys) Protected() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.protected
}

// Certificate returns this device's certificate for a time; see CertificateAt.
func (k *Keys) Certificate(now time.Time) (wire.Certificate, error) {
	return k.account.CertificateAt(k.device.ID(), now)
}

// SignDeviceList signs the account's device list; see [Account.SignDeviceList].
func (k *Keys) SignDeviceList(l *wire.DeviceList) ([]byte, error) { return k.account.SignDeviceList(l) }

// SubKey derives a key of this device's storage from the master key, by
// HKDF-SHA256 with the info "starling/storage/" || label || "/1". It does not
// change with the passphrase.
func (k *Keys) SubKey(label string) [32]byte {
	return derive(k.master[:], "starling/storage/"+label+"/1")
}

// ChangePassphrase wraps the same keys under another passphrase, or none, and
// replaces the file. On an error the old file stands. Flash storage and old
// backups of the file may still hold it under the former passphrase.
func (k *Keys) ChangePassphrase(pass Passphrase) error {
	return k.changePassphrase(pass, DefaultCost())
}

func (k *Keys) changePassphrase(pass Passphrase, cost Cost) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	raw, err := k.seal(pass, cost)
	if err != nil {
		return fmt.Errorf("changing the passphrase: %w", err)
	}
	if err := writeFile(k.path, raw, true); err != nil {
		return fmt.Errorf("changing the passphrase: %w", err)
	}
	k.protected = !pass.none
	return nil
}
