package node

import (
	"context"
	"errors"
	"fmt"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/chat/backup"
	"github.com/starling-chat/starling/node/api"
	"github.com/starling-chat/starling/storage"
)

// Backup implements apiserver.Maintenance.
func (n *Node) Backup(ctx context.Context, history bool) (api.Backup, error) {
	return exportStore(ctx, n.store, history)
}

// BackupStore is Backup of a node that does not run.
func BackupStore(ctx context.Context, cfg Config, history bool) (out api.Backup, err error) {
	err = withStore(ctx, cfg, func(store *storage.Store) error {
		out, err = exportStore(ctx, store, history)
		return err
	})
	return out, err
}

// Purge implements apiserver.Maintenance.
func (n *Node) Purge(ctx context.Context) error { return n.store.Purge(ctx) }

// PurgeStore is Purge of a node that does not run.
func PurgeStore(ctx context.Context, cfg Config) error {
	return withStore(ctx, cfg, func(store *storage.Store) error { return store.Purge(ctx) })
}

// RestoreStore fills the store of a node that has never run. Sections that foreign names are not chat's and
// are left alone; an error that matches backup.ErrNewer names one that nobody knows.
func RestoreStore(ctx context.Context, cfg Config, sections []backup.Section, foreign func(name string) bool) error {
	return withStore(ctx, cfg, func(store *storage.Store) error { return chat.Restore(ctx, store, sections, foreign) })
}

func withStore(ctx context.Context, cfg Config, do func(*storage.Store) error) error {
	p, err := cfg.check()
	if err != nil {
		return fmt.Errorf("configuring the node: %w", err)
	}
	store, err := openStore(ctx, p)
	if err != nil {
		return err
	}
	return errors.Join(do(store), store.Close())
}

func exportStore(ctx context.Context, store *storage.Store, history bool) (api.Backup, error) {
	sections, err := chat.Export(ctx, store, history)
	if err != nil {
		return api.Backup{}, fmt.Errorf("gathering a backup: %w", err)
	}
	out := api.Backup{Sections: make([]api.BackupSection, len(sections))}
	for i, s := range sections {
		out.Sections[i] = api.BackupSection(s)
	}
	return out, nil
}
