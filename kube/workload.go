package kube

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/kube/api/v1alpha1"
)

// Fields of pods and containers that a class takes over, and those that it has
// no use for: the defaults of the API server, and what Bulkhead decides itself.
var (
	podFields = strings.Fields(`containers initContainers volumes imagePullSecrets nodeSelector tolerations affinity
		topologySpreadConstraints serviceAccountName automountServiceAccountToken securityContext priorityClassName
		runtimeClassName hostAliases dnsPolicy dnsConfig terminationGracePeriodSeconds
		serviceAccount schedulerName restartPolicy enableServiceLinks preemptionPolicy priority activeDeadlineSeconds`)
	containerFields = strings.Fields(`name image imagePullPolicy command workingDir resources env envFrom volumeMounts securityContext
		terminationMessagePath terminationMessagePolicy stdin stdinOnce tty`)
)

// FromWorkload makes a class of a Job, a CronJob or a Deployment: its scripts run
// as the workload's first container does. The notes say what of it is not in the
// class, and what to look at before it is used.
func FromWorkload(workload runtime.Object) (class *v1alpha1.ScriptClass, notes []string, err error) {
	class = &v1alpha1.ScriptClass{TypeMeta: metav1.TypeMeta{APIVersion: v1alpha1.GroupVersion.String(), Kind: "ScriptClass"}}
	note := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	workers := int32(1)
	var pod *corev1.PodTemplateSpec
	var labels map[string]string
	switch w := workload.(type) {
	case *batchv1.Job:
		class.Namespace, class.Name, pod = w.Namespace, w.Name, &w.Spec.Template
		workers, labels = fromJob(&class.Spec, &w.Spec), jobLabels(pod.Labels)
	case *batchv1.CronJob:
		job := &w.Spec.JobTemplate.Spec
		class.Namespace, class.Name, pod = w.Namespace, w.Name, &job.Template
		workers, labels = fromJob(&class.Spec, job), jobLabels(pod.Labels)
		note("the schedule %q is not part of a class: let what keeps it start `bulkhead run --class %s/%s`", w.Spec.Schedule, w.Namespace, w.Name)
	case *appsv1.Deployment:
		class.Namespace, class.Name, pod = w.Namespace, w.Name, &w.Spec.Template
		if len(pod.Labels) > 0 {
			note("the labels %s were left out, because Services may choose pods by them: add those that network policies choose by, in template.labels",
				strings.Join(slices.Sorted(maps.Keys(pod.Labels)), ", "))
		}
	default:
		return nil, nil, &bulkhead.Error{Code: bulkhead.CodeUsage, Message: fmt.Sprintf("a class cannot be made from a %T", workload),
			Hint: "give a Job, a CronJob or a Deployment"}
	}
	if len(pod.Spec.Containers) == 0 {
		return nil, nil, &bulkhead.Error{Code: bulkhead.CodeUsage, Message: fmt.Sprintf("%s has no container", class.Name)}
	}
	class.Spec.Workers.Max, class.Spec.Workers.Slots = workers, 1
	class.Spec.Template.Labels, class.Spec.Template.Annotations = labels, pod.Annotations
	fromPod(class, &pod.Spec, note)
	fromContainer(class, &pod.Spec.Containers[0], note)
	checkName(class, note)
	note("workers.max is %d: set how many pods there may be at once", workers)
	return class, notes, nil
}

// fromJob takes over what a Job says beside its pods, and returns how many there
// may be at once.
func fromJob(spec *v1alpha1.ScriptClassSpec, job *batchv1.JobSpec) int32 {
	if job.ActiveDeadlineSeconds != nil {
		spec.Timeout = &metav1.Duration{Duration: time.Duration(*job.ActiveDeadlineSeconds) * time.Second}
	}
	if job.Parallelism != nil {
		return max(1, *job.Parallelism)
	}
	return 1
}

// jobLabels are the labels of a Job's pods without those of its controller.
func jobLabels(all map[string]string) map[string]string {
	out := maps.Clone(all)
	maps.DeleteFunc(out, func(k, _ string) bool {
		return strings.HasPrefix(k, "batch.kubernetes.io/") || k == "controller-uid" || k == "job-name"
	})
	return out
}

func fromPod(class *v1alpha1.ScriptClass, pod *corev1.PodSpec, note func(string, ...any)) {
	t := &class.Spec.Template
	t.Volumes, t.ImagePullSecrets, t.NodeSelector, t.Tolerations, t.Affinity = pod.Volumes, pod.ImagePullSecrets, pod.NodeSelector, pod.Tolerations, pod.Affinity
	t.TopologySpreadConstraints, t.ServiceAccountName = pod.TopologySpreadConstraints, pod.ServiceAccountName
	t.PriorityClassName, t.RuntimeClassName, t.HostAliases, t.DNSConfig = pod.PriorityClassName, pod.RuntimeClassName, pod.HostAliases, pod.DNSConfig
	if pod.DNSPolicy != corev1.DNSClusterFirst {
		t.DNSPolicy = pod.DNSPolicy
	}
	if s := pod.SecurityContext; s != nil && !equality.Semantic.DeepEqual(*s, corev1.PodSecurityContext{}) {
		t.SecurityContext = s
	}
	if grace := pod.TerminationGracePeriodSeconds; grace != nil && *grace != corev1.DefaultTerminationGracePeriodSeconds {
		t.TerminationGracePeriodSeconds = grace
	}
	switch auto := pod.AutomountServiceAccountToken; {
	case auto != nil && *auto:
		t.AutomountServiceAccountToken = true
	case auto == nil && pod.ServiceAccountName != "" && pod.ServiceAccountName != "default":
		note("the account's token is not given to scripts: set template.automountServiceAccountToken if they talk to the API server")
	}
	t.InitContainers = slices.Clone(pod.InitContainers)
	always := corev1.ContainerRestartPolicyAlways
	for _, c := range pod.Containers[1:] {
		c.RestartPolicy = &always
		t.InitContainers = append(t.InitContainers, c)
		note("container %s became a sidecar: it starts before the scripts and ends after them", c.Name)
	}
	if left := others(pod, podFields); len(left) > 0 {
		note("the pod's %s cannot be part of a class", strings.Join(left, ", "))
	}
}

func fromContainer(class *v1alpha1.ScriptClass, c *corev1.Container, note func(string, ...any)) {
	spec := &class.Spec
	spec.Image, spec.Command, spec.Dir = c.Image, c.Command, c.WorkingDir
	if len(c.Command) > 0 {
		note("every command begins with %q, as the container's does: what a run says comes after it", c.Command)
	} else {
		note("the container runs what its image says: put that into command if scripts need it")
	}
	if len(c.Args) > 0 {
		note("the arguments %q were left out: they are what a run says", c.Args)
	}
	spec.Template.Container = v1alpha1.Container{
		ImagePullPolicy: c.ImagePullPolicy, Resources: c.Resources, Env: c.Env, EnvFrom: c.EnvFrom, VolumeMounts: c.VolumeMounts,
		SecurityContext: c.SecurityContext,
	}
	if left := others(c, append(containerFields, "args")); len(left) > 0 {
		note("container %s: %s cannot be part of a class", c.Name, strings.Join(left, ", "))
	}
	user := c.SecurityContext != nil && c.SecurityContext.RunAsUser != nil || spec.Template.SecurityContext != nil && spec.Template.SecurityContext.RunAsUser != nil
	if !user {
		note("workers do not run as root, and their root file system is read-only: if the image names no user, set template.securityContext.runAsUser")
	}
}

// checkName makes the name one that a class can have.
func checkName(class *v1alpha1.ScriptClass, note func(string, ...any)) {
	const most = 49 // see ScriptClass
	name := strings.ReplaceAll(class.Name, ".", "-")
	if len(name) > most {
		name = strings.TrimRight(name[:most], "-")
	}
	if name != class.Name {
		note("the class is named %s: the names of its pods begin with it", name)
		class.Name = name
	}
}

// others are the fields of an object that are set and not among these.
func others(object any, known []string) []string {
	text, err := json.Marshal(object)
	if err != nil {
		return nil
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(text, &fields) != nil {
		return nil
	}
	maps.DeleteFunc(fields, func(name string, _ json.RawMessage) bool { return slices.Contains(known, name) })
	return slices.Sorted(maps.Keys(fields))
}
