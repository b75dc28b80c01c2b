package wire

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"
)

// TestDecoderRules feeds the decoder what is not canonical, field by field.
func TestDecoderRules(t *testing.T) {
	// A message {1 varint, 2 bytes <= 3, 3 bytes <= 2 repeated at most twice,
	// 4 fixed64, 5 id of 2 bytes, 6 text <= 5, extensions}.
	decode := func(raw string) error {
		var ext Extensions
		var id [2]byte
		items := [][]byte{}
		d := newDecoder("test", []byte(raw), 200)
		for d.next() {
			switch d.num {
			case 1:
				d.uint(300)
			case 2:
				d.bytes(3)
			case 3:
				items = append(items, d.item(2, len(items), 2))
			case 4:
				d.fixed64()
			case 5:
				d.id(id[:])
			case 6:
				d.string(5)
			default:
				d.extension(&ext)
			}
		}
		if d.err == nil && strings.Contains(raw, "ext") && len(ext) == 0 {
			t.Errorf("%q: extension lost", raw)
		}
		return d.finish()
	}
	const ext100 = "\xa2\x06"
	for name, c := range map[string]struct {
		raw string
		ok  bool
	}{
		"empty":                  {"", true},
		"all":                    {"\x08\xac\x02\x12\x01x\x1a\x01y\x1a\x02zz\x21\x01\x00\x00\x00\x00\x00\x00\x00\x2a\x02\x01\x00" + ext100 + "\x03ext", true},
		"over the limit":         {strings.Repeat(ext100+"\x03ext", 34), false},
		"varint over its limit":  {"\x08\xad\x02", false},
		"varint zero":            {"\x08\x00", false},
		"varint too long":        {"\x08\x81\x00", false},
		"varint cut":             {"\x08\x81", false},
		"varint of 11 bytes":     {"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", false},
		"varint twice":           {"\x08\x01\x08\x01", false},
		"tag too long":           {"\x88\x00\x01", false},
		"tag cut":                {"\x88", false},
		"field number 0":         {"\x00\x01", false},
		"field number 128":       {"\x82\x08\x01x", false},
		"descending":             {"\x12\x01x\x08\x01", false},
		"wrong type":             {"\x0a\x01x", false},
		"group":                  {"\x0b\x0c", false},
		"bytes empty":            {"\x12\x00", false},
		"bytes over their limit": {"\x12\x04xxxx", false},
		"bytes cut":              {"\x12\x03xx", false},
		"bytes length too long":  {"\x12\x81\x00x", false},
		"bytes of 2^63":          {"\x12\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01x", false},
		"bytes twice":            {"\x12\x01x\x12\x01y", false},
		"repeated too often":     {"\x1a\x01x\x1a\x01y\x1a\x01z", false},
		"repeated too large":     {"\x1a\x03xxx", false},
		"repeated empty":         {"\x1a\x00", false},
		"fixed64 zero":           {"\x21\x00\x00\x00\x00\x00\x00\x00\x00", false},
		"fixed64 cut":            {"\x21\x01\x00\x00\x00\x00\x00\x00", false},
		"id short":               {"\x2a\x01x", false},
		"id long":                {"\x2a\x03xxx", false},
		"id zero":                {"\x2a\x02\x00\x00", false},
		"text":                   {"\x32\x02\xc3\xa9", true},
		"text not UTF-8":         {"\x32\x01\xc3", false},
		"text with NUL":          {"\x32\x02x\x00", false},
		"unknown field":          {"\x3a\x01x", false},
		"extension varint":       {"\xa0\x06\x01", false},
		"extension empty":        {ext100 + "\x00", false},
		"extension twice":        {ext100 + "\x03ext" + ext100 + "\x03ext", true},
		"extension 127":          {"\xfa\x07\x03ext", true},
		"extension 99":           {"\x9a\x06\x01x", false},
	} {
		err := decode(c.raw)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	long := make(Extensions, 0, MaxExtensions+3)
	for len(long) <= MaxExtensions {
		long = append(long, ext100+"\x01x"...)
	}
	if err := checkExtensions(long); !errors.Is(err, ErrInvalid) {
		t.Errorf("%d bytes of extensions: %v", len(long), err)
	}
	var kept Extensions
	d := newDecoder("test", long, MaxFrame)
	for d.next() {
		d.extension(&kept)
	}
	if d.finish() == nil {
		t.Errorf("a message kept %d bytes of extensions", len(kept))
	}
}

// refused checks that each error is one of invalid input.
func refused(t *testing.T, errs map[string]error) {
	t.Helper()
	for name, err := range errs {
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The tests that follow break each rule that ties fields together.

func TestBodyRules(t *testing.T) {
	topic, acct := TopicKey{1}, AccountID{1}
	body := func(b Body) error { _, err := EncodeBody(b); return err }
	refused(t, map[string]error{
		"message empty":         body(&MessageBody{}),
		"mentions descending":   body(&MessageBody{Text: "x", Mentions: []AccountID{{2}, {1}}}),
		"mention twice":         body(&EditBody{Text: "x", Mentions: []AccountID{{2}, {2}}}),
		"mention of nobody":     body(&EditBody{Text: "x", Mentions: []AccountID{{}}}),
		"file without name":     body(&MessageBody{Files: []File{{}}}),
		"file name of 2 lines":  body(&MessageBody{Files: []File{{Name: "a\nb"}}}),
		"edit empty":            body(&EditBody{}),
		"reaction empty":        body(&ReactBody{}),
		"profile without nick":  body(&ProfileBody{About: "x"}),
		"ban of nobody":         body(&BanBody{}),
		"marker empty":          body(&ReadMarkerBody{}),
		"presence of none":      body(&PresenceBody{}),
		"create without name":   body(&CreateBody{Topic: topic, Network: "m"}),
		"create without topic":  body(&CreateBody{Name: "x", Network: "m"}),
		"create, no network":    body(&CreateBody{Name: "x", Topic: topic}),
		"add of nobody":         body(&AddBody{Role: RoleMember}),
		"add without role":      body(&AddBody{Account: acct}),
		"remove of nobody":      body(&RemoveBody{Epoch: 1, Topic: topic}),
		"remove, no epoch":      body(&RemoveBody{Account: acct, Topic: topic}),
		"remove, no topic":      body(&RemoveBody{Account: acct, Epoch: 1}),
		"role of nobody":        body(&RoleBody{Role: RoleAdmin}),
		"epoch 0":               body(&EpochBody{Topic: topic}),
		"revocation of nothing": body(&RevokeBody{}),
		"mark without a number": body(&RemoveBody{Account: AccountID{1}, Epoch: 1, Topic: topic, Marks: []Mark{{Device: DeviceID{1}, Last: EventID{1}}}}),
		"marks out of order": body(&RemoveBody{Account: AccountID{1}, Epoch: 1, Topic: topic, Marks: []Mark{
			{Device: DeviceID{2}, Seq: 1, Last: EventID{1}}, {Device: DeviceID{1}, Seq: 1, Last: EventID{1}},
		}}),
		"too many marks":      body(&RemoveBody{Account: AccountID{1}, Epoch: 1, Topic: topic, Marks: make([]Mark, MaxMarks+1)}),
		"epoch without topic": body(&EpochBody{Epoch: 1}),
	})
}

func TestFrameRules(t *testing.T) {
	cert, topic, lease := testCertificate(t), TopicKey{1}, DefaultLease
	frame := func(f Frame) error { _, err := EncodeFrame(f); return err }
	attach := func(change func(*RelayAttach)) error {
		f := *testFrames(t)["relay"][0].(*RelayAttach)
		change(&f)
		return frame(&f)
	}
	refused(t, map[string]error{
		"hello without certificate": frame(&DMHello{}),
		"hello with bad nick":       frame(&DMHello{Certificate: cert, Nick: " x"}),
		"capabilities descending":   frame(&DMHello{Certificate: cert, Capabilities: []string{"b", "a"}}),
		"capability with space":     frame(&DMHello{Certificate: cert, Capabilities: []string{"a b"}}),
		"capability empty":          frame(&DMHello{Certificate: cert, Capabilities: []string{""}}),
		"data empty":                frame(&DMData{}),
		"ack of nothing":            frame(&DMAck{Kind: ReceiptRead}),
		"ack of zero":               frame(&DMAck{Kind: ReceiptRead, IDs: []MsgID{{}}}),
		"ack without kind":          frame(&DMAck{IDs: []MsgID{{1}}}),
		"ack of kind 3":             frame(&DMAck{Kind: 3, IDs: []MsgID{{1}}}),
		"reject without reason":     frame(&DMReject{Envelope: Hash{1}}),
		"reject of nothing":         frame(&DMReject{Reason: RejectBusy}),

		"attach for nothing":     attach(func(f *RelayAttach) { f.Want = 0 }),
		"attach for 3":           attach(func(f *RelayAttach) { f.Want = 3 }),
		"attach without nonce":   attach(func(f *RelayAttach) { f.Nonce = [32]byte{} }),
		"attach without topics":  attach(func(f *RelayAttach) { f.Topics = nil }),
		"attach, same topic":     attach(func(f *RelayAttach) { f.Topics = append(f.Topics, f.Topics...) }),
		"attach of zero topic":   attach(func(f *RelayAttach) { f.Topics = make([]RelayTopic, 1) }),
		"lease of half a second": attach(func(f *RelayAttach) { f.Lease = time.Second / 2 }),
		"lease of 1.5 seconds":   attach(func(f *RelayAttach) { f.Lease = 3 * time.Second / 2 }),
		"answer without code":    frame(&RelayAttached{}),
		"granted, no lease":      frame(&RelayAttached{Code: RelayOK, Grants: []RelayGrant{{Topic: topic, Code: RelayOK}}}),
		"refused with lease":     frame(&RelayAttached{Code: RelayOK, Grants: []RelayGrant{{Topic: topic, Code: RelayFull, Lease: lease}}}),
		"grant of no topic":      frame(&RelayAttached{Code: RelayOK, Grants: []RelayGrant{{Code: RelayFull}}}),
		"detach of nothing":      frame(&RelayDetach{}),
		"deposit nowhere":        frame(&MailboxDeposit{Keep: lease, Envelope: []byte{1}}),
		"deposit of nothing":     frame(&MailboxDeposit{Mailbox: MailboxID{1}, Keep: lease}),
		"receipt without code":   frame(&MailboxReceipt{}),
		"unsigned receipt":       frame(&MailboxReceipt{Code: RelayOK, Deposit: DepositID{1}, Expires: testTime}),
		"receipt for nothing":    frame(&MailboxReceipt{Code: RelayOK, Expires: testTime, Signature: Signature{1}}),
		"receipt without end":    frame(&MailboxReceipt{Code: RelayOK, Deposit: DepositID{1}, Signature: Signature{1}}),
		"refusal with receipt":   frame(&MailboxReceipt{Code: RelayFull, Deposit: DepositID{1}, Expires: testTime, Signature: Signature{1}}),
		"collect without proof":  frame(&MailboxCollect{Mailbox: MailboxID{1}, Nonce: [32]byte{1}, Limit: 1}),
		"collect of none":        frame(&MailboxCollect{Mailbox: MailboxID{1}, Nonce: [32]byte{1}, Proof: Signature{1}}),
		"items without code":     frame(&MailboxItems{}),
		"more after nothing":     frame(&MailboxItems{Code: RelayOK, More: true}),
		"item without id":        frame(&MailboxItems{Code: RelayOK, Items: []MailboxItem{{Envelope: []byte{1}}}}),
		"item without envelope":  frame(&MailboxItems{Code: RelayOK, Items: []MailboxItem{{Deposit: DepositID{1}}}}),
		"delete of nothing":      frame(&MailboxDelete{Mailbox: MailboxID{1}, Nonce: [32]byte{1}, Proof: Signature{1}}),
		"delete of zero":         frame(&MailboxDelete{Mailbox: MailboxID{1}, Nonce: [32]byte{1}, Proof: Signature{1}, Deposits: make([]DepositID, 1)}),
		"delete without proof":   frame(&MailboxDelete{Mailbox: MailboxID{1}, Nonce: [32]byte{1}, Deposits: []DepositID{{1}}}),
		"items over a frame": frame(&MailboxItems{Code: RelayOK, Items: []MailboxItem{
			{Deposit: DepositID{1}, Envelope: make([]byte, MaxEnvelope)}, {Deposit: DepositID{2}, Envelope: make([]byte, MaxEnvelope)},
		}}),
	})
}

func TestContentRules(t *testing.T) {
	dm := func(b DMBody) error { _, err := EncodeDMBody(b); return err }
	content := func(change func(*DMContent)) error {
		c := *testContents(t)[0]
		change(&c)
		_, err := c.Encode()
		return err
	}
	refused(t, map[string]error{
		"dm without id":           content(func(c *DMContent) { c.ID = MsgID{} }),
		"dm without conversation": content(func(c *DMContent) { c.Conversation = ConversationID{} }),
		"dm without kind":         content(func(c *DMContent) { c.Kind = 0 }),
		"dm without time":         content(func(c *DMContent) { c.SentAt = time.Time{} }),
		"dm without sequence":     content(func(c *DMContent) { c.DeviceSeq = 0 }),
		"dm edit of nothing":      content(func(c *DMContent) { c.Kind = DMEdit }),
		"dm ack of zero":          content(func(c *DMContent) { c.Acks = make([]MsgID, 1) }),
		"dm with empty file":      content(func(c *DMContent) { c.Attachments = make([]Attachment, 1) }),
		"secret of no room":       dm(&RoomSecretBody{Secret: RoomSecret{1}}),
		"secret of zeros":         dm(&RoomSecretBody{Room: RoomID{1}}),
		"records of none":         dm(&RecordsBody{}),
		"restart without id":      dm(&RecordsBody{Restart: &RestartPrekey{Prekey: [32]byte{1}, KEM: make([]byte, 1184)}}),
		"restart without key":     dm(&RecordsBody{Restart: &RestartPrekey{PrekeyID: 1, KEM: make([]byte, 1184)}}),
		"restart without kem":     dm(&RecordsBody{Restart: &RestartPrekey{PrekeyID: 1, Prekey: [32]byte{1}}}),
		"join without invite":     dm(&JoinRequestBody{}),
		"log of nothing":          dm(&RoomLogBody{Room: RoomID{1}}),
		"log of an empty event":   dm(&RoomLogBody{Room: RoomID{1}, Events: [][]byte{nil}}),
		"log of too many":         dm(&RoomLogBody{Room: RoomID{1}, Events: make([][]byte, MaxRoomLogEvents+1)}),
		"nothing wanted":          dm(&RoomWantedBody{Room: RoomID{1}}),
		"zero event wanted":       dm(&RoomWantedBody{Room: RoomID{1}, IDs: make([]EventID, 1)}),
		"too many wanted":         dm(&RoomWantedBody{Room: RoomID{1}, IDs: make([]EventID, MaxRoomLogEvents+1)}),
		"refusal without a code":  dm(&RoomRefusedBody{Room: RoomID{1}, Token: InviteToken{1}}),
		"contact with bad nick":   dm(&ContactBody{Nick: "a\nb"}),
	})
}

func TestLinkRules(t *testing.T) {
	cert := testCertificate(t)
	link := func(l Link) error { _, err := l.Text(); return err }
	invite := func(change func(*InviteLink)) error {
		l := *testLinks(t)[4].(*InviteLink)
		change(&l)
		return l.Sign(testKey("ada/laptop"))
	}
	refused(t, map[string]error{
		"contact without certificate": link(&ContactLink{}),
		"contact with bad nick, link": link(&ContactLink{Certificate: cert, Nick: "\x1b"}),
		"contact with bad address":    link(&ContactLink{Certificate: cert, Addresses: []string{"192.0.0.200"}}),
		"room not canonical":          link(&RoomLink{Name: "Lobby"}),
		"room in bad network":         link(&RoomLink{Name: "lobby", Network: "M"}),
		"invite without room":         invite(func(l *InviteLink) { l.Room = RoomID{} }),
		"invite without inviter":      invite(func(l *InviteLink) { l.Inviter.Account = AccountID{} }),
		"invite by another":           invite(func(l *InviteLink) { l.Inviter.Device = DeviceID{1} }),
		"invite without token":        invite(func(l *InviteLink) { l.Token = InviteToken{} }),
		"invite without end":          invite(func(l *InviteLink) { l.Expires = time.Time{} }),
		"invite without name":         invite(func(l *InviteLink) { l.Name = "" }),
		"invite, name of lines":       invite(func(l *InviteLink) { l.Name = "a\nb" }),
	})
}

// TestLongestLinks takes as many and as long addresses as links may have.
func TestLongestLinks(t *testing.T) {
	var list []string
	for range MaxLinkAddresses {
		list = append(list, "/"+strings.Repeat("x", MaxAddress-1))
	}
	invite := *testLinks(t)[4].(*InviteLink)
	invite.Addresses, invite.Name = list, strings.Repeat("x", MaxPrivateName)
	must(t, invite.Sign(testKey("ada/laptop")))
	for _, l := range []Link{&ContactLink{Certificate: testCertificate(t), Nick: strings.Repeat("x", MaxNick), Addresses: list}, &invite} {
		text, err := l.Text()
		must(t, err)
		if _, err := ParseLink(text); err != nil {
			t.Error(err)
		}
	}
	// Escaping makes these three times as long as they are.
	for i := range list {
		list[i] = "/" + strings.Repeat("%", MaxAddress-1)
	}
	if _, err := (&RoomLink{Name: "lobby", Addresses: list}).Text(); !errors.Is(err, ErrInvalid) {
		t.Errorf("a room link over the limit: %v", err)
	}
	if _, err := ParseLink("starling:room/" + strings.Repeat("x", MaxLink)); !errors.Is(err, ErrInvalid) {
		t.Errorf("a link over the limit: %v", err)
	}
}

func TestLargestDirectMessageFits(t *testing.T) {
	c := *testContents(t)[1]
	c.Body, c.Acks, c.Attachments = make([]byte, MaxDMBody), msgIDs(MaxAcks), make([]Attachment, MaxAttachments)
	fillSizes(c.Attachments)
	c.DeviceSeq = 1<<63 - 1
	c.Extensions = extension(100, strings.Repeat("x", MaxExtensions-4))
	raw, err := c.Encode()
	must(t, err)
	if _, err := ParseDMContent(raw); err != nil {
		t.Errorf("%d bytes: %v", len(raw), err)
	}
	if _, err := ParseDMContent(make([]byte, MaxDMContent+1)); !errors.Is(err, ErrInvalid) {
		t.Errorf("over the limit: %v", err)
	}
}

func TestRecordRules(t *testing.T) {
	list := func(change func(*DeviceList)) error {
		l, _ := testDeviceList(t)
		change(l)
		_, err := l.Sign(testKey("ada"))
		return err
	}
	record := func(change func(*PrekeyRecord)) error {
		r, _ := testPrekeyRecord(t)
		change(r)
		_, err := r.Sign(testKey("ada/laptop"))
		return err
	}
	if err := errors.Join(list(func(*DeviceList) {}), record(func(*PrekeyRecord) {})); err != nil {
		t.Fatal(err)
	}
	stranger, err := IssueCertificate(testKey("eve"), publicKey(testKey("eve/laptop")), time.Time{}, time.Time{})
	must(t, err)
	for name, err := range map[string]error{
		"list without sequence":     list(func(l *DeviceList) { l.Sequence = 0 }),
		"list without dates":        list(func(l *DeviceList) { l.Issued = time.Time{} }),
		"list ending at once":       list(func(l *DeviceList) { l.Expires = l.Issued }),
		"list living too long":      list(func(l *DeviceList) { l.Expires = l.Issued.Add(MaxRecordLife + time.Millisecond) }),
		"list of another's device":  list(func(l *DeviceList) { l.Devices = []Certificate{stranger} }),
		"devices descending":        list(func(l *DeviceList) { l.Devices[0], l.Devices[1] = l.Devices[1], l.Devices[0] }),
		"device twice":              list(func(l *DeviceList) { l.Devices[1] = l.Devices[0] }),
		"too many devices":          list(func(l *DeviceList) { l.Devices = make([]Certificate, MaxDevices+1) }),
		"too many revoked":          list(func(l *DeviceList) { l.Revoked = make([]DeviceID, MaxDevices+1) }),
		"revoked descending":        list(func(l *DeviceList) { l.Revoked = []DeviceID{{2}, {1}} }),
		"revoked zero":              list(func(l *DeviceList) { l.Revoked = []DeviceID{{}} }),
		"listed and revoked":        list(func(l *DeviceList) { l.Revoked = []DeviceID{l.Devices[0].Device} }),
		"prekeys without sequence":  record(func(r *PrekeyRecord) { r.Sequence = 0 }),
		"prekeys, no certificate":   record(func(r *PrekeyRecord) { r.Certificate = Certificate{} }),
		"prekeys of another device": record(func(r *PrekeyRecord) { r.Certificate = stranger }),
		"prekeys without agreement": record(func(r *PrekeyRecord) { r.Agreement = [32]byte{} }),
		"prekeys without prekey":    record(func(r *PrekeyRecord) { r.Prekey = [32]byte{} }),
		"prekeys without id":        record(func(r *PrekeyRecord) { r.PrekeyID = 0 }),
		"prekeys without envelope":  record(func(r *PrekeyRecord) { r.Envelope = [32]byte{} }),
		"prekeys with short kem":    record(func(r *PrekeyRecord) { r.KEM = r.KEM[1:] }),
		"too many mailboxes":        record(func(r *PrekeyRecord) { r.Mailboxes = make([]Mailbox, MaxMailboxes+1) }),
		"mailbox without id":        record(func(r *PrekeyRecord) { r.Mailboxes[0].ID = MailboxID{} }),
		"mailbox without relay":     record(func(r *PrekeyRecord) { r.Mailboxes[0].Relay = DeviceID{} }),
		"mailbox with bad address":  record(func(r *PrekeyRecord) { r.Mailboxes[0].Address = "x" }),
	} {
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	l, _ := testDeviceList(t)
	r, _ := testPrekeyRecord(t)
	for _, c := range []struct {
		at   time.Time
		want bool
	}{{l.Issued, true}, {r.Expires.Add(-1), true}, {l.Expires, false}} {
		if l.Current(c.at) != c.want {
			t.Errorf("list at %s: %v", c.at, !c.want)
		}
	}
	if !r.Current(r.Expires.Add(-1)) || r.Current(r.Expires) {
		t.Error("prekeys at their end")
	}
	r.Certificate.NotAfter = r.Issued
	if r.Current(r.Issued) {
		t.Error("prekeys after their certificate")
	}
}

// TestInnerCertificates puts a certificate that the account did not sign into
// things whose own signature holds.
func TestInnerCertificates(t *testing.T) {
	forged := testCertificate(t)
	forged.Signature[0] ^= 1
	l, _ := testDeviceList(t)
	for i := range l.Devices {
		if l.Devices[i].Device == forged.Device {
			l.Devices[i] = forged
		}
	}
	_, err := l.Sign(testKey("ada"))
	must(t, err)
	r, _ := testPrekeyRecord(t)
	r.Certificate = forged
	_, err = r.Sign(testKey("ada/laptop"))
	must(t, err)
	invite := *testLinks(t)[4].(*InviteLink)
	invite.Inviter = forged
	must(t, invite.Sign(testKey("ada/laptop")))
	for name, v := range map[string]interface{ Verify() error }{
		"device list": l, "prekeys": r, "invite": &invite, "contact": &ContactLink{Certificate: forged},
	} {
		if err := v.Verify(); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestLinkChecksum changes a link into another that would parse.
func TestLinkChecksum(t *testing.T) {
	l := testLinks(t)[1].(*ContactLink)
	text, err := l.Text()
	must(t, err)
	body, err := base64.RawURLEncoding.DecodeString(text[len("starling:contact/"):])
	must(t, err)
	at := bytes.Index(body, []byte("\x03ada"))
	body[at+3] = 'b'
	_, err = ParseLink("starling:contact/" + base64.RawURLEncoding.EncodeToString(body))
	if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "damaged") {
		t.Errorf("a changed nick: %v", err)
	}
}

func TestCertificateRules(t *testing.T) {
	device := DeviceID(publicKey(testKey("ada/laptop")))
	if _, err := IssueCertificate(testKey("ada"), DeviceID(publicKey(testKey("ada"))), time.Time{}, time.Time{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("account as its own device: %v", err)
	}
	if _, err := IssueCertificate(testKey("ada"), device, testTime, testTime); !errors.Is(err, ErrInvalid) {
		t.Errorf("ends at its beginning: %v", err)
	}
	c := testCertificate(t)
	open := Certificate{}
	for _, x := range []struct {
		at   time.Time
		want bool
	}{
		{c.NotBefore, true},
		{c.NotBefore.Add(-1), false},
		{c.NotAfter.Add(-1), true},
		{c.NotAfter, false},
	} {
		if c.ValidAt(x.at) != x.want {
			t.Errorf("at %s: %v", x.at, !x.want)
		}
		if !open.ValidAt(x.at) {
			t.Error("a certificate without bounds is out of them")
		}
	}
}

// TestUnknownFieldsAreRefused adds field 99 to every message: neither defined
// nor in the range of extensions.
func TestUnknownFieldsAreRefused(t *testing.T) {
	var field encoder
	field.uint(99, 1)
	with := func(raw []byte) []byte { return append(raw[:len(raw):len(raw)], field.b...) }
	refused := func(name string, err error) {
		t.Helper()
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, b := range testBodies() {
		content, err := EncodeBody(b)
		must(t, err)
		content = bytes.TrimSuffix(content, extension(127, "x"))
		content = bytes.TrimSuffix(content, extension(100, "e"))
		content = bytes.TrimSuffix(content, extension(101, "p"))
		_, err = ParseBody(b.EventKind(), with(content))
		refused(b.EventKind().String(), err)
	}
	for _, b := range testDMBodies(t) {
		content, err := EncodeDMBody(b)
		must(t, err)
		_, err = ParseDMBody(b.DMKind(), with(content))
		refused("dm body", err)
	}
	for protocol, frames := range testFrames(t) {
		for _, f := range frames {
			payload, err := EncodeFrame(f)
			must(t, err)
			_, err = frameParsers[protocol](with(bytes.TrimSuffix(payload, extension(100, "x"))))
			refused(protocol, err)
			_, err = frameParsers[protocol](nil)
			refused(protocol+" empty", err)
			if _, err = frameParsers[protocol]([]byte{200}); !errors.Is(err, ErrUnsupported) {
				t.Errorf("%s frame of type 200: %v", protocol, err)
			}
		}
	}
	c := testCertificate(t)
	_, err := ParseCertificate(with(c.Encode()))
	refused("certificate", err)
	_, list := testDeviceList(t)
	_, err = ParseDeviceList(with(list))
	refused("device list", err)
	_, record := testPrekeyRecord(t)
	_, err = ParsePrekeyRecord(with(record))
	refused("prekeys", err)
	invite, err := testLinks(t)[4].(*InviteLink).Payload()
	must(t, err)
	_, err = ParseInvite(with(invite))
	refused("invite", err)
	_, err = ParseDMBody(DMAccept, nil)
	if !errors.Is(err, ErrUnsupported) {
		t.Errorf("body of an accept: %v", err)
	}
}

// TestNewerVersions raises the version of each versioned message: it is to be
// ignored, not held against the sender, whatever follows.
func TestNewerVersions(t *testing.T) {
	v2 := []byte("\x08\x02\xff\xff\xff")
	_, sealed := CheckSealed(TopicKey{1}, v2)
	_, header := parseHeader(v2)
	_, certificate := ParseCertificate(v2)
	_, list := ParseDeviceList(v2)
	_, prekeys := ParsePrekeyRecord(v2)
	_, invite := ParseInvite(v2)
	_, contact := ParseLink(payloadText("contact", v2))
	_, hello := ParseDMFrame(append([]byte{dmHello}, v2...))
	_, content := ParseDMContent(v2)
	for name, err := range map[string]error{
		"sealed": sealed, "header": header, "certificate": certificate, "device list": list, "prekeys": prekeys,
		"invite": invite, "contact": contact, "hello": hello, "content": content,
	} {
		if !errors.Is(err, ErrUnsupported) || errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestIDsComeBack(t *testing.T) {
	id := fill("id")
	check := func(name string, same bool, err error) {
		t.Helper()
		if err != nil || !same {
			t.Errorf("%s does not come back: %v", name, err)
		}
	}
	room, err := ParseRoomID(RoomID(id).String())
	check("room", room == RoomID(id), err)
	event, err := ParseEventID(EventID(id).String())
	check("event", event == EventID(id), err)
	sealed, err := ParseSealedID(SealedID(id).String())
	check("sealed", sealed == SealedID(id), err)
	deposit, err := ParseDepositID(DepositID(id).String())
	check("deposit", deposit == DepositID(id), err)
	conversation, err := ParseConversationID(ConversationID(id).String())
	check("conversation", conversation == ConversationID(id), err)
	hash, err := ParseHash(Hash(id).String())
	check("hash", hash == Hash(id), err)
	mailbox, err := ParseMailboxID(MailboxID(id).String())
	check("mailbox", mailbox == MailboxID(id), err)
	topic, err := ParseTopicKey(TopicKey(id).String())
	check("topic", topic == TopicKey(id), err)
	account, err := ParseAccountID(AccountID(id).String())
	check("account", account == AccountID(id), err)
	msg, err := ParseMsgID(MsgID{1}.String())
	check("message", msg == MsgID{1}, err)
	device, err := DeviceFromPeerID(DeviceID(id).PeerID())
	check("peer id", device == DeviceID(id), err)
	for _, bad := range [][]byte{nil, id[:], append(device.PeerID(), 0), device.PeerID()[:37]} {
		if _, err := DeviceFromPeerID(bad); !errors.Is(err, ErrInvalid) {
			t.Errorf("peer id of %d bytes: %v", len(bad), err)
		}
	}
	if _, err := ParseEventID(strings.ToUpper(EventID(id).String())); !errors.Is(err, ErrInvalid) {
		t.Errorf("capitals: %v", err)
	}
	if _, err := ParseEventID(strings.Repeat("x", 1000)); err == nil || len(err.Error()) > 300 {
		t.Errorf("an error of %d bytes", len(err.Error()))
	}
	if InviteToken(id[:16]).String() != Hash(id).String()[:32] {
		t.Error("token")
	}
	if !(RoomID{}).IsZero() || !(AccountID{}).IsZero() || EventID(id).IsZero() || TopicKey(id).IsZero() {
		t.Error("zero")
	}
}

func TestMembershipKinds(t *testing.T) {
	for k := range kindNames {
		want := false
		switch k {
		case KindCreate, KindAdd, KindRemove, KindRole, KindPolicy, KindEpoch, KindRevoke, KindLeave, KindBan:
			want = true
		}
		if k.Membership() != want {
			t.Errorf("%s: %v", k, k.Membership())
		}
	}
	for r, want := range map[Role]string{0: "none", RoleMember: "member", RoleModerator: "moderator", RoleAdmin: "admin", RoleOwner: "owner", 5: "none"} {
		if r.String() != want {
			t.Errorf("role %d is %s", r, r)
		}
	}
}
