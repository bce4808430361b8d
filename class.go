package bulkhead

import (
	"crypto/sha256"
	"encoding/hex"
	"time"
)

// Class is what an operator defines once for many runs. On Kubernetes it is a
// ScriptClass, and its name is NAMESPACE/NAME.
type Class struct {
	Name    string
	Command []string  // what every command begins with
	Env     []string  // NAME=value, before the run's own
	Dir     string    // working folder, if the run does not say; "": the image's
	Pools   []PoolUse // that every run takes part in
	Limit   int       // the most items of one run at once; 0: as many as there are slots
	Timeout time.Duration
	Echo    bool // agents write output to their own standard output, too
	Shapes  bool // runs may change the image and the resources
}

// ClassStatus is how a class stands: what waits for it, and for what it waits.
type ClassStatus struct {
	Name    string
	Command []string // what every command begins with
	Workers int      // agents that are connected
	Slots   int      // attempts that they can run at once
	Queued  int64    // items
	Running int64    // items
	Blocked string   // one line: why no worker comes; "" when there is nothing to say
}

// Shape is what a run changes of the pods of its class. The zero value is the
// class as it is.
type Shape struct {
	Image  string `json:"image,omitempty"`
	CPU    string `json:"cpu,omitempty"`    // quantity, as request and limit
	Memory string `json:"memory,omitempty"` // quantity, as request and limit
}

// Key names a shape in at most 8 characters that may stand in the name of a pod;
// "" is the class as it is.
func (s Shape) Key() string {
	if s == (Shape{}) {
		return ""
	}
	sum := sha256.Sum256([]byte(s.Image + "\x00" + s.CPU + "\x00" + s.Memory))
	return hex.EncodeToString(sum[:4])
}

// Kind is what a worker must be to run something: of one class and one shape.
// Kind{} is a worker of the local setting.
type Kind struct {
	Class string
	Shape string // Shape.Key
}

// Kind is the kind of worker that runs this.
func (s *Spec) Kind() Kind { return Kind{s.Class, s.Shape.Key()} }

// Demand is what the runs of one class and shape can use now.
type Demand struct {
	Kind
	Pod     Shape // that Shape is the key of
	Queued  int64 // items
	Running int64 // items
	// Slots is how many attempts they could have at once, whatever there is of
	// workers: what paused, held and rate-limited runs cannot start is not in it.
	Slots int
}

// File is what is put beside every attempt of a run. A file is its content; the
// server keeps it by its hash.
type File struct {
	SHA256     string `json:"sha256"` // hex
	Size       int64  `json:"size"`   // bytes
	Path       string `json:"path"`   // relative, slashes; see CheckFilePath
	Executable bool   `json:"executable,omitempty"`
}

// Agent is a remote worker, as it introduces itself.
type Agent struct {
	Name    string // unique among all agents: the pod's, or host and process
	Process uint64 // what one process holds, no later one of the same name can hold
	Kind
	Slots   int    // attempts at once
	Version string // of its binary, for people
}
