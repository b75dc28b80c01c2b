package storage

import (
	"context"
	"errors"
	"fmt"

	"github.com/dgraph-io/badger/v4"
)

// EveryVersion opens a store that nobody uses and calls f with all that can still be opened of it with its
// keys: every version of every value that the database holds, replaced and deleted ones included, as bytes
// that begin with the kind of the key. It is for tests that look for what should be gone. sealed counts the
// versions that were there and could not be opened.
func EveryVersion(ctx context.Context, o Options, f func(key, plain []byte)) (sealed int, err error) {
	s, err := Open(ctx, o)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	err = s.disk.engine.db.View(func(txn *badger.Txn) error {
		all := badger.DefaultIteratorOptions
		all.AllVersions = true
		it := txn.NewIterator(all)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			key := it.Item().KeyCopy(nil)
			stored, err := it.Item().ValueCopy(nil)
			if err != nil {
				return err
			}
			if len(stored) == 0 || len(key) == 0 {
				continue // a deletion
			}
			plain, err := s.seal.open(key, stored)
			if err != nil {
				sealed++
				continue
			}
			f(key, plain)
		}
		return nil
	})
	if err != nil {
		return sealed, fmt.Errorf("reading every version: %w", err)
	}
	return sealed, nil
}
