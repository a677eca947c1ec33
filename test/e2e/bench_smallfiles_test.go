//go:build e2e

package e2e_test

import (
	"archive/tar"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/containerd/containerd/v2/pkg/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/ccv2/containerd-shim-ccv2/test/e2e/harness"
)

// smallFiles writes an archive of 5,700 files of 50 MB, like those of a package
// manager: most are small, a few have 60 KB.
func smallFiles(b *testing.B, path string) {
	b.Helper()
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	random := rand.New(rand.NewPCG(1, 2)) // the same in each run
	w := tar.NewWriter(f)
	for d := range 190 {
		dir := fmt.Sprintf("package%03d/lib", d)
		for _, name := range []string{filepath.Dir(dir), dir} {
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755}); err != nil {
				b.Fatal(err)
			}
		}
		for i := range 30 {
			size := int64(min(60_000, random.ExpFloat64()*8800)) + 1
			err := w.WriteHeader(&tar.Header{Name: fmt.Sprintf("%s/file%02d.js", dir, i), Mode: 0o644, Size: size})
			if err == nil {
				_, err = io.CopyN(w, zeros{}, size)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		b.Fatal(err)
	}
}

// zeros is an endless stream of them.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// smallSteps works in the directory $1, and says how many milliseconds each step took.
const smallSteps = `
now() { read up idle < /proc/uptime; echo ${up%.*}${up#*.}0; }
step() { name=$1; shift; begin=$(now); "$@" > /dev/null || exit 1; echo $name $(($(now) - begin)); }
mkdir -p $1/work && cd $1/work || exit 1
step untar tar xf /v/small.tar
step tar tar cf ../small.tar .
step find find . -type f
step rm rm -rf ../work/*
cd / && rm -r $1/work $1/small.tar`

var smallStep = regexp.MustCompile(`(?m)^(\w+) (\d+)$`)

// BenchmarkSmallFiles unpacks, packs, finds and removes small files in the root file
// system of a container, with runc, in a VM, and in the memory of the same guest.
func BenchmarkSmallFiles(b *testing.B) {
	shared.Watch(b)
	dir := b.TempDir()
	smallFiles(b, filepath.Join(dir, "small.tar"))
	mounts := oci.WithMounts([]specs.Mount{
		bind(dir, "/v", "ro"),
		{Type: "tmpfs", Source: "tmpfs", Destination: "/mem", Options: []string{"size=200m"}},
	})
	took := map[string][]float64{}
	for i := range b.N {
		for runtime, places := range map[string][]string{harness.Runc: {"/root"}, harness.Runtime: {"/root", "/mem"}} {
			name := map[string]string{harness.Runc: "runc", harness.Runtime: "ccv2"}[runtime]
			id := fmt.Sprintf("small-%d-%s", i, name)
			task := shared.RunningOn(b, runtime, id, harness.Streams{}, []string{"sleep", "1000"}, mounts)
			for _, place := range places {
				out, status := shared.Output(b, task, "steps"+filepath.Base(place), "sh", "-c", smallSteps, "sh", place)
				if status != 0 {
					b.Fatalf("%s in %s: status %d\n%s", id, place, status, out)
				}
				if place == "/mem" {
					name = "guest-tmpfs"
				}
				for _, m := range smallStep.FindAllStringSubmatch(out, -1) {
					ms, _ := strconv.ParseFloat(m[2], 64)
					took[m[1]+"-"+name] = append(took[m[1]+"-"+name], ms)
				}
			}
			shared.KillTask(b, task)
		}
	}
	for name, values := range took {
		b.ReportMetric(harness.Median(values), name+"-ms")
	}
	for _, step := range []string{"untar", "tar", "find", "rm"} {
		b.ReportMetric(harness.Median(took[step+"-ccv2"])/max(harness.Median(took[step+"-runc"]), 10), step+"/runc")
	}
	b.ReportMetric(0, "ns/op")
}
