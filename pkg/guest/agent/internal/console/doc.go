// Package console is how the agent speaks when there is nobody to answer: lines
// on the guest's console, of which the host keeps the last ones, and the end of
// the guest when it cannot continue.
//
// It has no state, no lock and no goroutine. It must never know what the agent
// does: every package of the agent uses it.
package console
