package discovery

import (
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Addresses come inside links and records of others, too.
func FuzzParsePeerAddr(f *testing.F) {
	f.Add("/ip4/198.51.100.7/udp/4001/quic-v1/p2p/12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X")
	f.Add("/dns4/relay.example/tcp/443/wss/p2p/12D3KooWPjceQrSwdWXPyLLeABRXmuqt69Rg3sBYbU1Nft9HyQ6X/p2p-circuit")
	f.Add("/p2p/12D3")
	f.Fuzz(func(t *testing.T, text string) {
		info, err := ParsePeerAddr(text)
		if err != nil {
			return
		}
		if info.ID == "" || len(info.Addrs) != 1 {
			t.Fatalf("%q is read as %+v", text, info)
		}
		full, err := peer.AddrInfoToP2pAddrs(&info)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParsePeerAddr(full[0].String())
		if err != nil || again.ID != info.ID || !again.Addrs[0].Equal(info.Addrs[0]) {
			t.Errorf("%q is read as %+v, and that as %+v, %v", text, info, again, err)
		}
	})
}
