package wire

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"io"
)

// A bundle is a file of a room's sealed events, for USB sticks, pipes and tests: docs/spec/bundle.md. It
// reveals no more than what a mirror sees, and every event in it proves itself.

// bundleMagic begins every bundle; a later version has another last digit.
const bundleMagic = "starling bundle1"

// Types of a bundle's frames.
const (
	bundleSection = 1 // topic key 32: the records that follow belong to it
	bundleRecord  = 2 // a sealed event
	bundleEnd     = 3 // count 8, SHA-256 of everything before this frame, signature 64
)

const (
	bundleEndSize = 8 + sha256.Size + 64
	// maxBundleFrame is the most bytes of a frame after its length: its type and body.
	maxBundleFrame = 1 + MaxSealed
	// MaxBundleSections bounds the sections of a bundle.
	MaxBundleSections = 1024
)

// BundleWriter writes a bundle: for each topic Section, then its events ascending, and End at last.
type BundleWriter struct {
	w     *bufio.Writer
	sum   hash.Hash
	keys  *RoomKeys
	count uint64
	err   error
}

// NewBundleWriter begins a bundle on w.
func NewBundleWriter(w io.Writer) *BundleWriter {
	b := &BundleWriter{w: bufio.NewWriterSize(w, 64<<10), sum: sha256.New()}
	b.write([]byte(bundleMagic))
	return b
}

func (b *BundleWriter) write(p []byte) {
	if b.err != nil {
		return
	}
	b.sum.Write(p)
	_, b.err = b.w.Write(p)
}

func (b *BundleWriter) frame(kind byte, body []byte) {
	head := binary.BigEndian.AppendUint32(make([]byte, 0, 5), uint32(1+len(body)))
	b.write(append(head, kind))
	b.write(body)
}

// Section begins the events of a topic; keys are the topic's, those of the last one sign the end.
func (b *BundleWriter) Section(keys *RoomKeys) error {
	b.keys = keys
	b.frame(bundleSection, keys.Topic[:])
	return b.err
}

// Record adds a sealed event as it is stored.
func (b *BundleWriter) Record(sealed []byte) error {
	if len(sealed) == 0 || len(sealed) > MaxSealed {
		return invalidf("sealed event of %d bytes in a bundle", len(sealed))
	}
	b.count++
	b.frame(bundleRecord, sealed)
	return b.err
}

// End signs the bundle and writes out what is left. It returns the number of events.
func (b *BundleWriter) End() (uint64, error) {
	if b.keys == nil {
		return 0, invalidf("bundle without a section")
	}
	statement := bundleStatement(b.count, [32]byte(b.sum.Sum(nil)))
	sig := Sign(DomainBundle, b.keys.signer, statement)
	b.frame(bundleEnd, append(statement, sig[:]...))
	if b.err == nil {
		b.err = b.w.Flush()
	}
	return b.count, b.err
}

func bundleStatement(count uint64, sum [32]byte) []byte {
	return append(binary.BigEndian.AppendUint64(make([]byte, 0, bundleEndSize), count), sum[:]...)
}

// BundleReader reads a bundle, one event at a time, in memory of one event.
type BundleReader struct {
	r        *bufio.Reader
	sum      hash.Hash
	topic    TopicKey
	sections int
	count    uint64
	last     bundlePlace
	ended    bool
}

type bundlePlace struct {
	hlc HLC
	id  SealedID
}

func (p bundlePlace) before(q bundlePlace) bool {
	return p.hlc < q.hlc || p.hlc == q.hlc && bytes.Compare(p.id[:], q.id[:]) < 0
}

// NewBundleReader reads the beginning of a bundle.
func NewBundleReader(r io.Reader) (*BundleReader, error) {
	b := &BundleReader{r: bufio.NewReaderSize(r, 64<<10), sum: sha256.New()}
	magic := make([]byte, len(bundleMagic))
	if _, err := io.ReadFull(b.r, magic); err != nil || string(magic) != bundleMagic {
		if err == nil && bytes.HasPrefix(magic, []byte(bundleMagic[:len(bundleMagic)-1])) {
			return nil, unsupportedf("bundle of version %q", magic[len(magic)-1])
		}
		return nil, invalidf("not a bundle")
	}
	b.sum.Write(magic)
	return b, nil
}

// Next returns the next event's bytes and its topic; nothing about them is verified but their size. At the end of a
// whole bundle, whose signature holds, the error is io.EOF. The events before any other error are as good
// as each proves.
func (b *BundleReader) Next() (topic TopicKey, sealed []byte, err error) {
	for {
		kind, body, err := b.frame()
		if err != nil {
			return TopicKey{}, nil, err
		}
		switch kind {
		case bundleSection:
			if b.sections++; len(body) != len(b.topic) || b.sections > MaxBundleSections {
				return TopicKey{}, nil, invalidf("section %d of a bundle, %d bytes", b.sections, len(body))
			}
			copy(b.topic[:], body)
			b.last = bundlePlace{}
		case bundleRecord:
			if b.sections == 0 || len(body) == 0 {
				return TopicKey{}, nil, invalidf("event of a bundle without a topic, or empty")
			}
			b.count++
			return b.topic, body, nil
		default:
			return TopicKey{}, nil, invalidf("frame of type %d in a bundle", kind)
		}
	}
}

// Ordered says whether an event that was checked lies after the one before it, as it must.
func (b *BundleReader) Ordered(s *Sealed) bool {
	at := bundlePlace{s.HLC, s.ID}
	ok := b.last == (bundlePlace{}) || b.last.before(at)
	b.last = at
	return ok
}

// frame reads one frame; at the end it checks the signature and answers io.EOF.
func (b *BundleReader) frame() (kind byte, body []byte, err error) {
	if b.ended {
		return 0, nil, io.EOF
	}
	var head [5]byte
	if _, err := io.ReadFull(b.r, head[:]); err != nil {
		return 0, nil, fmt.Errorf("reading a bundle: it is cut off: %w", io.ErrUnexpectedEOF)
	}
	size := binary.BigEndian.Uint32(head[:])
	if size == 0 || size > maxBundleFrame {
		return 0, nil, invalidf("frame of %d bytes in a bundle", size)
	}
	body = make([]byte, size-1)
	if _, err := io.ReadFull(b.r, body); err != nil {
		return 0, nil, fmt.Errorf("reading a bundle: it is cut off: %w", io.ErrUnexpectedEOF)
	}
	if head[4] == bundleEnd {
		return 0, nil, b.end(body)
	}
	b.sum.Write(head[:])
	b.sum.Write(body)
	return head[4], body, nil
}

func (b *BundleReader) end(body []byte) error {
	if len(body) != bundleEndSize || b.sections == 0 {
		return invalidf("end of a bundle, %d bytes", len(body))
	}
	statement := bundleStatement(b.count, [32]byte(b.sum.Sum(nil)))
	if !bytes.Equal(body[:len(statement)], statement) ||
		!VerifySignature(DomainBundle, b.topic, statement, Signature(body[len(statement):])) {
		return invalidf("bundle is not as it was written: its end does not verify")
	}
	if _, err := b.r.ReadByte(); err != io.EOF {
		return invalidf("bundle goes on after its end")
	}
	b.ended = true
	return io.EOF
}
