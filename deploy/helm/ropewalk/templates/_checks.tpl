{{/*
Checks beyond the schema: contradictory values, and clusters that stop at the first failure. Each check fails
the rendering with the error and the remedy.
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
{{- fail (printf "external.type: %s with tls.mode: off sends records in plaintext outside the Kubernetes cluster; set tls.mode to on, or external.acknowledgePlaintext to true" .Values.external.type) -}}
{{- end -}}
{{- $open := or (not .Values.networkPolicy.enabled) (not .Values.networkPolicy.clients) -}}
{{- if and $open (not .Values.networkPolicy.acknowledgeOpenToAll) -}}
{{- fail "networkPolicy admits every pod of the Kubernetes cluster, and tls.mode: off requires no certificate; set networkPolicy.clients, tls.mode to on, or networkPolicy.acknowledgeOpenToAll to true" -}}
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
{{- fail (printf "external.hosts has %d hosts for replicas: %d; set one for each node" (len .hosts) $replicas) -}}
{{- end -}}
{{- if and (eq .type "NodePort") (ne (len .nodePorts) $replicas) -}}
{{- fail (printf "external.nodePorts has %d ports for replicas: %d; set one for each node" (len .nodePorts) $replicas) -}}
{{- end -}}
{{- if and (eq .type "LoadBalancer") .nodePorts -}}
{{- fail "external.nodePorts contradicts external.type: LoadBalancer, where every node has port 7101; remove it" -}}
{{- end -}}
{{- if and (eq .type "LoadBalancer") (ne (len (uniq .hosts)) $replicas) -}}
{{- fail "external.hosts names a host twice; with external.type: LoadBalancer, set a different host for each node" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "ropewalk.checks.quorum" -}}
{{- $replicas := int .Values.replicas -}}
{{- if and (lt $replicas 3) (not .Values.acknowledgeUnsafeQuorum) -}}
{{- fail (printf "replicas: %d is an unsafe quorum: it tolerates no node failure, and topics have 3 replicas by default; set replicas to 3 or more, or acknowledgeUnsafeQuorum to true" $replicas) -}}
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
{{- fail (printf "resources.limits.memory: %v is not a size in bytes; write it as in 2Gi" $limits.memory) -}}
{{- end -}}
{{- if $memory -}}
{{- if lt (int64 $memory) 536870912 -}}
{{- fail (printf "resources.limits.memory: %v is less than 512Mi, the minimum for a node; see docs/size.md" $limits.memory) -}}
{{- end -}}
{{- $requested := include "ropewalk.bytes" $requests.memory -}}
{{- if and $requested (gt (int64 $requested) (int64 $memory)) -}}
{{- fail (printf "resources.requests.memory: %v is more than resources.limits.memory: %v; lower the request" $requests.memory $limits.memory) -}}
{{- end -}}
{{- $sum := 0 -}}
{{- range $name, $value := include "ropewalk.limits" . | fromJson -}}
{{- if has $name (list "database_bytes" "log_tail_bytes" "produce_inflight_bytes" "commit_queue_bytes" "compaction_memory_bytes") -}}
{{- $sum = add $sum (include "ropewalk.limitBytes" (dict "name" $name "value" $value) | int64) -}}
{{- end -}}
{{- end -}}
{{- if gt (int64 $sum) (div (mul (int64 $memory) 3) 4) -}}
{{- fail (printf "limits: the memory budgets add up to %d bytes, more than three quarters of resources.limits.memory: %v; see docs/size.md" (int64 $sum) $limits.memory) -}}
{{- end -}}
{{- end -}}
{{- with .Values.limits.free_space_floor_bytes -}}
{{- $floor := include "ropewalk.limitBytes" (dict "name" "free_space_floor_bytes" "value" .) | int64 -}}
{{- if ge $floor (include "ropewalk.bytes" $.Values.persistence.size | int64) -}}
{{- fail (printf "limits.free_space_floor_bytes: %v is not below persistence.size: %v, so nodes would refuse all records; lower it" . $.Values.persistence.size) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A limit in bytes in the node's format: a number, optionally with B, KiB, MiB or GiB. */}}
{{- define "ropewalk.limitBytes" -}}
{{- if not (kindIs "string" .value) -}}
{{- int64 .value -}}
{{- else -}}
{{- $bytes := .value | trimSuffix "B" | replace " " "" | include "ropewalk.bytes" -}}
{{- if not $bytes -}}
{{- fail (printf "limits.%s: %q is not a size; write it as in 64MiB" .name .value) -}}
{{- end -}}
{{- $bytes -}}
{{- end -}}
{{- end -}}

{{- define "ropewalk.checks.placement" -}}
{{- if and .Values.rack.name .Values.rack.fromNodeLabel -}}
{{- fail "rack.name and rack.fromNodeLabel contradict each other; set one" -}}
{{- end -}}
{{- if and .Values.rack.fromNodeLabel (not .Values.serviceAccount.create) (not .Values.serviceAccount.name) -}}
{{- fail "rack.fromNodeLabel grants the service account read access to nodes, and without serviceAccount.create that is the namespace's default account; set serviceAccount.name" -}}
{{- end -}}
{{- $own := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" -}}
{{- range $label, $_ := .Values.podLabels -}}
{{- if has $label $own -}}
{{- fail (printf "podLabels: %s is a selector label of the chart; remove it" $label) -}}
{{- end -}}
{{- end -}}
{{- range .Values.extraEnv -}}
{{- if or (has .name (list "POD_NAME" "ROPEWALK_ADVERTISE" "ROPEWALK_SEEDS" "ROPEWALK_BOOTSTRAP" "ROPEWALK_CONFIG" "ROPEWALK_RACK" "ROPEWALK_LOG" "ROPEWALK_DATA_DIR" "ROPEWALK_LISTEN" "ROPEWALK_HTTP" "ROPEWALK_PROBES")) (hasPrefix "ROPEWALK_TLS_" .name) (hasPrefix "ROPEWALK_LIMITS_" .name) -}}
{{- fail (printf "extraEnv: %s is set by the chart; set the corresponding chart value instead" .name) -}}
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
{{- fail (printf "%s contradict each other: a certificate has one source; set one" (join " and " $sources)) -}}
{{- end -}}
{{- if and (ne $mode "off") (not $sources) -}}
{{- fail (printf "tls.mode: %s needs a certificate; set tls.existingSecret, tls.certManager.enabled or tls.selfSigned.enabled" $mode) -}}
{{- end -}}
{{- if and (eq $mode "off") (ne .Values.tls.clientAuth "none") -}}
{{- fail (printf "tls.clientAuth: %s contradicts tls.mode: off; set tls.mode to on, or tls.clientAuth to none" .Values.tls.clientAuth) -}}
{{- end -}}
{{- if and (eq $mode "both") (eq .Values.tls.clientAuth "required") -}}
{{- fail "tls.clientAuth: required contradicts tls.mode: both, which also admits plaintext clients; set it once tls.mode is on" -}}
{{- end -}}
{{- if and .Values.tls.certManager.enabled (not .Values.tls.certManager.issuerRef.name) -}}
{{- fail "tls.certManager needs issuerRef.name; set it to the issuer of the certificate" -}}
{{- end -}}
{{- end -}}
