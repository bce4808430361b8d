// Package cluster runs the whole of Bulkhead on the lab: a server as its users
// start it, on this machine; its controller, on a real API server; its agents, in
// real pods. Then it breaks one of them after the other, and looks that no item
// runs twice, that none disappears, that results and output arrive, and that the
// cluster ends as it began.
package cluster
