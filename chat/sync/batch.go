package sync

import (
	stdsync "sync"

	"github.com/klauspost/compress"
	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/encoding/protowire"
)

// The coders are shared by all sessions: each holds a few hundred kilobytes, and EncodeAll and
// DecodeAll may be called from several goroutines. Their options are constants, so that an error of
// construction is a defect of this file.
var (
	encoder = stdsync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(2),
			zstd.WithWindowSize(MaxBatch), zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true))
		if err != nil {
			panic(err)
		}
		return e
	})
	decoder = stdsync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(MaxBatch), zstd.WithDecoderMaxMemory(MaxBatch), zstd.WithDecodeAllCapLimit(true))
		if err != nil {
			panic(err)
		}
		return d
	})
)

// entrySize is how many bytes a record takes in a batch.
func entrySize(record []byte) int {
	return protowire.SizeTag(1) + protowire.SizeBytes(len(record))
}

// worthPacking is the estimate of compressibility from which compression is tried; below it zstd saves
// less than a tenth. Sealed records look like random bytes: most batches travel as they are, and trying
// would be the most expensive part of a session.
const worthPacking = 0.15

// packBatch returns a batch of records (empty: unavailable) and its compressed form, which is nil
// when compression does not make it smaller.
func packBatch(entries [][]byte) (batch, packed []byte) {
	size := 0
	for _, e := range entries {
		size += entrySize(e)
	}
	batch = make([]byte, 0, size)
	for _, e := range entries {
		batch = appendBytes(batch, 1, e)
	}
	if compress.Estimate(batch) < worthPacking {
		return batch, nil
	}
	packed = encoder().EncodeAll(batch, make([]byte, 0, size))
	if len(packed) >= len(batch) {
		return batch, nil
	}
	return batch, packed
}

// unpackBatch is the inverse. size is what the peer announced, already checked against [MaxBatch]; nothing
// beyond it is ever reserved, whatever the compressed bytes say. The records alias one fresh allocation.
func unpackBatch(data []byte, size int, compressed bool, answered int) ([][]byte, error) {
	batch := data
	if compressed {
		var err error
		if batch, err = decoder().DecodeAll(data, make([]byte, 0, size)); err != nil {
			return nil, malformed("batch does not decompress: %v", err)
		}
		if len(batch) != size {
			return nil, malformed("batch of %d bytes announced as %d", len(batch), size)
		}
	}
	entries := make([][]byte, 0, answered)
	f := fields{rest: batch}
	for f.next(1) {
		if f.num != 1 {
			f.unknown()
			break
		}
		if len(entries) == answered {
			return nil, malformed("batch of more than %d entries", answered)
		}
		entries = append(entries, f.bytes(0, MaxRecord, 1))
	}
	if f.err == nil && len(entries) != answered {
		return nil, malformed("batch of %d entries announced as %d", len(entries), answered)
	}
	return entries, f.err
}
