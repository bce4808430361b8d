package kube_test

import (
	"context"
	"testing"

	"bulkhead.dev/bulkhead"
)

func TestPodsFollowDemand(t *testing.T) {
	c := start(t)
	c.FakeNodes(t, 3)
	ns := c.Namespace(t)
	s := newServer()
	run(t, s, options(c.Config(), ns))
	c.create(t, class(ns, "wiki", 5))
	s.want(t, ns+"/wiki", bulkhead.Shape{}, 3)
	c.become(t, ns, "wiki-0-0", "wiki-0-1", "wiki-0-2")
	c.running(t, ns, "wiki-0-0", "wiki-0-1", "wiki-0-2")
	s.want(t, ns+"/wiki", bulkhead.Shape{}, 100)
	c.become(t, ns, "wiki-0-0", "wiki-0-1", "wiki-0-2", "wiki-0-3", "wiki-0-4")
	for name := range c.pods(t, ns) {
		s.connect(t, ns+"/wiki", ns+"/"+name, 1)
	}
	c.Eventually(t, "the status says so", func(context.Context) bool {
		status := c.get(t, ns, "wiki").Status
		return status.Ready == 5 && status.Busy == 5
	})
	t.Log(c.Kubectl(t, "get", "scriptclasses", "-n", ns))
}
