// Command suites runs third-party test suites with runc and with ccv2 and
// prints which tests differ.
//
//	suites -build DIR [-suite NAME] [-runtime NAME] [-run REGEXP]
//	suites -terminal [TEXT INPUT]... -- COMMAND...
//
// The tests think that they are on a machine of their own: they run in
// namespaces with a private /run, /etc and /var/lib, and a registry that has the
// images which they name (made here, of busybox). What they leave behind ends
// with these namespaces.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// options are the same outside and inside of the private machine.
type options struct {
	build, suite, runtime, run string
	scratch                    string // everything that is written; set inside
}

// suite is a test suite that can be run with any runtime.
type suite struct {
	name  string
	build func(ctx context.Context, o options) error
	run   func(ctx context.Context, o options, runtime string) (results, error)
	// compare prints what differs. It fails where that has to have a reason.
	compare func(w io.Writer, suite string, runc, ccv2 results) error
}

var (
	suites   = []suite{clientSuite, criSuite, critestSuite, nerdctlSuite, dockerSuite}
	runtimes = []string{"runc", "ccv2"}
)

func main() {
	o := options{}
	flag.StringVar(&o.build, "build", "../../build", "directory of the binaries, the guest and busybox")
	flag.StringVar(&o.suite, "suite", "", "only this suite")
	flag.StringVar(&o.runtime, "runtime", "", "only this runtime: runc or ccv2")
	flag.StringVar(&o.run, "run", "", "only the tests that match")
	flag.StringVar(&o.scratch, "scratch", "", "set by the program itself")
	typing := flag.Bool("terminal", false, "run a command of a row on a terminal")
	flag.Parse()
	if *typing {
		if err := terminal(flag.Args()); err != nil {
			fmt.Fprintln(os.Stderr, "suites: terminal:", err)
			os.Exit(125)
		}
		return
	}
	run := outside
	if o.scratch != "" {
		run = inside
	}
	if err := run(context.Background(), o); err != nil {
		fmt.Fprintln(os.Stderr, "suites:", err)
		os.Exit(1)
	}
}

// outside builds the suites, which needs the network, and enters a machine of
// their own for each run.
func outside(ctx context.Context, o options) error {
	// A test counts the pipes that a shim has: those that this process was started with
	// are not the shim's.
	if err := unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("keep what this process has inherited: %w", err)
	}
	var err, differ error
	if o.build, err = filepath.Abs(o.build); err != nil {
		return err
	}
	for _, s := range suites {
		if o.suite != "" && o.suite != s.name {
			continue
		}
		if err := s.build(ctx, o); err != nil {
			return fmt.Errorf("%s: build: %w", s.name, err)
		}
		all := map[string]results{}
		for _, r := range runtimes {
			if o.runtime != "" && o.runtime != r {
				continue
			}
			if all[r], err = enter(ctx, o, s.name, r); err != nil {
				return fmt.Errorf("%s with %s: %w", s.name, r, err)
			}
		}
		if err := s.compare(os.Stdout, s.name, all["runc"], all["ccv2"]); err != nil {
			differ = errors.Join(differ, fmt.Errorf("%s: %w", s.name, err))
		}
	}
	return differ
}

// inside runs one suite with one runtime.
func inside(ctx context.Context, o options) error {
	i := slices.IndexFunc(suites, func(s suite) bool { return s.name == o.suite })
	if i < 0 {
		return fmt.Errorf("there is no suite %q", o.suite)
	}
	stop, err := furnish(ctx, o)
	if err != nil {
		return err
	}
	got, err := suites[i].run(ctx, o, o.runtime)
	return errors.Join(err, got.save(resultsPath(o.build, o.suite, o.runtime)), stop())
}
