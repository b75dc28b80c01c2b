package identity

import (
	"crypto/rand"
	"path/filepath"
	"testing"
)

func TestKeysRoundTrip(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	account, err := NewAccount(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	again, err := AccountFromPhrase(account.Phrase())
	if err != nil || again.ID() != account.ID() {
		t.Fatalf("account from its phrase: %v", err)
	}
	k, err := CreateKeys(path, account, NoPassphrase(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	got, err := OpenKeys(path, NoPassphrase(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if got.Account().ID() != account.ID() || got.Device().ID() != k.Device().ID() || got.SubKey("x") != k.SubKey("x") {
		t.Fatal("other keys came back")
	}
}
