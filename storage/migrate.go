package storage

import (
	"context"
	"encoding/binary"
	"fmt"
)

// schemaVersion is the version of keys and values this program writes.
const schemaVersion = 2

// schemaName is the key under which the version is stored.
const schemaName = "schema"

// migrations turn the schema of version n into n+1. Each works in transactions
// of its own (Store.update) and must bear being repeated, since a crash may
// interrupt it; the version is raised after it returned.
var migrations = map[uint64]migration{
	// Version 2 has items that are held: what version 1 wrote stays as it is, and
	// a program that knows version 1 alone would not find them.
	1: func(context.Context, *Store) error { return nil },
}

type migration func(ctx context.Context, s *Store) error

// migrate brings the database to the present schema.
func (s *Store) migrate(ctx context.Context) error {
	b, err := s.lookup(ctx, storeKey(schemaName))
	if err != nil {
		return fmt.Errorf("reading the schema version: %w", err)
	}
	if b == nil {
		if s.seq > 0 {
			return fmt.Errorf("the database has no schema version: %w", ErrCorrupt)
		}
		return s.setSchema(ctx, s.opts.schema)
	}
	if len(b) != 8 {
		return fmt.Errorf("schema version of %d bytes: %w", len(b), ErrCorrupt)
	}
	v := binary.BigEndian.Uint64(b)
	if v > s.opts.schema {
		return fmt.Errorf("schema %d, this program knows up to %d: %w", v, s.opts.schema, ErrNewer)
	}
	if v < s.opts.schema {
		s.recovery.Migrated = int(v)
	}
	for ; v < s.opts.schema; v++ {
		step, ok := s.opts.migrations[v]
		if !ok {
			return fmt.Errorf("no way from schema %d: %w", v, ErrCorrupt)
		}
		if err := step(ctx, s); err != nil {
			return fmt.Errorf("migrating from schema %d: %w", v, err)
		}
		if err := s.opts.hook("migrated"); err != nil {
			return err
		}
		if err := s.setSchema(ctx, v+1); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) setSchema(ctx context.Context, v uint64) error {
	err := s.update(ctx, Durable, func(t *tx) error {
		t.put(storeKey(schemaName), be64(v))
		return nil
	})
	if err != nil {
		return fmt.Errorf("writing the schema version: %w", err)
	}
	return nil
}
