package serve

import (
	"context"
	"fmt"
	"time"

	"bulkhead.dev/bulkhead"
)

// brakes is the brakes as the API needs them: kept in the store, and obeyed by the
// engine before anybody is told that they are set, or lifted.
type brakes struct{ *server }

// Brakes implements rpc.Brakes.
func (b brakes) Brakes() bulkhead.Brakes {
	all, rulings := b.engine.Brakes(), b.rulings()
	if len(all)+len(rulings) == 0 {
		return bulkhead.Brakes{}
	}
	return bulkhead.StatusOfBrakes(all, rulings, b.runs())
}

func (b brakes) runs() (runs []*bulkhead.Run) {
	for _, st := range b.engine.Status(0).Runs {
		runs = append(runs, &st.Run)
	}
	return runs
}

// status is how a brake or an exemption stands.
func (b brakes) status(one bulkhead.Brake) bulkhead.BrakeStatus {
	st := bulkhead.StatusOfBrakes([]bulkhead.Brake{one}, b.rulings(), b.runs())
	return append(st.Brakes, st.Exemptions...)[0]
}

// SetBrake implements rpc.Brakes.
func (b brakes) SetBrake(ctx context.Context, want bulkhead.Brake) (st bulkhead.BrakeStatus, changed bool, err error) {
	finding, exempts := want.Exempts()
	if exempts && b.opts.Advise {
		return st, false, &bulkhead.Error{Code: bulkhead.CodeConflict, Message: "the guard of this server only advises (--guard-advise): no run waits for what it finds"}
	}
	if err := b.reader.InPlace(); err != nil {
		return st, false, err
	}
	is, err := b.reader.AddBrake(ctx, want)
	if err != nil {
		return st, false, err
	}
	// The loop reads them between two decisions.
	if err := b.engine.Obey(ctx); err != nil {
		return st, false, fmt.Errorf("brake %d is kept, and the engine does not see it: %w", is.ID, err)
	}
	changed = is.Since.Before(want.Since.Truncate(time.Microsecond))
	if exempts {
		b.log.Info("finding is exempt", "finding", finding, "brake", is.ID, "by", is.Owner, "until", is.Until(), "changed", changed,
			"reason", is.Reason)
		return b.status(is), changed, nil
	}
	b.log.Info("brake is on", "brake", is.ID, "on", is.Scope.String(), "factor", is.Factor, "by", is.Owner, "until", is.Until(),
		"changed", changed, "reason", is.Reason)
	return b.status(is), changed, nil
}

// LiftBrake implements rpc.Brakes.
func (b brakes) LiftBrake(ctx context.Context, id int64, by string) (bulkhead.BrakeStatus, error) {
	was, err := b.reader.LiftBrake(ctx, id)
	if err != nil {
		return bulkhead.BrakeStatus{}, err
	}
	st := b.status(was)
	if finding, exempts := was.Exempts(); exempts {
		b.log.Info("finding is exempt no more", "finding", finding, "brake", was.ID, "by", by, "owner", was.Owner)
	} else {
		b.log.Info("brake is lifted", "brake", was.ID, "on", was.Scope.String(), "by", by, "owner", was.Owner)
	}
	return st, b.engine.Obey(ctx)
}
