package layout

// ShellArg is what the kernel's command line calls the program that answers on the console, and Shell the one that
// is looked for there.
const (
	ShellArg = "ccv2.shell"
	Shell    = "/bin/sh"
)
