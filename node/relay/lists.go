package relay

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// maxListSize bounds the file of lists, in bytes.
const maxListSize = 1 << 20

// Lists are the operator's allow and deny rules. They are read from a file that is looked at again
// every few seconds; a file with a mistake leaves the last good rules standing. Lists is a connection
// gater: who is not admitted does not get a connection.
type Lists struct {
	path  string
	log   *slog.Logger
	rules atomic.Pointer[rules]
}

var _ connmgr.ConnectionGater = (*Lists)(nil)

// rules are one reading of the file.
type rules struct {
	modified            time.Time
	size                int64
	allowAny            bool // there is an allow rule: others are not admitted
	allowPeer, denyPeer map[peer.ID]struct{}
	allowNet, denyNet   []netip.Prefix
}

// OpenLists reads the file; an empty path admits everybody.
func OpenLists(path string, log *slog.Logger) (*Lists, error) {
	l := &Lists{path: path, log: log}
	if path == "" {
		return l, nil
	}
	r, err := readRules(path)
	if err != nil {
		return nil, err
	}
	l.rules.Store(r)
	return l, nil
}

// reload reads the file again if it changed; true when there are new rules.
func (l *Lists) reload() bool {
	if l.path == "" {
		return false
	}
	old := l.rules.Load()
	info, err := os.Stat(l.path)
	if err == nil && info.ModTime().Equal(old.modified) && info.Size() == old.size {
		return false
	}
	r, err := readRules(l.path)
	if err != nil {
		l.log.Warn("lists not read again; the former rules stand", "err", err)
		return false
	}
	l.rules.Store(r)
	return true
}

func readRules(path string) (*rules, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("reading the lists: %w", err)
	}
	if info.Size() > maxListSize {
		return nil, fmt.Errorf("reading the lists: %s has %d bytes, at most %d", path, info.Size(), maxListSize)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the lists: %w", err)
	}
	r, err := parseRules(b)
	if err != nil {
		return nil, fmt.Errorf("reading the lists: %s: %w", path, err)
	}
	r.modified, r.size = info.ModTime(), info.Size()
	return r, nil
}

// parseRules reads one rule a line: "allow" or "deny", then a peer id, an address or a network. "#"
// begins a comment.
func parseRules(b []byte) (*rules, error) {
	r := &rules{allowPeer: make(map[peer.ID]struct{}), denyPeer: make(map[peer.ID]struct{})}
	lines := bufio.NewScanner(bytes.NewReader(b))
	for n := 1; lines.Scan(); n++ {
		line, _, _ := strings.Cut(lines.Text(), "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if len(words) != 2 || (words[0] != "allow" && words[0] != "deny") {
			return nil, fmt.Errorf("line %d: want \"allow\" or \"deny\" and one peer id, address or network", n)
		}
		if err := r.add(words[0] == "allow", words[1]); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *rules) add(allow bool, who string) error {
	r.allowAny = r.allowAny || allow
	if p, err := peer.Decode(who); err == nil {
		if allow {
			r.allowPeer[p] = struct{}{}
		} else {
			r.denyPeer[p] = struct{}{}
		}
		return nil
	}
	prefix, err := netip.ParsePrefix(who)
	if err != nil {
		addr, aerr := netip.ParseAddr(who)
		if aerr != nil {
			return errors.New("\"" + who + "\" is neither a peer id nor an address nor a network")
		}
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	if allow {
		r.allowNet = append(r.allowNet, prefix.Masked())
	} else {
		r.denyNet = append(r.denyNet, prefix.Masked())
	}
	return nil
}

// Allows says whether a peer at an address is admitted. A deny rule wins over an allow rule. A nil
// address is one that is not known.
func (l *Lists) Allows(p peer.ID, addr ma.Multiaddr) bool {
	r := l.rules.Load()
	if r == nil {
		return true
	}
	ip, known := addrOf(addr)
	if _, denied := r.denyPeer[p]; denied || (known && within(ip, r.denyNet)) {
		return false
	}
	_, allowed := r.allowPeer[p]
	return !r.allowAny || allowed || (known && within(ip, r.allowNet))
}

// mayBecomeAllowed says whether a connection from an address, of a peer not known yet, may go on.
func (l *Lists) mayBecomeAllowed(addr ma.Multiaddr) bool {
	r := l.rules.Load()
	if r == nil {
		return true
	}
	ip, known := addrOf(addr)
	return !known || !within(ip, r.denyNet)
}

func addrOf(a ma.Multiaddr) (netip.Addr, bool) {
	if a == nil {
		return netip.Addr{}, false
	}
	ip, err := manet.ToIP(a)
	if err != nil {
		return netip.Addr{}, false
	}
	addr, ok := netip.AddrFromSlice(ip)
	return addr.Unmap(), ok
}

func within(ip netip.Addr, nets []netip.Prefix) bool {
	for _, n := range nets {
		if n.Contains(ip) {
			return true
		}
	}
	return false
}

// InterceptPeerDial implements connmgr.ConnectionGater.
func (l *Lists) InterceptPeerDial(p peer.ID) bool {
	r := l.rules.Load()
	if r == nil {
		return true
	}
	_, denied := r.denyPeer[p]
	return !denied
}

// InterceptAddrDial implements connmgr.ConnectionGater.
func (l *Lists) InterceptAddrDial(_ peer.ID, a ma.Multiaddr) bool { return l.mayBecomeAllowed(a) }

// InterceptAccept implements connmgr.ConnectionGater.
func (l *Lists) InterceptAccept(c network.ConnMultiaddrs) bool {
	return l.mayBecomeAllowed(c.RemoteMultiaddr())
}

// InterceptSecured implements connmgr.ConnectionGater. Who it is is known now.
func (l *Lists) InterceptSecured(dir network.Direction, p peer.ID, c network.ConnMultiaddrs) bool {
	return dir == network.DirOutbound || l.Allows(p, c.RemoteMultiaddr())
}

// InterceptUpgraded implements connmgr.ConnectionGater.
func (*Lists) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }
