package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"bulkhead.dev/bulkhead"
)

// brakeView is a brake, a ruling of the guard or an exemption in JSON. Its field names
// are a contract: add, never rename.
type brakeView struct {
	ID      *int64         `json:"id"` // null: of the guard
	From    string         `json:"from"`
	Finding string         `json:"finding,omitempty"`
	Scope   bulkhead.Scope `json:"scope"`
	Verdict string         `json:"verdict"` // stop or slow; of an exemption, or what is exempt: allow
	Factor  *float64       `json:"factor"`  // null: nothing starts
	Reason  string         `json:"reason"`
	Owner   string         `json:"owner"`
	Since   *time.Time     `json:"since"`
	Expires *time.Time     `json:"expires"` // null: when it is lifted, or the finding has ended
	Lifts   string         `json:"lifts,omitempty"`
	Runs    int            `json:"runs"`
	Items   int64          `json:"items"`
}

func newBrakeView(st *bulkhead.BrakeStatus) brakeView {
	finding, exempts := st.Exempts()
	v := brakeView{ID: &st.ID, From: bulkhead.FromBrake, Scope: st.Scope, Verdict: "stop", Reason: st.Reason, Owner: st.Owner, Since: when(st.Since),
		Expires: when(st.Expires), Runs: st.Runs, Items: st.Items}
	switch {
	case exempts:
		v.Finding, v.Verdict = finding, "allow"
	case st.Factor > 0:
		v.Verdict, v.Factor = "slow", &st.Factor
	}
	return v
}

func newRulingView(r *bulkhead.RulingStatus, exempt bool) brakeView {
	v := brakeView{From: bulkhead.FromGuard, Finding: r.Finding, Scope: r.Scope, Verdict: "stop", Reason: r.Verdict.Reason, Owner: bulkhead.FromGuard,
		Since: when(r.Verdict.Since), Lifts: r.Verdict.Lifts, Runs: r.Runs, Items: r.Items}
	if r.Verdict.Factor > 0 {
		v.Verdict, v.Factor = "slow", &r.Verdict.Factor
	}
	if exempt {
		v.Verdict = "allow"
	}
	return v
}

func (a *app) brakeLsCmd() *cobra.Command {
	var out outputFlag
	cmd := &cobra.Command{
		Use:     "ls",
		Aliases: []string{"list"},
		Short:   "List the brakes that are on, what the guard holds back, and what they hold",
		Long: `List the brakes that are on, oldest first, and what they hold; then what the guard
of the server holds back, by the ids of its findings, and those that are exempt.

-o json is an array of: id (null of the guard), from (brake or guard), finding (its
id), scope {kind ("" is everything), name}, verdict (stop or slow; allow of what is
exempt), factor (null for stop), reason, owner, since, expires (RFC 3339, or null:
when it is lifted or has ended), lifts (of the guard: what ends it), runs and items:
what of its scope waits now. An exemption is a brake whose scope is a finding.`,
		Example: `  bulkhead brake ls
  bulkhead brake ls -o json | jq '.[] | {id, finding, reason, runs}'`,
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.brakeLs(cmd.Context(), out) },
	}
	outputVar(cmd, &out, "text or json")
	return cmd
}

func (a *app) brakeLs(ctx context.Context, out outputFlag) error {
	h, err := a.lookBraker(ctx)
	if err != nil {
		return err
	}
	defer h.close()
	list, err := h.listBrakes(ctx)
	if err != nil {
		return err
	}
	if out == "json" {
		views := []brakeView{}
		for i := range list.Brakes {
			views = append(views, newBrakeView(&list.Brakes[i]))
		}
		for i := range list.Rulings {
			views = append(views, newRulingView(&list.Rulings[i], list.Exempt(&list.Rulings[i])))
		}
		for i := range list.Exemptions {
			views = append(views, newBrakeView(&list.Exemptions[i]))
		}
		return writeJSON(a.stdout, views)
	}
	if len(list.Brakes)+len(list.Rulings)+len(list.Exemptions) == 0 {
		fmt.Fprintf(a.stderr, "no brakes %s\n", h.where())
		return nil
	}
	return printBrakes(a.stdout, &list, time.Now())
}

func printBrakes(w io.Writer, list *bulkhead.Brakes, now time.Time) error {
	tw := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(tw, "BRAKE\tON\tVERDICT\tRUNS\tITEMS\tOWNER\tAGE\tUNTIL\tREASON")
	line := func(name, on, verdict string, runs int, items int64, owner string, since time.Time, until, reason string) {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%d\t%d\t%s\t%s\t%s\t%s\n", printable(name, 20), printable(on, 60), verdict, runs, items,
			shownOwner(owner, 30), age(now.Sub(since)), until, printable(reason, 0))
	}
	for i := range list.Brakes {
		st := &list.Brakes[i]
		until := "it is lifted"
		if !st.Expires.IsZero() {
			until = st.Until()
		}
		line(strconv.FormatInt(st.ID, 10), st.Scope.String(), verdictWords(st.Factor), st.Runs, st.Items, st.Owner, st.Since, until, st.Reason)
	}
	for i := range list.Rulings {
		if r := &list.Rulings[i]; !list.Exempt(r) {
			line(r.Finding, r.Scope.String(), verdictWords(r.Verdict.Factor), r.Runs, r.Items, bulkhead.FromGuard, r.Verdict.Since, "it has ended", r.Verdict.Reason)
		}
	}
	for i := range list.Exemptions {
		st := &list.Exemptions[i]
		finding, _ := st.Exempts()
		line(finding, "the finding", "not obeyed", st.Runs, st.Items, st.Owner, st.Since, st.Until(), st.Reason)
	}
	return tw.Flush()
}

func verdictWords(factor float64) string {
	if factor > 0 {
		return "slow to " + strconv.FormatFloat(factor*100, 'g', 3, 64) + "%"
	}
	return "stop"
}
