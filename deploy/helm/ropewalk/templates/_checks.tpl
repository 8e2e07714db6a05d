{{/*
What the schema cannot say: values that contradict each other, and clusters that stop at the first
failure. Each ends rendering with what is wrong and what to do.
*/}}

{{- define "ropewalk.checks" -}}
{{- include "ropewalk.checks.quorum" . -}}
{{- include "ropewalk.checks.memory" . -}}
{{- include "ropewalk.checks.placement" . -}}
{{- include "ropewalk.checks.external" . -}}
{{- include "ropewalk.checks.tls" . -}}
{{- include "ropewalk.checks.plaintext" . -}}
{{- end -}}

{{- define "ropewalk.checks.plaintext" -}}
{{- if eq (include "ropewalk.tlsMode" .) "off" -}}
{{- if and (ne .Values.external.type "none") (not .Values.external.acknowledgePlaintext) -}}
{{- fail (printf "external.type: %s with tls.mode: off lets anybody on the way read and change records; set tls.mode to on, or external.acknowledgePlaintext to true" .Values.external.type) -}}
{{- end -}}
{{- $open := or (not .Values.networkPolicy.enabled) (not .Values.networkPolicy.clients) -}}
{{- if and $open (not .Values.networkPolicy.acknowledgeOpenToAll) -}}
{{- fail "networkPolicy admits every pod of the Kubernetes cluster, and tls.mode: off asks none for a certificate; name networkPolicy.clients, set tls.mode to on, or networkPolicy.acknowledgeOpenToAll to true" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "ropewalk.checks.external" -}}
{{- $replicas := int .Values.replicas -}}
{{- with .Values.external -}}
{{- if and (eq .type "none") (or .hosts .nodePorts) -}}
{{- fail "external.hosts and external.nodePorts contradict external.type: none; set the type" -}}
{{- end -}}
{{- if and (ne .type "none") (ne (len .hosts) $replicas) -}}
{{- fail (printf "external.hosts has %d hosts for replicas: %d; name one for each node" (len .hosts) $replicas) -}}
{{- end -}}
{{- if and (eq .type "NodePort") (ne (len .nodePorts) $replicas) -}}
{{- fail (printf "external.nodePorts has %d ports for replicas: %d; name one for each node" (len .nodePorts) $replicas) -}}
{{- end -}}
{{- if and (eq .type "LoadBalancer") .nodePorts -}}
{{- fail "external.nodePorts contradicts external.type: LoadBalancer, where every node has port 7101" -}}
{{- end -}}
{{- if and (eq .type "LoadBalancer") (ne (len (uniq .hosts)) $replicas) -}}
{{- fail "external.hosts names a host twice; with external.type: LoadBalancer each node needs its own" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "ropewalk.checks.quorum" -}}
{{- $replicas := int .Values.replicas -}}
{{- if and (lt $replicas 3) (not .Values.acknowledgeUnsafeQuorum) -}}
{{- fail (printf "replicas: %d is an unsafe quorum: no node may fail, and topics have 3 replicas unless told otherwise; set replicas to 3 or more, or acknowledgeUnsafeQuorum to true" $replicas) -}}
{{- end -}}
{{- if and (ge $replicas 3) .Values.acknowledgeUnsafeQuorum -}}
{{- fail (printf "acknowledgeUnsafeQuorum contradicts replicas: %d, which is a safe quorum; remove it" $replicas) -}}
{{- end -}}
{{- end -}}

{{- define "ropewalk.checks.memory" -}}
{{- $limits := default dict .Values.resources.limits -}}
{{- $requests := default dict .Values.resources.requests -}}
{{- $memory := include "ropewalk.bytes" $limits.memory -}}
{{- if and $limits.memory (not $memory) -}}
{{- fail (printf "resources.limits.memory: %v is no size that can be divided; write it as in 2Gi" $limits.memory) -}}
{{- end -}}
{{- if $memory -}}
{{- if lt (int64 $memory) 536870912 -}}
{{- fail (printf "resources.limits.memory: %v is less than 512Mi, which a node needs: docs/size.md" $limits.memory) -}}
{{- end -}}
{{- $requested := include "ropewalk.bytes" $requests.memory -}}
{{- if and $requested (gt (int64 $requested) (int64 $memory)) -}}
{{- fail (printf "resources.requests.memory: %v is more than resources.limits.memory: %v" $requests.memory $limits.memory) -}}
{{- end -}}
{{- $sum := 0 -}}
{{- range $name, $value := include "ropewalk.limits" . | fromJson -}}
{{- if has $name (list "database_bytes" "log_tail_bytes" "produce_inflight_bytes" "commit_queue_bytes" "compaction_memory_bytes") -}}
{{- $sum = add $sum (include "ropewalk.limitBytes" (dict "name" $name "value" $value) | int64) -}}
{{- end -}}
{{- end -}}
{{- if gt (int64 $sum) (div (mul (int64 $memory) 3) 4) -}}
{{- fail (printf "limits: the memory budgets add up to %d bytes, more than three quarters of resources.limits.memory: %v; docs/size.md says what the rest is for" (int64 $sum) $limits.memory) -}}
{{- end -}}
{{- end -}}
{{- with .Values.limits.free_space_floor_bytes -}}
{{- $floor := include "ropewalk.limitBytes" (dict "name" "free_space_floor_bytes" "value" .) | int64 -}}
{{- if ge $floor (include "ropewalk.bytes" $.Values.persistence.size | int64) -}}
{{- fail (printf "limits.free_space_floor_bytes: %v is as much as persistence.size: %v; a node would never take a record" . $.Values.persistence.size) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A limit in bytes as the node reads it: a number, or with B, KiB, MiB, GiB behind it. */}}
{{- define "ropewalk.limitBytes" -}}
{{- if not (kindIs "string" .value) -}}
{{- int64 .value -}}
{{- else -}}
{{- $bytes := .value | trimSuffix "B" | replace " " "" | include "ropewalk.bytes" -}}
{{- if not $bytes -}}
{{- fail (printf "limits.%s: %q is no size; write it as in 64MiB" .name .value) -}}
{{- end -}}
{{- $bytes -}}
{{- end -}}
{{- end -}}

{{- define "ropewalk.checks.placement" -}}
{{- if and .Values.rack.name .Values.rack.fromNodeLabel -}}
{{- fail "rack.name and rack.fromNodeLabel contradict each other; set one" -}}
{{- end -}}
{{- if and .Values.rack.fromNodeLabel (not .Values.serviceAccount.create) (not .Values.serviceAccount.name) -}}
{{- fail "rack.fromNodeLabel lets this release's service account read nodes, and without serviceAccount.create that would be everybody's in the namespace; set serviceAccount.name" -}}
{{- end -}}
{{- $own := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" -}}
{{- range $label, $_ := .Values.podLabels -}}
{{- if has $label $own -}}
{{- fail (printf "podLabels: %s is what the pods are found by; it cannot be set" $label) -}}
{{- end -}}
{{- end -}}
{{- range .Values.extraEnv -}}
{{- if or (has .name (list "POD_NAME" "ROPEWALK_ADVERTISE" "ROPEWALK_SEEDS" "ROPEWALK_BOOTSTRAP" "ROPEWALK_CONFIG" "ROPEWALK_RACK" "ROPEWALK_LOG" "ROPEWALK_DATA_DIR" "ROPEWALK_LISTEN" "ROPEWALK_HTTP" "ROPEWALK_PROBES")) (hasPrefix "ROPEWALK_TLS_" .name) (hasPrefix "ROPEWALK_LIMITS_" .name) -}}
{{- fail (printf "extraEnv: %s is set by the chart; use the value it comes from" .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "ropewalk.checks.tls" -}}
{{- $mode := include "ropewalk.tlsMode" . -}}
{{- $sources := list -}}
{{- if .Values.tls.existingSecret -}}{{- $sources = append $sources "tls.existingSecret" -}}{{- end -}}
{{- if .Values.tls.certManager.enabled -}}{{- $sources = append $sources "tls.certManager" -}}{{- end -}}
{{- if .Values.tls.selfSigned.enabled -}}{{- $sources = append $sources "tls.selfSigned" -}}{{- end -}}
{{- if gt (len $sources) 1 -}}
{{- fail (printf "%s contradict each other: a certificate has one source" (join " and " $sources)) -}}
{{- end -}}
{{- if and (ne $mode "off") (not $sources) -}}
{{- fail (printf "tls.mode: %s needs a certificate; set tls.existingSecret, tls.certManager.enabled or tls.selfSigned.enabled" $mode) -}}
{{- end -}}
{{- if and (eq $mode "off") (ne .Values.tls.clientAuth "none") -}}
{{- fail (printf "tls.clientAuth: %s contradicts tls.mode: off" .Values.tls.clientAuth) -}}
{{- end -}}
{{- if and (eq $mode "both") (eq .Values.tls.clientAuth "required") -}}
{{- fail "tls.clientAuth: required contradicts tls.mode: both, in which clients need no certificate because they may come without TLS; set it when the mode is on" -}}
{{- end -}}
{{- if and .Values.tls.certManager.enabled (not .Values.tls.certManager.issuerRef.name) -}}
{{- fail "tls.certManager needs issuerRef.name: who issues the certificate" -}}
{{- end -}}
{{- end -}}
