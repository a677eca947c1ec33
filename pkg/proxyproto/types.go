package proxyproto

import "fmt"

// Type is the kind of a frame: the low four bits of byte 6 of the header.
type Type uint8

// The frame types. Any other value is an error (PROTOCOL.md F7).
const (
	TypeCommand      Type = 0 // client to proxy
	TypeResponse     Type = 1 // proxy to client, one for each command
	TypeStream       Type = 2 // both ways; never answered
	TypeNotification Type = 3 // proxy to client; never answered
)

// Command is the opcode of a command and of the response to it.
type Command uint8

// The commands.
const (
	CmdRegisterVM     Command = 0 // [RegisterVM], answered by [RegisterVMResponse]
	CmdUnregisterVM   Command = 1 // [UnregisterVM], answered without payload
	CmdAttachVM       Command = 2 // [AttachVM], answered by [AttachVMResponse]
	CmdHyper          Command = 3 // [Hyper], answered by what the guest acknowledged with
	CmdConnectShim    Command = 4 // [ConnectShim], answered without payload
	CmdDisconnectShim Command = 5 // no payload, answered by the end of the connection
	CmdSignal         Command = 6 // [Signal], answered without payload
)

// Stream is the opcode of a stream frame.
type Stream uint8

// The streams. An empty stdin frame closes the standard input of the process.
const (
	StreamStdin  Stream = 0 // client to proxy, raw bytes
	StreamStdout Stream = 1 // proxy to client, raw bytes
	StreamStderr Stream = 2 // proxy to client, raw bytes
	StreamLog    Stream = 3 // client to proxy, one [LogEntry]
)

// Notification is the opcode of a notification.
type Notification uint8

// The notifications.
const (
	// NotifyProcessExited ends a session; its payload is one raw byte, the
	// exit status. All output frames of the process precede it.
	NotifyProcessExited Notification = 0
)

var (
	typeNames         = [...]string{"command", "response", "stream", "notification"}
	commandNames      = [...]string{"RegisterVM", "UnregisterVM", "AttachVM", "Hyper", "ConnectShim", "DisconnectShim", "Signal"}
	streamNames       = [...]string{"stdin", "stdout", "stderr", "log"}
	notificationNames = [...]string{"ProcessExited"}
)

// String returns the type's name, or "type(n)" for a value that is not one.
func (t Type) String() string { return enumName(typeNames[:], "type", uint8(t)) }

// String returns the command's name as error messages have it, or "command(n)".
func (c Command) String() string { return enumName(commandNames[:], "command", uint8(c)) }

// String returns the stream's name, or "stream(n)".
func (s Stream) String() string { return enumName(streamNames[:], "stream", uint8(s)) }

// String returns the notification's name, or "notification(n)".
func (n Notification) String() string {
	return enumName(notificationNames[:], "notification", uint8(n))
}

func enumName(names []string, kind string, v uint8) string {
	if int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("%s(%d)", kind, v)
}

// valid reports whether t is one of the four types.
func (t Type) valid() bool { return int(t) < len(typeNames) }

// opcodes returns the names of the opcodes of t, indexed by opcode.
func (t Type) opcodes() []string {
	switch t {
	case TypeCommand, TypeResponse:
		return commandNames[:]
	case TypeStream:
		return streamNames[:]
	case TypeNotification:
		return notificationNames[:]
	}
	return nil
}
