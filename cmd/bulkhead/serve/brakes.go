package serve

import (
	"context"
	"fmt"
	"time"

	"bulkhead.dev/bulkhead"
)

// brakes is the brakes as the API needs them: kept in the store, and obeyed by the
// engine before anybody is told that they are set.
type brakes struct{ *server }

// Brakes implements rpc.Brakes.
func (b brakes) Brakes() []bulkhead.BrakeStatus {
	all := b.engine.Brakes()
	if len(all) == 0 {
		return nil
	}
	return b.statuses(all)
}

func (b brakes) statuses(all []bulkhead.Brake) []bulkhead.BrakeStatus {
	var runs []*bulkhead.Run
	for _, st := range b.engine.Status(0).Runs {
		runs = append(runs, &st.Run)
	}
	out := make([]bulkhead.BrakeStatus, len(all))
	for i, one := range all {
		out[i] = bulkhead.StatusOfBrake(one, runs)
	}
	return out
}

// SetBrake implements rpc.Brakes.
func (b brakes) SetBrake(ctx context.Context, want bulkhead.Brake) (st bulkhead.BrakeStatus, changed bool, err error) {
	if err := b.reader.InPlace(); err != nil {
		return st, false, err
	}
	is, err := b.reader.AddBrake(ctx, want)
	if err != nil {
		return st, false, err
	}
	// The loop reads them between two decisions.
	if err := b.engine.Look(ctx); err != nil {
		return st, false, fmt.Errorf("brake %d is kept, and the engine does not see it: %w", is.ID, err)
	}
	changed = is.Since.Before(want.Since.Truncate(time.Microsecond))
	b.log.Info("brake is on", "brake", is.ID, "on", is.Scope.String(), "factor", is.Factor, "by", is.Owner, "until", is.Until(),
		"changed", changed, "reason", is.Reason)
	return b.statuses([]bulkhead.Brake{is})[0], changed, nil
}

// LiftBrake implements rpc.Brakes.
func (b brakes) LiftBrake(ctx context.Context, id int64, by string) (bulkhead.BrakeStatus, error) {
	was, err := b.reader.LiftBrake(ctx, id)
	if err != nil {
		return bulkhead.BrakeStatus{}, err
	}
	st := b.statuses([]bulkhead.Brake{was})[0]
	b.log.Info("brake is lifted", "brake", was.ID, "on", was.Scope.String(), "by", by, "owner", was.Owner)
	return st, b.engine.Look(ctx)
}
