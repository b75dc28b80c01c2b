package ratchet

import (
	"bytes"
	"crypto/ecdh"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/mlkem"
	"crypto/mlkem/mlkemtest"
	"crypto/sha256"
	"crypto/sha3"
	"encoding/hex"
	"strings"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"
)

// These tests hold the primitives we call to their published vectors: a broken toolchain or a
// wrong call of ours shows here first.

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatalf("decoding hex: %v", err)
	}
	return b
}

func x25519(t *testing.T, scalar, point string) ([]byte, error) {
	t.Helper()
	private, err := ecdh.X25519().NewPrivateKey(unhex(t, scalar))
	if err != nil {
		t.Fatal(err)
	}
	return agree(private, key(unhex(t, point)))
}

func TestX25519RFC7748(t *testing.T) {
	for _, v := range []struct{ name, scalar, point, want string }{
		{
			"5.2 first", "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
			"e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
			"c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
		},
		{
			"5.2 second", "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
			"e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
			"95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
		},
		{
			"6.1 Alice", "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
			"de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
			"4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
		},
		{
			"6.1 Bob", "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
			"8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
			"4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
		},
	} {
		got, err := x25519(t, v.scalar, v.point)
		if err != nil || !bytes.Equal(got, unhex(t, v.want)) {
			t.Errorf("%s: got %x, %v", v.name, got, err)
		}
	}
}

// Points of small order make every agreement zero: a peer that sends one must not get a session
// whose keys anybody knows.
func TestX25519RefusesSmallOrder(t *testing.T) {
	for _, point := range []string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
		"5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"0000000000000000000000000000000000000000000000000000000000000080",
		"e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b880",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	} {
		if got, err := x25519(t, "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4", point); err == nil {
			t.Errorf("point %s gave %x", point, got)
		}
	}
}

func TestHKDFRFC5869(t *testing.T) {
	for _, v := range []struct {
		name, ikm, salt, info, want string
	}{
		{
			"A.1", strings.Repeat("0b", 22), "000102030405060708090a0b0c", "f0f1f2f3f4f5f6f7f8f9",
			"3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
		},
		{
			"A.2",
			`000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f
			 303132333435363738393a3b3c3d3e3f404142434445464748494a4b4c4d4e4f`,
			`606162636465666768696a6b6c6d6e6f707172737475767778797a7b7c7d7e7f808182838485868788898a8b8c8d8e8f
			 909192939495969798999a9b9c9d9e9fa0a1a2a3a4a5a6a7a8a9aaabacadaeaf`,
			`b0b1b2b3b4b5b6b7b8b9babbbcbdbebfc0c1c2c3c4c5c6c7c8c9cacbcccdcecfd0d1d2d3d4d5d6d7d8d9dadbdcdddedf
			 e0e1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff`,
			`b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb41c65e590e09
			 da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87`,
		},
		{
			"A.3", strings.Repeat("0b", 22), "", "",
			"8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
		},
	} {
		want := unhex(t, v.want)
		got, err := hkdf.Key(sha256.New, unhex(t, v.ikm), unhex(t, v.salt), string(unhex(t, v.info)), len(want))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: got %x, %v", v.name, got, err)
		}
	}
}

// The vector of draft-irtf-cfrg-xchacha-03, appendix A.3.1.
func TestXChaCha20Poly1305Draft(t *testing.T) {
	k := unhex(t, "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f")
	nonce := unhex(t, "404142434445464748494a4b4c4d4e4f5051525354555657")
	ad := unhex(t, "50515253c0c1c2c3c4c5c6c7")
	plain := []byte("Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.")
	want := unhex(t, `
		bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39
		ae64c6708c54c216cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9
		21f9664c97637da9768812f615c68b13b52ec0875924c1c7987947deafd8780acf49`)
	aead, err := chacha20poly1305.NewX(k)
	if err != nil {
		t.Fatal(err)
	}
	if got := aead.Seal(nil, nonce, plain, ad); !bytes.Equal(got, want) {
		t.Errorf("sealed %x", got)
	}
	for i := range want {
		bad := bytes.Clone(want)
		bad[i] ^= 1
		if _, err := aead.Open(nil, nonce, bad, ad); err == nil {
			t.Fatalf("opened with byte %d altered", i)
		}
	}
}

// RFC 8439, section 2.8.2: what is inside the envelopes and backups.
func TestChaCha20Poly1305RFC8439(t *testing.T) {
	aead, err := chacha20poly1305.New(unhex(t, "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f"))
	if err != nil {
		t.Fatal(err)
	}
	nonce, ad := unhex(t, "070000004041424344454647"), unhex(t, "50515253c0c1c2c3c4c5c6c7")
	plain := []byte("Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.")
	want := unhex(t, `
		d31a8d34648e60db7b86afbc53ef7ec2a4aded51296e08fea9e2b5a736ee62d63dbea45e8ca9671282fafb69da92728b
		1a71de0a9e060b2905d6a5b67ecd3b3692ddbd7f2d778b8c9803aee328091b58fab324e4fad675945585808b4831d7bc
		3ff4def08e4b7a9de576d26586cec64b61161ae10b594f09e26a7e902ecbd0600691`)
	if got := aead.Seal(nil, nonce, plain, ad); !bytes.Equal(got, want) {
		t.Errorf("sealed %x", got)
	}
	if got, err := aead.Open(nil, nonce, want, ad); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("opened %q, %v", got, err)
	}
}

// FIPS 203, section 7.2: an encapsulation key whose coefficients are not reduced, or of a wrong length, is
// refused, and so is a ciphertext of a wrong length. As in Wycheproof's "modulus check".
func TestMLKEM768RefusesBadKeys(t *testing.T) {
	dk, err := mlkem.GenerateKey768()
	if err != nil {
		t.Fatal(err)
	}
	good := dk.EncapsulationKey().Bytes()
	if _, err := mlkem.NewEncapsulationKey768(good); err != nil {
		t.Fatal(err)
	}
	const q = 3329
	for at := 0; at < mlkem.EncapsulationKeySize768-32; at += 3 {
		bad := bytes.Clone(good)
		bad[at], bad[at+1] = q&0xff, bad[at+1]&0xf0|q>>8 // the first coefficient of two is q
		if _, err := mlkem.NewEncapsulationKey768(bad); err == nil {
			t.Fatalf("a coefficient of q at byte %d is taken", at)
		}
	}
	for name, bad := range map[string][]byte{"short": good[1:], "long": append(bytes.Clone(good), 0), "ones": bytes.Repeat([]byte{0xff}, len(good))} {
		if _, err := mlkem.NewEncapsulationKey768(bad); err == nil {
			t.Errorf("key that is %s is taken", name)
		}
	}
	for _, n := range []int{0, mlkem.CiphertextSize768 - 1, mlkem.CiphertextSize768 + 1} {
		if _, err := dk.Decapsulate(make([]byte, n)); err == nil {
			t.Errorf("ciphertext of %d bytes is taken", n)
		}
	}
}

// The accumulated ML-KEM-768 vector of C2SP/CCTV (CC0): 100 keys from a SHAKE-128 stream, each
// encapsulated to, decapsulated, and given a random ciphertext, which must be rejected implicitly.
func TestMLKEM768Accumulated(t *testing.T) {
	stream, sum := sha3.NewSHAKE128(), sha3.NewSHAKE128()
	read := func(n int) []byte {
		b := make([]byte, n)
		if _, err := stream.Read(b); err != nil {
			t.Fatal(err)
		}
		return b
	}
	for range 100 {
		dk, err := mlkem.NewDecapsulationKey768(read(mlkem.SeedSize))
		if err != nil {
			t.Fatal(err)
		}
		secret, ciphertext, err := mlkemtest.Encapsulate768(dk.EncapsulationKey(), read(32))
		if err != nil {
			t.Fatal(err)
		}
		again, err := dk.Decapsulate(ciphertext)
		if err != nil || !bytes.Equal(again, secret) {
			t.Fatalf("decapsulated %x, %v; want %x", again, err, secret)
		}
		rejected, err := dk.Decapsulate(read(mlkem.CiphertextSize768))
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range [][]byte{dk.EncapsulationKey().Bytes(), ciphertext, secret, rejected} {
			if _, err := sum.Write(part); err != nil {
				t.Fatal(err)
			}
		}
	}
	got := make([]byte, 32)
	if _, err := sum.Read(got); err != nil {
		t.Fatal(err)
	}
	if want := "1114b1b6699ed191734fa339376afa7e285c9e6acf6ff0177d346696ce564415"; hex.EncodeToString(got) != want {
		t.Errorf("accumulated %x, want %s", got, want)
	}
}

// RFC 9180, appendix A.2.1: the suite of our envelopes, first message.
func TestHPKERFC9180(t *testing.T) {
	private, err := ecdh.X25519().NewPrivateKey(unhex(t, "8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb"))
	if err != nil {
		t.Fatal(err)
	}
	own, err := hpke.NewDHKEMPrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	r, err := hpke.NewRecipient(unhex(t, "1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a"), own,
		hpke.HKDFSHA256(), hpke.ChaCha20Poly1305(), unhex(t, "4f6465206f6e2061204772656369616e2055726e"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := r.Open(unhex(t, "436f756e742d30"), unhex(t, `1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db
		21993c62ce81883d2dd1b51a28`))
	if err != nil || string(got) != "Beauty is truth, truth beauty" {
		t.Errorf("opened %q, %v", got, err)
	}
}
