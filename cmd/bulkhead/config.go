package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"bulkhead.dev/bulkhead"
)

// config is the configuration file. It names servers; a token is never in it,
// only the file that has it, so that the file can be shown and shared.
//
//	current: prod
//	contexts:
//	  prod:
//	    server: https://bulkhead.example.org:8443
//	    ca: /etc/bulkhead/ca.crt
//	    token-file: /home/ann/.config/bulkhead/prod.token
//	  cluster:
//	    kubernetes: true
//	    kube-context: prod
type config struct {
	path     string
	current  string // name of a context; "": local
	contexts []serverContext
}

// serverContext is a server under a name.
type serverContext struct {
	name string
	serverAddress
}

// serverAddress says where a server is, and how we and it trust each other.
type serverAddress struct {
	URL       string // "": none, or found by the kubeconfig
	CA        string // file with certificates; "": those of the system, or of the cluster
	TokenFile string // "": none
	kubeAddress
}

// kubeAddress is a server that a kubeconfig leads to.
type kubeAddress struct {
	Kubernetes      bool
	Kubeconfig      string // file; "": as kubectl
	KubeContext     string // "": the current one
	ServerNamespace string // "": bulkhead
}

// String names a server for people.
func (s *serverAddress) String() string {
	if !s.Kubernetes || s.URL != "" {
		return s.URL
	}
	text := "cluster of kubeconfig context " + cmp.Or(s.KubeContext, "(current)")
	if s.ServerNamespace != "" {
		text += ", namespace " + s.ServerNamespace
	}
	return text
}

// localContext is the name of the context that is no server.
const localContext = "local"

// configPath is where the configuration file is.
func configPath() (string, error) {
	base := os.Getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(base) { // not given, or to be ignored, says the XDG specification
		home, err := os.UserHomeDir()
		if err != nil {
			return "", usage("give one with XDG_CONFIG_HOME", "no folder for the configuration: %v", err)
		}
		base = filepath.Join(home, ".config")
	}
	return filepath.Join(base, "bulkhead", "config.yaml"), nil
}

// readConfig reads the configuration file. There need not be one.
func readConfig() (*config, error) {
	path, err := configPath()
	if err != nil {
		return nil, err
	}
	c := &config{path: path}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, usage("", "configuration: %v", err)
	}
	if err := c.parse(data); err != nil {
		return nil, err
	}
	return c, nil
}

func (c *config) parse(data []byte) error {
	docs := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := docs.Decode(&doc); errors.Is(err, io.EOF) {
		return nil
	} else if err != nil {
		return c.syntax(err)
	}
	if err := docs.Decode(&yaml.Node{}); !errors.Is(err, io.EOF) {
		return usage("", "%s: a second document begins", c.path)
	}
	current := &yaml.Node{}
	err := c.fields(doc.Content[0], "the configuration", map[string]func(*yaml.Node) error{
		"current": func(n *yaml.Node) error {
			current = n
			return c.text(n, "current", &c.current)
		},
		"contexts": c.readContexts,
	})
	if err != nil {
		return err
	}
	if c.current == localContext {
		c.current = ""
	}
	if _, ok := c.context(c.current); !ok && c.current != "" {
		return c.fail(current, "bulkhead context use chooses another one", "current: there is no context %s", bulkhead.Quote(c.current))
	}
	return nil
}

func (c *config) readContexts(n *yaml.Node) error {
	return c.pairs(n, "contexts", func(key, value *yaml.Node) error {
		sc := serverContext{name: key.Value}
		if err := checkContextName(sc.name); err != nil {
			return c.fail(key, bulkhead.HintOf(err), "%v", err)
		}
		text := func(to *string) func(*yaml.Node) error {
			return func(n *yaml.Node) error { return c.text(n, "context "+sc.name, to) }
		}
		err := c.fields(value, "context "+sc.name, map[string]func(*yaml.Node) error{
			"server": text(&sc.URL), "ca": text(&sc.CA), "token-file": text(&sc.TokenFile),
			"kubeconfig": text(&sc.Kubeconfig), "kube-context": text(&sc.KubeContext), "server-namespace": text(&sc.ServerNamespace),
			"kubernetes": func(n *yaml.Node) error {
				if n.Decode(&sc.Kubernetes) != nil {
					return c.fail(n, "true, or leave it out", "context %s: kubernetes is not true or false", sc.name)
				}
				return nil
			},
		})
		if err != nil {
			return err
		}
		switch {
		case sc.URL == "" && !sc.Kubernetes:
			return c.fail(value, "server: https://HOST:PORT, or kubernetes: true", "context %s has no server", sc.name)
		case sc.TokenFile != "" && sc.Kubernetes:
			return c.fail(value, "leave one of them out", "context %s: kubernetes and token-file exclude each other", sc.name)
		case !sc.Kubernetes && sc.kubeAddress != (kubeAddress{}):
			return c.fail(value, "kubernetes: true", "context %s has a kubeconfig and is not of a cluster", sc.name)
		}
		for _, path := range []*string{&sc.CA, &sc.TokenFile, &sc.Kubeconfig} {
			if *path != "" && !filepath.IsAbs(*path) { // as somebody wrote by hand: beside this file
				*path = filepath.Join(filepath.Dir(c.path), *path)
			}
		}
		c.contexts = append(c.contexts, sc)
		return nil
	})
}

// fields reads a map of known keys.
func (c *config) fields(n *yaml.Node, what string, known map[string]func(*yaml.Node) error) error {
	return c.pairs(n, what, func(key, value *yaml.Node) error {
		read := known[key.Value]
		if read != nil {
			return read(value)
		}
		var names []string
		for name := range known {
			names = append(names, name)
		}
		slices.Sort(names)
		hint := "known are " + strings.Join(names, ", ")
		if near := bulkhead.Nearest(key.Value, names); near != "" {
			hint = fmt.Sprintf("did you mean %s? ", near) + hint
		}
		return c.fail(key, hint, "unknown field %s", bulkhead.Quote(key.Value))
	})
}

// pairs calls fn for the entries of a map, each key once.
func (c *config) pairs(n *yaml.Node, what string, fn func(key, value *yaml.Node) error) error {
	if n.Kind != yaml.MappingNode {
		return c.fail(n, "write name: value lines", "%s is not a map", what)
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if seen[key.Value] {
			return c.fail(key, "keep one of them", "%s is given twice", bulkhead.Quote(key.Value))
		}
		seen[key.Value] = true
		if err := fn(key, value); err != nil {
			return err
		}
	}
	return nil
}

func (c *config) text(n *yaml.Node, what string, to *string) error {
	if n.Kind != yaml.ScalarNode || n.ShortTag() == "!!null" {
		return c.fail(n, "", "%s: it takes one text", what)
	}
	*to = n.Value
	return nil
}

func (c *config) fail(n *yaml.Node, hint, format string, args ...any) error {
	return usage(hint, "%s:%d: %s", c.path, n.Line, fmt.Sprintf(format, args...))
}

var yamlSyntax = regexp.MustCompile(`^yaml: (?:line ([0-9]+): )?`)

func (c *config) syntax(err error) error {
	place, message := c.path, err.Error()
	if m := yamlSyntax.FindStringSubmatch(message); len(m) == 2 {
		message = message[len(m[0]):]
		if m[1] != "" {
			place += ":" + m[1]
		}
	}
	return usage("it must be YAML", "%s: %s", place, message)
}

// context finds a context by its name.
func (c *config) context(name string) (serverContext, bool) {
	for _, sc := range c.contexts {
		if sc.name == name {
			return sc, true
		}
	}
	return serverContext{}, false
}

// named is context with an error that helps.
func (c *config) named(name string) (serverContext, error) {
	if sc, ok := c.context(name); ok {
		return sc, nil
	}
	var names []string
	for _, sc := range c.contexts {
		names = append(names, sc.name)
	}
	names = append(names, localContext)
	hint := "bulkhead context add NAME --server URL makes one"
	if len(c.contexts) > 0 {
		hint = "known are " + strings.Join(names, ", ")
	}
	if near := bulkhead.Nearest(name, names); near != "" {
		hint = fmt.Sprintf("did you mean %s? ", near) + hint
	}
	return serverContext{}, &bulkhead.Error{Code: bulkhead.CodeNotFound, Message: fmt.Sprintf("there is no context %s", bulkhead.Quote(name)), Hint: hint}
}

// checkContextName refuses what is no name for a context.
func checkContextName(name string) error {
	switch {
	case name == localContext:
		return usage("choose another name", "context %q is the state folder of this machine, always", name)
	case !bulkhead.ValidName(name) || strings.HasPrefix(name, "-"):
		return usage("a name is made of letters, digits, _ - .", "%s cannot be the name of a context", bulkhead.Quote(name))
	}
	return nil
}

// write puts the configuration in the place of the old one, whole or not at all.
func (c *config) write() error {
	var doc struct {
		Current  string    `yaml:"current,omitempty"`
		Contexts yaml.Node `yaml:"contexts,omitempty"`
	}
	doc.Current = c.current
	doc.Contexts.Kind = yaml.MappingNode
	for _, sc := range c.contexts {
		value := &yaml.Node{}
		err := value.Encode(struct {
			Server          string `yaml:"server,omitempty"`
			CA              string `yaml:"ca,omitempty"`
			TokenFile       string `yaml:"token-file,omitempty"`
			Kubernetes      bool   `yaml:"kubernetes,omitempty"`
			Kubeconfig      string `yaml:"kubeconfig,omitempty"`
			KubeContext     string `yaml:"kube-context,omitempty"`
			ServerNamespace string `yaml:"server-namespace,omitempty"`
		}{sc.URL, sc.CA, sc.TokenFile, sc.Kubernetes, sc.Kubeconfig, sc.KubeContext, sc.ServerNamespace})
		if err != nil {
			return err
		}
		key := &yaml.Node{}
		key.SetString(sc.name)
		doc.Contexts.Content = append(doc.Contexts.Content, key, value)
	}
	data, err := yaml.Marshal(doc)
	if err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return replaceFile(c.path, data)
}

// replaceFile writes a file for its owner only, whole or not at all.
func replaceFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	// Who has the file elsewhere, behind a link, keeps it there.
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // its mode is 0600
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // it is in nobody's way
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
