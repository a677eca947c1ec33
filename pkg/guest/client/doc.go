// Package client is the host's side of a conversation with a guest: the typed
// [Guest], and below it [Frames], which speaks the proxy's frames.
//
//	sandbox ── Guest ──▶ Frames ── frames ──▶ proxy.Server ──▶ agent in the guest
//
// It owns everything that differs between guests. A ccv2 guest is the native
// implementation; the original guests of hyperhq and Clear Containers are the
// compat one, which says what their commands can say and answers the rest with
// errdefs.ErrNotImplemented. No other package may ask for the dialect, other
// than to log it. It also owns the classes of the guest's errors, the limits of
// commands (Options.CallTimeout, maxMutations), and the guest's names for
// processes.
//
// It must not know: containerd, bundles, the VM, or what states a container has
// for the sandbox.
//
// States: a guest is not started until StartPod has succeeded; up to then
// commands have neither limits nor a gate, and interfaces and routes can be set
// even in a compat guest. A compat container is created, starting and started,
// or was killed before the guest knew of it (compatState).
//
// Goroutines: one reader per session, joined by Session.Close; in a native guest
// one per command that creates something, which outlives a caller that gives up
// (attempts), joined by Guest.Close. Locks: attempts.mu, compat.mu,
// compatSession.mu and Output.mu are leaves, neither is held across I/O.
package client
