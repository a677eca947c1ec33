package virtiofsd

import (
	"cmp"
	"fmt"
	"strings"
)

// listenFD is the descriptor of the inherited socket: os/exec numbers extra
// files from 3 on.
const listenFD = 3

// commandLine returns the server's arguments, without the program's name.
func commandLine(opts Options, k kind) []string {
	cache := cmp.Or(opts.Cache, CacheAuto)
	sandbox := cmp.Or(opts.Sandbox, SandboxNamespace)
	if k == kindRust {
		return rustArgs(opts, cache, sandbox)
	}
	args := []string{
		"-f", fmt.Sprintf("--fd=%d", listenFD), fmt.Sprintf("--thread-pool-size=%d", opts.Threads),
		"-o", "source=" + escape(opts.SharedDir),
		"-o", "cache=" + string(cache),
		"-o", "sandbox=" + string(sandbox),
		// The host's lock table must not be the guest's to fill.
		"-o", "no_posix_lock,no_flock",
		// Its info level has a line for every connection.
		"-o", "log_level=warn",
	}
	if opts.Xattr {
		args = append(args, "-o", "xattr")
	}
	if opts.AnnounceSubmounts {
		args = append(args, "-o", "announce_submounts")
	}
	return args
}

func rustArgs(opts Options, cache Cache, sandbox Sandbox) []string {
	mode := string(cache)
	if cache == CacheNever {
		mode = "never"
	}
	args := []string{
		fmt.Sprintf("--fd=%d", listenFD), fmt.Sprintf("--thread-pool-size=%d", opts.Threads),
		"--shared-dir=" + opts.SharedDir, "--cache=" + mode, "--sandbox=" + string(sandbox),
		"--log-level=warn",
	}
	if opts.Xattr {
		args = append(args, "--xattr")
	}
	if opts.AnnounceSubmounts {
		args = append(args, "--announce-submounts")
	}
	return args
}

// escape protects what separates options in libfuse's option lists.
func escape(s string) string {
	return strings.NewReplacer(`\`, `\\`, `,`, `\,`).Replace(s)
}
