package console

import "testing"

func TestPanicSite(t *testing.T) {
	var site string
	func() {
		defer func() {
			_ = recover()
			site = panicSite([]byte("goroutine 1 [running]:\nmain.console.Guard()\n\t/src/console.go:1 +0x1\npanic({0x1, 0x2})\n\t/go/runtime/panic.go:9 +0x2\nmain.f()\n\t/src/f.go:7 +0x3\n"))
		}()
		panic("x")
	}()
	if site != "/src/f.go:7" {
		t.Errorf("got %q", site)
	}
}
