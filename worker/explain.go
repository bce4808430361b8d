package worker

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxArg is the longest argument or NAME=value that Linux takes, in bytes: 32
// pages less the zero at the end (MAX_ARG_STRLEN in linux/binfmts.h).
const maxArg = 131_071

// Exit codes that shells use for what could not be started.
const (
	exitNotRunnable = 126
	exitNotFound    = 127
)

var (
	errNoCommand = errors.New("no command")
	errNotInPath = errors.New("not in PATH")
)

// Check looks for the command of a job where Run would, and starts nothing. The
// error is the line that Run would give for a command that is not there or may
// not be executed; what only the kernel finds out, Check does not.
func Check(job Job) error {
	a := &attempt{w: &Worker{}, job: job}
	err := a.resolve()
	if err == nil {
		seen := a.path
		if !filepath.IsAbs(seen) {
			seen = filepath.Join(job.Dir, seen)
		}
		info, statErr := os.Stat(seen)
		switch {
		case statErr != nil:
			err = statErr
		case info.IsDir():
			err = unix.EACCES
		default:
			err = unix.Access(seen, unix.X_OK)
		}
	}
	if err == nil {
		return nil
	}
	line, _ := explain(&job, a.path, err)
	return errors.New(line)
}

// explain says in one line why a job could not be started and what to do, and
// what a shell's exit code would be. The kernel only gave a number, which can
// stand for the command, its interpreter or the working folder; so look.
func explain(job *Job, path string, err error) (line string, code int) {
	name := path
	if name == "" && len(job.Args) > 0 {
		name = job.Args[0]
	}
	if line := explainDir(job.Dir); line != "" {
		return line, exitNotRunnable
	}
	if line := explainNUL(job, path); line != "" {
		return line, exitNotRunnable
	}
	switch {
	case errors.Is(err, errNoCommand):
		return "the command is empty: write one after --", exitNotFound
	case errors.Is(err, errNotInPath):
		return fmt.Sprintf("%q was not found in PATH: install it, or give its path", name), exitNotFound
	case errors.Is(err, unix.E2BIG):
		return explainSize(job), exitNotRunnable
	case errors.Is(err, unix.ETXTBSY):
		return fmt.Sprintf("%q is still being written: wait until it is closed", name), exitNotRunnable
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOMEM):
		return fmt.Sprintf("no room for another process (%v): lower --limit, or raise the limits on processes and memory", err), exitNotRunnable
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return fmt.Sprintf("too many open files (%v): lower --limit, or raise ulimit -n", err), exitNotRunnable
	}
	seen := path
	if !filepath.IsAbs(seen) {
		seen = filepath.Join(job.Dir, seen)
	}
	return explainFile(name, seen, err)
}

func explainDir(dir string) string {
	if dir == "" || strings.IndexByte(dir, 0) >= 0 {
		return ""
	}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Sprintf("the working folder %q does not exist: create it, or start from another one", dir)
	case err != nil:
		return fmt.Sprintf("the working folder cannot be used: %v", err)
	case !info.IsDir():
		return fmt.Sprintf("the working folder %q is not a folder", dir)
	case unix.Access(dir, unix.X_OK) != nil:
		return fmt.Sprintf("the working folder %q may not be entered: check its permissions", dir)
	}
	return ""
}

func explainNUL(job *Job, path string) string {
	const rest = "holds a NUL byte, which exec cannot pass on: use --stdin for such data"
	for i, arg := range job.Args {
		if strings.IndexByte(arg, 0) >= 0 {
			return fmt.Sprintf("argument %d %s", i, rest)
		}
	}
	for _, v := range job.Env {
		if strings.IndexByte(v, 0) >= 0 {
			name, _, _ := strings.Cut(v, "=")
			return fmt.Sprintf("the environment variable %q %s", name, rest)
		}
	}
	if strings.IndexByte(path, 0) >= 0 || strings.IndexByte(job.Dir, 0) >= 0 {
		return "the path of the command or of the working folder " + rest
	}
	return ""
}

func explainSize(job *Job) string {
	total := 0
	for i, arg := range job.Args {
		if len(arg) > maxArg {
			return fmt.Sprintf("argument %d is %d bytes long; Linux allows %d bytes per argument: pass it with --stdin", i, len(arg), maxArg)
		}
		total += len(arg) + 9 // the zero and a pointer
	}
	for _, v := range job.Env {
		if len(v) > maxArg {
			name, _, _ := strings.Cut(v, "=")
			return fmt.Sprintf("the environment variable %q is %d bytes long; Linux allows %d bytes per variable: pass it with --stdin", name, len(v), maxArg)
		}
		total += len(v) + 9
	}
	return fmt.Sprintf("arguments and environment are %d bytes together, more than this system allows (getconf ARG_MAX): pass them with --stdin", total)
}

// explainFile looks at the file that should have been executed.
func explainFile(name, path string, err error) (line string, code int) {
	info, statErr := os.Stat(path)
	switch {
	case errors.Is(statErr, os.ErrNotExist):
		return fmt.Sprintf("%q does not exist: check the path", name), exitNotFound
	case statErr != nil:
		return fmt.Sprintf("%q cannot be executed: %v", name, statErr), exitNotRunnable
	case info.IsDir():
		return fmt.Sprintf("%q is a folder: give the path of a program in it", name), exitNotRunnable
	case unix.Access(path, unix.X_OK) != nil:
		return fmt.Sprintf("%q is not executable: chmod +x it, or start it through its interpreter", name), exitNotRunnable
	}
	interpreter, script := interpreterOf(path)
	switch {
	case errors.Is(err, unix.ENOEXEC):
		return fmt.Sprintf("%q is neither a program for this machine nor a script with #! in its first line: add one, such as #!/bin/sh, or start it with sh", name), exitNotRunnable
	case script && strings.HasSuffix(interpreter, "\r"):
		return fmt.Sprintf("%q has DOS line ends, so that its interpreter would be %q: convert it with dos2unix", name, interpreter), exitNotRunnable
	case errors.Is(err, unix.ENOENT) && script:
		return fmt.Sprintf("%q needs the interpreter %q, which does not exist: install it, or correct the first line", name, interpreter), exitNotRunnable
	case errors.Is(err, unix.ENOENT):
		return fmt.Sprintf("%q needs a dynamic loader that does not exist here: it was built for another system", name), exitNotRunnable
	case errors.Is(err, unix.EACCES) && script:
		return fmt.Sprintf("%q may not be executed: check that its interpreter %q is executable, and that neither is on a file system mounted noexec", name, interpreter), exitNotRunnable
	case errors.Is(err, unix.EACCES):
		return fmt.Sprintf("%q may not be executed: check that its file system is not mounted noexec", name), exitNotRunnable
	}
	return fmt.Sprintf("%q cannot be executed: %v", name, err), exitNotRunnable
}

// interpreterOf is the program that the first line of a script names.
func interpreterOf(path string) (name string, script bool) {
	f, err := os.Open(path)
	if err != nil {
		return "", false
	}
	defer f.Close()
	first, err := bufio.NewReader(io.LimitReader(f, 256)).ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", false
	}
	first, script = bytes.CutPrefix(bytes.TrimSuffix(first, []byte("\n")), []byte("#!"))
	if !script {
		return "", false
	}
	word, _, _ := bytes.Cut(bytes.TrimLeft(first, " \t"), []byte(" "))
	word, _, _ = bytes.Cut(word, []byte("\t"))
	return string(word), true
}
