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
	// KeepAlive is how often a stream that has nothing to say sends something.
	KeepAlive = 15 * time.Second

	maxRequest  = MaxItemsBytes + 1<<20 // with what is around the items
	maxRunsPage = 1000
)
