package bulkhead

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strings"
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
	// Objects are those that it has in its cluster, beside the pods of its workers.
	Objects []ObjectCount
}

// Accept makes of what a user asked for what will be run: the class's command
// comes before it, its environment and pools are added, and its limits apply. What
// a run must not change is refused. Check the spec afterwards: only then is its
// command complete.
func (c *Class) Accept(s *Spec) error {
	if s.Shape != (Shape{}) && !c.Shapes {
		return refuse("leave out the image and the resources, or use another class",
			"class %s does not let a run change image, cpu or memory", Quote(c.Name))
	}
	pools, err := c.pools(s.Pools)
	if err != nil {
		return err
	}
	s.Pools = pools
	s.Command = slices.Concat(literals(c.Command, s.Columns), s.Command)
	s.Env = slices.Concat(literals(c.Env, s.Columns), s.Env)
	if s.Dir == "" {
		s.Dir = c.Dir
	}
	s.Limit = c.AtMost(s.Limit)
	if c.Timeout > 0 && (s.Timeout == 0 || s.Timeout > c.Timeout) {
		s.Timeout = c.Timeout
	}
	return nil
}

// AtMost is the limit of a run that asks for n items at once.
func (c *Class) AtMost(n int) int {
	if c.Limit > 0 {
		return min(n, c.Limit)
	}
	return n
}

// pools are those of the class and those of a run; where both name one, the
// lower limit counts.
func (c *Class) pools(own []PoolUse) ([]PoolUse, error) {
	all := slices.Clone(c.Pools)
	for _, p := range own {
		at := slices.IndexFunc(all[:len(c.Pools)], func(q PoolUse) bool { return q.Name == p.Name })
		if at < 0 {
			all = append(all, p)
			continue
		}
		if all[at].Key != p.Key {
			return nil, refuse("leave it out: every run of the class takes part in it",
				"pool %s of class %s has the key %s, not %s", p.Name, Quote(c.Name), Quote(all[at].Key), Quote(p.Key))
		}
		all[at].Slots = min(all[at].Slots, p.Slots)
	}
	return all, nil
}

// literals makes templates of texts that are none.
func literals(texts, columns []string) []string {
	out := make([]string, len(texts))
	for i, t := range texts {
		out[i] = Literal(t, columns)
	}
	return out
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
	// Objects are what the class keeps in its cluster, however many runs there are;
	// none outside of one.
	Objects []ObjectCount
}

// ObjectCount is how many objects of one kind there are.
type ObjectCount struct {
	Kind  string `json:"kind"`
	Count int    `json:"count"`
}

// Shape is what a run changes of the pods of its class. The zero value is the
// class as it is.
type Shape struct {
	Image  string `json:"image,omitempty"`
	CPU    string `json:"cpu,omitempty"`    // quantity, as request and limit
	Memory string `json:"memory,omitempty"` // quantity, as request and limit
}

var quantity = regexp.MustCompile(`^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$`)

// check refuses what cannot stand in a pod.
func (s Shape) check() error {
	for _, q := range []struct{ name, value string }{{"cpu", s.CPU}, {"memory", s.Memory}} {
		if q.value != "" && !quantity.MatchString(q.value) {
			return refuse("for example 500m or 2 for cpu, 512Mi or 2Gi for memory", "%s %s is not a quantity", q.name, Quote(q.value))
		}
		if q.value != "" && !strings.ContainsAny(q.value, "123456789") { // no pod can have that
			return refuse("leave it out for what the class has", "%s %s is not more than 0", q.name, Quote(q.value))
		}
	}
	const longest = 1024 // bytes
	strange := func(r rune) bool { return r <= ' ' || r >= 0x7f }
	if len(s.Image) > longest || strings.ContainsFunc(s.Image, strange) {
		return refuse("for example registry.example/team/app:1.2", "image %s is not the name of an image", Quote(s.Image))
	}
	return nil
}

// CheckClassName is the error for a class that there is not; known are the
// names of those that there are.
func CheckClassName(name string, known []string) error {
	if slices.Contains(known, name) {
		return nil
	}
	const most = 20 // names in a hint
	list := strings.Join(known[:min(len(known), most)], ", ")
	if len(known) > most {
		list += fmt.Sprintf(" and %d more", len(known)-most)
	}
	e := &Error{Code: CodeNotFound, Message: fmt.Sprintf("there is no class %s", Quote(name)), Hint: "there are " + list}
	switch near := Nearest(name, known); {
	case len(known) == 0:
		e.Hint = "the server has no classes yet"
	case name == "":
		e.Code, e.Message = CodeUsage, "a run on a server needs a class"
		e.Hint = "--class NAME; " + e.Hint
	case near != "":
		e.Hint = fmt.Sprintf("did you mean %s? %s", near, e.Hint)
	}
	return e
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
