{{/* The demo: simulated APIs in the same pod. Its keys are the simulator's own, known to everybody: they open nothing. */}}

{{- define "trailcast.demoConfig" -}}
streams:
  users:
    genauth:
      endpoint: http://127.0.0.1:8080
      user_pool_id: 65f0a1b2c3d4e5f60718293a
      access_key_id: 65f0a1b2c3d4e5f607182940
      access_key_secret: { env: SIMULATED_ACCESS_KEY_SECRET }
    start: 1m
    poll_interval: 1s
    request_timeout: 3s
    sweeps: [5s, 20s]
  cloud:
    scloud:
      endpoint: http://127.0.0.1:8080
      project_id: org-trailcast
      public_key: demo@example.com1296235120854146120
      private_key: { env: SIMULATED_PRIVATE_KEY }
    start: 1m
    poll_interval: 1s
    request_timeout: 3s
    sweeps: [5s, 20s]
sinks:
  out:
    stdout: {}
checkpoint:
  memory: {}
{{- end -}}

{{- define "trailcast.demoEnv" -}}
- name: SIMULATED_ACCESS_KEY_SECRET
  value: 6f2b8c1d9e0a4735b6c8d1e2f3a4b5c6
- name: SIMULATED_PRIVATE_KEY
  value: 46f09bb9fab4f12dfc160dae12273d5332b5debe
{{- end -}}

{{- define "trailcast.demoContainer" -}}
- name: simulator-demo
  image: {{ include "trailcast.image" . | quote }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  args:
    - simulate
    - --listen
    - 127.0.0.1:8080
    - --start
    - 1m
    - --rate
    - {{ .Values.demo.rate | quote }}
    {{- if .Values.demo.faults }}
    - --faults
    - --hang-for
    - 5s
    {{- end }}
  securityContext:
    {{- toYaml .Values.securityContext | nindent 4 }}
  resources:
    {{- toYaml .Values.resources | nindent 4 }}
{{- end -}}
