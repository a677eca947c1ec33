package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/manual"
	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/operate"
)

// runMan writes the manual pages, from the same texts as --help.
func runMan(args []string, stdout, _ io.Writer) error {
	if len(args) != 1 {
		return errors.New("usage: ccv2 man DIRECTORY")
	}
	names, err := manual.Write(args[0], operate.Tool(operate.Options{Version: version, Others: others()}))
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(stdout, "%d manual pages are in %s\n", len(names), args[0])
	return err
}

// others are the commands that are not operate's.
func others() (all []operate.Other) {
	for _, c := range commands() {
		all = append(all, operate.Other{Name: c.name, Usage: c.usage})
	}
	return all
}
