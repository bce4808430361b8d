package kube

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestAPodThatMayMissItsSecret(t *testing.T) {
	waiting := func(reason string) corev1.ContainerStatus {
		return corev1.ContainerStatus{State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}}
	}
	for name, test := range map[string]struct {
		age, furnished time.Duration // ago
		how            func(*corev1.Pod)
		is             bool
		wait           time.Duration
	}{
		"one that has waited long":                    {age: 12 * time.Second, furnished: time.Minute, is: true},
		"one that was just made":                      {age: 4 * time.Second, furnished: time.Minute, wait: 7 * time.Second},
		"one for which somebody has looked":           {age: 12 * time.Second, furnished: 2 * time.Second},
		"one without a node":                          {age: time.Hour, furnished: 2 * time.Hour, how: func(p *corev1.Pod) { p.Spec.NodeName = "" }},
		"one that is being deleted":                   {age: time.Hour, furnished: 2 * time.Hour, how: func(p *corev1.Pod) { p.DeletionTimestamp = &metav1.Time{} }},
		"one that runs":                               {age: time.Hour, furnished: 2 * time.Hour, how: func(p *corev1.Pod) { p.Status.Phase = corev1.PodRunning }},
		"one that waits for its image, which it says": {age: time.Hour, furnished: 2 * time.Hour, how: func(p *corev1.Pod) { p.Status.InitContainerStatuses[0] = waiting("ErrImagePull") }},
		"one whose agent was brought": {age: time.Hour, furnished: 2 * time.Hour, how: func(p *corev1.Pod) {
			p.Status.InitContainerStatuses[0].State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{}}
		}},
	} {
		p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(noon.Add(-test.age))}, Spec: corev1.PodSpec{NodeName: "node"},
			Status: corev1.PodStatus{Phase: corev1.PodPending, InitContainerStatuses: []corev1.ContainerStatus{waiting("PodInitializing")},
				ContainerStatuses: []corev1.ContainerStatus{waiting("PodInitializing")}}}
		if test.how != nil {
			test.how(p)
		}
		if is, wait := misses(p, noon.Add(-test.furnished), noon); is != test.is || wait != test.wait {
			t.Errorf("%s: %v, %s", name, is, wait)
		}
	}
}
