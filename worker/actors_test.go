package worker_test

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/worker"
)

// actors are the programs that the test binary can be, see actAs. They return
// an exit code.
var actors map[string]func(args []string) int

func init() { // some of them start others
	actors = map[string]func([]string) int{
		"busy":      busy,
		"careless":  careless,
		"signals":   signals,
		"owner":     owner,
		"limited":   limited,
		"stopped":   stopped,
		"unmarked":  unmarked,
		"nested":    nested,
		"forgetful": forgetful,
	}
}

func complain(err error) int {
	fmt.Fprintln(os.Stderr, err)
	return 1
}

// become is our environment for another actor. What comes first counts.
func become(name string) []string { return append([]string{actAs + "=" + name}, os.Environ()...) }

// busy uses CPU for a time and memory of so many MiB.
func busy(args []string) int {
	d, err := time.ParseDuration(args[0])
	if err != nil {
		return complain(err)
	}
	mib, err := strconv.Atoi(args[1])
	if err != nil {
		return complain(err)
	}
	memory := make([]byte, mib<<20)
	for i := 0; i < len(memory); i += 4096 {
		memory[i] = 1
	}
	for n := 0; ; n++ {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			return complain(err)
		}
		if time.Duration(u.Utime.Nano()+u.Stime.Nano()) > d {
			runtime.KeepAlive(memory)
			return 0
		}
	}
}

// careless becomes a program with signals ignored and blocked.
func careless([]string) int {
	runtime.LockOSThread()
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGTSTP, unix.SIGUSR1)
	all := ^uint64(0)
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK, uintptr(unsafe.Pointer(&all)), 0, 8, 0, 0)
	err := syscall.Exec("/proc/self/exe", []string{"signals"}, become("signals"))
	return complain(err)
}

// signals runs a script that shows its signals.
func signals([]string) int {
	w, err := worker.New(worker.Options{NoGuardian: true})
	if err != nil {
		return complain(err)
	}
	defer w.Close()
	r := w.Run(context.Background(), sh(ownSignals), through{})
	return r.ExitCode
}

// through passes output on.
type through struct{}

func (through) Write(stream int, _ time.Time, p []byte) error {
	f := os.Stdout
	if stream == worker.Stderr {
		f = os.Stderr
	}
	_, err := f.Write(p)
	return err
}

// owner holds a lock file and runs a script for ever.
func owner(args []string) int {
	lock, err := os.OpenFile(args[0], os.O_RDWR, 0)
	if err != nil {
		return complain(err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return complain(err)
	}
	w, err := worker.New(worker.Options{HoldFiles: []*os.File{lock}, Grace: 50 * time.Millisecond, NoGuardian: len(args) > 2})
	if err != nil {
		return complain(err)
	}
	fmt.Println(w.Mark())
	w.Run(context.Background(), sh(args[1]), through{})
	return 0
}

// stopped stops, and does not end its script when its time is over.
func stopped(args []string) int {
	w, err := worker.New(worker.Options{})
	if err != nil {
		return complain(err)
	}
	defer w.Close()
	job := sh(args[0])
	job.Watch = func(limit func(time.Time)) {
		limit(time.Now())
		_ = unix.Kill(os.Getpid(), unix.SIGSTOP)
	}
	r := w.Run(context.Background(), job, nil)
	fmt.Println(r.State, r.Signal)
	return 0
}

// limited leaves no room for marks and becomes a program that needs them.
func limited([]string) int {
	hour := unix.Rlimit{Cur: 3600e6, Max: 3600e6}
	if err := unix.Prlimit(0, unix.RLIMIT_RTTIME, &hour, nil); err != nil {
		return complain(err)
	}
	err := syscall.Exec("/proc/self/exe", []string{"unmarked"}, become("unmarked"))
	return complain(err)
}

func unmarked([]string) int {
	w, err := worker.New(worker.Options{})
	if err != nil {
		return complain(err)
	}
	defer w.Close()
	out := newOutput()
	r := w.Run(context.Background(), sh("sleep 1000 >/dev/null 2>&1 & echo $!"), out)
	pid, err := strconv.Atoi(out.stdout()[:len(out.stdout())-1])
	fmt.Printf("marked %t, %v, left %t, %v\n", w.Marked(), r.State, alive(pid), err)
	return 0
}

// nested is a Bulkhead within a script, which does not react to SIGTERM, and
// neither does its own script.
func nested([]string) int {
	signal.Ignore(unix.SIGTERM)
	w, err := worker.New(worker.Options{Grace: time.Hour})
	if err != nil {
		return complain(err)
	}
	fmt.Println(w.Mark())
	w.Run(context.Background(), sh(`trap "" TERM; echo; sleep 1000 & setsid sleep 1000 & wait`), through{})
	return 0
}

// forgetful has a main that does not know of guardians.
func forgetful([]string) int {
	w, err := worker.New(worker.Options{})
	if err != nil {
		return 7
	}
	defer w.Close()
	if r := w.Run(context.Background(), sh("exit 0"), nil); r.State != bulkhead.ItemSucceeded {
		return 8
	}
	return 0
}
