package announce

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/webhook"
)

// Message is what is posted, as JSON. Its field names are a contract: add, never
// rename. Times are RFC 3339.
type Message struct {
	Event    Kind            `json:"event"` // start, end, or more: of several runs that are alike
	Text     string          `json:"text"`  // the one line, which chat systems show
	Time     time.Time       `json:"time"`
	Run      bulkhead.RunID  `json:"run"` // of more: the first
	Owner    string          `json:"owner"`
	Name     string          `json:"name"`
	Command  string          `json:"command"` // cut
	Comment  string          `json:"comment"`
	Class    string          `json:"class"`
	Items    int64           `json:"items"`
	Started  *time.Time      `json:"started"`          // null: nothing of it ran
	State    string          `json:"state"`            // running, or what it ended as
	Reason   string          `json:"reason"`           // why it was cancelled or halted
	Counts   bulkhead.Counts `json:"counts"`           // items by state
	ExitCode *int            `json:"exit_code"`        // of a single script that has ended, else null
	Seconds  *float64        `json:"duration_seconds"` // of a run that has ended, else null
	More     *Gathered       `json:"more,omitempty"`   // of more: what they did
}

// Message is the line as it is posted.
func (l *Line) Message() Message {
	m := Message{
		Event: l.Kind, Text: l.Who() + ": " + l.Text(), Time: l.At.UTC(), Run: l.Run, Owner: l.Owner, Name: l.Name, Command: l.Command,
		Comment: l.Comment, Class: l.Class, Items: l.Counts.Total(), State: l.State.String(), Reason: l.Reason, Counts: l.Counts, More: l.Gathered,
	}
	if !l.Started.IsZero() {
		started := l.Started.UTC()
		m.Started = &started
	}
	if l.Kind != KindEnd {
		return m
	}
	if l.Single && l.State.Finished() {
		m.ExitCode = &l.ExitCode
	}
	if took, ok := l.took(); ok {
		seconds := took.Seconds()
		m.Seconds = &seconds
	}
	return m
}

// poster posts lines.
type poster struct{ *webhook.Poster }

func usage(hint, format string, args ...any) error {
	return &bulkhead.Error{Code: bulkhead.CodeUsage, Message: fmt.Sprintf(format, args...), Hint: hint}
}

func (p poster) name() string     { return "webhook" }
func (p poster) wants(*Line) bool { return true }
func (p poster) close()           { p.Close() }

// send implements sender.
func (p poster) send(ctx context.Context, line *Line) error {
	body, err := json.Marshal(line.Message())
	if err != nil {
		return refused{err}
	}
	if err = p.Post(ctx, body); webhook.IsRefused(err) {
		return refused{err}
	}
	return err
}
