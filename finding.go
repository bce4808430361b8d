package bulkhead

import (
	"math"
	"slices"
	"strconv"
	"time"
)

// Finding is one growth that will hurt: what multiplies, since when, who makes it,
// when which budget is reached, and what to do. It is one thing for people however
// many kinds grow in it.
type Finding struct {
	ID        string    `json:"id"` // of the same growth it is always the same
	Severity  Severity  `json:"severity"`
	Title     string    `json:"title"` // one line
	Namespace string    `json:"namespace,omitempty"`
	Since     time.Time `json:"since"` // when the growth began
	// Class is the class of that namespace whose scripts make them, as nearly all of the
	// objects say themselves; "": they do not.
	Class string `json:"class,omitempty"`
	// Members are the families that grow in step, the one that hurts first at the
	// front. Ratio is how many of each come with one step of the growth (1 Job : 1
	// NetworkPolicy : 7 ConfigMaps).
	Members []Member `json:"members"`
	PerHour float64  `json:"perHour"` // steps of the growth
	// Client, Users and Facts say who: the managing client, service accounts and users
	// where they are known, and what labels and annotations say.
	Client string   `json:"client,omitempty"`
	Users  []string `json:"users,omitempty"`
	Facts  []Fact   `json:"facts,omitempty"`
	// Reaches are when budgets will be reached, the first at the front.
	Reaches []Reach `json:"reaches,omitempty"`
	// Keeps says in one line what will remove the objects: "nothing removes them"; "": it
	// is not known.
	Keeps string `json:"keeps"`
	// Advice is what to do now, the safest first.
	Advice []Advice `json:"advice,omitempty"`
	// Ended is when the growth had stopped; zero: it goes on.
	Ended time.Time `json:"ended,omitzero"`
	// Exempt is who lets runs go on in spite of it; nil: nobody does.
	Exempt *Exemption `json:"exempt,omitempty"`
}

// About reports whether objects of a kind are among those that grow.
func (f *Finding) About(kind string) bool {
	return slices.ContainsFunc(f.Members, func(m Member) bool { return m.Kind == kind })
}

// Member is one family of a growth.
type Member struct {
	Key
	Objects int64   `json:"objects"`
	Rules   int64   `json:"rules,omitempty"`
	PerHour float64 `json:"perHour"`
	Ratio   float64 `json:"ratio"`
	Example string  `json:"example,omitempty"`
}

// Severity is how soon somebody has to look.
type Severity string

// The severities. A notice is looked at in working hours, a warning today, a
// critical finding now.
const (
	Notice   Severity = "notice"
	Warning  Severity = "warning"
	Critical Severity = "critical"
)

// Reach is when a growth reaches a budget.
type Reach struct {
	Budget Budget        `json:"budget"`
	Now    float64       `json:"now"` // in the budget's unit
	In     time.Duration `json:"in"`  // 0: it is reached
	Low    time.Duration `json:"low"` // with High: where it is with 90 %
	High   time.Duration `json:"high"`
	// Detail is more to know, in one line: "restarting calico-node is safe up to 2,400 policies".
	Detail string `json:"detail,omitempty"`
}

// Budget is how much of something the cluster can hold.
type Budget struct {
	Name string `json:"name"` // networkpolicies, calico-node memory
	// Kind, Namespace and Unit say what is counted: Unit is objects, rules or bytes of
	// a kind (in one namespace, if Namespace is "each" or a name), or a container's memory
	// in bytes or cores.
	Kind      string  `json:"kind,omitempty"`
	Namespace string  `json:"namespace,omitempty"`
	Unit      string  `json:"unit"`
	Limit     float64 `json:"limit"`
	// Source says where the limit comes from, for people: "SIG Scalability: 3,000 pods
	// per namespace", "configured", "learned: 1.24 kB per rule (±8 %), limit 500Mi".
	Source string `json:"source"`
}

// Advice is one thing to do, with the command for it.
type Advice struct {
	Text    string `json:"text"` // what it does and what it risks
	Command string `json:"command,omitempty"`
}

// Mebibytes is a number of bytes as limits are written: 500Mi, 1.5Gi.
func Mebibytes(bytes float64) string {
	const mi = 1 << 20
	if bytes >= 1024*mi {
		return strconv.FormatFloat(math.Round(bytes/(1024*mi)*10)/10, 'f', -1, 64) + "Gi"
	}
	return strconv.FormatFloat(math.Round(bytes/mi), 'f', -1, 64) + "Mi"
}
