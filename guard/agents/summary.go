package agents

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// summary reads a kubelet's /stats/summary, whose form is that of
// k8s.io/kubelet/pkg/apis/stats/v1alpha1, one pod at a time.
func summary(d *json.Decoder, container func(Sample, used)) error {
	return fields(d, func(name string) (bool, error) {
		if name != "pods" {
			return false, nil
		}
		return true, each(d, func() error {
			var pod podStats
			if err := d.Decode(&pod); err != nil {
				return err
			}
			for _, c := range pod.Containers {
				container(c.sample(pod.Ref.Namespace, pod.Ref.Name), used{at: c.CPU.Time, started: c.StartTime, seconds: c.CPU.CoreNanoSeconds / 1e9})
			}
			return nil
		})
	})
}

type podStats struct {
	Ref struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"podRef"`
	Containers []containerStats `json:"containers"`
}

type containerStats struct {
	Name      string    `json:"name"`
	StartTime time.Time `json:"startTime"`
	CPU       struct {
		Time            time.Time `json:"time"`
		CoreNanoSeconds float64   `json:"usageCoreNanoSeconds"` // since it started
	} `json:"cpu"`
	Memory struct {
		Available   float64 `json:"availableBytes"` // limit − working set; only with a limit
		Usage       float64 `json:"usageBytes"`
		WorkingSet  float64 `json:"workingSetBytes"`
		RSS         float64 `json:"rssBytes"`
		MajorFaults float64 `json:"majorPageFaults"`
	} `json:"memory"`
}

// sample is what the kubelet knows; what is charged to the container and not its own
// memory is page cache.
func (c containerStats) sample(namespace, pod string) Sample {
	s := Sample{
		Namespace: namespace, Pod: pod, Container: c.Name,
		Memory: c.Memory.RSS, WorkingSet: c.Memory.WorkingSet, MajorFaults: c.Memory.MajorFaults,
		PageCache: max(0, c.Memory.Usage-c.Memory.RSS),
	}
	if c.Memory.Available > 0 {
		s.Limit = c.Memory.Available + c.Memory.WorkingSet
	}
	return s
}

// items reads a list of Kubernetes' objects, one at a time.
func items(d *json.Decoder, item func() error) error {
	return fields(d, func(name string) (bool, error) {
		if name != "items" {
			return false, nil
		}
		return true, each(d, item)
	})
}

// describePods asks the API server for the agents among the pods of a node, from its
// own memory.
func (k *kubelets) describePods(ctx context.Context, node string) (map[string]podContainer, error) {
	containers := map[string]podContainer{}
	u := k.base.JoinPath("api/v1/pods")
	query := u.Query()
	query.Set("fieldSelector", "spec.nodeName="+node)
	query.Set("resourceVersion", "0")
	u.RawQuery = query.Encode()
	err := k.get(ctx, u, "application/json", maxPods, func(d *json.Decoder) error {
		return items(d, func() error {
			var pod corev1.Pod
			if err := d.Decode(&pod); err != nil {
				return err
			}
			k.describePod(&pod, containers)
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return containers, nil
}

// describePod keeps of a pod what is asked of its agents.
func (k *kubelets) describePod(pod *corev1.Pod, containers map[string]podContainer) {
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		if !k.wanted[c.Name] {
			continue
		}
		described := podContainer{version: versionOf(c.Image), limit: float64(c.Resources.Limits.Memory().Value()),
			cpuLimit: c.Resources.Limits.Cpu().AsApproximateFloat64()}
		for j := range pod.Status.ContainerStatuses {
			if s := &pod.Status.ContainerStatuses[j]; s.Name == c.Name {
				described.restarts, described.ready = int(s.RestartCount), s.Ready
			}
		}
		containers[fmt.Sprintf("%s/%s/%s", pod.Namespace, pod.Name, c.Name)] = described
	}
}
