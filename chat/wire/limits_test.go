package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"
)

// limitCase tries something of a size; up to limit it must succeed.
type limitCase struct {
	limit int
	try   func(n int) error
}

// checkLimits takes each limit exactly, and refuses one more.
func checkLimits(t *testing.T, cases map[string]limitCase) {
	t.Helper()
	for name, c := range cases {
		if err := c.try(c.limit); err != nil {
			t.Errorf("%s of %d: %v", name, c.limit, err)
		}
		if err := c.try(c.limit + 1); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s of %d: %v", name, c.limit+1, err)
		}
	}
}

func letters(n int) string { return strings.Repeat("x", n) }

// numbered returns n accounts in ascending order.
func numbered(n int) []AccountID {
	out := make([]AccountID, n)
	for i := range out {
		binary.BigEndian.PutUint32(out[i][:], uint32(i+1))
	}
	return out
}

// codeBody encodes and decodes a body.
func codeBody(b Body) error {
	content, err := EncodeBody(b)
	if err == nil {
		_, err = ParseBody(b.EventKind(), content)
	}
	return err
}

// codeFrame encodes and decodes a frame.
func codeFrame(protocol string, f Frame) error {
	payload, err := EncodeFrame(f)
	if err == nil {
		_, err = frameParsers[protocol](payload)
	}
	return err
}

// makeEvent makes an event whose header is changed first.
func makeEvent(t *testing.T, change func(*Header)) error {
	t.Helper()
	h := testEvent(t, testRoomKeys(t), &JoinBody{}, nil).Header
	change(&h)
	_, err := NewEvent(h, nil, testKey("ada/laptop"), random("s"))
	return err
}

func TestBodyLimits(t *testing.T) {
	acct, topic := AccountID{1}, TopicKey{1}
	checkLimits(t, map[string]limitCase{
		"text":     {MaxText, func(n int) error { return codeBody(&MessageBody{Text: letters(n)}) }},
		"edit":     {MaxText, func(n int) error { return codeBody(&EditBody{Text: letters(n)}) }},
		"mentions": {MaxMentions, func(n int) error { return codeBody(&MessageBody{Text: "x", Mentions: numbered(n)}) }},
		"files": {MaxAttachments, func(n int) error {
			files := make([]File, n)
			for i := range files {
				files[i] = File{Name: letters(MaxFileName), MediaType: letters(MaxMediaType)}
			}
			return codeBody(&MessageBody{Files: files})
		}},
		"file name":  {MaxFileName, func(n int) error { return codeBody(&MessageBody{Files: []File{{Name: letters(n)}}}) }},
		"media type": {MaxMediaType, func(n int) error { return codeBody(&MessageBody{Files: []File{{Name: "x", MediaType: letters(n)}}}) }},
		"nick":       {MaxNick, func(n int) error { return codeBody(&ProfileBody{Nick: letters(n)}) }},
		"about":      {MaxAbout, func(n int) error { return codeBody(&ProfileBody{Nick: "x", About: letters(n)}) }},
		"reason":     {MaxReason, func(n int) error { return codeBody(&BanBody{Account: acct, Reason: letters(n)}) }},
		"leave":      {MaxReason, func(n int) error { return codeBody(&LeaveBody{Reason: letters(n)}) }},
		"redact":     {MaxReason, func(n int) error { return codeBody(&RedactBody{Reason: letters(n)}) }},
		"topic":      {MaxTopicText, func(n int) error { return codeBody(&TopicBody{Text: letters(n)}) }},
		"reaction":   {MaxReaction, func(n int) error { return codeBody(&ReactBody{Symbol: letters(n)}) }},
		"marker":     {MaxReadMarkerBox, func(n int) error { return codeBody(&ReadMarkerBody{Box: make([]byte, n)}) }},
		"room":       {MaxPrivateName, func(n int) error { return codeBody(&CreateBody{Name: letters(n), Topic: topic, Network: "m"}) }},
		"network": {MaxNetworkName, func(n int) error {
			return codeBody(&CreateBody{Name: "n", Topic: topic, Network: letters(n)})
		}},
		"rate":    {MaxRatePerMinute, func(n int) error { return codeBody(&PolicyBody{RatePerMinute: uint32(n)}) }},
		"burst":   {MaxBurst, func(n int) error { return codeBody(&PolicyBody{Burst: uint32(n)}) }},
		"days":    {maxHistoryDays, func(n int) error { return codeBody(&PolicyBody{HistoryDays: uint32(n)}) }},
		"events":  {maxHistoryEvents, func(n int) error { return codeBody(&PolicyBody{HistoryEvents: uint32(n)}) }},
		"expiry":  {maxExpirySeconds, func(n int) error { return codeBody(&PolicyBody{ExpirySeconds: uint32(n)}) }},
		"role":    {int(RoleOwner), func(n int) error { return codeBody(&RoleBody{Account: acct, Role: Role(n)}) }},
		"post":    {int(RoleOwner), func(n int) error { return codeBody(&PolicyBody{PostRole: Role(n)}) }},
		"style":   {int(StyleNotice), func(n int) error { return codeBody(&MessageBody{Text: "x", Style: Style(n)}) }},
		"present": {int(PresenceGone), func(n int) error { return codeBody(&PresenceBody{State: Presence(n)}) }},
	})
}

func TestHeaderLimits(t *testing.T) {
	checkLimits(t, map[string]limitCase{
		"parents": {MaxParents, func(n int) error {
			return makeEvent(t, func(h *Header) {
				for _, a := range numbered(n) {
					h.Parents = append(h.Parents, EventID(a))
				}
			})
		}},
		"attachments": {MaxAttachments, func(n int) error {
			return makeEvent(t, func(h *Header) { h.Attachments = make([]Attachment, n); fillSizes(h.Attachments) })
		}},
		"attachment": {MaxAttachmentSize, func(n int) error {
			return makeEvent(t, func(h *Header) { h.Attachments = []Attachment{{Size: uint64(n)}} })
		}},
		"content": {MaxBody - BodySaltSize, func(n int) error {
			_, err := NewEvent(testEvent(t, testRoomKeys(t), &JoinBody{}, nil).Header, make([]byte, n), testKey("ada/laptop"), random("s"))
			return err
		}},
	})
}

func TestDMFrameLimits(t *testing.T) {
	checkLimits(t, map[string]limitCase{
		"envelope": {MaxEnvelope, func(n int) error { return codeFrame("dm", &DMData{Envelope: make([]byte, n)}) }},
		"acks":     {MaxAcks, func(n int) error { return codeFrame("dm", &DMAck{Kind: ReceiptRead, IDs: msgIDs(n)}) }},
		"capabilities": {MaxCapabilities, func(n int) error {
			return codeFrame("dm", &DMHello{Certificate: testCertificate(t), Capabilities: names(n)})
		}},
		"capability": {MaxCapability, func(n int) error {
			return codeFrame("dm", &DMHello{Certificate: testCertificate(t), Capabilities: []string{letters(n)}})
		}},
	})
}

func TestRelayLimits(t *testing.T) {
	checkLimits(t, map[string]limitCase{
		"topics": {MaxAttachTopics, func(n int) error {
			f := &RelayDetach{}
			for _, a := range numbered(n) {
				f.Topics = append(f.Topics, TopicKey(a))
			}
			return codeFrame("relay", f)
		}},
		"attach": {MaxAttachTopics, func(n int) error {
			f := &RelayAttach{Want: WantForward, Lease: MaxLease, Nonce: [32]byte{1}}
			for _, a := range numbered(n) {
				f.Topics = append(f.Topics, RelayTopic{Topic: TopicKey(a)})
			}
			return codeFrame("relay", f)
		}},
		"lease": {int(MaxLease / time.Second), func(n int) error {
			return codeFrame("relay", &RelayAttach{Want: WantForward, Lease: time.Duration(n) * time.Second, Nonce: [32]byte{1}, Topics: []RelayTopic{{Topic: TopicKey{1}}}})
		}},
		"grants": {MaxAttachTopics, func(n int) error {
			f := &RelayAttached{Code: RelayOK}
			for _, a := range numbered(n) {
				f.Grants = append(f.Grants, RelayGrant{Topic: TopicKey(a), Code: RelayOK, Lease: MaxLease})
			}
			return codeFrame("relay", f)
		}},
		"deposit": {MaxEnvelope, func(n int) error {
			return codeFrame("mailbox", &MailboxDeposit{Mailbox: MailboxID{1}, Keep: time.Second, Envelope: make([]byte, n)})
		}},
		"keep": {int(MaxMailboxLife / time.Second), func(n int) error {
			return codeFrame("mailbox", &MailboxDeposit{Mailbox: MailboxID{1}, Keep: time.Duration(n) * time.Second, Envelope: []byte{1}})
		}},
		"collect": {MaxCollect, func(n int) error {
			return codeFrame("mailbox", &MailboxCollect{Mailbox: MailboxID{1}, Nonce: [32]byte{1}, Proof: Signature{1}, Limit: uint32(n)})
		}},
		"items": {MaxCollect, func(n int) error {
			f := &MailboxItems{Code: RelayOK}
			for _, a := range numbered(n) {
				f.Items = append(f.Items, MailboxItem{Deposit: DepositID(a), Envelope: []byte{1}})
			}
			return codeFrame("mailbox", f)
		}},
		"delete": {MaxDelete, func(n int) error {
			f := &MailboxDelete{Mailbox: MailboxID{1}, Nonce: [32]byte{1}, Proof: Signature{1}}
			for _, a := range numbered(n) {
				f.Deposits = append(f.Deposits, DepositID(a))
			}
			return codeFrame("mailbox", f)
		}},
	})
}

func TestLinkAndContentLimits(t *testing.T) {
	checkLimits(t, map[string]limitCase{
		"addresses": {MaxLinkAddresses, func(n int) error {
			_, err := (&RoomLink{Name: "x", Addresses: addresses(n)}).Text()
			return err
		}},
		"address": {MaxAddress, func(n int) error {
			_, err := (&RoomLink{Name: "x", Addresses: []string{"/" + letters(n-1)}}).Text()
			return err
		}},
		"dm body": {MaxDMBody, func(n int) error {
			c := *testContents(t)[0]
			c.Body = make([]byte, n)
			raw, err := c.Encode()
			if err == nil {
				_, err = ParseDMContent(raw)
			}
			return err
		}},
		"invite body": {MaxLink, func(n int) error { _, err := EncodeDMBody(&JoinRequestBody{Invite: make([]byte, n)}); return err }},
		"record body": {MaxRecord, func(n int) error { _, err := EncodeDMBody(&RecordsBody{DeviceList: make([]byte, n)}); return err }},
	})
}

func fillSizes(list []Attachment) {
	for i := range list {
		list[i].Size = MaxAttachmentSize
	}
}

func msgIDs(n int) []MsgID {
	out := make([]MsgID, n)
	for i := range out {
		binary.BigEndian.PutUint32(out[i][:], uint32(i+1))
	}
	return out
}

func names(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = string(rune('A' + i))
	}
	return out
}

func addresses(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = "/x"
	}
	return out
}

// TestLargestSealedEventFits seals an event with everything at its limit.
func TestLargestSealedEventFits(t *testing.T) {
	keys := testRoomKeys(t)
	h := testEvent(t, keys, &JoinBody{}, fullHeader).Header
	h.Attachments = make([]Attachment, MaxAttachments)
	fillSizes(h.Attachments)
	h.Extensions = nil
	h.Extensions = extension(100, strings.Repeat("x", MaxHeader-len(h.encode())-6))
	e, err := NewEvent(h, make([]byte, MaxBody-BodySaltSize), testKey("ada/laptop"), random("s"))
	must(t, err)
	if n := len(e.Header.encode()); n != MaxHeader {
		t.Errorf("header of %d bytes is not the largest", n)
	}
	s, err := keys.Seal(e)
	must(t, err)
	checked, err := CheckSealed(keys.Topic, s.Bytes())
	must(t, err)
	if _, err := keys.Open(checked); err != nil {
		t.Fatal(err)
	}
	if len(s.Bytes()) > MaxSealed {
		t.Errorf("%d bytes", len(s.Bytes()))
	}
	over := *checked
	over.Body = make([]byte, MaxBody+tagSize+1)
	over.BodyHash = sha256.Sum256(over.Body)
	id := over.id()
	over.Signature = Sign(DomainSealed, keys.signer, id[:])
	if _, err := CheckSealed(keys.Topic, over.encode()); !errors.Is(err, ErrInvalid) {
		t.Errorf("a body over its limit: %v", err)
	}
	if _, err := CheckSealed(keys.Topic, make([]byte, MaxSealed+1)); !errors.Is(err, ErrInvalid) {
		t.Errorf("over the limit: %v", err)
	}
}

// endless yields bytes for ever and counts them.
type endless struct{ read int }

func (e *endless) Read(p []byte) (int, error) {
	e.read += len(p)
	for i := range p {
		p[i] = 0xff
	}
	return len(p), nil
}

func TestReadFrameChecksBeforeItAllocates(t *testing.T) {
	var e endless
	const turns = 11
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range turns {
		if _, err := ReadFrame(&e, MaxFrame); !errors.Is(err, ErrInvalid) {
			t.Fatalf("a frame of 4 GiB: %v", err)
		}
	}
	runtime.ReadMemStats(&after)
	if e.read != turns*frameHeader {
		t.Errorf("%d bytes were read", e.read)
	}
	// Bytes, not objects: how many objects an error takes differs under the race detector.
	if allocated := after.TotalAlloc - before.TotalAlloc; allocated > turns*4<<10 {
		t.Errorf("%d bytes allocated for %d errors", allocated, turns)
	}
	frame := func(n int) []byte { return append(binary.BigEndian.AppendUint32(nil, uint32(n)), make([]byte, n)...) }
	for _, c := range []struct {
		stream []byte
		limit  int
		want   error
	}{
		{frame(MaxFrame), MaxFrame, nil},
		{frame(MaxFrame + 1), MaxFrame + 1, ErrInvalid},
		{frame(100), 99, ErrInvalid},
		{frame(100), 100, nil},
		{frame(0), 100, ErrInvalid},
		{nil, 100, io.EOF},
		{frame(5)[:3], 100, io.ErrUnexpectedEOF},
		{frame(5)[:4], 100, io.ErrUnexpectedEOF},
		{frame(5)[:8], 100, io.ErrUnexpectedEOF},
	} {
		got, err := ReadFrame(bytes.NewReader(c.stream), c.limit)
		if !errors.Is(err, c.want) || c.want == nil && len(got) != len(c.stream)-frameHeader {
			t.Errorf("%d bytes, limit %d: %d, %v, want %v", len(c.stream), c.limit, len(got), err, c.want)
		}
	}
}

// TestRepeatedFieldsAreCounted sends one element more than permitted in one
// message, encoded past the encoder's own checks.
func TestRepeatedFieldsAreCounted(t *testing.T) {
	var e encoder
	e.b = append(e.b, dmAck)
	e.uint(1, 1)
	for _, id := range msgIDs(MaxAcks + 1) {
		e.bytes(2, id[:])
	}
	if _, err := ParseDMFrame(e.b); !errors.Is(err, ErrInvalid) {
		t.Errorf("%d acks: %v", MaxAcks+1, err)
	}
	ext := Extensions{}
	for range MaxExtensions {
		ext = ext.and(100, "x")
	}
	if err := checkExtensions(ext); !errors.Is(err, ErrInvalid) {
		t.Errorf("%d bytes of extensions: %v", len(ext), err)
	}
}

func TestTextRules(t *testing.T) {
	for _, nick := range []string{"ada", "Ada Lovelace", "\u65e5\u672c", "\U0001f426", "x"} {
		if err := CheckNick(nick); err != nil {
			t.Errorf("%q: %v", nick, err)
		}
	}
	for _, nick := range []string{
		"", " ada", "ada ", "a\nb", "a\tb", "a\x1b[31m", "a\x00b", "a\x7fb", "a\u009bb", "\u202eada", "a\u2066b", "a\u200fb", "a\u2028b", "\xff",
	} {
		if err := CheckNick(nick); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %v", nick, err)
		}
	}
	for _, text := range []string{"\xff", "a\x00b", "\xed\xa0\x80"} {
		var e encoder
		e.string(1, text)
		if _, err := ParseBody(KindMessage, e.b); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q decodes: %v", text, err)
		}
		if _, err := EncodeBody(&MessageBody{Text: text}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q encodes: %v", text, err)
		}
	}
	if err := CheckNetworkName("Main"); err == nil {
		t.Error("a network name with a capital")
	}
	for _, password := range []string{"\xff", "a\x00b", strings.Repeat("x", MaxRoomPassword+1)} {
		if _, err := PublicRoomSecret("main", "lobby", password); !errors.Is(err, ErrInvalid) {
			t.Errorf("password %q: %v", password, err)
		}
	}
}
