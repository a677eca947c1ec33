// Package kind installs a bundle on the nodes of a kind cluster, which are containers of
// Docker Engine, through the engine's API: it copies the bundle's tree into each node and
// runs the tool in it there. What that changes in a node is package install's; this one
// finds the nodes, checks them before the first is changed, and tells the cluster: the
// label of the nodes and the RuntimeClass, with the kubectl of a node of the control
// plane. A node needs no network.
package kind
