package rpc

import (
	"bulkhead.dev/bulkhead"
	bulkheadv1 "bulkhead.dev/bulkhead/rpc/bulkhead/v1"
)

// The zero of an enumeration means "not said" in a message, and the commonest
// value in the store: they are one apart.
const enumOffset = 1

// ItemMessage makes a message of an item.
func ItemMessage(it bulkhead.Item) *bulkheadv1.Item {
	return &bulkheadv1.Item{Index: it.Index, Values: each(it.Values, func(v string) []byte { return []byte(v) })}
}

// ItemOf is the inverse of ItemMessage.
func ItemOf(m *bulkheadv1.Item) bulkhead.Item {
	return bulkhead.Item{Index: m.GetIndex(), Values: each(m.GetValues(), func(v []byte) string { return string(v) })}
}

// ItemStateMessage makes a message of a state.
func ItemStateMessage(s bulkhead.ItemState) bulkheadv1.ItemState {
	return bulkheadv1.ItemState(s) + enumOffset
}

// ItemStateOf is the inverse of ItemStateMessage.
func ItemStateOf(m bulkheadv1.ItemState) (bulkhead.ItemState, error) {
	if m < bulkheadv1.ItemState_ITEM_STATE_SUCCEEDED || m > bulkheadv1.ItemState_ITEM_STATE_RUNNING {
		return 0, unknown("state of an item", int32(m))
	}
	return bulkhead.ItemState(m - enumOffset), nil
}

// HowMessage makes a message of how an attempt ended.
func HowMessage(h bulkhead.How) bulkheadv1.How { return bulkheadv1.How(h) + enumOffset }

// HowOf is the inverse of HowMessage.
func HowOf(m bulkheadv1.How) (bulkhead.How, error) {
	if m < bulkheadv1.How_HOW_EXIT || m > bulkheadv1.How_HOW_INTERRUPT {
		return 0, unknown("end of an attempt", int32(m))
	}
	return bulkhead.How(m - enumOffset), nil
}

// ResultMessage makes a message of a result. Where the output is kept is not in
// it: that is the server's business, or the worker's.
func ResultMessage(r bulkhead.Result) *bulkheadv1.Result {
	return &bulkheadv1.Result{
		State: ItemStateMessage(r.State), How: HowMessage(r.How), ExitCode: int32Of(r.ExitCode), Signal: int32Of(r.Signal),
		Error: text(r.Error), Started: timeMessage(r.Started), Duration: durationMessage(r.Duration), Cpu: durationMessage(r.CPU),
		PeakMemory: r.PeakMemory, OutputBytes: r.Output.Bytes, OutputDropped: r.Output.Dropped,
	}
}

// ResultOf is the inverse of ResultMessage.
func ResultOf(m *bulkheadv1.Result) (bulkhead.Result, error) {
	state, err := ItemStateOf(m.GetState())
	if err != nil {
		return bulkhead.Result{}, err
	}
	how, err := HowOf(m.GetHow())
	if err != nil {
		return bulkhead.Result{}, err
	}
	return bulkhead.Result{
		State: state, How: how, ExitCode: int(m.GetExitCode()), Signal: int(m.GetSignal()), Error: m.GetError(),
		Started: timeOf(m.GetStarted()), Duration: durationOf(m.GetDuration()), CPU: durationOf(m.GetCpu()),
		PeakMemory: m.GetPeakMemory(), Output: bulkhead.OutputRef{Bytes: m.GetOutputBytes(), Dropped: m.GetOutputDropped()},
	}, nil
}

// AttemptMessage makes a message of an attempt; none for one that there was not.
// Which item it belongs to is said around it.
func AttemptMessage(a bulkhead.Attempt) *bulkheadv1.Attempt {
	if a.N == 0 {
		return nil
	}
	return &bulkheadv1.Attempt{N: int32Of(a.N), Final: a.Final, Result: ResultMessage(a.Result), Worker: text(a.Worker)}
}

// AttemptOf is the inverse of AttemptMessage, for an item of a run.
func AttemptOf(run bulkhead.RunID, item int64, m *bulkheadv1.Attempt) (bulkhead.Attempt, error) {
	if m.GetN() == 0 {
		return bulkhead.Attempt{}, nil
	}
	result, err := ResultOf(m.GetResult())
	if err != nil {
		return bulkhead.Attempt{}, err
	}
	return bulkhead.Attempt{Run: run, Item: item, N: int(m.GetN()), Final: m.GetFinal(), Result: result, Worker: m.GetWorker()}, nil
}

// ItemStatusMessage makes a message of an item with what happened to it.
func ItemStatusMessage(s bulkhead.ItemStatus) *bulkheadv1.ItemStatus {
	return &bulkheadv1.ItemStatus{Item: ItemMessage(s.Item), State: ItemStateMessage(s.State), Attempt: AttemptMessage(s.Attempt)}
}

// ItemStatusOf is the inverse of ItemStatusMessage, for an item of a run.
func ItemStatusOf(run bulkhead.RunID, m *bulkheadv1.ItemStatus) (bulkhead.ItemStatus, error) {
	state, err := ItemStateOf(m.GetState())
	if err != nil {
		return bulkhead.ItemStatus{}, err
	}
	attempt, err := AttemptOf(run, m.GetItem().GetIndex(), m.GetAttempt())
	if err != nil {
		return bulkhead.ItemStatus{}, err
	}
	return bulkhead.ItemStatus{Item: ItemOf(m.GetItem()), State: state, Attempt: attempt}, nil
}
