package agents

import "time"

// Usage is what was used at earlier looks.
type Usage struct{ all usage }

// Cores is a look at a container that started at a time and has used so many seconds.
func (u *Usage) Cores(name string, at, started time.Time, seconds float64) float64 {
	if u.all == nil {
		u.all = usage{}
	}
	u.all.forget(at)
	return u.all.cores(name, used{at: at, started: started, seconds: seconds, seen: at})
}

// Len is how many containers are remembered.
func (u *Usage) Len() int { return len(u.all) }
