// Package plan has no code: its test plans manifests, applies them to a real cluster
// and counts what is there. It is not beside guard/footprint, whose fuzzer would
// have to build all of Kubernetes' libraries with it.
package plan
