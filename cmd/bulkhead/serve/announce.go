package serve

import (
	"context"
	"path/filepath"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/announce"
	"bulkhead.dev/bulkhead/webhook"
)

// Announce says where the starts and ends of runs are told, besides the log.
type Announce struct {
	Webhook webhook.Webhook
	// AdminLog is a file, or tcp://HOST:PORT; "": none.
	AdminLog string
	// AdminLogAll tells it of all runs, also those that did not ask for it.
	AdminLogAll bool
}

func (s *server) announceOptions() announce.Options {
	a := &s.opts.Announce
	return announce.Options{
		Journal: filepath.Join(s.opts.State, "announced"), Store: s.reader, Webhook: a.Webhook, AdminLog: a.AdminLog, AdminLogAll: a.AdminLogAll,
		Log: s.log, Metrics: s.metrics,
	}
}

// checkAnnounce refuses what cannot be, before the server waits for its folder.
func (s *server) checkAnnounce() error {
	if a := &s.opts.Announce; a.AdminLogAll && a.AdminLog == "" {
		return usage("--announce-sal says where it is", "--announce-sal-all: there is no admin log")
	}
	o := s.announceOptions()
	return o.Check()
}

// openAnnouncer announces what happened while no server was there. The engine does
// not work yet.
func (s *server) openAnnouncer(ctx context.Context) (err error) {
	if s.news, err = announce.New(s.announceOptions()); err != nil {
		return err
	}
	return s.news.CatchUp(ctx)
}

// began is told by the engine of a run that starts; it only queues.
func (s *server) began(r *bulkhead.Run, again bool) { s.news.Began(r, again) }

// over is told by the engine of a run that has ended; it only queues.
func (s *server) over(r *bulkhead.Run) { s.news.Over(r) }
