package clean

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"bulkhead.dev/bulkhead"
)

// Undo is the file with all that is deleted, as `kubectl create -f` takes it: an object
// in JSON in each document. It is on disk before the first of its objects goes, so
// that it may have objects that are still there, and never lacks one that is not.
type Undo struct {
	path string
	file *os.File
	size int64
}

// separator ends a document.
const separator = "---\n"

// CreateUndo makes the file, which must not be there. Only its owner may read it:
// it has the Secrets that are deleted, in the clear.
func CreateUndo(path string, now time.Time) (*Undo, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil, &bulkhead.Error{Code: bulkhead.CodeConflict, Message: fmt.Sprintf("undo file %s is there already", bulkhead.Quote(path)),
			Hint: "name another one with --undo; `bulkhead guard clean --restore FILE` puts back what is in this one"}
	}
	if err != nil {
		return nil, &bulkhead.Error{Code: bulkhead.CodeUsage, Message: "the undo file cannot be made; nothing was deleted", Err: err, Hint: "name another one with --undo"}
	}
	u := &Undo{path: path, file: f}
	head := fmt.Sprintf("# What bulkhead guard clean has deleted, from %s on. It may have Secrets in the clear.\n# bulkhead guard clean --restore FILE puts it back, and so does kubectl create -f FILE.\n", now.UTC().Format(time.RFC3339))
	err = u.write([]byte(head + separator))
	if err == nil {
		err = syncFolder(filepath.Dir(path))
	}
	if err != nil {
		return nil, errors.Join(u.full(err), f.Close(), os.Remove(path))
	}
	return u, nil
}

func syncFolder(path string) error {
	folder, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

// Path is the file's.
func (u *Undo) Path() string { return u.path }

// Close closes the file; what was added is on disk already.
func (u *Undo) Close() error { return u.file.Close() }

// add writes objects, and returns when they are on disk. What could be written only
// in part is taken back.
func (u *Undo) add(items []*item) error {
	var text []byte
	for _, i := range items {
		line, err := bare(i.content).MarshalJSON()
		if err != nil {
			return fmt.Errorf("write undo file: %w", err)
		}
		text = append(append(text, line...), separator...)
	}
	if err := u.write(text); err != nil {
		return errors.Join(u.full(err), u.file.Truncate(u.size))
	}
	return nil
}

func (u *Undo) full(err error) error {
	return &bulkhead.Error{Code: bulkhead.CodeUnavailable, Message: "the undo file cannot be written; what would have been in it was not deleted", Err: err,
		Hint: "make room, or name a file elsewhere with --undo; the same command with such a file goes on with the rest"}
}

func (u *Undo) write(text []byte) error {
	n, err := u.file.WriteAt(text, u.size)
	if err == nil {
		err = u.file.Sync()
	}
	if err == nil {
		u.size += int64(n)
	}
	return err
}

// bare is an object as somebody would create it: without what the API server gives
// it, and without its status.
//
// A Job that has finished and is made anew would run anew, and no script may run
// twice because of us: it is suspended. Its selector is of the Job that it was.
func bare(o *unstructured.Unstructured) *unstructured.Unstructured {
	o = o.DeepCopy()
	for _, field := range []string{"uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "ownerReferences"} {
		unstructured.RemoveNestedField(o.Object, "metadata", field)
	}
	unstructured.RemoveNestedField(o.Object, "status")
	if o.GetKind() != "Job" {
		return o
	}
	if spec, ok := o.Object["spec"].(map[string]any); ok {
		spec["suspend"] = true
	}
	annotations := o.GetAnnotations()
	if annotations == nil {
		annotations = map[string]string{}
	}
	annotations[RestoredAnnotation] = "true"
	o.SetAnnotations(annotations)
	if manual, _, _ := unstructured.NestedBool(o.Object, "spec", "manualSelector"); manual {
		return o
	}
	unstructured.RemoveNestedField(o.Object, "spec", "selector")
	for _, label := range []string{"controller-uid", "batch.kubernetes.io/controller-uid", "job-name", "batch.kubernetes.io/job-name"} {
		unstructured.RemoveNestedField(o.Object, "spec", "template", "metadata", "labels", label)
		unstructured.RemoveNestedField(o.Object, "metadata", "labels", label)
	}
	return o
}
