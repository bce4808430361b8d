package rpc

import (
	"math"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"bulkhead.dev/bulkhead"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

// SpecMessage makes a message of a spec.
func SpecMessage(s *bulkhead.Spec) *bulkheadv1.Spec {
	m := &bulkheadv1.Spec{
		Name: text(s.Name), Comment: text(s.Comment), Owner: text(s.Owner), Class: text(s.Class),
		Command: texts(s.Command), Env: texts(s.Env), Dir: text(s.Dir), Inputs: each(s.Inputs, SourceMessage),
		InputDir: text(s.InputDir), Columns: texts(s.Columns), Pools: each(s.Pools, PoolMessage),
		Limit: int32Of(s.Limit), Rate: s.Rate.String(), Timeout: durationMessage(s.Timeout), Grace: durationpb.New(s.Grace),
		Retries: int32Of(s.Retries), RetryDelay: durationpb.New(s.RetryDelay), Halt: s.Halt.String(),
		Canary: int32Of(s.Canary), Priority: int32Of(s.Priority), MaxOutput: s.MaxOutput,
		Files: each(s.Files, FileMessage), StdinFile: text(s.StdinFile), Shape: ShapeMessage(s.Shape),
		Interactive: s.Interactive, Terminal: s.Terminal, Window: WindowMessage(s.Window),
		Announce: s.Announce,
	}
	if s.Stdin != nil {
		stdin := text(*s.Stdin)
		m.Stdin = &stdin
	}
	return m
}

// SpecOf is the inverse of SpecMessage. It reads what has a form, and does not
// look whether the whole makes sense: that is Spec.Check.
func SpecOf(m *bulkheadv1.Spec) (*bulkhead.Spec, error) {
	s := &bulkhead.Spec{
		Name: m.GetName(), Comment: m.GetComment(), Owner: m.GetOwner(), Class: m.GetClass(),
		Command: slices.Clone(m.GetCommand()), Env: slices.Clone(m.GetEnv()), Dir: m.GetDir(), Inputs: each(m.GetInputs(), SourceOf),
		InputDir: m.GetInputDir(), Columns: slices.Clone(m.GetColumns()), Pools: each(m.GetPools(), PoolOf),
		Limit: int(m.GetLimit()), Timeout: durationOf(m.GetTimeout()), Grace: orDefault(m.GetGrace(), bulkhead.DefaultGrace),
		Retries: int(m.GetRetries()), RetryDelay: orDefault(m.GetRetryDelay(), bulkhead.DefaultRetryDelay),
		Canary: int(m.GetCanary()), Priority: int(m.GetPriority()), MaxOutput: m.GetMaxOutput(),
		Files: each(m.GetFiles(), FileOf), StdinFile: m.GetStdinFile(), Shape: ShapeOf(m.GetShape()),
		Interactive: m.GetInteractive(), Terminal: m.GetTerminal(), Window: WindowOf(m.GetWindow()),
		Announce: m.GetAnnounce(),
	}
	if m != nil && m.Stdin != nil {
		stdin := m.GetStdin()
		s.Stdin = &stdin
	}
	if err := s.Rate.UnmarshalText([]byte(m.GetRate())); err != nil {
		return nil, err
	}
	if err := s.Halt.UnmarshalText([]byte(m.GetHalt())); err != nil {
		return nil, err
	}
	return s, nil
}

// orDefault reads a duration of which none is not the same as zero.
func orDefault(m *durationpb.Duration, none time.Duration) time.Duration {
	if m == nil {
		return none
	}
	return durationOf(m)
}

// SourceMessage makes a message of a source.
func SourceMessage(s bulkhead.Source) *bulkheadv1.Source {
	return &bulkheadv1.Source{Name: text(s.Name), From: text(s.From), Csv: s.CSV, Values: texts(s.Values)}
}

// SourceOf is the inverse of SourceMessage.
func SourceOf(m *bulkheadv1.Source) bulkhead.Source {
	return bulkhead.Source{Name: m.GetName(), From: m.GetFrom(), CSV: m.GetCsv(), Values: slices.Clone(m.GetValues())}
}

// PoolMessage makes a message of a pool.
func PoolMessage(p bulkhead.PoolUse) *bulkheadv1.Pool {
	return &bulkheadv1.Pool{Name: text(p.Name), Key: text(p.Key), Slots: int32Of(p.Slots)}
}

// PoolOf is the inverse of PoolMessage.
func PoolOf(m *bulkheadv1.Pool) bulkhead.PoolUse {
	return bulkhead.PoolUse{Name: m.GetName(), Key: m.GetKey(), Slots: int(m.GetSlots())}
}

// FileMessage makes a message of a file.
func FileMessage(f bulkhead.File) *bulkheadv1.File {
	return &bulkheadv1.File{Sha256: text(f.SHA256), Size: f.Size, Path: text(f.Path), Executable: f.Executable}
}

// FileOf is the inverse of FileMessage.
func FileOf(m *bulkheadv1.File) bulkhead.File {
	return bulkhead.File{SHA256: m.GetSha256(), Size: m.GetSize(), Path: m.GetPath(), Executable: m.GetExecutable()}
}

// ShapeMessage makes a message of a shape; none for a class as it is.
func ShapeMessage(s bulkhead.Shape) *bulkheadv1.Shape {
	if s == (bulkhead.Shape{}) {
		return nil
	}
	return &bulkheadv1.Shape{Image: text(s.Image), Cpu: text(s.CPU), Memory: text(s.Memory)}
}

// ShapeOf is the inverse of ShapeMessage.
func ShapeOf(m *bulkheadv1.Shape) bulkhead.Shape {
	return bulkhead.Shape{Image: m.GetImage(), CPU: m.GetCpu(), Memory: m.GetMemory()}
}

// WindowMessage makes a message of a size; none for one that is not known.
func WindowMessage(w bulkhead.Window) *bulkheadv1.Window {
	if w == (bulkhead.Window{}) {
		return nil
	}
	return &bulkheadv1.Window{Rows: int32(w.Rows), Columns: int32(w.Columns)}
}

// WindowOf is the inverse of WindowMessage. A size that no terminal has is the
// nearest that one can have.
func WindowOf(m *bulkheadv1.Window) bulkhead.Window {
	fit := func(n int32) uint16 { return uint16(min(max(n, 0), math.MaxUint16)) }
	return bulkhead.Window{Rows: fit(m.GetRows()), Columns: fit(m.GetColumns())}
}

// texts is text for a list; an empty one is none, in both directions.
func texts(in []string) []string { return each(in, text) }

// each translates a list; an empty one is none, so that there and back is the same.
func each[From, To any](in []From, one func(From) To) []To {
	if len(in) == 0 {
		return nil
	}
	out := make([]To, len(in))
	for i, v := range in {
		out[i] = one(v)
	}
	return out
}

// eachOf is each for what may have no meaning.
func eachOf[From, To any](in []From, one func(From) (To, error)) ([]To, error) {
	if len(in) == 0 {
		return nil, nil
	}
	out := make([]To, len(in))
	for i, v := range in {
		var err error
		if out[i], err = one(v); err != nil {
			return nil, err
		}
	}
	return out, nil
}
