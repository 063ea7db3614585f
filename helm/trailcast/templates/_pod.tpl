{{/* What the StatefulSet's pod and that of `helm test` have in common. */}}

{{- define "trailcast.env" -}}
{{- if .Values.demo.enabled }}
{{ include "trailcast.demoEnv" . }}
{{- end }}
{{- range $name, $from := .Values.secrets.env }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef:
      name: {{ $from.existingSecret | quote }}
      key: {{ $from.key | quote }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Whether there are secret files. */}}
{{- define "trailcast.hasFiles" -}}
{{- with .Values.secrets -}}
{{- if or .existingSecret .files .inline }}true{{ end -}}
{{- end -}}
{{- end -}}

{{- define "trailcast.mounts" -}}
- name: config
  mountPath: /etc/trailcast
  readOnly: true
{{- if include "trailcast.hasFiles" . }}
- name: secrets
  mountPath: {{ .Values.secrets.mountPath }}
  readOnly: true
{{- end }}
{{- if include "trailcast.folders" . }}
- name: state
  mountPath: {{ .Values.persistence.mountPath }}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* All but `state`. Whole folders, since a file that is mounted alone (subPath) would not change with its Secret. */}}
{{- define "trailcast.volumes" -}}
- name: config
  configMap:
    name: {{ include "trailcast.fullname" . }}
{{- if include "trailcast.hasFiles" . }}
- name: secrets
  projected:
    # For the group of `fsGroup`, and nobody else.
    defaultMode: 0440
    sources:
      {{- with .Values.secrets.existingSecret }}
      - secret:
          name: {{ . | quote }}
      {{- end }}
      {{- range $name, $from := .Values.secrets.files }}
      - secret:
          name: {{ $from.existingSecret | quote }}
          items:
            - key: {{ $from.key | quote }}
              path: {{ $name | quote }}
      {{- end }}
      {{- if .Values.secrets.inline }}
      - secret:
          name: {{ include "trailcast.fullname" . }}
      {{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "trailcast.placement" -}}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . | quote }}
{{- end }}
{{- with .Values.dnsPolicy }}
dnsPolicy: {{ . }}
{{- end }}
{{- with .Values.dnsConfig }}
dnsConfig:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
