{{/* Names, labels and the image. */}}

{{- define "trailcast.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{/* 52 characters: what the StatefulSet adds for its revisions must fit into a label, which holds 63. */}}
{{- define "trailcast.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- $name = .Values.fullnameOverride -}}
{{- else if not (contains $name .Release.Name) -}}
{{- $name = printf "%s-%s" .Release.Name $name -}}
{{- else -}}
{{- $name = .Release.Name -}}
{{- end -}}
{{- $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{/* What all pods of a release have in common. Never changes: a StatefulSet's selector cannot. */}}
{{- define "trailcast.releaseLabels" -}}
app.kubernetes.io/name: {{ include "trailcast.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* And those that run trailcast, apart from the pod of `helm test`. */}}
{{- define "trailcast.selectorLabels" -}}
{{ include "trailcast.releaseLabels" . }}
app.kubernetes.io/component: exporter
{{- end -}}

{{- define "trailcast.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "trailcast.releaseLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "trailcast.image" -}}
{{- $registry := default .Values.image.registry .Values.global.imageRegistry -}}
{{- with $registry }}{{ . }}/{{ end -}}
{{- .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag -}}
{{- with .Values.image.digest }}@{{ . }}{{ end -}}
{{- end -}}

{{- define "trailcast.imagePullSecrets" -}}
{{- $names := concat .Values.global.imagePullSecrets .Values.imagePullSecrets | uniq -}}
{{- if $names -}}
imagePullSecrets:
{{- range $names }}
  - name: {{ . | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "trailcast.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "trailcast.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{ default "default" .Values.serviceAccount.name }}
{{- end -}}
{{- end -}}

{{/* Whether to render an object of the Prometheus Operator: "true" or nothing. Takes root, kind and policy. */}}
{{- define "trailcast.hasCrd" -}}
{{- $known := .root.Capabilities.APIVersions.Has (printf "monitoring.coreos.com/v1/%s" .kind) -}}
{{- if or $known (eq .policy "alwaysRender") -}}
true
{{- else if eq .policy "failIfMissing" -}}
{{- fail (printf "%s is enabled, and the cluster does not know monitoring.coreos.com/v1: install the Prometheus Operator, or set its crdPolicy to skipIfMissing, or to alwaysRender where no cluster is asked (helm template)" .kind) -}}
{{- end -}}
{{- end -}}
