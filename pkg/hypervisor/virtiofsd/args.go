package virtiofsd

import (
	"fmt"
	"strings"
)

// listenFD is the descriptor of the inherited socket: os/exec numbers extra
// files from 3 on.
const listenFD = 3

// xattrMap has extended attributes of a guest's root, trusted.*, be user.virtiofs.trusted.*
// of the host's files: the host's own take CAP_SYS_ADMIN, and file systems of the host
// read some of them. The guest may not say the longer name itself. Labels are the host's:
// its SELinux or Smack would take the server for any process of containerd's. Others of
// security.* take CAP_SYS_ADMIN, which the server has not, but for capabilities of programs.
const xattrMap = ":prefix:all:trusted.:user.virtiofs.:" +
	":bad:server::trusted.:" +
	":bad:client:user.virtiofs.::" +
	":unsupported:all:security.selinux:security.selinux:" +
	":unsupported:all:security.SMACK64:security.SMACK64:"

// noLists refuses access control lists, which would be kept and not be obeyed: without
// hack/kernel-3-submounts.patch the guest's kernel looks at them in the root of a device, not in what it mounts below.
const (
	noLists = ":unsupported:all:system.posix_acl_:system.posix_acl_:"
	theRest = ":ok:all:::"
)

// commandLine returns the server's arguments, without the program's name.
//
// Who writes to a file of another user takes its set-user-id bit and capabilities: the
// guest says so, as the server's own user is root (killpriv_v2).
//
// Requests are served by the thread that receives them, which is faster on few
// CPUs than a pool. The guest sees changes of the host after a second. It has a
// device number for each file system of the host, so that equal inode numbers are
// not taken for hard links. Inodes are descriptors: handles need a capability with
// which a server in the guest's hands opens any file of the host's file systems, and
// there are none of devices that are mounted by themselves, nor on overlayfs.
func commandLine(opts Options, v Version) []string {
	if !v.Legacy {
		args := []string{
			fmt.Sprintf("--fd=%d", listenFD), "--thread-pool-size=0",
			"--shared-dir=" + opts.SharedDir, "--cache=auto", "--sandbox=namespace",
			"--log-level=warn", "--announce-submounts", "--inode-file-handles=never",
			"--xattr", "--killpriv-v2",
		}
		if v.Own && opts.OwnMounts != "" {
			return append(args, "--xattrmap="+xattrMap+theRest, "--posix-acl=auto", "--preserve-noatime", "--own-mounts="+opts.OwnMounts)
		}
		return append(args, "--xattrmap="+xattrMap+noLists+theRest)
	}
	return []string{
		"-f", fmt.Sprintf("--fd=%d", listenFD), "--thread-pool-size=0",
		"-o", "source=" + escape(opts.SharedDir),
		"-o", "cache=auto",
		"-o", "sandbox=namespace",
		// The host's lock table must not be the guest's to fill.
		"-o", "no_posix_lock,no_flock",
		// Its info level has a line for every connection.
		"-o", "log_level=warn",
		"-o", "announce_submounts",
		"-o", "xattr", "-o", "xattrmap=" + xattrMap + noLists + theRest, "-o", "killpriv_v2",
	}
}

// escape protects what separates options in libfuse's option lists.
func escape(s string) string {
	return strings.NewReplacer(`\`, `\\`, `,`, `\,`).Replace(s)
}
