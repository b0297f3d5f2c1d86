package grpcfront_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"clearmlserving/inference"
	"clearmlserving/inference/grpcfront"
	"clearmlserving/inference/grpcfront/pb"
)

// within waits for a value.
func within[V any](t *testing.T, what string, c <-chan V) V {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatalf("%s: it never happens", what)
	}
	panic("unreachable")
}

// idle waits until no model is in use.
func (r *running) idle(t *testing.T) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		used := int64(0)
		for _, e := range r.core.Status().Endpoints {
			used += e.InUse
		}
		if used == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d references are left", used)
		}
	}
}

func TestTheAnswerToRawContentsIsRawInEverySize(t *testing.T) {
	r := start(t, nil, "echo", "lends")
	for i, rows := range []int{0, 1, 500, 1 << 18, 0, 500, 1 << 18} { // the largest are 2 MB, in many frames
		model := "echo"
		if i >= 4 {
			model = "lends"
		}
		data := make([]byte, rows*8)
		for i := range data {
			data[i] = byte(i * 7)
		}
		a, err := r.infer(t, &pb.ModelInferRequest{
			ModelName: model, RawInputContents: [][]byte{data},
			Inputs: []*pb.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: "FP32", Shape: []int64{int64(rows), 2}}},
		})
		if err != nil {
			t.Errorf("%d rows: %v", rows, err)
			continue
		}
		if len(a.GetRawOutputContents()) != 1 || !bytes.Equal(a.GetRawOutputContents()[0], data) || a.GetOutputs()[0].GetContents() != nil || a.GetOutputs()[0].GetShape()[0] != int64(rows) {
			t.Errorf("%d rows: %v", rows, a.GetOutputs())
		}
	}
	// A message whose name comes last, and large messages that cannot be answered.
	named := marshal(t, &pb.ModelInferRequest{ModelName: "lends"})
	unnamed := marshal(t, &pb.ModelInferRequest{RawInputContents: [][]byte{make([]byte, 1<<20)}, Inputs: []*pb.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: "UINT8", Shape: []int64{1 << 20}}}})
	for name, tc := range map[string]struct {
		message []byte
		code    codes.Code
		text    string
	}{
		"the name last":        {append(slices.Clone(unnamed), named...), codes.InvalidArgument, "its shape is [1048576], but the model takes [-1,2]"},
		"no name":              {unnamed, codes.NotFound, "''"},
		"broken at its end":    {append(append(slices.Clone(named), unnamed...), 0xff), codes.InvalidArgument, "its protobuf is broken"},
		"an unknown endpoint":  {append(marshal(t, &pb.ModelInferRequest{ModelName: "nobody"}), unnamed...), codes.NotFound, "'nobody'"},
		"garbage of that size": {bytes.Repeat([]byte{0xff}, 1<<20), codes.InvalidArgument, "its protobuf is broken"},
	} {
		is(t, name, r.call(t, "ModelInfer", tc.message, nil, grpc.ForceCodecV2(rawCodec{})), tc.code, tc.text)
	}
	if n := r.engine.lent.Load(); n != 0 {
		t.Errorf("%d loans are left", n)
	}
}

func TestTheMetadataOfAnAnswerNamesWhoAnswered(t *testing.T) {
	r := start(t, nil, "headers/3", "busy")
	var header, trailer metadata.MD
	if err := r.call(t, "ModelInfer", floats("headers/3", 1, 2), new(pb.ModelInferResponse), grpc.Header(&header)); err != nil {
		t.Fatal(err)
	}
	if got := header["x-clearml-endpoint"]; !slices.Equal(got, []string{"headers/3"}) {
		t.Errorf("%v", header)
	}
	if !slices.Equal(header["x-mine"], []string{"1", "2"}) || header["grpc-status"] != nil || header["x-bad"] != nil || !slices.Equal(header["content-type"], []string{"application/grpc"}) {
		t.Errorf("fields of user code: %v", header)
	}
	err := r.call(t, "ModelInfer", floats("busy", 1, 2), new(pb.ModelInferResponse), grpc.Trailer(&trailer))
	is(t, "busy", err, codes.ResourceExhausted, "the queue is full")
	if !slices.Equal(trailer["retry-after"], []string{"3"}) || !slices.Equal(trailer["grpc-retry-pushback-ms"], []string{"3000"}) {
		t.Errorf("%v", trailer)
	}
}

func TestManyRequestsAtOnceKeepTheirData(t *testing.T) {
	r := start(t, nil, "echo")
	failed := make(chan error, 16)
	for worker := range cap(failed) {
		go func() {
			var err error
			for i := 0; i < 50 && err == nil; i++ {
				value := float32(worker*1000 + i)
				var a *pb.ModelInferResponse
				a, err = r.infer(t, floats("echo", value, -value))
				if err == nil && !slices.Equal(floatsOf(t, a), []float32{value, -value}) {
					err = fmt.Errorf("asked with %v, answered %v", value, a.GetOutputs())
				}
			}
			failed <- err
		}()
	}
	for range cap(failed) {
		if err := within(t, "a client", failed); err != nil {
			t.Error(err)
		}
	}
}

func TestRequestsMayBeCompressed(t *testing.T) {
	r := start(t, nil, "echo")
	a := new(pb.ModelInferResponse)
	if err := r.call(t, "ModelInfer", floats("echo", 1, 2), a, grpc.UseCompressor(gzip.Name)); err != nil || len(a.GetOutputs()) != 1 {
		t.Errorf("%v %v", a, err)
	}
}

func TestUserCodeSeesTheClientButNotItsKey(t *testing.T) {
	keys := newKeyRing()
	key := keys.add("all", time.Time{})
	r := start(t, keys.with(t), "seen")
	ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+key, "x-tenant", "7", "data-bin", "\x00")
	q := floats("seen", 1, 2)
	q.Id = "request 7" // a space: not for logs
	a := new(pb.ModelInferResponse)
	if err := r.Invoke(ctx, "/inference.GRPCInferenceService/ModelInfer", q, a); err != nil || a.GetId() != "request 7" {
		t.Fatal(a.GetId(), err)
	}
	q.Id = "7"
	if err := r.Invoke(ctx, "/inference.GRPCInferenceService/ModelInfer", q, a); err != nil {
		t.Fatal(err)
	}
	seen := r.engine.seen
	if len(seen[0].ID) != 16 || seen[1].ID != "7" {
		t.Errorf("%q %q", seen[0].ID, seen[1].ID)
	}
	client := seen[1].Client()
	text := strings.ToLower(fmt.Sprint(client))
	if client.Path != "/inference.GRPCInferenceService/ModelInfer" || client.Address != "127.0.0.1" || !strings.Contains(text, "{x-tenant 7}") || strings.Contains(text, key) || strings.Contains(text, "data-bin") {
		t.Error(text)
	}
}

func TestTheLimitsOfTimeAreTheClients(t *testing.T) {
	r := start(t, nil, "waits")
	// The deadline of gRPC ends the request here too.
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	err := r.Invoke(ctx, "/inference.GRPCInferenceService/ModelInfer", floats("waits", 1, 2), new(pb.ModelInferResponse))
	is(t, "a deadline", err, codes.DeadlineExceeded, "")
	within(t, "the end after a deadline", r.engine.left)
	// The protocol's own parameter is answered by the server.
	q := floats("waits", 1, 2)
	q.Parameters = map[string]*pb.InferParameter{"timeout": {ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: 20_000}}}
	_, err = r.infer(t, q)
	is(t, "a timeout", err, codes.DeadlineExceeded, "no answer in time (its limit is 20ms)")
	within(t, "the end after a timeout", r.engine.left)
	r.idle(t)
}

func TestARequestEndsWithItsClient(t *testing.T) {
	r := start(t, nil, "waits")
	ask := func(conn *grpc.ClientConn, ctx context.Context) <-chan error { //nolint:revive // the connection is the subject
		done := make(chan error, 1)
		go func() {
			done <- conn.Invoke(ctx, "/inference.GRPCInferenceService/ModelInfer", floats("waits", 1, 2), new(pb.ModelInferResponse))
		}()
		for r.core.Status().Endpoints[0].InUse == 0 {
			time.Sleep(time.Millisecond)
		}
		return done
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := ask(r.ClientConn, ctx)
	cancel()
	within(t, "the end after a cancellation", r.engine.left)
	is(t, "cancelled", within(t, "its client", done), codes.Canceled, "")
	r.idle(t)
	other := dial(t, r.addr)
	done = ask(other, context.Background())
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	within(t, "the end after a disconnect", r.engine.left)
	_ = within(t, "its client", done) // it has closed its connection
	r.idle(t)
	if e := r.core.Status().Endpoints[0]; e.Errors != 0 {
		t.Errorf("%d errors", e.Errors)
	}
}

func TestALargeMessageIsRefusedBeforeItIsRead(t *testing.T) {
	r := start(t, func(_ *inference.Options, f *grpcfront.Options) { f.MaxBody = 1000 }, "echo")
	q := &pb.ModelInferRequest{ModelName: "echo", RawInputContents: [][]byte{make([]byte, 2000)}}
	_, err := r.infer(t, q)
	is(t, "a large message", err, codes.ResourceExhausted, "received message larger than max (2009 vs. 1000)")
	// A small message that becomes large.
	err = r.call(t, "ModelInfer", q, new(pb.ModelInferResponse), grpc.UseCompressor(gzip.Name))
	is(t, "a compressed message", err, codes.ResourceExhausted, "after decompression larger than max 1000")
	if _, err := r.infer(t, floats("echo", 1, 2)); err != nil {
		t.Errorf("the next request: %v", err)
	}
}

func TestTheMessagesOfAllRequestsTogetherAreBounded(t *testing.T) {
	r := start(t, func(_ *inference.Options, f *grpcfront.Options) { f.MaxBody = 1 << 20 }, "waits")
	q := &pb.ModelInferRequest{
		ModelName: "waits", Inputs: []*pb.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: "FP32", Shape: []int64{1 << 16, 2}}}, RawInputContents: [][]byte{make([]byte, 1<<19)},
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	done := make(chan error, 40)
	for i := range cap(done) {
		go func() {
			done <- r.Invoke(ctx, "/inference.GRPCInferenceService/ModelInfer", q, new(pb.ModelInferResponse))
		}()
		for i < 15 && r.core.Status().Endpoints[0].InUse <= int64(i) { // messages that arrive at once may be refused for that
			time.Sleep(time.Millisecond)
		}
	}
	for range cap(done) - 15 { // 15 messages of half the limit are held
		is(t, "one too many", within(t, "an answer", done), codes.ResourceExhausted, "Too many large requests")
	}
	cancel()
	for range 15 {
		is(t, "one that is held", within(t, "an answer", done), codes.Canceled, "")
	}
	r.idle(t)
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) { // its memory is free again
		q.Parameters = map[string]*pb.InferParameter{"timeout": {ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: 1000}}}
		_, err := r.infer(t, q)
		if status.Code(err) == codes.DeadlineExceeded {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// raw is a request with one input of many bytes.
func raw(model string, rows int) *pb.ModelInferRequest {
	return &pb.ModelInferRequest{
		ModelName: model, Inputs: []*pb.ModelInferRequest_InferInputTensor{{Name: "x", Datatype: "FP32", Shape: []int64{int64(rows), 2}}},
		RawInputContents: [][]byte{make([]byte, rows*8)},
	}
}

// Requests that fail in unusual ways count no longer among those that are held.
func TestRequestsThatFailAreNotHeld(t *testing.T) {
	r := start(t, func(_ *inference.Options, f *grpcfront.Options) { f.MaxBody = 1000 }, "panics", "refuses")
	for range 12 { // more than may be held
		_, err := r.infer(t, raw("panics", 100))
		is(t, "a request that panics", err, codes.Internal, "Internal Server Error")
	}
	for range 12 {
		s := r.stream(t)
		send(t, s, raw("panics", 100))
		_, err := next(t, s)
		is(t, "a stream that panics", err, codes.Internal, "Internal Server Error")
	}
	for range 12 {
		s := r.stream(t, "triton_grpc_error", "true")
		send(t, s, raw("refuses", 100))
		_, err := next(t, s)
		is(t, "a stream that an error ends", err, codes.InvalidArgument, "column 'a' is missing")
	}
}

// The key of a client may be for one endpoint, which counts what it is refused.
func TestOneMessageTooManyIsRefusedForItsEndpoint(t *testing.T) {
	keys := newKeyRing()
	one := "Bearer " + keys.add("one", time.Time{}, "waits")
	r := start(t, func(o *inference.Options, f *grpcfront.Options) {
		keys.with(t)(o, f)
		f.MaxBody = 1000
	}, "waits")
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(context.Background(), "authorization", one))
	defer cancel()
	done := make(chan error, 12)
	for range cap(done) {
		go func() {
			done <- r.Invoke(ctx, "/inference.GRPCInferenceService/ModelInfer", raw("waits", 100), new(pb.ModelInferResponse))
		}()
	}
	is(t, "one too many", within(t, "an answer", done), codes.ResourceExhausted, "Too many large requests")
	if e := r.core.Status().Endpoints[0]; e.Refused == 0 {
		t.Errorf("%+v", e)
	}
}

func TestGarbageIsAnInvalidArgument(t *testing.T) {
	r := start(t, nil, "echo")
	for name, garbage := range map[string][]byte{
		"garbage": []byte("\xff\xff\xff garbage"), "half a message": marshal(t, floats("echo", 1, 2))[:20], "JSON": []byte(`{"model_name": "echo"}`),
	} {
		for _, method := range []string{"ModelInfer", "ModelReady"} {
			err := r.call(t, method, garbage, nil, grpc.ForceCodecV2(rawCodec{}))
			if code := status.Code(err); code != codes.InvalidArgument && (method == "ModelInfer" || code != codes.NotFound) { // half of it may be a request of the other
				t.Errorf("%s to %s: %v", name, method, err)
			}
		}
	}
	// A message that is broken behind the name of the model counts as a bad request to it.
	broken := append(marshal(t, &pb.ModelInferRequest{ModelName: "echo"}), 0xff)
	is(t, "broken at its end", r.call(t, "ModelInfer", broken, nil, grpc.ForceCodecV2(rawCodec{})), codes.InvalidArgument, "its protobuf is broken")
	if e := r.core.Status().Endpoints[0]; e.BadRequests == 0 {
		t.Errorf("%+v", e)
	}
}

// stream opens ModelStreamInfer.
func (r *running) stream(t *testing.T, fields ...string) grpc.ClientStream {
	t.Helper()
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(context.Background(), fields...), patience)
	t.Cleanup(cancel)
	s, err := r.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/inference.GRPCInferenceService/ModelStreamInfer")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func next(t *testing.T, s grpc.ClientStream) (*pb.ModelStreamInferResponse, error) {
	t.Helper()
	a := new(pb.ModelStreamInferResponse)
	return a, s.RecvMsg(a)
}

func send(t *testing.T, s grpc.ClientStream, q *pb.ModelInferRequest) {
	t.Helper()
	if err := s.SendMsg(q); err != nil {
		t.Fatal(err)
	}
}

func final(a *pb.ModelStreamInferResponse) bool {
	return a.GetInferResponse().GetParameters()["triton_final_response"].GetBoolParam()
}

func TestAStreamAnswersEachRequestAndGoesOnAfterErrors(t *testing.T) {
	r := start(t, nil, "echo", "refuses", "stream", "cut", "panics")
	s := r.stream(t)
	for i := range 10 {
		send(t, s, floats("echo", float32(i), 0))
	}
	for i := range 10 {
		a, err := next(t, s)
		if err != nil || a.GetErrorMessage() != "" || !final(a) || floatsOf(t, a.GetInferResponse())[0] != float32(i) {
			t.Fatalf("%d: %v %v", i, a, err)
		}
	}
	for model, want := range map[string]string{"refuses": "column 'a' is missing", "nobody": "endpoint 'nobody' not found"} {
		send(t, s, floats(model, 1, 2))
		if a, err := next(t, s); err != nil || !strings.Contains(a.GetErrorMessage(), want) || a.GetInferResponse().GetId() != "7" {
			t.Errorf("%s: %v %v", model, a, err)
		}
	}
	// A streamed answer comes in pieces; the empty message at its end only if the client asks for it.
	for _, ends := range []bool{false, true} {
		q := floats("stream", 1, 2)
		q.Parameters = map[string]*pb.InferParameter{"triton_enable_empty_final_response": {ParameterChoice: &pb.InferParameter_BoolParam{BoolParam: ends}}}
		send(t, s, q)
		for _, piece := range []string{"one ", "two ", "three"} {
			a, err := next(t, s)
			if err != nil || final(a) || string(a.GetInferResponse().GetRawOutputContents()[0][4:]) != piece {
				t.Fatalf("%q: %v %v", piece, a, err)
			}
		}
		outputs := 0
		if !ends { // the next message is the next request's
			send(t, s, floats("echo", 5, 5))
			outputs = 1
		}
		if a, err := next(t, s); err != nil || !final(a) || len(a.GetInferResponse().GetOutputs()) != outputs {
			t.Errorf("%t: %v %v", ends, a, err)
		}
	}
	send(t, s, floats("cut", 1, 2))
	if a, err := next(t, s); err != nil || a.GetErrorMessage() != "" {
		t.Errorf("%v %v", a, err)
	}
	if a, err := next(t, s); err != nil || !strings.Contains(a.GetErrorMessage(), "the process died") || !final(a) {
		t.Errorf("%v %v", a, err)
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := next(t, s); !errors.Is(err, io.EOF) {
		t.Errorf("the end: %v", err)
	}
	// A unary request gets a streamed answer whole.
	a, err := r.infer(t, floats("stream", 1, 2))
	if err != nil || string(a.GetRawOutputContents()[0][4:]) != "one two three" {
		t.Errorf("%v %v", a, err)
	}
	s = r.stream(t)
	send(t, s, floats("panics", 1, 2))
	_, err = next(t, s)
	is(t, "a panic", err, codes.Internal, "Internal Server Error")
	r.idle(t)
}

func TestEachPieceOfAStreamOfTensorsIsAnAnswer(t *testing.T) {
	r := start(t, nil, "parts")
	s := r.stream(t)
	for range 2 {
		send(t, s, floats("parts", 1, 2))
		for _, piece := range []string{"a", "bc"} {
			a, err := next(t, s)
			out := a.GetInferResponse()
			if err != nil || len(out.GetOutputs()) != 1 || out.GetOutputs()[0].GetName() != "out" || out.GetOutputs()[0].GetDatatype() != "UINT8" || string(out.GetRawOutputContents()[0]) != piece {
				t.Fatalf("%q: %v %v", piece, a, err)
			}
		}
	}
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	for range 5 { // a request of a stream leaves nothing to a unary one
		if a, err := r.infer(t, floats("parts", 1, 2)); err != nil || a.GetOutputs()[0].GetName() != "x" {
			t.Errorf("%v %v", a, err)
		}
	}
}

func TestAClientMayWantErrorsToEndItsStream(t *testing.T) {
	r := start(t, nil, "echo", "refuses")
	s := r.stream(t, "triton_grpc_error", "true")
	send(t, s, floats("echo", 1, 2))
	if a, err := next(t, s); err != nil || a.GetErrorMessage() != "" {
		t.Fatalf("%v %v", a, err)
	}
	send(t, s, floats("refuses", 1, 2))
	_, err := next(t, s)
	is(t, "an error", err, codes.InvalidArgument, "column 'a' is missing")
}

func TestAClientThatDoesNotReadItsStreamIsCut(t *testing.T) {
	r := startPatient(t, 200*time.Millisecond, nil, "endless")
	send(t, r.stream(t), floats("endless", float32(math.NaN()), 2))
	within(t, "the end of the answer", r.engine.left)
	r.idle(t)
}

func TestAClientThatLeavesItsStreamEndsIt(t *testing.T) {
	r := start(t, nil, "endless")
	conn := dial(t, r.addr)
	other := *r
	other.ClientConn = conn
	s := other.stream(t)
	send(t, s, floats("endless", 1, 2))
	if _, err := next(t, s); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	within(t, "the end of the answer", r.engine.left)
	r.idle(t)
}
