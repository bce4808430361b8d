package rpc

// APIVersion is the version of AgentService that this binary speaks. A server
// takes agents of its own version and of the one before, because a new server
// meets the pods that the old one started. It counts up with every change that
// the other side must know of; new fields that may be ignored are none.
const (
	APIVersion = 1
	oldestAPI  = 1
)
