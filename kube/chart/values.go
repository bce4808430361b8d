package chart

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/kube-openapi/pkg/validation/strfmt"
	"k8s.io/kube-openapi/pkg/validation/validate"
	"sigs.k8s.io/yaml"

	"bulkhead.dev/bulkhead"
)

// ReadValues reads values that differ from the chart's own, YAML.
func ReadValues(text []byte) (map[string]any, error) {
	values := map[string]any{}
	if err := yaml.UnmarshalStrict(text, &values); err != nil {
		return nil, wrong("", "%s", strings.TrimPrefix(err.Error(), "error converting YAML to JSON: "))
	}
	return values, nil
}

// Set sets one value, PATH=VALUE, for example storage.size=5Gi. What is no text in
// the chart is YAML: true, [a, b].
func Set(values map[string]any, assignment string) error {
	path, text, found := strings.Cut(assignment, "=")
	if !found || path == "" {
		return wrong("for example storage.size=5Gi", "%s is not PATH=VALUE", bulkhead.Quote(assignment))
	}
	schema, err := readSchema()
	if err != nil {
		return err
	}
	keys := splitPath(path)
	if err := known(schema, keys); err != nil {
		return err
	}
	for _, key := range keys {
		schema = under(schema, key)
	}
	var value any = text
	if schema != nil && !schema.Type.Contains("string") {
		if err := yaml.Unmarshal([]byte(text), &value); err != nil {
			return wrong("it is to be YAML", "%s: %v", path, err)
		}
	}
	at := values
	for _, key := range keys[:len(keys)-1] {
		below, is := at[key].(map[string]any)
		if !is {
			below = map[string]any{}
			at[key] = below
		}
		at = below
	}
	at[keys[len(keys)-1]] = value
	return nil
}

// splitPath is Helm's: a dot that belongs to a key is written \. there.
func splitPath(path string) []string {
	const dot = "\x00"
	keys := strings.Split(strings.ReplaceAll(path, `\.`, dot), ".")
	for i, key := range keys {
		keys[i] = strings.ReplaceAll(key, dot, ".")
	}
	return keys
}

// complete are all values, where some differ from the chart's own.
func complete(differ map[string]any) (map[string]any, error) {
	schema, err := readSchema()
	if err != nil {
		return nil, err
	}
	if err := knowsAll(schema, nil, differ); err != nil {
		return nil, err
	}
	text, err := fs.ReadFile(files, "values.yaml")
	if err != nil {
		return nil, err
	}
	values := map[string]any{}
	if err := yaml.UnmarshalStrict(text, &values); err != nil {
		return nil, fmt.Errorf("values of the chart: %w", err)
	}
	values = merge(values, differ)
	problems := validate.NewSchemaValidator(schema, nil, "", strfmt.Default).Validate(values)
	if problems.HasErrors() {
		text := problems.Errors[0].Error()
		return nil, wrong("", "%s", strings.ReplaceAll(text, " in body", ""))
	}
	return values, nil
}

// merge puts what differs in place of what is, as Helm does: maps are merged, all
// else is replaced, and null removes.
func merge(is, differ map[string]any) map[string]any {
	out := maps.Clone(is)
	for key, value := range differ {
		was, isMap := out[key].(map[string]any)
		more, both := value.(map[string]any)
		switch {
		case value == nil:
			delete(out, key)
		case isMap && both:
			out[key] = merge(was, more)
		default:
			out[key] = value
		}
	}
	return out
}

func readSchema() (*spec.Schema, error) {
	text, err := fs.ReadFile(files, "values.schema.json")
	if err != nil {
		return nil, err
	}
	schema := &spec.Schema{}
	if err := json.Unmarshal(text, schema); err != nil {
		return nil, fmt.Errorf("schema of the chart's values: %w", err)
	}
	return schema, nil
}

// under is the schema of what is below a key; nil: anything may be.
func under(s *spec.Schema, key string) *spec.Schema {
	if s == nil {
		return nil
	}
	if p, is := s.Properties[key]; is {
		return &p
	}
	if s.AdditionalProperties != nil {
		return s.AdditionalProperties.Schema
	}
	return nil
}

// knowsAll reports the first value that the chart has not got.
func knowsAll(s *spec.Schema, path []string, values map[string]any) error {
	for _, key := range slices.Sorted(maps.Keys(values)) {
		at := append(slices.Clip(path), key)
		if err := knows(s, at); err != nil {
			return err
		}
		below := under(s, key)
		if more, is := values[key].(map[string]any); is && below != nil {
			if err := knowsAll(below, at, more); err != nil {
				return err
			}
		}
	}
	return nil
}

// known reports the first key of a path that the chart has not got.
func known(s *spec.Schema, keys []string) error {
	for i, key := range keys {
		if s == nil {
			return nil
		}
		if err := knows(s, keys[:i+1]); err != nil {
			return err
		}
		s = under(s, key)
	}
	return nil
}

// knows reports that the last key of a path is none of s, which is that of the
// path above it.
func knows(s *spec.Schema, path []string) error {
	key := path[len(path)-1]
	closed := s.AdditionalProperties != nil && !s.AdditionalProperties.Allows && s.AdditionalProperties.Schema == nil
	if _, is := s.Properties[key]; is || !closed {
		return nil
	}
	names := slices.Sorted(maps.Keys(s.Properties))
	hint := "there are " + strings.Join(names, ", ")
	if near := bulkhead.Nearest(key, names); near != "" {
		above := strings.TrimSuffix(strings.Join(path, "."), key)
		hint = fmt.Sprintf("did you mean %s%s?", above, near)
	}
	return wrong(hint, "there is no value %s", bulkhead.Quote(strings.Join(path, ".")))
}

func wrong(hint, format string, args ...any) error {
	return &bulkhead.Error{Code: bulkhead.CodeUsage, Message: "values: " + fmt.Sprintf(format, args...), Hint: hint}
}
