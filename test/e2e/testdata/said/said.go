// Package said prints what comes of a call, for programs that are run with two runtimes to
// compare what they print.
package said

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Line prints where and what was tried, "ok" or the name of the system's error, and values.
func Line(where, what string, err error, values ...any) {
	result := "ok"
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		result = unix.ErrnoName(errno)
	} else if err != nil {
		result = err.Error()
	}
	fmt.Println(append([]any{where, what, result}, values...)...)
}
