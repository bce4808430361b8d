package audit

import (
	"bytes"
	"time"
)

// maxLine is how much of a line is read: a policy that logs whole objects writes some of
// megabytes, and what is needed stands at their begin.
const maxLine = 64 << 10

// lines makes lines of what is read, piece by piece, and counts what they say. A line
// counts when its end has come.
type lines struct {
	report *report
	line   []byte // what there is of a line
	skip   bool   // up to the next end of a line: the begin of this one is not known
	last   time.Time
	tally
}

// tally is how many lines of each result there were since it was told.
type tally struct{ made, other, invalid, unkept int }

// forget leaves the line that is under way: what follows does not belong to it. If the
// begin of what follows is not known, it is left out, too.
func (l *lines) forget(amid bool) { l.line, l.skip = l.line[:0], amid }

// take reads a piece. Live says that it was written just now.
func (l *lines) take(piece []byte, live bool) {
	for len(piece) > 0 {
		end := bytes.IndexByte(piece, '\n')
		part := piece
		if end >= 0 {
			part = piece[:end]
		}
		if !l.skip && (end < 0 || len(l.line) > 0) {
			l.line = append(l.line, part[:min(len(part), maxLine-len(l.line))]...)
			part = l.line
		}
		if end < 0 {
			break
		}
		if !l.skip {
			l.note(part[:min(len(part), maxLine)], live)
		}
		l.forget(false)
		piece = piece[end+1:]
	}
	l.tell()
}

// note counts what a line says. What was made just now was made now, whatever the
// clock of the API server says; what was there before goes by that clock.
func (l *lines) note(line []byte, live bool) {
	if len(bytes.TrimSpace(line)) == 0 {
		return
	}
	c, result := Parse(line)
	if result == Made {
		now := l.report.Now()
		at := now
		if !live {
			at = l.asked(&c, now)
		}
		result = l.report.Users.Add(&c, at, now)
	}
	switch result {
	case Made:
		l.made++
	case Other:
		l.other++
	case Invalid:
		l.invalid++
	case Unkept:
		l.unkept++
	}
}

// asked is when something was made by the API server's clock, but not after now. A line
// that does not say it is of the time of the one before.
func (l *lines) asked(c *Creation, now time.Time) time.Time {
	if !c.At.IsZero() {
		l.last = c.At
	}
	if l.last.IsZero() || l.last.After(now) {
		return now
	}
	return l.last
}

// tell says how many lines there were.
func (l *lines) tell() {
	l.report.count(Made, l.made)
	l.report.count(Other, l.other)
	l.report.count(Invalid, l.invalid)
	l.report.count(Unkept, l.unkept)
	l.tally = tally{}
}
