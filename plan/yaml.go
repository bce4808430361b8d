package plan

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"bulkhead.dev/bulkhead"
)

// decoder fills a File from YAML nodes. It goes by nodes and not by reflection
// because its messages are for people who do not know Go, and because a node
// still has its line and its text.
type decoder struct {
	File
	name  string // of the file
	field string // being read
}

// scalar returns the text of a single value.
func (d *decoder) scalar(n *yaml.Node) (string, error) {
	switch {
	case n.Kind == yaml.AliasNode:
		return "", d.alias(n)
	case n.Kind == yaml.MappingNode && n.Style&yaml.FlowStyle != 0:
		return "", d.fail(n, `quote it: "{}", "{name}"`, "text that begins with { is a map in YAML")
	case n.Kind == yaml.MappingNode:
		return "", d.fail(n, `text with ": " in it must be quoted`, "it takes one text, and this is a map")
	case n.Kind != yaml.ScalarNode:
		return "", d.fail(n, "", "it takes one text, and this is a list")
	case empty(n):
		return "", d.fail(n, `leave it out, or write "" for an empty text`, "it has no value")
	}
	switch tag := n.ShortTag(); tag {
	case "!!str", "!!int", "!!float", "!!bool", "!!timestamp", "!!merge":
		return n.Value, nil
	default:
		return "", d.fail(n, "leave the tag out", "tag %s is not understood", tag)
	}
}

func (d *decoder) list(n *yaml.Node, hint string) ([]*yaml.Node, error) {
	switch n.Kind {
	case yaml.AliasNode:
		return nil, d.alias(n)
	case yaml.SequenceNode:
		return n.Content, nil
	}
	return nil, d.fail(n, hint, "it is not a list")
}

type pair struct {
	key   string
	line  int // of the key
	value *yaml.Node
}

// pairs returns the entries of a map in their order, each key once.
func (d *decoder) pairs(n *yaml.Node, hint string) ([]pair, error) {
	switch n.Kind {
	case yaml.AliasNode:
		return nil, d.alias(n)
	case yaml.MappingNode:
	default:
		return nil, d.fail(n, hint, "it is not a map")
	}
	var at []pair
	lines := map[string]int{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		key, err := d.scalar(k)
		if err != nil {
			return nil, err
		}
		if lines[key] > 0 {
			return nil, d.fail(k, "keep one of them", "%s is given twice, first in line %d", key, lines[key])
		}
		lines[key] = k.Line
		at = append(at, pair{key, k.Line, v})
	}
	return at, nil
}

func (d *decoder) alias(n *yaml.Node) error {
	return d.fail(n, `write the value again; text that begins with * is quoted: "*"`, "aliases such as *%s are not supported", n.Value)
}

// empty reports whether a value was left out, or is null.
func empty(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

func (d *decoder) fail(n *yaml.Node, hint, format string, args ...any) error {
	return &bulkhead.Error{Code: bulkhead.CodeUsage, Message: d.place(n) + ": " + fmt.Sprintf(format, args...), Hint: hint}
}

// place names the file, the line and the field of a value.
func (d *decoder) place(n *yaml.Node) string {
	if d.field == "" {
		return fmt.Sprintf("%s:%d", d.name, n.Line)
	}
	return fmt.Sprintf("%s:%d: %s", d.name, n.Line, d.field)
}

var (
	yamlMessage = regexp.MustCompile(`^yaml: (?:line ([0-9]+): )?(.*)`)
	// The parser counts lines from 0 in these messages, and leaves 0 out. The
	// scanner, which has all others with a line, counts from 1.
	fromZero = regexp.MustCompile(`^did not find expected (<|',|'-'|key|node)`)
)

// syntax makes an error of the YAML parser one of ours.
func (d *decoder) syntax(err error) error {
	place, message := d.name, err.Error()
	if m := yamlMessage.FindStringSubmatch(message); m != nil {
		message = m[2]
		line, _ := strconv.Atoi(m[1]) // 0 without a line
		if fromZero.MatchString(message) {
			line++
		}
		if line > 0 {
			place += ":" + strconv.Itoa(line)
		}
	}
	return usage(`it must be YAML; text with any of { } [ ] : # * & ! in it is quoted: "--wiki={}"`, "%s: %s", place, message)
}

// utf8Error finds the line of what is not UTF-8, which the parser does not tell.
func (d *decoder) utf8Error(data []byte) error {
	for line, text := range bytes.Split(data, []byte("\n")) {
		if !utf8.Valid(text) {
			return usage("save the file as UTF-8", "%s:%d: the text is not UTF-8", d.name, line+1)
		}
	}
	return nil
}
