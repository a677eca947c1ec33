package hyperstart

import "fmt"

// Dialect is the variant of the protocol that a guest speaks.
type Dialect uint8

// The zero Dialect is unknown: the guest has not answered GETVERSION yet.
const (
	DialectUnknown Dialect = iota
	// DialectHyperhq is hyperhq's hyperstart 0.8 and 1.x, versions 4243 and 4244.
	DialectHyperhq
	// DialectClearC is Clear Containers' fork of hyperstart, version 4242.
	DialectClearC
	// DialectClearGo is the Clear Containers agent in Go; it answers
	// GETVERSION with ERROR.
	DialectClearGo
	// DialectCCv2 is our own agent.
	DialectCCv2
)

// Versions that guests answer to GETVERSION. Below 1000000 host and guest must
// agree on the exact number.
const (
	VersionClearC     uint32 = 4242
	VersionHyperhq08  uint32 = 4243
	VersionHyperhq1   uint32 = 4244
	VersionCCv2       uint32 = 2000001
	versionExactBelow uint32 = 1000000
)

// DialectOf selects the dialect from the guest's answer to GETVERSION.
// ok is false when the guest answered ERROR, as the Clear Containers agent does.
// A version that is not known is an error.
func DialectOf(version uint32, ok bool) (Dialect, error) {
	if !ok {
		return DialectClearGo, nil
	}
	switch {
	case version == VersionClearC:
		return DialectClearC, nil
	case version == VersionHyperhq08, version == VersionHyperhq1:
		return DialectHyperhq, nil
	case version == VersionCCv2:
		return DialectCCv2, nil
	case version >= versionExactBelow:
		return DialectUnknown, fmt.Errorf(
			"hyperstart: guest speaks version %d, this host knows up to %d; use a guest image of the same release", version, VersionCCv2)
	}
	return DialectUnknown, fmt.Errorf(
		"hyperstart: guest speaks version %d, which is not one of %d, %d, %d, %d",
		version, VersionClearC, VersionHyperhq08, VersionHyperhq1, VersionCCv2)
}

// String returns the name that configuration and logs use.
func (d Dialect) String() string {
	switch d {
	case DialectUnknown:
		return "unknown"
	case DialectHyperhq:
		return "hyperhq"
	case DialectClearC:
		return "clear-c"
	case DialectClearGo:
		return "clear-go"
	case DialectCCv2:
		return "ccv2"
	}
	return fmt.Sprintf("dialect(%d)", uint8(d))
}

// ParseDialect is the reverse of String.
func ParseDialect(s string) (Dialect, error) {
	for d := DialectHyperhq; d <= DialectCCv2; d++ {
		if d.String() == s {
			return d, nil
		}
	}
	return DialectUnknown, fmt.Errorf("hyperstart: unknown dialect %q", s)
}

func (d Dialect) tables() [][]codeRow {
	switch d {
	case DialectHyperhq:
		return [][]codeRow{commonCodes, hyperhqCodes}
	case DialectClearGo:
		return [][]codeRow{commonCodes, clearContainersCodes}
	case DialectCCv2:
		return [][]codeRow{commonCodes, clearContainersCodes, ccv2Codes}
	case DialectUnknown, DialectClearC:
	}
	return [][]codeRow{commonCodes}
}

// MayQuiesce reports whether a guest that the configuration says to speak a dialect, or
// nothing of, may be one that others can go on from.
func (d Dialect) MayQuiesce() bool { return d == DialectUnknown || d == DialectCCv2 }

// CodeOf returns the code for a hyperName of the proxy protocol. ok is false
// where the dialect has no such command.
func (d Dialect) CodeOf(hyperName string) (code Code, ok bool) {
	for _, table := range d.tables() {
		for _, row := range table {
			if row.hyper == hyperName && row.hyper != "" {
				return row.code, true
			}
		}
	}
	return 0, false
}

// KnownHyperName reports whether any dialect has the command, so that "not in
// this guest" and "no such command" can be told apart.
func KnownHyperName(hyperName string) bool {
	for d := DialectHyperhq; d <= DialectCCv2; d++ {
		if _, ok := d.CodeOf(hyperName); ok {
			return true
		}
	}
	return false
}

// CodeName returns the upper-case name of a code in this dialect, or "CODE(n)"
// where the dialect does not have it.
func (d Dialect) CodeName(code Code) string {
	for _, table := range d.tables() {
		for _, row := range table {
			if row.code == code {
				return row.name
			}
		}
	}
	return unnamed(code)
}

// AsyncEvent returns the code with which the guest reports the end of a
// process on the control port; ok is false where the end comes on the tty port.
func (d Dialect) AsyncEvent() (code Code, ok bool) {
	return HyperhqProcessAsyncEvent, d == DialectHyperhq
}

// ExitOnTTY reports whether a one-byte message after a zero-length one on the
// stdio sequence carries the exit status.
func (d Dialect) ExitOnTTY() bool {
	return d == DialectClearC || d == DialectClearGo || d == DialectCCv2
}

// WinSizeBySeq reports whether WINSIZE names the process by its sequence
// number; otherwise by container and process id.
func (d Dialect) WinSizeBySeq() bool { return d != DialectHyperhq }

// HasProcessID reports whether process objects carry an id. Hyperhq's agent
// needs one, Clear Containers' C agent refuses it.
func (d Dialect) HasProcessID() bool { return d != DialectClearC }

// HasCredits reports whether both sides grant credits per stream (PROTOCOL.md §4).
func (d Dialect) HasCredits() bool { return d == DialectCCv2 }

// HasCalls reports whether commands may be wrapped in CALL.
func (d Dialect) HasCalls() bool { return d == DialectCCv2 }

// MaxStdin returns the largest stdin payload in bytes that one message may
// carry without loss. The C agents have a process buffer of 512 bytes and drop
// what does not fit.
func (d Dialect) MaxStdin() int {
	switch d {
	case DialectCCv2:
		return MaxTTYPayload
	case DialectClearGo:
		return legacyMaxMessage - TTYHeaderLen
	case DialectUnknown, DialectHyperhq, DialectClearC:
	}
	return 512
}
