package footprint

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"bulkhead.dev/bulkhead"
)

// maxDocument is more than an API server takes: 3 MiB of a request, and etcd 1.5 MiB of
// an object. A List may hold many.
const maxDocument = 16 << 20

// Options say how to read manifests. The zero value works.
type Options struct {
	Name      string // of the stream, for messages
	Namespace string // of objects that name none; "": default
	Nodes     int64  // of the cluster, for DaemonSets; 0: not known
	NoRelease bool   // what Helm rendered is not installed by Helm: it keeps no record
}

// Read counts what manifests leave behind: YAML and JSON documents, Lists, what `helm
// template` and `kubectl get -o yaml` print. It keeps one document at a time.
func Read(r io.Reader, o Options) (*Footprint, error) {
	if o.Namespace == "" {
		o.Namespace = "default"
	}
	rd := &reader{Options: o, tally: tally{parts: map[key]*Part{}}, record: newRecord()}
	if err := rd.split(bufio.NewReaderSize(r, 64<<10)); err != nil {
		return nil, err
	}
	rd.release()
	rd.found.Parts, rd.found.Notes = rd.sorted(), rd.notes
	return &rd.found, nil
}

type reader struct {
	Options
	tally
	found  Footprint
	record *record

	buf      []byte // of the document that is being read
	line     int    // of the stream, that was read last
	first    int    // line of the document
	document int    // its number
}

// split parts a stream into documents. Three hyphens at the start of a line part
// documents wherever they are: no text of YAML may have them there.
func (rd *reader) split(r *bufio.Reader) error {
	rd.first = 1
	start := true // of a line
	for {
		piece, err := r.ReadSlice('\n')
		if len(piece) > 0 && start {
			rd.line++
			if rd.line == 1 {
				piece = bytes.TrimPrefix(piece, []byte("\ufeff"))
			}
			if isSeparator(piece) {
				if err := rd.end(); err != nil {
					return err
				}
				// What may stand behind it, as in "--- # comment" or "--- {a: 1}", belongs to
				// the document.
				piece = piece[3:]
			}
		}
		if len(rd.buf)+len(piece) > maxDocument {
			rd.document++
			return rd.bad("part it with ---, and Lists into their items", "it is larger than 16 MiB")
		}
		rd.buf = append(rd.buf, piece...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			start = false
		case errors.Is(err, io.EOF):
			return rd.end()
		case err != nil:
			return fmt.Errorf("read %s: %w", rd.Name, err)
		default:
			start = true
		}
	}
}

func isSeparator(line []byte) bool {
	rest, ok := bytes.CutPrefix(line, []byte("---"))
	return ok && (len(rest) == 0 || bytes.IndexByte([]byte(" \t\r\n"), rest[0]) >= 0)
}

// end counts the document that was read.
func (rd *reader) end() error {
	text := rd.buf
	defer func() { rd.buf, rd.first = rd.buf[:0], rd.line }()
	if isEmpty(text) {
		return nil
	}
	rd.document++
	if bytes.Contains(text, []byte("\n# Source: ")) || bytes.HasPrefix(text, []byte("# Source: ")) {
		rd.found.Helm = true
	}
	rd.record.write(text)
	rest := bytes.TrimSpace(text)
	values, ok := jsonValues(rest)
	if !ok {
		var err error
		if values, err = yamlValues(text); err != nil {
			line, what := yamlError(err)
			hint := "it must be YAML or JSON, as kubectl apply takes it"
			if bytes.Contains(text, []byte("{{")) {
				hint = render
			}
			return rd.badAt(rd.first+line, hint, "%s", what)
		}
	}
	for _, value := range values {
		if value == nil {
			continue
		}
		if err := rd.value(value); err != nil {
			return err
		}
	}
	return nil
}

// render is what to do with the template of a chart.
const render = "it looks like a template; render it first: helm template NAME CHART | bulkhead plan -"

// jsonValues are the values of a text that is JSON, of which there may be several.
func jsonValues(text []byte) (values []any, ok bool) {
	if text[0] != '{' {
		return nil, false
	}
	for d := json.NewDecoder(bytes.NewReader(text)); ; {
		var value any
		switch err := d.Decode(&value); {
		case errors.Is(err, io.EOF):
			return values, true
		case err != nil:
			return nil, false // YAML begins with { too
		}
		values = append(values, value)
	}
}

// yamlValues are the values of a text that is YAML, all of it. The parser survives
// what it is not made for.
func yamlValues(text []byte) (values []any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("it cannot be parsed: %v", p)
		}
	}()
	for d := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var value any
		switch err := d.Decode(&value); {
		case errors.Is(err, io.EOF):
			return values, nil
		case err != nil:
			return nil, err
		}
		values = append(values, value)
	}
}

// value counts the objects of a document.
func (rd *reader) value(value any) error {
	top, ok := value.(map[string]any)
	if !ok {
		return rd.bad("it must be YAML or JSON, as kubectl apply takes it", "it is not an object")
	}
	rd.found.Documents++
	return rd.object(object(top), 0)
}

// object counts one object, or those of a List.
func (rd *reader) object(o object, depth int) error {
	kind, version := o.text("kind"), o.text("apiVersion")
	items, isList := o["items"].([]any)
	switch {
	case kind == "":
		return rd.bad("every object says its kind and apiVersion", "it has no kind")
	case version == "":
		return rd.bad("every object says its kind and apiVersion", "%s has no apiVersion", bulkhead.Quote(kind))
	case strings.HasSuffix(kind, "List") && (isList || o["items"] == nil):
		if depth > 0 {
			return rd.bad("", "a List is in a List")
		}
		for i, item := range items {
			m, ok := item.(map[string]any)
			if !ok {
				return rd.bad("", "item %d of the List is not an object", i+1)
			}
			if err := rd.object(object(m), depth+1); err != nil {
				return err
			}
		}
		return nil
	case !kindName.MatchString(kind):
		return rd.bad("", "kind %s is not a name", bulkhead.Quote(kind))
	case !versionName.MatchString(version):
		return rd.bad("for example v1 or batch/v1", "apiVersion %s is not understood", bulkhead.Quote(version))
	}
	if meta, ok := o["metadata"].(map[string]any); ok && strings.Contains(object(meta).text("name"), "{{") {
		return rd.bad(render, "the name %s is not rendered", bulkhead.Quote(object(meta).text("name")))
	}
	rd.found.Objects++
	if err := rd.count(o, resourceOf(kind, version)); err != nil {
		return err
	}
	if len(rd.parts) > maxParts {
		return rd.bad("plan the invocations of one tool at a time", "there are more than 10,000 kinds and namespaces")
	}
	return nil
}

// bad is an error of the document that is being read.
func (rd *reader) bad(hint, format string, args ...any) error {
	return rd.badAt(rd.first, hint, format, args...)
}

func (rd *reader) badAt(line int, hint, format string, args ...any) error {
	name := rd.Name
	if name != "" {
		name += ": "
	}
	return &bulkhead.Error{Code: bulkhead.CodeUsage, Hint: hint,
		Message: fmt.Sprintf("%sdocument %d (line %d): %s", name, rd.document, line, fmt.Sprintf(format, args...))}
}

var (
	yamlMessage = regexp.MustCompile(`(?s)^yaml: (?:line ([0-9]+): )?(.*)`)
	// The parser counts lines from 0 in these messages, the scanner, which has the
	// others, from 1.
	fromZero = regexp.MustCompile(`^did not find expected (<|',|'-'|key|node)`)
)

// yamlError parts the line, from 0, from what the parser says.
func yamlError(err error) (line int, what string) {
	m := yamlMessage.FindStringSubmatch(err.Error())
	if m == nil {
		return 0, oneLine(err.Error())
	}
	line, _ = strconv.Atoi(m[1]) // 0 without a line
	if line > 0 && !fromZero.MatchString(m[2]) {
		line--
	}
	return line, oneLine(m[2])
}

// isEmpty reports whether a document has nothing but comments, directives and blanks.
func isEmpty(text []byte) bool {
	for len(text) > 0 {
		line, rest, _ := bytes.Cut(text, []byte("\n"))
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' && line[0] != '%' && string(line) != "..." {
			return false
		}
		text = rest
	}
	return true
}

// oneLine bounds what a parser says of a text that may be anything.
func oneLine(text string) string {
	const most = 200
	out := make([]rune, 0, most)
	for _, r := range text {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			r = ' '
		}
		if out = append(out, r); len(out) == most {
			break
		}
	}
	return string(out)
}
