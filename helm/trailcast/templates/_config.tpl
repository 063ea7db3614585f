{{/* trailcast's config: what it says, and what in it matters to Kubernetes. */}}

{{/* As YAML. The demo has one of its own. */}}
{{- define "trailcast.config" -}}
{{- if .Values.demo.enabled -}}
{{- $config := include "trailcast.demoConfig" . | fromYaml -}}
{{- merge $config (pick .Values.config "admin" "log" "memory") | toYaml -}}
{{- else -}}
{{- .Values.config | toYaml -}}
{{- end -}}
{{- end -}}

{{/* The port of `admin.listen`. */}}
{{- define "trailcast.port" -}}
{{- regexFind "[0-9]+$" .Values.config.admin.listen -}}
{{- end -}}

{{/* file, kafka or memory. */}}
{{- define "trailcast.checkpoint" -}}
{{- $checkpoint := default dict .Values.config.checkpoint -}}
{{- if hasKey $checkpoint "kafka" -}}kafka
{{- else if or .Values.demo.enabled (hasKey $checkpoint "memory") -}}memory
{{- else -}}file
{{- end -}}
{{- end -}}

{{/* The folders that trailcast writes to, a line each: of the checkpoint, of dead letters. */}}
{{- define "trailcast.folders" -}}
{{- $folders := list -}}
{{- if eq (include "trailcast.checkpoint" .) "file" -}}
{{- $folders = append $folders (dig "checkpoint" "file" "path" "/var/lib/trailcast/state" .Values.config) -}}
{{- end -}}
{{- with dig "dead_letters" "file" "path" "" .Values.config }}{{ $folders = append $folders . }}{{ end -}}
{{- join "\n" $folders -}}
{{- end -}}

{{/*
Finds in a config where secrets are, into lists of `found`: `env` and `file`, which name them, and `inline`, the places of
those that stand there. Takes value, at (its place) and found.
*/}}
{{- define "trailcast.find" -}}
{{- $found := .found -}}
{{- $at := .at -}}
{{- if kindIs "map" .value -}}
{{- range $key, $value := .value -}}
{{- $place := printf "%s.%s" $at $key -}}
{{- $whole := and (eq (len $.value) 1) (kindIs "string" $value) -}}
{{- if and $whole (eq $key "env") -}}
{{- $_ := set $found "env" (append $found.env $value) -}}
{{- else if and $whole (eq $key "file") -}}
{{- $_ := set $found "file" (append $found.file $value) -}}
{{- else if and (kindIs "string" $value) (hasSuffix "_file" $key) -}}
{{- $_ := set $found "file" (append $found.file $value) -}}
{{- else if and (kindIs "string" $value) (regexMatch "^(access_key_secret|private_key|password|key_password|token)$" $key) -}}
{{- $_ := set $found "inline" (append $found.inline $place) -}}
{{- else if and (kindIs "string" $value) (or (hasSuffix ".headers" $at) (hasSuffix ".properties" $at)) (regexMatch "(?i)(authorization|cookie|token|secret|password|key|jaas)" $key) -}}
{{- $_ := set $found "inline" (append $found.inline $place) -}}
{{- else if and (kindIs "string" $value) (regexMatch "://[^/]*@" $value) -}}
{{- $_ := set $found "inline" (append $found.inline $place) -}}
{{- else -}}
{{- include "trailcast.find" (dict "value" $value "at" $place "found" $found) -}}
{{- end -}}
{{- end -}}
{{- else if kindIs "slice" .value -}}
{{- range .value -}}
{{- include "trailcast.find" (dict "value" . "at" $at "found" $found) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The port of a URL, or what its scheme says. */}}
{{- define "trailcast.portOf" -}}
{{- $host := (urlParse .).host -}}
{{- $port := regexFind ":[0-9]+$" $host | trimPrefix ":" -}}
{{- if $port }}{{ $port }}{{ else if hasPrefix "http://" . }}80{{ else }}443{{ end -}}
{{- end -}}

{{/* The TCP ports that the config has trailcast connect to, and those that the values add, ascending, with commas between. */}}
{{- define "trailcast.egressPorts" -}}
{{- $ports := list -}}
{{- range .Values.networkPolicy.egressPorts }}{{ $ports = append $ports (int .) }}{{ end -}}
{{- $brokers := dig "checkpoint" "kafka" "brokers" list .Values.config -}}
{{- range .Values.config.streams -}}
{{- $source := default (default dict .scloud) .genauth -}}
{{- $ports = append $ports (include "trailcast.portOf" (default "https://" $source.endpoint) | int) -}}
{{- end -}}
{{- range .Values.config.sinks -}}
{{- $brokers = concat $brokers (dig "kafka" "brokers" list .) -}}
{{- with dig "otlp" "endpoint" "" . }}{{ $ports = append $ports (include "trailcast.portOf" . | int) }}{{ end -}}
{{- end -}}
{{- with dig "traces" "otlp" "endpoint" "" .Values.config }}{{ $ports = append $ports (include "trailcast.portOf" . | int) }}{{ end -}}
{{- range $brokers }}{{ $ports = append $ports (regexFind "[0-9]+$" . | int) }}{{ end -}}
{{- /* An address without a port is for trailcast to refuse; here none would mean all. */ -}}
{{- $padded := list -}}
{{- range without ($ports | uniq) 0 }}{{ $padded = append $padded (printf "%05d" .) }}{{ end -}}
{{- $out := list -}}
{{- range $padded | sortAlpha }}{{ $out = append $out (regexReplaceAll "^0+" . "") }}{{ end -}}
{{- join "," $out -}}
{{- end -}}
