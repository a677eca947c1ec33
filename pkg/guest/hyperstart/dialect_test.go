package hyperstart_test

import (
	"math"
	"testing"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

var allDialects = []hyperstart.Dialect{
	hyperstart.DialectUnknown, hyperstart.DialectHyperhq, hyperstart.DialectClearC,
	hyperstart.DialectClearGo, hyperstart.DialectCCv2,
}

// TestDialectOf: H2.
func TestDialectOf(t *testing.T) {
	tests := []struct {
		version uint32
		ok      bool
		want    hyperstart.Dialect
	}{
		{0, false, hyperstart.DialectClearGo},
		{4242, true, hyperstart.DialectClearC},
		{4243, true, hyperstart.DialectHyperhq},
		{4244, true, hyperstart.DialectHyperhq},
		{2000001, true, hyperstart.DialectCCv2},
		{0, true, hyperstart.DialectUnknown},
		{4241, true, hyperstart.DialectUnknown},
		{4245, true, hyperstart.DialectUnknown},
		{999999, true, hyperstart.DialectUnknown},
		{1000000, true, hyperstart.DialectUnknown},
		{2000002, true, hyperstart.DialectUnknown},
		{math.MaxUint32, true, hyperstart.DialectUnknown},
	}
	for _, tt := range tests {
		got, err := hyperstart.DialectOf(tt.version, tt.ok)
		if got != tt.want || (err != nil) != (tt.want == hyperstart.DialectUnknown) {
			t.Errorf("DialectOf(%d, %t) = %v, %v; want %v", tt.version, tt.ok, got, err, tt.want)
		}
	}
}

// TestParseDialect: names go both ways, and unknown is not a name.
func TestParseDialect(t *testing.T) {
	for _, d := range allDialects {
		got, err := hyperstart.ParseDialect(d.String())
		if d == hyperstart.DialectUnknown {
			if err == nil {
				t.Errorf("%v was parsed", d)
			}
		} else if got != d || err != nil {
			t.Errorf("ParseDialect(%q) = %v, %v", d, got, err)
		}
	}
	for _, s := range []string{"", "CCV2", "dialect(9)"} {
		if got, err := hyperstart.ParseDialect(s); err == nil {
			t.Errorf("ParseDialect(%q) = %v", s, got)
		}
	}
	if got := hyperstart.Dialect(9).String(); got != "dialect(9)" {
		t.Errorf("got %q", got)
	}
}

// no is the code of a command that a dialect does not have.
const no = math.MaxUint32

// TestCodeOf: C1 to C4, the dialect table.
func TestCodeOf(t *testing.T) {
	tests := []struct {
		name                           string
		hyperhq, clearC, clearGo, ours uint32
	}{
		{"version", 0, 0, 0, 0},
		{"startpod", 1, 1, 1, 1},
		{"destroypod", 4, 4, 4, 4},
		{"execcmd", 6, 6, 6, 6},
		{"ready", 8, 8, 8, 8},
		{"winsize", 11, 11, 11, 11},
		{"ping", 12, 12, 12, 12},
		{"writefile", 15, 15, 15, 15},
		{"readfile", 16, 16, 16, 16},
		{"newcontainer", 17, 17, 17, 17},
		{"killcontainer", 18, 18, 18, 18},
		{"onlinecpumem", 19, 19, 19, 19},
		{"setupinterface", 20, 20, 20, 20},
		{"setuproute", 21, 21, 21, 21},
		{"removecontainer", 22, 22, 22, 22},
		{"pscontainer", no, no, 23, 23},
		{"signalprocess", 24, no, no, 75},
		{"deleteinterface", 25, no, no, no},
		{"startcontainer", no, no, no, 67},
		{"pausecontainer", no, no, no, 68},
		{"resumecontainer", no, no, no, 69},
		{"updatecontainer", no, no, no, 70},
		{"statscontainer", no, no, no, 71},
		{"listprocesses", no, no, no, 72},
		{"dumpstacks", no, no, no, 73},
		{"guestinfo", no, no, no, 74},
		// A client must not be able to send these: they would be taken for
		// replies, or never be answered.
		{"ack", no, no, no, no},
		{"error", no, no, no, no},
		{"next", no, no, no, no},
		{"call", no, no, no, no},
		{"result", no, no, no, no},
		{"event", no, no, no, no},
		{"processasyncevent", no, no, no, no},
		{"stoppod", no, no, no, no},
		{"", no, no, no, no},
		{"PING", no, no, no, no},
	}
	for _, tt := range tests {
		known := false
		for d, want := range map[hyperstart.Dialect]uint32{
			hyperstart.DialectHyperhq: tt.hyperhq, hyperstart.DialectClearC: tt.clearC,
			hyperstart.DialectClearGo: tt.clearGo, hyperstart.DialectCCv2: tt.ours,
		} {
			got, ok := d.CodeOf(tt.name)
			if ok != (want != no) || ok && uint32(got) != want {
				t.Errorf("%v: CodeOf(%q) = %d, %t; want %d", d, tt.name, uint32(got), ok, want)
			}
			known = known || ok
		}
		if got := hyperstart.KnownHyperName(tt.name); got != known {
			t.Errorf("KnownHyperName(%q) = %t", tt.name, got)
		}
	}
}

// TestCodeName: C1, one number and two meanings.
func TestCodeName(t *testing.T) {
	tests := []struct {
		dialect hyperstart.Dialect
		code    hyperstart.Code
		want    string
	}{
		{hyperstart.DialectUnknown, 8, "READY"},
		{hyperstart.DialectUnknown, 23, "CODE(23)"},
		{hyperstart.DialectClearC, 24, "CODE(24)"},
		{hyperstart.DialectHyperhq, 23, "PROCESSASYNCEVENT"},
		{hyperstart.DialectHyperhq, 24, "SIGNALPROCESS"},
		{hyperstart.DialectHyperhq, 25, "DELETEINTERFACE"},
		{hyperstart.DialectClearGo, 23, "PSCONTAINER"},
		{hyperstart.DialectClearGo, 24, "PROCESSASYNCEVENT"},
		{hyperstart.DialectCCv2, 23, "PSCONTAINER"},
		{hyperstart.DialectCCv2, 75, "SIGNALPROCESS"},
		{hyperstart.DialectCCv2, 9999, "CODE(9999)"},
	}
	for _, tt := range tests {
		if got := tt.dialect.CodeName(tt.code); got != tt.want {
			t.Errorf("%v: CodeName(%d) = %q, want %q", tt.dialect, uint32(tt.code), got, tt.want)
		}
	}
	if got := hyperstart.Call.String(); got != "CALL" {
		t.Errorf("got %q", got)
	}
}

// TestCodesAreUnique: within a dialect a code has one name, and a name one code.
func TestCodesAreUnique(t *testing.T) {
	for _, d := range allDialects {
		names := make(map[string]hyperstart.Code)
		for code := range hyperstart.Code(256) {
			name := d.CodeName(code)
			if other, ok := names[name]; ok {
				t.Errorf("%v: %d and %d are both %s", d, uint32(other), uint32(code), name)
			}
			names[name] = code
		}
	}
}

// TestCapabilities has what each dialect can do in one table (§3 to §5).
func TestCapabilities(t *testing.T) {
	type row struct {
		exitOnTTY, async, winSizeBySeq, processID, credits, calls bool
		maxStdin                                                  int
	}
	want := map[hyperstart.Dialect]row{
		hyperstart.DialectUnknown: {false, false, true, true, false, false, 512},
		hyperstart.DialectHyperhq: {false, true, false, true, false, false, 512},
		hyperstart.DialectClearC:  {true, false, true, false, false, false, 512},
		hyperstart.DialectClearGo: {true, false, true, true, false, false, 10228},
		hyperstart.DialectCCv2:    {true, false, true, true, true, true, 65536},
	}
	for _, d := range allDialects {
		_, async := d.AsyncEvent()
		got := row{d.ExitOnTTY(), async, d.WinSizeBySeq(), d.HasProcessID(), d.HasCredits(), d.HasCalls(), d.MaxStdin()}
		if got != want[d] {
			t.Errorf("%v: got %+v, want %+v", d, got, want[d])
		}
		if d != hyperstart.DialectUnknown && got.exitOnTTY == got.async {
			t.Errorf("%v: exits come in %t ways", d, got.async)
		}
	}
}
