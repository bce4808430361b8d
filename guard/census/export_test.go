package census

import "time"

// SetSilent says how long a watch may bring nothing. It is to be called before Run.
func (c *Census) SetSilent(d time.Duration) { c.silent = d }
