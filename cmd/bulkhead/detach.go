package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"bulkhead.dev/bulkhead"
)

// handOver is the standard input of a detached process: for a single script, as
// in the foreground, what we were given to read. A terminal stays with who types
// there. Nil is /dev/null.
func (a *app) handOver(r *bulkhead.Run) io.Reader {
	f, ok := a.stdin.(*os.File)
	if !ok || !r.Spec.Single() || r.Spec.Stdin != nil {
		return nil
	}
	if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err == nil {
		return nil
	}
	return f
}

// detach lets a process of its own go on with a run: in its own session, so
// that the terminal may go, and with our lock file, so that the ownership goes
// over without a gap. What it has to say goes to a file beside the output.
func (f *folder) detach(r *bulkhead.Run, out outputFlag) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	dir := outputDir(f.Store, r.ID)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make output folder: %w", err)
	}
	says, err := os.OpenFile(filepath.Join(dir, "process.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log of the detached process: %w", err)
	}
	defer says.Close()
	cmd := exec.Command(self, "--state", f.Dir(), "continue-run", r.ID.String())
	cmd.Stdin = f.app.handOver(r)
	cmd.Stdout, cmd.Stderr = says, says
	cmd.ExtraFiles = []*os.File{f.OwnerFile()} // becomes lockFD
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start detached process: %w", err)
	}
	if err := cmd.Process.Release(); err != nil {
		return err
	}
	fmt.Fprintf(f.app.stderr, "run %d: %s: %s, in the background; `bulkhead wait %[1]d` waits, `bulkhead logs %[1]d -f` follows\n",
		r.ID, shownName(r), toGo(r.Counts))
	if out == "json" {
		return writeJSON(f.app.stdout, newRunView(r))
	}
	fmt.Fprintln(f.app.stdout, r.ID)
	return nil
}
