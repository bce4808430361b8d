package worker_test

import (
	"testing"

	"golang.org/x/sys/unix"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/worker"
)

// A signal may come at any moment of a start, and reaches the script.
func TestASignalIsPassedOnHoweverEarlyItComes(t *testing.T) {
	w := openWorker(t, worker.Options{})
	for range 50 {
		ended := make(chan bulkhead.Result, 1)
		go func() { ended <- w.Run(t.Context(), worker.Job{Args: []string{"sleep", "60"}, Dir: "/"}, nil) }()
		for w.Signal(unix.SIGTERM) == 0 {
		}
		if r := <-ended; r.How != bulkhead.HowSignal || r.Signal != int(unix.SIGTERM) {
			t.Fatalf("%+v", r)
		}
	}
	if n := w.Signal(unix.SIGTERM); n != 0 {
		t.Errorf("%d scripts got a signal, and none runs", n)
	}
}
