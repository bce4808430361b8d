package plan

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"bulkhead.dev/bulkhead"
)

// MaxFile is the size of the largest run file, bytes.
const MaxFile = 1 << 20

// File is a run file: every field says what the flag of its name says on the
// command line, and a zero value that the file does not say it.
type File struct {
	Name       string
	Comment    string
	Announce   bool // in the server's admin log
	Each       []bulkhead.Source
	CSV        string
	Command    []string
	Env        []string // NAME=TEMPLATE, in the order of the file
	Dir        string   // as written: relative to the working folder of who reads it
	Stdin      *string
	StdinFile  string   // as Dir
	Files      []string // LOCAL[:REMOTE]
	Class      string
	Shape      bulkhead.Shape
	Pools      []bulkhead.PoolUse
	Limit      int
	Rate       bulkhead.Rate
	Timeout    time.Duration
	Grace      time.Duration
	Retries    int
	RetryDelay time.Duration
	Halt       bulkhead.Halt
	Canary     int
	Priority   int
	MaxOutput  int64 // bytes
}

// Spec is the run that the file asks for. Defaults are not filled in, Dir is as
// written, and the templates are not checked, because the columns are not known
// before the input is opened. The CSV file comes before the other sources: it is
// the one that is likely to be large.
func (f File) Spec() bulkhead.Spec {
	s := bulkhead.Spec{
		Name: f.Name, Comment: f.Comment, Command: f.Command, Env: f.Env, Dir: f.Dir, Stdin: f.Stdin,
		Inputs: f.Each, Pools: f.Pools, Limit: f.Limit, Rate: f.Rate, Timeout: f.Timeout, Grace: f.Grace,
		Retries: f.Retries, RetryDelay: f.RetryDelay, Halt: f.Halt, Canary: f.Canary, Priority: f.Priority,
		MaxOutput: f.MaxOutput, Class: f.Class, Shape: f.Shape, Announce: f.Announce,
	}
	if f.CSV != "" {
		s.Inputs = append([]bulkhead.Source{{From: f.CSV, CSV: true}}, f.Each...)
	}
	return s
}

// field is one key of a run file.
type field struct {
	name string
	read func(d *decoder, n *yaml.Node) error
}

var fields = []field{
	{"name", text(func(f *File) *string { return &f.Name })},
	{"comment", text(func(f *File) *string { return &f.Comment })},
	{"announce", parsed(yesOrNo, func(f *File) *bool { return &f.Announce })},
	{"each", (*decoder).each},
	{"csv", text(func(f *File) *string { return &f.CSV })},
	{"command", (*decoder).command},
	{"env", (*decoder).env},
	{"dir", text(func(f *File) *string { return &f.Dir })},
	{"stdin", (*decoder).stdin},
	{"stdin-file", text(func(f *File) *string { return &f.StdinFile })},
	{"file", (*decoder).files},
	{"class", text(func(f *File) *string { return &f.Class })},
	{"image", text(func(f *File) *string { return &f.Shape.Image })},
	{"cpu", text(func(f *File) *string { return &f.Shape.CPU })},
	{"memory", text(func(f *File) *string { return &f.Shape.Memory })},
	{"pool", (*decoder).pools},
	{"limit", parsed(wholeFrom(1), func(f *File) *int { return &f.Limit })},
	{"rate", parsed(bulkhead.ParseRate, func(f *File) *bulkhead.Rate { return &f.Rate })},
	{"timeout", parsed(ParseDuration, func(f *File) *time.Duration { return &f.Timeout })},
	{"grace", parsed(notZero(ParseDuration, "1ms"), func(f *File) *time.Duration { return &f.Grace })},
	{"retries", parsed(wholeFrom(0), func(f *File) *int { return &f.Retries })},
	{"retry-delay", parsed(notZero(ParseDuration, "1ms"), func(f *File) *time.Duration { return &f.RetryDelay })},
	{"halt", parsed(bulkhead.ParseHalt, func(f *File) *bulkhead.Halt { return &f.Halt })},
	{"canary", parsed(wholeFrom(0), func(f *File) *int { return &f.Canary })},
	{"priority", parsed(whole, func(f *File) *int { return &f.Priority })},
	{"max-output", parsed(notZero(ParseSize, "1"), func(f *File) *int64 { return &f.MaxOutput })},
}

// ParseFile reads a run file: one YAML document, a map from the long names of
// the flags of "bulkhead run" to their values. Everything that is not understood
// is an error that names the file and line. Values are the text as it stands in
// the file (07 stays 07, and no is no); aliases are refused. name is for
// messages.
//
//	comment: T363966
//	each:
//	  - wiki=wikis.txt            # as on the command line
//	  - key: [144p.mov, "a,b"]    # the values themselves
//	pool: ["db:{wiki}=1"]
//	command: [./requeue, "--wiki={wiki}", "--key={key}"]
func ParseFile(r io.Reader, name string) (File, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxFile+1))
	if err != nil {
		return File{}, fmt.Errorf("read %s: %w", name, err)
	}
	if len(data) > MaxFile {
		return File{}, usage("put the input into files of its own and name them in each or csv", "%s is larger than 1 MiB", name)
	}
	d := &decoder{name: name}
	if err := d.utf8Error(data); err != nil {
		return File{}, err
	}
	docs := yaml.NewDecoder(bytes.NewReader(data))
	var doc, second yaml.Node
	err = docs.Decode(&doc)
	if errors.Is(err, io.EOF) || err == nil && empty(doc.Content[0]) {
		return File{}, usage(commandHint, "%s is empty: it needs at least a command", name)
	}
	if err != nil {
		return File{}, d.syntax(err)
	}
	switch err := docs.Decode(&second); {
	case err == nil:
		return File{}, usage("write one file for each run", "%s:%d: a second document begins", name, second.Line)
	case !errors.Is(err, io.EOF):
		return File{}, d.syntax(err)
	}
	if err := d.file(doc.Content[0]); err != nil {
		return File{}, err
	}
	return d.File, nil
}

const commandHint = `for example command: [php, maintenance/showSiteStats.php, "--wiki={}"]`

func (d *decoder) file(root *yaml.Node) error {
	at, err := d.pairs(root, "write field: value lines")
	if err != nil {
		return err
	}
	for _, p := range at {
		i := 0
		for i < len(fields) && fields[i].name != p.key {
			i++
		}
		if i == len(fields) {
			return d.unknown(p)
		}
		d.field = p.key
		if err := fields[i].read(d, p.value); err != nil {
			return err
		}
	}
	d.field = ""
	if d.Command == nil {
		return d.fail(root, commandHint, "the command is missing")
	}
	return nil
}

func (d *decoder) unknown(p pair) error {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.name
	}
	hint := "known are " + strings.Join(names, ", ")
	if near := bulkhead.Nearest(p.key, names); near != "" {
		hint = fmt.Sprintf("did you mean %s? ", near) + hint
	}
	return &bulkhead.Error{Code: bulkhead.CodeUsage, Hint: hint,
		Message: fmt.Sprintf("%s:%d: unknown field %s", d.name, p.line, bulkhead.Quote(p.key))}
}

func (d *decoder) command(n *yaml.Node) error {
	if n.Kind == yaml.ScalarNode && !empty(n) {
		var args []string
		for a := range strings.FieldsSeq(n.Value) {
			args = append(args, strconv.Quote(a))
		}
		return d.fail(n, "write a list, one element for each argument: ["+strings.Join(args[:min(len(args), 8)], ", ")+"]; for a shell line [sh, -c, …]",
			"%s is one text, and the command is a list", bulkhead.Quote(n.Value))
	}
	list, err := d.list(n, commandHint)
	if err != nil {
		return err
	}
	for _, e := range list {
		arg, err := d.scalar(e)
		if err != nil {
			return err
		}
		d.Command = append(d.Command, arg)
	}
	if len(d.Command) == 0 || d.Command[0] == "" {
		return d.fail(n, commandHint, "there is no program to start")
	}
	return nil
}

func (d *decoder) env(n *yaml.Node) error {
	at, err := d.pairs(n, "write NAME: value lines")
	if err != nil {
		return err
	}
	for _, p := range at {
		if p.key == "" || strings.ContainsAny(p.key, "=\x00") {
			return d.fail(p.value, "", "%s cannot be the name of a variable", bulkhead.Quote(p.key))
		}
		value, err := d.scalar(p.value)
		if err != nil {
			return err
		}
		d.Env = append(d.Env, p.key+"="+value)
	}
	return nil
}

func (d *decoder) stdin(n *yaml.Node) error {
	s, err := d.scalar(n)
	d.Stdin = &s
	return err
}

func (d *decoder) files(n *yaml.Node) error {
	list, err := d.list(n, `write a list of LOCAL or LOCAL:REMOTE: ["wikis.json:conf/wikis.json"]`)
	for _, e := range list {
		file, err := d.scalar(e)
		if err != nil {
			return err
		}
		d.Files = append(d.Files, file)
	}
	return err
}

func (d *decoder) pools(n *yaml.Node) error {
	list, err := d.list(n, `write a list: ["db:{wiki}=1"]`)
	if err != nil {
		return err
	}
	for _, e := range list {
		use, err := value(d, e, bulkhead.ParsePool)
		if err != nil {
			return err
		}
		d.Pools = append(d.Pools, use)
	}
	return nil
}

const eachHint = `write a list of [NAME=]SOURCE, of NAME: SOURCE or of NAME: [value, …]`

// each reads a list whose elements are text or maps, or one map.
func (d *decoder) each(n *yaml.Node) error {
	if n.Kind == yaml.MappingNode {
		return d.named(n)
	}
	list, err := d.list(n, eachHint)
	if err != nil {
		return err
	}
	for _, e := range list {
		if e.Kind == yaml.MappingNode {
			err = d.named(e)
		} else {
			var src bulkhead.Source
			src, err = value(d, e, ParseEach)
			d.Each = append(d.Each, src)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// named reads NAME: SOURCE and NAME: [value, …] in their order.
func (d *decoder) named(n *yaml.Node) error {
	at, err := d.pairs(n, eachHint)
	if err != nil {
		return err
	}
	for _, p := range at {
		if !bulkhead.ValidName(p.key) {
			return d.fail(p.value, "a name is made of letters, digits, _ - .", "%s cannot be a column name", bulkhead.Quote(p.key))
		}
		src := bulkhead.Source{Name: p.key}
		if p.value.Kind == yaml.SequenceNode {
			for _, e := range p.value.Content {
				v, err := d.scalar(e)
				if err != nil {
					return err
				}
				src.Values = append(src.Values, v)
			}
			if len(src.Values) == 0 {
				return d.fail(p.value, "", "the list of %s has no elements", p.key)
			}
		} else if src.From, err = d.scalar(p.value); err != nil {
			return err
		} else if src.From == "" {
			return d.fail(p.value, sourceHint, "the source of %s is empty", p.key)
		}
		d.Each = append(d.Each, src)
	}
	return nil
}

// text reads a field that is one text.
func text(to func(*File) *string) func(*decoder, *yaml.Node) error {
	return parsed(func(s string) (string, error) { return s, nil }, to)
}

// parsed reads a field whose text a function understands.
func parsed[T any](parse func(string) (T, error), to func(*File) *T) func(*decoder, *yaml.Node) error {
	return func(d *decoder, n *yaml.Node) (err error) {
		*to(&d.File), err = value(d, n, parse)
		return err
	}
}

// value reads one text, understood by a function.
func value[T any](d *decoder, n *yaml.Node, parse func(string) (T, error)) (v T, err error) {
	s, err := d.scalar(n)
	if err != nil {
		return v, err
	}
	if v, err = parse(s); err != nil {
		return v, &bulkhead.Error{Code: bulkhead.CodeUsage, Message: d.place(n), Err: err}
	}
	return v, nil
}

func whole(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, usage("", "%s is not a whole number", bulkhead.Quote(s))
	}
	return n, nil
}

func yesOrNo(s string) (bool, error) {
	if s != "true" && s != "false" {
		return false, usage("", "%s is neither true nor false", bulkhead.Quote(s))
	}
	return s == "true", nil
}

func wholeFrom(least int) func(string) (int, error) {
	return func(s string) (int, error) {
		n, err := whole(s)
		if err == nil && n < least {
			err = usage("", "%d is less than %d", n, least)
		}
		return n, err
	}
}

// notZero refuses 0 where 0 in a Spec stands for a default that is not 0.
func notZero[T time.Duration | int64](parse func(string) (T, error), least string) func(string) (T, error) {
	return func(s string) (T, error) {
		v, err := parse(s)
		if err == nil && v == 0 {
			err = usage("leave the line out for the default, or write "+least, "%s is 0", bulkhead.Quote(s))
		}
		return v, err
	}
}
