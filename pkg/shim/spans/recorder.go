package spans

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

const (
	// maxFile bounds each of the two files, in bytes: some 300 calls.
	maxFile = 128 << 10
	// maxWaiting is how many spans wait for the directory of the sandbox.
	maxWaiting = 256
)

// Recorder writes spans. The zero value is ready, and keeps them until [Recorder.Open].
type Recorder struct {
	mu       sync.Mutex // guards what follows
	waiting  []Span
	path     string // "" before there is a directory
	resource Resource
	version  string
	file     *os.File // nil before the first span, and after an error
	size     int
	ended    bool  // the directory goes, and has the file moved
	dropped  int64 // spans that could not be written since the last one that was
}

// Open has the spans written in the directory of a sandbox. The first one makes the file.
func (r *Recorder) Open(dir store.Dir, version string) error {
	if r == nil {
		return nil
	}
	record, err := dir.Load()
	if err != nil {
		return fmt.Errorf("keep spans: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.path, r.version, r.resource = filepath.Join(dir.Path(), store.SpansFile), version, resourceOf(record, version)
	waiting := r.waiting
	if r.waiting = nil; len(waiting) > 0 {
		r.writeLocked(waiting)
	}
	return nil
}

// resourceOf describes a sandbox with the names of OpenTelemetry's conventions.
func resourceOf(s store.State, version string) Resource {
	all := []Attribute{
		Text("service.name", "containerd-shim-ccv2"), Text("service.version", version), Text("service.instance.id", s.Namespace+"/"+s.ID),
		Number("process.pid", int64(s.Shim.PID)),
	}
	for _, a := range []struct{ key, value string }{
		{"k8s.namespace.name", s.About.PodNamespace}, {"k8s.pod.name", s.About.Pod}, {"k8s.pod.uid", s.About.PodUID},
	} {
		if a.value != "" {
			all = append(all, Text(a.key, a.value))
		}
	}
	return Resource{Attributes: all}
}

// Close says that the directory goes. The file is there from now on, wherever it is moved, for the calls that have not ended.
func (r *Recorder) Close() {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.path != "" && !r.ended {
		r.openLocked()
	}
	r.ended = true
}

// openLocked opens the file unless it is open.
func (r *Recorder) openLocked() {
	if r.file != nil || r.ended {
		return
	}
	f, err := os.OpenFile(r.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return // spans are dropped, and counted
	}
	r.file, r.size = f, 0
}

// write writes a line, or keeps its spans until there is a file.
func (r *Recorder) write(spans ...Span) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.path == "" {
		if len(r.waiting)+len(spans) <= maxWaiting {
			r.waiting = append(r.waiting, spans...)
		}
		return
	}
	r.writeLocked(spans)
}

func (r *Recorder) writeLocked(spans []Span) {
	if r.dropped > 0 {
		spans[0].Attributes = append(spans[0].Attributes, Number("ccv2.spans.dropped", r.dropped))
	}
	line, err := json.Marshal(Traces{ResourceSpans: []ResourceSpans{{
		Resource: r.resource, ScopeSpans: []ScopeSpans{{Scope: Scope{Name: "github.com/ccv2/containerd-shim-ccv2", Version: r.version}, Spans: spans}},
	}}})
	if err == nil {
		err = r.appendLocked(append(line, '\n'))
	}
	if err != nil {
		r.dropped += int64(len(spans))
		return
	}
	r.dropped = 0
}

var errNoFile = errors.New("there is no file for spans")

// appendLocked writes a whole line or nothing.
func (r *Recorder) appendLocked(line []byte) error {
	if r.file != nil && r.size+len(line) > maxFile {
		r.rotateLocked()
	}
	if r.openLocked(); r.file == nil || r.size > maxFile {
		return errNoFile
	}
	n, err := r.file.Write(line)
	if err != nil && n > 0 {
		err = errors.Join(err, r.file.Truncate(int64(r.size)))
	}
	if err == nil {
		r.size += n
	}
	return err
}

// rotateLocked makes the file the one before. One that was moved with its sandbox stays as it is.
func (r *Recorder) rotateLocked() {
	if r.ended || os.Rename(r.path, r.path+store.BeforeSuffix) != nil {
		return
	}
	_ = r.file.Close() // all of it is written
	r.file = nil
}
