{{- define "sluice.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- /* The release's name, with the chart's unless it says so already; 50 characters leave room for suffixes. */ -}}
{{- define "sluice.fullname" -}}
{{- $name := include "sluice.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "sluice.selectorLabels" -}}
app.kubernetes.io/name: {{ include "sluice.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "sluice.labels" -}}
{{ include "sluice.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "sluice.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "sluice.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- /* Refuses a configuration that does not fit the pod around it: such a pod would never become ready. */ -}}
{{- define "sluice.checkedConfig" -}}
{{- $config := fromYaml .Values.config }}
{{- if $config.Error }}
{{- fail (printf "config: %s" $config.Error) }}
{{- end }}
{{- if ne (toString $config.data_dir) "/var/lib/sluice" }}
{{- fail "config: data_dir must be /var/lib/sluice, the only place in the pod that can be written" }}
{{- end }}
{{- if ne (toString (default dict $config.server).admin) "0.0.0.0:4567" }}
{{- fail "config: server.admin must be 0.0.0.0:4567, where the probes ask" }}
{{- end }}
{{- .Values.config }}
{{- end }}
