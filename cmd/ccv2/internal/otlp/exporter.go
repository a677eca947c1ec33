package otlp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	"golang.org/x/sys/unix"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

const (
	// DefaultEvery is how often spans are looked for: what OpenTelemetry's own exporters have (OTEL_BSP_SCHEDULE_DELAY).
	DefaultEvery = 5 * time.Second
	// chunk is how much of a file is sent at once, in bytes; a line has less.
	chunk = 256 << 10
	// maxFailures is how many files a round tries to send in vain.
	maxFailures = 3
	// lastLimit bounds the round at the end.
	lastLimit = 5 * time.Second
)

// Options are what an Exporter works with.
type Options struct {
	StateDir string
	Client   otlptrace.Client
	Resource []*common.KeyValue // of the host, beside those of the sandbox
	Every    time.Duration
	// Warn gets what could not be read or sent, once until it can be again.
	Warn func(error)
}

// Exporter sends spans.
type Exporter struct {
	opts  Options
	files map[file]*cursor
	away  bool // the last round could not send

	mu     sync.Mutex // guards what follows
	counts Counts
}

// Counts are what an Exporter has done.
type Counts struct {
	Sent     uint64 // spans
	Lost     uint64 // spans that were replaced or removed before they could be sent
	Failures uint64 // attempts to send
}

// file is one, whatever its name is by now.
type file struct{ device, inode uint64 }

// cursor is how far a file was read.
type cursor struct {
	offset int64
	unsent int // spans that were read and could not be sent
	bad    bool
	missed bool // by the last round
}

// New returns an exporter. What files have by now is not sent: another one may have done it.
func New(opts Options) *Exporter {
	e := &Exporter{opts: opts, files: map[file]*cursor{}}
	for _, f := range e.find() {
		e.files[f.file] = &cursor{offset: f.size}
	}
	return e
}

// Counts are what was done so far.
func (e *Exporter) Counts() Counts {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.counts
}

// Run sends spans until ctx ends, and what there is then.
func (e *Exporter) Run(ctx context.Context) {
	tick := time.NewTicker(e.opts.Every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			e.Round(ctx)
		case <-ctx.Done():
			bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastLimit)
			defer cancel()
			e.Round(bounded)
			return
		}
	}
}

// found is a file of spans.
type found struct {
	file

	path string
	size int64
}

// find finds all files of spans.
func (e *Exporter) find() (all []found) {
	paths, err := store.Spans(e.opts.StateDir)
	if err != nil {
		e.opts.Warn(err)
	}
	for _, path := range paths {
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil { // otherwise it was just moved, and is found by its new name
			all = append(all, found{file{st.Dev, st.Ino}, path, st.Size})
		}
	}
	return all
}

// Round sends what is new.
func (e *Exporter) Round(ctx context.Context) {
	before := e.files
	e.files = make(map[file]*cursor, len(before))
	failures := 0
	var last error
	for _, f := range e.find() {
		c := before[f.file]
		if c == nil || c.offset > f.size { // another one that the kernel has given the same number
			c = &cursor{}
		}
		delete(before, f.file)
		e.files[f.file], c.missed = c, false
		for c.offset < f.size && failures < maxFailures && ctx.Err() == nil {
			more, err := e.send(ctx, f.path, c)
			if err != nil {
				failures, last = failures+1, err
			}
			if !more {
				break
			}
		}
	}
	for f, c := range before {
		if !c.missed { // a file that is being moved can be in neither place that is looked at
			c.missed, e.files[f] = true, c
			continue
		}
		e.count(func(n *Counts) { n.Lost += uint64(c.unsent) })
	}
	e.tell(last)
}

// tell says once that spans cannot be sent, and once that they can again.
func (e *Exporter) tell(err error) {
	switch {
	case err != nil && !e.away:
		e.opts.Warn(fmt.Errorf("send spans: %w; they stay in the files of the sandboxes, as far as these have room, and are tried again every %s", err, e.opts.Every))
	case err == nil && e.away:
		e.opts.Warn(errors.New("spans are sent again"))
	}
	e.away = err != nil
}

// send sends what comes next in a file; more is whether there may be some behind it.
func (e *Exporter) send(ctx context.Context, path string, c *cursor) (more bool, err error) {
	lines, err := read(path, c.offset)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(lines) == 0 {
		return false, nil // it was just moved, and the next round finds it; or a line is just being written
	}
	if err != nil {
		return false, err
	}
	all, count, bad := decode(lines, e.opts.Resource)
	if bad != nil && !c.bad {
		e.opts.Warn(fmt.Errorf("%s: %w", path, bad))
	}
	c.bad = c.bad || bad != nil
	if count > 0 {
		if err := e.opts.Client.UploadTraces(ctx, all); err != nil {
			c.unsent = count
			e.count(func(n *Counts) { n.Failures++ })
			return false, err
		}
	}
	c.offset, c.unsent = c.offset+int64(len(lines)), 0
	e.count(func(n *Counts) { n.Sent += uint64(count) })
	return true, nil
}

func (e *Exporter) count(change func(*Counts)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	change(&e.counts)
}

// read reads whole lines from an offset on.
func read(path string, offset int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read spans: %w", err)
	}
	defer f.Close()
	b := make([]byte, chunk)
	n, err := f.ReadAt(b, offset)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read spans: %w", err)
	}
	return b[:bytes.LastIndexByte(b[:n], '\n')+1], nil
}
