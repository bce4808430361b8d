package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// TempPrefix is how the folders of labs that end with their process begin.
	TempPrefix = "bulkhead-lab-"
	// LockFile is locked for as long as the lab's keeper lives.
	LockFile = "keeper.lock"
	// KeeperLog is where keeper and process 1 say what went wrong.
	KeeperLog = "keeper.log"
)

// maxSocket is how long the path of a Unix socket may be (unix(7)).
const maxSocket = 107

// startTimeout bounds the start of programs that are built. It is long because
// the machine may be busy with other tests; what fails, fails before.
const startTimeout = 2 * time.Minute

// Launch starts a lab and returns when its control plane is ready.
func Launch(ctx context.Context, opts Options) (_ *Lab, err error) {
	if opts.Log == nil {
		opts.Log = io.Discard
	}
	dir, err := makeFolder(opts.Dir) // before what may take long
	if err != nil {
		return nil, err
	}
	lock, err := lockFolder(dir)
	if err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	defer lock.Close()
	programs, err := Build(ctx, opts.Log)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	keeper, err := startKeeper(programs, dir, lock, opts.Detached)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	defer keeper.says.Close()
	l, err := connect(ctx, dir, keeper)
	if err != nil {
		_ = syscall.Kill(keeper.pid, syscall.SIGTERM) // it cleans up
		<-keeper.gone
		return nil, err
	}
	l.programs = programs
	return l, nil
}

func makeFolder(dir string) (string, error) {
	if dir == "" {
		var err error
		if dir, err = os.MkdirTemp("", TempPrefix); err != nil {
			return "", err
		}
	} else if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if path := filepath.Join(dir, SocketFile); len(path) > maxSocket {
		return "", fmt.Errorf("the path of a socket, %s, would have %d bytes, and may have %d: choose a shorter folder", path, len(path), maxSocket)
	}
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > 0 {
		err = fmt.Errorf("folder %s is not empty", dir)
	}
	return dir, err
}

// lockFolder locks a lab's folder. The lock is passed on without a gap, to the
// keeper and what it starts, and ends with the last of them. Where there is a
// lock file it has been locked: one without a lock is what a killed lab left.
func lockFolder(dir string) (*os.File, error) {
	path := filepath.Join(dir, LockFile)
	lock, err := os.OpenFile(path+".new", os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB), os.Rename(path+".new", path)); err != nil {
		lock.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return lock, nil
}

// keeper is the process that a lab ends with.
type keeper struct {
	pid  int
	gone chan struct{}
	pipe *os.File // our end; nil when detached. Its closing is what ends the lab
	says *os.File // its log, which can be read when the folder is gone
}

// startKeeper starts the keeper with two files: the pipe that tells it that we
// are gone, and the lock.
func startKeeper(programs Programs, dir string, lock *os.File, detached bool) (_ *keeper, err error) {
	says, err := os.OpenFile(filepath.Join(dir, KeeperLog), os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			says.Close()
		}
	}()
	k := &keeper{gone: make(chan struct{}), says: says}
	args := []string{"keep", "--dir", dir, "--kubernetes", programs.Kubernetes}
	cmd := exec.Command(programs.Lab, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", says, says
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if !detached {
		theirs, ours, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		defer theirs.Close()
		cmd.Stdin, k.pipe = theirs, ours
		cmd.Args = append(cmd.Args, "--attached")
	}
	cmd.ExtraFiles = []*os.File{lock}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the keeper: %w", err)
	}
	k.pid = cmd.Process.Pid
	go func() {
		_ = cmd.Wait() // what it has to say is in its log
		close(k.gone)
	}()
	return k, nil
}

// connect waits until the control plane is ready.
func connect(ctx context.Context, dir string, k *keeper) (*Lab, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(filepath.Join(dir, SocketFile)); err == nil {
			break
		}
		select {
		case <-tick.C:
		case <-k.gone:
			said, _ := io.ReadAll(io.NewSectionReader(k.says, 0, 1<<20))
			return nil, fmt.Errorf("the lab ended at its start: %s", tail(said, 20))
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	l, err := Open(dir)
	if err != nil {
		return nil, err
	}
	if err := l.ask(ctx, http.MethodPost, "/ready", nil, nil); err != nil {
		return nil, err
	}
	return l, nil
}
