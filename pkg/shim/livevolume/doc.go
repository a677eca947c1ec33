// Package livevolume tells the guest when a kubelet changes a volume of the pod, so that
// programs in the pod that wait for it with inotify are told.
//
// A ConfigMap, a Secret, a projected volume and the downward API are directories that the
// kubelet writes anew while containers use them: the new files into a new directory,
// then a link, "..data", that leads there instead of to the old one. Programs wait for the
// event of that link. The guest's kernel raises none for what the host does, whatever
// serves the files. So such a volume is exposed as one that the guest copies
// ([share.Bind.Live]), and for each change of the link here the guest is asked to bring its
// copy up to date, which does raise them.
//
// A [Watch] belongs to one sandbox. It has nothing of the host until the first such volume, then an
// inotify instance and two goroutines, one that reads the events and one that speaks to the guest.
// Root has a number of instances for all that runs on the host (128 by default), which the pods
// of a large node can exceed: a volume that cannot be watched is looked at once a second, by a third
// goroutine. All end with Close, which joins them. Its only lock guards the table, and is held
// neither while the guest is waited for nor while a volume is exposed. What does not fit the
// memory for copies is exposed as any other volume.
//
// It must not know what is in the files, nor how the guest copies them.
package livevolume
