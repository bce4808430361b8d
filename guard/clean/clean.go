// Package clean removes what a growth has left behind, and nothing else.
//
// What is left over is said by three rules, each for one family of objects or of
// Helm releases that somebody has named; there is no rule for everything that is
// unused:
//
//   - a Helm release whose Jobs have finished, or are gone, with its objects and
//     Helm's records of it,
//   - a NetworkPolicy that selects nothing,
//   - a ConfigMap or a Secret that nothing mentions.
//
// A wrong answer costs more than a missing one, so everything that is in doubt
// stays, with the reason: a release with anything in it but Jobs and what Jobs
// need, an object that has an owner or a finalizer, or that anything in its
// namespace names in any field (scan.go).
//
//	Find    list candidates → look at all that may hold one → what is left over
//	Remove  for each few of them: read them → write them to the undo file, synced
//	        → look again → delete them, if they are what was written → look again,
//	        and put back what somebody has begun to use in between
//	Restore read the undo file → create what is not there
//
// Between a look and a delete somebody may always begin to use an object, and the
// API server cannot be told to refuse that. It is therefore looked at once more
// afterwards, and what is needed after all is put back within seconds.
//
// Requests are paced, lists are paged, and memory grows with the candidates and, by
// a few bytes each, with the objects of one namespace.
package clean

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"bulkhead.dev/bulkhead"
)

// KeepAnnotation on an object keeps it, whatever its value.
const KeepAnnotation = "bulkhead.dev/keep"

// RestoredAnnotation is on a Job that was put back from an undo file.
const RestoredAnnotation = "bulkhead.dev/restored"

// Options of a Cleaner. Config, and one of Family, Release and Members, are required.
type Options struct {
	// Config reaches the API server. Its rate limit and its WrapTransport are kept.
	Config *rest.Config
	// Namespace is where to look; "" is everywhere.
	Namespace string
	// Family is a family of NetworkPolicies, ConfigMaps and Secrets, as a census
	// names it (mediawiki-*-mail-config), or the name of one object.
	Family string
	// Release is a family of Helm releases, or the name of one.
	Release string
	// Members are the families of a finding. Those that come from Helm releases stand
	// for the releases.
	Members []bulkhead.Key
	// Kind, of Family, is one of Kinds; default: all of them.
	Kind string
	// Alike: what fits a pattern by its name is meant, too, where it is a family of its
	// own, as a random name that has no digit may be.
	Alike bool
	// Grace is how long something has to be left over. Default: an hour.
	Grace time.Duration
	// Finished: what only finished Jobs and pods mention or are, is left over, too.
	Finished bool
	// Rate is how many objects are deleted in a second. Default: 5.
	Rate float64
	// Verdict may stop or slow the work; it is asked before each few deletes.
	// Default: it goes on.
	Verdict func() bulkhead.Verdict
	// Now is the clock. Default: time.Now.
	Now func() time.Time
	// At is told of each step before it is taken, with the object that it is about,
	// so that a test can meddle. Default: nobody.
	At func(step Step, o Object)
}

// Step is what Options.At is told of.
type Step string

// The steps.
const (
	StepScan   Step = "scan"   // what may hold candidates is listed
	StepRead   Step = "read"   // an object is read for the undo file
	StepWrite  Step = "write"  // a batch is written to the undo file
	StepLook   Step = "look"   // a batch is looked at for the last time
	StepDelete Step = "delete" // an object is deleted
)

const (
	defaultGrace = time.Hour
	defaultRate  = 5.0
)

// Kinds are the kinds of which single objects may be removed, as Options.Kind and a
// census name them.
func Kinds() []string { return []string{policies.kind(), configMaps.kind(), secrets.kind()} }

// Object is one that is left over, or that stays.
type Object struct {
	Kind      string    `json:"kind"` // as a census names it
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	Release   string    `json:"release,omitempty"` // of Helm, that it belongs to
	UID       string    `json:"uid,omitempty"`
	Created   time.Time `json:"created,omitzero"`
	// Why it is left over, or stays.
	Why string `json:"why"`
}

func (o Object) String() string { return fmt.Sprintf("%s %s/%s", o.Kind, o.Namespace, o.Name) }

// Cleaner looks for leftovers and removes them. It is for one goroutine.
type Cleaner struct {
	opts    Options
	meta    metadata.Interface
	dynamic dynamic.Interface
	client  kubernetes.Interface
	holders []holderKind
	notes   []string
	choice  choice
	wait    func(context.Context, time.Duration) error
}

// New checks the options.
func New(o Options) (*Cleaner, error) {
	o.Grace = cmp.Or(o.Grace, defaultGrace)
	o.Rate = cmp.Or(o.Rate, defaultRate)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.At == nil {
		o.At = func(Step, Object) {}
	}
	if o.Verdict == nil {
		o.Verdict = func() bulkhead.Verdict { return bulkhead.Verdict{} }
	}
	chosen, err := choose(&o)
	if err != nil {
		return nil, err
	}
	config := patient(o.Config)
	c := &Cleaner{opts: o, choice: chosen, wait: pause}
	if c.meta, err = metadata.NewForConfig(config); err != nil {
		return nil, err
	}
	if c.dynamic, err = dynamic.NewForConfig(config); err != nil {
		return nil, err
	}
	if c.client, err = kubernetes.NewForConfig(config); err != nil {
		return nil, err
	}
	return c, nil
}

// check refuses options that make no sense.
func (o *Options) check() error {
	refuse := func(hint, format string, args ...any) error {
		return &bulkhead.Error{Code: bulkhead.CodeUsage, Message: fmt.Sprintf(format, args...), Hint: hint}
	}
	given := 0
	for _, is := range []bool{o.Family != "", o.Release != "", o.Members != nil} {
		if is {
			given++
		}
	}
	switch {
	case given == 0:
		return refuse("`bulkhead why` names the families that grow", "a family or a release has to be named: nothing removes all that is unused")
	case given > 1:
		return refuse("give one of them", "a family, a release and a finding exclude each other")
	case o.Kind != "" && o.Family == "":
		return refuse("a release is removed as a whole", "a kind goes with a family only")
	case o.Kind != "" && !slices.Contains(Kinds(), o.Kind):
		return refuse(nearest(o.Kind, Kinds()), "kind %s is not one of which single objects are removed", bulkhead.Quote(o.Kind))
	case o.Grace < 0:
		return refuse("for example 1h", "a grace of %s is none", o.Grace)
	case o.Rate < 0 || o.Rate > maxRate:
		return refuse(fmt.Sprintf("at most %d/s", maxRate), "a rate of %g objects a second is out of range", o.Rate)
	}
	return nil
}

// maxRate is how many deletes a second there may be. Each one is an event for every
// agent that watches; Kubernetes' own garbage collector has 20 workers.
const maxRate = 100

// discover learns which kinds this cluster has; it is done once.
func (c *Cleaner) discover(ctx context.Context) error {
	if c.holders != nil {
		return nil
	}
	return c.try(ctx, "ask for the cluster's kinds", func() error {
		kinds, notes, err := holderKinds(ctx, c.client.Discovery())
		if err == nil {
			c.holders, c.notes = kinds, append(c.notes, notes...)
		}
		return err
	})
}

// jittered is d, give or take a fifth.
func jittered(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}

// pause waits.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func nearest(word string, known []string) string {
	list := "known are " + strings.Join(known, ", ")
	if near := bulkhead.Nearest(word, known); near != "" {
		return fmt.Sprintf("did you mean %s? %s", near, list)
	}
	return list
}
