{{- define "chopmark.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* Short enough for what is added to it. */}}
{{- define "chopmark.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "chopmark.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "chopmark.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* Labels by which pods are found: (list $ "gateway"). */}}
{{- define "chopmark.selector" -}}
{{- $ := index . 0 -}}
app.kubernetes.io/name: {{ include "chopmark.name" $ }}
app.kubernetes.io/instance: {{ $.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "chopmark.labels" -}}
{{- $ := index . 0 -}}
{{ include "chopmark.selector" . }}
app.kubernetes.io/version: {{ $.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $.Chart.Name $.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "chopmark.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ printf "%s@%s" .repository .digest | quote }}
{{- else -}}
{{ printf "%s:%s" .repository (default $.Chart.AppVersion .tag) | quote }}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "chopmark.genesisConfigMap" -}}
{{- if .Values.network.genesis -}}
{{ include "chopmark.fullname" . }}-genesis
{{- else -}}
{{ .Values.network.genesisConfigMap }}
{{- end -}}
{{- end }}

{{/* Of every pod; nothing of ours asks Kubernetes for anything. */}}
{{- define "chopmark.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  # The group may read mounted Secrets, which belong to root; volumes are not walked again at each start.
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- define "chopmark.container" -}}
image: {{ include "chopmark.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  runAsNonRoot: true
  readOnlyRootFilesystem: true
  allowPrivilegeEscalation: false
  privileged: false
  capabilities: {drop: [ALL]}
{{- end }}

{{/* Where a pod may run: (list $ COMPONENT VALUES). */}}
{{- define "chopmark.placement" -}}
{{- $selector := include "chopmark.selector" (list (index . 0) (index . 1)) -}}
{{- with index . 2 -}}
{{- if .topologySpread }}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- $selector | nindent 8 }}
  {{- end }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{/* Copies a mounted Secret for a role: the binary refuses files that a group can read, and a Secret's files
     belong to root (docs/adr/0021). The copy is in memory, and the role's own container cannot write to it. */}}
{{- define "chopmark.secretsInit" -}}
- name: secrets
  {{- include "chopmark.container" . | nindent 2 }}
  command: [sh, -euc]
  args:
    - |
      umask 077
      mkdir -p /run/chopmark/secrets
      for file in /mnt/secret/*; do install -m 0600 "$file" "/run/chopmark/secrets/${file##*/}"; done
  resources: {{- include "chopmark.initResources" . | nindent 4 }}
  volumeMounts:
    - {name: secret, mountPath: /mnt/secret, readOnly: true}
    - {name: private, mountPath: /run/chopmark}
{{- end }}

{{- define "chopmark.initResources" -}}
requests: {cpu: 10m, memory: 16Mi}
limits: {cpu: 500m, memory: 64Mi}
{{- end }}

{{/* Volumes of a role over chopmark.toml: (list $ "gateway" SECRET). */}}
{{- define "chopmark.roleVolumes" -}}
{{- $ := index . 0 -}}
- name: secret
  secret: {secretName: {{ index . 2 }}, defaultMode: 0400}
- name: private
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
- name: tmp
  emptyDir: {sizeLimit: 16Mi}
- name: config
  configMap: {name: {{ include "chopmark.fullname" $ }}-{{ index . 1 }}}
- name: genesis
  configMap: {name: {{ include "chopmark.genesisConfigMap" $ }}}
{{- with $.Values.certificatesConfigMap }}
- name: certificates
  configMap: {name: {{ . }}}
{{- end }}
{{- end }}

{{- define "chopmark.roleMounts" -}}
- {name: config, mountPath: /etc/chopmark/config, readOnly: true}
- {name: genesis, mountPath: /etc/chopmark/genesis, readOnly: true}
- {name: private, mountPath: /run/chopmark, readOnly: true}
- {name: tmp, mountPath: /tmp}
{{- if .Values.certificatesConfigMap }}
- {name: certificates, mountPath: /etc/chopmark/certificates, readOnly: true}
{{- end }}
{{- end }}

{{/* Tables of chopmark.toml that gateways, committers and couriers share; strings and lists of JSON are TOML's. */}}
{{- define "chopmark.toml" -}}
{{- $nodes := .Values.network.nodes -}}
{{- if .Values.node.enabled -}}
{{- $nodes = prepend $nodes (printf "http://%s-node:26602" (include "chopmark.fullname" .)) | uniq -}}
{{- end -}}
{{- if not $nodes }}{{ fail "network.nodes: name at least one node, or run one (node.enabled)" }}{{ end -}}
[ledger]
genesis = "/etc/chopmark/genesis/genesis.json"
nodes = {{ toJson $nodes }}
submitter_key_file = "/run/chopmark/secrets/submitter.pem"

[kafka]
brokers = {{ toJson .Values.kafka.brokers }}
partitions = {{ int .Values.kafka.partitions }}
replicas = {{ int .Values.kafka.replicas }}
min_insync_replicas = {{ int .Values.kafka.minInsyncReplicas }}
retention_hours_min = {{ int .Values.kafka.retentionHoursMin }}
create_topics = {{ .Values.kafka.createTopics }}
compression = {{ toJson .Values.kafka.compression }}
{{- if .Values.kafka.tls.enabled }}

[kafka.tls]
{{- with .Values.kafka.tls.ca }}
ca = {{ printf "/etc/chopmark/certificates/%s" . | toJson }}
{{- end }}
{{- if .Values.kafka.tls.clientCertificate }}
certificate = "/run/chopmark/secrets/kafka.crt"
key = "/run/chopmark/secrets/kafka.key"
{{- end }}
{{- end }}
{{- if .Values.kafka.sasl.mechanism }}

[kafka.sasl]
mechanism = {{ toJson .Values.kafka.sasl.mechanism }}
user = {{ toJson .Values.kafka.sasl.user }}
password_file = "/run/chopmark/secrets/kafka.password"
{{- end }}

[database]
url_file = "/run/chopmark/secrets/database.url"

[cache]
url_file = "/run/chopmark/secrets/cache.url"

[secrets]
key_encryption_key_file = "/run/chopmark/secrets/kek.key"
ids_key_file = "/run/chopmark/secrets/ids.key"
api_keys_key_file = "/run/chopmark/secrets/api-keys.key"
{{- end }}

{{/* Where webhooks may go, for gateways and couriers. */}}
{{- define "chopmark.webhooks" -}}
{{- with .Values.webhooks.allowedNetworks }}

[webhooks]
allowed_networks = {{ toJson . }}
{{- end }}
{{- end }}

{{/* (list $ COMPONENT INGRESS-VALUES SERVICE PORT-NAME) */}}
{{- define "chopmark.ingress" -}}
{{- $ := index . 0 -}}
{{- $ingress := index . 2 -}}
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {{ include "chopmark.fullname" $ }}-{{ index . 1 }}
  labels: {{- include "chopmark.labels" (list $ (index . 1)) | nindent 4 }}
  {{- with $ingress.annotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- with $ingress.className }}
  ingressClassName: {{ . }}
  {{- end }}
  {{- with $ingress.tlsSecret }}
  tls:
    - hosts: [{{ $ingress.host | quote }}]
      secretName: {{ . }}
  {{- end }}
  rules:
    - host: {{ $ingress.host | quote }}
      http:
        paths:
          - path: /
            pathType: Prefix
            backend:
              service:
                name: {{ include "chopmark.fullname" $ }}-{{ index . 1 }}
                port: {name: {{ index . 3 }}}
{{- end }}

{{/* (list $ COMPONENT BUDGET) */}}
{{- define "chopmark.budget" -}}
{{- $ := index . 0 -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "chopmark.fullname" $ }}-{{ index . 1 }}
  labels: {{- include "chopmark.labels" (list $ (index . 1)) | nindent 4 }}
spec:
  maxUnavailable: {{ (index . 2).maxUnavailable }}
  # One that is not well must not keep a machine from being drained.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{- include "chopmark.selector" (list $ (index . 1)) | nindent 6 }}
{{- end }}
