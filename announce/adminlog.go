package announce

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"bulkhead.dev/bulkhead/webhook"
)

// An admin log is what a team reads to know who did what to production: lines like
//
//	06:47 ann@deploy: started run 7: mwscript Version.php --wiki=enwiki - T363966
//
// That is Wikimedia's "Server Admin Log". A file gets such lines, in UTC. A bot that
// listens on TCP for what is to be said (tcpircbot) gets the line as a person would
// write it to the channel, without the time, which the log adds:
//
//	!log ann@deploy: started run 7: …
//
// one line per connection, as Wikimedia's scripts do.

// AdminLine is a line of an admin log, as a file has it.
func AdminLine(l *Line) string { return l.At.UTC().Format("15:04 ") + l.Who() + ": " + l.Text() }

// Check refuses places that cannot be.
func (o *Options) Check() error {
	_, err := o.senders()
	return err
}

// senders are the places that the options name.
func (o *Options) senders() (out []sender, err error) {
	if o.Webhook.Given() {
		p, err := webhook.New(o.Webhook)
		if err != nil {
			return nil, err
		}
		out = append(out, poster{p})
	}
	if o.AdminLog == "" {
		return out, nil
	}
	base := adminLog{all: o.AdminLogAll}
	address, tcp := strings.CutPrefix(o.AdminLog, "tcp://")
	if !tcp {
		// Better known now than when something is to be told.
		f, err := openAppend(o.AdminLog)
		if err != nil {
			return nil, usage("a file that can be written, or tcp://HOST:PORT", "the admin log: %v", err)
		}
		_ = f.Close()
		return append(out, &adminFile{base, o.AdminLog}), nil
	}
	if _, port, err := net.SplitHostPort(address); err != nil || port == "" {
		return nil, usage("for example tcp://logbot.example.org:9200", "the admin log %s is not tcp://HOST:PORT", o.AdminLog)
	}
	return append(out, &adminBot{base, address}), nil
}

type adminLog struct{ all bool }

func (a adminLog) name() string       { return "admin_log" }
func (a adminLog) close()             {}
func (a adminLog) wants(l *Line) bool { return a.all || l.asked }

// adminFile adds lines to a file. It opens it for each, so that it can be rotated.
type adminFile struct {
	adminLog
	path string
}

func openAppend(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644) //nolint:gosec // the log is there to be read by others
}

func (a *adminFile) send(_ context.Context, l *Line) error {
	f, err := openAppend(a.path)
	if err != nil {
		return err
	}
	// In one write, which is whole among those of others.
	_, err = f.WriteString(AdminLine(l) + "\n")
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// adminBot says lines to a bot.
type adminBot struct {
	adminLog
	address string
}

func (a *adminBot) send(ctx context.Context, l *Line) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", a.address)
	if err != nil {
		return fmt.Errorf("reach the admin log's bot: %w", err)
	}
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline) // a connection that knows none fails by itself
	} else {
		_ = conn.SetDeadline(time.Now().Add(sendTime))
	}
	_, err = conn.Write([]byte("!log " + l.Who() + ": " + l.Text() + "\n"))
	if cerr := conn.Close(); err == nil {
		err = cerr
	}
	return err
}
