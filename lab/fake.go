package lab

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// FakeNodeAnnotation marks the nodes that KWOK plays, and FakeNodeLabel those
// that pods may choose: a pod with it in its node selector needs no toleration
// and never lands on the real node.
const (
	FakeNodeAnnotation = "kwok.x-k8s.io/node"
	FakeNodeLabel      = "bulkhead.dev/fake-node"
)

// FakeNodes makes sure that there are n nodes that do not exist, played by KWOK
// (https://kwok.sigs.k8s.io): pods on them become ready, those of a Job finish,
// and nothing runs. They are gone at the end of the test.
func (l *Lab) FakeNodes(t testing.TB, n int) {
	t.Helper()
	if err := l.StartFakeNodes(t.Context(), n); err != nil {
		t.Fatal("start fake nodes:", err)
	}
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		err := l.client.CoreV1().Nodes().DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: FakeNodeLabel})
		if err != nil {
			t.Error("delete the fake nodes:", err)
		}
	})
}

// makers is how many nodes are made at once.
const makers = 8

// StartFakeNodes is FakeNodes for people. The nodes stay.
func (l *Lab) StartFakeNodes(ctx context.Context, n int) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if err := l.ask(ctx, http.MethodPost, "/fake", nil, nil); err != nil {
		return err
	}
	all, making := errgroup.WithContext(ctx)
	all.SetLimit(makers)
	for i := range n {
		all.Go(func() error { return l.makeFakeNode(making, i) })
	}
	if err := all.Wait(); err != nil {
		return fmt.Errorf("make fake nodes: %w", err)
	}
	ready := func() bool { return l.readyFakeNodes(ctx) >= n }
	if !poll(ctx, ready) {
		return fmt.Errorf("%d of %d fake nodes are ready: %w", l.readyFakeNodes(ctx), n, context.Cause(ctx))
	}
	return nil
}

func (l *Lab) makeFakeNode(ctx context.Context, i int) error {
	room := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("32"), corev1.ResourceMemory: resource.MustParse("256Gi"), corev1.ResourcePods: resource.MustParse("110"),
	}
	name := fmt.Sprintf("fake-%d", i)
	_, err := l.client.CoreV1().Nodes().Create(ctx, &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name:        name,
			Annotations: map[string]string{FakeNodeAnnotation: "fake"},
			Labels:      map[string]string{FakeNodeLabel: "", corev1.LabelHostname: name, corev1.LabelOSStable: "linux", corev1.LabelArchStable: goarch},
		},
		Status: corev1.NodeStatus{Capacity: room, Allocatable: room},
	}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

func (l *Lab) readyFakeNodes(ctx context.Context) int {
	list, err := l.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{LabelSelector: FakeNodeLabel})
	if err != nil {
		return 0
	}
	n := 0
	for _, node := range list.Items {
		for _, c := range node.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
				n++
			}
		}
	}
	return n
}
