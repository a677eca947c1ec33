package hyperstart

import "fmt"

// Code is the code of a control message.
type Code uint32

// Codes 0 to 22 are common to all dialects.
const (
	GetVersion       Code = 0
	StartPod         Code = 1
	GetPod           Code = 2 // deprecated, answered with ERROR
	StopPod          Code = 3 // deprecated, answered with ERROR
	DestroyPod       Code = 4
	RestartContainer Code = 5 // deprecated, answered with ERROR
	ExecCmd          Code = 6
	CmdFinished      Code = 7 // deprecated, answered with ERROR
	Ready            Code = 8
	Ack              Code = 9
	Error            Code = 10
	WinSize          Code = 11
	Ping             Code = 12
	PodFinished      Code = 13 // deprecated, answered with ERROR
	Next             Code = 14
	WriteFile        Code = 15
	ReadFile         Code = 16
	NewContainer     Code = 17
	KillContainer    Code = 18
	OnlineCPUMem     Code = 19
	SetupInterface   Code = 20
	SetupRoute       Code = 21
	RemoveContainer  Code = 22
)

// Codes above 22 as hyperhq's hyperstart 1.x numbers them.
const (
	HyperhqProcessAsyncEvent Code = 23 // guest to host
	HyperhqSignalProcess     Code = 24
	HyperhqDeleteInterface   Code = 25
)

// Codes above 22 as the Clear Containers agent numbers them. The ccv2 dialect
// keeps this numbering and adds to it.
const (
	PsContainer       Code = 23
	ProcessAsyncEvent Code = 24 // guest to host; reserved, never sent
)

// Codes of the ccv2 dialect. They start at 64 to stay clear of both lineages.
const (
	// Call wraps a command so that it does not occupy the control port:
	// payload u32 ticket | u32 code | payload of the wrapped command. The
	// guest acknowledges it at once and sends Result when it is done.
	Call Code = 64
	// Result ends a Call, guest to host: u32 ticket | u32 Ack or Error | payload.
	Result Code = 65
	// Event is sent by the guest on its own; the payload is an [EventMessage].
	Event           Code = 66
	StartContainer  Code = 67 // [ContainerRef]; second step after NewContainer
	PauseContainer  Code = 68 // [ContainerRef]
	ResumeContainer Code = 69 // [ContainerRef]
	UpdateContainer Code = 70 // [UpdateContainerRequest]
	StatsContainer  Code = 71 // [ContainerRef]; answers [Stats]
	ListProcesses   Code = 72 // [ContainerRef]; answers [ProcessList]
	DumpStacks      Code = 73 // [DumpStacksRequest], or no payload; answers text
	GuestInfo       Code = 74 // no payload; answers [GuestInfoReply]
	SignalProcess   Code = 75 // [SignalProcessRequest]
	AdjustClock     Code = 76 // [AdjustClockRequest]; answers [AdjustClockReply]
	RelayDNS        Code = 77 // [RelayDNSRequest]
	AnswerDNS       Code = 78 // [DNSMessage]
	DropCaches      Code = 79 // [DropCachesRequest]
	Quiesce         Code = 80 // no payload
	Reseed          Code = 81 // [ReseedRequest]
	RefreshVolume   Code = 82 // [RefreshVolumeRequest]
	WarmUp          Code = 83 // no payload
)

type codeRow struct {
	code Code
	name string // upper case, as the protocol documents have it
	// hyper is the hyperName of the proxy protocol, "" where a client cannot ask for it.
	hyper string
}

// commonCodes is the one table behind String and CodeOf.
var commonCodes = []codeRow{
	{GetVersion, "GETVERSION", "version"},
	{StartPod, "STARTPOD", "startpod"},
	{GetPod, "GETPOD", ""},
	{StopPod, "STOPPOD", ""},
	{DestroyPod, "DESTROYPOD", "destroypod"},
	{RestartContainer, "RESTARTCONTAINER", ""},
	{ExecCmd, "EXECCMD", "execcmd"},
	{CmdFinished, "CMDFINISHED", ""},
	{Ready, "READY", "ready"},
	{Ack, "ACK", ""},
	{Error, "ERROR", ""},
	{WinSize, "WINSIZE", "winsize"},
	{Ping, "PING", "ping"},
	{PodFinished, "PODFINISHED", ""},
	{Next, "NEXT", ""},
	{WriteFile, "WRITEFILE", "writefile"},
	{ReadFile, "READFILE", "readfile"},
	{NewContainer, "NEWCONTAINER", "newcontainer"},
	{KillContainer, "KILLCONTAINER", "killcontainer"},
	{OnlineCPUMem, "ONLINECPUMEM", "onlinecpumem"},
	{SetupInterface, "SETUPINTERFACE", "setupinterface"},
	{SetupRoute, "SETUPROUTE", "setuproute"},
	{RemoveContainer, "REMOVECONTAINER", "removecontainer"},
}

var hyperhqCodes = []codeRow{
	{HyperhqProcessAsyncEvent, "PROCESSASYNCEVENT", ""},
	{HyperhqSignalProcess, "SIGNALPROCESS", "signalprocess"},
	{HyperhqDeleteInterface, "DELETEINTERFACE", "deleteinterface"},
}

var clearContainersCodes = []codeRow{
	{PsContainer, "PSCONTAINER", "pscontainer"},
	{ProcessAsyncEvent, "PROCESSASYNCEVENT", ""},
}

var ccv2Codes = []codeRow{
	{Call, "CALL", ""},
	{Result, "RESULT", ""},
	{Event, "EVENT", ""},
	{StartContainer, "STARTCONTAINER", "startcontainer"},
	{PauseContainer, "PAUSECONTAINER", "pausecontainer"},
	{ResumeContainer, "RESUMECONTAINER", "resumecontainer"},
	{UpdateContainer, "UPDATECONTAINER", "updatecontainer"},
	{StatsContainer, "STATSCONTAINER", "statscontainer"},
	{ListProcesses, "LISTPROCESSES", "listprocesses"},
	{DumpStacks, "DUMPSTACKS", "dumpstacks"},
	{GuestInfo, "GUESTINFO", "guestinfo"},
	{SignalProcess, "SIGNALPROCESS", "signalprocess"},
	{AdjustClock, "ADJUSTCLOCK", "adjustclock"},
	{RelayDNS, "RELAYDNS", "relaydns"},
	{AnswerDNS, "ANSWERDNS", "answerdns"},
	{DropCaches, "DROPCACHES", "dropcaches"},
	{Quiesce, "QUIESCE", "quiesce"},
	{Reseed, "RESEED", "reseed"},
	{RefreshVolume, "REFRESHVOLUME", "refreshvolume"},
	{WarmUp, "WARMUP", "warmup"},
}

// String returns the name of a common or ccv2 code, or "CODE(n)" for a code
// whose name depends on the dialect; use [Dialect.CodeName] for those.
func (c Code) String() string {
	for _, table := range [][]codeRow{commonCodes, ccv2Codes} {
		for _, row := range table {
			if row.code == c {
				return row.name
			}
		}
	}
	return unnamed(c)
}

func unnamed(c Code) string { return fmt.Sprintf("CODE(%d)", uint32(c)) }
