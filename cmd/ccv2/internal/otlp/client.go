package otlp

import (
	"fmt"
	"net/url"
	"os"
	"strconv"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	common "go.opentelemetry.io/proto/otlp/common/v1"
)

// Variables of OpenTelemetry that say whether and where spans are sent. The client knows the others: headers, certificates,
// compression, time limits.
const (
	envDisabled       = "OTEL_SDK_DISABLED"
	envEndpoint       = "OTEL_EXPORTER_OTLP_ENDPOINT"
	envTracesEndpoint = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
	envProtocol       = "OTEL_EXPORTER_OTLP_PROTOCOL"
	envTracesProtocol = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
)

// NewClient makes the client of a collector: of the base URL endpoint, or else the one that the environment names. It is nil when
// none is named.
func NewClient(endpoint string) (otlptrace.Client, error) {
	if off, _ := strconv.ParseBool(os.Getenv(envDisabled)); off || endpoint == "" && os.Getenv(envEndpoint) == "" && os.Getenv(envTracesEndpoint) == "" {
		return nil, nil
	}
	// A round that fails is followed by another one.
	options := []otlptracehttp.Option{otlptracehttp.WithRetry(otlptracehttp.RetryConfig{})}
	if endpoint != "" {
		u, err := url.Parse(endpoint)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, fmt.Errorf("--otlp-endpoint %q: want the base URL of a collector, such as http://127.0.0.1:4318", endpoint)
		}
		return otlptracehttp.NewClient(append(options, otlptracehttp.WithEndpointURL(u.JoinPath("v1/traces").String()))...), nil
	}
	for _, name := range []string{envTracesProtocol, envProtocol} {
		if protocol := os.Getenv(name); protocol == "grpc" {
			return nil, fmt.Errorf("%s=%s: spans are sent with HTTP alone; name the port for it of the collector with --otlp-endpoint", name, protocol)
		} else if protocol != "" {
			break
		}
	}
	return otlptracehttp.NewClient(options...), nil
}

// Host is what OTEL_RESOURCE_ATTRIBUTES says of this host.
func Host() []*common.KeyValue {
	var all []*common.KeyValue
	for _, a := range resource.Environment().Attributes() {
		all = append(all, text(string(a.Key), a.Value.String()))
	}
	return all
}
