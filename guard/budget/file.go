package budget

import (
	"errors"
	"fmt"
	"io"

	"go.yaml.in/yaml/v3"

	"bulkhead.dev/bulkhead"
)

// maxFile is more than any budgets file needs.
const maxFile = 1 << 20

// ReadFile reads a budgets file. name is for messages. What it does not know is an
// error, because a misspelt budget protects nothing.
//
//	budgets:
//	  networkpolicies: 1000
//	  configmaps@mw-script: 500
//	  networkpolicies.rules: {limit: 100k, source: "agreed with the network team, T123"}
//	  bytes: 8Gi
func ReadFile(r io.Reader, name string) ([]bulkhead.Budget, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	if len(data) > maxFile {
		return nil, wrong(name, 1, "is it the right file?", "it is larger than 1 MiB")
	}
	var root yaml.Node
	if err := yaml.Unmarshal(data, &root); err != nil {
		return nil, &bulkhead.Error{Code: bulkhead.CodeUsage, Message: name, Hint: "it must be YAML", Err: errors.New(oneLine(err.Error()))}
	}
	if len(root.Content) == 0 {
		return nil, wrong(name, 1, "write budgets: and below it KIND: LIMIT", "it is empty")
	}
	top := root.Content[0]
	var budgets []bulkhead.Budget
	err = pairs(name, top, func(key, value *yaml.Node) error {
		if key.Value != "budgets" {
			return wrong(name, key.Line, "the one field is budgets", "field %s is not known", bulkhead.Quote(key.Value))
		}
		return pairs(name, value, func(key, value *yaml.Node) error {
			b, err := entry(name, key.Value, value)
			budgets = append(budgets, b)
			return err
		})
	})
	return budgets, err
}

// entry reads a limit, or a limit and its source.
func entry(file, what string, value *yaml.Node) (bulkhead.Budget, error) {
	limit, source := value, Configured
	if value.Kind == yaml.MappingNode {
		limit = nil
		err := pairs(file, value, func(key, value *yaml.Node) error {
			switch {
			case value.Kind != yaml.ScalarNode:
				return wrong(file, value.Line, "", "%s takes one value", bulkhead.Quote(key.Value))
			case key.Value == "limit":
				limit = value
			case key.Value == "source":
				source = value.Value
			default:
				return wrong(file, key.Line, "known are limit and source", "field %s is not known", bulkhead.Quote(key.Value))
			}
			return nil
		})
		if err != nil {
			return bulkhead.Budget{}, err
		}
	}
	if limit == nil || limit.Kind != yaml.ScalarNode {
		return bulkhead.Budget{}, wrong(file, value.Line, "write KIND: LIMIT or KIND: {limit: N, source: TEXT}", "budget %s has no limit", bulkhead.Quote(what))
	}
	b, err := parse(what+"="+limit.Value, what, limit.Value)
	if err != nil {
		return b, fmt.Errorf("%s:%d: %w", file, limit.Line, err)
	}
	b.Source = source
	return b, nil
}

// pairs calls fn for each entry of a map, in their order.
func pairs(file string, n *yaml.Node, fn func(key, value *yaml.Node) error) error {
	if n.Kind != yaml.MappingNode {
		return wrong(file, n.Line, "write budgets: and below it KIND: LIMIT", "it is not a map")
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if seen[key.Value] {
			return wrong(file, key.Line, "keep one of them", "%s is given twice", bulkhead.Quote(key.Value))
		}
		seen[key.Value] = true
		if err := fn(key, n.Content[i+1]); err != nil {
			return err
		}
	}
	return nil
}

func wrong(file string, line int, hint, format string, args ...any) error {
	return &bulkhead.Error{Code: bulkhead.CodeUsage, Message: fmt.Sprintf("%s:%d: %s", file, line, fmt.Sprintf(format, args...)), Hint: hint}
}

// oneLine bounds what a parser says of a text that may be anything.
func oneLine(text string) string {
	const most = 200
	out := make([]rune, 0, most)
	for _, r := range text {
		if r < ' ' {
			r = ' '
		}
		if out = append(out, r); len(out) == most {
			break
		}
	}
	return string(out)
}
