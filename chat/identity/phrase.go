package identity

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"strings"

	"github.com/tyler-smith/go-bip39"
)

const (
	entropySize = 32 // bytes, which make 24 words
	phraseWords = 24
)

// ErrPhrase is matched by every error about a recovery phrase.
var ErrPhrase = errors.New("recovery phrase does not hold")

// AccountFromPhrase makes the account of a recovery phrase: 24 words of the
// English BIP-39 list, in any case and with any white space. Errors match
// ErrPhrase, say which word is wrong, and never repeat the words themselves.
func AccountFromPhrase(phrase string) (*Account, error) {
	words := strings.Fields(strings.ToLower(phrase))
	if len(words) != phraseWords {
		return nil, fmt.Errorf("%w: it has %d words, want %d", ErrPhrase, len(words), phraseWords)
	}
	for i, w := range words {
		if _, ok := bip39.GetWordIndex(w); !ok {
			return nil, fmt.Errorf("%w: word %d is not in the list; check its spelling", ErrPhrase, i+1)
		}
	}
	raw, err := bip39.EntropyFromMnemonic(strings.Join(words, " "))
	if err != nil || len(raw) != entropySize {
		return nil, fmt.Errorf("%w: the checksum does not fit; a word is wrong or two are swapped", ErrPhrase)
	}
	return accountFromEntropy([entropySize]byte(raw))
}

// Phrase returns the account's recovery phrase: whoever has it is the account.
func (a *Account) Phrase() string {
	phrase, err := bip39.NewMnemonic(a.entropy[:])
	if err != nil {
		panic(err) // only for a size of entropy other than the five of BIP-39
	}
	return phrase
}

// accountFromEntropy follows BIP-39 from the entropy to the seed (PBKDF2 with an
// empty passphrase), then HKDF-SHA256 to the Ed25519 seed.
func accountFromEntropy(entropy [entropySize]byte) (*Account, error) {
	phrase, err := bip39.NewMnemonic(entropy[:])
	if err != nil {
		return nil, fmt.Errorf("making an account: %w", err)
	}
	a := &Account{entropy: entropy, seed: bip39.NewSeed(phrase, "")}
	key := derive(a.seed, accountKeyInfo)
	a.key = ed25519.NewKeyFromSeed(key[:])
	return a, nil
}
