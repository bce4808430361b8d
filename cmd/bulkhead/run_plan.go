package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/plan"
)

// runPlan is what a run would do, in JSON. Its field names are a contract: add, never
// rename.
type runPlan struct {
	Where   string     `json:"where"`
	Command []string   `json:"command"` // a template
	Items   int64      `json:"items"`
	AtOnce  int64      `json:"at_once"` // at most
	Class   *classView `json:"class"`   // null: the workers of this machine
	// Objects that the cluster keeps for each item: none. Worker pods are the class's.
	Objects int64      `json:"objects"`
	Pools   []poolPlan `json:"pools"`
	// Waits are what the run would wait for, each with its reason.
	Waits   []string `json:"waits"`
	Seconds *float64 `json:"duration_seconds"` // an estimate; null: there is nothing to tell it from
	Basis   string   `json:"duration_basis"`   // what it is told from, or why there is none
	ByRate  *float64 `json:"rate_seconds"`     // that --rate alone takes; null: no rate
}

// poolPlan is a pool that the run asks for, and how it stands now.
type poolPlan struct {
	Name    string `json:"name"`
	Key     string `json:"key"` // template; "": one pool for all items
	Slots   int    `json:"slots"`
	Pools   int    `json:"pools"` // that there are of the name, one for each key in use
	Full    int    `json:"full"`  // of them
	Waiting int64  `json:"waiting"`
}

// How much is asked of a home to plan a run.
const (
	plannedRuns  = 200
	plannedPools = 1000
)

// planRun says what a run would do. Nothing is stored.
func (a *app) planRun(ctx context.Context, f *runFlags, spec *bulkhead.Spec, in *plan.Input) error {
	p := &runPlan{Command: spec.Command, Items: 1, Pools: []poolPlan{}, Waits: []string{}}
	if !spec.Single() {
		n, err := countItems(in)
		if err != nil {
			return err
		}
		p.Items = n
	}
	h, err := a.openHome(ctx)
	if err != nil {
		return err
	}
	defer h.close()
	p.Where = h.where()
	if err := p.look(ctx, h, spec); err != nil {
		return err
	}
	if f.output == "json" {
		return writeJSON(a.stdout, p)
	}
	return p.text(a.stdout, spec)
}

func countItems(in *plan.Input) (n int64, err error) {
	for {
		switch _, err := in.Next(); {
		case errors.Is(err, io.EOF):
			return n, nil
		case err != nil:
			return n, err
		}
		n++
	}
}

// look asks a home how things stand.
func (p *runPlan) look(ctx context.Context, h home, spec *bulkhead.Spec) error {
	p.AtOnce = min(int64(spec.Limit), max(p.Items, 1))
	var pools []bulkhead.PoolStatus
	if s, ok := h.(*remote); ok {
		classes, err := s.Classes(ctx)
		if err != nil {
			return err
		}
		if err := p.inClass(spec.Class, classes); err != nil {
			return err
		}
		if pools, _, err = s.Pools(ctx, plannedPools); err != nil {
			return err
		}
	}
	for _, use := range spec.Pools {
		p.Pools = append(p.Pools, newPoolPlan(use, pools))
		if use.Key == "" {
			p.AtOnce = min(p.AtOnce, int64(use.Slots))
		}
	}
	rulings, err := rulingsOf(ctx, h)
	if err != nil {
		p.Waits = append(p.Waits, fmt.Sprintf("brakes cannot be seen: %v", err))
	}
	for _, r := range rulings {
		if r.Scope.Covers(0, spec) {
			p.Waits = append(p.Waits, r.Verdict.Reason)
		}
	}
	runs, err := h.Recent(ctx, bulkhead.RunQuery{Limit: plannedRuns})
	if err != nil {
		return err
	}
	p.waits(runs, spec)
	p.duration(runs, spec)
	return nil
}

// rulingsOf are the brakes in force, and what the guard says.
func rulingsOf(ctx context.Context, h home) (out []bulkhead.Ruling, err error) {
	from, ok := h.(braker)
	if !ok {
		return nil, nil
	}
	list, err := from.listBrakes(ctx)
	for _, b := range list.Brakes {
		out = append(out, b.Ruling())
	}
	for i := range list.Rulings {
		if r := &list.Rulings[i]; !list.Exempt(r) {
			out = append(out, r.Ruling)
		}
	}
	return out, err
}

// inClass is where the run would find its workers.
func (p *runPlan) inClass(name string, classes []bulkhead.ClassStatus) error {
	names := make([]string, len(classes))
	for i, c := range classes {
		names[i] = c.Name
		if c.Name == name {
			view := newClassView(c)
			p.Class = &view
		}
	}
	return bulkhead.CheckClassName(name, names)
}

func newPoolPlan(use bulkhead.PoolUse, pools []bulkhead.PoolStatus) poolPlan {
	p := poolPlan{Name: use.Name, Key: use.Key, Slots: use.Slots}
	for i := range pools {
		if pools[i].Name != use.Name {
			continue
		}
		p.Pools++
		p.Waiting += pools[i].Waiting
		if pools[i].Full() {
			p.Full++
		}
	}
	return p
}

// waits are what keeps others waiting in the same place.
func (p *runPlan) waits(runs []*bulkhead.Run, spec *bulkhead.Spec) {
	if p.Class != nil {
		if p.Class.Blocked != "" {
			p.Waits = append(p.Waits, "class: "+p.Class.Blocked)
		}
		if p.Class.Queued > 0 {
			p.Waits = append(p.Waits, fmt.Sprintf("class: %s of other runs wait for its workers", counted(p.Class.Queued)))
		}
	}
	for _, pool := range p.Pools {
		if pool.Full > 0 {
			p.Waits = append(p.Waits, fmt.Sprintf("pool %s: %d of %d keys in use are full, %s wait", pool.Name, pool.Full, pool.Pools, counted(pool.Waiting)))
		}
	}
	const most = 5
	for _, r := range runs {
		if r.Shown() == bulkhead.RunHeld && r.Spec.Class == spec.Class && r.Reason != "" && len(p.Waits) < most {
			p.Waits = append(p.Waits, fmt.Sprintf("run %d of the same workers is held: %s", r.ID, r.Reason))
		}
	}
}

// duration estimates from the last run of the same script that it can be told from,
// and from the rate. Whichever takes longer counts.
func (p *runPlan) duration(runs []*bulkhead.Run, spec *bulkhead.Spec) {
	if every := spec.Rate.Interval(); every > 0 && p.Items > 0 {
		least := every.Seconds() * float64(p.Items-1)
		p.ByRate = &least
	}
	for _, r := range runs {
		perItem, ok := slotSeconds(r)
		if !ok || r.Spec.Class != spec.Class || r.Spec.Name != spec.Name || !p.sameScript(r.Spec.Command, spec.Command) {
			continue
		}
		slots := p.AtOnce
		if p.Class != nil && p.Class.Slots > 0 {
			slots = min(slots, int64(p.Class.Slots))
		}
		whole := perItem * math.Ceil(float64(p.Items)/float64(max(slots, 1)))
		if p.ByRate != nil {
			whole = max(whole, *p.ByRate)
		}
		p.Seconds = &whole
		p.Basis = fmt.Sprintf("as run %d went: %s in %s, %d at once", r.ID, counted(r.Counts.Done()), age(r.Finished.Sub(r.Started)), r.Limit)
		return
	}
	p.Basis = "unknown until some have run: no run of this script among the last " + fmt.Sprint(plannedRuns)
}

// sameScript reports whether the command of a run begins as another one does: the
// script of an interpreter is its second word.
func (p *runPlan) sameScript(was, command []string) bool {
	if p.Class != nil && len(was) > len(p.Class.Command) { // the server has put it before
		was = was[len(p.Class.Command):]
	}
	if len(command) > 1 && strings.HasPrefix(command[1], "-") { // sh -c
		return slices.Equal(was, command)
	}
	n := min(len(command), 2)
	return len(was) >= n && slices.Equal(was[:n], command[:n])
}

// slotSeconds is how long an item of a run kept one of the places that the run had. It
// is not ok if there is nothing to tell it from, or its rate and not its items took the
// time.
func slotSeconds(r *bulkhead.Run) (seconds float64, ok bool) {
	elapsed, done := r.Finished.Sub(r.Started), r.Counts.Done()
	if r.Started.IsZero() || r.Finished.IsZero() || done == 0 || elapsed <= 0 || r.Spec.Rate.Interval() > 0 || r.Spec.Interactive {
		return 0, false
	}
	rounds := math.Ceil(float64(done) / float64(max(r.Limit, 1)))
	return elapsed.Seconds() / rounds, true
}

func (p *runPlan) text(w io.Writer, spec *bulkhead.Spec) error {
	var b strings.Builder
	line := func(label, format string, args ...any) {
		fmt.Fprintf(&b, "%-9s %s\n", label, printable(fmt.Sprintf(format, args...), 0))
	}
	line("run", "%s, %d at once: %s", counted(p.Items), p.AtOnce, printable(shellLine(spec.Command), 200))
	if c := p.Class; c == nil {
		line("where", "on this machine, kept %s", p.Where)
		line("objects", "none in a cluster")
	} else {
		line("where", "%s: class %s, workers %d, slots %d, running %s", p.Where, c.Name, c.Workers, c.Slots, counted(c.Running))
		line("objects", "0 for each item; the worker pods are those of the class, and as many as it allows")
	}
	for _, pool := range p.Pools {
		name := pool.Name
		if pool.Key != "" {
			name += ":" + pool.Key
		}
		line("pool", "%s=%d", name, pool.Slots)
	}
	for _, why := range p.Waits {
		line("waits for", "%s", why)
	}
	switch {
	case p.Seconds != nil:
		line("lasts", "about %s, %s", age(seconds(*p.Seconds)), p.Basis)
	case p.ByRate != nil:
		line("lasts", "at least %s, by the rate; else %s", age(seconds(*p.ByRate)), p.Basis)
	default:
		line("lasts", "%s", p.Basis)
	}
	b.WriteString("nothing was submitted\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func seconds(s float64) time.Duration {
	return time.Duration(min(s, math.MaxInt64/float64(time.Second)/2) * float64(time.Second))
}

// checkPlan refuses what --plan has no use for.
func (f *runFlags) checkPlan() error {
	if f.plan && f.dryRun {
		return usage("--dry-run prints items, --plan says what they would do", "--plan and --dry-run exclude each other")
	}
	return nil
}
