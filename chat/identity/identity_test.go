package identity

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tyler-smith/go-bip39"

	"github.com/starling-chat/starling/chat/wire"
)

const vectorsFile = "../../docs/spec/vectors/identity.json"

var update = flag.Bool("update", false, "rewrite the golden vectors")

// stream is an endless, repeatable stream of bytes.
type stream struct {
	seed    string
	counter uint64
}

func random(seed string) io.Reader { return &stream{seed: seed} }

func (r *stream) Read(p []byte) (int, error) {
	for n := 0; n < len(p); r.counter++ {
		sum := sha256.Sum256(binary.BigEndian.AppendUint64([]byte(r.seed), r.counter))
		n += copy(p[n:], sum[:])
	}
	return len(p), nil
}

func newAccount(t testing.TB, seed string) *Account {
	t.Helper()
	a, err := NewAccount(random(seed))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func newDevice(t testing.TB, seed string) *Device {
	t.Helper()
	d, err := NewDevice(random(seed))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// officialBIP39 are the 24-word vectors of the BIP-39 reference implementation
// (github.com/trezor/python-mnemonic, vectors.json), whose seeds use the
// passphrase "TREZOR".
var officialBIP39 = []struct{ entropy, phrase, seed string }{
	{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon art",
		"bda85446c68413707090a52022edd26a1c9462295029f2e60cd7c4f2bbd3097170af7a4d73245cafa9c3cca8d561a7c3de6f5d4a10be8ed2a5e608d68f92fcc8",
	},
	{
		"7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f7f",
		"legal winner thank year wave sausage worth useful legal winner thank year wave sausage worth useful legal winner thank year wave sausage worth title",
		"bc09fca1804f7e69da93c2f2028eb238c227f2e9dda30cd63699232578480a4021b146ad717fbb7e451ce9eb835f43620bf5c514db0f8add49f5d121449d3e87",
	},
	{
		"8080808080808080808080808080808080808080808080808080808080808080",
		"letter advice cage absurd amount doctor acoustic avoid letter advice cage absurd amount doctor acoustic avoid letter advice cage absurd amount doctor acoustic bless",
		"c0c519bd0e91a2ed54357d9d1ebef6f5af218a153624cf4f2da911a0ed8f7a09e2ef61af0aca007096df430022f7a2b6fb91661a9589097069720d015e4e982f",
	},
	{
		"ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
		"zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo vote",
		"dd48c104698c30cfe2b6142103248622fb7bb0ff692eebb00089b32d22484e1613912f0a5b694407be899ffd31ed3992c456cdf60f5d4564b8ba3f05a69890ad",
	},
	{
		"3e141609b97933b66a060dcddc71fad1d91677db872031e85f4c015c5e7e8982",
		"dignity pass list indicate nasty swamp pool script soccer toe leaf photo multiply desk host tomato cradle drill spread actor shine dismiss champion exotic",
		"ff7f3184df8696d8bef94b6c03114dbee0ef89ff938712301d27ed8336ca89ef9635da20af07d4175f2bf5f3de130f39c9d9e8dd0472489c19b1a020a940da67",
	},
	{
		"2c85efc7f24ee4573d2b81a6ec66cee209b2dcbd09d8eddc51e0215b0b68e416",
		"clutch control vehicle tonight unusual clog visa ice plunge glimpse recipe series open hour vintage deposit universe tip job dress radar refuse motion taste",
		"fe908f96f46668b2d5b37d82f558c77ed0d69dd0e7e043a5b0511c48c2f1064694a956f86360c93dd04052a8899497ce9e985ebe0c8c52b955e6ae86d4ff4449",
	},
	{
		"4fa1a8bc3e6d80ee1316050e862c1812031493212b7ec3f3bb1b08f168cabeef",
		"exile ask congress lamp submit jacket era scheme attend cousin alcohol catch course end lucky hurt sentence oven short ball bird grab wing top",
		"095ee6f817b4c2cb30a5a797360a81a40ab0f9a4e25ecd672a3f58a0b5ba0687c096a6b14d2c0deb3bdefce4f61d01ae07417d502429352e27695163f7447a8c",
	},
	{
		"15da872c95a13dd738fbf50e427583ad61f18fd99f628c417a61cf8343c90419",
		"beyond stage sleep clip because twist token leaf atom beauty genius food business side grid unable middle armed observe pair crouch tonight away coconut",
		"b15509eaa2d09d3efd3e006ef42151b30367dc6e3aa5e44caba3fe4d3e352e65101fbdb86a96776b91946ff06f8eac594dc6ee1d3e82a42dfe1b40fef6bcc3fd",
	},
}

func TestOfficialBIP39Vectors(t *testing.T) {
	for _, v := range officialBIP39 {
		a, err := AccountFromPhrase(v.phrase)
		if err != nil {
			t.Fatalf("%s: %v", v.entropy, err)
		}
		if got := hex.EncodeToString(a.entropy[:]); got != v.entropy {
			t.Errorf("entropy %s, want %s", got, v.entropy)
		}
		if a.Phrase() != v.phrase {
			t.Errorf("%s: phrase %q", v.entropy, a.Phrase())
		}
		// The same derivation that accounts use with an empty passphrase.
		if got := hex.EncodeToString(bip39.NewSeed(v.phrase, "TREZOR")); got != v.seed {
			t.Errorf("%s: seed %s", v.entropy, got)
		}
	}
}

func TestAccountFromPhrase(t *testing.T) {
	good := officialBIP39[5].phrase
	words := strings.Fields(good)
	swapped := append([]string{}, words...)
	swapped[0], swapped[1] = swapped[1], swapped[0]
	misspelt := append([]string{}, words...)
	misspelt[6] = "visas"
	want, err := AccountFromPhrase(good)
	if err != nil {
		t.Fatal(err)
	}
	for name, v := range map[string]struct{ phrase, says string }{
		"as printed":           {good, ""},
		"capitals, odd spaces": {"  " + strings.ToUpper(strings.Join(words, "\n\t ")) + "\r\n", ""},
		"a word missing":       {strings.Join(words[:23], " "), "23 words"},
		"a word too many":      {good + " zoo", "25 words"},
		"empty":                {"", "0 words"},
		"misspelt":             {strings.Join(misspelt, " "), "word 7"},
		"swapped":              {strings.Join(swapped, " "), "checksum"},
		"12 words":             {strings.Repeat("abandon ", 11) + "about", "12 words"},
	} {
		a, err := AccountFromPhrase(v.phrase)
		if v.says == "" {
			if err != nil || a.ID() != want.ID() {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		if !errors.Is(err, ErrPhrase) || !strings.Contains(err.Error(), v.says) {
			t.Errorf("%s: %v, want %q", name, err, v.says)
		}
		if err != nil && strings.Contains(err.Error(), "visas") {
			t.Errorf("%s: the error repeats a word of the phrase", name)
		}
	}
}

func TestSafetyNumber(t *testing.T) {
	ada, bob, eve := newAccount(t, "ada").ID(), newAccount(t, "bob").ID(), newAccount(t, "eve").ID()
	n := NewSafetyNumber(ada, bob)
	if n != NewSafetyNumber(bob, ada) {
		t.Error("not symmetric")
	}
	if len(n) != 60 || strings.Trim(string(n), "0123456789") != "" {
		t.Errorf("%q is not 60 digits", n)
	}
	if lines := strings.Split(n.String(), "\n"); len(lines) != 3 || len(lines[0]) != 23 {
		t.Errorf("shown as %q", n.String())
	}
	for _, same := range []string{string(n), n.String(), n.QRText(), strings.ToLower(n.QRText()), " " + n.String() + "\n"} {
		if err := n.Check(same); err != nil {
			t.Errorf("%q: %v", same, err)
		}
	}
	other := NewSafetyNumber(ada, eve)
	if err := n.Check(string(other)); !errors.Is(err, ErrSafetyMismatch) {
		t.Errorf("another number: %v", err)
	}
	for _, bad := range []string{"", "12345", string(n) + "1", string(n[:59]) + "x", "starling:contact/abc"} {
		if err := n.Check(bad); err == nil || errors.Is(err, ErrSafetyMismatch) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	// Any other bit of either key gives another number.
	for i := range 256 {
		flipped := ada
		flipped[i/8] ^= 1 << (i % 8)
		if NewSafetyNumber(flipped, bob) == n {
			t.Errorf("bit %d does not matter", i)
		}
	}
}

func TestCertificateAt(t *testing.T) {
	a, d := newAccount(t, "ada"), newDevice(t, "laptop")
	now := time.Date(2027, 3, 14, 15, 9, 26, 0, time.UTC)
	c, err := a.CertificateAt(d.ID(), now)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Verify(); err != nil {
		t.Fatal(err)
	}
	if c.Account != a.ID() || c.Device != d.ID() || !c.ValidAt(now) {
		t.Errorf("certificate %+v", c)
	}
	if left := c.NotAfter.Sub(now); left < CertificateLife-CertificateGrid || left > CertificateLife {
		t.Errorf("%s left", left)
	}
	next, err := a.CertificateAt(d.ID(), c.NotBefore.Add(CertificateGrid))
	if err != nil || !next.NotBefore.Equal(c.NotBefore.Add(CertificateGrid)) {
		t.Errorf("next period begins %s: %v", next.NotBefore, err)
	}
	for _, same := range []time.Time{c.NotBefore, c.NotBefore.Add(CertificateGrid - time.Nanosecond)} {
		if again, err := a.CertificateAt(d.ID(), same); err != nil || again != c {
			t.Errorf("at %s another certificate: %v", same, err)
		}
	}
	if _, err := a.CertificateAt(d.ID(), time.Unix(-1e9, 0)); err != nil {
		t.Errorf("before 1970: %v", err)
	}
}

func TestAgreementKey(t *testing.T) {
	d, other := newDevice(t, "laptop"), newDevice(t, "phone")
	key := [32]byte(d.Agreement().PublicKey().Bytes())
	if !VerifyAgreement(d.ID(), key, d.AgreementSignature()) {
		t.Error("own signature does not hold")
	}
	if VerifyAgreement(other.ID(), key, d.AgreementSignature()) {
		t.Error("holds for another device")
	}
	if VerifyAgreement(d.ID(), [32]byte(other.Agreement().PublicKey().Bytes()), d.AgreementSignature()) {
		t.Error("holds for another key")
	}
	if VerifyAgreement(wire.DeviceID{}, key, wire.Signature{}) {
		t.Error("holds for a weak key")
	}
}

func TestSubKeysDiffer(t *testing.T) {
	a, b := newAccount(t, "ada"), newAccount(t, "bob")
	if a.SubKey("x") != newAccount(t, "ada").SubKey("x") {
		t.Error("not repeatable")
	}
	if a.SubKey("x") == a.SubKey("y") || a.SubKey("x") == b.SubKey("x") || a.SubKey("x") == [32]byte(a.key.Seed()) {
		t.Error("keys coincide")
	}
}

func TestShortRandomness(t *testing.T) {
	if _, err := NewAccount(bytes.NewReader(make([]byte, 31))); err == nil {
		t.Error("an account of 31 bytes")
	}
	if _, err := NewDevice(bytes.NewReader(make([]byte, 63))); err == nil {
		t.Error("a device of 63 bytes")
	}
}

func TestIdentityVectors(t *testing.T) {
	type obj = map[string]any
	hexOf := func(b []byte) string { return hex.EncodeToString(b) }
	accounts := []obj{}
	for _, v := range officialBIP39 {
		a, err := AccountFromPhrase(v.phrase)
		if err != nil {
			t.Fatal(err)
		}
		id, sub := a.ID(), a.SubKey("read-marker")
		accounts = append(accounts, obj{
			"entropy": v.entropy, "phrase": v.phrase, "trezor_seed": v.seed, "account": hexOf(id[:]), "account_id": id.String(),
			"fingerprint": wire.Fingerprint(id), "read_marker_key": hexOf(sub[:]),
		})
	}
	ada, bob := newAccount(t, "ada"), newAccount(t, "bob")
	d := newDevice(t, "laptop")
	cert, err := ada.CertificateAt(d.ID(), time.Date(2027, 3, 14, 15, 9, 26, 0, time.UTC))
	if err != nil {
		t.Fatal(err)
	}
	device, agreement := d.ID(), d.AgreementSignature()
	aid, bid := ada.ID(), bob.ID()
	conversation := wire.DirectConversation(aid, bid)
	made := obj{
		"accounts": accounts,
		"safety": []obj{{
			"a": hexOf(aid[:]), "b": hexOf(bid[:]), "number": string(NewSafetyNumber(aid, bid)), "qr": NewSafetyNumber(aid, bid).QRText(),
			"conversation": hexOf(conversation[:]),
		}},
		"device": obj{
			"account_entropy": hexOf(ada.entropy[:]), "account_phrase": ada.Phrase(), "seed": hexOf(d.key.Seed()), "device": hexOf(device[:]),
			"device_id": device.String(), "peer_id": hexOf(device.PeerID()), "agreement_private": hexOf(d.agreement.Bytes()),
			"agreement": hexOf(d.agreement.PublicKey().Bytes()), "agreement_signature": hexOf(agreement[:]),
			"certificate_at": 1805036966000, "certificate": hexOf(cert.Encode()),
		},
		"keys_files": keysFileVectors(t),
	}
	out, err := json.MarshalIndent(made, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	out = append(out, '\n')
	if *update {
		if err := os.WriteFile(vectorsFile, out, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(vectorsFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out, want) {
		t.Error("the code no longer makes the golden vectors; a frozen format must not change")
	}
}
