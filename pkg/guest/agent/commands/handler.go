package commands

import (
	"context"
	"encoding/json"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// Handler runs one command and returns the payload of its ACK. The payload is
// valid until the handler returns.
type Handler func(ctx context.Context, payload []byte) ([]byte, error)

// Command makes a handler of a function that answers nothing.
func Command[T any](run func(context.Context, T) error) Handler {
	return func(ctx context.Context, payload []byte) ([]byte, error) {
		req, err := hyperstart.Decode[T](payload)
		if err != nil {
			return nil, err
		}
		return nil, run(ctx, req)
	}
}

// Query makes a handler of a function whose answer is sent in JSON.
func Query[T, A any](run func(context.Context, T) (A, error)) Handler {
	return func(ctx context.Context, payload []byte) ([]byte, error) {
		req, err := hyperstart.Decode[T](payload)
		if err != nil {
			return nil, err
		}
		answer, err := run(ctx, req)
		if err != nil {
			return nil, err
		}
		return json.Marshal(answer)
	}
}

// Action makes a handler of a function that needs no payload and answers nothing.
func Action(run func(context.Context) error) Handler {
	return func(ctx context.Context, _ []byte) ([]byte, error) { return nil, run(ctx) }
}
