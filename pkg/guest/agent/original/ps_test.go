package original_test

import (
	"testing"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/agent/original"
	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// TestTable: without options byte for byte what the Go agent has answered, else what procps prints.
func TestTable(t *testing.T) {
	now := time.Date(2017, 6, 5, 12, 0, 0, 0, time.UTC)
	cat := original.Task{ProcessInfo: hyperstart.ProcessInfo{PID: 186, Name: "cat", Args: []string{"/bin/cat"}}}
	if err := cat.ParseStat("186 (a ) b) S 1 186 186 34817 186 4194304 95 0 0 0 6100 100 0 0 20 0 1 0 360000 0 0", now.Add(-2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	thread := original.Task{ProcessInfo: hyperstart.ProcessInfo{PID: 7, Name: "x\ny", UID: 1000}, Parent: 2, TTY: "?", CPU: 25 * time.Hour, Started: now.Add(-50 * 24 * time.Hour)}
	old := original.Task{ProcessInfo: hyperstart.ProcessInfo{PID: 99999, Name: "sh", Args: []string{"sh", "-c", "a\x1bb"}}, TTY: "?", Started: now.Add(-400 * 24 * time.Hour)}
	for _, tt := range []struct {
		options []string
		tasks   []original.Task
		want    string
	}{
		{nil, []original.Task{cat}, "PID   USER     COMMAND\n  186 root     /bin/cat\n"},
		{[]string{}, []original.Task{thread}, "PID   USER     COMMAND\n    7 1000     [x?y]\n"},
		{[]string{"-e"}, []original.Task{cat, thread}, "  PID TTY          TIME CMD\n  186 pts/1    00:01:02 cat\n    7 ?        25:00:00 x?y\n"},
		{[]string{"-ef"}, []original.Task{cat, thread, old}, "UID        PID  PPID  C STIME TTY          TIME CMD\n" +
			"root       186     1  1 11:00 pts/1    00:01:02 /bin/cat\n" +
			"1000         7     2  2 Apr16 ?        25:00:00 [x?y]\n" +
			"root     99999     0  0  2016 ?        00:00:00 sh -c a?b\n"},
		{[]string{"-A", "-f"}, nil, "UID        PID  PPID  C STIME TTY          TIME CMD\n"},
	} {
		if got, err := original.Table(tt.options, tt.tasks, now); err != nil || string(got) != tt.want {
			t.Errorf("%q:\n%s%v\nwant\n%s", tt.options, got, err, tt.want)
		}
	}
	for _, options := range [][]string{{"aux"}, {"-o", "pid"}, {""}, {"-e", "-x"}} {
		if got, err := original.Table(options, nil, now); classOf(err) != hyperstart.ClassNotImplemented {
			t.Errorf("%q: %s, %v", options, got, err)
		}
	}
	for _, stat := range []string{"", "1 (x)", "1 (x) S 1 2 3", "1 (x) S a b c d e f g h i j k l m n o p q r s t u"} {
		if err := new(original.Task).ParseStat(stat, now); err == nil {
			t.Errorf("%q is taken", stat)
		}
	}
}
