package sync

// handleHello takes the other side's Hello.
func (s *Session) handleHello(h *hello) *Misbehaviour {
	s.theirNonce = h.nonce
	if !s.initiator {
		if !h.hasTopic || h.proof != nil {
			return misbehave(Malformed, "hello of an initiator without topic or with a proof")
		}
		s.theirHello = &hello{floor: h.floor, cut: h.cut}
		s.report.Topic = h.topic
		s.phase = phaseOpening
		s.effect = OpenRoom{h.topic}
		return nil
	}
	if h.hasTopic {
		return misbehave(Malformed, "hello of a responder with a topic")
	}
	switch {
	case h.proof != nil:
		if !s.proven(roleResponder, h.proof) {
			return misbehave(BadProof, "responder")
		}
	case !s.room.AcceptUnproven:
		s.refuse()
		return nil
	}
	s.agree(h)
	if !s.proveSelf() {
		return nil
	}
	s.phase = phaseRunning
	s.begin()
	return nil
}

// respond sends the responder's Hello once its room is open.
func (s *Session) respond() {
	s.agree(s.theirHello)
	s.theirHello = nil
	h := &hello{nonce: s.link.Nonce, floor: s.room.Floor.Milli(), cut: s.room.Cut.Milli()}
	if s.room.Prove != nil {
		proof, err := s.sign(roleResponder)
		if err != nil {
			s.refuse()
			return
		}
		h.proof = proof
	}
	s.send(h)
	s.phase = phaseProof
}

// handleProve takes the initiator's proof.
func (s *Session) handleProve(p *prove) *Misbehaviour {
	if !s.proven(roleInitiator, p.proof) {
		return misbehave(BadProof, "initiator")
	}
	s.phase = phaseRunning
	return nil
}

// acceptUnproven lets an initiator without a proof take part, or ends the session.
func (s *Session) acceptUnproven() bool {
	if !s.room.AcceptUnproven {
		s.refuse()
		return false
	}
	s.phase = phaseRunning
	return true
}

func (s *Session) refuse() {
	s.send(&done{ReasonRefused})
	s.end(EndRefused)
}

// agree fixes window and key from both Hellos.
func (s *Session) agree(h *hello) {
	floor := timeOf(max(h.floor, s.room.Floor.Milli()), 0)
	cut := timeOf(min(h.cut, s.room.Cut.Milli()), 0)
	s.report.Floor, s.report.Cut = floor, cut
	ni, nr := s.nonces()
	s.rec = reconciler{
		hash: newHasher(ni, nr, s.shortMask), items: s.room.Set.Window(floor, cut),
		floor: Item{Time: floor}, cut: Item{Time: cut}, budget: MaxReconcile,
	}
}

func (s *Session) nonces() (initiator, responder Nonce) {
	if s.initiator {
		return s.link.Nonce, s.theirNonce
	}
	return s.theirNonce, s.link.Nonce
}

func (s *Session) proofMessage(r role) []byte {
	ni, nr := s.nonces()
	initiator, responder := s.link.Self, s.link.Peer
	if !s.initiator {
		initiator, responder = responder, initiator
	}
	return proofMessage(r, s.report.Topic, initiator, responder, ni, nr)
}

func (s *Session) proven(r role, proof []byte) bool {
	return s.room.Proven != nil && s.room.Proven(s.proofMessage(r), proof)
}

func (s *Session) sign(r role) ([]byte, error) { return s.room.Prove(s.proofMessage(r)) }

// proveSelf sends the initiator's proof, if it has a key to make one.
func (s *Session) proveSelf() bool {
	if s.room.Prove == nil {
		return true
	}
	proof, err := s.sign(roleInitiator)
	if err != nil {
		s.refuse()
		return false
	}
	s.send(&prove{proof})
	return true
}

// begin sends what the initiator came for.
func (s *Session) begin() {
	if s.pages != nil {
		s.settled = true
		s.fetch.before = Item{Time: s.report.Cut}
		if b := s.pages.Before; b != (Item{}) && b.Compare(s.fetch.before) < 0 {
			s.fetch.before = b
		}
		return
	}
	digest, count := s.room.Set.Digest(s.report.Floor, s.report.Cut)
	before := len(s.out)
	s.send(&summary{uint64(count), digest})
	s.rec.budget -= len(s.out) - before
}

// handleSummary compares the initiator's window with the responder's and opens the first round.
func (s *Session) handleSummary(m *summary) *Misbehaviour {
	if s.initiator || s.rec.round > 0 || s.serve.paged || s.peerDone {
		return misbehave(OutOfTurn, "summary")
	}
	s.reconciled += s.in.head + s.in.need
	s.report.PeerCount = m.count
	digest, count := s.room.Set.Digest(s.report.Floor, s.report.Cut)
	if m.digest == digest && m.count == uint64(count) {
		s.report.Equal = true
		s.settled = true
		s.sendRound(s.rec.equal())
		return nil
	}
	s.sendRound(s.rec.opening())
	return nil
}

// handleRound takes one frame of a round and answers its last one.
func (s *Session) handleRound(m *round) *Misbehaviour {
	if s.settled || s.peerDone || !s.initiator && s.rec.round == 0 || s.initiator && s.pages != nil {
		return misbehave(OutOfTurn, "round")
	}
	if s.roundFrames++; s.roundFrames > MaxRoundFrames {
		return misbehave(LimitExceeded, "more than %d frames of rounds", MaxRoundFrames)
	}
	first := s.rec.round == 0
	if s.reconciled += s.in.head + s.in.need; s.reconciled > MaxReconcile {
		return misbehave(LimitExceeded, "more than %d bytes of rounds", MaxReconcile)
	}
	answer, over, fault := s.rec.receive(m)
	if fault != nil {
		return fault
	}
	s.sendRound(answer)
	s.settled = over
	s.report.Equal = first && answer == nil && over && len(m.claims) == 0 // closed and empty
	return nil
}
