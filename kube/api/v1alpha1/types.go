package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ScriptClass is what many runs of scripts share: the image and the environment
// they run in, how many worker pods there may be, and what those may reach.
//
// Its name is part of the names of its pods, and a pod's name of its host's: 63
// characters, of which 14 are for a shape's key, an ordinal and two dashes.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Namespaced,shortName=sclass
// +kubebuilder:printcolumn:name="State",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Workers",type=integer,JSONPath=`.status.ready`,description="Workers that are connected"
// +kubebuilder:printcolumn:name="Max",type=integer,JSONPath=`.spec.workers.max`
// +kubebuilder:printcolumn:name="Running",type=integer,JSONPath=`.status.running`,description="Items that run"
// +kubebuilder:printcolumn:name="Queued",type=integer,JSONPath=`.status.queued`,description="Items that wait"
// +kubebuilder:printcolumn:name="Waits for",type=string,JSONPath=`.status.waiting`
// +kubebuilder:printcolumn:name="Pods",type=integer,priority=1,JSONPath=`.status.workers`
// +kubebuilder:printcolumn:name="Image",type=string,priority=1,JSONPath=`.spec.image`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 49 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="metadata.name: at most 49 of a-z, 0-9 and -, because the names of the class's pods begin with it and end with a shape and a number"
type ScriptClass struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// +required
	Spec ScriptClassSpec `json:"spec"`
	// +optional
	Status ScriptClassStatus `json:"status,omitzero"`
}

// ScriptClassList is a list of classes.
//
// +kubebuilder:object:root=true
type ScriptClassList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`

	Items []ScriptClass `json:"items"`
}

// ScriptClassSpec is what the operator says.
type ScriptClassSpec struct {
	// Image is what scripts run in. It needs nothing of Bulkhead's, not even a shell.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1000
	Image string `json:"image"`
	// Command is what every command begins with; a run's own is put after it.
	// +kubebuilder:validation:MaxItems=100
	// +listType=atomic
	// +optional
	Command []string `json:"command,omitempty"`
	// Dir is the working folder. Default: the image's.
	// +kubebuilder:validation:Pattern=`^/`
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=4096
	// +optional
	Dir string `json:"dir,omitempty"`
	// Template is the rest of what a worker pod is to be like.
	// +optional
	Template PodTemplate `json:"template,omitzero"`
	// Workers says how many pods there may be and when they are replaced.
	// +kubebuilder:default={max: 1}
	// +optional
	Workers Workers `json:"workers,omitzero"`
	// NetworkPolicy says what the pods may reach. Default: one policy of the class
	// that lets nobody in and everything out.
	// +optional
	NetworkPolicy NetworkPolicy `json:"networkPolicy,omitzero"`
	// Pools that every item of the class takes a slot of.
	// +kubebuilder:validation:MaxItems=20
	// +listType=map
	// +listMapKey=name
	// +optional
	Pools []Pool `json:"pools,omitempty"`
	// Limit is the most items of one run at once. Default: as many as there are slots.
	// +kubebuilder:validation:Minimum=1
	// +optional
	Limit int32 `json:"limit,omitempty"`
	// Timeout of an attempt, if the run does not say. Default: none.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=40
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s')",message="must be a duration of more than 0, such as 30m"
	// +optional
	Timeout *metav1.Duration `json:"timeout,omitempty"`
	// EchoOutput lets workers write what scripts write also to their container's own
	// standard output, with run and item, for the cluster's log pipeline.
	// +optional
	EchoOutput bool `json:"echoOutput,omitempty"`
	// Shapes lets runs change the image and the resources.
	// +optional
	Shapes Shapes `json:"shapes,omitzero"`
}

// PodTemplate is what an operator may say about worker pods. What is not here,
// Bulkhead decides: restart policy, probes, commands.
type PodTemplate struct {
	// Labels and Annotations of the pods, beside Bulkhead's own.
	// +kubebuilder:validation:XValidation:rule="self.all(k, !k.startsWith('bulkhead.dev/'))",message="labels that begin with bulkhead.dev/ are Bulkhead's own"
	// +kubebuilder:validation:MaxProperties=50
	// +optional
	Labels map[string]string `json:"labels,omitempty"`
	// +kubebuilder:validation:XValidation:rule="self.all(k, !k.startsWith('bulkhead.dev/'))",message="annotations that begin with bulkhead.dev/ are Bulkhead's own"
	// +kubebuilder:validation:MaxProperties=50
	// +optional
	Annotations map[string]string `json:"annotations,omitempty"`
	// Container is the one that scripts run in.
	// +optional
	Container Container `json:"container,omitzero"`
	// InitContainers run before; those with restartPolicy Always are sidecars and
	// run beside the scripts.
	// +kubebuilder:validation:MaxItems=20
	// +listType=map
	// +listMapKey=name
	// +optional
	InitContainers []corev1.Container `json:"initContainers,omitempty"`
	// +kubebuilder:validation:MaxItems=100
	// +listType=map
	// +listMapKey=name
	// +optional
	Volumes []corev1.Volume `json:"volumes,omitempty"`
	// +kubebuilder:validation:MaxItems=20
	// +listType=map
	// +listMapKey=name
	// +optional
	ImagePullSecrets []corev1.LocalObjectReference `json:"imagePullSecrets,omitempty"`
	// +optional
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`
	// +kubebuilder:validation:MaxItems=50
	// +listType=atomic
	// +optional
	Tolerations []corev1.Toleration `json:"tolerations,omitempty"`
	// +optional
	Affinity *corev1.Affinity `json:"affinity,omitempty"`
	// +kubebuilder:validation:MaxItems=20
	// +listType=atomic
	// +optional
	TopologySpreadConstraints []corev1.TopologySpreadConstraint `json:"topologySpreadConstraints,omitempty"`
	// ServiceAccountName is the account of the pods. Default: the namespace's default.
	// +kubebuilder:validation:MaxLength=253
	// +optional
	ServiceAccountName string `json:"serviceAccountName,omitempty"`
	// AutomountServiceAccountToken gives scripts the account's token. Default: false.
	// +optional
	AutomountServiceAccountToken bool `json:"automountServiceAccountToken,omitempty"`
	// SecurityContext of the pods, on top of the restricted Pod Security profile.
	// +optional
	SecurityContext *corev1.PodSecurityContext `json:"securityContext,omitempty"`
	// +kubebuilder:validation:MaxLength=253
	// +optional
	PriorityClassName string `json:"priorityClassName,omitempty"`
	// +kubebuilder:validation:MaxLength=253
	// +optional
	RuntimeClassName *string `json:"runtimeClassName,omitempty"`
	// +kubebuilder:validation:MaxItems=100
	// +listType=atomic
	// +optional
	HostAliases []corev1.HostAlias `json:"hostAliases,omitempty"`
	// +kubebuilder:validation:Enum=ClusterFirst;Default;None
	// +optional
	DNSPolicy corev1.DNSPolicy `json:"dnsPolicy,omitempty"`
	// +optional
	DNSConfig *corev1.PodDNSConfig `json:"dnsConfig,omitempty"`
	// TerminationGracePeriodSeconds is how long a pod that is deleted may take: the
	// grace of its scripts, and what the worker needs to hand in their results, for
	// which it keeps the last quarter, at most 10 s: then scripts are killed, whatever
	// grace their run has.
	// +kubebuilder:default=60
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=86400
	// +optional
	TerminationGracePeriodSeconds *int64 `json:"terminationGracePeriodSeconds,omitempty"`
	// Spool is how much a worker may keep on its node while the server is away, and
	// of files for its scripts.
	// +kubebuilder:default="1Gi"
	// +optional
	Spool *resource.Quantity `json:"spool,omitempty"`
	// Tmp is how large /tmp may become. A volume of yours that is mounted there takes
	// its place.
	// +kubebuilder:default="1Gi"
	// +optional
	Tmp *resource.Quantity `json:"tmp,omitempty"`
}

// Container is what may be said about the container that scripts run in.
type Container struct {
	// +kubebuilder:validation:Enum=Always;IfNotPresent;Never
	// +optional
	ImagePullPolicy corev1.PullPolicy `json:"imagePullPolicy,omitempty"`
	// Resources of a worker: what all of its slots have together.
	// +optional
	Resources corev1.ResourceRequirements `json:"resources,omitzero"`
	// +kubebuilder:validation:MaxItems=1000
	// +listType=map
	// +listMapKey=name
	// +optional
	Env []corev1.EnvVar `json:"env,omitempty"`
	// +kubebuilder:validation:MaxItems=100
	// +listType=atomic
	// +optional
	EnvFrom []corev1.EnvFromSource `json:"envFrom,omitempty"`
	// +kubebuilder:validation:MaxItems=100
	// +listType=map
	// +listMapKey=mountPath
	// +optional
	VolumeMounts []corev1.VolumeMount `json:"volumeMounts,omitempty"`
	// SecurityContext of the container, on top of the restricted Pod Security profile.
	// +optional
	SecurityContext *corev1.SecurityContext `json:"securityContext,omitempty"`
}

// Workers says how many pods there may be and when they are replaced.
type Workers struct {
	// Max is how many pods there may be at once, of all shapes together.
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10000
	// +optional
	Max int32 `json:"max,omitempty"`
	// Slots is how many items one pod runs at once.
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	// +optional
	Slots int32 `json:"slots,omitempty"`
	// IdleTimeout is how long a pod without work waits for some before it ends.
	// +kubebuilder:default="5m"
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=40
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s')",message="must be a duration of more than 0, such as 5m"
	// +optional
	IdleTimeout *metav1.Duration `json:"idleTimeout,omitempty"`
	// MaxItems is how many items a pod runs before a fresh one takes its place: 1 is a
	// pod of its own for each. Default: no limit.
	// +kubebuilder:validation:Minimum=1
	// +optional
	MaxItems int64 `json:"maxItems,omitempty"`
	// MaxAge is how old a pod becomes before it takes no more items. Default: no limit.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=40
	// +kubebuilder:validation:XValidation:rule="duration(self) > duration('0s')",message="must be a duration of more than 0, such as 24h"
	// +optional
	MaxAge *metav1.Duration `json:"maxAge,omitempty"`
}

// NetworkPolicy says what the pods may reach and who may reach them.
//
// +kubebuilder:validation:XValidation:rule="(has(self.existing) ? 1 : 0) + (has(self.none) ? 1 : 0) + (has(self.egress) || has(self.ingress) ? 1 : 0) <= 1",message="existing, none, and rules (egress, ingress) exclude one another"
type NetworkPolicy struct {
	// Existing names a policy of the namespace that selects the pods; none is made.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +optional
	Existing string `json:"existing,omitempty"`
	// None makes no policy: what the namespace has decides.
	// +kubebuilder:validation:Enum=true
	// +optional
	None bool `json:"none,omitempty"`
	// Egress is what scripts may reach, beside what workers need: DNS and the server.
	// Left out: everything. An empty list: nothing else.
	// +kubebuilder:validation:MaxItems=100
	// +listType=atomic
	// +optional
	Egress []networkingv1.NetworkPolicyEgressRule `json:"egress,omitzero"`
	// Ingress is who may reach the pods. Left out or an empty list: nobody.
	// +kubebuilder:validation:MaxItems=100
	// +listType=atomic
	// +optional
	Ingress []networkingv1.NetworkPolicyIngressRule `json:"ingress,omitzero"`
}

// Pool is a named limit that every item of the class takes a slot of.
type Pool struct {
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9][A-Za-z0-9_.-]*$`
	// +kubebuilder:validation:MaxLength=100
	Name string `json:"name"`
	// Key makes a pool of its own for each value, for example {wiki}.
	// +kubebuilder:validation:MaxLength=200
	// +optional
	Key string `json:"key,omitempty"`
	// Slots is how many items may be in the pool at once.
	// +kubebuilder:validation:Minimum=1
	Slots int32 `json:"slots"`
}

// Shapes says whether runs may change the image and the resources.
type Shapes struct {
	// Max is how many different ones may have pods at once. 0: runs change nothing.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	// +optional
	Max int32 `json:"max,omitempty"`
}

// Types of conditions.
const (
	// ConditionReady is true when the class does what its runs ask for; its reason is
	// Idle, Running, Starting, Waiting or Blocked.
	ConditionReady = "Ready"
	// ConditionProgressing is true while workers start or are replaced.
	ConditionProgressing = "Progressing"
	// ConditionBlocked is true when workers cannot start; its message says why.
	ConditionBlocked = "Blocked"
)

// ScriptClassStatus is what Bulkhead says. Counts are at most some seconds old.
type ScriptClassStatus struct {
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Workers is how many pods there are.
	// +optional
	Workers int32 `json:"workers"`
	// Ready is how many of them are connected to the server.
	// +optional
	Ready int32 `json:"ready"`
	// Outdated is how many of them are of an earlier version of the class; they end
	// when they are free.
	// +optional
	Outdated int32 `json:"outdated"`
	// Busy is how many slots of the workers have an item.
	// +optional
	Busy int32 `json:"busy"`
	// Queued is how many items wait.
	// +optional
	Queued int64 `json:"queued"`
	// Running is how many items run.
	// +optional
	Running int64 `json:"running"`
	// Waiting says in one line what waits for what; empty when nothing does.
	// +optional
	Waiting string `json:"waiting,omitempty"`
}
