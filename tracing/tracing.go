// Package tracing sends OpenTelemetry traces of requests, by OTLP over HTTP. It is configured by OpenTelemetry's
// own environment variables. A nil *Tracer and a nil *Span do nothing, so that requests cost nothing when it is off.
package tracing

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// TraceparentSize is the size of the header traceparent of W3C's version 00.
const TraceparentSize = 55

// Configured reports whether the environment asks for traces. unusable says why what it asks for cannot be done.
func Configured(env func(name string) string) (yes bool, unusable string) {
	if env("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && env("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "" {
		return false, ""
	}
	if strings.EqualFold(env("OTEL_SDK_DISABLED"), "true") {
		return false, ""
	}
	switch exporter := env("OTEL_TRACES_EXPORTER"); exporter {
	case "", "otlp":
	case "none":
		return false, ""
	default:
		return false, fmt.Sprintf("OTEL_TRACES_EXPORTER is %q: only otlp is known", exporter)
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"} {
		if protocol := env(name); protocol != "" {
			if protocol != "http/protobuf" {
				return false, fmt.Sprintf("%s is %q: only http/protobuf is known, usually at port 4318", name, protocol)
			}
			break
		}
	}
	return true, ""
}

// Tracer creates the spans of this process.
type Tracer struct {
	provider *sdk.TracerProvider
	tracer   trace.Tracer
}

// New returns a Tracer for the destination, sampler and service of the environment. Close ends it.
func New(ctx context.Context, version string, log *slog.Logger) (*Tracer, error) {
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("send traces: %w", err)
	}
	about, err := resource.New(ctx,
		resource.WithAttributes(attribute.String("service.name", "clearml-serving"), attribute.String("service.version", version)),
		resource.WithTelemetrySDK(), resource.WithHost(), resource.WithFromEnv(), // the last one has precedence
	)
	if err != nil {
		log.Warn("attributes of traces incomplete", "err", err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("traces not sent", "err", err) }))
	provider := sdk.NewTracerProvider(sdk.WithBatcher(exporter), sdk.WithResource(about), sdk.WithIDGenerator(ids{}))
	return &Tracer{provider, provider.Tracer("clearml-serving", trace.WithInstrumentationVersion(version))}, nil
}

// Close sends what is left.
func (t *Tracer) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// Kind is the place of a span among processes.
type Kind = trace.SpanKind

// The kinds.
const (
	Internal = trace.SpanKindInternal
	Server   = trace.SpanKindServer
	Client   = trace.SpanKindClient
)

// Span is a part of a trace. If the trace is not sampled, it only passes its context on.
type Span struct {
	t       *Tracer
	context context.Context //nolint:containedctx // OpenTelemetry keeps the span in it
	span    trace.Span
}

// Start begins a span below that of the W3C headers, or a new trace.
func (t *Tracer) Start(name string, kind Kind, traceparent, tracestate string) *Span {
	if t == nil {
		return nil
	}
	ctx := context.Background()
	if traceparent != "" {
		ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": traceparent, "tracestate": tracestate})
	}
	ctx, span := t.tracer.Start(ctx, name, trace.WithSpanKind(kind))
	return &Span{t, ctx, span}
}

// Child begins a span below this one.
func (s *Span) Child(name string) *Span {
	if s == nil {
		return nil
	}
	ctx, span := s.t.tracer.Start(s.context, name)
	return &Span{s.t, ctx, span}
}

// Sampled reports whether the span will be sent.
func (s *Span) Sampled() bool { return s != nil && s.span.SpanContext().IsSampled() }

// TraceID is the id of a trace that is sent, else "".
func (s *Span) TraceID() string {
	if !s.Sampled() {
		return ""
	}
	return s.span.SpanContext().TraceID().String()
}

// Traceparent is the header for what the span asks, "" for none.
func (s *Span) Traceparent() string {
	if s == nil {
		return ""
	}
	return s.below(s.span.SpanContext().SpanID())
}

func (s *Span) below(id trace.SpanID) string {
	c := s.span.SpanContext()
	return "00-" + c.TraceID().String() + "-" + id.String() + "-" + (c.TraceFlags() & trace.FlagsSampled).String()
}

// Set adds an attribute: a string, int or bool.
func (s *Span) Set(name string, value any) {
	if s.Sampled() {
		s.span.SetAttributes(attributeOf(name, value))
	}
}

// Fail marks the span as failed.
func (s *Span) Fail(text string) {
	if s.Sampled() {
		s.span.SetStatus(codes.Error, text)
	}
}

// End ends the span.
func (s *Span) End() {
	if s != nil {
		s.span.End()
	}
}

// Later is a span below another one that is created at its end; until then it has only its place.
type Later struct {
	above *Span
	id    trace.SpanID
}

// Later returns the place of a span below this one.
func (s *Span) Later() Later {
	l := Later{above: s}
	if s != nil {
		_, _ = rand.Read(l.id[:]) // it never fails
	}
	return l
}

// Traceparent is the header for what the span asks, "" for none.
func (l Later) Traceparent() string {
	if l.above == nil {
		return ""
	}
	return l.above.below(l.id)
}

// Between creates the span.
func (l Later) Between(name string, begin, end time.Time) {
	if l.above.Sampled() {
		l.above.t.add(l.above.context, l.id, name, begin).End(trace.WithTimestamp(end))
	}
}

func (t *Tracer) add(ctx context.Context, id trace.SpanID, name string, begin time.Time) trace.Span {
	_, span := t.tracer.Start(context.WithValue(ctx, wanted{}, id), name, trace.WithTimestamp(begin))
	return span
}

// mostForeign bounds the spans of user code of one request.
const mostForeign = 1000

// Add adds spans that another process has measured, as a JSON list of [name, id, id of the span above, begin, end,
// attributes, error], with hexadecimal ids and times in nanoseconds since 1970. What cannot be read is left out.
func (s *Span) Add(list []byte) {
	if !s.Sampled() {
		return
	}
	var spans []json.RawMessage
	if json.Unmarshal(list, &spans) != nil {
		return
	}
	for _, text := range spans[:min(len(spans), mostForeign)] {
		var (
			name, id, above, failed string
			begin, end              int64
			attributes              map[string]any
		)
		if json.Unmarshal(text, &[]any{&name, &id, &above, &begin, &end, &attributes, &failed}) != nil {
			continue
		}
		own, err := trace.SpanIDFromHex(id)
		parent, err2 := trace.SpanIDFromHex(above)
		if err != nil || err2 != nil || end < begin {
			continue
		}
		ctx := trace.ContextWithSpanContext(context.Background(), s.span.SpanContext().WithSpanID(parent))
		span := s.t.add(ctx, own, name, time.Unix(0, begin))
		for name, value := range attributes {
			span.SetAttributes(attributeOf(name, value))
		}
		if failed != "" {
			span.SetStatus(codes.Error, failed)
		}
		span.End(trace.WithTimestamp(time.Unix(0, end)))
	}
}

func attributeOf(name string, value any) attribute.KeyValue {
	switch value := value.(type) {
	case string:
		return attribute.String(name, value)
	case bool:
		return attribute.Bool(name, value)
	case int:
		return attribute.Int(name, value)
	case float64:
		if value == float64(int64(value)) {
			return attribute.Int64(name, int64(value))
		}
		return attribute.Float64(name, value)
	}
	return attribute.String(name, fmt.Sprint(value))
}

// wanted is the key of a span id in a context.
type wanted struct{}

// ids generates random ids, unless the context has one.
type ids struct{}

// NewIDs implements sdk.IDGenerator.
func (g ids) NewIDs(ctx context.Context) (id trace.TraceID, _ trace.SpanID) {
	_, _ = rand.Read(id[:]) // it never fails
	return id, g.NewSpanID(ctx, id)
}

// NewSpanID implements sdk.IDGenerator.
func (ids) NewSpanID(ctx context.Context, _ trace.TraceID) (id trace.SpanID) {
	if id, ok := ctx.Value(wanted{}).(trace.SpanID); ok {
		return id
	}
	_, _ = rand.Read(id[:]) // it never fails
	return id
}
