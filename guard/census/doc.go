// Package census counts the objects of a cluster by kind, namespace and family, and
// keeps counting.
//
// It asks the API server for metadata only, and for each kind only once: a watch whose
// beginning is the list of what is there (a streaming list, Kubernetes' WatchList), one
// kind at a time. An object is read, counted and forgotten. Sixteen bytes of it stay: a
// hash of its uid, its family, when it was born. They are enough to know, after a change,
// a deletion or another list, what it counted as. That is why no informer is used here,
// and no reflector: both keep the objects, the latter at least until a list is complete.
//
//	API server ── watch ──► stream (one for each kind) ──► counts ──► families
//	           ── /metrics ─► the API server's own counts and bytes
//
// Of network policies all is read and the rules counted, since rules are what agents pay
// for. Events are never watched: their number is asked for.
//
// What cannot be counted is said, kind by kind, and tried again: a right that is missing,
// a server that does not answer. After a pause a watch goes on where it was; what is too
// old for that is listed anew, and what the list does not have is counted as deleted.
package census
