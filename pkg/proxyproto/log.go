package proxyproto

import (
	"errors"
	"fmt"
)

// LogSource says who wrote a log entry.
type LogSource string

// The sources. The empty source is invalid.
const (
	SourceShim    LogSource = "shim"
	SourceRuntime LogSource = "runtime"
)

// String returns the source as it is on the wire.
func (s LogSource) String() string { return string(s) }

// LogLevel is the severity of a log entry.
type LogLevel string

// The levels, in rising severity. The empty level is invalid.
const (
	LevelDebug LogLevel = "debug"
	LevelInfo  LogLevel = "info"
	LevelWarn  LogLevel = "warn"
	LevelError LogLevel = "error"
)

// String returns the level as it is on the wire.
func (l LogLevel) String() string { return string(l) }

// LogEntry is the payload of a StreamLog frame.
type LogEntry struct {
	Source      LogSource `json:"source"`
	ContainerID string    `json:"containerId,omitempty"`
	Level       LogLevel  `json:"level"`
	Msg         string    `json:"msg"`
}

// maxNamed bounds in characters what an error says of a name that is unknown: errors are logged.
const maxNamed = 32

// Validate returns an error unless source and level are known and the message
// is not empty. The original proxy closes the connection on such an entry.
func (e LogEntry) Validate() error {
	switch e.Source {
	case SourceShim, SourceRuntime:
	default:
		return fmt.Errorf("invalid log entry: unknown source %.*q", maxNamed, string(e.Source))
	}
	switch e.Level {
	case LevelDebug, LevelInfo, LevelWarn, LevelError:
	default:
		return fmt.Errorf("invalid log entry: unknown level %.*q", maxNamed, string(e.Level))
	}
	if e.Msg == "" {
		return errors.New("invalid log entry: no message")
	}
	return nil
}
