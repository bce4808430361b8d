package agent_test

import (
	"context"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/agent"
)

// nothing is a Runner whose scripts take no time.
type nothing struct{}

func (nothing) Run(_ context.Context, _ agent.Job, out agent.Sink) bulkhead.Result {
	_ = out.Write(1, time.Now(), []byte("hello\n")) // it has room
	return bulkhead.Result{Started: time.Now()}
}

// BenchmarkItems is what an item costs beside its script: agents and the server of
// the tests, in one process, over TLS.
func BenchmarkItems(b *testing.B) {
	s := newServer(b)
	for range b.N {
		s.add(lease("true"))
	}
	ctx, cancel := context.WithCancel(context.Background())
	var agents sync.WaitGroup
	b.ResetTimer()
	for n := range 20 {
		agents.Go(func() {
			client, end := s.client()
			defer end()
			_ = agent.New(agent.Options{
				Client: client, Runner: nothing{}, API: 1, Echo: io.Discard,
				Agent: bulkhead.Agent{Name: fmt.Sprint("agent", n), Kind: bulkhead.Kind{Class: "c"}},
			}).Run(ctx)
		})
	}
	s.until(b, "all are finished", func() bool { return s.over == b.N })
	b.StopTimer()
	cancel()
	agents.Wait()
}
