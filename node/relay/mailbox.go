package relay

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/starling-chat/starling/chat/wire"
	"github.com/starling-chat/starling/storage"
)

// This file has the mailboxes: whoever knows a mailbox's id may deposit, only the holder of its key
// may collect and delete. A deposit is synced to disk before its receipt is written.

// archiveCounts is what an archive counts. Nothing in it names a topic, a mailbox or a peer.
type archiveCounts struct {
	mirrored, dropped, deposits, sessions, refused atomic.Uint64
	bytes                                          atomic.Int64
}

func (a *Archive) serveMailbox(ctx context.Context, st network.Stream, _ wire.DeviceID) error {
	timeout := firstByteTimeout
	in := bufio.NewReaderSize(st, 4<<10)
	for {
		if err := st.SetReadDeadline(time.Now().Add(timeout)); err != nil {
			return err
		}
		payload, err := wire.ReadFrame(in, wire.MaxFrame)
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		f, err := wire.ParseMailboxFrame(payload)
		if err != nil {
			return err
		}
		var answer wire.Frame
		if a.within(st.Conn().RemotePeer()) {
			answer, err = a.mailbox(ctx, f)
		} else {
			a.counts.refused.Add(1)
			answer = overRate(f, a.cfg.Requests)
		}
		if err != nil {
			return err
		}
		out, err := wire.AppendFrame(nil, answer)
		if err != nil {
			return err
		}
		if err := st.SetWriteDeadline(time.Now().Add(answerTimeout)); err != nil {
			return err
		}
		if _, err := st.Write(out); err != nil {
			return err
		}
		timeout = idleTimeout
	}
}

func overRate(f wire.Frame, requests int) wire.Frame {
	if _, ok := f.(*wire.MailboxCollect); ok {
		return &wire.MailboxItems{Code: wire.RelayRateLimit}
	}
	return &wire.MailboxReceipt{Code: wire.RelayRateLimit, Detail: fmt.Sprintf("at most %d requests a minute", requests)}
}

func (a *Archive) mailbox(ctx context.Context, f wire.Frame) (wire.Frame, error) {
	switch f := f.(type) {
	case *wire.MailboxDeposit:
		return a.deposit(ctx, f)
	case *wire.MailboxCollect:
		return a.collect(ctx, f)
	case *wire.MailboxDelete:
		return a.remove(ctx, f)
	default:
		return nil, fmt.Errorf("unexpected %T from a client", f)
	}
}

func mailboxName(box wire.MailboxID) string { return mailboxPrefix + box.String() }

func (a *Archive) deposit(ctx context.Context, f *wire.MailboxDeposit) (*wire.MailboxReceipt, error) {
	if wire.WeakKey(f.Mailbox) {
		return &wire.MailboxReceipt{Code: wire.RelayBadProof, Detail: "no such mailbox can exist"}, nil
	}
	if a.full() {
		return &wire.MailboxReceipt{Code: wire.RelayFull, Detail: "this relay's disk quota is used up"}, nil
	}
	stream, err := a.store.Stream(ctx, mailboxName(f.Mailbox))
	if err != nil {
		return a.noRoom(err)
	}
	info, err := a.store.Info(ctx, stream)
	if err != nil {
		return nil, err
	}
	if int(info.Count) >= a.cfg.MailboxItems || int64(info.Bytes)+int64(len(f.Envelope)) > a.cfg.MailboxBytes {
		return &wire.MailboxReceipt{
			Code:   wire.RelayQuota,
			Detail: fmt.Sprintf("the mailbox is full (%d messages or %d MiB)", a.cfg.MailboxItems, a.cfg.MailboxBytes>>20),
		}, nil
	}
	now := a.now()
	expires := now.Add(min(f.Keep, a.cfg.MailboxAge)).Truncate(time.Millisecond)
	var b storage.Batch
	b.Append(storage.Record{
		Stream: stream, Time: storage.ClockTime(now), ID: storage.ID(f.Deposit()),
		Expires: expires, Value: f.Envelope,
	})
	if _, err := a.store.Commit(ctx, &b, storage.Durable); err != nil {
		return a.noRoom(err)
	}
	a.counts.deposits.Add(1)
	receipt := &wire.MailboxReceipt{Code: wire.RelayOK, Deposit: f.Deposit(), Expires: expires}
	receipt.Sign(a.key, f.Mailbox)
	return receipt, nil
}

// noRoom turns a full disk into a refusal that the depositor understands.
func (a *Archive) noRoom(err error) (*wire.MailboxReceipt, error) {
	detail, err := refusalOf(err)
	if err != nil {
		return nil, err
	}
	a.counts.refused.Add(1)
	return &wire.MailboxReceipt{Code: wire.RelayFull, Detail: detail}, nil
}

// collectOverhead is what an item takes in a frame besides its envelope, at most.
const collectOverhead = 64

func (a *Archive) collect(ctx context.Context, f *wire.MailboxCollect) (*wire.MailboxItems, error) {
	if !wire.VerifyMailbox(f.Mailbox, a.self, f.Nonce, f.Proof) {
		return &wire.MailboxItems{Code: wire.RelayBadProof}, nil
	}
	stream, err := a.store.LookupStream(ctx, mailboxName(f.Mailbox))
	if errors.Is(err, storage.ErrNotFound) {
		return &wire.MailboxItems{Code: wire.RelayUnknownBox}, nil
	} else if err != nil {
		return nil, err
	}
	var after storage.Position
	if f.After != (wire.DepositID{}) {
		r, err := a.store.Get(ctx, storage.ID(f.After))
		switch {
		case err == nil && r.Stream == stream:
			after = r.Position()
		case err != nil && !errors.Is(err, storage.ErrNotFound):
			return nil, err
		}
	}
	out := &wire.MailboxItems{Code: wire.RelayOK}
	size := collectOverhead
	for r, err := range a.store.Scan(ctx, stream, storage.Range{After: after, Limit: int(f.Limit) + 1}) {
		if err != nil {
			return nil, err
		}
		size += len(r.Value) + collectOverhead
		if len(out.Items) == int(f.Limit) || len(out.Items) > 0 && size > wire.MaxFrame {
			out.More = true
			break
		}
		out.Items = append(out.Items, wire.MailboxItem{Deposit: wire.DepositID(r.ID), Envelope: r.Value})
	}
	return out, nil
}

func (a *Archive) remove(ctx context.Context, f *wire.MailboxDelete) (*wire.MailboxReceipt, error) {
	if !wire.VerifyMailbox(f.Mailbox, a.self, f.Nonce, f.Proof) {
		return &wire.MailboxReceipt{Code: wire.RelayBadProof, Detail: "the proof for the mailbox does not hold"}, nil
	}
	stream, err := a.store.LookupStream(ctx, mailboxName(f.Mailbox))
	if errors.Is(err, storage.ErrNotFound) {
		return &wire.MailboxReceipt{Code: wire.RelayUnknownBox}, nil
	} else if err != nil {
		return nil, err
	}
	var b storage.Batch
	for _, id := range f.Deposits {
		r, err := a.store.Get(ctx, storage.ID(id))
		if errors.Is(err, storage.ErrNotFound) || err == nil && r.Stream != stream {
			continue // gone already, or not in this mailbox
		} else if err != nil {
			return nil, err
		}
		b.Remove(storage.ID(id))
	}
	if _, err := a.store.Commit(ctx, &b, storage.Relaxed); err != nil {
		return nil, fmt.Errorf("deleting deposits: %w", err)
	}
	return &wire.MailboxReceipt{Code: wire.RelayOK}, nil
}
