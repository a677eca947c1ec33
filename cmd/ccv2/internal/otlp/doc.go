// Package otlp sends the spans that shims have written (pkg/shim/spans) to a collector of OpenTelemetry.
//
// An [Exporter] reads the files of all sandboxes of a host, those that have ended among them, from where it has read
// them last, and sends what is new. What could not be sent stays in the files, which are bounded, and is read again:
// there is no queue in memory, and nothing that a shim could wait for. It begins with what is written after its start.
//
// One goroutine, that of [Exporter.Run], reads and sends. Exporter.mu guards what is counted, and is a leaf. It must never
// change anything on the host.
package otlp
