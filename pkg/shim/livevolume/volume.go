package livevolume

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/share"
)

// dataLink is the link in such a volume that a kubelet changes.
const dataLink = "..data"

// maxSize is the size in bytes up to which a volume is copied, maxSum that of all
// volumes of a pod: the copies are in memory that its containers have not been given. A source of
// a volume has 1 MiB at most. A file takes whole pages, and one for its inode.
const (
	maxSize  = 8 << 20
	maxSum   = 16 << 20
	pageSize = 4 << 10
)

// kinds are what a kubelet names the directories of such volumes.
var kinds = []string{"configmap", "secret", "projected", "downward-api"}

// isLive reports whether a bind mount is a volume that a kubelet keeps up to date, that the
// container only reads, and that is small enough to be copied.
func isLive(b share.Bind) (size int64, ok bool) {
	if b.Access == share.WriteAll || b.Pod == "" || strings.Contains(b.Pod, "/") {
		return 0, false
	}
	volumes, name := filepath.Split(filepath.Clean(b.Source))
	for _, kind := range kinds {
		if name != "" && strings.HasSuffix(volumes, "/pods/"+b.Pod+"/volumes/kubernetes.io~"+kind+"/") {
			size, err := sizeOf(b.Source)
			return size, err == nil
		}
	}
	return 0, false
}

// dataOf returns where the link of a volume leads.
func dataOf(source string) (string, error) { return os.Readlink(filepath.Join(source, dataLink)) }

// errLarge ends a walk.
var errLarge = errors.New("too large")

// sizeOf returns what the copy of a volume takes; the error is errLarge when that is too much, another one when it
// has no link.
func sizeOf(source string) (size int64, err error) {
	data, err := dataOf(source)
	if err != nil {
		return 0, err
	}
	err = filepath.WalkDir(filepath.Join(source, data), func(_ string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		pages := (info.Size()+pageSize-1)/pageSize + 1
		if size += pages * pageSize; size > maxSize {
			return errLarge
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) { // what vanished meanwhile has been replaced, by something that is as large
		return size, nil
	}
	return size, err
}
