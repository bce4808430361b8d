package kube

import (
	"context"
	"fmt"
	"time"

	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"bulkhead.dev/bulkhead/kube/api/v1alpha1"
)

// How often a class's status is written at most: conditions and the line that
// says what it waits for, and mere counts.
const (
	newsEvery   = time.Second
	countsEvery = 5 * time.Second
)

// reporting is what the status was last written as.
type reporting struct {
	at     time.Time
	status v1alpha1.ScriptClassStatus
}

// Reasons of ConditionReady.
const (
	reasonIdle     = "Idle"     // there is nothing to do
	reasonRunning  = "Running"  // items run
	reasonStarting = "Starting" // the first workers are on their way
	reasonWaiting  = "Waiting"  // items wait, for something else than workers
	reasonBlocked  = "Blocked"  // workers cannot start, and there are none
)

// report tells the server and the cluster how the class stands.
func (c *Controller) report(ctx context.Context, class *v1alpha1.ScriptClass, m *memory, s *snapshot, d *decision) error {
	last := class.Status
	if !m.told.at.IsZero() {
		last = m.told.status // the cache may be older
	}
	d.bare = m.furnished.at.IsZero()
	status := statusOf(class, last.Conditions, s, d, m)
	blocked := meta.FindStatusCondition(status.Conditions, v1alpha1.ConditionBlocked)
	reason := ""
	if blocked.Status == metav1.ConditionTrue {
		reason = blocked.Message
	}
	c.block(class.Namespace+"/"+class.Name, m, reason)

	if apiequality.Semantic.DeepEqual(last, status) {
		return nil
	}
	every := newsEvery
	if sameNews(last, status) {
		every = countsEvery
	}
	if wait := every - s.now.Sub(m.told.at); wait > 0 {
		d.lookAgain(wait)
		return nil
	}
	was, changed := class.DeepCopy(), class.DeepCopy()
	was.Status, changed.Status = last, status
	err := c.client.Status().Patch(ctx, changed, client.MergeFrom(was), client.DisableReadYourWritesConsistency)
	if client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("write the status: %w", err)
	}
	m.told = reporting{s.now, status}
	return nil
}

// block tells the server why no worker comes, when that has changed.
func (c *Controller) block(class string, m *memory, reason string) {
	if m.blocked == nil || *m.blocked != reason {
		c.work.Block(class, reason)
		m.blocked = &reason
	}
}

// sameNews says that nothing but counts has changed.
func sameNews(a, b v1alpha1.ScriptClassStatus) bool {
	return a.ObservedGeneration == b.ObservedGeneration && apiequality.Semantic.DeepEqual(a.Conditions, b.Conditions) &&
		(a.Queued == 0) == (b.Queued == 0) && (a.Running == 0) == (b.Running == 0) && (a.Workers == 0) == (b.Workers == 0)
}

// statusOf is how the class stands.
func statusOf(class *v1alpha1.ScriptClass, last []metav1.Condition, s *snapshot, d *decision, m *memory) v1alpha1.ScriptClassStatus {
	status := v1alpha1.ScriptClassStatus{ObservedGeneration: class.Generation}
	status.Conditions = append(status.Conditions, last...)
	wanted := 0
	for _, x := range s.demand {
		status.Queued += x.Queued
		status.Running += x.Running
		wanted += x.Slots
	}
	starting := len(d.create)
	for i := range s.workers {
		w := &s.workers[i]
		if w.ended {
			continue
		}
		status.Workers++
		if w.outdated {
			status.Outdated++
		}
		if w.agent != nil {
			status.Busy += int32(w.agent.Busy)
		}
		if w.connected() {
			status.Ready++
		} else if w.current() {
			starting++
		}
	}
	status.Workers += int32(len(d.create))
	trouble := d.says(m, min(podsFor(wanted, s.slots), s.max))
	status.Waiting = waiting(s, d, &status, wanted, starting, trouble.Text)
	setConditions(&status, starting, trouble, s.now)
	return status
}

// waiting says in one line what waits for what.
func waiting(s *snapshot, d *decision, status *v1alpha1.ScriptClassStatus, wanted, starting int, trouble string) string {
	items := func(n int64) string {
		if n == 1 {
			return "1 item waits for"
		}
		return fmt.Sprintf("%d items wait for", n)
	}
	n := status.Queued
	switch {
	case n == 0:
		return ""
	case trouble != "":
		return oneLine("%s workers: %s", items(n), trouble)
	case len(s.invalid) > 0:
		for _, t := range s.invalid {
			return oneLine("a run waits for ever: %s", t.Text)
		}
	case d.shapes > 0:
		if d.shapes == 1 {
			return fmt.Sprintf("1 shape waits for others to have no pods (shapes.max is %d)", s.shapes)
		}
		return fmt.Sprintf("%d shapes wait for others to have no pods (shapes.max is %d)", d.shapes, s.shapes)
	case int64(wanted) <= status.Running:
		return items(n) + " what their runs are limited by"
	case starting == 1:
		return items(n) + " a worker that is starting"
	case starting > 0:
		return fmt.Sprintf("%s %d workers that are starting", items(n), starting)
	case d.unmet > 0:
		return fmt.Sprintf("%s a slot: all %d workers are in use (workers.max)", items(n), s.max)
	}
	return items(n) + " a slot"
}

// setConditions says the same for machines.
func setConditions(status *v1alpha1.ScriptClassStatus, starting int, t trouble, now time.Time) {
	set := func(kind string, is bool, reason, message string) {
		state := metav1.ConditionFalse
		if is {
			state = metav1.ConditionTrue
		}
		meta.SetStatusCondition(&status.Conditions, metav1.Condition{Type: kind, Status: state, Reason: reason, Message: message,
			ObservedGeneration: status.ObservedGeneration, LastTransitionTime: metav1.NewTime(now)})
	}
	blocked := t != (trouble{})
	switch {
	case blocked && status.Ready == 0:
		set(v1alpha1.ConditionReady, false, reasonBlocked, t.Text)
	case status.Running > 0:
		set(v1alpha1.ConditionReady, true, reasonRunning, "")
	case status.Queued > 0 && starting > 0:
		set(v1alpha1.ConditionReady, true, reasonStarting, "")
	case status.Queued > 0:
		set(v1alpha1.ConditionReady, true, reasonWaiting, "")
	default:
		set(v1alpha1.ConditionReady, true, reasonIdle, "")
	}
	if blocked {
		set(v1alpha1.ConditionBlocked, true, t.Code, t.Text)
	} else {
		set(v1alpha1.ConditionBlocked, false, "WorkersCanStart", "")
	}
	switch {
	case starting > 0:
		set(v1alpha1.ConditionProgressing, true, "WorkersStart", "")
	case status.Outdated > 0:
		set(v1alpha1.ConditionProgressing, true, "WorkersAreReplaced", "")
	default:
		set(v1alpha1.ConditionProgressing, false, "Settled", "")
	}
}
