package worker

// ReapOrphans is what the sweeper does once a second.
func (w *Worker) ReapOrphans() { w.reapOrphans() }
