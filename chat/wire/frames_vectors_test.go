package wire

import (
	"bytes"
	"crypto/mlkem"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"
)

// testFrames holds every frame with every field set.
func testFrames(t testing.TB) map[string][]Frame {
	keys := testRoomKeys(t)
	relay, client := DeviceID(publicKey(testKey("relay"))), DeviceID(publicKey(testKey("ada/laptop")))
	nonce := fill("nonce")
	box := testKey("mailbox")
	deposit := &MailboxDeposit{Mailbox: publicKey(box), Keep: MaxMailboxLife, Envelope: []byte("sealed twice")}
	proof := ProveMailbox(box, relay, nonce)
	receipt := &MailboxReceipt{Code: RelayOK, Deposit: deposit.Deposit(), Expires: testTime}
	receipt.Sign(testKey("relay"), deposit.Mailbox)
	return map[string][]Frame{
		"dm": {
			&DMHello{Certificate: testCertificate(t), Nick: "ada", Capabilities: []string{"calls/1", "files/1"}, Extensions: extension(100, "x")},
			&DMHello{Certificate: testCertificate(t)},
			&DMData{Envelope: []byte("sealed")},
			&DMAck{Kind: ReceiptRead, IDs: []MsgID{{1}, {2}}},
			&DMReject{Reason: RejectStranger, Envelope: Hash(fill("envelope"))},
		},
		"relay": {
			&RelayAttach{Want: WantMirror, Lease: DefaultLease, Nonce: nonce, Topics: []RelayTopic{
				{Topic: keys.Topic, Proof: keys.ProveAttach(relay, client, nonce)},
			}},
			&RelayAttached{
				Code: RelayOK, Detail: "room for 200 more",
				Grants: []RelayGrant{{Topic: keys.Topic, Code: RelayOK, Lease: DefaultLease}, {Topic: TopicKey{1}, Code: RelayBadProof}},
				Limits: RelayLimits{Topics: 256, EventsPerSecond: 200, BytesPerSecond: 2 << 20, MirrorEvents: 10000, MirrorSeconds: 14 * 86400},
			},
			&RelayAttached{Code: RelayDenied},
			&RelayDetach{Topics: []TopicKey{{1}, keys.Topic}},
		},
		"mailbox": {
			deposit,
			receipt,
			&MailboxReceipt{Code: RelayOK},
			&MailboxReceipt{Code: RelayQuota, Detail: "10,000 messages lie here"},
			&MailboxCollect{Mailbox: publicKey(box), Nonce: nonce, Proof: proof, After: DepositID{1}, Limit: 64},
			&MailboxItems{Code: RelayOK, Items: []MailboxItem{{Deposit: deposit.Deposit(), Envelope: deposit.Envelope}}, More: true},
			&MailboxDelete{Mailbox: publicKey(box), Nonce: nonce, Proof: proof, Deposits: []DepositID{deposit.Deposit()}},
		},
	}
}

func testContents(t testing.TB) []*DMContent {
	ada, bob := AccountID(publicKey(testKey("ada"))), AccountID(publicKey(testKey("bob")))
	text, err := EncodeBody(&MessageBody{Text: "hello"})
	if err != nil {
		t.Fatal(err)
	}
	long, err := EncodeBody(&MessageBody{Text: strings.Repeat("long ", 100)})
	if err != nil {
		t.Fatal(err)
	}
	least := DMContent{ID: MsgID{1}, Conversation: DirectConversation(ada, bob), Kind: DMMessage, SentAt: testTime, DeviceSeq: 1, Body: text}
	full := least
	full.DeviceSeq = 300
	full.Acks = []MsgID{{2}, {3}}
	full.Expires = testTime.Add(time.Hour)
	full.Ref = MsgID{4}
	full.Body = long
	full.Attachments = []Attachment{{Hash: Hash(fill("file")), Size: 9}}
	full.Extensions = extension(127, "x")
	receipt := least
	receipt.Kind, receipt.Body, receipt.Acks = DMReceipt, nil, []MsgID{{5}}
	return []*DMContent{&least, &full, &receipt}
}

func testDMBodies(t testing.TB) []DMBody {
	return []DMBody{
		&RoomSecretBody{Room: RoomID(fill("room id")), Epoch: 2, Secret: fill("room")},
		&RecordsBody{DeviceList: []byte("list"), PrekeyRecord: []byte("prekeys")},
		&RecordsBody{Restart: &RestartPrekey{PrekeyID: 9, Prekey: fill("restart"), KEM: bytes.Repeat([]byte{7}, mlkem.EncapsulationKeySize768)}},
		&JoinRequestBody{Invite: []byte("invite")},
		&RoomLogBody{Room: RoomID(fill("room id")), Events: [][]byte{[]byte("create"), []byte("add")}},
		&RoomWantedBody{Room: RoomID(fill("room id")), IDs: []EventID{EventID(fill("wanted"))}},
		&RoomWantedBody{Room: RoomID(fill("room id")), Secrets: true},
		&RoomRefusedBody{Room: RoomID(fill("room id")), Token: InviteToken{7}, Code: RefusedUsed},
		&ContactBody{Nick: "ada", Token: InviteToken{7}, Text: "we met in Paris"},
	}
}

func TestFrameVectors(t *testing.T) {
	out := obj{}
	for protocol, frames := range testFrames(t) {
		list := []obj{}
		for _, f := range frames {
			raw, err := AppendFrame(nil, f)
			if err != nil {
				t.Fatal(err)
			}
			list = append(list, obj{
				"name": strings.TrimPrefix(fmt.Sprintf("%T", f), "*wire."), "value": plain(f), "frame": hex.EncodeToString(raw),
			})
		}
		out[protocol] = list
	}
	contents := []obj{}
	for _, c := range testContents(t) {
		raw, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		contents = append(contents, obj{"value": plain(c), "encoded": hex.EncodeToString(raw)})
	}
	out["contents"] = contents
	bodies := []obj{}
	for _, b := range testDMBodies(t) {
		raw, err := EncodeDMBody(b)
		if err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, obj{"kind": uint8(b.DMKind()), "value": plain(b), "encoded": hex.EncodeToString(raw)})
	}
	out["bodies"] = bodies
	relay, client := publicKey(testKey("relay")), publicKey(testKey("ada/laptop"))
	out["relay_device"], out["client_device"] = hex.EncodeToString(relay[:]), hex.EncodeToString(client[:])
	checkVectors(t, "frames.json", out)
}

func testDeviceList(t testing.TB) (*DeviceList, []byte) {
	t.Helper()
	phone, err := IssueCertificate(testKey("ada"), publicKey(testKey("ada/phone")), time.Time{}, time.Time{})
	must(t, err)
	devices := []Certificate{testCertificate(t), phone}
	if string(devices[0].Device[:]) > string(devices[1].Device[:]) {
		devices[0], devices[1] = devices[1], devices[0]
	}
	l := &DeviceList{
		Sequence: 12, Issued: testTime, Expires: testTime.Add(30 * 24 * time.Hour), Devices: devices,
		Revoked: []DeviceID{{1}, {2}},
	}
	raw, err := l.Sign(testKey("ada"))
	must(t, err)
	return l, raw
}

func testPrekeyRecord(t testing.TB) (*PrekeyRecord, []byte) {
	t.Helper()
	var seed [mlkem.SeedSize]byte
	kem, err := mlkem.NewDecapsulationKey768(seed[:])
	must(t, err)
	r := &PrekeyRecord{
		Certificate: testCertificate(t), Sequence: 3, Issued: testTime, Expires: testTime.Add(14 * 24 * time.Hour),
		Agreement: fill("agreement"), PrekeyID: 5, Prekey: fill("prekey"), KEM: kem.EncapsulationKey().Bytes(), Envelope: fill("envelope key"),
		Mailboxes: []Mailbox{
			{ID: publicKey(testKey("mailbox")), Relay: publicKey(testKey("relay")), Address: "/ip4/192.0.0.200/tcp/4001"},
			{ID: publicKey(testKey("mailbox")), Relay: publicKey(testKey("relay 2"))},
		},
	}
	raw, err := r.Sign(testKey("ada/laptop"))
	must(t, err)
	return r, raw
}

func testLinks(t testing.TB) []Link {
	cert := testCertificate(t)
	invite := &InviteLink{
		Room: RoomID(fill("room id")), Inviter: cert, Token: InviteToken{1, 2, 3}, Expires: testTime.Add(48 * time.Hour),
		Name: "The Kitchen", Addresses: []string{"/dns4/relay.example/udp/4001/quic-v1"},
	}
	must(t, invite.Sign(testKey("ada/laptop")))
	open := *invite
	open.Reusable, open.Doors = true, []Door{{Account: AccountID(fill("bob")), Device: DeviceID(fill("bob's"))}}
	must(t, open.Sign(testKey("ada/laptop")))
	return []Link{
		&ContactLink{Certificate: cert},
		&ContactLink{Certificate: cert, Nick: "ada", Addresses: []string{"/ip4/192.0.0.200/tcp/4001", "/ip6/::1/tcp/1"}, Token: InviteToken{8}},
		&RoomLink{Name: "lobby"},
		&RoomLink{Name: "\u65e5\u672c\u8a9e", Network: "test", Password: true, Addresses: []string{"/ip4/192.0.0.200/udp/4001/quic-v1"}},
		invite,
		&open,
	}
}

// refusedLinks are near misses.
func refusedLinks(t testing.TB) []refusal {
	good, err := (&ContactLink{Certificate: testCertificate(t)}).Text()
	must(t, err)
	out := []refusal{}
	for _, v := range []struct{ why, text string }{
		{"other scheme", "http:room/lobby"},
		{"other type", "starling:group/lobby"},
		{"cut off", good[:len(good)-1]},
		{"one letter changed", good[:30] + "A" + good[31:]},
		{"name not canonical", "starling:room/Lobby"},
		{"name not allowed", "starling:room/a%2Fb"},
		{"escape not needed", "starling:room/%6Cobby"},
		{"password as text", "starling:room/lobby?password=secret"},
		{"unknown parameter", "starling:room/lobby?x=1"},
		{"parameters out of order", "starling:room/lobby?password=1&network=main"},
		{"address is none", "starling:room/lobby?addr=192.0.0.200"},
		{"empty query", "starling:room/lobby?"},
		{"space at the end", "starling:room/lobby "},
	} {
		_, err := ParseLink(v.text)
		out = append(out, refusal{What: "link", Why: v.why, Raw: v.text, Verdict: verdictOf(err)})
	}
	return out
}

func TestLinkAndRecordVectors(t *testing.T) {
	links := []obj{}
	for _, l := range testLinks(t) {
		text, err := l.Text()
		must(t, err)
		links = append(links, obj{"name": strings.TrimPrefix(fmt.Sprintf("%T", l), "*wire."), "value": plain(l), "text": text})
	}
	checkVectors(t, "links.json", obj{"links": links, "refused": refusedLinks(t)})
	list, rawList := testDeviceList(t)
	record, rawRecord := testPrekeyRecord(t)
	checkVectors(t, "records.json", obj{
		"device_list":   obj{"value": plain(list), "encoded": hex.EncodeToString(rawList)},
		"prekey_record": obj{"value": plain(record), "encoded": hex.EncodeToString(rawRecord)},
	})
}

// TestReadFrameVectors reads every frame from its bytes and writes it again.
func TestReadFrameVectors(t *testing.T) {
	var v map[string]any
	readVectors(t, "frames.json", &v)
	for _, protocol := range []string{"dm", "relay", "mailbox"} {
		list := v[protocol].([]any)
		if len(list) < 4 {
			t.Fatalf("%s: %d frames", protocol, len(list))
		}
		for _, x := range list {
			raw := unhex(t, x.(map[string]any)["frame"].(string))
			payload, err := ReadFrame(bytes.NewReader(raw), MaxFrame)
			must(t, err)
			f, err := frameParsers[protocol](payload)
			must(t, err)
			again, err := AppendFrame(nil, f)
			must(t, err)
			if !bytes.Equal(again, raw) {
				t.Errorf("%s %T: another encoding", protocol, f)
			}
		}
	}
}

var frameParsers = map[string]func([]byte) (Frame, error){
	"dm": ParseDMFrame, "relay": ParseRelayFrame, "mailbox": ParseMailboxFrame,
}

// TestReadLinkVectors reads every link and every refused one.
func TestReadLinkVectors(t *testing.T) {
	var v struct {
		Links   []struct{ Text string }
		Refused []refusal
	}
	readVectors(t, "links.json", &v)
	for _, x := range v.Links {
		l, err := ParseLink(x.Text)
		must(t, err)
		if text, err := l.Text(); err != nil || text != x.Text {
			t.Errorf("%s: %v", x.Text, err)
		}
		if signed, ok := l.(interface{ Verify() error }); ok {
			must(t, signed.Verify())
		}
	}
	for _, x := range v.Refused {
		if _, err := ParseLink(x.Raw); x.Verdict == "accepted" || verdictOf(err) != x.Verdict {
			t.Errorf("%s: %v, want %s", x.Why, err, x.Verdict)
		}
	}
}
