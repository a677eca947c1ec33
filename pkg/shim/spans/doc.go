// Package spans writes the spans of OpenTelemetry of a shim's calls to a file in the directory of its sandbox, for those calls
// whose client is traced and sampled: a span for the call, with the client's as its parent, and one for each part
// of it. A shim whose client is not traced has an empty [Recorder].
//
// The file has a line of OTLP in JSON for each call (the form of OpenTelemetry's file exporter), so that the shim needs
// no exporter of its own: ccv2 metrics, one for the host, reads and sends them, and a collector can, too. It is bounded:
// beyond its half a new one is begun, and the one before last is gone. A file that is moved away with the sandbox
// still gets the spans of the calls that end it.
//
// Recorder.mu guards the file and what waits for it, Call.mu the parts of a call; neither is held while the other is taken. A write
// to a tmpfs is all that a call waits for. There is no goroutine.
//
// It must never know what a call is about.
package spans
