// Command ccv2-exec starts a program of the bundle with the bundle's own C library
// and loader, wherever the bundle was unpacked and whatever the host has of its own.
//
// It is called by the name of the program. Below the directory above its own:
//
//	bin/NAME          a link to this program
//	libexec/NAME      the program
//	loader/NAME       the loader, under the program's name, which is what ps shows
//	lib               its libraries
//
// The process stays the same one: signals, descriptors and PR_SET_PDEATHSIG are the
// program's.
package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	err := run(os.Args, os.Environ())
	fmt.Fprintln(os.Stderr, "ccv2-exec:", err)
	os.Exit(127)
}

// run returns only when the program cannot be started.
func run(args, env []string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the bundle: %w", err)
	}
	loader, argv, err := command(filepath.Dir(filepath.Dir(self)), args)
	if err != nil {
		return err
	}
	// What is said to the host's loader is about its libraries, which are others.
	env = slices.DeleteFunc(env, func(v string) bool { return strings.HasPrefix(v, "LD_") || strings.HasPrefix(v, "GCONV_PATH=") })
	if err := unix.Exec(loader, argv, env); err != nil {
		return fmt.Errorf("start %s: %w", loader, err)
	}
	return nil
}

// command is what is executed for args in the bundle at root.
func command(root string, args []string) (loader string, argv []string, err error) {
	if len(args) == 0 {
		return "", nil, errors.New("there is no name to be called by")
	}
	name := filepath.Base(args[0])
	loader, program := filepath.Join(root, "loader", name), filepath.Join(root, "libexec", name)
	for _, path := range []string{loader, program} {
		if _, err := os.Stat(path); err != nil {
			return "", nil, fmt.Errorf("the bundle has no program %s: %w", name, err)
		}
	}
	argv = append([]string{args[0], "--inhibit-cache", "--library-path", filepath.Join(root, "lib"), "--argv0", args[0], program}, args[1:]...)
	return loader, argv, nil
}
