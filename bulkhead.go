// Package bulkhead holds the words that every other package speaks: run, item,
// attempt, lease, pool, verdict. It imports the standard library only and does
// nothing by itself.
//
// A run is one submission: a command template and its input. Its items are
// data, an index and a few values each, kept in compressed chunks; an item
// becomes visible to the machine only while a worker holds a lease for it. A
// lease is durable before the script starts, and its result is durable before
// the worker gets another one. Everything Bulkhead promises about crashes
// follows from that order:
//
//	plan → Spec, Items → store → engine → Lease → worker → Result → engine → store
//
// The idea comes out of an outage in which a tool made eleven Kubernetes
// objects for every script call (Wikimedia, 2024-10-09, "calico-codfw"): an
// invocation is a row, not an object.
package bulkhead
