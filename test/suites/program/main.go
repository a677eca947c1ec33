// Command program is all programs that images of critest have beside busybox,
// each by its name: what the original does in so far as a test can tell.
package main

import (
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

func main() {
	name := filepath.Base(os.Args[0])
	var err error
	switch name {
	case "pause":
		pause()
	case "nonewprivs":
		fmt.Printf("Effective uid: %d\n", os.Geteuid())
	default:
		err = serve(name)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// pause ends when it is signalled.
func pause() {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	<-end
}

// serve has one page on the port of the environment. Tests look for the name in
// the log, and for the pid in a file.
func serve(name string) error {
	fmt.Println(name, "serves")
	if err := os.WriteFile("/var/run/"+name+".pid", fmt.Append(nil, os.Getpid(), "\n"), 0o644); err != nil {
		return err
	}
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "Welcome to", name) })
	return http.ListenAndServe(":"+os.Getenv("PORT"), nil)
}
