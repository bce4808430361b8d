//go:build !quick

package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"k8s.io/client-go/rest"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/cmd/bulkhead/cluster"
	"bulkhead.dev/bulkhead/guard/clean"
	"bulkhead.dev/bulkhead/plan"
)

// of is the cluster and the namespace that are meant.
func (f *guardFlags) of(a *app) (*rest.Config, string, error) {
	o := cluster.Options{Kubeconfig: f.kubeconfig, Context: a.places.kubeContext, UserAgent: "bulkhead/" + version}
	config, err := cluster.Config(o)
	if err != nil || f.namespace != "" {
		return config, f.namespace, err
	}
	namespace, err := cluster.Namespace(o)
	return config, namespace, err
}

// sayNamespace says which namespace is meant where none was named: that of the
// kubeconfig, as with kubectl, is not what everybody has in mind.
func (f *guardFlags) sayNamespace(a *app, namespace, finding string) {
	whose := "the kubeconfig"
	if finding != "" {
		whose = "the finding"
	}
	if f.namespace == "" && !f.all && namespace != "" {
		a.tell("in namespace %s, that of %s; -n names another", printable(namespace, 63), whose)
	}
}

// cleanView is what guard clean says in JSON. Its field names are a contract: add,
// never rename.
type cleanView struct {
	Leftovers []clean.Object `json:"leftovers"`
	Releases  int            `json:"releases"`
	Spared    []clean.Object `json:"spared"`
	Notes     []string       `json:"notes,omitempty"`
	Undo      string         `json:"undo,omitempty"`
	Done      *clean.Summary `json:"done,omitempty"`
}

// guardClean is `bulkhead guard clean`.
func (a *app) guardClean(ctx context.Context, f *guardCleanFlags) error {
	ctx, stop := a.interruptible(ctx)
	defer stop()
	o, err := a.cleanOptions(ctx, f)
	if err != nil {
		return a.guardEnd(ctx, err, "nothing was deleted")
	}
	f.sayNamespace(a, o.Namespace, f.finding)
	cleaner, err := clean.New(o)
	if err != nil {
		return err
	}
	begun := o.Now()
	looking := time.AfterFunc(tellLooking, func() { a.tell("looking at what is meant, and at all that may use it …") })
	found, err := cleaner.Find(ctx)
	looking.Stop()
	if err != nil {
		return a.guardEnd(ctx, err, "nothing was deleted")
	}
	view := cleanView{Leftovers: append([]clean.Object{}, found.Leftovers...), Releases: found.Releases, Spared: append([]clean.Object{}, found.Spared...), Notes: found.Notes}
	if f.out != "json" {
		if err := a.printFound(found, begun); err != nil {
			return err
		}
	}
	if !f.yes || len(found.Leftovers) == 0 {
		if f.out == "json" {
			return writeJSON(a.stdout, view)
		}
		if len(found.Leftovers) > 0 {
			a.tell("nothing was deleted; --yes does it, and keeps what it deletes in an undo file")
		}
		return nil
	}
	return a.cleanUp(ctx, f, cleaner, found, view)
}

// tellLooking is after which time it is said that there is something to wait for.
const tellLooking = time.Second

// guardEnd is the error of something that was to be done, or, if it was interrupted, what
// came of it.
func (a *app) guardEnd(ctx context.Context, err error, came string) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	a.tell("bulkhead: interrupted; %s", came)
	return exitError(exitInterrupted)
}

func (a *app) cleanOptions(ctx context.Context, f *guardCleanFlags) (o clean.Options, err error) {
	o = clean.Options{Family: f.family, Release: f.release, Kind: f.kind, Alike: f.alike, Finished: f.finished, Verdict: a.guardVerdict(ctx), Now: time.Now}
	if o.Grace, err = plan.ParseDuration(f.older); err != nil {
		return o, fmt.Errorf("--older: %w", err)
	}
	if o.Grace == 0 {
		o.Grace = time.Nanosecond // none; zero is the default
	}
	rate, err := bulkhead.ParseRate(f.rate)
	if err != nil {
		return o, fmt.Errorf("--rate: %w", err)
	}
	o.Rate = float64(time.Second) / float64(rate.Interval())
	if o.Config, o.Namespace, err = f.of(a); err != nil {
		return o, err
	}
	if f.all {
		o.Namespace = ""
	}
	if f.finding == "" {
		return o, nil
	}
	finding, err := a.findingByID(ctx, &f.guardFlags, f.finding)
	if err != nil {
		return o, err
	}
	o.Members = []bulkhead.Key{}
	for _, m := range finding.Members {
		o.Members = append(o.Members, m.Key)
	}
	if f.namespace == "" && !f.all { // a finding that is in many namespaces names none, or a pattern
		o.Namespace = finding.Namespace
		if strings.Contains(o.Namespace, "*") {
			o.Namespace = ""
		}
	}
	return o, nil
}

// cleanUp deletes what was found.
func (a *app) cleanUp(ctx context.Context, f *guardCleanFlags, cleaner *clean.Cleaner, found *clean.Found, view cleanView) error {
	now := time.Now()
	path := f.undo
	if path == "" {
		path = "bulkhead-undo-" + now.UTC().Format("20060102T150405Z") + ".json"
	}
	undo, err := clean.CreateUndo(path, now)
	if err != nil {
		return err
	}
	defer undo.Close() //nolint:errcheck // what is in it is synced
	if absolute, err := filepath.Abs(path); err == nil {
		path = absolute
	}
	a.tell("what is deleted is written to %s first, readable by you only, Secrets in the clear", path)
	var told time.Time
	sum, err := cleaner.Remove(ctx, found, undo, func(p clean.Progress) {
		if time.Since(told) < 5*time.Second && p.Deleted < p.Of {
			return
		}
		told = time.Now()
		slow := ""
		if p.Slow != "" {
			slow = "; slower than --rate: " + p.Slow
		}
		a.tell("%d of %d deleted%s", p.Deleted, p.Of, slow)
	})
	view.Undo, view.Done = path, &sum
	var printed error
	if f.out == "json" {
		printed = writeJSON(a.stdout, view)
	} else {
		printed = a.printSummary(&sum, path)
	}
	return cmp.Or(a.cleanEnd(ctx, f.undo, &sum, err), printed)
}

// cleanEnd is the exit code of a clean-up that has begun.
func (a *app) cleanEnd(ctx context.Context, undo string, sum *clean.Summary, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx))):
		a.tell("bulkhead: interrupted; %s", theRest(undo))
		return exitError(exitInterrupted)
	case sum.Total() == 0 && len(sum.PutBack) == 0:
		return err
	}
	_ = a.report(err) // it has a code of its own
	a.tell("%s", theRest(undo))
	return exitError(exitFailed)
}

// theRest says how to go on. undo is the undo file that was named; what it has stays in it.
func theRest(undo string) string {
	if undo == "" {
		return "the same command goes on with the rest"
	}
	return "the same command with another --undo goes on with the rest: this one keeps what was deleted"
}

// Of a list so many are shown, of each kind; -o json has all.
const (
	shownLeftovers = 20
	shownSpared    = 20
)

func (a *app) printFound(f *clean.Found, now time.Time) error {
	var out bytes.Buffer
	for _, note := range f.Notes {
		a.tell("note: %s", note)
	}
	if len(f.Leftovers) == 0 {
		if len(f.Spared) > 0 {
			fmt.Fprintln(&out, "Nothing is left over.")
		} else {
			fmt.Fprintln(&out, "Nothing that was meant is there.")
			a.tell("`bulkhead why` names families, -n says in which namespace to look")
		}
	} else {
		printObjects(&out, f.Leftovers, now, "WHY", shownLeftovers)
		fmt.Fprintf(&out, "\nLeft over: %s.\n", leftOver(f))
	}
	if len(f.Spared) > 0 {
		fmt.Fprintf(&out, "\n%d stay:\n", len(f.Spared))
		printObjects(&out, f.Spared, now, "WHY IT STAYS", shownSpared)
	}
	_, err := out.WriteTo(a.stdout)
	return err
}

// printObjects prints the first of each kind.
func printObjects(w *bytes.Buffer, list []clean.Object, now time.Time, why string, most int) {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintf(tw, "KIND\tNAMESPACE\tNAME\tAGE\t%s\n", why)
	shown, more := map[string]int{}, 0
	for _, o := range list {
		if shown[o.Kind]++; shown[o.Kind] > most {
			more++
			continue
		}
		reason := o.Why
		if o.Release != "" {
			reason = "release " + o.Release + ": " + reason
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\n", printable(o.Kind, 40), printable(o.Namespace, 40), printable(o.Name, 63), age(now.Sub(o.Created)), printable(reason, 120))
	}
	_ = tw.Flush() // to memory
	if more > 0 {
		fmt.Fprintf(w, "… and %d more; -o json has all\n", more)
	}
}

func leftOver(f *clean.Found) string {
	by := map[string]int{}
	for _, o := range f.Leftovers {
		by[o.Kind]++
	}
	text := fmt.Sprintf("%d objects", len(f.Leftovers))
	if f.Releases > 0 {
		text += fmt.Sprintf(" of %d Helm releases", f.Releases)
	}
	return text + ": " + byKind(by)
}

func byKind(n map[string]int) string {
	var parts []string
	for _, kind := range slices.Sorted(maps.Keys(n)) {
		parts = append(parts, fmt.Sprintf("%d %s", n[kind], kind))
	}
	return strings.Join(parts, ", ")
}

func (a *app) printSummary(s *clean.Summary, undo string) error {
	var out bytes.Buffer
	if s.Total() == 0 {
		fmt.Fprintln(&out, "\nNothing was deleted.")
	} else {
		fmt.Fprintf(&out, "\nDeleted %d objects: %s.\n", s.Total(), byKind(s.Deleted))
	}
	if s.Gone > 0 {
		fmt.Fprintf(&out, "%d were gone already.\n", s.Gone)
	}
	if s.Left > 0 {
		fmt.Fprintf(&out, "%d are left.\n", s.Left)
	}
	for _, list := range []struct {
		what    string
		objects []clean.Object
	}{{"stay, because something has changed meanwhile", s.Spared}, {"were put back", s.PutBack}} {
		if len(list.objects) > 0 {
			fmt.Fprintf(&out, "%d %s:\n", len(list.objects), list.what)
			printObjects(&out, list.objects, time.Now(), "WHY", shownSpared)
		}
	}
	if s.Total() > 0 {
		fmt.Fprintf(&out, "To put back what was deleted: bulkhead guard clean --restore %s\n", shellLine([]string{undo}))
	}
	_, err := out.WriteTo(a.stdout)
	return err
}

// guardRestore is `bulkhead guard clean --restore`.
func (a *app) guardRestore(ctx context.Context, f *guardCleanFlags) error {
	ctx, stop := a.interruptible(ctx)
	defer stop()
	rate, err := bulkhead.ParseRate(f.rate)
	if err != nil {
		return fmt.Errorf("--rate: %w", err)
	}
	config, _, err := f.of(a)
	if err != nil {
		return err
	}
	file, err := os.Open(f.restore)
	if err != nil {
		return usage("", "--restore: %v", err)
	}
	defer file.Close()
	done, err := clean.Restore(ctx, config, file, float64(time.Second)/float64(rate.Interval()))
	if err != nil && done.Created+done.There == 0 {
		return a.guardEnd(ctx, err, "nothing was put back")
	}
	printed := a.printRestored(f, &done)
	if err != nil {
		return a.guardEnd(ctx, err, "the same command goes on with the rest")
	}
	if done.CutOff {
		a.tell("bulkhead: %s is cut off: its end is missing\n"+
			"  after a crash of the clean-up that is as it should be: what is not in it was not deleted\n"+
			"  of a copy it is not: what is missing was deleted and is not put back; restore from the whole file", printable(f.restore, 0))
		return cmp.Or(printed, error(exitError(exitFailed)))
	}
	return printed
}

func (a *app) printRestored(f *guardCleanFlags, done *clean.Restored) (err error) {
	if f.out == "json" {
		err = writeJSON(a.stdout, done)
	} else {
		_, err = fmt.Fprintf(a.stdout, "Put back %d objects; %d were there.\n", done.Created, done.There)
	}
	if done.Suspended > 0 {
		a.tell("%d of them are Jobs: they are suspended, so that no script runs again", done.Suspended)
	}
	return err
}
