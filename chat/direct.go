package chat

import (
	"context"

	"github.com/starling-chat/starling/chat/wire"
)

func (s *Service) ServeStream(ctx context.Context, from wire.DeviceID, protocol string, st Stream) {
	_ = st.Reset()
}
