package api

import "encoding/json"

// BackupRequest asks for what a backup holds.
type BackupRequest struct {
	History bool `json:"history,omitempty"` // with the direct messages
}

// Backup is what a backup holds besides the account: see docs/spec/backup.md. It is as secret as the
// rooms whose secrets it has.
type Backup struct {
	Sections []BackupSection `json:"sections"`
}

// BackupSection is one part of a backup.
type BackupSection struct {
	Name    string          `json:"section"`
	Version int             `json:"v"`
	Data    json.RawMessage `json:"data"`
}
