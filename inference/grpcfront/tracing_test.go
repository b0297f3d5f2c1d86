package grpcfront_test

import (
	"context"
	"log/slog"
	"testing"

	"google.golang.org/grpc/metadata"

	"clearmlserving/inference"
	"clearmlserving/inference/grpcfront"
	"clearmlserving/inference/grpcfront/pb"
	"clearmlserving/tracing"
	"clearmlserving/tracing/tracingtest"
)

func TestARequestContinuesTheTraceOfItsClient(t *testing.T) {
	to := tracingtest.New(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", to.URL)
	tracer, err := tracing.New(t.Context(), "1.2", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	r := start(t, func(_ *inference.Options, f *grpcfront.Options) { f.Tracer = tracer }, "echo", "died")
	ctx := metadata.AppendToOutgoingContext(context.Background(), "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate", "vendor=1")
	if err := r.Invoke(ctx, "/inference.GRPCInferenceService/ModelInfer", floats("echo", 1, 2), new(pb.ModelInferResponse)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.infer(t, floats("died", 1, 2)); err == nil {
		t.Fatal("a died process answers")
	}
	s := r.stream(t)
	send(t, s, floats("echo", 1, 2))
	if _, err := next(t, s); err != nil {
		t.Fatal(err)
	}
	if err := r.stop(); err != nil { // the spans have ended
		t.Fatal(err)
	}
	if err := tracer.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, span := range to.Spans() {
		if code, ok := span.Attributes["rpc.grpc.status_code"]; ok {
			got[span.Name+" "+span.Attributes["clearml.model"]] = code + " " + span.Attributes["clearml.request_id"] + " " + span.State
		}
	}
	for name, want := range map[string]string{
		"inference.GRPCInferenceService/ModelInfer echo": "int_value:0 7 vendor=1", "inference.GRPCInferenceService/ModelInfer died": "int_value:13 7 ",
		"inference.GRPCInferenceService/ModelStreamInfer echo": "int_value:0 7 ",
	} {
		if got[name] != want {
			t.Errorf("%s: %q, want %q; all: %v", name, got[name], want, got)
		}
	}
}
