package bulkhead

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Template is text with placeholders, read once and expanded for every item,
// see ParseTemplate. The zero value expands to "".
type Template struct {
	constant string // the whole text when there are no parts
	parts    []part
}

// part is a piece of a template: text as it is, or what stands for a hole.
type part struct {
	text   string // for a column of inText
	column int    // which value, from 0, or one of the two below
}

const (
	inText  = -1
	inIndex = -2
)

// ParseTemplate reads a template over the named columns.
//
// A placeholder is exactly {} (the value, when there is one column), {#} (the
// index of the item, from 1) or {name} (the value of that column). Any other
// brace stands for itself, so that JSON, awk and shell text need no care. A
// second brace before something that looks like a placeholder makes it text:
// {{name} is written as {name}. Text is read from the left, so in {{{name} the
// first brace is text and the rest is {name}.
//
// Without columns there is no input and nothing is replaced, not even {{. An
// unknown name is a usage error that lists the known ones.
func ParseTemplate(text string, columns []string) (Template, error) {
	if len(columns) == 0 {
		return Template{constant: text}, nil
	}
	var t Template
	var literal []byte // text since the last hole
	rest := text
	for {
		at := strings.IndexByte(rest, '{')
		if at < 0 {
			break
		}
		literal = append(literal, rest[:at]...)
		rest = rest[at:]
		if name, ok := placeholder(rest[1:]); ok {
			rest = rest[1:]
			literal = append(literal, rest[:len(name)+2]...)
			rest = rest[len(name)+2:]
		} else if name, ok := placeholder(rest); ok {
			column, err := columnOf(name, text, columns)
			if err != nil {
				return Template{}, err
			}
			t.add(literal)
			literal = literal[:0]
			t.parts = append(t.parts, part{column: column})
			rest = rest[len(name)+2:]
		} else {
			literal = append(literal, '{')
			rest = rest[1:]
		}
	}
	literal = append(literal, rest...)
	if len(t.parts) == 0 {
		return Template{constant: string(literal)}, nil
	}
	t.add(literal)
	return t, nil
}

func (t *Template) add(literal []byte) {
	if len(literal) > 0 {
		t.parts = append(t.parts, part{string(literal), inText})
	}
}

// Expand returns the text for one item, which has a value for every column that
// the template was read with.
func (t Template) Expand(it Item) string {
	switch {
	case len(t.parts) == 0:
		return t.constant
	case len(t.parts) == 1 && t.parts[0].column >= 0:
		return it.Values[t.parts[0].column]
	}
	var digits [20]byte
	index := strconv.AppendInt(digits[:0], it.Index, 10)
	size := 0
	for _, p := range t.parts {
		switch p.column {
		case inText:
			size += len(p.text)
		case inIndex:
			size += len(index)
		default:
			size += len(it.Values[p.column])
		}
	}
	var b strings.Builder
	b.Grow(size)
	for _, p := range t.parts {
		switch p.column {
		case inText:
			b.WriteString(p.text)
		case inIndex:
			b.Write(index)
		default:
			b.WriteString(it.Values[p.column])
		}
	}
	return b.String()
}

// Constant reports whether every item expands to the same text.
func (t Template) Constant() bool { return len(t.parts) == 0 }

// placeholder returns what stands between the braces when s begins with
// something that looks like a placeholder.
func placeholder(s string) (name string, ok bool) {
	if len(s) < 2 || s[0] != '{' {
		return "", false
	}
	end := 1
	if s[1] == '#' {
		end = 2
	} else {
		for end < len(s) && nameByte(s[end]) {
			end++
		}
	}
	return s[1:end], end < len(s) && s[end] == '}'
}

// Literal is the template that every item expands to exactly this text, whatever
// stands in it.
func Literal(text string, columns []string) string {
	if len(columns) == 0 || !strings.Contains(text, "{") {
		return text
	}
	var b strings.Builder
	for i := range len(text) {
		if text[i] == '{' {
			if _, ok := placeholder(text[i:]); ok {
				b.WriteByte('{')
			}
		}
		b.WriteByte(text[i])
	}
	return b.String()
}

// ValidName reports whether a column may have this name: letters and digits of
// ASCII, "_", "-" and ".", so that {name} is a placeholder.
func ValidName(name string) bool {
	for i := range len(name) {
		if !nameByte(name[i]) {
			return false
		}
	}
	return name != ""
}

func nameByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		c == '_' || c == '-' || c == '.'
}

func columnOf(name, text string, columns []string) (int, error) {
	switch {
	case name == "#":
		return inIndex, nil
	case name == "" && len(columns) == 1:
		return 0, nil
	case name == "":
		return 0, &Error{Code: CodeUsage,
			Message: fmt.Sprintf("{} in %s is not clear: there are %d columns", Quote(text), len(columns)),
			Hint:    fmt.Sprintf("write one of %s; {{} writes {} itself", listColumns(columns))}
	}
	if i := slices.Index(columns, name); i >= 0 {
		return i, nil
	}
	known := "{#}, " + listColumns(columns)
	if len(columns) == 1 {
		known = "{}, " + known
	}
	hint := fmt.Sprintf("known are %s; {{%s} writes {%[2]s} itself", known, name)
	if near := Nearest(name, columns); near != "" {
		hint = fmt.Sprintf("did you mean {%s}? ", near) + hint
	}
	return 0, &Error{Code: CodeUsage, Message: fmt.Sprintf("unknown placeholder {%s} in %s", name, Quote(text)), Hint: hint}
}

// listColumns names the columns as placeholders, in order. A wide table is cut
// short: nobody reads a line of a thousand names.
func listColumns(columns []string) string {
	const most = 20
	var b strings.Builder
	for i, c := range columns {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(columns)-most)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("{" + c + "}")
	}
	return b.String()
}
