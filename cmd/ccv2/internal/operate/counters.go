package operate

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/operator"
	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/sandboxes"
)

// printCounters prints those of disks, streams and messages, where there are some.
func printCounters(w io.Writer, now stats) error {
	if len(now.Disks) > 0 {
		fmt.Fprintln(w)
		out := operator.NewTable(w, "DISK", "READ BYTES", "READS", "READ TIME", "WRITTEN BYTES", "WRITES", "WRITE TIME", "FLUSHES", "FAILED")
		for _, d := range now.Disks {
			out.Row(operator.Line(d.ID), fmt.Sprint(d.ReadBytes), fmt.Sprint(d.Reads), operator.Span(time.Duration(d.ReadNanoseconds)),
				fmt.Sprint(d.WrittenBytes), fmt.Sprint(d.Writes), operator.Span(time.Duration(d.WriteNanoseconds)), fmt.Sprint(d.Flushes), fmt.Sprint(d.Failed))
		}
		if err := out.Flush(); err != nil {
			return err
		}
	}
	if len(now.Streams) > 0 {
		fmt.Fprintln(w)
		out := operator.NewTable(w, "CONTAINER", "EXEC", "STDIN BYTES", "STDOUT BYTES", "STDERR BYTES")
		for _, s := range now.Streams {
			out.Row(operator.Short(operator.Line(s.Container)), operator.Line(s.Process), fmt.Sprint(s.Stdin), fmt.Sprint(s.Stdout), fmt.Sprint(s.Stderr))
		}
		if err := out.Flush(); err != nil {
			return err
		}
	}
	if len(now.Messages) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	out := operator.NewTable(w, "LAYER", "DIRECTION", "KIND", "MESSAGES", "BYTES")
	for _, m := range now.Messages {
		direction := "to guest"
		if m.ToHost {
			direction = "to host"
		}
		out.Row(operator.Line(m.Layer), direction, operator.Line(m.Kind), fmt.Sprint(m.Messages), fmt.Sprint(m.Bytes))
	}
	return out.Flush()
}

// printLinks prints interfaces, or why they are not known.
func printLinks(w io.Writer, all []sandboxes.Link, err error) error {
	if err != nil {
		_, err = fmt.Fprintf(w, "interfaces  %s\n", operator.Line(err.Error()))
		return err
	}
	for _, l := range all {
		if _, err := fmt.Fprintf(w, "interface   %s, %s, mtu %d, %s\n", l.Name, l.MAC, l.MTU, strings.Join(l.Addresses, " ")); err != nil {
			return err
		}
	}
	return nil
}
