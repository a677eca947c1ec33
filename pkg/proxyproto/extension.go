package proxyproto

// The extensions: commands that the proxy of ccv2 carries out itself. They are
// for clients that want one slow stream not to hold up anything else, and never
// reach the guest. An original proxy answers "unknown command".
const (
	// HyperCredit, on the connection of a session, says how much output the
	// client has consumed: data [Consumed]. From the first one on the guest
	// gets credit for what was consumed and no longer for what was written to
	// the connection, so a client that always reads never holds up anything,
	// and never has to hold more than a window per stream.
	HyperCredit = "ccv2.credit"
	// HyperDrainStdin, on any connection, with the token of a session and data
	// [DrainStdin], is answered when no more than Below bytes of stdin wait
	// for the guest. A client that waits for it before it sends more keeps the
	// session's connection free for signals.
	HyperDrainStdin = "ccv2.drainstdin"
)

// Consumed is the data of HyperCredit, in bytes.
type Consumed struct {
	Stdout int `json:"stdout,omitempty"`
	Stderr int `json:"stderr,omitempty"`
}

// DrainStdin is the data of HyperDrainStdin, in bytes. Each frame of stdin
// counts as its payload and [StdinOverhead].
type DrainStdin struct {
	Below int `json:"below"`
}

// StdinOverhead is what a frame of stdin costs the proxy beside its payload, so
// that many small ones are bounded as well.
const StdinOverhead = 64
