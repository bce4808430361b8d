package serve

import (
	"bytes"
	"context"
	"math/rand/v2"
	"time"

	"bulkhead.dev/bulkhead/kube"
)

const (
	// rotateEvery is how often it is looked whether keys are to be rotated, and what
	// users of the cluster trust is published again, in case somebody removed it.
	rotateEvery = time.Hour
	// publishAgain is when publishing is tried again that failed.
	publishAgain = 30 * time.Second
)

// keepKeys rotates the keys in time, until ctx ends, and tells whoever trusts them.
func (s *server) keepKeys(ctx context.Context) {
	var published []byte
	for {
		if err := s.keys.rotate(); err != nil {
			s.log.Error("keys are not rotated", "error", err)
		}
		wait := rotateEvery
		trusted := s.keys.authorities()
		if !bytes.Equal(trusted, published) {
			s.tellTrusted()
		}
		if err := s.publish(ctx, trusted); err != nil {
			s.log.Error("what users of the cluster need to trust this server is not published", "error", err)
			wait = publishAgain
		}
		published = trusted
		t := time.NewTimer(wait/2 + rand.N(wait/2))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// tellTrusted lets the controller give workers what they need to trust this server.
func (s *server) tellTrusted() {
	for _, class := range s.classes.Names() {
		s.tellChanged(class)
	}
}

// publish tells the cluster's users whom to trust, if the server is in a cluster.
func (s *server) publish(ctx context.Context, trusted []byte) error {
	if s.cluster == nil || s.opts.Cluster.OwnNamespace == "" {
		return nil
	}
	return kube.Publish(ctx, s.cluster, s.opts.Cluster.OwnNamespace, trusted)
}
