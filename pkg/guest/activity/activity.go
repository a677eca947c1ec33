package activity

import "context"

// Activity is one request of a client.
type Activity struct {
	ID string // hexadecimal digits; "" for none
	// Verbose has the guest log its part also when it has succeeded.
	Verbose bool
}

type key struct{}

// With returns a context of an activity.
func With(ctx context.Context, a Activity) context.Context { return context.WithValue(ctx, key{}, a) }

// Of is the activity of a context; the zero value when it has none.
func Of(ctx context.Context) Activity {
	a, _ := ctx.Value(key{}).(Activity)
	return a
}

// Carry returns a context with the activity of another one.
func Carry(to, from context.Context) context.Context { return With(to, Of(from)) }
