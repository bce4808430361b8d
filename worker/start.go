package worker

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// launch starts the leader, or says why it cannot be started.
func (a *attempt) launch() error {
	if err := a.resolve(); err != nil {
		return err
	}
	wait := firstWait
	for try, looked := 1, false; ; try++ {
		err := a.start()
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.ENOENT) && a.found != lookup{} && !looked:
			a.w.paths.Delete(a.found)
			if looked, err = true, a.resolve(); err != nil {
				return err
			}
		case !passes(err) || try == startTries || a.mustStop():
			return err
		default:
			a.pause(wait)
			wait *= 2
		}
	}
}

// start makes the pipes and forks. On success a.pid is the leader; the caller
// has to wait for it.
func (a *attempt) start() (err error) {
	// What each attempt opens it closes here, whether or not it went well: a
	// write end of a pipe that stays open is an end of file that never comes.
	var child []int
	defer func() {
		for _, fd := range child {
			unix.Close(fd)
		}
		if err != nil {
			a.out.close()
			a.err.close()
			if a.console != nil {
				a.console.close()
				a.console = nil
			}
		}
	}()
	if a.job.Attach != nil && a.job.Terminal {
		fd, err := a.openTerminal()
		if err != nil {
			return err
		}
		child = append(child, fd)
		return a.fork([]uintptr{uintptr(fd), uintptr(fd), uintptr(fd)})
	}
	files := [3]uintptr{uintptr(a.w.null), uintptr(a.w.null), uintptr(a.w.null)}
	fd, mine, err := a.stdin()
	if err != nil {
		return err
	}
	files[0] = uintptr(fd)
	if mine {
		child = append(child, fd)
	}
	if a.sink != nil {
		for i, s := range []*stream{&a.out, &a.err} {
			fd, err := s.open(a, Stdout+i)
			if err != nil {
				return err
			}
			child = append(child, fd)
			files[1+i] = uintptr(fd)
		}
	}
	return a.fork(files[:])
}

// stdin is what the script gets as descriptor 0; mine if it is to be closed.
func (a *attempt) stdin() (fd int, mine bool, err error) {
	switch {
	case a.job.Attach != nil:
		fd, err = a.openInput()
		return fd, err == nil, err
	case a.job.Stdin != nil && *a.job.Stdin != "":
		fd, err = memory(*a.job.Stdin)
		return fd, err == nil, err
	case a.job.Stdin == nil && a.job.StdinFile != nil:
		// Fd makes it blocking again if it was Go that made it non-blocking:
		// scripts do not expect EAGAIN.
		return int(a.job.StdinFile.Fd()), false, nil
	}
	return a.w.null, false, nil
}

// memory is a file that holds text and exists only in memory: it takes all of
// the text at once, where a pipe would need somebody to feed it.
func memory(text string) (fd int, err error) {
	fd, err = unix.MemfdCreate("stdin", unix.MFD_CLOEXEC|unix.MFD_NOEXEC_SEAL)
	if err == unix.EINVAL { // before Linux 6.3
		fd, err = unix.MemfdCreate("stdin", unix.MFD_CLOEXEC)
	}
	if err != nil {
		return -1, os.NewSyscallError("memfd_create", err)
	}
	for at := int64(0); at < int64(len(text)); {
		n, err := unix.Pwrite(fd, []byte(text[at:]), at) // leaves the offset at 0
		if err != nil && err != unix.EINTR {
			unix.Close(fd)
			return -1, os.NewSyscallError("write stdin", err)
		}
		at += int64(max(n, 0))
	}
	return fd, nil
}

// Some failures pass: too many processes or files for a moment, or a script
// that was just written and that a child forked elsewhere still holds open for
// writing (https://go.dev/issue/22315).
const (
	startTries = 7
	firstWait  = 10 * time.Millisecond // doubles; 630 ms in all
)

func passes(err error) bool {
	for _, e := range []error{unix.EAGAIN, unix.ENOMEM, unix.EMFILE, unix.ENFILE, unix.ETXTBSY} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// fork starts the leader. Our limit is a mark only while forking is held.
func (a *attempt) fork(files []uintptr) error {
	a.pidfd = -1
	attr := &syscall.ProcAttr{
		Dir: a.job.Dir, Env: a.job.Env, Files: files,
		Sys: &syscall.SysProcAttr{Setsid: true, PidFD: &a.pidfd},
	}
	attr.Sys.Setctty = a.console != nil && a.console.terminal // descriptor 0
	w := a.w
	w.forking.Lock()
	defer w.forking.Unlock()
	w.attempts++
	if w.marked {
		a.mark = attemptMark(w.owner, w.attempts)
		if err := w.marker.set(a.mark); err != nil {
			return os.NewSyscallError("prlimit", err)
		}
		defer func() { _ = w.marker.reset() }()
	}
	var pid int
	var err error
	exec := func() { pid, err = syscall.ForkExec(a.path, a.job.Args, attr) }
	a.started = time.Now()
	if w.unblock {
		unblocked(exec)
	} else {
		exec()
	}
	if err != nil {
		return scarce(err, files)
	}
	a.lead(pid)
	return nil
}

// scarce gives a lack of files its name. Before exec the child duplicates its
// files to descriptors above all of them, and Linux calls one that is beyond the
// limit a bad one (dup3(2)).
func scarce(err error, files []uintptr) error {
	var lim unix.Rlimit
	if !errors.Is(err, unix.EBADF) || unix.Getrlimit(unix.RLIMIT_NOFILE, &lim) != nil {
		return err
	}
	const above = 2 // the child's own pipe, and the first of those above it
	if highest := slices.Max(files) + uintptr(len(files)) + above; uint64(highest) < lim.Cur {
		return err
	}
	return unix.EMFILE
}

// lookup is the key of a resolved command.
type lookup struct{ name, path, dir string }

// defaultPath is what execvp(3) uses when PATH is not set.
const defaultPath = "/bin:/usr/bin"

// resolve finds the executable the way execvp would in the script's own
// environment and folder. What was found is remembered, as shells do, until it
// is gone.
func (a *attempt) resolve() error {
	job := &a.job
	if a.path = job.Path; a.path != "" {
		return nil
	}
	if len(job.Args) == 0 || job.Args[0] == "" {
		return errNoCommand
	}
	if a.path = job.Args[0]; strings.Contains(a.path, "/") {
		return nil
	}
	key := lookup{job.Args[0], pathOf(job.Env), job.Dir}
	if found, ok := a.w.paths.Load(key); ok {
		a.path, _ = found.(string)
		a.found = key
		return nil
	}
	denied := false
	for _, dir := range filepath.SplitList(key.path) {
		// An empty element is the working folder. It is the script's: exec
		// comes after chdir.
		path := filepath.Join(dir, key.name)
		seen := path
		if !filepath.IsAbs(seen) {
			seen = filepath.Join(job.Dir, path)
		}
		info, err := os.Stat(seen)
		if err != nil || info.IsDir() {
			continue
		}
		if unix.Access(seen, unix.X_OK) != nil {
			denied, a.path = true, path
			continue
		}
		a.path, a.found = path, key
		a.w.paths.Store(key, path)
		return nil
	}
	if denied {
		return unix.EACCES
	}
	return errNotInPath
}

// pathOf is the PATH of an environment; the last one counts, as in a shell.
func pathOf(env []string) string {
	for _, e := range slices.Backward(env) {
		if path, ok := strings.CutPrefix(e, "PATH="); ok {
			return path
		}
	}
	return defaultPath
}
