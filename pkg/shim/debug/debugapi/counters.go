package debugapi

import "time"

// Counters is what Counters answers, and the last line of a [Journal].
type Counters struct {
	Namespace string `json:"namespace"`
	ID        string `json:"id"`
	State     string `json:"state"`
	Paused    bool   `json:"paused,omitempty"`
	// Source is "boot", "template" or "spare"; "" before the start has succeeded.
	Source string `json:"source,omitempty"`
	// Failure is why the VM has ended, a word for counters; "" as long as it has not, and when it
	// was to end. FailedPhase is the step that a start has failed in.
	Failure     string  `json:"failure,omitempty"`
	FailedPhase string  `json:"failed_phase,omitempty"`
	Phases      []Phase `json:"phases,omitempty"`
	// Unhealthy is which part does not answer; "" when all do. Heartbeat is when all were asked
	// last, zero before, and Guest what the guest has said then.
	Unhealthy string    `json:"unhealthy,omitempty"`
	Heartbeat time.Time `json:"heartbeat"`
	Guest     *Guest    `json:"guest,omitempty"`
	// Events are how many there were of each kind, those that are forgotten among them.
	Events  map[string]uint64 `json:"events,omitempty"`
	Wire    []WireCount       `json:"wire,omitempty"`
	Streams []StreamCount     `json:"streams,omitempty"`
	Calls   []Operation       `json:"calls,omitempty"`
}

// WireCount is how many messages of a kind have passed, with their headers.
type WireCount struct {
	Layer    string `json:"layer"` // ctl, tty or frame
	ToHost   bool   `json:"to_host,omitempty"`
	Kind     string `json:"kind"`
	Messages uint64 `json:"messages"`
	Bytes    uint64 `json:"bytes"`
}

// StreamCount is what has passed of a process's streams, in bytes, between containerd and the guest.
type StreamCount struct {
	Container string `json:"container"`
	Process   string `json:"process,omitempty"` // "" for the init process
	Stdin     uint64 `json:"stdin"`
	Stdout    uint64 `json:"stdout"`
	Stderr    uint64 `json:"stderr"`
}

// Operation is what is known of the calls of containerd of one kind.
type Operation struct {
	Name string `json:"name"`
	// Took has how many calls took up to each of Bounds, in nanoseconds, and longer.
	Bounds []int64           `json:"bounds"`
	Took   []uint64          `json:"took"`
	Total  int64             `json:"total"` // nanoseconds
	Failed map[string]uint64 `json:"failed,omitempty"`
}

// Journal is a line of what a sandbox leaves on disk of its events: one field is set. It begins with Sandbox,
// and has Counters at its end, unless the shim has died.
type Journal struct {
	Sandbox  *JournalSandbox `json:"sandbox,omitempty"`
	Event    *JournalEvent   `json:"event,omitempty"`
	Counters *Counters       `json:"counters,omitempty"`
}

// JournalSandbox says whose events follow.
type JournalSandbox struct {
	Namespace    string    `json:"namespace"`
	ID           string    `json:"id"`
	PodNamespace string    `json:"pod_namespace,omitempty"`
	Pod          string    `json:"pod,omitempty"`
	Created      time.Time `json:"created"`
}

// JournalEvent is an event; its fields are those of [Entry].
type JournalEvent struct {
	Time      int64  `json:"time"`
	Kind      string `json:"kind"`
	Container string `json:"container,omitempty"`
	Process   string `json:"process,omitempty"`
	Status    uint32 `json:"status,omitempty"`
	Text      string `json:"text,omitempty"`
}
