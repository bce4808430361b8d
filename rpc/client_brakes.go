package rpc

import (
	"context"
	"time"

	"connectrpc.com/connect"

	"bulkhead.dev/bulkhead"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

// Brakes are those in force that the caller may see, with exemptions and what the guard
// says.
func (c *Client) Brakes(ctx context.Context) (out bulkhead.Brakes, err error) {
	err = c.call(ctx, func(ctx context.Context) error {
		res, err := c.brakes.ListBrakes(ctx, &bulkheadv1.ListBrakesRequest{})
		if err != nil {
			return err
		}
		if out.Brakes, err = eachOf(res.GetBrakes(), BrakeOf); err != nil {
			return err
		}
		if out.Exemptions, err = eachOf(res.GetExemptions(), BrakeOf); err != nil {
			return err
		}
		out.Rulings, err = eachOf(res.GetRulings(), RulingOf)
		return err
	})
	return out, err
}

// SetBrake puts a brake on a scope, for so long; 0: until it is lifted. One on a finding
// is an exemption. The owner and
// when it begins are for the server to say. Changed: there was one of ours.
func (c *Client) SetBrake(ctx context.Context, b bulkhead.Brake, long time.Duration) (st bulkhead.BrakeStatus, changed bool, err error) {
	tries := 0
	err = c.call(ctx, func(ctx context.Context) error {
		res, err := c.brakes.SetBrake(ctx, &bulkheadv1.SetBrakeRequest{Scope: ScopeMessage(b.Scope), Reason: b.Reason,
			Factor: b.Factor, Time: durationMessage(long)})
		tries++
		if err != nil {
			return err
		}
		// What a call changed that is made again may be what the one before it did.
		changed = res.GetChanged() && tries == 1
		st, err = BrakeOf(res.GetBrake())
		return err
	})
	return st, changed, err
}

// LiftBrake ends a brake, and returns it as it was.
func (c *Client) LiftBrake(ctx context.Context, id int64) (st bulkhead.BrakeStatus, err error) {
	tries := 0
	err = c.call(ctx, func(ctx context.Context) error {
		res, err := c.brakes.LiftBrake(ctx, &bulkheadv1.LiftBrakeRequest{Brake: id})
		if tries++; tries > 1 && connect.CodeOf(err) == connect.CodeNotFound {
			st.ID = id
			return nil // the answer to an earlier try did not arrive
		}
		if err != nil {
			return err
		}
		st, err = BrakeOf(res.GetBrake())
		return err
	})
	return st, err
}
