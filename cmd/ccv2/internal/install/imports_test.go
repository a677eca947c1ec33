package install

import (
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestImports: what containerd's configuration imports counts as what is in it does.
func TestImports(t *testing.T) {
	const theirs = "[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.ccv2]\nruntime_type = 'x'\n"
	const other = "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.nvidia]\nruntime_type = 'x'\n"
	for name, tt := range map[string]struct {
		main  string
		files map[string]string // below /etc/containerd
		want  string            // in the error, "" for none
	}{
		"a runtime of that name": {
			main:  "version = 3\nimports = ['/etc/containerd/conf.d/*.toml']\n",
			files: map[string]string{"conf.d/99.toml": strings.ReplaceAll(theirs, "grpc.v1.cri", "cri.v1.runtime")},
			want:  `imports /etc/containerd/conf.d/99.toml, which has a runtime "ccv2"`,
		},
		"behind two others, in a circle": {
			main: "version = 3\nimports = ['one.toml', '/etc/containerd/not-there.toml']\n",
			files: map[string]string{
				"one.toml": "version = 3\nimports = ['/etc/containerd/config.toml', '/etc/containerd/t*.toml']\n", "two.toml": "version = 2\n" + theirs,
			},
			want: `imports /etc/containerd/two.toml, which has a runtime "ccv2"`,
		},
		"all runtimes replaced": {
			main:  "version = 2\nimports = ['/etc/containerd/conf.d/*.toml']\n",
			files: map[string]string{"conf.d/98.toml": other, "conf.d/99.toml": other},
			want:  "imports from /etc/containerd/conf.d/99.toml replace those of all runtimes; name that file with -containerd-config",
		},
		"does not parse": {
			main:  "version = 3\nimports = ['/etc/containerd/conf.d/*.toml']\n",
			files: map[string]string{"conf.d/99.toml": "version 3"},
			want:  "/etc/containerd/conf.d/99.toml: toml: line 1",
		},
		"merged": {
			main:  "version = 3\nimports = ['/etc/containerd/conf.d/*.toml']\n",
			files: map[string]string{"conf.d/99.toml": other},
		},
		"of other things": {
			main:  "version = 2\nimports = ['/etc/containerd/conf.d/*.toml']\n",
			files: map[string]string{"conf.d/99.toml": "version = 2\n[metrics]\naddress = 'x'\n"},
		},
		"no pods": {
			main:  "version = 2\nimports = ['/etc/containerd/conf.d/*.toml']\n",
			files: map[string]string{"conf.d/98.toml": other, "conf.d/99.toml": "disabled_plugins = ['cri']\n"},
		},
	} {
		h := hostWith(t, tt.main)
		for name, text := range tt.files {
			write(t, h.at("/etc/containerd/"+name), text)
		}
		before := tree(t, h)
		bundle := bundleOf(t, "1.0")
		err := Install(h, bundle, false, io.Discard)
		if (err == nil) != (tt.want == "") || err != nil && (!strings.Contains(err.Error(), tt.want) || !strings.HasSuffix(err.Error(), "nothing was changed")) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			install(t, h, bundle) // what is ours is nobody else's
			uninstall(t, h)
		}
		if diff := cmp.Diff(before, tree(t, h)); diff != "" {
			t.Errorf("%s (-before +after):\n%s", name, diff)
		}
	}
}

// TestImportedFile: the file that replaces the settings gets the block.
func TestImportedFile(t *testing.T) {
	h := hostWith(t, "version = 2\nimports = ['/etc/containerd/conf.d/*.toml']\n")
	main := h.Containerd
	h.Containerd = "/etc/containerd/conf.d/99.toml"
	write(t, h.at(h.Containerd), "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.containerd]\ndefault_runtime_name = 'runc'\n")
	before := tree(t, h)
	install(t, h, bundleOf(t, "1.0"))
	if !strings.Contains(tree(t, h)[h.Containerd], "runtimes.ccv2]") {
		t.Errorf("no block in %s", h.Containerd)
	}
	// With other imports the block is at home in the main file: that in the other one is ours.
	h.Containerd = main
	write(t, h.at("/etc/containerd/conf.d/99.toml"), strings.Replace(tree(t, h)["/etc/containerd/conf.d/99.toml"], before["/etc/containerd/conf.d/99.toml"], "version = 2\n", 1))
	install(t, h, bundleOf(t, "1.0"))
	if all := tree(t, h); !strings.Contains(all[main], "runtimes.ccv2]") || strings.Contains(all["/etc/containerd/conf.d/99.toml"], "ccv2") {
		t.Errorf("%v", all)
	}
}
