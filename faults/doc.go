// Package faults breaks Bulkhead, the real binary, in the ways in which the
// world breaks it, and looks whether what it promises still holds. It holds
// tests only.
//
// Bulkhead promises that an item is started at most once, that what it confirmed
// survives, that a full disk only makes it wait, and that nothing which a script
// started outlives its item. Every one of these is easy to keep while nothing
// goes wrong. So here
//
//   - processes are killed at random instants, from their first instruction to
//     their last, again and again until the run is over (crash_test.go);
//   - the power is cut: the system calls are traced, and from them follows what
//     the disk holds for certain at every instant at which something was
//     confirmed, and what else it may hold (trace, disk and power_test.go);
//   - the disk fills up, by strangers and by the scripts themselves (full_test.go);
//   - scripts try to get away (orphans_test.go);
//   - several processes meet in one state folder, one of them stopped in the
//     middle (several_test.go);
//   - the terminal goes away (terminal_test.go).
//
// Nothing here is simulated but the loss of power, which is computed from what
// really happened. Instants are random, their seed is printed, and -seed takes
// it back; how far a process comes in its time is the machine's choice.
//
// The tests run in namespaces of their own, see main_test.go: when they end, in
// whichever way, every process that they started ends, and every file system
// that they mounted is gone.
package faults
