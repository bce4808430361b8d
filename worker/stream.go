package worker

import (
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stream is our end of one of a script's output pipes.
type stream struct {
	a    *attempt
	n    int // Stdout or Stderr
	file *os.File
	conn syscall.RawConn
}

// open makes the pipe and returns the script's end.
func (s *stream) open(a *attempt, n int) (fd int, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return -1, os.NewSyscallError("pipe2", err)
	}
	// Our end only: scripts do not expect a standard output that says EAGAIN.
	// What is non-blocking, os.NewFile gives to the runtime's poller. What the
	// poller does not take (fs.epoll.max_user_watches) has no deadlines: better
	// now than in the middle of the output.
	nonblock(p[0])
	if err = s.watch(a, n, os.NewFile(uintptr(p[0]), "pipe")); err != nil {
		unix.Close(p[1])
		return -1, err
	}
	return p[1], nil
}

// watch makes a file that does not block what the stream is read from.
func (s *stream) watch(a *attempt, n int, file *os.File) (err error) {
	s.a, s.n, s.file = a, n, file
	if err = s.file.SetReadDeadline(time.Time{}); err == nil {
		s.conn, err = s.file.SyscallConn()
	}
	if err != nil {
		return fmt.Errorf("watch %s: %w", file.Name(), err)
	}
	return nil
}

// nonblock is unix.SetNonblock for a descriptor that we have just made: it has
// no other flags, so this is one system call, and it cannot fail.
func nonblock(fd int) {
	_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETFL, unix.O_NONBLOCK)
}

func (s *stream) close() {
	if s.file != nil {
		s.file.Close()
	}
}

// expire ends a wait for the end of the stream, now or later.
func (s *stream) expire() {
	if s.file != nil {
		_ = s.file.SetReadDeadline(time.Unix(1, 0))
	}
}

// chunk is what is read at once: what a pipe holds by default.
const chunk = 64 << 10

// chunks are shared by all readers and held only while there is something to
// read, so that a thousand quiet scripts need none.
var chunks = sync.Pool{New: func() any { return new([chunk]byte) }}

// copy passes on what the script writes until nobody can write any more.
func (s *stream) copy() {
	for open := true; open; {
		var buf *[chunk]byte
		var n int
		read := func(fd uintptr) bool {
			if buf == nil {
				buf, _ = chunks.Get().(*[chunk]byte)
			}
			var err error
			for {
				if n, err = unix.Read(int(fd), buf[:]); err != unix.EINTR {
					break
				}
			}
			if err == unix.EAGAIN {
				chunks.Put(buf)
				buf = nil
				return false
			}
			open = err == nil && n > 0
			return true
		}
		if err := s.conn.Read(read); err != nil {
			s.rest()
			return
		}
		if open {
			s.pass(buf[:n])
		}
		chunks.Put(buf)
	}
}

// rest passes on what is still in the pipe when we stop waiting for its end. A
// stranger who holds it may write for ever, so a pipe's size (of at most
// /proc/sys/fs/pipe-max-size, 1 MiB by default) must do.
func (s *stream) rest() {
	buf := make([]byte, chunk)
	_ = s.conn.Control(func(fd uintptr) {
		for left := 1 << 20; left > 0; {
			n, err := unix.Read(int(fd), buf)
			if err == unix.EINTR {
				continue
			}
			if err != nil || n <= 0 {
				return
			}
			s.pass(buf[:n])
			left -= n
		}
	})
}

// A sink that fails is asked again after firstRetry, then after twice as long,
// up to lastRetry.
const (
	firstRetry = 10 * time.Millisecond
	lastRetry  = time.Second
)

// pass gives p to the sink, again and again until it is taken.
func (s *stream) pass(p []byte) {
	a := s.a
	if a.sink == nil {
		return // a terminal is read all the same, or its script would wait
	}
	at := time.Now()
	a.sinking.Lock()
	defer a.sinking.Unlock()
	wait := firstRetry
	for a.sink.Write(s.n, at, p) != nil {
		if a.hard() {
			a.dropped += int64(len(p))
			return
		}
		a.pause(wait)
		wait = min(2*wait, lastRetry)
	}
}
