package guard

import (
	"time"

	"bulkhead.dev/bulkhead"
)

// Rule is what a guard makes of findings that are open at a time.
func (g *Guard) Rule(findings []bulkhead.Finding, now time.Time) []bulkhead.Ruling {
	return g.rule(findings, now)
}
