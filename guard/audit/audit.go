// Package audit learns from the API server's audit log which users make objects. The
// objects themselves name a client (managedFields) and not a user; labels say what who
// made them wanted to be said. The API server knows, and writes it down if its operator
// wants that: one line of JSON a request (audit.k8s.io, kube-apiserver
// --audit-log-path).
//
//	file, pipe ──► Follow ──► Parse ──► Users: family × user × hour, of a day
//	               lines      pure      in memory, bounded
//	                                       │
//	                                       └──► Of: who made these, since when
//
// Parse takes creations that succeeded, and nothing else. Users counts them by the
// family that the name gives; an audit line has no labels and no owners, so a family
// here has a kind, a namespace and a name. What is counted is in memory only: a restart
// reads the end of the log again.
//
// The log is as confidential as what it tells of. Nothing here writes it, and no error
// has a piece of it.
package audit

import (
	"bytes"
	"encoding/json"
	"net/url"
	"strings"
	"time"
)

// Creation is one object that somebody made.
type Creation struct {
	Kind         string // as the census has it: configmaps, jobs.batch
	Namespace    string
	Name         string // "": the API server made it up, and the line does not say
	GenerateName string // what it was made up from, where the policy logs that
	User         string // who it was made as: the impersonated user, if there was one
	Client       string // the first word of the user agent: kubectl/v1.31.0
	// At is when the API server was asked, by its clock; zero: the line does not say.
	At time.Time
}

// Result is what a line was.
type Result string

// The results. Other is every event that is no creation, Invalid what is no event.
// Unkept is a creation for which Users had no room.
const (
	Made    Result = "made"
	Other   Result = "other"
	Invalid Result = "invalid"
	Unkept  Result = "unkept"
)

// Results are all of them.
var Results = []Result{Made, Other, Invalid, Unkept}

// Parse reads a line of the log. What stands before the first brace is left out, as
// journalctl and kubectl logs write something there. A line that is cut is read as far
// as it goes: the API server writes what matters before the objects.
func Parse(line []byte) (Creation, Result) {
	begin := bytes.IndexByte(line, '{')
	if begin < 0 || !bytes.Contains(line, []byte(`audit.k8s.io/`)) {
		return Creation{}, Invalid
	}
	line = line[begin:]
	// Most lines are of other requests. They need no parser to be told.
	made := bytes.Contains(line, []byte(`"create"`)) || bytes.Contains(line, []byte(`"patch"`)) && bytes.Contains(line, []byte("201"))
	if !made || !bytes.Contains(line, []byte("ResponseComplete")) {
		return Creation{}, Other
	}
	var e event
	e.read(line)
	if e.stage == "" {
		return Creation{}, Invalid
	}
	if !e.creates() {
		return Creation{}, Other
	}
	return e.creation(), Made
}

// event is what is of interest of an event. Its fields are in the API reference of
// audit.k8s.io/v1.
type event struct {
	stage, verb, uri, agent, user, as, received string
	ref                                         reference
	code                                        string
	name, generateName                          string // of the object itself, where the policy logs it
}

type reference struct{ resource, namespace, name, group, subresource string }

func (e *event) read(line []byte) {
	members(line, func(key, value []byte) {
		switch string(key) {
		case "stage":
			e.stage = text(value)
		case "verb":
			e.verb = text(value)
		case "requestURI":
			e.uri = text(value)
		case "userAgent":
			e.agent = text(value)
		case "requestReceivedTimestamp":
			e.received = text(value)
		case "user":
			e.user = member(value, "username")
		case "impersonatedUser":
			e.as = member(value, "username")
		case "objectRef":
			e.ref.read(value)
		case "responseStatus":
			members(value, func(key, value []byte) {
				if string(key) == "code" {
					e.code = string(value)
				}
			})
		case "requestObject", "responseObject":
			e.object(value)
		}
	})
}

func (r *reference) read(value []byte) {
	members(value, func(key, value []byte) {
		switch string(key) {
		case "resource":
			r.resource = text(value)
		case "namespace":
			r.namespace = text(value)
		case "name":
			r.name = text(value)
		case "apiGroup":
			r.group = text(value)
		case "subresource":
			r.subresource = text(value)
		}
	})
}

// object reads the names of an object that was sent or came back.
func (e *event) object(value []byte) {
	members(value, func(key, value []byte) {
		if string(key) != "metadata" {
			return
		}
		members(value, func(key, value []byte) {
			switch string(key) {
			case "name":
				e.name = text(value)
			case "generateName":
				e.generateName = text(value)
			}
		})
	})
}

// creates reports whether the request made an object that lasts. An apply on the
// server's side (kubectl apply --server-side, Helm 4) is a patch, and answered with 201
// if there was no such object before.
func (e *event) creates() bool {
	success := len(e.code) == 3 && e.code[0] == '2'
	created := e.verb == "create" && success || e.verb == "patch" && e.code == "201"
	if e.stage != "ResponseComplete" || !created {
		return false
	}
	switch e.ref.group {
	case "authentication.k8s.io", "authorization.k8s.io": // questions, of which nothing is kept
		return false
	}
	// A binding, an eviction, a token: none of them is an object. Events are nobody's work.
	return e.ref.resource != "" && e.ref.resource != "events" && e.ref.subresource == "" && !e.dryRun()
}

func (e *event) dryRun() bool {
	_, query, found := strings.Cut(e.uri, "?")
	if !found || !strings.Contains(query, "dryRun") {
		return false
	}
	values, err := url.ParseQuery(query)
	return err == nil && values.Get("dryRun") != ""
}

func (e *event) creation() Creation {
	c := Creation{Kind: e.ref.resource, Namespace: e.ref.namespace, Name: e.ref.name, GenerateName: e.generateName, User: e.user}
	if e.ref.group != "" {
		c.Kind += "." + e.ref.group
	}
	if c.Kind == "namespaces" {
		c.Namespace = "" // a patch of one is said to be in itself
	}
	if c.Name == "" {
		c.Name = e.name
	}
	if e.as != "" {
		c.User = e.as
	}
	c.Client, _, _ = strings.Cut(e.agent, " ")
	if at, err := time.Parse(time.RFC3339Nano, e.received); err == nil {
		c.At = at
	}
	return c
}

// member is a text in a JSON object; "" if there is none.
func member(object []byte, name string) (found string) {
	members(object, func(key, value []byte) {
		if string(key) == name {
			found = text(value)
		}
	})
	return found
}

// text is what a JSON string says; "" for what is none, or is cut.
func text(value []byte) string {
	if len(value) < 2 || value[0] != '"' || value[len(value)-1] != '"' {
		return ""
	}
	if bytes.IndexByte(value, '\\') < 0 {
		return string(value[1 : len(value)-1])
	}
	var s string
	if json.Unmarshal(value, &s) != nil {
		return ""
	}
	return s
}
