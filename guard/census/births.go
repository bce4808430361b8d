package census

import (
	"slices"
	"time"

	"bulkhead.dev/bulkhead"
)

// Objects are born in quarters of an hour, counted from 1970. Those of the last day are
// kept as they are, those before by the hour, and what is older than a week in one.
const (
	quarter  = 15 * 60 // seconds
	perHour  = 4
	fineFor  = 24 * perHour     // quarters
	knownFor = 7 * 24 * perHour // quarters
)

// birth is how many were born in a quarter or in the hour that it begins.
type birth struct {
	step    uint32
	objects int32
}

// births are those of one family, oldest first.
type births []birth

func stepOf(t time.Time) uint32 {
	if seconds := t.Unix(); seconds > 0 {
		return uint32(seconds / quarter)
	}
	return 0
}

// coarse is the step that counts what was born in one, seen at another.
func coarse(step, now uint32) uint32 {
	hour := now &^ (perHour - 1)
	switch {
	case step+knownFor <= hour:
		return hour - knownFor
	case step+fineFor < hour:
		return step &^ (perHour - 1)
	}
	return step
}

func (b births) find(step uint32) (int, bool) {
	return slices.BinarySearchFunc(b, step, func(b birth, step uint32) int {
		switch {
		case b.step < step:
			return -1
		case b.step > step:
			return 1
		}
		return 0
	})
}

// add counts n objects that were born in a step.
func (b *births) add(step, now uint32, n int32) {
	step = coarse(step, now)
	i, found := b.find(step)
	if !found {
		*b = slices.Insert(*b, i, birth{step: step})
	}
	(*b)[i].objects += n
}

// remove takes one object away. Its step may have become part of an hour's or of the
// first one since it was added.
func (b births) remove(step uint32) {
	for _, s := range [...]uint32{step, step &^ (perHour - 1)} {
		if i, found := b.find(s); found && b[i].objects > 0 {
			b[i].objects--
			return
		}
	}
	for i := range b {
		if b[i].objects > 0 {
			b[i].objects--
			return
		}
	}
}

// age makes the steps those of now, and forgets empty ones.
func (b *births) age(now uint32) {
	old := *b
	kept := old[:0]
	for _, one := range old {
		one.step = coarse(one.step, now)
		switch last := len(kept) - 1; {
		case one.objects <= 0:
		case last >= 0 && kept[last].step == one.step:
			kept[last].objects += one.objects
		default:
			kept = append(kept, one)
		}
	}
	*b = kept
}

// merge adds those of another family.
func (b *births) merge(other births, now uint32) {
	for _, one := range other {
		b.add(one.step, now, one.objects)
	}
}

func (b births) tell() []bulkhead.Birth {
	told := make([]bulkhead.Birth, 0, len(b))
	for _, one := range b {
		if one.objects > 0 {
			told = append(told, bulkhead.Birth{At: time.Unix(int64(one.step)*quarter, 0).UTC(), Objects: int64(one.objects)})
		}
	}
	return told
}
