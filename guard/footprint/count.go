package footprint

import (
	"strings"
	"time"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard/budget"
)

// count counts an object and what controllers make of it.
func (rd *reader) count(o object, kind string) error {
	meta := o.at("metadata")
	namespace := rd.Namespace
	if given := meta.text("namespace"); given != "" {
		if !spaceName.MatchString(given) {
			return rd.bad("", "namespace %s is not a name", bulkhead.Quote(given))
		}
		namespace = given
	}
	if inNoNamespace[kind] {
		namespace = ""
	}
	annotations := meta.at("annotations")
	if meta.at("labels").text("app.kubernetes.io/managed-by") == "Helm" || annotations.text("meta.helm.sh/release-name") != "" {
		rd.found.Helm = true
	}
	life, ok := hook(annotations)
	if !ok {
		rd.note("hooks of helm test, upgrade, rollback and delete are not counted: they come when those are called")
		return nil
	}
	p := Part{Kind: kind, Namespace: namespace, By: ByManifest, Life: life, Objects: 1, Bytes: withDefaults(o, kind)}
	if kind == budget.Jobs && life.Ends != Done {
		p.Life = jobLife(o.at("spec"), life)
	}
	p.Rules = rulesOf(kind, o.at("spec"))
	rd.add(p)
	rd.follow(o, p)
	return nil
}

// hook is the life that Helm's annotations give an object. It is not ok if helm
// install does not make it. https://helm.sh/docs/topics/charts_hooks
func hook(annotations object) (life Life, ok bool) {
	life = Life{Ends: Uninstall}
	if annotations.text("helm.sh/resource-policy") == "keep" {
		life.Ends = Nothing
	}
	hooks := annotations.text("helm.sh/hook")
	if hooks == "" || hooks == "crd-install" {
		return life, true
	}
	for name := range strings.SplitSeq(hooks, ",") {
		switch strings.TrimSpace(name) {
		case "pre-install", "post-install":
			ok = true
		}
	}
	// A hook is no part of the release: helm uninstall leaves it.
	life.Ends = Nothing
	if strings.Contains(annotations.text("helm.sh/hook-delete-policy"), "hook-succeeded") {
		life.Ends = Done
	}
	return life, ok
}

// jobLife is that of a Job, which removes itself if it has a time to live.
func jobLife(spec object, life Life) Life {
	if ttl, ok := spec.number("ttlSecondsAfterFinished"); ok {
		return Life{Ends: TTL, After: time.Duration(min(ttl, maxTTL)) * time.Second}
	}
	return life
}

// maxTTL is what the API takes, in seconds.
const maxTTL = 1<<31 - 1

// What controllers make, and what defaults and status add to what was sent, has about
// so many bytes. Measured in the lab (test/plan).
const (
	sliceBytes    = 1_200
	endpointBytes = 700
	volumeBytes   = 1_500
	eventBytes    = 1_000
	podExtra      = 3_000 // of a pod, beside its template: status, tokens, tolerations
	workloadExtra = 1_700 // of what has a template of pods
	serviceExtra  = 700
)

// withDefaults is about how large an object is once the server has it.
func withDefaults(o object, kind string) int64 {
	size := bytesOf(o)
	switch {
	case kind == budget.Services:
		size = plus(size, serviceExtra)
	case o.at("spec", "template") != nil || o.at("spec", "jobTemplate") != nil:
		size = plus(size, workloadExtra)
	}
	return size
}

// eventsLife is the API server's default, --event-ttl.
const eventsLife = time.Hour

// Every pod has an event when it is scheduled, and three for each container: pulled,
// created, started.
func eventsOf(template object) int64 {
	spec := template.at("spec")
	return 1 + 3*int64(len(spec.list("containers"))+len(spec.list("initContainers")))
}

// follow counts what controllers make of an object.
func (rd *reader) follow(o object, of Part) {
	spec := o.at("spec")
	template := spec.at("template")
	switch of.Kind {
	case budget.Pods:
		rd.events(of, eventsOf(o))
	case budget.Jobs:
		rd.jobs(of, spec, 1)
	case budget.CronJobs:
		rd.cronJobs(of, spec)
	case budget.Deployments:
		rd.made(of, budget.ReplicaSets, 1, of.Bytes)
		rd.pods(of, template, spec.numberOr("replicas", 1), 1)
		rd.events(of, 1)
	case budget.ReplicaSets, "replicationcontrollers":
		rd.pods(of, template, spec.numberOr("replicas", 1), 1)
	case "statefulsets.apps":
		replicas := spec.numberOr("replicas", 1)
		rd.made(of, "controllerrevisions.apps", 1, of.Bytes)
		rd.pods(of, template, replicas, 1)
		// Nothing removes the claims of a StatefulSet unless it says so.
		claims := of
		if spec.at("persistentVolumeClaimRetentionPolicy").text("whenDeleted") != "Delete" {
			claims.Life = Life{Ends: Nothing}
		}
		rd.claims(claims, times(replicas, int64(len(spec.list("volumeClaimTemplates")))))
	case "daemonsets.apps":
		rd.made(of, "controllerrevisions.apps", 1, of.Bytes)
		if rd.Nodes == 0 {
			rd.note("pods of DaemonSets are not counted: say how many nodes there are with --nodes")
		}
		rd.pods(of, template, rd.Nodes, 1)
	case budget.Services:
		// Without a selector its endpoints are somebody else's.
		if len(spec.at("selector")) > 0 && spec.text("type") != "ExternalName" {
			rd.made(of, budget.EndpointSlices, 1, sliceBytes)
			rd.made(of, "endpoints", 1, endpointBytes)
		}
	case "persistentvolumeclaims":
		rd.volumes(of, 1)
	case "namespaces":
		inside := of
		inside.Namespace = o.at("metadata").text("name")
		if spaceName.MatchString(inside.Namespace) {
			rd.made(inside, budget.ConfigMaps, 1, 2_000) // kube-root-ca.crt
			rd.made(inside, "serviceaccounts", 1, serverBytes)
		}
	}
}

// made counts objects that come and go with another.
func (rd *reader) made(of Part, kind string, n, bytes int64) {
	rd.add(Part{Kind: kind, Namespace: of.Namespace, By: ByController, Life: of.Life, Objects: n, Bytes: times(n, bytes)})
}

func (rd *reader) events(of Part, n int64) {
	of.Life = Life{Ends: Age, After: eventsLife}
	rd.made(of, budget.Events, n, eventBytes)
}

// pods counts pods, and their events; more is what their controller tells of each.
func (rd *reader) pods(of Part, template object, n, more int64) {
	rd.made(of, budget.Pods, n, plus(bytesOf(template), podExtra))
	rd.events(of, times(n, eventsOf(template)+more))
}

// jobs counts the pods of n Jobs of which another part tells. All of them stay until
// their Job goes.
func (rd *reader) jobs(of Part, spec object, n int64) {
	if spec.is("suspend") {
		return
	}
	pods := spec.numberOr("completions", spec.numberOr("parallelism", 1))
	rd.pods(of, spec.at("template"), times(n, pods), 1)
	rd.events(of, n)
	if limit, ok := spec.number("backoffLimit"); pods > 0 && (!ok || limit > 0) {
		rd.note("pods that fail and are tried again (backoffLimit) come on top")
	}
}

// cronJobs counts the Jobs that a CronJob keeps, whether each has a time to live or
// not: at most so many finished ones, and the one that runs.
func (rd *reader) cronJobs(of Part, spec object) {
	if spec.is("suspend") {
		return
	}
	kept := spec.numberOr("successfulJobsHistoryLimit", 3) + spec.numberOr("failedJobsHistoryLimit", 1) + 1
	job := spec.at("jobTemplate", "spec")
	rd.made(of, budget.Jobs, kept, withDefaults(spec.at("jobTemplate"), budget.Jobs))
	rd.jobs(of, job, kept)
	rd.note("a CronJob is counted with all the Jobs that its history limits keep")
}

func (rd *reader) claims(of Part, n int64) {
	rd.made(of, "persistentvolumeclaims", n, serverBytes)
	rd.volumes(of, n)
}

// volumes counts the volumes that a provisioner makes for claims.
func (rd *reader) volumes(of Part, n int64) {
	of.Namespace = ""
	rd.made(of, "persistentvolumes", n, volumeBytes)
}
