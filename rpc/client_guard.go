package rpc

import (
	"context"
	"time"

	"bulkhead.dev/bulkhead"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

// Findings returns what the server's guard has found in a namespace ("": in all that
// the caller may see), when it looked last (zero: not yet), and since when it looks without
// a gap (zero: it is not known).
func (c *Client) Findings(ctx context.Context, namespace string) (out []bulkhead.Finding, looked, began time.Time, err error) {
	err = c.call(ctx, func(ctx context.Context) error {
		res, err := c.guard.ListFindings(ctx, &bulkheadv1.ListFindingsRequest{Namespace: namespace})
		out, looked, began = each(res.GetFindings(), FindingOf), timeOf(res.GetLooked()), timeOf(res.GetBegan())
		return err
	})
	return out, looked, began, err
}

// Census returns what the server's guard counts, of a namespace ("": of all that the
// caller may see): the largest families, limit at most (0: 1,000), and how many there
// are.
func (c *Client) Census(ctx context.Context, namespace string, limit int) (out bulkhead.Census, families int, err error) {
	err = c.call(ctx, func(ctx context.Context) error {
		res, err := c.guard.GetCensus(ctx, &bulkheadv1.GetCensusRequest{Namespace: namespace, Limit: int32Of(limit)})
		out = bulkhead.Census{At: timeOf(res.GetAt()), Tallies: each(res.GetTallies(), TallyOf), Kinds: each(res.GetKinds(), kindStatusOf)}
		families = int(res.GetFamilies())
		return err
	})
	return out, families, err
}
