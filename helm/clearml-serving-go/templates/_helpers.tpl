{{- define "cs.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "cs.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "cs.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "cs.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "cs.selector" -}}
app.kubernetes.io/name: {{ include "cs.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end }}

{{- define "cs.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: clearml-serving
{{ include "cs.selector" . }}
{{- end }}

{{- define "cs.component" -}}
{{- printf "%s-%s" (include "cs.fullname" .root) .name }}
{{- end }}

{{- define "cs.image" -}}
{{- printf "%s:%s" .values.image.repository (default .root.Chart.AppVersion .values.image.tag) }}
{{- end }}

{{- define "cs.serviceAccount" -}}
{{- with .values.serviceAccount }}
{{- if .create }}{{ default (include "cs.component" $) .name }}{{ else }}{{ default "default" .name }}{{ end }}
{{- else }}default{{- end }}
{{- end }}

{{- define "cs.keysSecret" -}}
{{- default (printf "%s-keys" (include "cs.fullname" .)) .Values.clearml.existingSecret }}
{{- end }}

{{- define "cs.adminSecret" -}}
{{- default (printf "%s-admin" (include "cs.fullname" .)) .Values.adminToken.existingSecret }}
{{- end }}

{{- define "cs.apiHost" -}}
{{- if .Values.server.enabled }}{{ printf "http://%s-server:%v" (include "cs.fullname" .) .Values.server.service.port }}{{ else }}{{ .Values.clearml.apiHost }}{{ end }}
{{- end }}

{{- define "cs.filesHost" -}}
{{- if .Values.server.enabled }}{{ printf "http://%s-server:%v" (include "cs.fullname" .) .Values.server.service.filesPort }}{{ else }}{{ .Values.clearml.filesHost }}{{ end }}
{{- end }}

{{/* cs.serves: whether instances ask a ClearML server. */}}
{{- define "cs.serves" -}}
{{- if not .Values.inference.folder }}yes{{ end }}
{{- end }}

{{/* cs.keyed: whether some pod has the keys of the ClearML server, or is that server. */}}
{{- define "cs.keyed" -}}
{{- if or .Values.server.enabled .Values.statistics.enabled (and .Values.inference.enabled (include "cs.serves" .)) }}yes{{ end }}
{{- range .Values.engines }}{{ if .role }}yes{{ end }}{{ end }}
{{- end }}

{{/* The connection to the ClearML server, for instances, statistics and engines. */}}
{{- define "cs.clearmlEnv" -}}
- name: CLEARML_API_HOST
  value: {{ include "cs.apiHost" . | quote }}
- name: CLEARML_WEB_HOST
  value: {{ default (include "cs.apiHost" .) .Values.clearml.webHost | quote }}
- name: CLEARML_FILES_HOST
  value: {{ include "cs.filesHost" . | quote }}
- name: CLEARML_API_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ include "cs.keysSecret" . }}, key: {{ .Values.clearml.accessKeyName }}}}
- name: CLEARML_API_SECRET_KEY
  valueFrom: {secretKeyRef: {name: {{ include "cs.keysSecret" . }}, key: {{ .Values.clearml.secretKeyName }}}}
{{- with concat .Values.clearml.filesAliases (compact (list (ternary .Values.server.filesUrl "" .Values.server.enabled))) }}
- name: CLEARML_SERVING_FILES_ALIASES
  value: {{ join "," . | quote }}
{{- end }}
{{- with .Values.clearml.serviceId }}
- name: CLEARML_SERVING_TASK_ID
  value: {{ . | quote }}
{{- end }}
- name: CLEARML_SERVING_POLL_FREQ
  value: {{ .Values.clearml.pollMinutes | quote }}
{{- end }}

{{- define "cs.kafkaEnv" -}}
{{- with .Values.kafka }}
{{- if .servers }}
- name: CLEARML_DEFAULT_KAFKA_SERVE_URL
  value: {{ .servers | quote }}
{{- if .tls }}
- name: CLEARML_SERVING_KAFKA_TLS
  value: "true"
{{- end }}
{{- if .tlsSecret }}
- name: CLEARML_SERVING_KAFKA_CA
  value: /etc/clearml-serving/kafka/ca.crt
- name: CLEARML_SERVING_KAFKA_CERT
  value: /etc/clearml-serving/kafka/tls.crt
- name: CLEARML_SERVING_KAFKA_KEY
  value: /etc/clearml-serving/kafka/tls.key
{{- end }}
{{- with .sasl }}
{{- if .mechanism }}
- name: CLEARML_SERVING_KAFKA_SASL
  value: {{ .mechanism | quote }}
- name: CLEARML_SERVING_KAFKA_USER
  valueFrom: {secretKeyRef: {name: {{ .existingSecret }}, key: {{ .userKey }}}}
- name: CLEARML_SERVING_KAFKA_PASSWORD
  valueFrom: {secretKeyRef: {name: {{ .existingSecret }}, key: {{ .passwordKey }}}}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "cs.prometheusEnv" -}}
{{- with .Values.prometheus }}
{{- if .url }}
- name: CLEARML_SERVING_PROMETHEUS_URL
  value: {{ .url | quote }}
{{- if .existingSecret }}
- name: CLEARML_SERVING_PROMETHEUS_TOKEN
  valueFrom: {secretKeyRef: {name: {{ .existingSecret }}, key: {{ .tokenKey }}}}
{{- end }}
{{- end }}
{{- if .remoteWriteUrl }}
- name: CLEARML_SERVING_REMOTE_WRITE_URL
  value: {{ .remoteWriteUrl | quote }}
{{- if .existingSecret }}
- name: CLEARML_SERVING_REMOTE_WRITE_TOKEN
  valueFrom: {secretKeyRef: {name: {{ .existingSecret }}, key: {{ .tokenKey }}}}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "cs.adminEnv" -}}
- name: CLEARML_SERVING_ADMIN_TOKEN
  valueFrom: {secretKeyRef: {name: {{ include "cs.adminSecret" . }}, key: {{ .Values.adminToken.key }}}}
{{- end }}

{{- define "cs.configVolumes" -}}
{{- with .Values.clearml.configSecret }}
- name: clearml-conf
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- with .Values.kafka.tlsSecret }}
- name: kafka-tls
  secret: {secretName: {{ . }}, defaultMode: 0440}
{{- end }}
{{- end }}

{{- define "cs.configEnv" -}}
{{- if .Values.clearml.configSecret }}
- name: CLEARML_CONFIG_FILE
  value: /etc/clearml-serving/clearml.conf
{{- end }}
{{- end }}

{{- define "cs.configMounts" -}}
{{- if .Values.clearml.configSecret }}
- {name: clearml-conf, mountPath: /etc/clearml-serving/clearml.conf, subPath: {{ .Values.clearml.configSecretKey }}, readOnly: true}
{{- end }}
{{- if .Values.kafka.tlsSecret }}
- {name: kafka-tls, mountPath: /etc/clearml-serving/kafka, readOnly: true}
{{- end }}
{{- end }}

{{/* Everything of a pod that is the same for all components. */}}
{{- define "cs.podMetadata" -}}
# Without the chart's version: pods are not replaced when only that changes.
labels:
  app.kubernetes.io/part-of: clearml-serving
  {{- include "cs.selector" . | nindent 2 }}
  {{- with merge (dict) (default (dict) .values.podLabels) .root.Values.global.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with merge (dict) (default (dict) .values.podAnnotations) .root.Values.global.podAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "cs.podCommon" -}}
{{- $global := .root.Values.global -}}
serviceAccountName: {{ include "cs.serviceAccount" . }}
automountServiceAccountToken: {{ dig "serviceAccount" "automountToken" false .values }}
# Variables of other services of the namespace would be taken for settings.
enableServiceLinks: false
terminationGracePeriodSeconds: {{ default 30 .values.terminationGracePeriodSeconds }}
{{- with $global.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- $security := dict "runAsNonRoot" true "runAsUser" 10001 "runAsGroup" 10001 "fsGroup" 10001 "fsGroupChangePolicy" "OnRootMismatch" "seccompProfile" (dict "type" "RuntimeDefault") }}
  {{- toYaml (mergeOverwrite $security (default (dict) .values.podSecurityContext)) | nindent 2 }}
{{- with merge (dict) (default (dict) .values.nodeSelector) $global.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with concat (default (list) .values.tolerations) $global.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with default $global.affinity .values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- $spread := default (list) .values.topologySpreadConstraints }}
{{- if dig "topologySpread" "enabled" false .values }}
{{- range .values.topologySpread.keys }}
{{- $spread = append $spread (dict "maxSkew" 1 "topologyKey" . "whenUnsatisfiable" "ScheduleAnyway" "labelSelector" (dict "matchLabels" (include "cs.selector" $ | fromYaml))) }}
{{- end }}
{{- end }}
{{- with $spread }}
topologySpreadConstraints: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with default $global.priorityClassName .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .values.hostAliases }}
hostAliases: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.dnsConfig }}
dnsConfig: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.initContainers }}
initContainers: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "cs.containerSecurity" -}}
{{- $security := dict "allowPrivilegeEscalation" false "readOnlyRootFilesystem" true "capabilities" (dict "drop" (list "ALL")) }}
{{- toYaml (mergeOverwrite $security (default (dict) .values.securityContext)) }}
{{- end }}

{{- define "cs.containerCommon" -}}
image: {{ include "cs.image" . | quote }}
imagePullPolicy: {{ .values.image.pullPolicy }}
securityContext:
  {{- include "cs.containerSecurity" . | nindent 2 }}
{{- with .values.resources }}
resources: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.extraEnvFrom }}
envFrom: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "cs.extraEnv" -}}
{{- with concat .root.Values.global.extraEnv (default (list) .values.extraEnv) }}
{{- toYaml . }}
{{- end }}
{{- end }}

{{/* A pod that dies because of a missing key tells its reason in a log that nobody reads: tell it before. */}}
{{- define "cs.check" -}}
{{- $v := .Values }}
{{- if and (not $v.server.enabled) (include "cs.keyed" .) (not $v.clearml.apiHost) }}
{{- fail "clearml.apiHost: give the address of your ClearML server, or set server.enabled=true for the embedded one, or inference.folder for none" }}
{{- end }}
{{- if and $v.server.enabled (or $v.clearml.apiHost $v.clearml.filesHost) }}
{{- fail "clearml.apiHost: pods ask the server of this chart, so clearml.apiHost and clearml.filesHost have no effect: leave them out, or set server.enabled=false" }}
{{- end }}
{{- if and (not $v.server.enabled) (include "cs.keyed" .) (not $v.clearml.existingSecret) (or (not $v.clearml.accessKey) (not $v.clearml.secretKey)) }}
{{- fail "clearml.existingSecret: the ClearML server is not that of this chart, so give a secret with its keys, or clearml.accessKey and clearml.secretKey" }}
{{- end }}
{{- if and $v.server.enabled (gt (int $v.server.replicas) 1) (not (or $v.server.database.url $v.server.database.existingSecret)) }}
{{- fail "server.replicas: more than one needs server.database (PostgreSQL); with a file as its database the server runs once" }}
{{- end }}
{{- if and $v.server.enabled (gt (int $v.server.replicas) 1) (not $v.server.filesDestination) (or (ne (first $v.server.persistence.accessModes) "ReadWriteMany") (not $v.server.persistence.enabled) (not $v.server.persistence.existingClaim)) }}
{{- fail "server.replicas: more than one needs server.filesDestination (s3://…, gs://…, azure://…), or a volume that all of them have: persistence.existingClaim with accessModes [ReadWriteMany]" }}
{{- end }}
{{- if and $v.statistics.enabled (not $v.kafka.servers) }}
{{- fail "kafka.servers: the statistics service counts messages of Kafka: give its brokers, or set statistics.enabled=false" }}
{{- end }}
{{- if and $v.kafka.sasl.mechanism (not $v.kafka.sasl.existingSecret) }}
{{- fail "kafka.sasl.existingSecret: give a secret with the user and the password" }}
{{- end }}
{{- if and $v.inference.autoscaling.enabled (eq (toString $v.inference.autoscaling.cpu) "0") (eq (toString $v.inference.autoscaling.requestsInFlight) "0") }}
{{- fail "inference.autoscaling: give cpu or requestsInFlight; there is nothing to scale by" }}
{{- end }}
{{- if and $v.inference.autoscaling.enabled $v.inference.keda.enabled }}
{{- fail "inference.autoscaling and inference.keda: enable one of them; both would set the number of pods" }}
{{- end }}
{{- if and $v.inference.keda.enabled (not $v.inference.keda.prometheusAddress) }}
{{- fail "inference.keda.prometheusAddress: give the address of the Prometheus that has the metrics" }}
{{- end }}
{{- range $name, $engine := $v.engines }}
{{- if eq (default "" $engine.role) "torchserve" }}
{{- fail (printf "engines.%s.role: TorchServe answers its own pod only: run its image in inference.extraContainers, with the volume data at /var/lib/clearml-serving" $name) }}
{{- end }}
{{- if and $engine.role $v.clearml.serviceName (not $v.clearml.serviceId) }}
{{- fail (printf "engines.%s.role: it finds its serving service by the id, not by clearml.serviceName: give clearml.serviceId" $name) }}
{{- end }}
{{- end }}
{{- if and (eq $v.inference.cache.type "persistentVolumeClaim") (not $v.inference.cache.existingClaim) }}
{{- fail "inference.cache.existingClaim: give the claim, which all pods share (ReadWriteMany)" }}
{{- end }}
{{- if and (eq $v.inference.cache.type "hostPath") (not $v.inference.cache.hostPath) }}
{{- fail "inference.cache.hostPath: give the folder of the nodes" }}
{{- end }}
{{- end }}
