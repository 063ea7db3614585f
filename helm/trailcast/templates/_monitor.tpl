{{/* A ServiceMonitor or a PodMonitor. Takes root, kind, endpoints (what the kind calls them) and the values of either. */}}
{{- define "trailcast.monitor" -}}
{{- with .values }}
{{- if and .enabled (include "trailcast.hasCrd" (dict "root" $.root "kind" $.kind "policy" .crdPolicy)) }}
apiVersion: monitoring.coreos.com/v1
kind: {{ $.kind }}
metadata:
  name: {{ include "trailcast.fullname" $.root }}
  labels:
    {{- include "trailcast.labels" $.root | nindent 4 }}
    {{- with .labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  selector:
    matchLabels:
      {{- include "trailcast.selectorLabels" $.root | nindent 6 }}
  {{ $.endpoints }}:
    - port: admin
      path: /metrics
      {{- with .interval }}
      interval: {{ . }}
      {{- end }}
      {{- with .scrapeTimeout }}
      scrapeTimeout: {{ . }}
      {{- end }}
      {{- with .relabelings }}
      relabelings:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .metricRelabelings }}
      metricRelabelings:
        {{- toYaml . | nindent 8 }}
      {{- end }}
{{- end }}
{{- end }}
{{- end -}}
