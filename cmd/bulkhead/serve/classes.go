package serve

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"

	"bulkhead.dev/bulkhead"
	"bulkhead.dev/bulkhead/kube"
	"bulkhead.dev/bulkhead/kube/api/v1alpha1"
)

// classes says which classes there are.
type classes interface {
	// Synced says why the classes are not known yet; nil once they are.
	Synced() error
	Class(name string) (bulkhead.Class, bool)
	Names() []string
}

// fileClasses are classes that files define.
type fileClasses map[string]bulkhead.Class

// Class returns a class.
func (c fileClasses) Class(name string) (bulkhead.Class, bool) {
	class, ok := c[name]
	return class, ok
}

// Synced returns nil: files are read before anybody asks.
func (c fileClasses) Synced() error { return nil }

// Names are the names of all classes, sorted.
func (c fileClasses) Names() []string { return slices.Sorted(maps.Keys(c)) }

// readClasses reads the ScriptClasses of files. What is of pods has no meaning
// there and is left alone; what is misspelt is an error.
func readClasses(paths []string) (fileClasses, error) {
	out := fileClasses{}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, usage("", "--classes: %v", err)
		}
		docs := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
		for n := 1; ; n++ {
			doc, err := docs.Read()
			if errors.Is(err, io.EOF) {
				break
			}
			if err == nil {
				err = out.add(doc)
			}
			if err != nil {
				return nil, usage("bulkhead class from prints an example", "--classes %s, document %d: %v", path, n, err)
			}
		}
	}
	return out, nil
}

func (c fileClasses) add(doc []byte) error {
	if len(bytes.TrimSpace(doc)) == 0 {
		return nil
	}
	var class v1alpha1.ScriptClass
	if err := yaml.UnmarshalStrict(doc, &class); err != nil {
		return err
	}
	if class.Kind != "ScriptClass" || class.APIVersion != v1alpha1.GroupVersion.String() {
		return fmt.Errorf("it is a %s of %s, not a ScriptClass of %s", class.Kind, class.APIVersion, v1alpha1.GroupVersion)
	}
	if class.Name == "" {
		return errors.New("metadata.name is missing")
	}
	of := kube.ToClass(&class)
	if class.Namespace == "" {
		of.Name = class.Name
	}
	if _, twice := c[of.Name]; twice {
		return fmt.Errorf("there are two classes %s", of.Name)
	}
	c[of.Name] = of
	return nil
}

// classView is the classes as the API shows them.
type classView struct{ *server }

func (k classView) Class(name string) (bulkhead.Class, bool) { return k.classes.Class(name) }
func (k classView) Known() error                             { return k.classes.Synced() }
func (k classView) Names() []string                          { return k.classes.Names() }

// Statuses says how each class stands.
func (k classView) Statuses() []bulkhead.ClassStatus {
	var out []bulkhead.ClassStatus
	for _, name := range k.classes.Names() {
		class, ok := k.classes.Class(name)
		if !ok {
			continue // gone meanwhile
		}
		st := bulkhead.ClassStatus{Name: name, Command: class.Command, Blocked: k.engine.Blocked(name)}
		for _, a := range k.engine.Agents(name) {
			if connected(a) {
				st.Workers++
				st.Slots += a.Slots
			}
		}
		if k.controller != nil { // then its workers are pods
			st.Objects = append([]bulkhead.ObjectCount{{Kind: "Pod", Count: st.Workers}}, class.Objects...)
		}
		for _, d := range k.engine.Demand(name) {
			st.Queued += d.Queued
			st.Running += d.Running
		}
		out = append(out, st)
	}
	return out
}
