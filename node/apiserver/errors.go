package apiserver

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/starling-chat/starling/chat"
	"github.com/starling-chat/starling/node/api"
)

// statusError is an api.Error on its way through huma, which wants a status.
type statusError api.Error

// GetStatus gives the HTTP status of the error's code.
func (e *statusError) GetStatus() int { return status(e.Code) }

func (e *statusError) Error() string { return e.Message }

func status(code api.Code) int {
	switch code {
	case api.CodeBadRequest:
		return http.StatusBadRequest
	case api.CodeNotFound:
		return http.StatusNotFound
	case api.CodeAmbiguous, api.CodeConflict:
		return http.StatusConflict
	case api.CodeDenied:
		return http.StatusForbidden
	case api.CodeTooLarge:
		return http.StatusRequestEntityTooLarge
	case api.CodeTimeout:
		return http.StatusGatewayTimeout
	case api.CodeUnreachable:
		return http.StatusBadGateway
	case api.CodeReadOnly:
		return http.StatusInsufficientStorage
	default:
		return http.StatusInternalServerError
	}
}

// init makes huma's own errors (unknown fields, missing parameters, bodies over the limit) look like
// every other error. The hook is global in huma; this package is its only user in the program.
func init() {
	huma.DefaultArrayNullable = false
	huma.NewErrorWithContext = func(_ huma.Context, code int, msg string, errs ...error) huma.StatusError {
		return huma.NewError(code, msg, errs...)
	}
	huma.NewError = func(code int, msg string, errs ...error) huma.StatusError {
		e := &statusError{Code: api.CodeBadRequest, Message: msg}
		switch {
		case code == http.StatusRequestEntityTooLarge:
			e.Code, e.Hint = api.CodeTooLarge, "a request has at most 1 MiB"
		case code >= http.StatusInternalServerError:
			e.Code = api.CodeInternal
		}
		var details []string
		for _, err := range errs {
			if err != nil {
				details = append(details, err.Error())
			}
		}
		if len(details) > 0 {
			e.Message = msg + ": " + strings.Join(details, "; ")
		}
		return e
	}
}

// wordsFor is the one place that turns what went wrong below into what a person gets to see.
// ok is false for what nobody foresaw: a defect, to be logged.
func wordsFor(err error) (e *api.Error, ok bool) {
	var ambiguous *chat.AmbiguousError
	var already *api.Error
	make := func(code api.Code, hint string) (*api.Error, bool) {
		return &api.Error{Code: code, Message: err.Error(), Hint: hint}, true
	}
	switch {
	case errors.As(err, &already):
		return already, true
	case errors.As(err, &ambiguous):
		e, _ := make(api.CodeAmbiguous, "use the account id of the one you mean, as @ACCOUNT")
		for _, c := range ambiguous.Candidates {
			e.Candidates = append(e.Candidates, api.Candidate{Account: c.Account.String(), Nick: c.Nick, Fingerprint: c.Fingerprint})
		}
		return e, true
	case errors.Is(err, chat.ErrNotJoined):
		return make(api.CodeNotFound, "join it with `starling join ROOM`")
	case errors.Is(err, chat.ErrNotFound):
		return make(api.CodeNotFound, "see `starling rooms` and `starling contact list`")
	case errors.Is(err, chat.ErrTooLarge):
		return make(api.CodeTooLarge, "send it in smaller parts")
	case errors.Is(err, chat.ErrInvalidUTF8):
		return make(api.CodeBadRequest, "convert it first, for example with `iconv -t UTF-8`")
	case errors.Is(err, chat.ErrBadName), errors.Is(err, chat.ErrBadRequest), errors.Is(err, chat.ErrEmpty):
		return make(api.CodeBadRequest, "")
	case errors.Is(err, chat.ErrBlocked):
		return make(api.CodeDenied, "take the block back with `starling contact unblock @NAME`")
	case errors.Is(err, chat.ErrKeyChanged):
		return make(api.CodeDenied, "see `starling contact list`; compare with `starling contact verify`, or take the key with `starling contact accept`")
	case errors.Is(err, chat.ErrDenied):
		return make(api.CodeDenied, "")
	case errors.Is(err, chat.ErrConflict), errors.Is(err, chat.ErrTooMany):
		return make(api.CodeConflict, "")
	case errors.Is(err, chat.ErrReadOnly):
		return make(api.CodeReadOnly, "nothing was accepted; free disk space or make the home writable, then look at `starling status`")
	case errors.Is(err, chat.ErrUnreachable):
		return make(api.CodeUnreachable, "see `starling peers` and `starling doctor`")
	case errors.Is(err, chat.ErrStopped):
		return make(api.CodeConflict, "the node is stopping; start it again with `starling run`")
	case errors.Is(err, context.DeadlineExceeded):
		return &api.Error{Code: api.CodeTimeout, Message: "not done in the time allowed", Hint: "try again with a longer --timeout, or see `starling status`"}, true
	case errors.Is(err, context.Canceled):
		return &api.Error{Code: api.CodeTimeout, Message: "given up by the caller"}, true
	}
	return &api.Error{Code: api.CodeInternal, Message: "the node failed inside", Hint: "its log says more; please report it"}, false
}

// explain is wordsFor with the log line for defects.
func (s *Server) explain(operation string, err error) *api.Error {
	e, ok := wordsFor(err)
	if !ok {
		s.cfg.Logger.Error("api call failed", "operation", operation, "error", err)
	}
	return e
}
