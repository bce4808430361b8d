// Command ruletemplate makes the alert rules of the guard, its standard input, a
// template of the chart: a PrometheusRule.
package main

import (
	"fmt"
	"io"
	"os"
	"strings"
)

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "ruletemplate:", err)
		os.Exit(1) //nolint:forbidigo // it is a program
	}
}

const head = `{{- /* By go generate from guard/tell, whose rules are tested. */ -}}
{{- if and .Values.guard.enabled .Values.guard.prometheusRule.enabled -}}
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: bulkhead-guard
  namespace: {{ .Release.Namespace }}
  labels:
    {{- include "bulkhead.labels" . | nindent 4 }}
    {{- range $name, $value := .Values.guard.prometheusRule.labels }}
    {{ $name }}: {{ $value | quote }}
    {{- end }}
spec:
`

func run(in io.Reader, out io.Writer) error {
	rules, err := io.ReadAll(in)
	if err != nil {
		return err
	}
	// What Prometheus fills in is not for Helm.
	text := strings.ReplaceAll(string(rules), "{{", `{{ "{{" }}`)
	var b strings.Builder
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		b.WriteString("  " + line)
	}
	_, err = fmt.Fprintf(out, "%s%s{{- end }}\n", head, &b)
	return err
}
