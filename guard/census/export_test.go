package census

import "time"

// SetSilent says how long a watch may bring nothing. It is to be called before Run.
func (c *Census) SetSilent(d time.Duration) { c.silent = d }

// SetIdle says how long a list may pause. It is to be called before Run.
func (c *Census) SetIdle(d time.Duration) { c.idle = d }
