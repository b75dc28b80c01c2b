// Package backup writes and reads backups: an age file, which the stock age tool opens as well, of lines
// of JSON. It knows the container and none of what lies inside; docs/spec/backup.md specifies both.
//
// A backup never holds ratchet states or device keys: a state that comes back from a copy would use keys
// twice. Restoring makes a new device of the same account.
package backup

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"filippo.io/age"
)

// Version is the version of the container that this package writes.
const Version = 1

const (
	// workFactor is the cost of a passphrase's scrypt: 2^18, about a second and 256 MiB, as age itself takes.
	workFactor = 18
	// maxWorkFactor is what a file may ask for: 16 times as much.
	maxWorkFactor = 22
	// maxSections bounds the sections of a backup, and maxPlain its size when opened.
	maxSections = 100_000
	maxPlain    = 8 << 30 // bytes
	// ageIntro is how every age file begins.
	ageIntro = "age-encryption.org/"
	// maxSection bounds one section, in bytes.
	maxSection = 64 << 20
)

// Errors of a backup; each says what to do.
var (
	// ErrWrongKey: the file is a backup for another passphrase or key. A header whose salt is
	// damaged looks the same.
	ErrWrongKey = errors.New("the backup does not open: wrong passphrase, not made for this key, or its first lines are damaged")
	// ErrNotBackup: the file is no age file, or what it holds is no backup.
	ErrNotBackup = errors.New("not a backup: give the file that `starling backup create` wrote")
	// ErrDamaged: the file is not what was written.
	ErrDamaged = errors.New("the backup is damaged: use another copy")
	// ErrTruncated: the file ends too early.
	ErrTruncated = errors.New("the backup is cut short: copy it again, or use another copy")
	// ErrNewer: a newer version wrote it, or a part of it.
	ErrNewer = errors.New("the backup was written by a newer version of starling: use that version")
)

// Section is one part of a backup.
type Section struct {
	Name    string          `json:"section"`
	Version int             `json:"v"`
	Data    json.RawMessage `json:"data"`
}

// Make returns a section with a value encoded as JSON.
func Make(name string, version int, v any) (Section, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return Section{}, fmt.Errorf("encoding the %s of a backup: %w", name, err)
	}
	if len(b) > maxSection {
		return Section{}, fmt.Errorf("the %s of a backup are %d bytes, at most %d", name, len(b), maxSection)
	}
	return Section{name, version, b}, nil
}

// Decode reads a section's value; a version above the newest known gives ErrNewer.
func (s *Section) Decode(newest int, v any) error {
	if s.Version > newest {
		return fmt.Errorf("%s, version %d: %w", s.Name, s.Version, ErrNewer)
	}
	if s.Version < 1 {
		return fmt.Errorf("%s, version %d: %w", s.Name, s.Version, ErrDamaged)
	}
	if err := json.Unmarshal(s.Data, v); err != nil {
		return fmt.Errorf("%s: %w: %w", s.Name, ErrDamaged, err)
	}
	return nil
}

// Backup is what a file holds.
type Backup struct {
	Created  time.Time
	Program  string // which version wrote it
	Sections []Section
}

// first and last are the lines around the sections.
type first struct {
	Version int       `json:"starling_backup"`
	Created time.Time `json:"created"`
	Program string    `json:"program"`
}

type last struct {
	End *int `json:"end"` // how many sections there were
}

// PassphraseRecipient and PassphraseIdentity are a passphrase for Write and for Read.
func PassphraseRecipient(text string) (age.Recipient, error) {
	r, err := age.NewScryptRecipient(text)
	if err != nil {
		return nil, fmt.Errorf("using the passphrase: %w", err)
	}
	r.SetWorkFactor(workFactor)
	return r, nil
}

// PassphraseIdentity is the passphrase of a backup that was written with PassphraseRecipient.
func PassphraseIdentity(text string) (age.Identity, error) {
	id, err := age.NewScryptIdentity(text)
	if err != nil {
		return nil, fmt.Errorf("using the passphrase: %w", err)
	}
	id.SetMaxWorkFactor(maxWorkFactor)
	return id, nil
}

// Write writes a backup for one passphrase, or for one or several keys. What was written before an error
// is no backup.
func Write(w io.Writer, b *Backup, to ...age.Recipient) error {
	out, err := age.Encrypt(w, to...)
	if err != nil {
		return fmt.Errorf("writing a backup: %w", err)
	}
	lines := bufio.NewWriter(out)
	enc := json.NewEncoder(lines)
	n := len(b.Sections)
	err = enc.Encode(first{Version, b.Created.UTC().Truncate(time.Second), b.Program})
	for i := range b.Sections {
		if err == nil {
			err = enc.Encode(&b.Sections[i])
		}
	}
	if err == nil {
		err = enc.Encode(last{&n})
	}
	if err := errors.Join(err, lines.Flush(), out.Close()); err != nil {
		return fmt.Errorf("writing a backup: %w", err)
	}
	return nil
}

// Read reads a whole backup and checks all of it. Errors match one of those above.
func Read(r io.Reader, with ...age.Identity) (*Backup, error) {
	in := bufio.NewReader(r)
	if begin, _ := in.Peek(len(ageIntro)); string(begin) != ageIntro {
		return nil, ErrNotBackup
	}
	plain, err := age.Decrypt(in, with...)
	if err != nil {
		var none *age.NoIdentityMatchError
		switch {
		case errors.As(err, &none):
			return nil, ErrWrongKey
		case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
			return nil, fmt.Errorf("%w: it ends in its header", ErrTruncated)
		}
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	b, err := readLines(&noteErrors{r: io.LimitReader(plain, maxPlain)})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// noteErrors remembers why reading ended: encoding/json hides it in some places.
type noteErrors struct {
	r   io.Reader
	err error
}

func (n *noteErrors) Read(p []byte) (int, error) {
	k, err := n.r.Read(p)
	if err != nil {
		n.err = err
	}
	return k, err
}

func readLines(in *noteErrors) (*Backup, error) {
	dec := json.NewDecoder(in)
	failed := func(err error) error {
		switch {
		case errors.Is(in.err, io.ErrUnexpectedEOF), in.err == nil && errors.Is(err, io.ErrUnexpectedEOF), errors.Is(in.err, io.EOF) && errors.Is(err, io.ErrUnexpectedEOF):
			return ErrTruncated
		case in.err != nil && !errors.Is(in.err, io.EOF):
			return fmt.Errorf("%w: %w", ErrDamaged, in.err)
		}
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	var head first
	if err := dec.Decode(&head); err != nil {
		if in.err == nil || errors.Is(in.err, io.EOF) {
			return nil, ErrNotBackup // it opened, and is something else
		}
		return nil, failed(err)
	}
	switch {
	case head.Version > Version:
		return nil, fmt.Errorf("%w (version %d)", ErrNewer, head.Version)
	case head.Version < 1:
		return nil, ErrNotBackup
	}
	b := &Backup{Created: head.Created, Program: head.Program}
	for {
		var line struct {
			Section
			last
		}
		err := dec.Decode(&line)
		switch {
		case errors.Is(err, io.EOF):
			return nil, ErrTruncated // without its last line
		case err != nil:
			return nil, failed(err)
		case line.End != nil:
			if *line.End != len(b.Sections) {
				return nil, fmt.Errorf("%w: %d sections, and it says %d", ErrDamaged, len(b.Sections), *line.End)
			}
			if _, err := dec.Token(); !errors.Is(err, io.EOF) {
				return nil, fmt.Errorf("%w: something follows its end", ErrDamaged)
			}
			return b, nil
		case line.Name == "" || len(b.Sections) == maxSections || len(line.Data) > maxSection:
			return nil, fmt.Errorf("%w: a section without a name, or too many", ErrDamaged)
		}
		b.Sections = append(b.Sections, line.Section)
	}
}
