// Package chart is how Bulkhead gets into a cluster: one Helm chart, the folder
// bulkhead, which is in the program, too. It is rendered here without Helm, for
// who would rather have manifests, and written to a folder for who has Helm.
//
// Templates may use what Render knows: text/template, the objects Values, Release
// (Name, Namespace) and Chart, and the functions in functions. A test lets Helm
// render the same, and compares.
package chart

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"text/template"

	"sigs.k8s.io/yaml"

	"bulkhead.dev/bulkhead"
)

//go:generate sh -c "go run ./crdtemplate <../crd/bulkhead.dev_scriptclasses.yaml >bulkhead/templates/crd.yaml"
//go:generate sh -c "go run ./ruletemplate <../../guard/tell/rules.yaml >bulkhead/templates/prometheusrule.yaml"

// all: with the file whose name begins with _.
//
//go:embed all:bulkhead
var embedded embed.FS

// files are the chart's, below its folder.
var files = func() fs.FS {
	sub, err := fs.Sub(embedded, "bulkhead")
	if err != nil {
		panic(err) // it is a constant
	}
	return sub
}()

// Options of Objects.
type Options struct {
	// Namespace is where the server is to be. Required.
	Namespace string
	// Version is that of the program, which is that of its image unless a value says
	// otherwise. Required.
	Version string
	// Values are those that differ from the chart's own.
	Values map[string]any
}

// Object is one manifest.
type Object = map[string]any

// Objects are what is to be applied, in an order in which that works: what others
// need comes before them. The namespace is not among them, see Namespace. What is
// wrong with the values is CodeUsage.
func Objects(o Options) ([]Object, error) {
	values, err := complete(o.Values)
	if err != nil {
		return nil, err
	}
	about, err := about(o.Version)
	if err != nil {
		return nil, err
	}
	t, err := parse()
	if err != nil {
		return nil, err
	}
	data := map[string]any{
		"Values": values, "Release": map[string]any{"Name": "bulkhead", "Namespace": o.Namespace},
		"Chart": map[string]any{"Name": about["name"], "Version": about["version"], "AppVersion": about["appVersion"]},
	}
	var all []Object
	parts := t.Templates()
	slices.SortFunc(parts, func(a, b *template.Template) int { return strings.Compare(a.Name(), b.Name()) })
	for _, part := range parts {
		if filepath.Ext(part.Name()) != ".yaml" {
			continue
		}
		var text bytes.Buffer
		if err := part.Execute(&text, data); err != nil {
			return nil, fmt.Errorf("render the chart: %w", err)
		}
		objects, err := read(text.String())
		if err != nil {
			return nil, fmt.Errorf("%s of the chart: %w", part.Name(), err)
		}
		all = append(all, objects...)
	}
	slices.SortStableFunc(all, func(a, b Object) int { return rank(a) - rank(b) })
	return all, nil
}

// Namespace is that of the server, in which pods are held to the restricted profile
// of Pod Security.
func Namespace(name string) Object {
	labels := map[string]any{}
	for _, mode := range []string{"enforce", "audit", "warn"} {
		labels["pod-security.kubernetes.io/"+mode] = "restricted"
	}
	return Object{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name, "labels": labels}}
}

// GuardKinds are the kinds that a guard counts in a cluster unless a value says
// otherwise, and to which it therefore gets rights.
func GuardKinds() ([]string, error) {
	text, err := fs.ReadFile(files, "values.yaml")
	if err != nil {
		return nil, err
	}
	var values struct{ Guard struct{ Kinds []string } }
	if err := yaml.Unmarshal(text, &values); err != nil {
		return nil, fmt.Errorf("values of the chart: %w", err)
	}
	return values.Guard.Kinds, nil
}

// parse reads all templates. Their names are those of their files.
func parse() (*template.Template, error) {
	t := template.New("chart")
	t.Funcs(functions(t))
	names, err := fs.Glob(files, "templates/*")
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		text, err := fs.ReadFile(files, name)
		if err != nil {
			return nil, err
		}
		if _, err := t.New(filepath.Base(name)).Parse(string(text)); err != nil {
			return nil, fmt.Errorf("read the chart: %w", err)
		}
	}
	return t, nil
}

// functions are those of Helm's that the chart uses, with the same meaning.
func functions(t *template.Template) template.FuncMap {
	return template.FuncMap{
		"include": func(name string, data any) (string, error) {
			var text strings.Builder
			err := t.ExecuteTemplate(&text, name, data)
			return text.String(), err
		},
		"quote":     func(v any) string { return fmt.Sprintf("%q", fmt.Sprint(v)) },
		"hasPrefix": func(prefix, s string) bool { return strings.HasPrefix(s, prefix) },
		"default": func(otherwise, v any) any {
			if truth, _ := template.IsTrue(v); truth {
				return v
			}
			return otherwise
		},
		"regexReplaceAll": func(regex, s, with string) (string, error) {
			re, err := regexp.Compile(regex)
			if err != nil {
				return "", err
			}
			return re.ReplaceAllString(s, with), nil
		},
		"nindent": func(spaces int, s string) string {
			indent := "\n" + strings.Repeat(" ", spaces)
			return indent + strings.ReplaceAll(s, "\n", indent)
		},
		"toYaml": func(v any) (string, error) {
			text, err := yaml.Marshal(v)
			return strings.TrimSuffix(string(text), "\n"), err
		},
	}
}

var separator = regexp.MustCompile(`(?m)^---$`)

// read reads the documents of a file.
func read(text string) ([]Object, error) {
	var all []Object
	for _, part := range separator.Split(text, -1) {
		var o Object
		if err := yaml.UnmarshalStrict([]byte(part), &o); err != nil {
			return nil, err
		}
		if o != nil {
			all = append(all, o)
		}
	}
	return all, nil
}

// kinds are in the order of their application. A pod has the addresses of those
// Services in its environment that were there before it.
var kinds = []string{"Namespace", "CustomResourceDefinition", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding",
	"ConfigMap", "PersistentVolumeClaim", "NetworkPolicy", "Service", "Deployment", "PrometheusRule"}

func rank(o Object) int {
	kind, _ := o["kind"].(string)
	return slices.Index(kinds, kind)
}

// about is Chart.yaml, with the version of the program.
func about(version string) (map[string]any, error) {
	text, err := fs.ReadFile(files, "Chart.yaml")
	if err != nil {
		return nil, err
	}
	var a map[string]any
	if err := yaml.Unmarshal(text, &a); err != nil {
		return nil, fmt.Errorf("read the chart: %w", err)
	}
	a["version"], a["appVersion"] = chartVersion(version), version
	return a, nil
}

// versions are https://semver.org's, as Helm wants them; v is no part of them.
var versions = regexp.MustCompile(`^v?(\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?)$`)

// chartVersion makes a version of Helm's of any: git's of a commit without a tag is
// one number.
func chartVersion(version string) string {
	if m := versions.FindStringSubmatch(version); m != nil {
		return m[1]
	}
	return "0.0.0-v" + regexp.MustCompile(`[^0-9A-Za-z-]+`).ReplaceAllString(version, "-")
}

// Write writes the chart to a folder, which is made, for `helm install`.
func Write(dir, version string) error {
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > 0 {
		return &bulkhead.Error{Code: bulkhead.CodeUsage, Message: fmt.Sprintf("folder %s is not empty", bulkhead.Quote(dir)),
			Hint: "remove it, or name another: what is left of an older chart would be installed, too"}
	}
	a, err := about(version)
	if err != nil {
		return err
	}
	return fs.WalkDir(files, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		target := filepath.Join(dir, filepath.FromSlash(path))
		if d.IsDir() {
			return os.MkdirAll(target, 0o755) //nolint:gosec // a chart is no secret
		}
		text, err := fs.ReadFile(files, path)
		if err == nil && path == "Chart.yaml" {
			text, err = yaml.Marshal(a)
		}
		if err != nil {
			return err
		}
		return os.WriteFile(target, text, 0o644) //nolint:gosec // a chart is no secret
	})
}
