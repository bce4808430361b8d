package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard"
	"bulkhead.dev/bulkhead/store/history"
)

// whyFlags is the command line of why.
type whyFlags struct {
	kind      string // as the census has it; "": all
	finding   string // its id; "": all
	namespace string // "": all
	all       bool
	now       bool
	out       outputFlag

	budgetsFile string
	budgets     []string
	audit       string
}

func (a *app) whyCmd() *cobra.Command {
	var f whyFlags
	cmd := &cobra.Command{
		Use:        "why [KIND|FINDING] [flags]",
		SuggestFor: []string{"findings", "who", "census"},
		Short:      "Say what multiplies in a cluster, who makes it, when it will hurt, and what to do",
		Long: `Say what multiplies in a cluster, since when, who makes it, when it will hurt, and
what to do now: the worst growth on one page, the others in a line each. With KIND,
as kubectl names it, only what has to do with that, and the largest families of it;
with the id of a finding only that one.

It asks the guard of the server that commands go to; else the guard that writes the
state folder; and if there is none it looks at the cluster of the kubeconfig itself,
once: metadata only, page by page. What the objects' times of creation tell is enough
to see what has grown and still stands, if it began half an hour ago or earlier. --now
does that at once, and heeds --budgets and --budget, as bulkhead guard takes them;
so does --audit-log, which says what users the API server has seen making the objects,
from the end of its audit log (bulkhead guard --help says more).

A family is the objects of one kind and namespace whose names differ only in what
varies, which is written *: thousands of randomly named objects are one line.

-o json is an object: from, looked and began (RFC 3339: a guard's last look, and
since when it looks without a gap), findings (id, severity, title, namespace,
since, members, perHour, client, users, facts, reaches, keeps, advice, ended),
kinds (kind, objects, bytes, exact, reason) and, with KIND, families.

Exit codes: 0 it could be said, that something grows as well as that nothing does; 2 the
cluster has no such kind, namespace or finding; 3 interrupted; 125 nobody could look.`,
		Example: `  bulkhead why
  bulkhead why networkpolicies -n mw-script
  bulkhead why --now --kube-context prod
  bulkhead why --all --server https://bulkhead.example.org:8443 --ca ca.crt --token-file token
  sudo bulkhead why --kube-context prod --audit-log /var/log/kubernetes/audit.log
  bulkhead why -o json | jq '.findings[] | {title, since, client, users}'`,
		Args:              atMost("KIND|FINDING"),
		ValidArgsFunction: completeKinds,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				if err := f.about(args[0]); err != nil {
					return err
				}
			}
			return a.why(cmd.Context(), &f)
		},
	}
	fl := cmd.Flags()
	outputVar(cmd, &f.out, "text or json")
	fl.BoolVar(&f.all, "all", false, "all findings as pages, also those that ended lately")
	fl.BoolVar(&f.now, "now", false, "look at the cluster now, whatever a guard says")
	fl.StringVarP(&f.namespace, "namespace", "n", "", "only this `namespace`")
	fl.StringVar(&f.budgetsFile, "budgets", "", "with a look at the cluster: YAML `file` with budgets that come before the defaults")
	fl.StringArrayVar(&f.budgets, "budget", nil, "with a look at the cluster: `KIND=LIMIT`, for example networkpolicies=1000; repeat")
	fl.StringVar(&f.audit, "audit-log", "", "with a look at the cluster: `file` that the API server writes its audit log to")
	completeNoFiles(cmd, "namespace", "budget")
	_ = cmd.MarkFlagFilename("budgets", "yaml", "yml", "json")
	return cmd
}

// answer is what somebody says who looked.
type answer struct {
	from     string // who, for people
	looked   time.Time
	findings []bulkhead.Finding
	census   bulkhead.Census // what there is; of a state folder without examples and makers
	late     bool            // nobody looks any more
	once     bool            // nobody has looked before
	began    time.Time       // since when he looks without a gap; zero: it is not known
}

// believes is how long a guard looks before it believes in a growth.
const believes = 30 * time.Minute

// early reports whether that nothing was found says nothing: he looks for too short a time.
func (n *answer) early() bool {
	return !n.began.IsZero() && n.looked.Sub(n.began) < believes && !n.open()
}

// tooEarly says so.
func (n *answer) tooEarly() string {
	return fmt.Sprintf("%s is %s old, and believes in no growth yet", printable(n.from, 0), guard.Duration(n.looked.Sub(n.began)))
}

// lateFor is how long what a guard has found is told before it is looked anew, when
// that guard has ended.
const lateFor = time.Hour

// open reports whether something had not ended yet.
func (n *answer) open() bool {
	return slices.ContainsFunc(n.findings, func(f bulkhead.Finding) bool { return f.Ended.IsZero() })
}

// errNoGuard is what a place says that has no guard.
var errNoGuard = errors.New("there is no guard")

func (a *app) why(ctx context.Context, f *whyFlags) error {
	ctx, stop := a.interruptible(ctx)
	defer stop()
	answer, err := a.askWhy(ctx, f)
	if left(ctx, err) {
		return exitError(exitInterrupted)
	}
	if err != nil {
		return err
	}
	if err := answer.knows(f); err != nil {
		return err
	}
	answer.only(f)
	if err := answer.named(f); err != nil {
		return err
	}
	if f.out == "json" {
		return writeJSON(a.stdout, answer.view(f))
	}
	return a.printWhy(answer, f)
}

// askWhy asks those who may know, one after the other.
func (a *app) askWhy(ctx context.Context, f *whyFlags) (answer, error) {
	p, err := a.whyPlace()
	if err != nil {
		return answer{}, err
	}
	if f.now || f.budgetsFile != "" || len(f.budgets) > 0 || f.audit != "" {
		return a.whyLook(ctx, &p.server, f)
	}
	if p.remote() {
		said, err := a.whyFromServer(ctx, p, f)
		if err == nil || !p.server.Kubernetes || ctx.Err() != nil {
			return said, err
		}
		a.tell("bulkhead: %v; looking at the cluster itself", err)
		return a.whyLook(ctx, &p.server, f)
	}
	kept, err := a.whyFromFolder(ctx)
	young := err == nil && !kept.late && kept.early()
	if young { // its history has no times of creation
		a.tell("bulkhead: %s; looking at the cluster itself", kept.tooEarly())
	} else if err == nil && (!kept.late || kept.open() && time.Since(kept.looked) < lateFor) {
		if kept.late {
			a.tell("bulkhead: %s has ended; this is what it saw last, --now looks at the cluster", printable(kept.from, 0))
		}
		return kept, nil
	}
	if err != nil && !errors.Is(err, errNoGuard) {
		a.tell("bulkhead: %v; looking at the cluster itself", err)
	}
	said, lookErr := a.whyLook(ctx, &p.server, f)
	if lookErr != nil && (kept.late || young) && ctx.Err() == nil {
		a.tell("bulkhead: %v; this is what was known when a guard looked last", lookErr)
		return kept, nil
	}
	return said, lookErr
}

// whyPlace is where to ask. A kubeconfig alone says which cluster to look at.
func (a *app) whyPlace() (place, error) {
	if p := &a.places; p.kubeconfig != "" && !p.given("kube-context") {
		return place{server: serverAddress{kubeAddress: kubeAddress{true, p.kubeconfig, "", p.serverNamespace}}, why: "--kubeconfig"}, nil
	}
	return a.place()
}

// whyFromServer asks the guard of a server.
func (a *app) whyFromServer(ctx context.Context, p place, f *whyFlags) (answer, error) {
	s, err := a.openServer(ctx, p, triesToAsk)
	if err != nil {
		return answer{}, err
	}
	defer s.close()
	n := answer{from: "the guard " + s.where()}
	if n.findings, n.looked, n.began, err = s.Findings(ctx, f.namespace); err != nil {
		return answer{}, err
	}
	if n.looked.IsZero() {
		return answer{}, &bulkhead.Error{Code: bulkhead.CodeUnavailable, Message: "the guard " + s.where() + " has not looked yet", Err: errNoGuard,
			Hint: "ask again in a minute; --now looks at the cluster of the kubeconfig"}
	}
	n.census, _, err = s.Census(ctx, f.namespace, 0)
	if f.namespace == "" && bulkhead.CodeOf(err) == bulkhead.CodeDenied {
		return n, nil // the findings of his own namespaces are for everybody; how much there is of all is not
	}
	return n, err
}

// whyFromFolder reads what a guard writes into the state folder.
func (a *app) whyFromFolder(ctx context.Context) (answer, error) {
	dir, err := a.stateDir()
	if err != nil {
		return answer{}, err
	}
	path := filepath.Join(dir, history.Name)
	h, err := history.Read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return answer{}, errNoGuard
	}
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = h.Close() }()
	said := answer{from: "the guard of " + dir, late: !h.Written()}
	spans, err := h.Spans(ctx, time.Unix(0, 0), time.Now().Add(24*time.Hour))
	if err != nil || len(spans) == 0 {
		return answer{}, cmp.Or(err, errNoGuard)
	}
	said.began, said.looked = spans[len(spans)-1].From, spans[len(spans)-1].To
	if said.findings, err = h.Findings(ctx, true); err != nil {
		return answer{}, err
	}
	series, err := h.Series(ctx, said.looked, said.looked)
	if err != nil {
		return answer{}, err
	}
	said.census = lastCounts(series, said.looked)
	return said, nil
}

// lastCounts is a census of how series ended.
func lastCounts(series []bulkhead.Series, at time.Time) bulkhead.Census {
	c := bulkhead.Census{At: at}
	for _, s := range series {
		last := s.Points[len(s.Points)-1]
		switch {
		case last.Objects == 0:
		case s.Namespace == guard.All && s.Family == guard.All:
			c.Kinds = append(c.Kinds, bulkhead.KindStatus{Kind: s.Kind, Objects: last.Objects, Exact: true})
		case s.Namespace != guard.All && s.Family != guard.All:
			c.Tallies = append(c.Tallies, bulkhead.Tally{Key: s.Key, Objects: last.Objects, Rules: last.Rules, Bytes: last.Bytes})
		}
	}
	return c
}

// blind reports whether nothing at all was counted of what was asked for.
func (n *answer) blind() bool {
	if len(n.census.Kinds) == 0 {
		return n.once
	}
	return !slices.ContainsFunc(n.census.Kinds, func(k bulkhead.KindStatus) bool { return !k.Lacks() || k.Objects > 0 })
}

// only leaves what was asked for.
func (n *answer) only(f *whyFlags) {
	const lately = 24 * time.Hour
	n.findings = slices.DeleteFunc(n.findings, func(of bulkhead.Finding) bool {
		about := (f.kind == "" || of.About(f.kind)) && (f.finding == "" || of.ID == f.finding)
		over := !of.Ended.IsZero() && (!f.all && f.finding == "" || n.looked.Sub(of.Ended) > lately)
		return over || !about || f.namespace != "" && of.Namespace != f.namespace
	})
	slices.SortStableFunc(n.findings, func(a, b bulkhead.Finding) int {
		return cmp.Or(cmp.Compare(bit(!a.Ended.IsZero()), bit(!b.Ended.IsZero())), guard.Worse(a, b))
	})
	n.census.Tallies = slices.DeleteFunc(n.census.Tallies, func(t bulkhead.Tally) bool {
		return t.Objects == 0 || f.kind != "" && t.Kind != f.kind || f.namespace != "" && t.Namespace != f.namespace
	})
	slices.SortStableFunc(n.census.Tallies, func(a, b bulkhead.Tally) int { return cmp.Compare(b.Objects, a.Objects) })
	n.census.Kinds = slices.DeleteFunc(n.census.Kinds, func(k bulkhead.KindStatus) bool { return f.kind != "" && k.Kind != f.kind })
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}

// shownFamilies is how many families of a kind are shown.
const shownFamilies = 15

// whyView is what why says in JSON. Its field names are a contract: add, never rename.
type whyView struct {
	From     string                `json:"from"`
	Looked   time.Time             `json:"looked"`
	Began    time.Time             `json:"began,omitzero"`
	Findings []bulkhead.Finding    `json:"findings"`
	Kinds    []bulkhead.KindStatus `json:"kinds"`
	Families []bulkhead.Tally      `json:"families,omitempty"`
}

func (n *answer) view(f *whyFlags) whyView {
	v := whyView{From: n.from, Looked: n.looked.UTC(), Began: n.began.UTC(), Findings: n.findings, Kinds: n.census.Kinds}
	if v.Findings == nil {
		v.Findings = []bulkhead.Finding{}
	}
	if v.Kinds == nil {
		v.Kinds = []bulkhead.KindStatus{}
	}
	if f.kind != "" {
		const most = 1000
		v.Families = n.census.Tallies[:min(len(n.census.Tallies), most)]
	}
	return v
}

// printWhy writes what people read, at once: what cannot be written whole is an error.
func (a *app) printWhy(n answer, f *whyFlags) error {
	var page bytes.Buffer
	err := a.writeWhy(&page, n, f)
	if _, written := a.stdout.Write(page.Bytes()); written != nil {
		return fmt.Errorf("write: %w", written)
	}
	if err == nil {
		a.tellLooked(n, f, time.Now())
	}
	return err
}

func (a *app) writeWhy(w io.Writer, n answer, f *whyFlags) error {
	now := time.Now()
	shown := n.findings
	if !f.all {
		shown = shown[:min(len(shown), 1)]
	}
	if err := guard.Text(w, shown, now, 0); err != nil {
		return err
	}
	for i, more := range n.findings[len(shown):] {
		if i == 0 {
			fmt.Fprintln(w, "and, in full with --all:")
		}
		fmt.Fprintf(w, "  %s %s: %s, for %s\n", more.Severity, printable(more.ID, 20), printable(more.Title, 150), guard.Duration(now.Sub(more.Since)))
	}
	if len(n.findings) == 0 {
		if n.blind() {
			a.tellLooked(n, f, now)
			return &bulkhead.Error{Code: bulkhead.CodeUnavailable, Message: "nothing was counted, so nobody knows what grows",
				Hint: "it needs the verbs list and watch on what it counts; see above"}
		}
		n.writeNothing(w)
	}
	if f.kind != "" && len(n.findings) == 0 {
		return printFamilies(w, n.census.Tallies)
	}
	return nil
}

// writeNothing says that nothing was found, and what that means.
func (n *answer) writeNothing(w io.Writer) {
	switch {
	case n.once && young(w, n.census, "nothing has grown for long enough to be told by one look"):
	case n.early() && young(w, n.census, n.tooEarly()):
	case n.early():
		fmt.Fprintln(w, n.tooEarly())
	default:
		fmt.Fprintln(w, "nothing grows that would hurt in 30 days")
	}
}

// tellLooked says what the answer rests on, and what it does not.
func (a *app) tellLooked(n answer, f *whyFlags, now time.Time) {
	objects := int64(0)
	for _, k := range n.census.Kinds {
		objects += k.Objects
	}
	what, when := "", ""
	if kinds := len(n.census.Kinds); kinds > 0 {
		what = fmt.Sprintf(" at %s of %s", manyOf(objects, "object"), manyOf(int64(kinds), "kind"))
	}
	if !n.once {
		when = " " + agoOf(now.Sub(n.looked))
	}
	a.tell("%s looked%s%s", printable(n.from, 0), what, when)
	if objects > 0 && !slices.ContainsFunc(n.census.Kinds, func(k bulkhead.KindStatus) bool { return k.Exact }) {
		a.tell("  only the API server's own counts are known, which tell no namespace and no family")
	}
	untold := 0
	for _, k := range n.census.Kinds {
		if !k.Lacks() {
			continue
		}
		if untold++; untold <= 3 || f.all {
			a.tell("  %s: %s", printable(k.Kind, 80), printable(k.Reason, 200))
		}
	}
	if untold > 3 && !f.all {
		a.tell("  and %s that cannot be counted; --all says why", manyOf(int64(untold-3), "more kind"))
	}
}

func manyOf(n int64, what string) string {
	if n != 1 {
		what += "s"
	}
	return guard.Number(float64(n)) + " " + what
}

// agoOf says how long ago somebody looked: what is a minute old is news, and what is
// an hour old is not.
func agoOf(d time.Duration) string {
	if d < time.Minute {
		return fmt.Sprintf("%d s ago", max(0, int(d.Seconds())))
	}
	return guard.Duration(d) + " ago"
}

// printFamilies prints the largest ones.
func printFamilies(w io.Writer, tallies []bulkhead.Tally) error {
	if len(tallies) == 0 {
		return nil
	}
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "OBJECTS\tRULES\tNAMESPACE\tFAMILY\tORIGIN\tMADE BY")
	for i := range tallies[:min(len(tallies), shownFamilies)] {
		t := &tallies[i]
		rules := ""
		if t.Rules > 0 {
			rules = guard.Number(float64(t.Rules))
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\n", guard.Number(float64(t.Objects)), rules, printable(t.Namespace, 30),
			printable(t.Family, 50), printable(t.Origin, 40), printable(t.Manager, 30))
	}
	if more := len(tallies) - shownFamilies; more > 0 {
		fmt.Fprintf(tw, "… and %d more families\n", more)
	}
	return tw.Flush()
}
