package wire

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"hash"
	"strings"
	"testing"

	voi "github.com/oasisprotocol/curve25519-voi/primitives/ed25519"
	"golang.org/x/crypto/argon2"
)

// These tests hold the primitives that this package calls to their published vectors; those of the ratchet's
// stand in its own package.

// RFC 8032, section 7.1: both libraries, signing and verifying under the rule that is ours.
func TestEd25519RFC8032(t *testing.T) {
	abc := sha512.Sum512([]byte("abc"))
	for _, v := range []struct {
		name, seed, public string
		message            []byte
		signature          string
	}{
		{
			"1", "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60", "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", nil,
			"e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
		},
		{
			"2", "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb", "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
			[]byte{0x72},
			"92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
		},
		{
			"3", "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7", "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
			[]byte{0xaf, 0x82},
			"6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
		},
		{
			"SHA(abc)", "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42", "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf", abc[:],
			"dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
		},
	} {
		key := ed25519.NewKeyFromSeed(unhex(t, v.seed))
		public := key.Public().(ed25519.PublicKey)
		if !bytes.Equal(public, unhex(t, v.public)) {
			t.Errorf("%s: public key %x", v.name, public)
		}
		sig := ed25519.Sign(key, v.message)
		if !bytes.Equal(sig, unhex(t, v.signature)) {
			t.Errorf("%s: signature %x", v.name, sig)
		}
		if !voi.VerifyWithOptions(voi.PublicKey(public), v.message, sig, zip215) {
			t.Errorf("%s: does not verify", v.name)
		}
		for i := range sig {
			bad := bytes.Clone(sig)
			bad[i] ^= 1
			if voi.VerifyWithOptions(voi.PublicKey(public), v.message, bad, zip215) {
				t.Fatalf("%s: verifies with byte %d altered", v.name, i)
			}
		}
	}
}

// Argon2id, version 0x13, of the reference implementation's own test (src/test.c); it is what makes rooms'
// secrets and wraps the keys file.
func TestArgon2idReference(t *testing.T) {
	for _, v := range []struct {
		time, memory   uint32
		lanes          uint8
		password, salt string
		want           string
	}{
		{2, 1 << 16, 1, "password", "somesalt", "09316115d5cf24ed5a15a31a3ba326e5cf32edc24702987c02b6566f61913cf7"},
		{2, 1 << 8, 1, "password", "somesalt", "9dfeb910e80bad0311fee20f9c0e2b12c17987b4cac90c2ef54d5b3021c68bfe"},
		{2, 1 << 8, 2, "password", "somesalt", "6d093c501fd5999645e0ea3bf620d7b8be7fd2db59c20d9fff9539da2bf57037"},
		{1, 1 << 16, 1, "password", "somesalt", "f6a5adc1ba723dddef9b5ac1d464e180fcd9dffc9d1cbf76cca2fed795d9ca98"},
		{4, 1 << 16, 1, "password", "somesalt", "9025d48e68ef7395cca9079da4c4ec3affb3c8911fe4f86d1a2520856f63172c"},
		{2, 1 << 16, 1, "differentpassword", "somesalt", "0b84d652cf6b0c4beaef0dfe278ba6a80df6696281d7e0d2891b817d8c458fde"},
		{2, 1 << 16, 1, "password", "diffsalt", "bdf32b05ccc42eb15d58fd19b1f856b113da1e9a5874fdcc544308565aa8141c"},
	} {
		if got := argon2.IDKey([]byte(v.password), []byte(v.salt), v.time, v.memory, v.lanes, 32); !bytes.Equal(got, unhex(t, v.want)) {
			t.Errorf("t=%d m=%d p=%d %q %q: %x", v.time, v.memory, v.lanes, v.password, v.salt, got)
		}
	}
}

// RFC 4231: the nonces of sealed events, days of rendezvous and, inside HKDF, every derived key.
func TestHMACRFC4231(t *testing.T) {
	for _, v := range []struct {
		name     string
		hash     func() hash.Hash
		key      []byte
		message  string
		expected string
	}{
		{"1 SHA-256", sha256.New, bytes.Repeat([]byte{0x0b}, 20), "Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"},
		{
			"1 SHA-512", sha512.New, bytes.Repeat([]byte{0x0b}, 20), "Hi There",
			"87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cdedaa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854",
		},
		{"2 SHA-256", sha256.New, []byte("Jefe"), "what do ya want for nothing?", "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"},
		{
			"2 SHA-512", sha512.New, []byte("Jefe"), "what do ya want for nothing?",
			"164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea2505549758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737",
		},
		{"3 SHA-256", sha256.New, bytes.Repeat([]byte{0xaa}, 20), strings.Repeat("\xdd", 50), "773ea91e36800e46854db8ebd09181a72959098b3ef8c122d9635514ced565fe"},
		{"6 SHA-256", sha256.New, bytes.Repeat([]byte{0xaa}, 131), "Test Using Larger Than Block-Size Key - Hash Key First", "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"},
	} {
		m := hmac.New(v.hash, v.key)
		m.Write([]byte(v.message))
		if got := m.Sum(nil); !bytes.Equal(got, unhex(t, v.expected)) {
			t.Errorf("%s: %x", v.name, got)
		}
	}
}
