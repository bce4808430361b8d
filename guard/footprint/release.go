package footprint

import (
	"compress/gzip"

	"bulkhead.dev/bulkhead/guard/budget"
)

// record estimates Helm's record of a release, a Secret in which all manifests and the
// chart are compressed: base64 of gzip, and base64 once more as JSON has it. Helm
// compresses as hard as it can (gzip.BestCompression, pkg/storage/driver/util.go).
// Templates are about what they render to, without the repetition: an eighth more.
type record struct {
	zip  *gzip.Writer
	size counter
}

// maxRecord is what a Secret holds. Above it there is nothing to estimate: Helm fails.
const maxRecord = 1 << 20

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

func newRecord() *record {
	r := &record{}
	r.zip, _ = gzip.NewWriterLevel(&r.size, gzip.BestCompression) // the level is right
	return r
}

// write adds a document. What is too large already is not compressed any more.
func (r *record) write(document []byte) {
	if !r.full() {
		_, _ = r.zip.Write(document) // to a counter
	}
}

// full reports whether a Secret cannot hold it. It is in base64 there.
func (r *record) full() bool { return r.size/3*4 > maxRecord }

// release counts the record, if Helm makes one.
func (rd *reader) release() {
	_ = rd.record.zip.Close() // to a counter
	if !rd.found.Helm || rd.NoRelease {
		return
	}
	if rd.record.full() {
		rd.note("Helm cannot keep a record of this release: it would have more than the 1 MiB that a Secret holds")
	}
	size := int64(rd.record.size) * 9 / 8 * 16 / 9
	rd.add(Part{Kind: budget.Secrets, Namespace: rd.Namespace, By: ByHelm, Life: Life{Ends: Uninstall}, Objects: 1, Bytes: plus(size, 1_000)})
}
