package worker_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/worker"
)

func TestWhatCannotBeStartedSaysWhyAndWhatToDo(t *testing.T) {
	w := newWorker(t)
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	plain := write("plain", "#!/bin/sh\n", 0o600)
	noShebang := write("no-shebang", "echo hello\n", 0o700)
	noInterpreter := write("no-interpreter", "#!/opt/php/bin/php -q\n", 0o700)
	dos := write("dos", "#!/bin/sh\r\necho\r\n", 0o700)
	notAFile := write("file", "", 0o600) + "/tool"
	badInterpreter := write("bad-interpreter", "#!"+plain+"\n", 0o700)

	env := []string{"PATH=/bin:" + dir}
	long := strings.Repeat("x", 140_000)
	many := make([]string, 0, 60)
	for range 60 {
		many = append(many, strings.Repeat("y", 120_000))
	}
	tests := map[string]struct {
		job  worker.Job
		code int
		want []string // in the message
	}{
		"a command that is not in PATH": {
			worker.Job{Args: []string{"nowhere-at-all"}, Env: env}, 127, []string{`"nowhere-at-all" was not found in PATH: install it`}},
		"a path that does not exist": {
			worker.Job{Args: []string{"./nowhere"}, Env: env, Dir: dir}, 127, []string{`"./nowhere" does not exist`}},
		"no command": {
			worker.Job{Env: env}, 127, []string{"command is empty"}},
		"a file in PATH that is not executable": {
			worker.Job{Args: []string{"plain"}, Env: env}, 126, []string{plain, "chmod +x"}},
		"a file that is not executable": {
			worker.Job{Args: []string{plain}, Env: env}, 126, []string{plain, "chmod +x"}},
		"a folder": {
			worker.Job{Args: []string{dir}, Env: env}, 126, []string{"is a folder"}},
		"a path through a file": {
			worker.Job{Args: []string{notAFile}, Env: env}, 126, []string{notAFile, "not a directory"}},
		"a script without #!": {
			worker.Job{Args: []string{noShebang}, Env: env}, 126, []string{noShebang, "#!/bin/sh"}},
		"a script whose interpreter is missing": {
			worker.Job{Args: []string{noInterpreter}, Env: env}, 126, []string{noInterpreter, `"/opt/php/bin/php"`, "install it"}},
		"a script whose interpreter may not be executed": {
			worker.Job{Args: []string{badInterpreter}, Env: env}, 126, []string{badInterpreter, plain}},
		"a script with DOS line ends": {
			worker.Job{Args: []string{dos}, Env: env}, 126, []string{"DOS line ends", "dos2unix"}},
		"a missing working folder": {
			worker.Job{Args: []string{"true"}, Env: env, Dir: dir + "/gone"}, 126, []string{"working folder", dir + "/gone", "create it"}},
		"a working folder that is a file": {
			worker.Job{Args: []string{"true"}, Env: env, Dir: plain}, 126, []string{"working folder", "not a folder"}},
		"an argument that is too long": {
			worker.Job{Args: []string{"true", "short", long}, Env: env}, 126, []string{"argument 2 is 140000 bytes", "131071", "--stdin"}},
		"a variable that is too long": {
			worker.Job{Args: []string{"true"}, Env: append(env, "BIG="+long)}, 126, []string{`"BIG"`, "140004 bytes", "131071"}},
		"arguments that are too long together": {
			worker.Job{Args: append([]string{"true"}, many...), Env: env}, 126, []string{"7200", "together", "--stdin"}},
		"a NUL byte in an argument": {
			worker.Job{Args: []string{"true", "a\x00b"}, Env: env}, 126, []string{"argument 1", "NUL", "--stdin"}},
		"a NUL byte in a variable": {
			worker.Job{Args: []string{"true"}, Env: append(env, "A=\x00")}, 126, []string{`"A"`, "NUL"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			r := w.Run(t.Context(), tt.job, newOutput())
			if r.State != bulkhead.ItemFailed || r.How != bulkhead.HowStart || r.ExitCode != tt.code || r.Started.IsZero() {
				t.Errorf("%v, %v, exit code %d, started %v; want failed, start, %d", r.State, r.How, r.ExitCode, r.Started, tt.code)
			}
			for _, want := range tt.want {
				if !strings.Contains(r.Error, want) {
					t.Errorf("%q does not mention %q", r.Error, want)
				}
			}
			if strings.Contains(r.Error, "\n") {
				t.Errorf("%q is not one line", r.Error)
			}
		})
	}
}

func TestACommandIsCheckedWithoutStartingIt(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"tool": 0o700, "plain": 0o600} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"), mode); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{"PATH=" + dir}
	for name, tt := range map[string]struct {
		job  worker.Job
		want string // in the message; "": it can be started
	}{
		"found in the PATH of the job":    {worker.Job{Args: []string{"tool"}, Env: env}, ""},
		"not in it, if it is in ours":     {worker.Job{Args: []string{"sh"}, Env: env}, `"sh" was not found in PATH: `},
		"a path from the working folder":  {worker.Job{Args: []string{"./tool"}, Dir: dir}, ""},
		"which is the job's and not ours": {worker.Job{Args: []string{"./tool"}, Dir: "/"}, `"./tool" does not exist`},
		"an empty element is that folder": {worker.Job{Args: []string{"tool"}, Env: []string{"PATH=:/bin"}, Dir: dir}, ""},
		"not executable":                  {worker.Job{Args: []string{dir + "/plain"}}, "chmod +x"},
		"not executable, in PATH":         {worker.Job{Args: []string{"plain"}, Env: env}, "chmod +x"},
		"a folder":                        {worker.Job{Args: []string{dir}}, "is a folder"},
		"through a file":                  {worker.Job{Args: []string{dir + "/tool/x"}}, "not a directory"},
		"a path that cannot be one":       {worker.Job{Args: []string{"/a\x00b"}}, "NUL"},
		"arguments are not looked at":     {worker.Job{Args: []string{"tool", "/nowhere"}, Env: env}, ""},
	} {
		err := worker.Check(tt.job)
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
	}
}

func TestTheLongestArgumentWorks(t *testing.T) {
	w := newWorker(t)
	out := newOutput()
	r := w.Run(t.Context(), sh(`echo ${#1}`, strings.Repeat("x", 131_071)), out)
	if r.State != bulkhead.ItemSucceeded || out.stdout() != "131071\n" {
		t.Errorf("%+v, %q", r, out.stdout())
	}
}

func TestAScriptThatIsStillOpenForWritingIsTriedAgain(t *testing.T) {
	w := newWorker(t)
	path := filepath.Join(t.TempDir(), "script")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("#!/bin/sh\n"); err != nil {
		t.Fatal(err)
	}
	job := worker.Job{Args: []string{path}, Env: os.Environ()}
	if r := w.Run(t.Context(), job, nil); r.How != bulkhead.HowStart || !strings.Contains(r.Error, "being written") {
		t.Errorf("while it is open: %+v", r)
	}
	result := background(t, w, t.Context(), job, nil)
	f.Close()
	if r := result(); r.State != bulkhead.ItemSucceeded {
		t.Errorf("closed meanwhile: %+v", r)
	}
}

func TestTooManyOpenFilesSaysSo(t *testing.T) {
	w := newWorker(t)
	fd, err := unix.Dup(0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	r := withFiles(t, fd, func() bulkhead.Result { return w.Run(t.Context(), sh("exit 0"), newOutput()) })
	if r.How != bulkhead.HowStart || !strings.Contains(r.Error, "ulimit -n") {
		t.Errorf("%+v", r)
	}
}

// The child cannot duplicate its files above the highest of them: EBADF.
func TestAFileJustBelowTheLimitSaysSo(t *testing.T) {
	w := newWorker(t)
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	fd, err := unix.FcntlInt(null.Fd(), unix.F_DUPFD_CLOEXEC, 500)
	if err != nil {
		t.Fatal(err)
	}
	high := os.NewFile(uintptr(fd), os.DevNull)
	defer high.Close()
	job := sh("exit 0")
	job.StdinFile = high
	r := withFiles(t, fd+1, func() bulkhead.Result { return w.Run(t.Context(), job, newOutput()) })
	if r.How != bulkhead.HowStart || !strings.Contains(r.Error, "ulimit -n") {
		t.Errorf("%+v", r)
	}
	if r := w.Run(t.Context(), job, newOutput()); r.State != bulkhead.ItemSucceeded {
		t.Errorf("with more room: %+v", r)
	}
}

// withFiles runs a script while this process may open files below n only.
func withFiles(t *testing.T, n int, run func() bulkhead.Result) bulkhead.Result {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	few := unix.Rlimit{Cur: uint64(n), Max: old.Max}
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, &few, nil); err != nil {
		t.Fatal(err)
	}
	r := run()
	if err := unix.Prlimit(0, unix.RLIMIT_NOFILE, &old, nil); err != nil {
		t.Fatal(err)
	}
	return r
}
