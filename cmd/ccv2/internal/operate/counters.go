package operate

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/sandboxes"
)

// printCounters prints those of disks, streams and messages, where there are some.
func printCounters(w io.Writer, now stats) error {
	if len(now.Disks) > 0 {
		fmt.Fprintln(w)
		out := newTable(w, "DISK", "READ BYTES", "READS", "READ TIME", "WRITTEN BYTES", "WRITES", "WRITE TIME", "FLUSHES", "FAILED")
		for _, d := range now.Disks {
			out.row(line(d.ID), fmt.Sprint(d.ReadBytes), fmt.Sprint(d.Reads), span(time.Duration(d.ReadNanoseconds)),
				fmt.Sprint(d.WrittenBytes), fmt.Sprint(d.Writes), span(time.Duration(d.WriteNanoseconds)), fmt.Sprint(d.Flushes), fmt.Sprint(d.Failed))
		}
		if err := out.flush(); err != nil {
			return err
		}
	}
	if len(now.Streams) > 0 {
		fmt.Fprintln(w)
		out := newTable(w, "CONTAINER", "EXEC", "STDIN BYTES", "STDOUT BYTES", "STDERR BYTES")
		for _, s := range now.Streams {
			out.row(short(line(s.Container)), line(s.Process), fmt.Sprint(s.Stdin), fmt.Sprint(s.Stdout), fmt.Sprint(s.Stderr))
		}
		if err := out.flush(); err != nil {
			return err
		}
	}
	if len(now.Messages) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	out := newTable(w, "LAYER", "DIRECTION", "KIND", "MESSAGES", "BYTES")
	for _, m := range now.Messages {
		direction := "to guest"
		if m.ToHost {
			direction = "to host"
		}
		out.row(line(m.Layer), direction, line(m.Kind), fmt.Sprint(m.Messages), fmt.Sprint(m.Bytes))
	}
	return out.flush()
}

// printLinks prints interfaces, or why they are not known.
func printLinks(w io.Writer, all []sandboxes.Link, err error) error {
	if err != nil {
		_, err = fmt.Fprintf(w, "interfaces  %s\n", line(err.Error()))
		return err
	}
	for _, l := range all {
		if _, err := fmt.Fprintf(w, "interface   %s, %s, mtu %d, %s\n", l.Name, l.MAC, l.MTU, strings.Join(l.Addresses, " ")); err != nil {
			return err
		}
	}
	return nil
}
