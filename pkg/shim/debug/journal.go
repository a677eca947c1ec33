package debug

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/debug/debugapi"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

// maxJournal bounds the journal in bytes. One that is larger is written anew with the later half of its events, as
// often as it takes.
const maxJournal = 256 << 10

// journal has the events on disk, for those who look when the shim has gone.
type journal struct {
	mu   sync.Mutex // guards what follows
	path string
	file *os.File // nil before there is a directory, and after the end
	size int
	head []byte // its first line
}

// open begins the journal of a sandbox with the events that there are.
func (j *journal) open(dir store.Dir, past []event) error {
	record, err := dir.Load()
	if err != nil {
		return fmt.Errorf("keep a journal: %w", err)
	}
	head, err := json.Marshal(debugapi.Journal{Sandbox: &debugapi.JournalSandbox{
		Namespace: record.Namespace, ID: record.ID, PodNamespace: record.About.PodNamespace, Pod: record.About.Pod, Created: record.Created,
	}})
	if err != nil {
		return fmt.Errorf("keep a journal: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.path, j.head = filepath.Join(dir.Path(), store.JournalFile), append(head, '\n')
	return j.rewriteLocked(past)
}

// rewriteLocked replaces the journal.
func (j *journal) rewriteLocked(events []event) error {
	text := bytes.Clone(j.head)
	for _, e := range events {
		text = append(text, e.line()...)
	}
	if len(text) > maxJournal && len(events) > 0 {
		return j.rewriteLocked(events[(len(events)+1)/2:])
	}
	path := j.path
	next, err := os.OpenFile(path+".new", os.O_WRONLY|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("keep a journal: %w", err)
	}
	_, err = next.Write(text)
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("keep a journal: %w", err), next.Close(), os.Remove(path+".new"))
	}
	if j.file != nil {
		_ = j.file.Close() // it has another name by now, or none
	}
	j.file, j.size = next, len(text)
	return nil
}

// line is the event as the journal has it.
func (e event) line() []byte {
	b, err := json.Marshal(debugapi.Journal{Event: &debugapi.JournalEvent{
		Time: e.at, Kind: e.kind, Container: e.container, Process: e.process, Status: e.status, Text: e.text,
	}})
	if err != nil { // it has nothing but text and numbers
		return nil
	}
	return append(b, '\n')
}

// add adds an event; all are those that there are, it among them.
func (j *journal) add(e event, all func() []event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return
	}
	text := e.line()
	if j.size+len(text) > maxJournal {
		if events := all(); j.rewriteLocked(events[len(events)/2:]) == nil {
			return
		}
	}
	_ = j.appendLocked(text) // without room for it the events in memory are what there is
}

// appendLocked writes a whole line or nothing: half a line would spoil the next one.
func (j *journal) appendLocked(text []byte) error {
	n, err := j.file.Write(text)
	if err != nil {
		if n > 0 {
			err = errors.Join(err, j.file.Truncate(int64(j.size)))
		}
		return err
	}
	j.size += n
	return nil
}

// close ends the journal.
func (j *journal) close(c debugapi.Counters) error {
	text, err := json.Marshal(debugapi.Journal{Counters: &c})
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return nil
	}
	if err == nil {
		err = j.appendLocked(append(text, '\n'))
	}
	if err = errors.Join(err, j.file.Close()); err != nil {
		err = fmt.Errorf("keep a journal: %w", err)
	}
	j.file = nil
	return err
}
