//go:build e2e

package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/oci"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// cloneScript prints what is to differ, and what is the host's.
const cloneScript = `
echo "urandom $(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n')"
echo "uuid $(cat /proc/sys/kernel/random/uuid)"
echo "boot $(cat /proc/sys/kernel/random/boot_id)"
echo "shell $(awk '$NF == "[stack]" { print $1 }' /proc/self/maps)"
echo "loader $(awk '$NF == "[vdso]" { print $1 }' /proc/self/maps)"
echo "heap $(awk '$NF == "[heap]" { print $1 }' /proc/self/maps)"
echo "time $(date +%s)"
echo "up $(cut -d. -f1 /proc/uptime)"
/clone
`

// cloneLines is how many lines that makes.
const cloneLines = 14

// clones collects what clones say.
type clones struct {
	mu     sync.Mutex        // guards what follows
	seen   map[string]string // who has said it, by the name and the value
	isns   map[string][3]isn // by clone
	chance int               // addresses that two clones have had
}

// isn is the initial sequence number of a connection, without what the kernel adds to it for the
// time: somewhere from least to most. What is left depends on a secret of the kernel.
type isn struct{ least, most uint32 }

// TestTemplateClones: VMs from one template, two of them at the same time, have random numbers,
// addresses and secrets of their own, the host's time, and nothing of each other.
func TestTemplateClones(t *testing.T) {
	templates(t, false)
	if out, err := ccv2(t, "template", "build"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	mount := withClone(t)
	c := &clones{seen: map[string]string{}, isns: map[string][3]isn{}}
	t.Run("clones", func(t *testing.T) {
		for i := range 20 {
			id := fmt.Sprintf("clone%d", i)
			t.Run(id, func(t *testing.T) {
				t.Parallel()
				before := time.Now().Unix()
				out := from(t, "template", id, append(slices.Clone(mount), "sh", "-c", cloneScript)...)
				if len(strings.Split(strings.TrimSpace(out), "\n")) != cloneLines {
					t.Errorf("%s said:\n%s", id, out)
				}
				c.add(t, id, out, before)
			})
		}
	})
	c.wantSecrets(t)
	twice := &clones{seen: map[string]string{}, isns: map[string][3]isn{}}
	first, second, _ := strings.Cut(from(t, "template", "twice", append(slices.Clone(mount), "sh", "-c", "/clone; echo; /clone")...), "\n\n")
	twice.add(t, "first", first, 0)
	twice.add(t, "second", second, 0)
	if !same(twice.isns["first"], twice.isns["second"]) {
		t.Errorf("what is said of one kernel's secret differs: %v", twice.isns)
	}
	log := shared.CtrOK(t, "run", "--rm", "--privileged", harness.ImageName, "after", "dmesg")
	if !strings.Contains(log, "Linux version") || strings.Contains(log, "clone") {
		t.Errorf("the kernel's log has the past of other pods:\n%s", log)
	}
}

// withClone are the arguments with which a container can run cloneScript.
func withClone(t *testing.T) []string {
	t.Helper()
	return []string{"--privileged", "--mount", "type=bind,src=" + builtProgram(t, t.TempDir(), "clone") + ",dst=/clone,options=rbind:ro"}
}

// wantSecrets fails when two clones have the same secret for TCP's sequence numbers.
func (c *clones) wantSecrets(t *testing.T) {
	t.Helper()
	for a, x := range c.isns {
		for b, y := range c.isns {
			if a < b && same(x, y) {
				t.Errorf("%s and %s have the same secret for TCP's sequence numbers: %v, %v", a, b, x, y)
			}
		}
	}
}

// TestTemplateNames: what a pod is known by in its network is its own.
func TestTemplateNames(t *testing.T) {
	templates(t, false)
	if out, err := ccv2(t, "template", "build"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	out, _ := ccv2(t, "check") // it may have other things to complain about
	for _, want := range []string{"ok    templates ", "ok    from template  ready for containers after"} {
		if !strings.Contains(out, want) {
			t.Errorf("ccv2 check says nothing of %q:\n%s", want, out)
		}
	}
	for i, id := range []string{"names1", "names2", "names3"} {
		_, pod := newPodNetwork(t)
		want := fmt.Sprintf("02:00:00:00:01:%02x", i)
		pod.ip("link set eth0 address " + want)
		task := shared.Running(t, id, harness.Streams{}, []string{"/bin/sleep", "1000000"}, pod.with(), oci.WithHostname(id))
		out, status := shared.Output(t, task, "names", "sh", "-c", "hostname; cat /sys/class/net/eth0/address")
		name, mac, _ := strings.Cut(strings.TrimSpace(out), "\n")
		if status != 0 || name != id || mac != want {
			t.Errorf("%s is called %q and has the address %q, want %q: status %d", id, name, mac, want, status)
		}
		if got := sources(shared.Log())[id]; got != "template" {
			t.Errorf("the VM of %s is from %q", id, got)
		}
		shared.KillTask(t, task)
	}
}

// add compares what a clone has said with the others.
func (c *clones) add(t *testing.T, id, out string, before int64) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch key {
		case "time":
			var at int64
			if _, err := fmt.Sscan(value, &at); err != nil || at < before-1 || at > time.Now().Unix()+1 {
				t.Errorf("%s: the time is %s, on the host it was %d: %v", id, value, before, err)
			}
		case "up":
		case "isn0", "isn1", "isn2":
			var seq uint32
			var begin, end int64
			if _, err := fmt.Sscan(value, &seq, &begin, &end); err != nil {
				t.Errorf("%s: %q: %v", id, line, err)
			}
			const shift = 6 // nanoseconds to the kernel's ticks
			all := c.isns[id]
			all[key[3]-'0'] = isn{least: seq - uint32(end>>shift), most: seq - uint32(begin>>shift)}
			c.isns[id] = all
		case "shell", "loader", "heap", "stack", "vdso":
			// Of a stack's address 22 bits are random: in 22,000 runs two of 20 have the same. Two such
			// coincidences in a run are none.
			if c.seen[key+value] != "" {
				c.chance++
			}
			if value == "" || c.chance > 1 {
				t.Errorf("%s: %s %q, as that of %q", id, key, value, c.seen[key+value])
			}
			c.seen[key+value] = id
		default:
			if value == "" || c.seen[key+value] != "" {
				t.Errorf("%s: %s %q, as that of %q", id, key, value, c.seen[key+value])
			}
			c.seen[key+value] = id
		}
	}
}

// same reports whether all sequence numbers can be from one secret: what is left of them without
// the time is in the same place.
func same(a, b [3]isn) bool {
	for i := range a {
		// Differences, as the numbers begin anew after 32 bits.
		if a[i].least-b[i].least > b[i].most-b[i].least && b[i].least-a[i].least > a[i].most-a[i].least {
			return false
		}
	}
	return true
}
