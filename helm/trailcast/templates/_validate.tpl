{{/*
Contradictions that a schema cannot see. Fails with all of them at once. That the config itself is right is the program's
matter: `trailcast check --offline`.
*/}}
{{- define "trailcast.validate" -}}
{{- $wrong := list -}}
{{- $config := .Values.config -}}
{{- $checkpoint := include "trailcast.checkpoint" . -}}
{{- $replicas := int .Values.replicas -}}

{{- if .Values.demo.enabled -}}
{{- if or $config.streams $config.sinks $config.checkpoint -}}
{{- $wrong = append $wrong "demo.enabled brings a config of its own: take streams, sinks and checkpoint out of `config`, or switch the demo off" -}}
{{- end -}}
{{- if gt $replicas 1 -}}
{{- $wrong = append $wrong "demo.enabled runs one replica: leave `replicas` at 1" -}}
{{- end -}}
{{- else if or (not $config.streams) (not $config.sinks) -}}
{{- $wrong = append $wrong "config.streams and config.sinks are required: what to read, and where to deliver it. To try it with simulated events: --set demo.enabled=true" -}}
{{- end -}}

{{- if and (gt $replicas 1) (ne $checkpoint "kafka") -}}
{{- $wrong = append $wrong (printf "%d replicas need config.checkpoint.kafka: with the checkpoint in %s each would deliver every event" $replicas (ternary "a file" "memory" (eq $checkpoint "file"))) -}}
{{- end -}}
{{- range $name, $sink := $config.sinks -}}
{{- if and (dig "kafka" "exactly_once" false $sink) (ne $checkpoint "kafka") -}}
{{- $wrong = append $wrong (printf "config.sinks.%s.kafka.exactly_once needs config.checkpoint.kafka on the same cluster" $name) -}}
{{- end -}}
{{- end -}}
{{- if dig "checkpoint" "kafka" "instance_id" "" $config -}}
{{- $wrong = append $wrong "config.checkpoint.kafka.instance_id would be the same in all pods: leave it out, and each goes by its own name" -}}
{{- end -}}

{{- $listen := $config.admin.listen -}}
{{- if or (hasPrefix "127." $listen) (hasPrefix "[::1]" $listen) (hasPrefix "localhost" $listen) -}}
{{- $wrong = append $wrong (printf "config.admin.listen is %s, where neither probes nor Prometheus reach it: use 0.0.0.0:PORT or [::]:PORT" $listen) -}}
{{- end -}}
{{- if not (int (include "trailcast.port" .)) -}}
{{- $wrong = append $wrong "config.admin.listen needs a port that is not 0" -}}
{{- end -}}

{{- range splitList "\n" (include "trailcast.folders" .) -}}
{{- if and . (not (hasPrefix (printf "%s/" $.Values.persistence.mountPath) .)) -}}
{{- $wrong = append $wrong (printf "%s lies outside of the volume: it must be below persistence.mountPath (%s)" . $.Values.persistence.mountPath) -}}
{{- end -}}
{{- end -}}

{{- $found := dict "env" list "file" list "inline" list -}}
{{- include "trailcast.find" (dict "value" $config "at" "config" "found" $found) -}}
{{- range $found.inline -}}
{{- $wrong = append $wrong (printf "%s holds a secret, and a ConfigMap is no place for it: bring a file with `secrets`, and name it where the config takes { file: %s/NAME }" . $.Values.secrets.mountPath) -}}
{{- end -}}
{{- $variables := keys .Values.secrets.env -}}
{{- range .Values.extraEnv }}{{ $variables = append $variables .name }}{{ end -}}
{{- range $found.env | uniq -}}
{{- if not (or (has . $variables) $.Values.extraEnvFrom) -}}
{{- $wrong = append $wrong (printf "config names the environment variable %s, and neither secrets.env nor extraEnv has it" .) -}}
{{- end -}}
{{- end -}}
{{- $files := concat (keys .Values.secrets.files) (keys .Values.secrets.inline) -}}
{{- $below := printf "%s/" .Values.secrets.mountPath -}}
{{- range $found.file | uniq -}}
{{- if and (hasPrefix $below .) (not $.Values.secrets.existingSecret) (not (has (trimPrefix $below .) $files)) -}}
{{- $wrong = append $wrong (printf "config names the file %s, and secrets has none of that name" .) -}}
{{- end -}}
{{- end -}}
{{- range keys .Values.secrets.inline -}}
{{- if hasKey $.Values.secrets.files . -}}
{{- $wrong = append $wrong (printf "secrets.files and secrets.inline both have %s" .) -}}
{{- end -}}
{{- end -}}
{{- range keys .Values.secrets.env -}}
{{- range $.Values.extraEnv -}}
{{- if hasKey $.Values.secrets.env .name -}}
{{- $wrong = append $wrong (printf "secrets.env and extraEnv both have %s" .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- if and .Values.metrics.serviceMonitor.enabled .Values.metrics.podMonitor.enabled -}}
{{- $wrong = append $wrong "metrics.serviceMonitor and metrics.podMonitor would scrape each pod twice: enable one" -}}
{{- end -}}
{{- with .Values.podDisruptionBudget -}}
{{- if and .enabled (or (eq (toString .minAvailable) "100%") (ge (int .minAvailable) $replicas)) -}}
{{- $wrong = append $wrong (printf "podDisruptionBudget.minAvailable %v of %d replicas would block every drain of a node" .minAvailable $replicas) -}}
{{- end -}}
{{- end -}}

{{- if $wrong -}}
{{- fail (printf "\n\nthese values contradict themselves:\n  - %s\n" ($wrong | uniq | join "\n  - ")) -}}
{{- end -}}
{{- end -}}
