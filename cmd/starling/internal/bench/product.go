package bench

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/node"
)

// acceptQueue is how many messages may be on their way into the store; then the next command waits.
const acceptQueue = 4096

// product drives a running node as a front-end in the same process does, through its chat service.
type product struct {
	n       *node.Node
	a       *Adapter
	targets map[string]chat.Target // what was resolved before
	pending chan *chat.Submission  // accepted in order by watch
}

var _ Peer = (*product)(nil)

// ServeNode runs the adapter on a running node until the input ends, and reports whatever arrives.
// Strangers are accepted as soon as they write. A relay has no chat and only passes on.
func ServeNode(ctx context.Context, n *node.Node, a *Adapter, serve func(ctx context.Context, addr string, p Peer, usage func() Usage) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p := &product{n: n, a: a, targets: make(map[string]chat.Target), pending: make(chan *chat.Submission, acceptQueue)}
	if n.Chat() == nil {
		return serve(ctx, n.Addrs()[0], p, p.usage)
	}
	sub := n.Chat().Events(0)
	defer sub.Close()
	done := make(chan struct{}, 2)
	go func() { p.report(ctx, sub); done <- struct{}{} }() // ends with ctx; waited for below
	go func() { p.watch(ctx); done <- struct{}{} }()       // likewise
	err := serve(ctx, n.Chat().Me().Link, p, p.usage)
	cancel()
	<-done
	<-done
	return err
}

// report writes what arrives.
func (p *product) report(ctx context.Context, sub *chat.Subscription) {
	for {
		e, err := sub.Next(ctx)
		if err != nil {
			return
		}
		switch {
		case e.Type == chat.EventReset:
			p.a.Error(errors.New("arrivals were passed over: the output is read too slowly"))
		case e.Type == chat.EventMessage && e.Message.Kind == chat.KindMessage && !e.Message.Own && e.Message.Room != "":
			p.a.Room(e.Message.Text)
		case e.Type == chat.EventMessage && e.Message.Kind == chat.KindMessage && !e.Message.Own:
			p.a.Direct(e.Message.Text)
		case e.Type == chat.EventContact && e.Contact.State == chat.ContactRequest:
			if _, err := p.n.Chat().SetContact(ctx, e.Contact.Account.String(), chat.ContactAccept, ""); err != nil {
				p.a.Error(err)
			}
		}
	}
}

// watch reports messages that were not accepted.
func (p *product) watch(ctx context.Context) {
	for {
		select {
		case sub := <-p.pending:
			if _, err := sub.Wait(ctx); err != nil && ctx.Err() == nil {
				p.a.Error(err)
			}
		case <-ctx.Done():
			return
		}
	}
}

func (p *product) usage() Usage {
	u := processUsage()
	// A status never fails; its context only bounds what a front-end would wait for.
	if st, err := p.n.Status(context.Background()); err == nil {
		u.BytesIn, u.BytesOut, u.Duplicates = uint64(max(st.BytesIn, 0)), uint64(max(st.BytesOut, 0)), st.Gossip.Duplicates
	}
	if c := p.n.Chat(); c != nil {
		u.Messages = c.Stats().Messages
	}
	return u
}

var errNoChat = errors.New("a relay takes part in no chat")

// Connect takes a contact link, as READY gives it, or a full multiaddr.
func (p *product) Connect(ctx context.Context, addr string) error {
	if strings.HasPrefix(addr, "/") {
		_, err := p.n.Ping(ctx, addr)
		return err
	}
	if p.n.Chat() == nil {
		return errNoChat
	}
	c, err := p.n.Chat().AddContact(ctx, addr, "")
	if err != nil {
		return err
	}
	for _, dev := range c.Devices {
		if _, err = p.n.Ping(ctx, peer.ID(dev.PeerID()).String()); err == nil {
			return nil
		}
	}
	return err
}

// Join implements [Peer].
func (p *product) Join(ctx context.Context, room string) error {
	if p.n.Chat() == nil {
		return errNoChat
	}
	_, err := p.n.Chat().Join(ctx, room, "")
	return err
}

// Publish implements [Peer].
func (p *product) Publish(ctx context.Context, room, payload string) error {
	return p.submit(ctx, "#"+strings.TrimPrefix(room, "#"), payload)
}

// Direct implements [Peer]. Besides a contact link it takes a full multiaddr of somebody known.
func (p *product) Direct(ctx context.Context, addr, payload string) error {
	return p.submit(ctx, addr, payload)
}

func (p *product) submit(ctx context.Context, to, payload string) error {
	if p.n.Chat() == nil {
		return errNoChat
	}
	target, ok := p.targets[to]
	if !ok {
		text := to
		if strings.HasPrefix(to, "/") {
			account, err := p.accountAt(ctx, to)
			if err != nil {
				return err
			}
			text = "@" + account
		}
		var err error
		if target, err = p.n.Chat().Resolve(text); err != nil {
			return err
		}
		p.targets[to] = target
	}
	sub, err := p.n.Chat().Submit(ctx, chat.SendRequest{Target: target, Text: payload})
	if err != nil {
		return err
	}
	select {
	case p.pending <- sub:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// accountAt finds whose device is at a multiaddr.
func (p *product) accountAt(ctx context.Context, addr string) (string, error) {
	info, err := peer.AddrInfoFromString(addr)
	if err != nil {
		return "", err
	}
	peers, err := p.n.Peers(ctx)
	if err != nil {
		return "", err
	}
	for _, known := range peers {
		if known.PeerID == info.ID.String() && known.Account != "" {
			return known.Account, nil
		}
	}
	return "", fmt.Errorf("whose device %s is, is not known yet: use the address of its READY line", info.ID)
}
