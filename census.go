package bulkhead

import (
	"strings"
	"time"
)

// Key says which objects a census counts together: those of one kind and one
// namespace whose names differ only in their variable part and that have the same
// origin. Thousands of randomly named objects are one family.
type Key struct {
	Kind      string `json:"kind"`                // as the API names the resource: configmaps, networkpolicies.networking.k8s.io
	Namespace string `json:"namespace,omitempty"` // "": not in a namespace
	Family    string `json:"family"`              // the name with * for what varies: mediawiki-*-mail-config
	// Origin is what they come from, as KIND/FAMILY: the end of the chain of owner
	// references (cronjobs.batch/backup, namespaces left out), else the Helm release
	// (release/mediawiki-*). "": nothing that can be seen.
	Origin string `json:"origin,omitempty"`
	// Manager is the client that made them, as managedFields has it: helm, kubectl-create.
	Manager string `json:"manager,omitempty"`
}

// Tally is what a census knows of one family at one moment.
type Tally struct {
	Key
	Objects int64 `json:"objects"`
	Rules   int64 `json:"rules,omitempty"` // of network policies: peers × ports, of ingress and egress, summed
	Bytes   int64 `json:"bytes,omitempty"` // 0: not known
	// Created and Deleted count since the census began.
	Created int64 `json:"created"`
	Deleted int64 `json:"deleted"`
	// Born says when the objects that are there were created, oldest first, in steps
	// of a quarter of an hour for the last day and of an hour before, 7 days back at most;
	// what is older is in the first step. It shows growth that nobody watched.
	Born []Birth `json:"born,omitempty"`
	// Facts are what their labels and annotations say of persons and tasks.
	Facts []Fact `json:"facts,omitempty"`
	// Example is the newest of them.
	Example Example `json:"example"`
	// Keeps is what will remove them.
	Keeps Keep `json:"keeps"`
}

// Birth is how many of the objects of a family were created in one step of time.
type Birth struct {
	At      time.Time `json:"at"` // the step's start
	Objects int64     `json:"objects"`
}

// Fact is a value that a label or an annotation of the objects has, and how many
// of them have it. The most frequent ones of each key are kept.
type Fact struct {
	Key     string `json:"key"` // username, script, comment, meta.helm.sh/release-name
	Value   string `json:"value"`
	Objects int64  `json:"objects"`
}

// Example is one object of a family.
type Example struct {
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
}

// Keep says what removes the objects of a family by itself: how many have an owner
// reference (they go with their owner), how many a time to live (in seconds, the longest);
// Nothing counts those that stay until somebody deletes them.
type Keep struct {
	Owned   int64         `json:"owned,omitempty"`
	TTL     time.Duration `json:"ttl,omitempty"`
	Nothing int64         `json:"nothing,omitempty"`
}

// Census is what was counted at one moment.
type Census struct {
	At      time.Time
	Tallies []Tally
	// Kinds says how each kind is counted.
	Kinds []KindStatus
}

// KindStatus is how the count of one kind stands.
type KindStatus struct {
	Kind    string `json:"kind"`
	Objects int64  `json:"objects"`
	Bytes   int64  `json:"bytes,omitempty"` // as the API server estimates; 0: it does not say
	// Exact: every change is seen. Otherwise Reason says why not, in one line with
	// what to do: not permitted, not synced yet, only the API server's own count.
	Exact  bool   `json:"exact"`
	Reason string `json:"reason,omitempty"`
}

// Lacks reports whether something keeps the kind from being counted: its Reason begins
// with "not ". A kind that is counted roughly on purpose, such as events, lacks nothing.
func (k KindStatus) Lacks() bool { return !k.Exact && strings.HasPrefix(k.Reason, "not ") }
