package agent

import (
	"context"
	"encoding/json"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// handler runs one command and returns the payload of its ACK. The payload is
// valid until the handler returns.
type handler func(ctx context.Context, payload []byte) ([]byte, error)

// command makes a handler of a function that answers nothing.
func command[T any](run func(context.Context, T) error) handler {
	return func(ctx context.Context, payload []byte) ([]byte, error) {
		req, err := hyperstart.Decode[T](payload)
		if err != nil {
			return nil, err
		}
		return nil, run(ctx, req)
	}
}

// query makes a handler of a function whose answer is sent in JSON.
func query[T, A any](run func(context.Context, T) (A, error)) handler {
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

// action makes a handler of a function that needs no payload and answers nothing.
func action(run func(context.Context) error) handler {
	return func(ctx context.Context, _ []byte) ([]byte, error) { return nil, run(ctx) }
}
