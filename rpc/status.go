package rpc

import (
	"bulkhead.dev/bulkhead"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

// Status is how a run stands, for whoever watches it.
type Status struct {
	Run      bulkhead.Run
	Running  []bulkhead.Lease      // those that have run longest: Item, Attempt, Since and Worker
	Failures []bulkhead.ItemStatus // the last ones, oldest first
}

// StatusMessage makes a message of a status.
func StatusMessage(s Status) *bulkheadv1.WatchRunResponse {
	return &bulkheadv1.WatchRunResponse{Run: RunMessage(&s.Run), Running: each(s.Running, runningMessage),
		Failures: each(s.Failures, ItemStatusMessage)}
}

// StatusOf is the inverse of StatusMessage.
func StatusOf(m *bulkheadv1.WatchRunResponse) (Status, error) {
	r, err := RunOf(m.GetRun())
	if err != nil {
		return Status{}, err
	}
	failures, err := eachOf(m.GetFailures(), func(m *bulkheadv1.ItemStatus) (bulkhead.ItemStatus, error) {
		return ItemStatusOf(r.ID, m)
	})
	if err != nil {
		return Status{}, err
	}
	return Status{Run: *r, Failures: failures, Running: each(m.GetRunning(), func(m *bulkheadv1.Running) bulkhead.Lease {
		return bulkhead.Lease{Run: r.ID, Item: ItemOf(m.GetItem()), Attempt: int(m.GetAttempt()), Since: timeOf(m.GetSince()), Worker: m.GetWorker()}
	})}, nil
}

func runningMessage(l bulkhead.Lease) *bulkheadv1.Running {
	return &bulkheadv1.Running{Item: ItemMessage(l.Item), Attempt: int32Of(l.Attempt), Since: timeMessage(l.Since), Worker: text(l.Worker)}
}

// ClassMessage makes a message of how a class stands.
func ClassMessage(c bulkhead.ClassStatus) *bulkheadv1.ClassStatus {
	return &bulkheadv1.ClassStatus{Name: text(c.Name), Command: texts(c.Command), Workers: int32Of(c.Workers),
		Slots: int32Of(c.Slots), Queued: c.Queued, Running: c.Running, Blocked: text(c.Blocked),
		Objects: each(c.Objects, func(o bulkhead.ObjectCount) *bulkheadv1.ObjectCount {
			return &bulkheadv1.ObjectCount{Kind: text(o.Kind), Count: int32Of(o.Count)}
		})}
}

// ClassOf is the inverse of ClassMessage.
func ClassOf(m *bulkheadv1.ClassStatus) bulkhead.ClassStatus {
	return bulkhead.ClassStatus{Name: m.GetName(), Command: texts(m.GetCommand()), Workers: int(m.GetWorkers()),
		Slots: int(m.GetSlots()), Queued: m.GetQueued(), Running: m.GetRunning(), Blocked: m.GetBlocked(),
		Objects: each(m.GetObjects(), func(m *bulkheadv1.ObjectCount) bulkhead.ObjectCount {
			return bulkhead.ObjectCount{Kind: m.GetKind(), Count: int(m.GetCount())}
		})}
}

// PoolStatusMessage makes a message of how a pool stands.
func PoolStatusMessage(p bulkhead.PoolStatus) *bulkheadv1.PoolStatus {
	return &bulkheadv1.PoolStatus{Name: text(p.Name), Key: text(p.Key), Used: int32Of(p.Used), Slots: int32Of(p.Slots), Waiting: p.Waiting}
}

// PoolStatusOf is the inverse of PoolStatusMessage.
func PoolStatusOf(m *bulkheadv1.PoolStatus) bulkhead.PoolStatus {
	return bulkhead.PoolStatus{Name: m.GetName(), Key: m.GetKey(), Used: int(m.GetUsed()), Slots: int(m.GetSlots()), Waiting: m.GetWaiting()}
}
