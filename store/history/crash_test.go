package history_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bulkhead.dev/bulkhead/store/history"
)

// childEnv names the file for which this binary is a guard that appends until it is
// killed; limitEnv is how large its files may become, in KiB.
const childEnv, limitEnv = "HISTORY_TEST_CHILD", "HISTORY_TEST_LIMIT"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		os.Exit(child(path))
	}
	os.Exit(m.Run())
}

// child appends looks, and prints the number of each that counts.
func child(path string) int {
	s, err := history.Open(path)
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	limit, limited := os.LookupEnv(limitEnv)
	full := unix.Rlimit{Cur: 64 << 10, Max: unix.RLIM_INFINITY}
	for n := range 20000 {
		if limited && n == 50 {
			_, _ = fmt.Sscan(limit, &full.Cur)
			_ = unix.Setrlimit(unix.RLIMIT_FSIZE, &full)
		}
		counts := map[string]int64{}
		for i := range 50 {
			counts[fmt.Sprintf("f%d", i)] = int64(n + 1)
		}
		err := s.Append(noContext{}, look(minute(n), counts))
		switch {
		case err == nil:
			fmt.Println(n)
		case limited:
			fmt.Println("full:", err)
			full.Cur = unix.RLIM_INFINITY // somebody makes room
			if unix.Setrlimit(unix.RLIMIT_FSIZE, &full) != nil {
				return 1
			}
			limited = false
		default:
			fmt.Println("error", err)
			return 1
		}
		if n > 600 && os.Getenv(limitEnv) != "" {
			return 0
		}
	}
	return 0
}

// noContext is a context that never ends: a child has no test's.
type noContext struct{}

func (noContext) Deadline() (deadline time.Time, ok bool) { return }
func (noContext) Done() <-chan struct{}                   { return nil }
func (noContext) Err() error                              { return nil }
func (noContext) Value(any) any                           { return nil }

func TestAKilledGuardLosesNothingThatItWrote(t *testing.T) {
	path := filepath.Join(t.TempDir(), history.Name)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+path)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	last := -1
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if _, err := fmt.Sscan(lines.Text(), &last); err != nil {
			t.Fatal(lines.Text())
		}
		if last == 500 {
			if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = cmd.Wait() // killed
	s := open(t, path, history.Options{})
	got := points(t, s, "f7")
	if end := got[len(got)-1]; end[0] < int64(last) || end[1] != end[0]+1 {
		t.Errorf("it wrote %d, and the last point is %v", last, end)
	}
	add(t, s, look(minute(20001), map[string]int64{"f7": 1}))
}

func TestAFullDiskIsAnErrorAndItGoesOnAfterwards(t *testing.T) {
	path := filepath.Join(t.TempDir(), history.Name)
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+path, limitEnv+"=65536")
	out, err := cmd.Output()
	if err != nil || strings.Count(string(out), "full: ") != 1 {
		t.Fatalf("%v\n%s", err, out)
	}
	s := open(t, path, history.Options{})
	got := points(t, s, "f7")
	for i, p := range got {
		if p[1] != p[0]+1 || i > 0 && p[0] <= got[i-1][0] {
			t.Errorf("a wrong point %v", p)
		}
	}
	equal(t, [2]int64{601, 602}, got[len(got)-1])
}
