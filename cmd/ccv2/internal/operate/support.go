package operate

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v3"

	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/operator"
	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/sandboxes"
	"github.com/ccv2/containerd-shim-ccv2/cmd/ccv2/internal/watch"
	"github.com/ccv2/containerd-shim-ccv2/pkg/shim/store"
)

// hostFiles are what is told of the host.
var hostFiles = []string{
	"/etc/os-release", "/proc/version", "/proc/cpuinfo", "/proc/meminfo", "/proc/loadavg", "/proc/uptime", "/proc/cgroups",
	"/proc/pressure/cpu", "/proc/pressure/memory", "/proc/pressure/io", "/sys/module/kvm_intel/parameters/nested", "/sys/module/kvm_amd/parameters/nested",
}

func supportCommand(t *tool) *cli.Command {
	var out string
	var tasks bool
	return &cli.Command{
		Name: "support", Usage: "collect what a bug report needs in one archive", ArgsUsage: "[ID|POD...]",
		Description: "Of the host, the configuration, and of each sandbox, or those that are named: its record, what info, stats, console, events and dump say; and the events of those that have ended, or of earlier ones of the pods that are named. " +
			"It has no environment, arguments or files of containers; MANIFEST in it lists what it has.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "`FILE` to write (default: ccv2-support-TIME.tar.gz)", Destination: &out, TakesFile: true},
			&cli.BoolFlag{Name: "tasks", Usage: "also the tasks of each guest's kernel", Destination: &tasks},
		},
		Action: func(ctx context.Context, c *cli.Command) error {
			var chosen []sandboxes.Record
			for _, name := range c.Args().Slice() {
				r, err := sandboxes.Find(t.StateDir, name)
				if err != nil {
					return err
				}
				chosen = append(chosen, r)
			}
			if len(chosen) == 0 {
				var err error
				if chosen, err = sandboxes.All(t.StateDir); err != nil {
					return err
				}
			}
			if out == "" {
				out = "ccv2-support-" + time.Now().UTC().Format("20060102T150405Z") + ".tar.gz"
			}
			return t.collect(ctx, out, chosen, c.Args().Present(), tasks)
		},
	}
}

// archive is a compressed archive, with a list of what is in it.
type archive struct {
	*tar.Writer

	list strings.Builder
}

// add adds a file.
func (a *archive) add(name string, text []byte) error {
	fmt.Fprintf(&a.list, "%9d  %s\n", len(text), name)
	header := &tar.Header{Name: "ccv2-support/" + name, Mode: 0o600, Size: int64(len(text)), ModTime: time.Now()}
	if err := a.WriteHeader(header); err != nil {
		return err
	}
	_, err := a.Write(text)
	return err
}

// addJSON adds a file, or why there is none.
func (a *archive) addJSON(name string, v any, err error) error {
	if err != nil {
		return a.add(name+".error.txt", []byte(err.Error()+"\n"))
	}
	var text bytes.Buffer
	if err := operator.PrintJSON(&text, v); err != nil {
		return err
	}
	return a.add(name+".json", text.Bytes())
}

// addFile adds a file of the host, if there is one.
func (a *archive) addFile(name, path string) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		text = []byte(err.Error())
	}
	return a.add(name, text)
}

// collect writes an archive, which only its owner can read.
func (t *tool) collect(ctx context.Context, path string, chosen []sandboxes.Record, named, tasks bool) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write the archive: %w", err)
	}
	packed := gzip.NewWriter(f)
	a := &archive{Writer: tar.NewWriter(packed)}
	err = t.fill(ctx, a, chosen, named, tasks)
	if err = errors.Join(err, a.Close(), packed.Close(), f.Close()); err != nil {
		return errors.Join(fmt.Errorf("write the archive: %w", err), os.Remove(path))
	}
	_, err = fmt.Fprintf(t.Stdout, "%s\n%s", path, a.list.String())
	return err
}

func (t *tool) fill(ctx context.Context, a *archive, chosen []sandboxes.Record, named, tasks bool) error {
	if err := a.add("version.txt", []byte("ccv2 "+t.Version+"\nactivity "+sandboxes.Activity()+"\n")); err != nil {
		return err
	}
	drop, _ := filepath.Glob(sandboxes.Escape(t.Config) + ".d/*.toml") // none is what it mostly is
	for _, path := range append(append(hostFiles, t.Config), drop...) {
		if err := a.addFile("host"+path, path); err != nil {
			return err
		}
	}
	ended, err := store.Ended(t.StateDir)
	if named {
		ended = sandboxes.JournalsOf(chosen, ended)
	}
	if err != nil {
		return err
	}
	for _, path := range ended {
		if err := a.addFile("ended/"+filepath.Base(path), path); err != nil {
			return err
		}
	}
	for _, r := range chosen {
		if err := t.describe(ctx, a, r, tasks); err != nil {
			return err
		}
	}
	return a.add("MANIFEST", []byte(a.list.String()))
}

// describe adds what is known of a sandbox; what does not answer is said.
func (t *tool) describe(ctx context.Context, a *archive, r sandboxes.Record, tasks bool) error {
	dir := "sandboxes/" + cmp.Or(r.Saved.ID, filepath.Base(r.Dir.Path())) + "/" // of a long id the directory is a hash
	errs := []error{a.addJSON(dir+"record", r.Saved, r.Err)}
	if r.Err != nil {
		return errors.Join(errs...)
	}
	errs = append(errs, a.addJSON(dir+"sandbox", viewOne(ctx, r, t.Limit), nil))
	if path := filepath.Join(r.Dir.Path(), store.SpansFile); exists(path) {
		errs = append(errs, a.addFile(dir+store.SpansFile, path))
	}
	if !r.Saved.Shim.Alive() {
		return errors.Join(append(errs, a.addFile(dir+store.JournalFile, filepath.Join(r.Dir.Path(), store.JournalFile)))...)
	}
	errs = append(errs, a.addJSON(dir+"stats", t.getStats(ctx, r), nil))
	for _, name := range watch.Logs() {
		var text bytes.Buffer
		if err := watch.Print(ctx, &text, r, name, t.Limit); err != nil {
			fmt.Fprintln(&text, sandboxes.Explain(r, err))
		}
		errs = append(errs, a.add(dir+name+".txt", text.Bytes()))
	}
	parts, err := t.getDump(ctx, r, tasks)
	for _, p := range parts {
		text := p.Text
		if p.Error != "" {
			text += "\n(" + p.Error + ")\n"
		}
		errs = append(errs, a.add(dir+p.Name, []byte(text)))
	}
	if err != nil {
		errs = append(errs, a.add(dir+"dump.error.txt", []byte(sandboxes.Explain(r, err).Error()+"\n")))
	}
	return errors.Join(errs...)
}

// exists reports whether there is a file.
func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
