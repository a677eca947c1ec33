package sandbox

// Released is closed when the sandbox has released everything.
func (s *Sandbox) Released() <-chan struct{} { return s.end.released }

// StatusKilled is the exit status of a process that got SIGKILL.
const StatusKilled = statusKilled

// StatusUnknown is that of a process of which nothing is known.
const StatusUnknown = statusUnknown
