// Command crdtemplate makes the definition of ScriptClass, its standard input, a
// template of the chart.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "crdtemplate:", err)
		os.Exit(1) //nolint:forbidigo // it is a program
	}
}

// Where the annotations of the definition begin, and what is added there.
const (
	annotations = "\n  annotations:\n"
	keep        = "    {{- if .Values.crd.keep }}\n    helm.sh/resource-policy: keep\n    {{- end }}\n"
)

func run(in io.Reader, out io.Writer) error {
	crd, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	if bytes.Contains(crd, []byte("{{")) {
		return errors.New("the definition has {{ in it, which a template would take for its own")
	}
	head, tail, found := bytes.Cut(crd, []byte(annotations))
	if !found {
		return errors.New("the definition has no annotations")
	}
	head = bytes.TrimPrefix(head, []byte("---\n"))
	_, err = fmt.Fprintf(out, "{{- /* By go generate from kube/crd, so that an upgrade changes it: those in the folder crds it would not. */ -}}\n"+
		"{{- if .Values.crd.install -}}\n%s%s%s%s{{- end }}\n", head, annotations, keep, tail)
	return err
}
