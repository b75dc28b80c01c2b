package ratchet

import (
	"bytes"
	"crypto/ecdh"
	"crypto/mlkem"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the vectors of docs/spec/vectors anew")

const vectorDir = "../../docs/spec/vectors"

var vectorFiles = []string{"dm-handshake.json", "dm-transcript.json", "dm-envelope.json"}

// hexBytes is written as lower-case hexadecimal.
type hexBytes []byte

func (h hexBytes) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

type partyVector struct {
	Account         hexBytes `json:"account"`
	Device          hexBytes `json:"device"`
	IdentityPrivate hexBytes `json:"identity_private"`
}

type responderVector struct {
	partyVector
	PrekeyID       uint32   `json:"prekey_id"`
	PrekeyPrivate  hexBytes `json:"prekey_private"`
	KEMSeed        hexBytes `json:"kem_seed"`
	KEMKey         hexBytes `json:"kem_encapsulation_key"`
	OneTimeID      *uint32  `json:"one_time_id,omitempty"`
	OneTimePrivate hexBytes `json:"one_time_private,omitempty"`
}

type handshakeVector struct {
	Name             string          `json:"name"`
	Initiator        partyVector     `json:"initiator"`
	Responder        responderVector `json:"responder"`
	EphemeralPrivate hexBytes        `json:"ephemeral_private"`
	RatchetPrivate   hexBytes        `json:"ratchet_private"`
	KEMCiphertext    hexBytes        `json:"kem_ciphertext"`
	KEMSecret        hexBytes        `json:"kem_shared_secret"`
	Replaces         []hexBytes      `json:"replaces"`

	Transcript hexBytes      `json:"transcript"`
	Session    hexBytes      `json:"session_id"`
	Root       hexBytes      `json:"root"`
	InitPart   hexBytes      `json:"init_part"`
	First      messageVector `json:"first_message"`
}

type messageVector struct {
	Receipt        bool     `json:"receipt,omitempty"` // may go on with a spent sending chain
	Content        hexBytes `json:"content"`
	AD             hexBytes `json:"ad"`
	RatchetPrivate hexBytes `json:"ratchet_private,omitempty"` // if this message begins a sending chain
	Nonce          hexBytes `json:"nonce"`
	Sealed         hexBytes `json:"sealed"`
}

// eventVector is one step of the transcript: a message sealed, or the message of that number opened.
type eventVector struct {
	Do      string         `json:"do"` // "seal" or "open"
	By      string         `json:"by"` // "initiator" or "responder"
	Number  int            `json:"number"`
	Message *messageVector `json:"message,omitempty"`
}

type handshakeFile struct {
	Spec       string            `json:"spec"`
	Handshakes []handshakeVector `json:"handshakes"`
}

type transcriptFile struct {
	Spec      string          `json:"spec"`
	Handshake handshakeVector `json:"handshake"`
	Events    []eventVector   `json:"events"`
}

type envelopeFile struct {
	Spec           string   `json:"spec"`
	Device         hexBytes `json:"recipient_device"`
	PrivateKey     hexBytes `json:"envelope_private"`
	Sealed         hexBytes `json:"sealed"`
	Envelope       hexBytes `json:"envelope"`
	CommentOnBytes string   `json:"comment"`
}

const specName = "docs/spec/dm.md, version 1"

// recorder remembers what was drawn.
type recorder struct {
	from  io.Reader
	drawn []byte
}

func (r *recorder) Read(b []byte) (int, error) {
	n, err := r.from.Read(b)
	r.drawn = append(r.drawn, b[:n]...)
	return n, err
}

func describe(d *device) partyVector {
	return partyVector{d.party.Account[:], d.party.Device[:], d.secrets.Identity.Bytes()}
}

func describeResponder(d *device, b *Bundle, kemSeed []byte) responderVector {
	pre := d.secrets.Prekeys[b.PrekeyID]
	v := responderVector{partyVector: describe(d), PrekeyID: b.PrekeyID, PrekeyPrivate: pre.DH.Bytes(), KEMSeed: kemSeed, KEMKey: b.KEM}
	if b.OneTime != nil {
		v.OneTimeID, v.OneTimePrivate = &b.OneTime.ID, d.secrets.OneTime[b.OneTime.ID].Bytes()
	}
	return v
}

// sealVector seals and describes one message.
func sealVector(t *testing.T, s *side, receipt bool, content, ad []byte) messageVector {
	t.Helper()
	r := &recorder{from: s.random}
	sealed, _, err := s.seal(r, receipt, content, ad)
	if err != nil {
		t.Fatal(err)
	}
	v := messageVector{Receipt: receipt, Content: content, AD: ad, Sealed: sealed, Nonce: r.drawn[len(r.drawn)-24:]}
	if len(r.drawn) > 24 {
		v.RatchetPrivate = r.drawn[:32]
	}
	return v
}

// makeHandshake lets a begin a session with b and seal its first message.
func makeHandshake(t *testing.T, name string, a, b *side, oneTime bool) handshakeVector {
	t.Helper()
	bundle := b.bundle()
	if oneTime {
		bundle = b.bundleWithOneTime()
	}
	var secret, ciphertext []byte
	encapsulate := func(ek *mlkem.EncapsulationKey768) ([]byte, []byte) {
		secret, ciphertext = derandomized(seeded(1))(ek)
		return secret, ciphertext
	}
	r := &recorder{from: a.random}
	if _, err := a.initiate(r, encapsulate, a.secrets, bundle); err != nil {
		t.Fatal(err)
	}
	s := a.sealing()
	_, init := encoded(s.init)
	id := s.id()
	v := handshakeVector{
		Name: name, Initiator: describe(a.device),
		Responder:        describeResponder(b.device, bundle, b.secrets.Prekeys[testPrekey].KEM.Bytes()),
		EphemeralPrivate: r.drawn[:32], RatchetPrivate: r.drawn[32:], KEMCiphertext: ciphertext, KEMSecret: secret,
		Replaces: []hexBytes{}, Transcript: s.transcript[:], Session: id[:], InitPart: init,
	}
	for _, replaced := range s.replaces {
		v.Replaces = append(v.Replaces, replaced[:])
	}
	// The root key before the first step is what the responder has.
	responding, err := respond(&b.self, &b.peer, b.secrets, s.init)
	if err != nil {
		t.Fatal(err)
	}
	v.Root = bytes.Clone(responding.root[:])
	v.First = sealVector(t, a, false, []byte("first of "+name), []byte{})
	return v
}

func encoded(p *initPart) (flags byte, b []byte) {
	var c codec
	p.code(&c, p.flags())
	return p.flags(), c.b
}

func makeHandshakes(t *testing.T) handshakeFile {
	t.Helper()
	f := handshakeFile{Spec: specName}
	a, b := pair(t, 80)
	f.Handshakes = append(f.Handshakes, makeHandshake(t, "without one-time key", a, b, false))
	a, b = pair(t, 81)
	f.Handshakes = append(f.Handshakes, makeHandshake(t, "with one-time key", a, b, true))
	a, b = pair(t, 82)
	a.start(b)
	a.lost = []SessionID{{1, 2, 3}, {4, 5, 6}}
	f.Handshakes = append(f.Handshakes, makeHandshake(t, "replacing one held and two lost sessions", a, b, true))
	return f
}

func makeTranscript(t *testing.T) transcriptFile {
	t.Helper()
	a, b := pair(t, 83)
	f := transcriptFile{Spec: specName, Handshake: makeHandshake(t, "transcript", a, b, true)}
	sides, peers := map[string]*side{"initiator": a, "responder": b}, map[string]string{"initiator": "responder", "responder": "initiator"}
	var messages []messageVector
	var authors []string
	add := func(by string, v messageVector) {
		f.Events = append(f.Events, eventVector{Do: "seal", By: by, Number: len(messages), Message: &v})
		messages, authors = append(messages, v), append(authors, by)
	}
	seal := func(by string, length int, ad string) {
		content := bytes.Repeat([]byte(by[:1]), length)
		add(by, sealVector(t, sides[by], false, content, []byte(ad)))
	}
	receipt := func(by string) { add(by, sealVector(t, sides[by], true, []byte("ack"), nil)) }
	open := func(numbers ...int) {
		for _, n := range numbers {
			by := peers[authors[n]]
			f.Events = append(f.Events, eventVector{Do: "open", By: by, Number: n})
			opened, err := sides[by].Open(sides[by].secrets, messages[n].Sealed, messages[n].AD)
			if err != nil || !bytes.Equal(opened.Content, messages[n].Content) {
				t.Fatalf("message %d: %v", n, err)
			}
		}
	}
	add("initiator", f.Handshake.First) // 0
	seal("initiator", 0, "")            // 1, with the init part too
	seal("initiator", 700, "")          // 2
	open(2, 0)                          // the session begins with the third
	seal("responder", 1, "")            // 3
	seal("responder", 91, "ad")         // 4: the longest in 256 bytes
	seal("responder", 92, "ad")         // 5: 512 bytes
	open(5, 3)
	seal("initiator", 10, "")  // 6: a new ratchet key
	seal("initiator", 11, "")  // 7
	open(7, 1)                 // a message of the first chain comes late
	seal("responder", 12, "")  // 8
	seal("initiator", 13, "x") // 9: before the answer came
	open(8, 9, 4)
	seal("initiator", 14, "")   // 10
	seal("initiator", 15, "")   // 11
	seal("initiator", 1000, "") // 12
	open(12)
	receipt("responder") // 13: on the spent chain
	open(13)
	seal("initiator", 17, "") // 14: no new key has come
	receipt("responder")      // 15
	open(14, 15)
	seal("responder", 19, "")   // 16
	seal("responder", 20, "")   // 17
	seal("initiator", 21, "")   // 18
	seal("responder", 2000, "") // 19
	open(19, 18, 17, 16, 11, 10, 6)
	if len(messages) != 20 {
		t.Fatalf("%d messages", len(messages))
	}
	return f
}

// frozen compares what the code makes with what stands in the repository.
func frozen(t *testing.T, name string, made any) {
	t.Helper()
	got, err := json.MarshalIndent(made, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	got = append(got, '\n')
	path := filepath.Join(vectorDir, name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: the code makes something else than the frozen vectors. What is on the wire has changed: that needs a new version", name)
	}
}

func TestFrozenHandshakes(t *testing.T) { frozen(t, "dm-handshake.json", makeHandshakes(t)) }
func TestFrozenTranscript(t *testing.T) { frozen(t, "dm-transcript.json", makeTranscript(t)) }

// HPKE draws its own randomness, so the envelope is frozen in one direction.
func TestFrozenEnvelope(t *testing.T) {
	path := filepath.Join(vectorDir, "dm-envelope.json")
	b, err := os.ReadFile(path)
	if *update && errors.Is(err, fs.ErrNotExist) {
		b = makeEnvelope(t)
		err = os.WriteFile(path, b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	var v envelopeFile
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	private, err := ecdh.X25519().NewPrivateKey(v.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := Unwrap(key(v.Device), private, v.Envelope)
	if err != nil || !bytes.Equal(sealed, v.Sealed) {
		t.Errorf("the frozen envelope holds something else: %v", err)
	}
}

func makeEnvelope(t *testing.T) []byte {
	t.Helper()
	a, b := talking(t, 84)
	private, err := newKey(seeded(85))
	if err != nil {
		t.Fatal(err)
	}
	v := envelopeFile{Spec: specName, Device: b.party.Device[:], PrivateKey: private.Bytes(), Sealed: a.says("by mail")}
	v.CommentOnBytes = "HPKE is randomized: an implementation checks that it opens the envelope, not that it makes it"
	if v.Envelope, err = Wrap(b.party.Device, private.PublicKey(), v.Sealed); err != nil {
		t.Fatal(err)
	}
	out, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return append(out, '\n')
}

// The second implementation of the specification agrees with the frozen vectors, and would
// notice if they were different.
func TestSecondImplementation(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed: the vectors are not checked by the second implementation")
	}
	script, err := filepath.Abs(filepath.Join(vectorDir, "check-dm.mjs"))
	if err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (string, error) {
		out, err := exec.CommandContext(t.Context(), node, append([]string{script}, args...)...).CombinedOutput()
		return string(out), err
	}
	out, err := run()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if want := "ok: 3 handshakes, 20 messages, 1 envelope"; !strings.Contains(out, want) {
		t.Errorf("said %q, not %q", out, want)
	}
	for _, name := range vectorFiles {
		t.Run("altered "+name, func(t *testing.T) {
			dir := t.TempDir()
			for _, file := range vectorFiles {
				b, err := os.ReadFile(filepath.Join(vectorDir, file))
				if err != nil {
					t.Fatal(err)
				}
				if file == name {
					at := bytes.LastIndex(b, []byte(`"sealed": "`)) + len(`"sealed": "`) + 400
					b[at] = "10"[min(1, b[at]-'0')] // another digit
				}
				if err := os.WriteFile(filepath.Join(dir, file), b, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if out, err := run(dir); err == nil {
				t.Errorf("an altered vector was accepted: %s", out)
			}
		})
	}
}
