package plan

// SetLimit lets a test reach MaxItems without so many items.
func (in *Input) SetLimit(n int64) { in.limit = n }
