package worker

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"

	"bulkhead.dev/bulkhead"
)

// Console is what the stdin of an attempt comes from: a pipe, or the keyboard and
// the window of its terminal. In a terminal the keys that send signals (Ctrl-C,
// Ctrl-\, Ctrl-Z) are input like all other, and the kernel signals whom they mean;
// so it is with its size. Its methods may be called by any goroutine; Write by one
// at a time.
type Console struct {
	terminal bool
	file     *os.File // our end; it does not block

	mu     sync.Mutex
	closed bool
}

// ErrNotReading says that the script will not read any more: it has closed its input, or has
// ended.
var ErrNotReading = errors.New("the script reads no more")

// openInput makes the pipe that the script reads from and returns its end.
func (a *attempt) openInput() (fd int, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return -1, os.NewSyscallError("pipe2", err)
	}
	nonblock(p[1])
	a.console = &Console{file: os.NewFile(uintptr(p[1]), "pipe")}
	if err := a.console.file.SetWriteDeadline(time.Time{}); err != nil {
		unix.Close(p[0])
		return -1, fmt.Errorf("watch a pipe: %w", err)
	}
	return p[0], nil
}

// openTerminal makes a terminal and returns the script's end of it.
func (a *attempt) openTerminal() (fd int, err error) {
	// Both are non-blocking now, which is right for ours. A script expects to wait.
	master, slave, err := pty.Open()
	if err != nil {
		return -1, fmt.Errorf("make a terminal: %w", err)
	}
	defer slave.Close()
	a.console = &Console{terminal: true, file: master}
	if err := a.out.watch(a, Stdout, master); err != nil {
		return -1, err
	}
	if w := a.job.Window; w != (bulkhead.Window{}) {
		if err := a.console.Resize(w); err != nil {
			return -1, err
		}
	}
	fd, err = unix.FcntlInt(slave.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("dup", err)
	}
	_ = unix.SetNonblock(fd, false)
	// Erasing takes back a character, not a byte of one.
	if t, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil {
		t.Iflag |= unix.IUTF8
		_ = unix.IoctlSetTermios(fd, unix.TCSETS, t)
	}
	return fd, nil
}

// Write gives the script p to read, and returns how much of it is in its pipe or
// terminal. It waits while they are full.
func (c *Console) Write(p []byte) (int, error) {
	n, err := c.file.Write(p)
	if err != nil {
		err = ErrNotReading
	}
	return n, err
}

// End ends what the script reads: a pipe for good; a terminal as Ctrl-D does.
func (c *Console) End() error {
	if !c.terminal {
		c.close()
		return nil
	}
	end := byte(4)
	if t, err := c.termios(); err == nil && t.Lflag&unix.ICANON != 0 {
		end = t.Cc[unix.VEOF]
	}
	_, err := c.Write([]byte{end})
	return err
}

func (c *Console) termios() (t *unix.Termios, err error) {
	conn, err := c.file.SyscallConn()
	if err != nil {
		return nil, err
	}
	if cerr := conn.Control(func(fd uintptr) { t, err = unix.IoctlGetTermios(int(fd), unix.TCGETS) }); cerr != nil {
		return nil, cerr
	}
	return t, err
}

// Resize changes the size of the terminal; whoever is in its foreground is told by
// SIGWINCH. Of a pipe it changes nothing.
func (c *Console) Resize(w bulkhead.Window) error {
	if !c.terminal {
		return nil
	}
	conn, err := c.file.SyscallConn()
	if err != nil {
		return err
	}
	size := &unix.Winsize{Row: w.Rows, Col: w.Columns}
	if cerr := conn.Control(func(fd uintptr) { err = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, size) }); cerr != nil {
		return cerr
	}
	return err
}

// close ends a Write that waits. The terminal itself is closed with the stream that
// is read from it.
func (c *Console) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.closed = true
	if c.terminal {
		_ = c.file.SetWriteDeadline(time.Unix(1, 0))
	} else {
		c.file.Close()
	}
}
