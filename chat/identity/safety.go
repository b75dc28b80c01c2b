package identity

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/starling-chat/starling/chat/wire"
)

const (
	safetyDomain = "starling/safety-number/1"
	safetyGroups = 12 // of five digits
)

// SafetyNumber is what two people compare to know that nobody sits between
// them: 60 decimal digits, the same for both.
type SafetyNumber string

// NewSafetyNumber computes the number of two accounts, in either order:
// SHA-512("starling/safety-number/1" || smaller key || larger key), of which
// each of the first 12 groups of 5 bytes, big-endian, modulo 100,000 gives five
// digits.
func NewSafetyNumber(a, b wire.AccountID) SafetyNumber {
	if bytes.Compare(a[:], b[:]) > 0 {
		a, b = b, a
	}
	h := sha512.New()
	h.Write([]byte(safetyDomain))
	h.Write(a[:])
	h.Write(b[:])
	sum := h.Sum(nil)
	var out strings.Builder
	for i := range safetyGroups {
		var group [8]byte
		copy(group[3:], sum[5*i:5*i+5])
		fmt.Fprintf(&out, "%05d", binary.BigEndian.Uint64(group[:])%100_000)
	}
	return SafetyNumber(out.String())
}

// String returns the digits in groups of five, four to a line of three.
func (n SafetyNumber) String() string {
	var out strings.Builder
	for i := 0; i < len(n); i += 5 {
		switch {
		case i == 0:
		case i%20 == 0:
			out.WriteByte('\n')
		default:
			out.WriteByte(' ')
		}
		out.WriteString(string(n[i:min(i+5, len(n))]))
	}
	return out.String()
}

const safetyQRPrefix = "STARLING:SAFETY/1/"

// QRText returns what a QR code of the number holds: capitals and digits only,
// which keeps the code small.
func (n SafetyNumber) QRText() string { return safetyQRPrefix + string(n) }

// ErrSafetyMismatch says that two safety numbers differ.
var ErrSafetyMismatch = errors.New("safety numbers differ: you are not talking to the account you think, or one of you has a new one")

// Check compares the number with what the other side reads out or its QR code
// holds. Spaces and line breaks are ignored. It returns nil, ErrSafetyMismatch,
// or an error that says the input is no safety number.
func (n SafetyNumber) Check(input string) error {
	text := strings.Join(strings.Fields(strings.ToUpper(input)), "")
	text = strings.TrimPrefix(text, safetyQRPrefix)
	if len(text) != len(n) || strings.Trim(text, "0123456789") != "" {
		return fmt.Errorf("a safety number has %d digits; type all of them", 5*safetyGroups)
	}
	if text != string(n) {
		return ErrSafetyMismatch
	}
	return nil
}
