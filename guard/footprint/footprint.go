// Package footprint says what manifests leave behind in a cluster, before they are
// applied the first time.
//
// The load of an invocation is not what it starts but what it leaves: objects ×
// how long they are kept × how many agents must hold them. Each part is easy to read
// off a chart, and hard to see in it. So Read counts what one invocation makes, and
// what controllers make of it (a Job its pods, a Service its endpoint slices, Helm its
// record of the release), with what will remove each; Footprint.Plan repeats that at a
// rate, for a time, and says how many there are at the peak, and when which budget is
// crossed:
//
//	manifests ── Read ──► Footprint ── Plan (rate, times, keep; budgets; what is there) ──► Plan
//
// Everything but Read is pure. Nothing here talks to a cluster, and no library of
// Kubernetes is needed: objects are maps, of which a few fields are looked at.
package footprint

import (
	"cmp"
	"slices"
	"time"
)

// Footprint is what one invocation leaves behind. Every invocation is taken to
// have names of its own, as Helm releases and generated names have.
type Footprint struct {
	Documents int64 // that had an object in them
	Objects   int64 // in those documents
	Helm      bool  // Helm rendered them
	Parts     []Part
	// Notes are what could not be counted, for people.
	Notes []string
}

// Add makes a footprint that of both.
func (f *Footprint) Add(other *Footprint) {
	f.Documents, f.Objects, f.Helm = f.Documents+other.Documents, f.Objects+other.Objects, f.Helm || other.Helm
	t := tally{parts: map[key]*Part{}, notes: f.Notes}
	for _, p := range slices.Concat(f.Parts, other.Parts) {
		t.add(p)
	}
	for _, note := range other.Notes {
		t.note(note)
	}
	f.Parts, f.Notes = t.sorted(), t.notes
}

// Part is objects of one kind and namespace that come and go together.
type Part struct {
	Kind      string // as the census names it: configmaps, jobs.batch
	Namespace string // "": the kind has none
	By        string // who makes them: one of the By constants
	Life      Life
	Objects   int64
	Rules     int64 // of network policies: peers × ports
	Bytes     int64 // of their JSON, about
}

// Who makes an object.
const (
	ByManifest   = "manifest"
	ByController = "controller" // of Kubernetes, because of the manifest
	ByHelm       = "helm"       // its record of the release
)

// Life is what removes an object.
type Life struct {
	Ends End
	// After is the time to live behind the end of the script, or of an event.
	After time.Duration
}

// End is what ends an object's life.
type End string

// What ends an object's life.
const (
	Uninstall End = "uninstall" // helm uninstall, kubectl delete: whoever made it
	Nothing   End = "nothing"   // not even helm uninstall
	TTL       End = "ttl"       // ttlSecondsAfterFinished, counted from the end of the script
	Done      End = "done"      // the end of the script
	Age       End = "age"       // its own age: events
)

// for how long an object is there; ok is false if it is for good. Lasts is how long a
// script runs, and keep how long its maker waits before he removes it all, 0: for good.
func (l Life) span(lasts, keep time.Duration) (d time.Duration, ok bool) {
	switch l.Ends {
	case Nothing:
		return 0, false
	case Age:
		return l.After, true
	case TTL, Done:
		d = lasts + l.After
		if keep > 0 {
			d = min(d, keep)
		}
		return d, true
	}
	return keep, keep > 0
}

// key of parts that are one.
type key struct {
	kind, namespace, by string
	life                Life
}

// tally adds parts up while manifests are read.
type tally struct {
	parts map[key]*Part
	notes []string
}

// maxParts bounds what a stream of ever new kinds and namespaces can make us keep.
const maxParts = 10_000

// add counts objects.
func (t *tally) add(p Part) {
	if p.Objects <= 0 {
		return
	}
	k := key{p.Kind, p.Namespace, p.By, p.Life}
	have := t.parts[k]
	if have == nil {
		t.parts[k] = &p
		return
	}
	have.Objects = plus(have.Objects, p.Objects)
	have.Rules = plus(have.Rules, p.Rules)
	have.Bytes = plus(have.Bytes, p.Bytes)
}

func (t *tally) note(text string) {
	if !slices.Contains(t.notes, text) {
		t.notes = append(t.notes, text)
	}
}

func (t *tally) sorted() []Part {
	parts := make([]Part, 0, len(t.parts))
	for _, p := range t.parts {
		parts = append(parts, *p)
	}
	slices.SortFunc(parts, func(a, b Part) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.By, b.By),
			cmp.Compare(a.Life.Ends, b.Life.Ends), cmp.Compare(a.Life.After, b.Life.After))
	})
	return parts
}
