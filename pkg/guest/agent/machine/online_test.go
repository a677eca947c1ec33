package machine

import "testing"

func TestScaled(t *testing.T) {
	for _, tt := range []struct {
		text  string
		first int
		most  uint64
		want  string
	}{
		{"1620\t2160\t3240\n", 0, 0, "4860 6480 9720"},
		{"4096\t131072\t1106400\n", 2, 6 << 20, "4096 131072 3319200"},
		{"4096\t16384\t3644448\n", 2, 4 << 20, "4096 16384 4194304"},
		{"548\n", 0, 0, "1644"},
		{"2147483647\n", 0, 0, "2147483647"}, // no limit
	} {
		if got := scaled(tt.text, tt.first, tt.most, 150<<20, 450<<20); got != tt.want {
			t.Errorf("%q becomes %q, want %q", tt.text, got, tt.want)
		}
	}
}
