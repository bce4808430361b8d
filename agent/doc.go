// Package agent is the worker with leases over the network: it asks a server for
// work, runs it, and hands in what became of it, through whatever happens to the
// server and to the network in between.
//
// An agent has slots. Each hands in the result of its last attempt and gets the
// next lease in one call, so a busy slot costs one round trip per item, and an
// idle one waits in a call that the server leaves open.
//
//	slot:    Exchange(result of A) → lease of B → Runner.Run(B) → Exchange(result of B) …
//	renewer: Renew(all leases held) → which of them are to end
//	pusher:  PushOutput(what running scripts wrote since)
//
// # When the server is away
//
// Scripts go on. What they write stays in memory, up to [heldInMemory] bytes for
// each, and then in a file of the spool folder, which is bounded as a whole:
// once it is full a script waits at its pipe, and only that script. A result
// that could not be handed in at the first try is written to the folder, too,
// and synced, so that the next process in the same place (a container that was
// restarted) hands in what this one could not.
//
// A lease may be given away once it has not been renewed for as long as the
// server said. An agent that does not get through therefore ends the script
// before that, its grace included, and counts from when it sent the last renewal
// that was answered, not from the answer: it can be wrong in one direction only.
//
// # What is never done twice
//
// A token is started once by a process, however often it comes. A result and its
// output may be sent many times: the server counts a token's result once, and
// every piece of output says at which byte of the attempt it begins.
//
// Whatever runs the scripts satisfies [Runner]; nothing here knows of processes.
// An [Agent] has no state outside of itself: a process may have many, as the
// benchmarks do.
package agent
