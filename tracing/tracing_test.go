package tracing_test

import (
	"encoding/hex"
	"log/slog"
	"testing"
	"time"

	"clearmlserving/tracing"
	"clearmlserving/tracing/tracingtest"
)

func TestTracesAreOffUnlessTheEnvironmentAsksForThem(t *testing.T) {
	const to = "OTEL_EXPORTER_OTLP_ENDPOINT"
	for name, tc := range map[string]struct {
		env        map[string]string
		yes, wrong bool
	}{
		"nothing":            {nil, false, false},
		"only a name":        {map[string]string{"OTEL_SERVICE_NAME": "x", "OTEL_TRACES_SAMPLER": "always_on"}, false, false},
		"a destination":      {map[string]string{to: "http://a:4318"}, true, false},
		"one for traces":     {map[string]string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://a:4318/v1/traces", "OTEL_TRACES_EXPORTER": "otlp"}, true, false},
		"disabled":           {map[string]string{to: "http://a:4318", "OTEL_SDK_DISABLED": "True"}, false, false},
		"no exporter":        {map[string]string{to: "http://a:4318", "OTEL_TRACES_EXPORTER": "none"}, false, false},
		"another exporter":   {map[string]string{to: "http://a:4318", "OTEL_TRACES_EXPORTER": "zipkin"}, false, true},
		"gRPC":               {map[string]string{to: "http://a:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, false, true},
		"gRPC of metrics":    {map[string]string{to: "http://a:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}, true, false},
		"the right protocol": {map[string]string{to: "http://a:4318", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, true, false},
	} {
		yes, unusable := tracing.Configured(func(name string) string { return tc.env[name] })
		if yes != tc.yes || (unusable != "") != tc.wrong {
			t.Errorf("%s: %v %q", name, yes, unusable)
		}
	}
}

// newTracer returns a tracer that sends to a receiver, and a function that returns what has arrived at its end.
func newTracer(t *testing.T) (*tracing.Tracer, func() map[string]tracingtest.Span) {
	t.Helper()
	to := tracingtest.New(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", to.URL)
	tracer, err := tracing.New(t.Context(), "1.2", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return tracer, func() map[string]tracingtest.Span {
		if err := tracer.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		all := map[string]tracingtest.Span{}
		for _, s := range to.Spans() {
			all[s.Name] = s
		}
		return all
	}
}

func TestSpansOfThisAndOtherProcessesAreOneTrace(t *testing.T) {
	t.Setenv("OTEL_SERVICE_NAME", "my models")
	tracer, received := newTracer(t)
	const trace, client = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	front := tracer.Start("POST /serve/m", tracing.Server, "00-"+trace+"-"+client+"-01", "vendor=1")
	front.Set("http.response.status_code", 500)
	infer := front.Child("infer m")
	begun := time.Unix(1000, 0)
	at := infer.Later()
	own := at.Traceparent()
	if !validTraceparent(own) || own[3:35] != trace || own[53:] != "01" {
		t.Errorf("traceparent %s", own)
	}
	infer.Add([]byte(`[["process","00000000000000aa","` + own[36:52] + `",1000000000500,1000000000900,{"rows":3,"share":0.5,"text":"a","yes":true},"ValueError: x"],
		["below","00000000000000bb","00000000000000aa",1000000000600,1000000000700,{},""], ["wrong"], 5, ["no id","x","00000000000000aa",1,2,{},""], ["back","00000000000000cc","00000000000000aa",5,2,{},""]]`))
	infer.Add([]byte(`{"not":"a list"`))
	at.Between("worker", begun, begun.Add(time.Second))
	infer.End()
	front.Fail("it failed")
	front.End()
	got := received()
	if len(got) != 5 {
		t.Errorf("%d spans: %v", len(got), got)
	}
	for name, above := range map[string]string{"POST /serve/m": client, "infer m": got["POST /serve/m"].ID, "worker": got["infer m"].ID, "process": got["worker"].ID, "below": got["process"].ID} {
		s := got[name]
		if s.Trace != trace || s.Parent != above || s.ID == "" || s.Service != "my models" {
			t.Errorf("%s: %+v, want it below %s", name, s, above)
		}
	}
	if s := got["worker"]; s.ID != own[36:52] || !s.Begin.Equal(begun) || s.End.Sub(s.Begin) != time.Second {
		t.Errorf("%+v", s)
	}
	if s := got["process"]; s.Error != "ValueError: x" || s.Begin.UnixNano() != 1000000000500 || s.End.UnixNano() != 1000000000900 ||
		s.Attributes["rows"] != "int_value:3" || s.Attributes["text"] != "a" || s.Attributes["yes"] != "bool_value:true" {
		t.Errorf("%+v", s)
	}
	if s := got["POST /serve/m"]; s.Error != "it failed" || s.Attributes["http.response.status_code"] != "int_value:500" {
		t.Errorf("%+v", s)
	}
}

func TestTheSamplerOfTheEnvironmentAndOfTheClientDecides(t *testing.T) {
	t.Setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
	tracer, received := newTracer(t)
	off := tracer.Start("off", tracing.Server, "", "")
	if off.Sampled() || off.TraceID() != "" {
		t.Error("it is sampled")
	}
	if text := off.Child("below").Later().Traceparent(); !validTraceparent(text) || text[53:] != "00" {
		t.Errorf("traceparent %q", text)
	}
	off.Add([]byte(`[["x","00000000000000aa","00000000000000bb",1,2,{},""]]`))
	off.Later().Between("y", time.Now(), time.Now())
	off.End()
	on := tracer.Start("on", tracing.Server, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "")
	on.End()
	tracer.Start("no header", tracing.Server, "nonsense", "").End()
	if got := received(); len(got) != 1 || got["on"].Trace != "0af7651916cd43dd8448eb211c80319c" {
		t.Errorf("%v", got)
	}
}

func TestWithoutATracerNothingIsDone(t *testing.T) {
	var tracer *tracing.Tracer
	span := tracer.Start("x", tracing.Server, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "")
	child := span.Child("y")
	child.Set("a", 1)
	child.Fail("x")
	child.Add([]byte(`[]`))
	later := child.Later()
	later.Between("z", time.Now(), time.Now())
	child.End()
	if span != nil || child != nil || later.Traceparent() != "" || span.Traceparent() != "" || span.TraceID() != "" {
		t.Error("there is a span")
	}
	if err := tracer.Close(t.Context()); err != nil {
		t.Error(err)
	}
	if n := testing.AllocsPerRun(100, func() { span.Child("y").End() }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// validTraceparent reports whether a text is a header of version 00.
func validTraceparent(text string) bool {
	if len(text) != tracing.TraceparentSize || text[:3] != "00-" || text[35] != '-' || text[52] != '-' {
		return false
	}
	_, err := hex.DecodeString(text[3:35] + text[36:52] + text[53:])
	return err == nil
}
