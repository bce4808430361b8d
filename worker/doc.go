// Package worker runs attempts: it starts a script, passes on what it writes,
// stops it when told to, and does not return before everything that the script
// started is gone.
//
// The last part is the hard one. A process group is left with setpgid, a
// session with setsid, a parent with a double fork, an environment with
// `env -i`, and cgroups need privileges. What a process cannot shed by accident
// is a resource limit: fork copies it, exec keeps it, and prlimit(2) reads it
// from any other process of the same user. So each attempt has a mark, a number
// that no other attempt on the machine has, and its script starts with the mark
// as its soft limit on real-time CPU time (RLIMIT_RTTIME). The kernel looks at
// that limit only for processes with a real-time scheduling policy, and for
// those a mark is seventy thousand years: it limits nothing.
//
//	Run → fork with the mark → readers ─► Sink
//	          │                  leader ends (pidfd)
//	          ▼                        │
//	      the script ──forks──► does anything carry the mark? ─no─► Result
//	                                   │ yes: a moment, SIGTERM, grace, SIGKILL
//	                                   └──────────► until nothing does
//
// Three things complete it. Our process is the child subreaper, so orphans come
// to us and leave no zombies. A guardian, a second process of the same binary,
// does nothing but wait for our death, then ends everything that carries a mark
// of ours, and holds our lock files until that is done. And [KillMarked] does
// the same for an owner whose guardian died as well.
//
// # What it cannot do
//
// A process that changes its own limit on real-time CPU time and starts a new
// session is not found; a process of another user (sudo, setuid) is found by
// its session, but cannot be signalled without privileges. Where the hard limit
// does not leave room for marks, [Worker.Marked] says false and only the
// session is known. Work handed to a daemon that was there before (at, systemd,
// docker) is that daemon's.
//
// # What it costs
//
// A short item is mostly the kernel's work for fork, exec and exit. Profiled on
// a small virtual machine (perf, strace -c): 5 ms of CPU for /bin/true, 84 % of
// it in the child after exec, where a page fault takes 11 µs and a system call
// 1 µs. So an attempt's 42 system calls of ours are 1 %, and what pays is not to
// touch fresh memory, not to wake threads, and not to keep a core busy: output
// buffers are shared, there is no thread and no timer per attempt, and asking
// for leftovers is two reads of /proc/loadavg and as many prlimit calls as
// processes were born meanwhile. BenchmarkTrue is within 1 % of a bare loop of
// fork, exec and wait. That forks take turns costs nothing measurable with two
// slots; that a forking goroutine keeps its P until exec does: GOMAXPROCS at
// twice the cores made the same loop 5 % faster.
package worker
