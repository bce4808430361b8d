package kube

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/kube/api/v1alpha1"
)

// Labels and annotations of what is made for a class.
const (
	labelClass      = bulkhead.ClassKey
	labelShape      = "bulkhead.dev/shape" // key of the shape, or baseShape
	labelManaged    = "app.kubernetes.io/managed-by"
	annotationShape = "bulkhead.dev/shape"    // the shape itself, JSON
	annotationHash  = "bulkhead.dev/template" // what the pod was made from
)

// baseShape stands for the class as it is, in names and labels.
const baseShape = "0"

const (
	scriptContainer = "script"
	agentContainer  = "bulkhead-agent" // brings the binary, and ends
	accessVolume    = "bulkhead-access"
	binVolume       = "bulkhead-bin"
	spoolVolume     = "bulkhead-spool"
	tmpVolume       = "bulkhead-tmp"
	accessDir       = "/bulkhead-access"
	tokenSeconds    = 3600 // that a worker's token is good for; the kubelet gets a new one in time
	binDir          = "/bulkhead-bin"
	spoolDir        = "/bulkhead-spool"
	tokenKey        = "token"
	caKey           = "ca.crt"
	agentNameEnv    = "BULKHEAD_AGENT_NAME"
	nobody          = 65532 // who has no name in most images
)

// workerName is the name of a pod. Shapes and ordinals have no dashes, so that
// no two classes can mean the same.
func workerName(class, shape string, ordinal int) string {
	if shape == "" {
		shape = baseShape
	}
	return fmt.Sprintf("%s-%s-%d", class, shape, ordinal)
}

// parseName is the inverse of NAMESPACE/NAME.
func parseName(name string) (types.NamespacedName, bool) {
	namespace, base, ok := strings.Cut(name, "/")
	return types.NamespacedName{Namespace: namespace, Name: base}, ok && namespace != "" && base != ""
}

// CheckShape says what is wrong with a shape that a run asks for.
func CheckShape(s bulkhead.Shape) error {
	for name, text := range map[string]string{"cpu": s.CPU, "memory": s.Memory} {
		if text == "" {
			continue
		}
		if q, err := resource.ParseQuantity(text); err != nil || q.Sign() <= 0 {
			return &bulkhead.Error{Code: bulkhead.CodeUsage, Message: fmt.Sprintf("%s %s is not a quantity of more than 0", name, bulkhead.Quote(text)),
				Hint: "for example 500m or 2 for cpu, 512Mi or 4Gi for memory"}
		}
	}
	return nil
}

// podTemplate is what the pods of a class and shape are made from.
func (o *Options) podTemplate(class *v1alpha1.ScriptClass, shape bulkhead.Shape) (*corev1.Pod, error) {
	if err := CheckShape(shape); err != nil {
		return nil, err
	}
	t := &class.Spec.Template
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       class.Namespace,
			Labels:          ownLabels(class, t.Labels),
			Annotations:     maps.Clone(t.Annotations),
			OwnerReferences: []metav1.OwnerReference{owner(class)},
		},
		Spec: o.podSpec(class, shape),
	}
	p.Labels[labelShape] = baseShape
	if key := shape.Key(); key != "" {
		p.Labels[labelShape] = key
	}
	if p.Annotations == nil {
		p.Annotations = map[string]string{}
	}
	asText, err := json.Marshal(shape)
	if err != nil {
		return nil, err
	}
	p.Annotations[annotationShape] = string(asText)
	hash, err := hashOf(p)
	p.Annotations[annotationHash] = hash
	return p, err
}

// hashOf names what a pod is made from: whatever of a class does not change its
// pods does not replace them.
func hashOf(p *corev1.Pod) (string, error) {
	text, err := json.Marshal([]any{p.Labels, p.Annotations, p.Spec})
	if err != nil {
		return "", fmt.Errorf("hash the pod template: %w", err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8]), nil
}

// named makes a pod of a template.
func named(template *corev1.Pod, name string) *corev1.Pod {
	p := template.DeepCopy()
	p.Name = name
	script := &p.Spec.Containers[0]
	script.Env = append(script.Env, corev1.EnvVar{Name: agentNameEnv, Value: p.Namespace + "/" + name})
	return p
}

// owner makes something go when the class goes. It does not block that: for this
// the controller would need the right to change classes.
func owner(class *v1alpha1.ScriptClass) metav1.OwnerReference {
	yes, no := true, false
	return metav1.OwnerReference{APIVersion: v1alpha1.GroupVersion.String(), Kind: "ScriptClass", Name: class.Name, UID: class.UID,
		Controller: &yes, BlockOwnerDeletion: &no}
}

func ownLabels(class *v1alpha1.ScriptClass, more map[string]string) map[string]string {
	all := map[string]string{labelManaged: "bulkhead"}
	maps.Copy(all, more)
	all[labelClass] = class.Name
	return all
}

func (o *Options) podSpec(class *v1alpha1.ScriptClass, shape bulkhead.Shape) corev1.PodSpec {
	t := &class.Spec.Template
	no, seconds := false, grace(class)
	return corev1.PodSpec{
		// An agent that crashes is started again in its pod, where its spool is.
		RestartPolicy:                 corev1.RestartPolicyOnFailure,
		TerminationGracePeriodSeconds: &seconds,
		InitContainers:                append([]corev1.Container{o.agent(t)}, hardenAll(t.InitContainers)...),
		Containers:                    []corev1.Container{o.script(class, shape)},
		Volumes:                       slices.Concat(workerVolumes(class), t.Volumes),
		ImagePullSecrets:              t.ImagePullSecrets, NodeSelector: t.NodeSelector, Tolerations: t.Tolerations, Affinity: t.Affinity,
		TopologySpreadConstraints: t.TopologySpreadConstraints, ServiceAccountName: t.ServiceAccountName,
		AutomountServiceAccountToken: &t.AutomountServiceAccountToken, EnableServiceLinks: &no,
		SecurityContext: podSecurity(t.SecurityContext), PriorityClassName: t.PriorityClassName, RuntimeClassName: t.RuntimeClassName,
		HostAliases: t.HostAliases, DNSPolicy: t.DNSPolicy, DNSConfig: t.DNSConfig,
	}
}

// agent is the container that brings this binary into the pod.
func (o *Options) agent(t *v1alpha1.PodTemplate) corev1.Container {
	security := containerSecurity(nil)
	if t.SecurityContext == nil || t.SecurityContext.RunAsUser == nil {
		uid := int64(nobody) // the image names no user
		security.RunAsUser = &uid
	}
	yes := true
	security.RunAsNonRoot, security.ReadOnlyRootFilesystem = &yes, &yes
	if u := security.RunAsUser; u == nil && *t.SecurityContext.RunAsUser == 0 {
		security.RunAsNonRoot = nil
	}
	return corev1.Container{
		Name: agentContainer, Image: o.Image, ImagePullPolicy: o.ImagePullPolicy,
		Command:      []string{"/bulkhead", "copy-agent", binDir},
		VolumeMounts: []corev1.VolumeMount{{Name: binVolume, MountPath: binDir}},
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("32Mi")},
			Limits:   corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourceMemory: resource.MustParse("128Mi")},
		},
		SecurityContext: security,
	}
}

// script is the container that scripts run in: the agent, which starts them.
func (o *Options) script(class *v1alpha1.ScriptClass, shape bulkhead.Shape) corev1.Container {
	t := &class.Spec.Template.Container
	c := corev1.Container{
		Name: scriptContainer, Image: class.Spec.Image, ImagePullPolicy: t.ImagePullPolicy,
		Command: o.agentCommand(class, shape), Env: slices.Clone(t.Env), EnvFrom: t.EnvFrom,
		Resources: shaped(t.Resources, shape),
		VolumeMounts: append([]corev1.VolumeMount{
			{Name: binVolume, MountPath: binDir, ReadOnly: true},
			{Name: accessVolume, MountPath: accessDir, ReadOnly: true},
			{Name: spoolVolume, MountPath: spoolDir},
		}, t.VolumeMounts...),
		SecurityContext: containerSecurity(t.SecurityContext),
		// So that the status of the pod says why an agent could not start.
		TerminationMessagePolicy: corev1.TerminationMessageFallbackToLogsOnError,
	}
	if c.SecurityContext.ReadOnlyRootFilesystem == nil {
		yes := true
		c.SecurityContext.ReadOnlyRootFilesystem = &yes
	}
	if !ownTmp(class) {
		c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: tmpVolume, MountPath: "/tmp"})
	}
	if shape.Image != "" {
		c.Image = shape.Image
	}
	return c
}

func (o *Options) agentCommand(class *v1alpha1.ScriptClass, shape bulkhead.Shape) []string {
	w := &class.Spec.Workers
	command := []string{
		binDir + "/bulkhead", "agent", "--server", o.Server, "--ca", accessDir + "/" + caKey, "--token-file", accessDir + "/" + tokenKey,
		"--class", class.Namespace + "/" + class.Name, "--slots", strconv.Itoa(slots(class)), "--spool", spoolDir,
		"--stop-within", (time.Duration(grace(class)) * time.Second).String(),
	}
	if key := shape.Key(); key != "" {
		command = append(command, "--shape", key)
	}
	idle := 5 * time.Minute
	if w.IdleTimeout != nil {
		idle = w.IdleTimeout.Duration
	}
	command = append(command, "--idle-timeout", idle.String())
	if w.MaxItems > 0 {
		command = append(command, "--max-items", strconv.FormatInt(w.MaxItems, 10))
	}
	if w.MaxAge != nil {
		command = append(command, "--max-age", w.MaxAge.Duration.String())
	}
	return command
}

// grace is how many seconds a pod that is deleted may take.
func grace(class *v1alpha1.ScriptClass) int64 {
	if s := class.Spec.Template.TerminationGracePeriodSeconds; s != nil {
		return *s
	}
	return 60
}

// slots is how many items one pod of a class runs at once.
func slots(class *v1alpha1.ScriptClass) int { return max(1, int(class.Spec.Workers.Slots)) }

// shaped is what a shape makes of the resources of a class.
func shaped(r corev1.ResourceRequirements, shape bulkhead.Shape) corev1.ResourceRequirements {
	out := *r.DeepCopy()
	for name, text := range map[corev1.ResourceName]string{corev1.ResourceCPU: shape.CPU, corev1.ResourceMemory: shape.Memory} {
		quantity, err := resource.ParseQuantity(text)
		if text == "" || err != nil { // CheckShape has refused what is wrong
			continue
		}
		if out.Requests == nil {
			out.Requests = corev1.ResourceList{}
		}
		if out.Limits == nil {
			out.Limits = corev1.ResourceList{}
		}
		out.Requests[name], out.Limits[name] = quantity, quantity
	}
	return out
}

func ownTmp(class *v1alpha1.ScriptClass) bool {
	return slices.ContainsFunc(class.Spec.Template.Container.VolumeMounts, func(m corev1.VolumeMount) bool {
		return strings.TrimRight(m.MountPath, "/") == "/tmp"
	})
}

// workerVolumes are the volumes that a worker needs, all of them bounded.
func workerVolumes(class *v1alpha1.ScriptClass) []corev1.Volume {
	empty := func(name string, size *resource.Quantity, otherwise string) corev1.Volume {
		limit := resource.MustParse(otherwise)
		if size != nil {
			limit = size.DeepCopy()
		}
		return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &limit}}}
	}
	t := &class.Spec.Template
	volumes := []corev1.Volume{empty(binVolume, nil, "256Mi"), access(class), empty(spoolVolume, t.Spool, "1Gi")}
	if !ownTmp(class) {
		volumes = append(volumes, empty(tmpVolume, t.Tmp, "1Gi"))
	}
	return volumes
}

// access is what a worker needs to talk to the server: a token that says which pod
// it is, that is for Bulkhead alone and ends with the pod, and whom to trust.
func access(class *v1alpha1.ScriptClass) corev1.Volume {
	mode, seconds := int32(0o444), int64(tokenSeconds) // whoever the image runs as
	return corev1.Volume{Name: accessVolume, VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
		DefaultMode: &mode,
		Sources: []corev1.VolumeProjection{
			{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: Audience, ExpirationSeconds: &seconds, Path: tokenKey}},
			{ConfigMap: &corev1.ConfigMapProjection{
				LocalObjectReference: corev1.LocalObjectReference{Name: ownedName(class.Name)},
				Items:                []corev1.KeyToPath{{Key: caKey, Path: caKey}},
			}},
		},
	}}}
}

// podSecurity is the restricted Pod Security profile, but for what the class says
// (https://kubernetes.io/docs/concepts/security/pod-security-standards/).
func podSecurity(own *corev1.PodSecurityContext) *corev1.PodSecurityContext {
	s := own.DeepCopy()
	if s == nil {
		s = &corev1.PodSecurityContext{}
	}
	if s.RunAsNonRoot == nil && (s.RunAsUser == nil || *s.RunAsUser != 0) {
		yes := true
		s.RunAsNonRoot = &yes
	}
	if s.SeccompProfile == nil {
		s.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}
	}
	return s
}

// containerSecurity is the same for a container.
func containerSecurity(own *corev1.SecurityContext) *corev1.SecurityContext {
	s := own.DeepCopy()
	if s == nil {
		s = &corev1.SecurityContext{}
	}
	privileged := s.Privileged != nil && *s.Privileged
	if s.AllowPrivilegeEscalation == nil && !privileged {
		no := false
		s.AllowPrivilegeEscalation = &no
	}
	if s.Capabilities == nil && !privileged {
		s.Capabilities = &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}
	}
	if s.RunAsNonRoot == nil && s.RunAsUser != nil && *s.RunAsUser == 0 {
		no := false
		s.RunAsNonRoot = &no // the pod's says otherwise
	}
	return s
}

func hardenAll(containers []corev1.Container) []corev1.Container {
	var out []corev1.Container
	for i := range containers {
		c := containers[i].DeepCopy()
		c.SecurityContext = containerSecurity(c.SecurityContext)
		out = append(out, *c)
	}
	return out
}
