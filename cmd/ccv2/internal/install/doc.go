// Package install puts a bundle on a host, puts a newer one in its place, and takes
// all of it away again.
//
// Every file that it makes or edits is in a record, which is written before the first
// of them: what was interrupted is begun again from there, and comes to the same end.
// A file that somebody has changed since is theirs: it is never overwritten and never
// removed. Versions stand side by side below the prefix, and a link says which one is
// current, so that the pods which run go on with theirs.
//
//	PREFIX/VERSION             the bundle's tree
//	PREFIX/current             link to the version
//	PREFIX/installed.json      the record
//	PREFIX/runtimeclass.yaml   for kubectl apply
//	/usr/local/bin/…           links to the shim, as containerd looks for it, and the tool
//	/etc/ccv2/config.toml      ours
//	containerd's configuration a drop-in, or a block at the end of its file
//
// It knows nothing of VMs. The command measures the overhead, and restarts containerd.
package install
