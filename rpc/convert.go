package rpc

import (
	"fmt"
	"math"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"bulkhead.dev/bulkhead"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

// This file and its neighbours translate between messages and the words of
// package bulkhead, in both directions: XMessage makes a message, XOf reads
// one. There and back is the same, except for what only the server needs to know
// of a run. A message may come from anybody: XOf returns an error for what has
// no meaning, and never panics.

// unknown is an error for an enumeration's value that has no meaning here.
func unknown(what string, value int32) error {
	return &bulkhead.Error{Code: bulkhead.CodeUsage, Message: fmt.Sprintf("%s %d is not known", what, value),
		Hint: "use the same version of bulkhead on both sides"}
}

// text is a string that a message can carry. What comes from users was checked
// when it was accepted; what the system says may be any bytes.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// int32Of is the nearest number that a message can carry.
func int32Of(n int) int32 { return int32(min(max(n, math.MinInt32), math.MaxInt32)) }

func timeMessage(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// timeOf reads a time. One outside of the years 1 to 9999 could not be written
// back, and is none.
func timeOf(m *timestamppb.Timestamp) time.Time {
	if !m.IsValid() {
		return time.Time{}
	}
	return m.AsTime()
}

func durationMessage(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}

// durationOf reads a duration; one that is out of range is the nearest that is
// in it.
func durationOf(m *durationpb.Duration) time.Duration { return m.AsDuration() }

// CountsMessage and CountsOf translate Counts.
func CountsMessage(c bulkhead.Counts) *bulkheadv1.Counts {
	return &bulkheadv1.Counts{Queued: c.Queued, Running: c.Running, Succeeded: c.Succeeded,
		Failed: c.Failed, Lost: c.Lost, Cancelled: c.Cancelled}
}

// CountsOf is the inverse of CountsMessage.
func CountsOf(m *bulkheadv1.Counts) bulkhead.Counts {
	return bulkhead.Counts{Queued: m.GetQueued(), Running: m.GetRunning(), Succeeded: m.GetSucceeded(),
		Failed: m.GetFailed(), Lost: m.GetLost(), Cancelled: m.GetCancelled()}
}

// RunMessage makes a message of a run: all that is not the server's own business.
func RunMessage(r *bulkhead.Run) *bulkheadv1.Run {
	return &bulkheadv1.Run{
		Id: int64(r.ID), Spec: SpecMessage(&r.Spec), State: bulkheadv1.RunState(r.State), Held: r.Held, Reason: text(r.Reason),
		Counts: CountsMessage(r.Counts), Hash: text(r.Hash), Created: timeMessage(r.Created), Started: timeMessage(r.Started),
		Finished: timeMessage(r.Finished), ExitCode: int32Of(r.ExitCode), Limit: int32Of(r.Limit),
		Ending: bulkheadv1.RunState(r.Ending),
	}
}

// RunOf is the inverse of RunMessage.
func RunOf(m *bulkheadv1.Run) (*bulkhead.Run, error) {
	spec, err := SpecOf(m.GetSpec())
	if err != nil {
		return nil, err
	}
	state := bulkhead.RunState(m.GetState())
	if m.GetState() < bulkheadv1.RunState_RUN_STATE_ACCEPTING || m.GetState() > bulkheadv1.RunState_RUN_STATE_CANCELLED {
		return nil, unknown("state of a run", int32(m.GetState()))
	}
	ending := bulkhead.RunState(m.GetEnding())
	if m.GetEnding() != 0 && !ending.Finished() {
		return nil, unknown("state that a run ends in", int32(m.GetEnding()))
	}
	return &bulkhead.Run{
		ID: bulkhead.RunID(m.GetId()), Spec: *spec, State: state, Held: m.GetHeld(), Reason: m.GetReason(),
		Counts: CountsOf(m.GetCounts()), Hash: m.GetHash(), Created: timeOf(m.GetCreated()), Started: timeOf(m.GetStarted()),
		Finished: timeOf(m.GetFinished()), ExitCode: int(m.GetExitCode()), Limit: int(m.GetLimit()),
		Ending: ending,
	}, nil
}

// StreamMessage makes a message of a stream; 0, of a cut, is unspecified.
func StreamMessage(s bulkhead.Stream) bulkheadv1.Stream { return bulkheadv1.Stream(s) }

// ChunkMessage makes a message of a chunk. It shares the chunk's data.
func ChunkMessage(c bulkhead.Chunk) *bulkheadv1.Chunk {
	return &bulkheadv1.Chunk{Stream: bulkheadv1.Stream(c.Stream), At: timeMessage(c.At), Data: c.Data, Dropped: c.Dropped}
}

// ChunkOf is the inverse of ChunkMessage.
func ChunkOf(m *bulkheadv1.Chunk) (bulkhead.Chunk, error) {
	c := bulkhead.Chunk{Stream: bulkhead.Stream(m.GetStream()), At: timeOf(m.GetAt()), Data: m.GetData(), Dropped: m.GetDropped()}
	switch {
	case m.GetStream() < 0 || m.GetStream() > bulkheadv1.Stream_STREAM_STDERR:
		return bulkhead.Chunk{}, unknown("stream", int32(m.GetStream()))
	case c.Stream == 0 && len(c.Data) > 0:
		return bulkhead.Chunk{}, &bulkhead.Error{Code: bulkhead.CodeUsage, Message: "a chunk with data names no stream"}
	case c.Dropped < 0:
		return bulkhead.Chunk{}, &bulkhead.Error{Code: bulkhead.CodeUsage, Message: fmt.Sprintf("dropped %d is less than 0", c.Dropped)}
	}
	return c, nil
}

// PositionMessage makes a message of a position.
func PositionMessage(p bulkhead.Position) *bulkheadv1.Position {
	return &bulkheadv1.Position{Segment: p.Segment, Offset: p.Offset, Attempt: p.Attempt}
}

// PositionOf is the inverse of PositionMessage. It does not look whether there
// is such a place.
func PositionOf(m *bulkheadv1.Position) bulkhead.Position {
	return bulkhead.Position{Segment: m.GetSegment(), Offset: m.GetOffset(), Attempt: m.GetAttempt()}
}
