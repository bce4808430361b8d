package family

import (
	"strings"

	"bulkhead.dev/bulkhead"
)

// Object is what is known of an object that is counted: its metadata.
type Object struct {
	Kind      string // as the API names the resource: configmaps, jobs.batch
	Namespace string
	Name      string
	// GenerateName is what its name was made from by the API server, if it was.
	GenerateName string
	Labels       map[string]string
	Annotations  map[string]string
	Owners       []Owner
	// Manager is the client that made it, see Manager of bulkhead.Key.
	Manager string
	// ParentKey is that of its owner, if it is known.
	ParentKey bulkhead.Key
}

// Owner is an owner reference.
type Owner struct {
	APIVersion string // batch/v1
	Kind       string // Job
	Name       string
	Controller bool
}

// Key says with which others an object is counted.
func Key(o Object) bulkhead.Key {
	owner := controller(o.Owners)
	k := bulkhead.Key{
		Kind:      o.Kind,
		Namespace: o.Namespace,
		Family:    Name(o.Name, known(o, owner)),
		Origin:    origin(o, owner),
	}
	if o.Manager != "" {
		k.Manager = Name(o.Manager, Hints{})
	}
	return k
}

// controller is the owner that made the object; the first one, if none says so.
func controller(owners []Owner) Owner {
	for _, o := range owners {
		if o.Controller {
			return o
		}
	}
	if len(owners) > 0 {
		return owners[0]
	}
	return Owner{}
}

// hashLabels have values that controllers put into names, and made up.
var hashLabels = [...]string{"pod-template-hash", "controller-revision-hash", "rollouts-pod-template-hash",
	"batch.kubernetes.io/controller-uid", "controller-uid"}

// known are the parts of the name that something else of the object shows to be made up.
func known(o Object, owner Owner) Hints {
	var known []string
	if rest, ok := strings.CutPrefix(o.Name, o.GenerateName); ok && o.GenerateName != "" {
		known = append(known, rest)
	}
	for _, label := range hashLabels {
		if v := o.Labels[label]; len(v) >= safeWord {
			known = append(known, v[strings.LastIndexByte(v, '-')+1:])
		}
	}
	if owner.Kind == "Node" {
		return Hints{Known: append(known, owner.Name)}
	}
	if rest, ok := strings.CutPrefix(o.Name, owner.Name+"-"); ok && owner.Name != "" && suffixed[o.Kind] {
		known = append(known, rest)
	}
	return Hints{Known: known}
}

// suffixed are kinds whose controllers make names of the owner's and something random.
var suffixed = map[string]bool{"pods": true, "replicasets.apps": true, "jobs.batch": true, "controllerrevisions.apps": true,
	"endpointslices.discovery.k8s.io": true}

// origin is what the object comes from, see Origin of bulkhead.Key.
func origin(o Object, owner Owner) string {
	switch p := o.ParentKey; {
	case owner.Name == "":
		if release := Release(o); release != "" {
			return releasePrefix + Name(release, Hints{})
		}
		return ""
	case owner.Kind == "Node":
		return "nodes/*" // names of nodes are as many as nodes
	case p.Origin != "" && !strings.HasPrefix(p.Origin, releasePrefix):
		return p.Origin
	case p.Family != "":
		return p.Kind + "/" + p.Family
	}
	group, _, found := strings.Cut(owner.APIVersion, "/")
	if !found {
		group = ""
	}
	return grandparent(o, owner, group)
}

const releasePrefix = "release/"

// grandparent is the end of the chain where only the next owner is known. The names
// of two controllers' objects tell of the next one.
func grandparent(o Object, owner Owner, group string) string {
	switch {
	case owner.Kind == "ReplicaSet" && group == "apps":
		base, ok := strings.CutSuffix(owner.Name, "-"+o.Labels["pod-template-hash"])
		if ok && base != "" && o.Labels["pod-template-hash"] != "" {
			return "deployments.apps/" + Name(base, Hints{})
		}
	case owner.Kind == "Job" && group == "batch":
		if base, ok := cutMinute(owner.Name); ok {
			return "cronjobs.batch/" + Name(base, Hints{})
		}
	}
	kind := Resource(owner.Kind)
	if group != "" {
		kind += "." + group
	}
	return kind + "/" + Name(owner.Name, Hints{})
}

// cutMinute cuts from a Job's name what a CronJob appends: the time it was meant for,
// in minutes since 1970. Those from 2023 to 2065 count: 20241009 is a date.
func cutMinute(name string) (string, bool) {
	i := strings.LastIndexByte(name, '-')
	if i <= 0 || len(name)-i-1 != 8 || name[i+1:] < "28000000" || name[i+1:] > "50000000" || strings.Trim(name[i+1:], "0123456789") != "" {
		return "", false
	}
	return name[:i], true
}

// Release is the Helm release that an object belongs to, or "".
func Release(o Object) string {
	helm := o.Labels["app.kubernetes.io/managed-by"] == "Helm"
	for _, name := range [...]struct {
		is   bool
		name string
	}{
		{true, o.Annotations["meta.helm.sh/release-name"]},
		{o.Labels["owner"] == "helm", o.Labels["name"]},
		{true, o.Labels["release"]},
		{helm, o.Labels["app.kubernetes.io/instance"]},
	} {
		if name.is && name.name != "" {
			return name.name
		}
	}
	return ""
}

// Resource is how the API names the objects of a kind, by the rule of English that
// almost all follow: NetworkPolicy, networkpolicies.
func Resource(kind string) string {
	singular := strings.ToLower(kind)
	switch {
	case singular == "" || singular == "endpoints":
		return singular
	case strings.HasSuffix(singular, "s") || strings.HasSuffix(singular, "x") || strings.HasSuffix(singular, "ch") || strings.HasSuffix(singular, "sh"):
		return singular + "es"
	case strings.HasSuffix(singular, "y") && !strings.HasSuffix(singular, "ay") && !strings.HasSuffix(singular, "ey"):
		return singular[:len(singular)-1] + "ies"
	}
	return singular + "s"
}
