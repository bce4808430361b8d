package agent

import (
	"bytes"
	"encoding/json"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"bulkhead.dev/bulkhead"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

const (
	// echoLine is the longest piece of a line in one object, in bytes. Container
	// runtimes cut what is longer themselves (16 KiB, kubelet's CRI log format).
	echoLine = 16<<10 - 512
	// echoBuffer is what may wait for a reader, in bytes. Whoever reads our output
	// must not be able to stop a script.
	echoBuffer = 1 << 20
	echoTime   = time.Second // to write the last lines at the end
)

// echo writes output of attempts to the agent's own standard output, for the log
// pipeline of a cluster.
type echo struct {
	w       io.Writer
	ch      chan []byte
	waiting atomic.Int64 // bytes in ch
	dropped atomic.Int64 // lines that found no room
	over    sync.WaitGroup
}

func newEcho(w io.Writer) *echo {
	if w == nil {
		return nil
	}
	e := &echo{w: w, ch: make(chan []byte, 4096)}
	e.over.Go(e.run)
	return e
}

func (e *echo) run() {
	for line := range e.ch {
		_, err := e.w.Write(line)
		e.waiting.Add(-int64(len(line)))
		if err != nil {
			e.dropped.Add(1)
			continue
		}
		if n := e.dropped.Swap(0); n > 0 {
			_, _ = e.w.Write(encode(map[string]any{"time": time.Now().UTC(), "dropped": n}))
		}
	}
}

// close writes what waits, if somebody reads it soon.
func (e *echo) close() {
	if e == nil {
		return
	}
	close(e.ch)
	done := make(chan struct{})
	go func() {
		e.over.Wait()
		close(done)
	}()
	t := time.NewTimer(echoTime)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
}

// put takes a line, if there is room.
func (e *echo) put(line []byte) {
	if e.waiting.Add(int64(len(line))) <= echoBuffer {
		select {
		case e.ch <- line:
			return
		default:
		}
	}
	e.waiting.Add(-int64(len(line)))
	e.dropped.Add(1)
}

// lines makes lines of what one attempt writes.
type lines struct {
	echo  *echo
	lease *bulkheadv1.Lease
	part  [2]bytes.Buffer // of stdout, stderr
	since [2]time.Time    // when the part began
}

// lines returns nil, which is no echo, if there is none.
func (e *echo) lines(lease *bulkheadv1.Lease) *lines {
	if e == nil {
		return nil
	}
	return &lines{echo: e, lease: lease}
}

func (l *lines) write(stream int, at time.Time, p []byte) {
	n := stream - int(bulkhead.Stdout)
	if n < 0 || n >= len(l.part) {
		return
	}
	for len(p) > 0 {
		if l.part[n].Len() == 0 {
			l.since[n] = at
		}
		piece, rest, ended := bytes.Cut(p, []byte{'\n'})
		if most := echoLine - l.part[n].Len(); len(piece) > most {
			piece, rest, ended = p[:most], p[most:], true
		}
		p = rest
		l.part[n].Write(piece)
		if ended {
			l.flush(n)
		}
	}
}

// end writes lines that do not end.
func (l *lines) end() {
	for n := range l.part {
		if l.part[n].Len() > 0 {
			l.flush(n)
		}
	}
}

func (l *lines) flush(n int) {
	l.echo.put(encode(struct {
		Time    time.Time `json:"time"`
		Run     int64     `json:"run"`
		Item    int64     `json:"item"`
		Attempt int32     `json:"attempt"`
		Stream  string    `json:"stream"`
		Line    string    `json:"line"`
	}{
		l.since[n].UTC(), l.lease.GetRun(), l.lease.GetItem(), l.lease.GetAttempt(),
		(bulkhead.Stdout + bulkhead.Stream(n)).String(), l.part[n].String(),
	}))
	l.part[n].Reset()
}

// encode is one line of JSON.
func encode(v any) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // texts, numbers and times can be encoded
	return buf.Bytes()
}
