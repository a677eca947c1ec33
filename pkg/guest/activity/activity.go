package activity

import (
	"context"
	"time"
)

// Activity is one request of a client.
type Activity struct {
	ID string // hexadecimal digits; "" for none
	// Verbose has the guest log its part also when it has succeeded.
	Verbose bool
	// Watch, when set, is told of each part of the request that has ended. It is called from any goroutine, and does
	// not wait.
	Watch func(part string, begin time.Time, err error)
}

// Part begins a part of the request. The function that it returns ends it, with what err has by then.
func (a Activity) Part(name string, err *error) (end func()) {
	if a.Watch == nil {
		return func() {}
	}
	begin := time.Now()
	return func() { a.Watch(name, begin, *err) }
}

type key struct{}

// With returns a context of an activity.
func With(ctx context.Context, a Activity) context.Context { return context.WithValue(ctx, key{}, a) }

// Of is the activity of a context; the zero value when it has none.
func Of(ctx context.Context) Activity {
	a, _ := ctx.Value(key{}).(Activity)
	return a
}

// Without returns a context for what goes on when the request of another one has ended.
func Without(ctx context.Context) context.Context { return With(ctx, Activity{}) }

// Carry returns a context with the activity of another one.
func Carry(to, from context.Context) context.Context { return With(to, Of(from)) }
