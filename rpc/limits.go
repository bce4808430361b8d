package rpc

import "time"

// Limits of the API, which both sides keep.
const (
	// MaxItemsBytes is the most that one AppendItems or CreateRun may bring.
	MaxItemsBytes = 4 << 20
	// MaxPiece is the most of a file that one PutFile may bring.
	MaxPiece = 1 << 20
	// MaxRunItems is the most items of one run, as of a local one.
	MaxRunItems = 100_000_000
	// MaxSpecBytes is the most that a spec may take: it is part of every answer that
	// tells of the run.
	MaxSpecBytes = 1 << 20
	// KeepAlive is how often a stream that has nothing to say sends something.
	KeepAlive = 15 * time.Second

	maxRequest       = MaxItemsBytes + 2*MaxSpecBytes // with what is around the items
	maxAgentRequest  = 16 << 20
	maxRunsPage      = 1000
	defaultPoolsPage = 50
	maxPoolsPage     = 1000
	maxRunsBytes     = 4 << 20 // of one page, but for its first run
	maxItemsPage     = 500
	maxItemsMessage  = 64 << 10
	maxOutputBytes   = 128 << 10 // of one message, from which on it is full
	maxTailLines     = 100_000
	maxPositions     = 100_000
	maxRetryItems    = 100_000
	maxAccepting     = 1000
	compressFrom     = 1 << 10

	// What WatchRun sends: for a display, so a few of each, and cut short.
	watchEvery    = 200 * time.Millisecond
	watchQuick    = 4 // messages at first, without a pause in between
	watchRunning  = 16
	watchItemSize = 4 << 10

	// acceptingFor is how long a run waits for its next items.
	acceptingFor = time.Hour
)
