package wire

import (
	"crypto/ed25519"
	"crypto/sha512"
	"encoding/hex"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/oasisprotocol/curve25519-voi/curve"
	"github.com/oasisprotocol/curve25519-voi/curve/scalar"
)

// smallOrder lists all encodings that ZIP 215 decodes to a point of small
// order: the canonical encodings of the eight points and the six that are not
// canonical (y not reduced, or x = 0 with the sign bit set).
var smallOrder = []string{
	"0100000000000000000000000000000000000000000000000000000000000000",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
	"0000000000000000000000000000000000000000000000000000000000000080",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
	"0000000000000000000000000000000000000000000000000000000000000000",
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
	"0100000000000000000000000000000000000000000000000000000000000080",
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
}

// groupOrder is the order of the base point's subgroup, 2^252 + 27742317777372353535851937790883648493.
var groupOrder, _ = new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)

type signatureVector struct {
	Why       string `json:"why"`
	Domain    Domain `json:"domain"`
	Payload   string `json:"payload"`
	Key       string `json:"key"`
	Signature string `json:"signature"`
	Valid     bool   `json:"valid"`
}

// edgeSignatures makes cases on which Ed25519 libraries differ, with the answer
// that ZIP 215 gives.
func edgeSignatures(t testing.TB) []signatureVector {
	payload := []byte("payload")
	out := []signatureVector{}
	add := func(why string, key []byte, sig []byte, valid bool) {
		out = append(out, signatureVector{
			why, DomainEvent, hex.EncodeToString(payload), hex.EncodeToString(key), hex.EncodeToString(sig), valid,
		})
	}
	key := testKey("signer")
	public := key.Public().(ed25519.PublicKey)
	good := Sign(DomainEvent, key, payload)
	add("ordinary", public, good[:], true)
	other := Sign(DomainSealed, key, payload)
	add("other domain", public, other[:], false)
	raw := ed25519.Sign(key, payload)
	add("no domain", public, raw, false)
	add("S + L", public, addOrder(good), false)
	notPoint := make([]byte, 32)
	notPoint[0] = 2 // y = 2 is on no point
	add("A is no point", notPoint, good[:], false)
	badR := good
	copy(badR[:32], notPoint)
	add("R is no point", public, badR[:], false)
	for _, a := range smallOrder {
		for _, r := range smallOrder {
			sig := append(unhex(t, r), make([]byte, 32)...)
			add("A and R of small order, S = 0", unhex(t, a), sig, true)
		}
	}
	sig := append(unhex(t, smallOrder[0]), make([]byte, 32)...)
	sig[32] = 1
	add("A and R of small order, S = 1", unhex(t, smallOrder[0]), sig, false)
	for i := range 8 {
		a, s := mixedOrder(t, payload, unhex(t, smallOrder[i]), i%2 == 0)
		add("A with a component of small order", a, s, true)
	}
	return out
}

// addOrder returns the signature with the group order added to S, which
// verifiers that do not check the range of S accept too.
func addOrder(sig Signature) []byte {
	s := new(big.Int).SetBytes(reversed(sig[32:]))
	s.Add(s, groupOrder)
	out := append([]byte{}, sig[:32]...)
	return append(out, reversed(s.FillBytes(make([]byte, 32)))...)
}

func reversed(b []byte) []byte {
	out := make([]byte, len(b))
	for i := range b {
		out[len(b)-1-i] = b[i]
	}
	return out
}

// mixedOrder makes a signature by the key aB + T, where T has small order, with
// R = rB or rB + T. The cofactored equation holds; the one without cofactor
// mostly does not.
func mixedOrder(t testing.TB, payload, torsion []byte, plainR bool) (key, sig []byte) {
	t.Helper()
	var a, r, k, s scalar.Scalar
	seed := fill("mixed")
	wide := sha512.Sum512(seed[:])
	must(t, second(a.SetBytesModOrderWide(wide[:])))
	wide = sha512.Sum512(wide[:])
	must(t, second(r.SetBytesModOrderWide(wide[:])))
	point := func(n *scalar.Scalar, add bool) []byte {
		var p, q curve.EdwardsPoint
		var y curve.CompressedEdwardsY
		p.MulBasepoint(curve.ED25519_BASEPOINT_TABLE, n)
		if add {
			copy(y[:], torsion)
			must(t, second(q.SetCompressedY(&y)))
			p.Add(&p, &q)
		}
		y.SetEdwardsPoint(&p)
		return append([]byte{}, y[:]...)
	}
	key = point(&a, true)
	first := point(&r, !plainR)
	h := sha512.New()
	h.Write(first)
	h.Write(key)
	h.Write(signedMessage(DomainEvent, payload))
	must(t, second(k.SetBytesModOrderWide(h.Sum(nil))))
	s.Mul(&k, &a)
	s.Add(&s, &r)
	last := make([]byte, 32)
	must(t, s.ToBytes(last))
	return key, append(first, last...)
}

func second[T any](_ T, err error) error { return err }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestSignatureVectors(t *testing.T) {
	checkVectors(t, "signatures.json", edgeSignatures(t))
}

// TestZIP215 checks that every way of verifying gives ZIP 215's answer, and that
// the edge cases are such that the standard library differs on some.
func TestZIP215(t *testing.T) {
	var vectors []signatureVector
	readVectors(t, "signatures.json", &vectors)
	differs := 0
	b := newBatch(len(vectors))
	var batched []int
	for i, v := range vectors {
		key, payload := [32]byte(unhex(t, v.Key)), unhex(t, v.Payload)
		sig := Signature(unhex(t, v.Signature))
		if got := VerifySignature(v.Domain, key, payload, sig); got != v.Valid {
			t.Errorf("%d %s: single says %v", i, v.Why, got)
		}
		verifier := NewVerifier(VerifierLimits{})
		for range 2 { // the second time from the cache
			if got := verifier.verify(v.Domain, key, payload, sig); got != v.Valid {
				t.Errorf("%d %s: expanded says %v", i, v.Why, got)
			}
		}
		if k, err := expand(key); err == nil {
			b.add(v.Domain, k, payload, sig)
			batched = append(batched, i)
			if v.Valid { // a batch in which all hold takes another path
				one := newBatch(2)
				one.add(v.Domain, k, payload, sig)
				one.add(v.Domain, k, payload, sig)
				if got := one.verify(); !got[0] || !got[1] {
					t.Errorf("%d %s: batch says %v", i, v.Why, got)
				}
			}
		}
		if ed25519.Verify(key[:], signedMessage(v.Domain, payload), sig[:]) != v.Valid {
			differs++
		}
	}
	for k, got := range b.verify() {
		if v := vectors[batched[k]]; got != v.Valid {
			t.Errorf("%d %s: mixed batch says %v", batched[k], v.Why, got)
		}
	}
	if differs == 0 {
		t.Error("the standard library gives the same answers: these are no edge cases")
	}
}

func TestWeakKey(t *testing.T) {
	for _, s := range smallOrder {
		if !WeakKey([32]byte(unhex(t, s))) {
			t.Errorf("%s is not weak", s)
		}
	}
	if !WeakKey([32]byte{2}) {
		t.Error("a key that is no point is not weak")
	}
	if WeakKey(publicKey(testKey("ada"))) {
		t.Error("an ordinary key is weak")
	}
}

// allDomains returns every signing domain, and fails if the source knows one that is not listed here, if two
// are one text, or if one is missing from the specifications.
func allDomains(t *testing.T) []Domain {
	t.Helper()
	listed := map[string]Domain{
		"DomainEvent": DomainEvent, "DomainSealed": DomainSealed, "DomainCertificate": DomainCertificate,
		"DomainDeviceList": DomainDeviceList, "DomainPrekeys": DomainPrekeys, "DomainAgreement": DomainAgreement,
		"DomainSync": DomainSync, "DomainAttach": DomainAttach, "DomainMailbox": DomainMailbox,
		"DomainReceipt": DomainReceipt, "DomainInvite": DomainInvite, "DomainStanding": DomainStanding, "DomainBundle": DomainBundle,
	}
	specs := ""
	pages, err := filepath.Glob("../../docs/spec/*.md")
	must(t, err)
	for _, page := range pages {
		b, err := os.ReadFile(page)
		must(t, err)
		specs += string(b)
	}
	declared := 0
	files, err := filepath.Glob("*.go")
	must(t, err)
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		must(t, err)
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok {
				return true
			}
			if kind, ok := spec.Type.(*ast.Ident); !ok || kind.Name != "Domain" {
				return true
			}
			for _, id := range spec.Names {
				declared++
				if _, ok := listed[id.Name]; !ok {
					t.Errorf("%s declares %s, which is not listed here: it is not checked against the others", name, id.Name)
				}
			}
			return true
		})
	}
	if declared != len(listed) {
		t.Errorf("%d domains are declared, %d listed", declared, len(listed))
	}
	texts := make(map[Domain]string)
	var out []Domain
	for name, d := range listed {
		if other, twice := texts[d]; twice {
			t.Errorf("%s and %s are both %q", name, other, d)
		}
		texts[d] = name
		if !strings.Contains(specs, "`"+string(d)+"`") {
			t.Errorf("no specification names the domain %q", d)
		}
		out = append(out, d)
	}
	return out
}

// TestSignaturesAreMadeHereOnly keeps anything from being signed without a domain, by looking for it in the
// source.
func TestSignaturesAreMadeHereOnly(t *testing.T) {
	seen := 0
	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "bench" || d.Name() == "testdata" || d.Name() == ".git"):
			return fs.SkipDir // bench has an anchor of its own
		case !strings.HasSuffix(path, ".go"), strings.HasSuffix(path, "_test.go"):
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok {
				return true
			}
			if pkg, ok := sel.X.(*ast.Ident); ok && pkg.Name == "ed25519" && strings.HasPrefix(sel.Sel.Name, "Sign") {
				if seen++; filepath.Base(path) != "signature.go" {
					t.Errorf("%s signs by itself", path)
				}
			}
			if sel.Sel.Name == "Sign" && len(call.Args) == 3 {
				if lit, ok := call.Args[0].(*ast.BasicLit); ok && lit.Kind == token.STRING {
					t.Errorf("%s signs under a domain that is no constant of this package", path)
				}
			}
			return true
		})
		return nil
	})
	must(t, err)
	if seen != 1 {
		t.Errorf("%d places sign, want one", seen)
	}
}

// TestDomainsApart signs one payload in every domain and verifies it in every
// other.
func TestDomainsApart(t *testing.T) {
	domains := allDomains(t)
	key := testKey("signer")
	payload := fill("payload")
	for _, signed := range domains {
		sig := Sign(signed, key, payload[:])
		for _, checked := range domains {
			if got := VerifySignature(checked, publicKey(key), payload[:], sig); got != (signed == checked) {
				t.Errorf("signed as %s, checked as %s: %v", signed, checked, got)
			}
		}
	}
	// The separator keeps a domain and its payload from sliding into each other.
	sig := Sign("starling/a", key, []byte("bc"))
	if VerifySignature("starling/ab", publicKey(key), []byte("c"), sig) {
		t.Error("domain and payload run into each other")
	}
}

func TestCacheForgetsTheOldest(t *testing.T) {
	c := newRecent[int, int](4)
	for i := range 100 {
		c.put(i, i)
		if _, ok := c.get(0); !ok {
			t.Fatalf("an entry in use was forgotten after %d others", i)
		}
		if n := len(c.young) + len(c.old); n > 4 {
			t.Fatalf("%d entries, at most 4", n)
		}
	}
	if _, ok := c.get(1); ok {
		t.Error("an unused entry was kept")
	}
	if v, ok := c.get(99); !ok || v != 99 {
		t.Error("the newest entry is gone")
	}
}
