package child

import "strings"

// tail keeps the last bytes that were written to it. os/exec writes from one
// goroutine and joins it in Wait, so it needs no lock.
type tail struct {
	limit int
	data  []byte
	cut   bool
}

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.data = append(t.data, p...)
	if over := len(t.data) - t.limit; over > 0 {
		t.data = append(t.data[:0], t.data[over:]...)
		t.cut = true
	}
	return len(p), nil
}

// String returns whole lines, without the first one if that was cut.
func (t *tail) String() string {
	s := string(t.data)
	if t.cut {
		if _, rest, ok := strings.Cut(s, "\n"); ok {
			s = rest
		}
	}
	return strings.TrimSpace(s)
}
