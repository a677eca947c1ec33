package kind

import (
	"archive/tar"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// staged is the directory of a node that gets the bundle until it is installed. It is on
// the file system of the container: the engine does not reach what is mounted in it.
const staged = "/.ccv2-bundle"

// bundleFiles are all of an unpacked bundle, by their names in it.
func bundleFiles(dir string) (map[string]string, error) {
	files := make(map[string]string)
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(dir, p)
		files[filepath.ToSlash(name)] = p
		return err
	})
	return files, err
}

// write writes an archive of files and symbolic links, by their names below staged. They
// belong to root.
func write(w io.Writer, files map[string]string) error {
	t := tar.NewWriter(w)
	for name, source := range files {
		if err := writeFile(t, path.Join(staged[1:], name), source); err != nil {
			return err
		}
	}
	return t.Close()
}

func writeFile(t *tar.Writer, name, source string) error {
	info, err := os.Lstat(source)
	if err != nil {
		return err
	}
	if info.Mode().Type() == fs.ModeSymlink {
		target, err := os.Readlink(source)
		if err != nil {
			return err
		}
		return t.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777})
	}
	f, err := os.Open(source)
	if err != nil {
		return err
	}
	defer f.Close()
	header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: info.Size(), Mode: int64(info.Mode().Perm()), ModTime: info.ModTime()}
	if err := t.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.Copy(t, f)
	return err
}
