// Package validate refuses specifications of which a container in a VM would not
// have what they ask for, and those that no OCI runtime accepts but ours would
// leave out or take for something else: nothing is ignored in silence.
//
// Each rule is a row of a table, about one field; docs/oci.md has all fields, and a
// test holds the two to each other. It changes nothing, and looks at no file but the
// sources of mounts at /proc and /dev/null. How what
// is accepted gets into the guest's specification is pkg/shim/guestspec's affair;
// what needs the guest's kernel to be known is refused there, by the agent.
package validate
