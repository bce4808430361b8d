{{- /* The functions used here are Helm's; those that kube/chart knows too. */ -}}
{{- define "bulkhead.selector" -}}
app.kubernetes.io/name: bulkhead
app.kubernetes.io/component: server
{{- end }}

{{- define "bulkhead.labels" -}}
{{ include "bulkhead.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- /* What is the cluster's, and one for each installation. */ -}}
{{- define "bulkhead.clusterName" -}}
bulkhead-server-{{ .Release.Namespace }}
{{- end }}

{{- define "bulkhead.image" -}}
{{- $tag := .Values.image.tag | default .Chart.AppVersion -}}
{{ .Values.image.repository }}{{ if hasPrefix "sha256:" $tag }}@{{ else }}:{{ end }}{{ $tag }}
{{- end }}

{{- /* kube.Rules: all that the server may do in the namespaces of its classes. */ -}}
{{- define "bulkhead.rules" -}}
- apiGroups: [bulkhead.dev]
  resources: [scriptclasses]
  verbs: [list, watch]
- apiGroups: [bulkhead.dev]
  resources: [scriptclasses/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, create, delete]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [list, watch, create, patch]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
{{- end }}

{{- define "bulkhead.server" -}}
- kind: ServiceAccount
  name: bulkhead
  namespace: {{ .Release.Namespace }}
{{- end }}
