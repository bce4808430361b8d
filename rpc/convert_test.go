package rpc_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/rpc"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

// over is what arrives of a message on the other side.
func over[M proto.Message](t *rapid.T, m M) M {
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	got := m.ProtoReflect().New().Interface().(M)
	if err := proto.Unmarshal(b, got); err != nil {
		t.Fatal(err)
	}
	return got
}

func same(t *rapid.T, want, got any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Fatalf("there and back (-want +got):\n%s", d)
	}
}

func must[T any](t *rapid.T) func(v T, err error) T {
	return func(v T, err error) T {
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// Generators of what the words can say.
var (
	someText = rapid.String()
	anyBytes = rapid.Custom(func(t *rapid.T) string { return string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes")) })
	number   = rapid.IntRange(0, 1<<31-1)
	count    = rapid.Int64Min(0)
	someTime = rapid.Custom(func(t *rapid.T) time.Time {
		if rapid.Bool().Draw(t, "none") {
			return time.Time{}
		}
		return time.UnixMicro(rapid.Int64Range(0, 1<<52).Draw(t, "µs")).UTC()
	})
	period = rapid.Custom(func(t *rapid.T) time.Duration { return time.Duration(rapid.Int64Min(0).Draw(t, "ns")) })
)

// list is nil or has something in it: a message knows no other.
func list[T any](g *rapid.Generator[T]) *rapid.Generator[[]T] {
	return rapid.Custom(func(t *rapid.T) []T {
		n := rapid.IntRange(0, 4).Draw(t, "n")
		if n == 0 {
			return nil
		}
		return rapid.SliceOfN(g, n, n).Draw(t, "list")
	})
}

var someSpec = rapid.Custom(func(t *rapid.T) *bulkhead.Spec {
	s := &bulkhead.Spec{
		Name: someText.Draw(t, "name"), Comment: someText.Draw(t, "comment"), Owner: someText.Draw(t, "owner"),
		Class: someText.Draw(t, "class"), Command: list(someText).Draw(t, "command"), Env: list(someText).Draw(t, "env"),
		Dir: someText.Draw(t, "dir"), StdinFile: someText.Draw(t, "stdin file"), InputDir: someText.Draw(t, "input dir"),
		Columns: list(someText).Draw(t, "columns"), Limit: number.Draw(t, "limit"), Timeout: period.Draw(t, "timeout"),
		Grace: period.Draw(t, "grace"), Retries: number.Draw(t, "retries"), RetryDelay: period.Draw(t, "delay"),
		Canary: number.Draw(t, "canary"), Priority: rapid.IntRange(-1<<31, 1<<31-1).Draw(t, "priority"),
		MaxOutput: count.Draw(t, "output"), Announce: rapid.Bool().Draw(t, "announce"),
		Shape: bulkhead.Shape{Image: someText.Draw(t, "image"), CPU: someText.Draw(t, "cpu"), Memory: someText.Draw(t, "memory")},
	}
	if rapid.Bool().Draw(t, "reads") {
		stdin := someText.Draw(t, "stdin")
		s.Stdin = &stdin
	}
	if rapid.Bool().Draw(t, "paced") {
		s.Rate = bulkhead.Rate{Count: rapid.Float64Range(0.1, 1e6).Draw(t, "rate"),
			Per: rapid.SampledFrom([]time.Duration{time.Second, time.Minute, time.Hour}).Draw(t, "per")}
	}
	if rapid.Bool().Draw(t, "halts") {
		s.Halt = bulkhead.Halt{Now: rapid.Bool().Draw(t, "now"), Fail: rapid.Int64Min(1).Draw(t, "fail")}
	}
	s.Files = list(rapid.Custom(func(t *rapid.T) bulkhead.File {
		return bulkhead.File{SHA256: someText.Draw(t, "hash"), Size: count.Draw(t, "size"), Path: someText.Draw(t, "path"),
			Executable: rapid.Bool().Draw(t, "x")}
	})).Draw(t, "files")
	s.Inputs = list(rapid.Custom(func(t *rapid.T) bulkhead.Source {
		return bulkhead.Source{Name: someText.Draw(t, "name"), From: someText.Draw(t, "from"), CSV: rapid.Bool().Draw(t, "csv"),
			Values: list(someText).Draw(t, "values")}
	})).Draw(t, "inputs")
	s.Pools = list(rapid.Custom(func(t *rapid.T) bulkhead.PoolUse {
		return bulkhead.PoolUse{Name: someText.Draw(t, "name"), Key: someText.Draw(t, "key"), Slots: number.Draw(t, "slots")}
	})).Draw(t, "pools")
	return s
})

var someItem = rapid.Custom(func(t *rapid.T) bulkhead.Item {
	return bulkhead.Item{Index: count.Draw(t, "index"), Values: list(anyBytes).Draw(t, "values")}
})

var someResult = rapid.Custom(func(t *rapid.T) bulkhead.Result {
	return bulkhead.Result{
		State: rapid.SampledFrom([]bulkhead.ItemState{bulkhead.ItemSucceeded, bulkhead.ItemFailed, bulkhead.ItemLost,
			bulkhead.ItemCancelled, bulkhead.ItemQueued, bulkhead.ItemRunning}).Draw(t, "state"),
		How: rapid.SampledFrom([]bulkhead.How{bulkhead.HowExit, bulkhead.HowSignal, bulkhead.HowTimeout, bulkhead.HowStart,
			bulkhead.HowCancel, bulkhead.HowLost, bulkhead.HowInterrupt}).Draw(t, "how"),
		ExitCode: number.Draw(t, "code"), Signal: number.Draw(t, "signal"), Error: someText.Draw(t, "error"),
		Started: someTime.Draw(t, "started"), Duration: period.Draw(t, "duration"), CPU: period.Draw(t, "cpu"),
		PeakMemory: count.Draw(t, "memory"), Output: bulkhead.OutputRef{Bytes: count.Draw(t, "bytes"), Dropped: count.Draw(t, "dropped")},
	}
})

func TestASpecIsTheSameThereAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := someSpec.Draw(t, "spec")
		same(t, s, must[*bulkhead.Spec](t)(rpc.SpecOf(over(t, rpc.SpecMessage(s)))))
	})
}

func TestARunIsTheSameThereAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := &bulkhead.Run{
			ID: bulkhead.RunID(count.Draw(t, "id")), Spec: *someSpec.Draw(t, "spec"),
			State: bulkhead.RunState(rapid.IntRange(1, 6).Draw(t, "state")), Held: rapid.Bool().Draw(t, "held"),
			Reason: someText.Draw(t, "reason"), Hash: someText.Draw(t, "hash"), Created: someTime.Draw(t, "created"),
			Started: someTime.Draw(t, "started"), Finished: someTime.Draw(t, "finished"), ExitCode: number.Draw(t, "code"),
			Limit: number.Draw(t, "limit"), Ending: rapid.SampledFrom([]bulkhead.RunState{0, bulkhead.RunSucceeded, bulkhead.RunFailed, bulkhead.RunCancelled}).Draw(t, "ending"),
			Counts: bulkhead.Counts{Queued: count.Draw(t, "q"), Running: count.Draw(t, "r"), Succeeded: count.Draw(t, "s"),
				Failed: count.Draw(t, "f"), Lost: count.Draw(t, "l"), Cancelled: count.Draw(t, "c")},
		}
		same(t, r, must[*bulkhead.Run](t)(rpc.RunOf(over(t, rpc.RunMessage(r)))))
	})
}

func TestAnItemWithWhatHappenedToItIsTheSameThereAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := bulkhead.ItemStatus{Item: someItem.Draw(t, "item"), State: someResult.Draw(t, "state").State}
		if rapid.Bool().Draw(t, "started") {
			s.Attempt = bulkhead.Attempt{Run: 7, Item: s.Index, N: rapid.IntRange(1, 1<<31-1).Draw(t, "n"),
				Final: rapid.Bool().Draw(t, "final"), Result: someResult.Draw(t, "result"), Worker: someText.Draw(t, "worker")}
		}
		same(t, s, must[bulkhead.ItemStatus](t)(rpc.ItemStatusOf(7, over(t, rpc.ItemStatusMessage(s)))))
	})
}

func TestOutputIsTheSameThereAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := bulkhead.Chunk{At: someTime.Draw(t, "at"), Dropped: count.Draw(t, "dropped")}
		if data := anyBytes.Draw(t, "data"); data != "" {
			c.Stream = bulkhead.Stream(rapid.IntRange(1, 2).Draw(t, "stream"))
			c.Data = []byte(data)
		}
		same(t, c, must[bulkhead.Chunk](t)(rpc.ChunkOf(over(t, rpc.ChunkMessage(c)))))
		p := bulkhead.Position{Segment: count.Draw(t, "segment"), Offset: count.Draw(t, "offset"), Attempt: count.Draw(t, "attempt")}
		same(t, p, rpc.PositionOf(over(t, rpc.PositionMessage(p))))
	})
}

func TestTextThatIsNoUTF8CanBeSent(t *testing.T) {
	m := rpc.ResultMessage(bulkhead.Result{Error: "exec \xff: no"})
	if _, err := proto.Marshal(m); err != nil || m.GetError() != "exec \uFFFD: no" {
		t.Fatal(m, err)
	}
}

func TestValuesThatHaveNoMeaningAreRefused(t *testing.T) {
	for name, err := range map[string]error{
		"a state of a run":    func() error { _, err := rpc.RunOf(&bulkheadv1.Run{State: 9}); return err }(),
		"no state of a run":   func() error { _, err := rpc.RunOf(nil); return err }(),
		"no state of an item": func() error { _, err := rpc.ItemStatusOf(1, nil); return err }(),
		"an end":              func() error { _, err := rpc.ResultOf(&bulkheadv1.Result{State: 1, How: 99}); return err }(),
		"a stream":            func() error { _, err := rpc.ChunkOf(&bulkheadv1.Chunk{Stream: -1}); return err }(),
		"data of no stream":   func() error { _, err := rpc.ChunkOf(&bulkheadv1.Chunk{Data: []byte("x")}); return err }(),
		"a rate":              func() error { _, err := rpc.SpecOf(&bulkheadv1.Spec{Rate: "fast"}); return err }(),
	} {
		if bulkhead.CodeOf(err) != bulkhead.CodeUsage {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzConversions: whatever arrives, reading it does not panic, and what could
// be read can be written.
func FuzzConversions(f *testing.F) {
	f.Add([]byte(nil))
	stdin := "x"
	b, _ := proto.Marshal(rpc.SpecMessage(&bulkhead.Spec{Command: []string{"true"}, Stdin: &stdin, Rate: bulkhead.Rate{Count: 5, Per: time.Second}}))
	f.Add(b)
	b, _ = proto.Marshal(rpc.RunMessage(&bulkhead.Run{ID: 1, State: bulkhead.RunRunning, Created: time.Unix(1, 0)}))
	f.Add(b)
	b, _ = proto.Marshal(rpc.ItemStatusMessage(bulkhead.ItemStatus{Item: bulkhead.Item{Index: 1, Values: []string{"a"}}, Attempt: bulkhead.Attempt{N: 1}}))
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		write := func(m proto.Message) {
			if _, err := proto.Marshal(m); err != nil {
				t.Fatal(err)
			}
		}
		var run bulkheadv1.Run
		if proto.Unmarshal(b, &run) == nil {
			if r, err := rpc.RunOf(&run); err == nil {
				write(rpc.RunMessage(r))
			}
		}
		var spec bulkheadv1.Spec
		if proto.Unmarshal(b, &spec) == nil {
			if s, err := rpc.SpecOf(&spec); err == nil {
				write(rpc.SpecMessage(s))
			}
		}
		var item bulkheadv1.ItemStatus
		if proto.Unmarshal(b, &item) == nil {
			if s, err := rpc.ItemStatusOf(1, &item); err == nil {
				write(rpc.ItemStatusMessage(s))
			}
		}
		var chunk bulkheadv1.Chunk
		if proto.Unmarshal(b, &chunk) == nil {
			if c, err := rpc.ChunkOf(&chunk); err == nil {
				write(rpc.ChunkMessage(c))
			}
		}
	})
}
