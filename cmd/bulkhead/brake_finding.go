package main

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/plan"
)

// findingID is what ids of findings look like. Numbers of brakes are shorter.
var findingID = regexp.MustCompile(`^[0-9a-f]{10}$`)

// liftFlags is the command line of brake off.
type liftFlags struct {
	all          bool
	long, reason string

	given func(flag string) bool
}

// parse tells brakes from findings. None of either is all brakes.
func (f *liftFlags) parse(args []string) (brakes []int64, findings []string, err error) {
	switch {
	case f.all && len(args) > 0:
		return nil, nil, usage("give one of them", "%s and --all exclude each other", args[0])
	case !f.all && len(args) == 0:
		return nil, nil, usage("bulkhead brake ls shows them; --all lifts all", "off: the number of a brake is missing")
	}
	for _, arg := range args {
		id, err := strconv.ParseInt(arg, 10, 64)
		switch {
		case findingID.MatchString(arg):
			findings = append(findings, arg)
		case err != nil || id < 1:
			return nil, nil, usage("bulkhead brake ls shows the brakes and their numbers, and the findings and their ids",
				"%s is not the number of a brake, nor the id of a finding", bulkhead.Quote(arg))
		default:
			brakes = append(brakes, id)
		}
	}
	switch {
	case len(findings) == 0 && (f.given("for") || f.given("reason")):
		return nil, nil, usage("leave --for and --reason out: a brake is lifted for good", "--for and --reason are of use with findings only")
	case len(findings) > 0 && len(brakes) > 0:
		return nil, nil, usage("give them to a command each", "%d is a brake, and %s is a finding", brakes[0], findings[0])
	}
	return brakes, findings, nil
}

// exemption is what the flags ask for.
func (f *liftFlags) exemption(finding string) (b bulkhead.Brake, long time.Duration, err error) {
	if !f.given("for") {
		return b, 0, usage("for example --for 2h: then the guard is obeyed again", "for how long finding %s is meant is missing", finding)
	}
	if !f.given("reason") {
		return b, 0, usage("for example --reason 'T123: the migration is meant'; everybody is shown it who sees the finding", "--reason is missing")
	}
	if long, err = plan.ParseDuration(f.long); err != nil {
		return b, 0, fmt.Errorf("--for: %w", err)
	}
	if long <= 0 {
		return b, 0, usage("for example 2h", "--for %s is not more than 0", f.long)
	}
	b = bulkhead.Brake{Scope: bulkhead.FindingScope("", finding), Reason: strings.TrimSpace(f.reason), Since: time.Now()}
	b.Expires = b.Since.Add(long)
	err = b.Check()
	return b, long, err
}

// exempt lets runs go on in spite of findings.
func (a *app) exempt(ctx context.Context, f *liftFlags, findings []string) error {
	var all []bulkhead.Brake
	var long time.Duration
	for _, finding := range findings {
		b, of, err := f.exemption(finding)
		if err != nil {
			return err
		}
		all, long = append(all, b), of
	}
	h, err := a.lookBraker(ctx)
	if err != nil {
		return err
	}
	defer h.close()
	for _, b := range all {
		st, changed, err := h.setBrake(ctx, b, long)
		if err != nil {
			return err
		}
		finding, _ := st.Exempts()
		word := ""
		if changed {
			word = ", changed"
		}
		a.tell("finding %s%s: runs do not heed it %s", finding, word, untilWords(&st.Brake, long))
		a.tell("  %s", letGo(&st))
		a.tell("  %-44s %s", a.typed("brake on --finding %s", finding), "heeds it again")
	}
	return nil
}

// letGo says what an exemption lets go on.
func letGo(st *bulkhead.BrakeStatus) string {
	if st.Runs == 0 {
		return "nothing waits because of it now"
	}
	verb := "go on"
	if st.Runs == 1 {
		verb = "goes on"
	}
	return fmt.Sprintf("%s with %s that wait %s, a few at once at first, if nothing else holds them", runsCounted(st.Runs), counted(st.Items), verb)
}

// obeyFinding ends the exemptions of a finding.
func (a *app) obeyFinding(ctx context.Context, f *brakeFlags) error {
	for _, flag := range []string{"all", "namespace", "class", "pool", "run", "reason", "for", "slow"} {
		if f.given(flag) {
			return usage("the guard says what a finding holds back, and why; leave --"+flag+" out", "--finding and --%s exclude each other", flag)
		}
	}
	h, err := a.lookBraker(ctx)
	if err != nil {
		return err
	}
	defer h.close()
	list, err := h.listBrakes(ctx)
	if err != nil {
		return err
	}
	ended := false
	for _, st := range list.Exemptions {
		if finding, _ := st.Exempts(); finding != f.finding {
			continue
		}
		_, err := h.liftBrake(ctx, st.ID)
		if err != nil && bulkhead.CodeOf(err) != bulkhead.CodeNotFound { // somebody was quicker
			return err
		}
		ended = true
	}
	if !ended {
		return &bulkhead.Error{Code: bulkhead.CodeNotFound, Message: fmt.Sprintf("finding %s is not exempt", bulkhead.Quote(f.finding)),
			Hint: "runs heed it, if there is one; `bulkhead brake ls` shows what is exempt"}
	}
	a.tell("finding %s: runs heed it again", f.finding)
	return nil
}
