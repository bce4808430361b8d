package clean

import (
	"context"
	"time"
)

// SetWait gives a Cleaner another way to wait, for tests of what it waits for.
func (c *Cleaner) SetWait(wait func(context.Context, time.Duration) error) { c.wait = wait }
