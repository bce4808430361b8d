package lookout

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/guard"
	"bulkhead.dev/bulkhead/guard/audit"
)

// auditLogs are the API servers' audit logs, which say who makes objects.
type auditLogs struct {
	paths []string
	stdin io.Reader
	now   func() time.Time
	log   *slog.Logger
	users audit.Users
	lines *prometheus.CounterVec
}

func newAuditLogs(o *Options) *auditLogs {
	a := &auditLogs{paths: o.AuditLogs, stdin: o.Stdin, now: o.Tell.Now, log: o.Log,
		lines: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "bulkhead_guard_audit_lines_total",
			Help: "Lines of audit logs that were read, by result: made (a creation), other, invalid (no event), unkept (no room)."}, []string{"result"})}
	if len(o.AuditLogs) > 0 {
		for _, result := range audit.Results {
			a.lines.WithLabelValues(string(result))
		}
	}
	return a
}

// makers is what the guard asks; nil: no log is read.
func (a *auditLogs) makers() guard.Makers {
	if len(a.paths) == 0 {
		return nil
	}
	return Makers(&a.users)
}

// run reads the logs until ctx ends. That one cannot be read keeps nobody from watching.
func (a *auditLogs) run(ctx context.Context) error {
	var parts sync.WaitGroup
	for _, path := range a.paths {
		o := audit.Options{Users: &a.users, Now: a.now,
			Count: func(result audit.Result, n int) { a.lines.WithLabelValues(string(result)).Add(float64(n)) },
			State: func(err error) { a.say(path, err) }}
		parts.Go(func() {
			if path == "-" {
				audit.FollowReader(ctx, a.stdin, o)
				return
			}
			audit.Follow(ctx, path, o)
		})
	}
	parts.Wait()
	return nil
}

func (a *auditLogs) say(path string, err error) {
	if err == nil {
		a.log.Info("following the audit log", "file", path)
		return
	}
	a.log.Warn("the audit log cannot be read: users are known from labels only. "+AuditHint, "file", path, "error", err)
}

// AuditHint says where an audit log is to be had.
const AuditHint = "It is the file of kube-apiserver's --audit-log-path on that machine, for its root to read; docs/guard.md has a policy"

// Makers asks what was counted of audit logs for the guard.
func Makers(users *audit.Users) guard.Makers {
	return func(key bulkhead.Key, since time.Time) (makers []guard.Maker, named bool) {
		all := func(name string) string {
			if name == guard.All {
				return "*"
			}
			return name
		}
		answer := users.Of(key.Kind, all(key.Namespace), all(key.Family), since)
		for _, m := range answer.Makers {
			makers = append(makers, guard.Maker{User: m.User, Client: m.Client, Objects: m.Objects})
		}
		return makers, answer.Named
	}
}

// AuditLog reads the end of an audit log, once. The error says what to do.
func AuditLog(ctx context.Context, path string) (guard.Makers, error) {
	var users audit.Users
	if err := audit.Last(ctx, path, audit.Options{Users: &users}); err != nil {
		return nil, &bulkhead.Error{Code: bulkhead.CodeUnavailable, Message: "cannot read the audit log " + bulkhead.Quote(path),
			Hint: AuditHint, Err: err}
	}
	return Makers(&users), nil
}
