package kmod

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

var table = Table{
	{Name: "libcrc32c", Path: "/lib/modules/libcrc32c.ko", Needs: []string{"crc32c_generic", "built_in"}},
	{Name: "crc32c_generic", Path: "/lib/modules/crc32c_generic.ko", Aliases: []string{"crypto-crc32c", "crc32c"}},
	{Name: "erofs", Path: "/lib/modules/erofs.ko", Needs: []string{"libcrc32c"}, Aliases: []string{"fs-erofs"}},
	{Name: "llc", Path: "/lib/modules/llc.ko", Needs: []string{"bridge"}}, // a circle must not hang it
	{Name: "bridge", Path: "/lib/modules/bridge.ko", Needs: []string{"llc"}, Aliases: []string{"rtnl-link-bridge"}},
	{Name: "dev", Path: "/lib/modules/dev.ko", Aliases: []string{"pci:v*d[0-4]sv*", "devname:net/tun", "broken[", "char-major-10-?"}},
	{Name: "one", Path: "/lib/modules/one.ko", Aliases: []string{"both"}},
	{Name: "two", Path: "/lib/modules/two.ko", Aliases: []string{"both"}},
}

func TestFind(t *testing.T) {
	for _, tt := range []struct {
		request string
		want    []string
	}{
		{"fs-erofs", []string{"/lib/modules/crc32c_generic.ko", "/lib/modules/libcrc32c.ko", "/lib/modules/erofs.ko"}},
		{"fs_erofs", []string{"/lib/modules/crc32c_generic.ko", "/lib/modules/libcrc32c.ko", "/lib/modules/erofs.ko"}},
		{"libcrc32c", []string{"/lib/modules/crc32c_generic.ko", "/lib/modules/libcrc32c.ko"}},
		{"crc32c-generic", []string{"/lib/modules/crc32c_generic.ko"}},
		{"rtnl-link-bridge", []string{"/lib/modules/llc.ko", "/lib/modules/bridge.ko"}},
		{"both", []string{"/lib/modules/one.ko", "/lib/modules/two.ko"}},
		{"pci:v1d3sv7", []string{"/lib/modules/dev.ko"}},
		{"pci:v1d-sv7", nil}, // the hyphen of a range is no hyphen
		{"char_major_10_2", []string{"/lib/modules/dev.ko"}},
		{"char-major-10-200", nil},
		{"devname:net/tun", []string{"/lib/modules/dev.ko"}},
		{"broken[", nil},
		{"fs-xfs", nil},
		{"*", nil}, // the request is no pattern
		{"", nil},
	} {
		if diff := cmp.Diff(tt.want, table.Find(tt.request)); diff != "" {
			t.Errorf("%q: %s", tt.request, diff)
		}
	}
}

func TestTextRoundTrip(t *testing.T) {
	text := append(table, Module{Name: "spaced", Path: "/s.ko", Aliases: []string{"dmi:bvn a b", "fine"}}).Append(nil)
	got, err := Parse(string(text))
	if err != nil {
		t.Fatal(err)
	}
	want := append(table, Module{Name: "spaced", Path: "/s.ko", Aliases: []string{"fine"}})
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got, err := Parse(""); err != nil || got != nil {
		t.Errorf("empty table: %v, %v", got, err)
	}
}

func TestParseErrors(t *testing.T) {
	for _, text := range []string{"module name\n", "alias a\n", "needs a\n", "module a /a.ko\nother x\n", "module a /a.ko\n\n"} {
		if got, err := Parse(text); err == nil {
			t.Errorf("%q: no error, got %v", text, got)
		}
	}
}
