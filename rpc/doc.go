// Package rpc is the API of a server: its messages, its handlers and its client.
//
// The messages are generated from bulkhead/v1/*.proto. Nobody but this package
// looks at them: handlers and client have the words of package bulkhead on their
// sides (convert*.go), and an error is the same *bulkhead.Error on both
// (fault.go).
//
//	commands ── Client ── messages over TLS ── gate ── Server ──► store, engine, output, files
//	agents   ────────────────────────────────── gate ── Agents ──► engine, output, files
//
// What is behind the handlers is given to them, as the small interfaces of
// server.go; this package imports none of it.
//
// A connection may break at any time, and nothing is lost or done twice by that:
//
//   - What is asked is asked again. A submission has a key, items have indices and
//     pieces of files have offsets, so that what has arrived already changes
//     nothing; only a retry of items is not repeated once it may have arrived. What
//     a call has begun the server finishes, also when the caller is gone.
//   - A stream goes on where it was: behind the last item, after so many bytes of an
//     attempt's output, at the last position of each segment of a run's. How a run
//     stands is told as a whole each time.
//
// A server holds little for each caller, whatever it does: messages are bounded,
// calls per second and streams are counted, what is sent is made when the reader
// takes it, and a reader that takes nothing for a minute is cut off, to go on
// later. A stream without news says so every KeepAlive, so that both sides notice
// when the other has vanished.
package rpc
