package qemu

import (
	"os"
	"slices"
	"strings"
	"time"
)

// hostFacts are what a command line depends on beside its spec.
type hostFacts struct {
	tscKHz int // frequency of the time stamp counter; 0 when it is not constant
}

// cpuFlags returns the flags of the first CPU in a file like /proc/cpuinfo;
// nil when there are none.
func cpuFlags(cpuinfo string) []string {
	data, err := os.ReadFile(cpuinfo)
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(data)) {
		key, value, ok := strings.Cut(line, ":")
		if ok && strings.TrimSpace(key) == "flags" {
			return strings.Fields(value)
		}
	}
	return nil
}

// tscKHz measures the frequency of the time stamp counter against the
// monotonic clock. It is 0 when the counter does not run at one speed always.
func tscKHz(flags []string) int {
	if !slices.Contains(flags, "constant_tsc") || !slices.Contains(flags, "nonstop_tsc") {
		return 0
	}
	// Both ends are known to a few 100 ns, so 5 ms give an error below 100 ppm.
	// The guest's kernel corrects anything below 1 % later by itself.
	const span = 5 * time.Millisecond
	t0, c0 := sampleTSC()
	timer := time.NewTimer(span)
	<-timer.C
	t1, c1 := sampleTSC()
	if c1 <= c0 {
		return 0
	}
	return int(float64(c1-c0) / float64(t1.Sub(t0).Nanoseconds()) * 1e6)
}

// sampleTSC reads the clock and the counter as close together as possible: of
// several tries, the one that was interrupted least.
func sampleTSC() (time.Time, uint64) {
	var (
		when  time.Time
		count uint64
		best  = time.Hour
	)
	for range 8 {
		before := time.Now()
		c := readTSC()
		if took := time.Since(before); took < best {
			when, count, best = before.Add(took/2), c, took
		}
	}
	return when, count
}
