package bulkhead

import (
	"fmt"
	"time"
)

// RunID identifies a run within one store. It counts up from 1, so that a
// person can read it out over the phone.
type RunID int64

func (id RunID) String() string { return fmt.Sprint(int64(id)) }

// RunState is what a run is doing. Its values are stored: do not reorder them.
type RunState uint8

// The life of a run: accepting → running ⇄ paused → succeeded | failed | cancelled.
// Held is never stored; it is how a running run is shown while a verdict lets
// nothing start.
const (
	RunAccepting RunState = iota + 1
	RunRunning
	RunPaused
	RunSucceeded
	RunFailed
	RunCancelled
	RunHeld
)

var runStateNames = [...]string{
	RunAccepting: "accepting", RunRunning: "running", RunPaused: "paused",
	RunSucceeded: "succeeded", RunFailed: "failed", RunCancelled: "cancelled", RunHeld: "held",
}

func (s RunState) String() string {
	if int(s) < len(runStateNames) && s > 0 {
		return runStateNames[s]
	}
	return fmt.Sprintf("RunState(%d)", uint8(s))
}

// Finished reports whether nothing of the run will start again by itself.
func (s RunState) Finished() bool {
	return s == RunSucceeded || s == RunFailed || s == RunCancelled
}

// Counts says how many items of a run are in each state. They are written in
// the transaction that changes what they count.
type Counts struct {
	Queued    int64 `json:"queued"`
	Running   int64 `json:"running"`
	Succeeded int64 `json:"succeeded"`
	Failed    int64 `json:"failed"`
	Lost      int64 `json:"lost"`
	Cancelled int64 `json:"cancelled"`
}

// Total is the number of items.
func (c Counts) Total() int64 {
	return c.Queued + c.Running + c.Succeeded + c.Failed + c.Lost + c.Cancelled
}

// Finished is the number of items that have their last result.
func (c Counts) Finished() int64 { return c.Succeeded + c.Failed + c.Lost + c.Cancelled }

// Done is the number of items that have run and ended, well or not. Cancelled ones
// are finished, too, but nobody would call them done.
func (c Counts) Done() int64 { return c.Succeeded + c.Failed + c.Lost }

// Since is what has succeeded, failed or been lost since the counters were those.
func (c Counts) Since(before Counts) Counts {
	return Counts{Succeeded: c.Succeeded - before.Succeeded, Failed: c.Failed - before.Failed, Lost: c.Lost - before.Lost}
}

// Of returns the counter of one item state, to be read or changed.
func (c *Counts) Of(s ItemState) *int64 {
	switch s {
	case ItemQueued:
		return &c.Queued
	case ItemRunning:
		return &c.Running
	case ItemSucceeded:
		return &c.Succeeded
	case ItemFailed:
		return &c.Failed
	case ItemLost:
		return &c.Lost
	default:
		return &c.Cancelled
	}
}

// Source is one --each or --csv input as the user wrote it.
type Source struct {
	Name   string   `json:"name,omitempty"`   // column name; "" numbers the columns 1, 2, …
	From   string   `json:"from"`             // file, -, a,b,c, 0..99, 0..99..2, glob:PATTERN; for CSV a file or -
	CSV    bool     `json:"csv,omitempty"`    // the header names the columns
	Values []string `json:"values,omitempty"` // the values themselves, as a run file lists them; From is ""
}

// Spec is what a user asks for. The zero value of every field but Command is
// usable and stands for the documented default. It is stored as JSON.
type Spec struct {
	Name    string `json:"name,omitempty"`    // default: the base name of the command
	Comment string `json:"comment,omitempty"` // why; often a task number
	Owner   string `json:"owner,omitempty"`   // user@host
	Class   string `json:"class,omitempty"`   // of the workers; "": this process
	Shape   Shape  `json:"shape,omitzero"`    // what is to be different from the class

	Command []string `json:"command"`         // templates, one per argument; never joined into a shell line
	Env     []string `json:"env,omitempty"`   // NAME=TEMPLATE, on top of the environment of the bulkhead process
	Dir     string   `json:"dir"`             // absolute working folder
	Stdin   *string  `json:"stdin,omitempty"` // template; nil: nothing to read
	// StdinFile is the SHA-256 of a file of the server that every attempt reads.
	StdinFile string `json:"stdin_file,omitempty"`
	// Interactive: what the script reads comes from who is attached to it. Terminal:
	// it runs in a terminal, which is as large as Window at first.
	Interactive bool   `json:"interactive,omitempty"`
	Terminal    bool   `json:"terminal,omitempty"`
	Window      Window `json:"window,omitzero"`

	Files  []File   `json:"files,omitempty"` // beside every attempt
	Inputs []Source `json:"inputs,omitempty"`
	// InputDir is the absolute folder that relative inputs are in.
	InputDir string    `json:"input_dir,omitempty"`
	Columns  []string  `json:"columns,omitempty"` // of every item, in order; empty: one item, nothing is replaced
	Pools    []PoolUse `json:"pools,omitempty"`

	Limit      int           `json:"limit"`                 // items at once; at least 1
	Rate       Rate          `json:"rate,omitzero"`         // starts; zero: unlimited
	Timeout    time.Duration `json:"timeout,omitempty"`     // of one attempt; 0: none
	Grace      time.Duration `json:"grace,omitempty"`       // between SIGTERM and SIGKILL
	Retries    int           `json:"retries,omitempty"`     // further attempts of a failed item
	RetryDelay time.Duration `json:"retry_delay,omitempty"` // before the first retry; doubles up to MaxRetryDelay
	Halt       Halt          `json:"halt,omitzero"`
	Canary     int           `json:"canary,omitempty"`     // items to finish well before the rest may start
	Priority   int           `json:"priority,omitempty"`   // higher first, among the runs of one owner
	MaxOutput  int64         `json:"max_output,omitempty"` // bytes kept per attempt, both streams together
	// Announce has a server write a line into its admin log when the run starts and
	// when it ends.
	Announce bool `json:"announce,omitempty"`
}

// Defaults of a Spec.
const (
	DefaultGrace      = 10 * time.Second
	DefaultRetryDelay = time.Second
	MaxRetryDelay     = 5 * time.Minute
	// MaxGrace bounds what comes on top of the time that a lease is kept.
	MaxGrace         = 24 * time.Hour
	DefaultMaxOutput = 64 << 20
)

// Single reports whether the run is one script rather than a batch: no input
// source was given, so its output streams through and its exit code is the
// caller's.
func (s *Spec) Single() bool { return len(s.Columns) == 0 }

// Run is a run as stored.
type Run struct {
	ID       RunID
	Spec     Spec
	State    RunState
	Held     bool   // State is RunRunning and a verdict lets nothing start
	Reason   string // one line: why it waits, was paused, halted or cancelled; "" when there is nothing to say
	Counts   Counts
	Hash     string // SHA-256 of the accepted items, hex; "" while accepting
	Created  time.Time
	Started  time.Time // first attempt; zero: none yet
	Finished time.Time
	ExitCode int // of a single script, once finished
	Limit    int // items at once, now; starts as Spec.Limit
	// Next is the lowest index that was never leased. Items from Next on that
	// were leased out of order have a lease or an attempt.
	Next int64
	// TailCancelled says that items from Next on without a row are cancelled,
	// not queued: the run was cancelled or halted before they were leased.
	TailCancelled bool
	// Ending is the state that the run takes once nothing of it runs any more,
	// because it was cancelled or halted; 0 otherwise.
	Ending RunState
	// Forgiven is what had ended when items were last retried: a halt counts what
	// ends from there on, or a run that has halted could never be finished.
	Forgiven Counts
	// CanaryDone says that somebody looked at the canary and let the run go on.
	CanaryDone bool
	// Key is the submitter's name for the run, so that a submission can be
	// repeated; "": none.
	Key string
	// Mark is the worker mark of the process that last owned the run, see
	// package worker. Its leftovers are ended before another process goes on.
	Mark uint64
}

// RunQuery says which runs are asked for: those that are not over, those that ended
// since, or both; all if it says neither.
type RunQuery struct {
	Before        RunID // only those with a lower number; 0: from the newest
	Limit         int   // at most; 0: all
	Unfinished    bool
	FinishedAfter time.Time
}

// Stopping begins the reason of a run that starts nothing more while what runs
// of it goes on to its end.
const Stopping = "stopping: "

// Shown is the state to show: held while a verdict lets nothing start.
func (r *Run) Shown() RunState {
	if r.State == RunRunning && r.Held {
		return RunHeld
	}
	return r.State
}
