package original

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/pkg/guest/hyperstart"
)

// Task is a process as the tables of ps have it.
type Task struct {
	hyperstart.ProcessInfo

	Parent  int
	TTY     string // "?" without one
	CPU     time.Duration
	Started time.Time
}

// Table is what the program ps prints about processes, for the options that an original host gives it.
// Without options that is the table of busybox, which the guests of the Go agent have.
func Table(options []string, tasks []Task, now time.Time) ([]byte, error) {
	write, header, err := layout(options)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.WriteString(header + "\n")
	for _, t := range tasks {
		write(&b, t, now)
	}
	return b.Bytes(), nil
}

// layout selects the table: none, -e and -ef in any spelling.
func layout(options []string) (row func(*bytes.Buffer, Task, time.Time), header string, err error) {
	for _, option := range options {
		if !strings.HasPrefix(option, "-") || strings.Trim(option[1:], "eAf") != "" {
			return nil, "", hyperstart.Errorf(hyperstart.ClassNotImplemented, "processes with the options %q: this guest has no ps, and knows -e, -A, -f, or json", options)
		}
	}
	letters := strings.Join(options, "")
	switch {
	case letters == "":
		return shortRow, "PID   USER     COMMAND", nil
	case strings.Contains(letters, "f"):
		return fullRow, "UID        PID  PPID  C STIME TTY          TIME CMD", nil
	}
	return everyRow, "  PID TTY          TIME CMD", nil
}

func shortRow(b *bytes.Buffer, t Task, _ time.Time) {
	fmt.Fprintf(b, "%5d %-8.8s %s\n", t.PID, userName(t.UID), t.command())
}

func everyRow(b *bytes.Buffer, t Task, _ time.Time) {
	fmt.Fprintf(b, "%5d %-8s %8s %s\n", t.PID, t.TTY, clock(t.CPU), printable(t.Name))
}

func fullRow(b *bytes.Buffer, t Task, now time.Time) {
	share := 0
	if lived := now.Sub(t.Started); lived > 0 {
		share = int(min(99, 100*t.CPU/lived))
	}
	fmt.Fprintf(b, "%-8s %5d %5d %2d %5s %-8s %8s %s\n", userName(t.UID), t.PID, t.Parent, share, startOf(t.Started, now), t.TTY, clock(t.CPU), t.command())
}

func (t Task) command() string {
	if len(t.Args) == 0 {
		return "[" + printable(t.Name) + "]"
	}
	return printable(strings.Join(t.Args, " "))
}

// printable keeps a line one: a process names itself.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if strconv.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

// userName is what the guest's own files would say, which has no other users.
func userName(uid uint32) string {
	if uid == 0 {
		return "root"
	}
	return strconv.FormatUint(uint64(uid), 10)
}

func clock(d time.Duration) string {
	s := int(d.Seconds())
	return fmt.Sprintf("%02d:%02d:%02d", s/3600, s/60%60, s%60)
}

func startOf(t, now time.Time) string {
	switch {
	case now.Sub(t) < 24*time.Hour:
		return t.Format("15:04")
	case t.Year() == now.Year():
		return t.Format("Jan02")
	}
	return t.Format("2006")
}

// Fields of /proc/PID/stat behind the name, counted from 0.
const (
	statParent, statTTY                 = 1, 4
	statUser, statSystem, statStartTick = 11, 12, 19
)

// tick is the unit of times there, on every machine that Linux has been on for long.
const tick = 10 * time.Millisecond

// ParseStat reads /proc/PID/stat of a guest that has booted at a time.
func (t *Task) ParseStat(stat string, boot time.Time) error {
	_, rest, ok := strings.Cut(stat[strings.LastIndexByte(stat, ')')+1:], " ")
	fields := strings.Fields(rest)
	if !ok || len(fields) <= statStartTick {
		return errors.New("the kernel's status of a process has too few fields")
	}
	var numbers [statStartTick + 1]int
	for _, i := range []int{statParent, statTTY, statUser, statSystem, statStartTick} {
		n, err := strconv.Atoi(fields[i])
		if err != nil {
			return fmt.Errorf("the kernel's status of a process: %w", err)
		}
		numbers[i] = n
	}
	t.Parent, t.TTY = numbers[statParent], ttyName(numbers[statTTY])
	t.CPU = time.Duration(numbers[statUser]+numbers[statSystem]) * tick
	t.Started = boot.Add(time.Duration(numbers[statStartTick]) * tick)
	return nil
}

// Majors of the terminals that containers have.
const firstPTS, lastPTS = 136, 143

// ttyName names a terminal by the number that the kernel gives.
func ttyName(device int) string {
	major, minor := device>>8&0xfff, device&0xff|device>>12&0xfff00
	switch {
	case device == 0:
		return "?"
	case major >= firstPTS && major <= lastPTS:
		return fmt.Sprintf("pts/%d", (major-firstPTS)<<8+minor)
	}
	return fmt.Sprintf("%d:%d", major, minor)
}
