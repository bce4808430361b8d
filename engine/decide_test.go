package engine_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/engine"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// free is a group of items that need no pool.
func free(items ...int64) engine.Group { return engine.Group{Items: items} }

// in is a group of items that need a slot of one pool.
func in(pool string, slots int, items ...int64) engine.Group {
	return engine.Group{Needs: []engine.Need{{Pool: engine.PoolKey{Name: pool}, Slots: slots}}, Items: items}
}

// local is so many idle workers of this process.
func local(n int) map[bulkhead.Kind]int { return map[bulkhead.Kind]int{{}: n} }

func view(limit int, groups ...engine.Group) engine.RunView {
	return engine.RunView{Limit: limit, LimitReason: fmt.Sprintf("limit: %d at once", limit), Groups: groups}
}

var brake1 = bulkhead.Verdict{Level: bulkhead.Stop, Reason: "brake 1"}

func stopped(v engine.RunView) engine.RunView {
	v.Verdict = brake1
	return v
}

func slowed(factor float64, v engine.RunView) engine.RunView {
	v.Verdict = bulkhead.Verdict{Level: bulkhead.Slow, Factor: factor, Reason: "brake 1"}
	return v
}

// capped is a run that the first cap counts.
func capped(v engine.RunView) engine.RunView {
	v.Caps = []int{0}
	return v
}

func onPool(name string, v bulkhead.Verdict) map[engine.PoolKey]bulkhead.Verdict {
	return map[engine.PoolKey]bulkhead.Verdict{{Name: name}: v}
}

// started lists the items that a decision starts, per run.
func started(s engine.Snapshot, d engine.Decision) [][]int64 {
	out := make([][]int64, len(s.Runs))
	taken := map[engine.Start]int{}
	for _, st := range d.Starts {
		out[st.Run] = append(out[st.Run], s.Runs[st.Run].Groups[st.Group].Items[taken[st]])
		taken[st]++
	}
	return out
}

func TestDecide(t *testing.T) {
	type test struct {
		snapshot engine.Snapshot
		want     [][]int64
		waits    []string
		held     []bool // nil: none
		wake     time.Time
	}
	tests := map[string]test{
		"idle workers get the first items in input order": {
			snapshot: engine.Snapshot{Idle: local(2), Runs: []engine.RunView{view(5, free(1, 2, 3))}},
			want:     [][]int64{{1, 2}}, waits: []string{"worker: all are busy"},
		},
		"a run never exceeds its limit": {
			snapshot: engine.Snapshot{Idle: local(9), Runs: []engine.RunView{{Limit: 3, LimitReason: "limit: 3 at once", Running: 1, Groups: []engine.Group{free(1, 2, 3, 4)}}}},
			want:     [][]int64{{1, 2}}, waits: []string{"limit: 3 at once"},
		},
		"a full pool holds back only the items that need it": {
			snapshot: engine.Snapshot{Idle: local(9), InUse: map[engine.PoolKey]int{{Name: "db"}: 2},
				Runs: []engine.RunView{view(9, in("db", 2, 1, 2), free(3))}},
			want: [][]int64{{3}}, waits: []string{"pool db: all 2 in use"},
		},
		"slots taken by this decision count": {
			snapshot: engine.Snapshot{Idle: local(9), Runs: []engine.RunView{view(9, in("db", 2, 1, 4, 5), in("x", 1, 2, 3))}},
			want:     [][]int64{{1, 2, 4}}, waits: []string{"pool x: all 1 in use"},
		},
		"an item that needs two pools waits for both": {
			snapshot: engine.Snapshot{Idle: local(9), InUse: map[engine.PoolKey]int{{Name: "b"}: 1}, Runs: []engine.RunView{view(9, engine.Group{
				Needs: []engine.Need{{Pool: engine.PoolKey{Name: "a"}, Slots: 1}, {Pool: engine.PoolKey{Name: "b"}, Slots: 1}}, Items: []int64{1}})}},
			want: [][]int64{nil}, waits: []string{"pool b: all 1 in use"},
		},
		"a pool is shared between runs, and each brings its own limit": {
			snapshot: engine.Snapshot{Idle: local(9), Runs: []engine.RunView{view(9, in("db", 3, 1, 2, 3)), view(9, in("db", 1, 1))}},
			want:     [][]int64{{1, 2, 3}, nil}, waits: []string{"", "pool db: all 1 in use"},
		},
		"owners take turns, the one with fewer live leases first": {
			snapshot: engine.Snapshot{Idle: local(3), Held: map[string]int{"ann": 1}, Runs: []engine.RunView{
				{Owner: "ann", Limit: 9, Groups: []engine.Group{free(1, 2, 3)}},
				{Owner: "bob", Limit: 9, Groups: []engine.Group{free(1, 2, 3)}}}},
			want: [][]int64{{1}, {1, 2}}, waits: []string{"worker: all are busy", "worker: all are busy"},
		},
		"among the runs of an owner priority comes before age": {
			snapshot: engine.Snapshot{Idle: local(1), Runs: []engine.RunView{view(9, free(1)), {Priority: 1, Limit: 9, Groups: []engine.Group{free(1)}}}},
			want:     [][]int64{nil, {1}}, waits: []string{"worker: all are busy", ""},
		},
		"a stopped run starts nothing and says why": {
			snapshot: engine.Snapshot{Idle: local(9), Runs: []engine.RunView{{Limit: 9, Stop: "paused by ann", Groups: []engine.Group{free(1)}}}},
			want:     [][]int64{nil}, waits: []string{"paused by ann"},
		},
		"a brake on everything comes before every other reason": {
			snapshot: engine.Snapshot{Idle: local(9), Stop: bulkhead.Verdict{Level: bulkhead.Stop, Reason: "store: disk full"},
				Runs: []engine.RunView{{Limit: 9, Stop: "paused by ann", Groups: []engine.Group{free(1)}}}},
			want: [][]int64{nil}, waits: []string{"store: disk full"},
		},
		"a slow rate spaces starts and says when the next is due": {
			snapshot: engine.Snapshot{Idle: local(9), Runs: []engine.RunView{{Limit: 9, Interval: time.Second, Groups: []engine.Group{free(1, 2)}}}},
			want:     [][]int64{{1}}, waits: []string{"rate: one start every 1s"}, wake: noon.Add(time.Second),
		},
		"a fast rate may catch up a tenth of a second": {
			snapshot: engine.Snapshot{Idle: local(99), Runs: []engine.RunView{{Limit: 99, Interval: 20 * time.Millisecond, NextStart: noon.Add(-time.Hour),
				Groups: []engine.Group{free(1, 2, 3, 4, 5, 6, 7, 8, 9)}}}},
			want: [][]int64{{1, 2, 3, 4, 5, 6}}, waits: []string{"rate: one start every 20ms"}, wake: noon.Add(20 * time.Millisecond),
		},
		"items that wait for a retry say when": {
			snapshot: engine.Snapshot{Idle: local(9), Runs: []engine.RunView{{Limit: 9, NextDue: noon.Add(3 * time.Second)}}},
			want:     [][]int64{nil}, waits: []string{"retry: the next attempt is due at 12:00:03"}, wake: noon.Add(3 * time.Second),
		},
		"a run that a verdict stops starts nothing, is held and says why": {
			snapshot: engine.Snapshot{Idle: local(9), Runs: []engine.RunView{stopped(view(9, free(1))), view(9, free(1))}},
			want:     [][]int64{nil, {1}}, waits: []string{"brake 1", ""}, held: []bool{true, false},
		},
		"it is held also when there is no worker": {
			snapshot: engine.Snapshot{Runs: []engine.RunView{stopped(view(9, free(1)))}},
			want:     [][]int64{nil}, waits: []string{"brake 1"}, held: []bool{true},
		},
		"it is not held when nothing of it waits": {
			snapshot: engine.Snapshot{Idle: local(9), Runs: []engine.RunView{stopped(engine.RunView{Limit: 9, Running: 3})}},
			want:     [][]int64{nil}, waits: []string{""},
		},
		"who paused it is said first": {
			snapshot: engine.Snapshot{Idle: local(9), Runs: []engine.RunView{stopped(engine.RunView{Limit: 9, Stop: "paused by ann", Groups: []engine.Group{free(1)}})}},
			want:     [][]int64{nil}, waits: []string{"paused by ann"},
		},
		"a run that a verdict slows has less at once": {
			snapshot: engine.Snapshot{Idle: local(9), Runs: []engine.RunView{slowed(0.5, view(5, free(1, 2, 3, 4, 5)))}},
			want:     [][]int64{{1, 2}}, waits: []string{"limit: 2 of 5: slowed: brake 1"},
		},
		"one at least goes on": {
			snapshot: engine.Snapshot{Idle: local(9), Runs: []engine.RunView{slowed(0.01, view(5, free(1, 2)))}},
			want:     [][]int64{{1}}, waits: []string{"limit: 1 of 5: slowed: brake 1"},
		},
		"a pool that is stopped holds back only the items that need it": {
			snapshot: engine.Snapshot{Idle: local(9), Pools: onPool("db", bulkhead.Verdict{Level: bulkhead.Stop, Reason: "brake 1"}),
				Runs: []engine.RunView{view(9, in("db", 4, 1, 2), free(3))}},
			want: [][]int64{{3}}, waits: []string{"brake 1"}, held: []bool{true},
		},
		"while others wait for a full pool the run is not held": {
			snapshot: engine.Snapshot{Idle: local(9), Pools: onPool("db", bulkhead.Verdict{Level: bulkhead.Stop, Reason: "brake 1"}),
				InUse: map[engine.PoolKey]int{{Name: "x"}: 1}, Runs: []engine.RunView{view(9, in("db", 4, 1), in("x", 1, 2))}},
			want: [][]int64{nil}, waits: []string{"brake 1"},
		},
		"a pool that is slowed has fewer slots": {
			snapshot: engine.Snapshot{Idle: local(9), Pools: onPool("db", bulkhead.Verdict{Level: bulkhead.Slow, Factor: 0.5, Reason: "brake 1"}),
				Runs: []engine.RunView{view(9, in("db", 4, 1, 2, 3))}},
			want: [][]int64{{1, 2}}, waits: []string{"pool db: all 2 of 4 in use: slowed: brake 1"},
		},
		"runs share a cap, and what runs counts": {
			snapshot: engine.Snapshot{Idle: local(9), Caps: []engine.Cap{{Limit: 4, Running: 1, Reason: "ramping up"}},
				Runs: []engine.RunView{capped(view(9, free(1, 2))), capped(view(9, free(1, 2, 3))), view(9, free(1))}},
			want: [][]int64{{1, 2}, {1}, {1}}, waits: []string{"", "ramping up", ""},
		},
		"a run without waiting items waits for nothing": {
			snapshot: engine.Snapshot{Idle: local(9), Runs: []engine.RunView{view(9)}},
			want:     [][]int64{nil}, waits: []string{""},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			tt.snapshot.Now = noon
			d := engine.Decide(tt.snapshot)
			if diff := cmp.Diff(tt.want, started(tt.snapshot, d)); diff != "" {
				t.Errorf("starts (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.waits, d.Waits); diff != "" {
				t.Errorf("waits (-want +got):\n%s", diff)
			}
			if tt.held == nil && !tt.snapshot.Stop.Stops() {
				tt.held = make([]bool, len(tt.snapshot.Runs))
			}
			if diff := cmp.Diff(tt.held, d.Held); diff != "" && tt.held != nil {
				t.Errorf("held (-want +got):\n%s", diff)
			}
			if !d.Wake.Equal(tt.wake) {
				t.Errorf("wake at %v, want %v", d.Wake, tt.wake)
			}
		})
	}
}

// drawSnapshot draws any snapshot that the engine could make.
func drawSnapshot(t *rapid.T) engine.Snapshot {
	s := engine.Snapshot{Now: noon, Idle: local(rapid.IntRange(0, 12).Draw(t, "idle")), InUse: map[engine.PoolKey]int{}, Held: map[string]int{}}
	pools := []engine.PoolKey{{Name: "a"}, {Name: "b", Key: "1"}, {Name: "b", Key: "2"}}
	s.Pools = map[engine.PoolKey]bulkhead.Verdict{}
	for _, p := range pools {
		s.InUse[p] = rapid.IntRange(0, 3).Draw(t, "in use")
		s.Pools[p] = drawVerdict(t)
	}
	for range rapid.IntRange(0, 2).Draw(t, "caps") {
		s.Caps = append(s.Caps, engine.Cap{Limit: rapid.IntRange(1, 8).Draw(t, "cap"), Running: rapid.IntRange(0, 8).Draw(t, "capped"), Reason: "ramp"})
	}
	for range rapid.IntRange(0, 4).Draw(t, "runs") {
		r := engine.RunView{Owner: rapid.SampledFrom([]string{"ann", "bob"}).Draw(t, "owner"), Priority: rapid.IntRange(-1, 1).Draw(t, "priority"),
			Limit: rapid.IntRange(1, 6).Draw(t, "limit"), LimitReason: "limit", Running: rapid.IntRange(0, 6).Draw(t, "running")}
		r.Stop = rapid.SampledFrom([]string{"", "", "", "paused"}).Draw(t, "stop")
		r.Verdict = drawVerdict(t)
		for i := range s.Caps {
			if rapid.Bool().Draw(t, "in cap") {
				r.Caps = append(r.Caps, i)
			}
		}
		r.Interval = rapid.SampledFrom([]time.Duration{0, 0, time.Millisecond, time.Second}).Draw(t, "interval")
		r.NextStart = noon.Add(rapid.SampledFrom([]time.Duration{-time.Hour, 0, time.Second}).Draw(t, "next start"))
		index := int64(1)
		for range rapid.IntRange(0, 4).Draw(t, "groups") {
			var g engine.Group
			for _, p := range pools {
				if rapid.Bool().Draw(t, "needs") {
					g.Needs = append(g.Needs, engine.Need{Pool: p, Slots: rapid.IntRange(1, 4).Draw(t, "slots")})
				}
			}
			for range rapid.IntRange(0, 4).Draw(t, "items") {
				g.Items = append(g.Items, index)
				index++
			}
			r.Groups = append(r.Groups, g)
		}
		s.Runs = append(s.Runs, r)
	}
	return s
}

func drawVerdict(t *rapid.T) bulkhead.Verdict {
	return rapid.SampledFrom([]bulkhead.Verdict{{}, {}, {}, {Level: bulkhead.Slow, Factor: 0.5, Reason: "slow"}, brake1}).Draw(t, "verdict")
}

func TestNoDecisionBreaksALimitAndEveryWaitHasAReason(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSnapshot(t)
		d := engine.Decide(s)
		if idle := s.Idle[bulkhead.Kind{}]; len(d.Starts) > idle {
			t.Fatalf("%d starts for %d idle workers", len(d.Starts), idle)
		}
		used, running, capped := map[engine.PoolKey]int{}, map[int]int{}, map[int]int{}
		for _, st := range d.Starts {
			r := s.Runs[st.Run]
			if r.Stop != "" || r.Verdict.Stops() {
				t.Fatal("a stopped run started something")
			}
			if running[st.Run]++; running[st.Run]+r.Running > r.Verdict.Slowed(r.Limit) {
				t.Fatal("a run exceeds its limit")
			}
			for _, i := range r.Caps {
				if capped[i]++; capped[i]+s.Caps[i].Running > s.Caps[i].Limit {
					t.Fatal("runs exceed their cap")
				}
			}
			for _, n := range r.Groups[st.Group].Needs {
				v := s.Pools[n.Pool]
				if used[n.Pool]++; v.Stops() || used[n.Pool]+s.InUse[n.Pool] > v.Slowed(n.Slots) {
					t.Fatalf("pool %s exceeds %d slots", n.Pool, n.Slots)
				}
			}
		}
		for i, items := range started(s, d) { // panics when a group gives more than it has
			waiting := -len(items)
			for _, g := range s.Runs[i].Groups {
				waiting += len(g.Items)
			}
			if waiting > 0 && d.Waits[i] == "" {
				t.Fatalf("run %d waits without a reason", i)
			}
			if d.Held[i] && d.Waits[i] != brake1.Reason || waiting > 0 && s.Runs[i].Stop == "" && s.Runs[i].Verdict.Stops() && !d.Held[i] {
				t.Fatalf("run %d: held %t, %q", i, d.Held[i], d.Waits[i])
			}
		}
		if diff := cmp.Diff(d, engine.Decide(s)); diff != "" {
			t.Fatalf("the same snapshot decides differently:\n%s", diff)
		}
	})
}
