package clean

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"bulkhead.dev/bulkhead"
)

// Restored is what Restore has done.
type Restored struct {
	Created   int `json:"created"`
	There     int `json:"there"`     // that had not been deleted, or are back
	Suspended int `json:"suspended"` // Jobs that do not run again before somebody says so
	// CutOff: the end of the file is missing. What was not written before a crash was not
	// deleted; what is missing in a copy was.
	CutOff bool `json:"cutOff,omitempty"`
}

// Restore creates what an undo file has, and leaves alone what is there. rate is how
// many objects in a second; 0: as Options.Rate. What was done is returned also with an error.
func Restore(ctx context.Context, config *rest.Config, undo io.Reader, rate float64) (Restored, error) {
	var done Restored
	client, err := dynamic.NewForConfig(patient(config))
	if err != nil {
		return done, err
	}
	if rate == 0 {
		rate = defaultRate
	}
	c := &Cleaner{dynamic: client, wait: pause}
	lines := bufio.NewReaderSize(undo, 1<<20)
	for n := 1; ; n++ {
		line, err := lines.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			done.CutOff = len(bytes.TrimSpace(line)) > 0 || n == 1
			return done, nil
		}
		if err != nil {
			return done, fmt.Errorf("read undo file: %w", err)
		}
		if line[0] == '#' || string(line) == separator {
			continue
		}
		if err := c.restore(ctx, n, line, &done); err != nil {
			return done, err
		}
		if err := c.wait(ctx, jittered(time.Duration(float64(time.Second)/rate))); err != nil {
			return done, err
		}
	}
}

// restore creates the object of a line.
func (c *Cleaner) restore(ctx context.Context, n int, line []byte, done *Restored) error {
	bad := func(err error) error {
		return &bulkhead.Error{Code: bulkhead.CodeUsage, Message: fmt.Sprintf("line %d of the undo file is not what bulkhead guard clean writes", n), Err: err,
			Hint: "kubectl create -f takes any manifests"}
	}
	o := &unstructured.Unstructured{}
	if err := o.UnmarshalJSON(line); err != nil {
		return bad(err)
	}
	k, ok := kindOf(o.GetAPIVersion(), o.GetKind())
	if !ok || o.GetNamespace() == "" || o.GetName() == "" {
		return bad(errors.New("it is no object of a kind that is removed"))
	}
	o = bare(o)
	err := c.try(ctx, "create "+k.kind(), func() error { return c.create(ctx, k, o.GetNamespace(), o) })
	switch {
	case apierrors.IsAlreadyExists(err):
		done.There++
	case apierrors.IsForbidden(err):
		return &bulkhead.Error{Code: bulkhead.CodeDenied, Message: fmt.Sprintf("%s %s/%s may not be created", k.one(), o.GetNamespace(), o.GetName()), Err: err,
			Hint: "what was restored stays; the same command goes on with the rest"}
	case apierrors.IsNotFound(err):
		return &bulkhead.Error{Code: bulkhead.CodeNotFound, Message: fmt.Sprintf("there is no namespace %s", bulkhead.Quote(o.GetNamespace())), Err: err,
			Hint: "make it: kubectl create namespace " + o.GetNamespace()}
	case err != nil:
		return fmt.Errorf("create %s %s/%s: %w", k.one(), o.GetNamespace(), o.GetName(), err)
	default:
		done.Created++
		if k == jobs {
			done.Suspended++
		}
	}
	return nil
}
