package natlab

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// expression is one step of an nftables rule. A rule's steps run in order until one of
// them does not match.
type expression = expr.Any

// Offsets in an IPv4 header (RFC 791) and in a TCP or UDP header.
const (
	ipv4SourceOffset      = 12
	ipv4DestinationOffset = 16
	destinationPortOffset = 2
)

// register is where a rule keeps the value it looks at.
const register = 1

func sequence(parts ...[]expression) []expression {
	var all []expression
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func dropPacket() []expression {
	return []expression{&expr.Verdict{Kind: expr.VerdictDrop}}
}

func acceptPacket() []expression {
	return []expression{&expr.Verdict{Kind: expr.VerdictAccept}}
}

func equals(data []byte) expression {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: data}
}

// isIPv4 matches by the frame's protocol; in the address family "inet" it is always true
// for IPv4.
func isIPv4() []expression {
	return []expression{
		&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: register},
		equals(binary.BigEndian.AppendUint16(nil, unix.ETH_P_IP)),
	}
}

// isTransport matches one transport protocol, unix.IPPROTO_UDP for instance.
func isTransport(protocol byte) []expression {
	return []expression{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register}, equals([]byte{protocol})}
}

// interfaceName pads a name as the kernel compares it.
func interfaceName(dev string) []byte {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, dev)
	return name
}

func comesFrom(dev string) []expression {
	return []expression{&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: register}, equals(interfaceName(dev))}
}

func goesTo(dev string) []expression {
	return []expression{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: register}, equals(interfaceName(dev))}
}

// inPrefix matches the IPv4 address at an offset of the network header.
func inPrefix(offset uint32, p netip.Prefix) []expression {
	mask := net.CIDRMask(p.Bits(), 32)
	return []expression{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: mask, Xor: make([]byte, 4)},
		equals(p.Masked().Addr().AsSlice()),
	}
}

// toPort matches the destination port of TCP and UDP.
func toPort(port uint16) []expression {
	return []expression{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: destinationPortOffset, Len: 2},
		equals(binary.BigEndian.AppendUint16(nil, port)),
	}
}

// isReply matches packets of a connection that was opened from the other side.
func isReply() []expression {
	return []expression{
		&expr.Ct{Key: expr.CtKeySTATE, Register: register},
		&expr.Bitwise{
			SourceRegister: register, DestRegister: register, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED),
			Xor:  make([]byte, 4),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: make([]byte, 4)},
	}
}

// withProbability matches a share of all packets, chosen at random, in steps of 1e-6.
func withProbability(share float64) []expression {
	const steps = 1_000_000
	return []expression{
		&expr.Numgen{Register: register, Modulus: steps, Type: unix.NFT_NG_RANDOM},
		// Comparisons go byte by byte, so the number has to be big-endian.
		&expr.Byteorder{SourceRegister: register, DestRegister: register, Op: expr.ByteorderHton, Len: 4, Size: 4},
		&expr.Cmp{Op: expr.CmpOpLt, Register: register, Data: binary.BigEndian.AppendUint32(nil, uint32(share*steps))},
	}
}

// ruleset collects the rules of a router; flush puts them into force in one transaction.
type ruleset struct {
	conn  *nftables.Conn
	table *nftables.Table
}

// newRuleset starts a table from nothing, inside the calling thread's namespace.
func newRuleset(name string) (*ruleset, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}
	table := &nftables.Table{Family: nftables.TableFamilyINet, Name: name}
	conn.AddTable(table)
	conn.DelTable(table)
	return &ruleset{conn: conn, table: conn.AddTable(table)}, nil
}

func (r *ruleset) chain(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority, policy nftables.ChainPolicy) *nftables.Chain {
	return r.conn.AddChain(&nftables.Chain{Name: name, Table: r.table, Type: kind, Hooknum: hook, Priority: priority, Policy: &policy})
}

func (r *ruleset) add(chain *nftables.Chain, parts ...[]expression) {
	r.conn.AddRule(&nftables.Rule{Table: r.table, Chain: chain, Exprs: sequence(parts...)})
}

// ipNet converts to the type that netlink takes.
func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
