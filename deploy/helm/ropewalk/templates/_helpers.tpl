{{/* Names, labels, addresses, and the memory budget. */}}

{{- define "ropewalk.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Short enough that pod names, volume names and "-headless" fit into 63 characters. */}}
{{- define "ropewalk.fullname" -}}
{{- $name := include "ropewalk.name" . -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "ropewalk.headless" -}}
{{ include "ropewalk.fullname" . }}-headless
{{- end -}}

{{/* Labels of all objects. */}}
{{- define "ropewalk.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: {{ include "ropewalk.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* Selector labels of the nodes' pods. */}}
{{- define "ropewalk.nodeLabels" -}}
app.kubernetes.io/name: {{ include "ropewalk.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: node
{{- end -}}

{{- define "ropewalk.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "ropewalk.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "ropewalk.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Domain of the nodes: the part of their host names after the pod name. */}}
{{- define "ropewalk.domain" -}}
{{ include "ropewalk.headless" . }}.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}
{{- end -}}

{{/* External addresses of the nodes by pod ordinal, separated by spaces. */}}
{{- define "ropewalk.externalAddresses" -}}
{{- $external := .Values.external -}}
{{- $addresses := list -}}
{{- range $ordinal := until (int .Values.replicas) -}}
{{- $port := 7101 -}}
{{- if eq $external.type "NodePort" -}}
{{- $port = index $external.nodePorts $ordinal -}}
{{- end -}}
{{- $addresses = append $addresses (printf "%s:%d" (index $external.hosts $ordinal) (int $port)) -}}
{{- end -}}
{{- join " " $addresses -}}
{{- end -}}

{{/* Internal addresses of the nodes by pod ordinal, as a JSON list. */}}
{{- define "ropewalk.addresses" -}}
{{- $addresses := list -}}
{{- range $ordinal := until (int .Values.replicas) -}}
{{- $addresses = append $addresses (printf "%s-%d.%s:7101" (include "ropewalk.fullname" $) $ordinal (include "ropewalk.domain" $)) -}}
{{- end -}}
{{- toJson $addresses -}}
{{- end -}}

{{/*
The initial nodes of the cluster: the first three, or all if there are fewer. The list does not change when
nodes are added, so that a later node can only join.
*/}}
{{- define "ropewalk.seeds" -}}
{{- $addresses := include "ropewalk.addresses" . | fromJsonArray -}}
{{- slice $addresses 0 (min 3 (len $addresses) | int) | join "," -}}
{{- end -}}

{{/* YAML reads an unquoted on or off as true or false. */}}
{{- define "ropewalk.tlsMode" -}}
{{- if kindIs "bool" .Values.tls.mode -}}
{{- ternary "on" "off" .Values.tls.mode -}}
{{- else -}}
{{- .Values.tls.mode -}}
{{- end -}}
{{- end -}}

{{- define "ropewalk.tlsSecret" -}}
{{- default (printf "%s-tls" (include "ropewalk.fullname" .)) .Values.tls.existingSecret -}}
{{- end -}}

{{/* All DNS names of the nodes, as a JSON list. */}}
{{- define "ropewalk.tlsNames" -}}
{{- $service := printf "%s.%s" (include "ropewalk.fullname" .) .Release.Namespace -}}
{{- $headless := printf "%s.%s" (include "ropewalk.headless" .) .Release.Namespace -}}
{{- $names := list "localhost" (include "ropewalk.fullname" .) $service -}}
{{- range list $service $headless -}}
{{- $names = concat $names (list (printf "%s.svc" .) (printf "%s.svc.%s" . $.Values.clusterDomain)) -}}
{{- end -}}
{{- $names = concat $names (list (printf "*.%s.svc" $headless) (printf "*.%s" (include "ropewalk.domain" .))) -}}
{{- concat $names .Values.external.hosts .Values.tls.extraNames | uniq | toJson -}}
{{- end -}}

{{/* Number of bytes of a Kubernetes quantity; empty if it is not one. */}}
{{- define "ropewalk.bytes" -}}
{{- if kindIs "string" . -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 -}}
{{- $number := regexFind "^[0-9]+(\\.[0-9]+)?" . -}}
{{- $unit := trimPrefix $number . -}}
{{- if and $number (hasKey $units $unit) -}}
{{- mulf (float64 $number) (float64 (get $units $unit)) | floor | int64 -}}
{{- end -}}
{{- else if . -}}
{{- int64 . -}}
{{- end -}}
{{- end -}}

{{/*
The node's limits as a JSON object: memory budgets derived from the container's memory limit, overridden by
the user's values. The budgets are half of the memory limit; docs/size.md describes the other half.
*/}}
{{- define "ropewalk.limits" -}}
{{- $limits := dict -}}
{{- with .Values.resources.limits -}}
{{- with include "ropewalk.bytes" .memory -}}
{{- $memory := int64 . -}}
{{- $_ := set $limits "database_bytes" (div $memory 4) -}}
{{- $_ := set $limits "log_tail_bytes" (div $memory 8) -}}
{{- $_ := set $limits "produce_inflight_bytes" (div $memory 16) -}}
{{- $_ := set $limits "commit_queue_bytes" (div $memory 32) -}}
{{- $_ := set $limits "compaction_memory_bytes" (div $memory 32) -}}
{{- end -}}
{{- end -}}
{{- range $name, $value := .Values.limits -}}
{{- $_ := set $limits $name $value -}}
{{- end -}}
{{- toJson $limits -}}
{{- end -}}

{{/* TLS settings of commands in the containers of this image. */}}
{{- define "ropewalk.clientEnv" -}}
{{- if eq (include "ropewalk.tlsMode" .) "on" }}
- name: ROPEWALK_TLS_CA
  value: /etc/ropewalk/tls/ca.crt
- name: ROPEWALK_TLS_CERT
  value: /etc/ropewalk/tls/tls.crt
- name: ROPEWALK_TLS_KEY
  value: /etc/ropewalk/tls/tls.key
{{- end }}
{{- end -}}

{{/* Shell commands that prepare the start of a node; may be empty. */}}
{{- define "ropewalk.prepare" -}}
{{- if .Values.rack.fromNodeLabel }}
export ROPEWALK_RACK="$(cat /run/ropewalk/rack)"
{{- end }}
{{- if ne .Values.external.type "none" }}
set -- {{ include "ropewalk.externalAddresses" . }}
shift "${POD_NAME##*-}"
export ROPEWALK_EXTERNAL_ADVERTISE="$1"
{{- end }}
{{- end -}}

{{- define "ropewalk.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "ropewalk.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}
