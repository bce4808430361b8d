package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/plan"
)

// braker is where brakes are kept: what is said there holds when it returns.
type braker interface {
	// listBrakes are those in force, oldest first, with exemptions, and what the guard
	// says if there is one.
	listBrakes(ctx context.Context) (bulkhead.Brakes, error)
	// setBrake says whether it has changed a brake that there was. Long 0: until it is lifted.
	// One on a finding, of which the id is enough, is an exemption.
	setBrake(ctx context.Context, b bulkhead.Brake, long time.Duration) (st bulkhead.BrakeStatus, changed bool, err error)
	liftBrake(ctx context.Context, id int64) (bulkhead.BrakeStatus, error)
}

func (a *app) brakeCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:        "brake",
		SuggestFor: []string{"hold", "freeze", "stop", "halt"},
		Short:      "Hold work back by hand: everything, a namespace, a class, a pool or a run",
		Long: `Hold work back by hand: everything, a namespace, a class, a pool or a run.

While a brake is on, nothing of its scope starts (or, with --slow, less at once);
what runs goes on to its end. Who waits is told why, by whom and until when, in
bulkhead ls, show, top and handover. When it is lifted or its time is over, the
scope comes back by itself: at first a tenth of it at once, and every ten seconds
twice as much.

A brake survives a restart and a loss of power. It is on a server, or without one
on the state folder: then all runs of that folder obey it, whichever process runs
them. A server's brakes need no cluster to answer.

What the guard of a server holds back because of a finding is listed, too. If the
growth is meant, bulkhead brake off FINDING lets runs go on in spite of it for a
time.`,
		Example: `  bulkhead brake on --class web --reason 'calico-node is out of memory, T1234' --for 2h
  bulkhead brake ls
  bulkhead brake off 3
  bulkhead brake off 118b1ceae7 --for 2h --reason 'T123: the migration is meant'`,
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.brakeOnCmd(), a.brakeOffCmd(), a.brakeLsCmd())
	return cmd
}

// brakeFlags is the command line of brake on.
type brakeFlags struct {
	all                         bool
	namespace, class, pool, run string
	reason, long                string
	finding                     string
	slow                        float64

	given func(flag string) bool
}

func (a *app) brakeOnCmd() *cobra.Command {
	f := &brakeFlags{}
	cmd := &cobra.Command{
		Use:   "on --all|--namespace N|--class C|--pool P|--run R --reason TEXT [flags]\n  bulkhead brake on --finding ID",
		Short: "Let nothing of a scope start, or less at once",
		Long: `Let nothing of a scope start, or with --slow less at once; what runs goes on.

When the command returns, nothing of the scope is leased any more. At a server, a
script whose lease was given just before may be on its way to its agent. A second
brake of yours on the same scope changes the first: its reason, its time, --slow.

Without --for it stays until bulkhead brake off. A pool is NAME, or NAME:KEY for
one key of it.

With --finding the guard is obeyed again at once: it ends what bulkhead brake off
FINDING began, whoever did that.`,
		Example: `  bulkhead brake on --all --reason 'the API server is down, ask #sre' --for 30m
  bulkhead brake on --class web --reason T1234 --slow 0.5
  bulkhead brake on --pool db:s1 --reason 'replica lag on s1' --for 2h
  bulkhead brake on --finding 118b1ceae7`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			f.given = cmd.Flags().Changed
			if f.given("finding") {
				return a.obeyFinding(cmd.Context(), f)
			}
			return a.brakeOn(cmd.Context(), f)
		},
	}
	fl := cmd.Flags()
	fl.BoolVar(&f.all, "all", false, "everything of the server, or of the state folder")
	fl.StringVar(&f.namespace, "namespace", "", "the classes of a `namespace`; with --class: the namespace that the class is in")
	fl.StringVar(&f.class, "class", "", "the runs of a `class`")
	fl.StringVar(&f.pool, "pool", "", "what needs a `pool`: NAME or NAME:KEY")
	fl.StringVar(&f.run, "run", "", "one run, by its `number`")
	fl.StringVar(&f.finding, "finding", "", "obey the guard again about a finding that is exempt, by its `id`")
	fl.StringVar(&f.reason, "reason", "", "what is wrong, and whom to ask: one line for everybody who waits")
	fl.StringVar(&f.long, "for", "", "how long, for example 30m or 2h; a bare number is seconds (default: until it is lifted)")
	fl.Float64Var(&f.slow, "slow", 0, "only slow: multiply how many run at once by this `factor`, between 0 and 1; at least 1 runs")
	completeNoFiles(cmd, "reason", "slow")
	completeFlag(cmd, "for", "30m", "1h", "2h", "8h", "1d")
	for flag, complete := range map[string]cobra.CompletionFunc{"namespace": a.completeNamespaces, "class": a.completeClasses,
		"pool": a.completePools, "run": a.completeBrakedRuns, "finding": a.completeExempt} {
		_ = cmd.RegisterFlagCompletionFunc(flag, complete) // it fails only for a flag that there is not
	}
	return cmd
}

// brake is what the flags ask for, and for how long.
func (f *brakeFlags) brake(p place) (b bulkhead.Brake, long time.Duration, err error) {
	if b.Scope, err = f.scope(p); err != nil {
		return b, 0, err
	}
	if !f.given("reason") {
		return b, 0, usage("it is shown to everybody who waits: what is wrong, and whom to ask", "--reason is missing")
	}
	b.Reason, b.Since = strings.TrimSpace(f.reason), time.Now()
	if f.given("slow") {
		if !(f.slow > 0 && f.slow < 1) {
			return b, 0, usage("0.5 is half as many at once; without --slow nothing starts", "--slow %v is not between 0 and 1", f.slow)
		}
		b.Factor = f.slow
	}
	if f.given("for") {
		if long, err = plan.ParseDuration(f.long); err != nil {
			return b, 0, fmt.Errorf("--for: %w", err)
		}
		if long <= 0 {
			return b, 0, usage("for example 2h; without --for it stays until it is lifted", "--for %s is not more than 0", f.long)
		}
		b.Expires = b.Since.Add(long)
	}
	err = b.Check()
	return b, long, err
}

// scope is what the flags name.
func (f *brakeFlags) scope(p place) (bulkhead.Scope, error) {
	var scopes []bulkhead.Scope
	var flags []string
	add := func(flag string, kind bulkhead.ScopeKind, name string) {
		if f.given(flag) {
			scopes, flags = append(scopes, bulkhead.Scope{Kind: kind, Name: name}), append(flags, "--"+flag)
		}
	}
	if f.all {
		add("all", bulkhead.ScopeAll, "")
	}
	class := f.class
	if f.given("class") && f.given("namespace") {
		if f.namespace == "" || strings.Contains(class, "/") {
			return bulkhead.Scope{}, usage("leave --namespace out", "--namespace %s: class %s has one", bulkhead.Quote(f.namespace), bulkhead.Quote(class))
		}
		class = f.namespace + "/" + class
	} else {
		add("namespace", bulkhead.ScopeNamespace, f.namespace)
	}
	add("class", bulkhead.ScopeClass, class)
	add("pool", bulkhead.ScopePool, f.pool)
	add("run", bulkhead.ScopeRun, f.run)
	switch {
	case len(scopes) == 0:
		return bulkhead.Scope{}, usage("--all, --namespace, --class, --pool or --run", "say what to hold")
	case len(scopes) > 1:
		return bulkhead.Scope{}, usage("give one, and another brake for the other", "%s and %s exclude each other", flags[0], flags[1])
	}
	scope := scopes[0]
	if scope.Kind == bulkhead.ScopeClass {
		name, err := p.className(scope.Name)
		if err != nil {
			return bulkhead.Scope{}, err
		}
		scope.Name = name
	}
	return scope, scope.Check()
}

func (a *app) brakeOn(ctx context.Context, f *brakeFlags) error {
	p, err := a.place()
	if err != nil {
		return err
	}
	b, long, err := f.brake(p)
	if err != nil {
		return err
	}
	h, err := a.openBraker(ctx, p)
	if err != nil {
		return err
	}
	defer h.close()
	st, changed, err := h.setBrake(ctx, b, long)
	if err != nil {
		return err
	}
	word := ""
	if changed {
		word = ", changed"
	}
	a.tell("brake %d%s%s: %s %s", st.ID, onScope(&st), word, effect(&st.Brake), untilWords(&st.Brake, long))
	a.tell("  %s", holding(&st))
	a.tell("  %-32s %s", a.typed("brake off %d", st.ID), "lifts it")
	return nil
}

// homeOfBrakes is a home that has been opened.
type homeOfBrakes interface {
	braker
	home
}

// openBraker opens where brakes are kept: on a machine without a server the state
// folder, which is made, so that a brake can come before the first run.
func (a *app) openBraker(ctx context.Context, p place) (homeOfBrakes, error) {
	if p.remote() {
		return a.openServer(ctx, p, triesToAsk)
	}
	return a.openFolder(ctx)
}

func effect(b *bulkhead.Brake) string {
	if b.Factor > 0 {
		return fmt.Sprintf("%s %% of the limits", strconv.FormatFloat(b.Factor*100, 'g', 3, 64))
	}
	return "nothing starts"
}

func untilWords(b *bulkhead.Brake, long time.Duration) string {
	if b.Expires.IsZero() {
		return "until it is lifted"
	}
	return fmt.Sprintf("until %s (%s)", b.Until(), age(long))
}

// holding says what a brake holds back now.
func holding(st *bulkhead.BrakeStatus) string {
	verb := "holds"
	if st.Factor > 0 {
		verb = "slows"
	}
	if st.Runs == 0 {
		return fmt.Sprintf("nothing of that waits now; it %s what comes", verb)
	}
	if st.Scope.Keyed() {
		return fmt.Sprintf("of %s that use the pool, with %s that wait, it %s those of that key", runsCounted(st.Runs), counted(st.Items), verb)
	}
	return fmt.Sprintf("it %s %s with %s that wait; what runs goes on", verb, runsCounted(st.Runs), counted(st.Items))
}

func runsCounted(n int) string {
	if n == 1 {
		return "1 run"
	}
	return fmt.Sprintf("%d runs", n)
}

func (a *app) brakeOffCmd() *cobra.Command {
	f := &liftFlags{}
	cmd := &cobra.Command{
		Use:     "off BRAKE…|--all\n  bulkhead brake off FINDING… --for TIME --reason TEXT",
		Aliases: []string{"lift"},
		Short:   "Lift brakes, or what the guard holds back because of a finding that is meant",
		Long: `Lift brakes, by their numbers or all of them. What they held goes on by itself: at
first a tenth of what the scope can have at once, and every ten seconds twice as
much, so that it does not all start in one moment.

With the id of a finding, runs go on in spite of it, for the time of --for, seven
days at most, because somebody knows that the growth is meant. The finding is told
as before, with who says so and why; other findings hold what they hold, and the
guard is obeyed again when the time is over, or with bulkhead brake on --finding.
Who may brake in a namespace may do that for findings of it.`,
		Example: `  bulkhead brake off 3
  bulkhead brake off --all
  bulkhead brake off 118b1ceae7 --for 2h --reason 'T123: the migration is meant'`,
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			return a.completeBrakes(cmd.Context(), args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			f.given = cmd.Flags().Changed
			ids, findings, err := f.parse(args)
			switch {
			case err != nil:
				return err
			case len(findings) > 0:
				return a.exempt(cmd.Context(), f, findings)
			}
			return a.brakeOff(cmd.Context(), ids)
		},
	}
	fl := cmd.Flags()
	fl.BoolVar(&f.all, "all", false, "all brakes that there are; not what the guard holds back")
	fl.StringVar(&f.long, "for", "", "of a finding: how long runs go on in spite of it, for example 30m or 2h")
	fl.StringVar(&f.reason, "reason", "", "of a finding: why it is meant, and whom to ask: one line for everybody")
	completeNoFiles(cmd, "reason")
	completeFlag(cmd, "for", "30m", "1h", "2h", "8h", "1d")
	return cmd
}

// brakeOff lifts brakes; without numbers, all.
func (a *app) brakeOff(ctx context.Context, ids []int64) error {
	h, err := a.lookBraker(ctx)
	if err != nil {
		return err
	}
	defer h.close()
	all := len(ids) == 0
	if all {
		list, err := h.listBrakes(ctx)
		if err != nil {
			return err
		}
		for _, st := range list.Brakes {
			ids = append(ids, st.ID)
		}
		if len(ids) == 0 {
			a.tell("no brakes %s", h.where())
			return nil
		}
	}
	var first error
	for _, id := range ids {
		st, err := h.liftBrake(ctx, id)
		switch {
		case err == nil:
			a.tell("%s", isLifted(id, &st))
		case all && bulkhead.CodeOf(err) == bulkhead.CodeNotFound: // somebody was quicker
		case first == nil:
			first = err
		}
	}
	return first
}

func onScope(st *bulkhead.BrakeStatus) string {
	if st.Reason == "" {
		return "" // of one that was lifted by a call whose answer did not come, nothing is known
	}
	return " on " + printable(st.Scope.String(), 0)
}

// isLifted says what is in force no more. One on a finding let runs go on.
func isLifted(id int64, st *bulkhead.BrakeStatus) string {
	if finding, ok := st.Exempts(); ok {
		return fmt.Sprintf("brake %d is lifted: runs heed finding %s again", id, printable(finding, 40))
	}
	return fmt.Sprintf("brake %d%s is lifted%s", id, onScope(st), goesOn(st))
}

func goesOn(st *bulkhead.BrakeStatus) string {
	switch st.Runs {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf(": 1 run with %s goes on, a few at once at first", counted(st.Items))
	}
	return fmt.Sprintf(": %d runs with %s go on, a few at once at first", st.Runs, counted(st.Items))
}

// lookBraker is openBraker for a command that makes no state folder.
func (a *app) lookBraker(ctx context.Context) (homeOfBrakes, error) {
	p, err := a.place()
	if err != nil {
		return nil, err
	}
	if p.remote() {
		return a.openServer(ctx, p, triesToAsk)
	}
	return a.lookFolder(ctx)
}
