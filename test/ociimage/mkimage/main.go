// Command mkimage writes the busybox image that the demonstration runs.
//
//	mkimage BUSYBOX OUTPUT.tar
package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/ccv2/containerd-shim-ccv2/test/ociimage"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return errors.New("usage: mkimage BUSYBOX OUTPUT.tar")
	}
	img, err := ociimage.Busybox(ctx, args[0])
	if err != nil {
		return err
	}
	f, err := os.Create(args[1])
	if err != nil {
		return err
	}
	return errors.Join(ociimage.Write(f, img), f.Close())
}
