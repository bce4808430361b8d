package guard

import "bulkhead.dev/bulkhead"

// agents is when the memory of agents is full that hold what grows.
func (a *analysis) agents([]kindGrowth) []bulkhead.Reach { return nil }
