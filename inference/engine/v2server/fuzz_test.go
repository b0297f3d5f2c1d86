package v2server

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/grpcfront/pb"
)

// FuzzAnswer reads bytes as the answer of a server: what is accepted are whole tensors.
func FuzzAnswer(f *testing.F) {
	for _, m := range []proto.Message{
		&pb.ModelInferResponse{
			ModelName: "m", Parameters: map[string]*pb.InferParameter{"triton_final_response": {ParameterChoice: &pb.InferParameter_BoolParam{BoolParam: true}}},
			Outputs:           []*pb.ModelInferResponse_InferOutputTensor{{Name: "y", Datatype: "FP32", Shape: []int64{2}}, {Name: "z", Datatype: "BYTES", Shape: []int64{1}}},
			RawOutputContents: [][]byte{make([]byte, 8), []byte("\x01\x00\x00\x00a")},
		},
		&pb.ModelInferResponse{Outputs: []*pb.ModelInferResponse_InferOutputTensor{{Name: "y", Datatype: "INT64", Shape: []int64{2}, Contents: &pb.InferTensorContents{Int64Contents: []int64{1, 2}}}}},
		&pb.ModelStreamInferResponse{ErrorMessage: "no"},
	} {
		message, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(message)
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		for _, read := range []func() (answer, error){
			func() (a answer, err error) { err = a.parse(message); return a, err },
			func() (answer, error) { return read(&piece{message}) },
		} {
			a, err := read()
			if err != nil {
				continue
			}
			for i := range a.outputs {
				if err := a.outputs[i].Check(); err != nil {
					t.Errorf("accepted: %v", err)
				}
			}
			q := question{inputs: a.outputs}
			if n := len(q.marshal(nil)); n != q.size() {
				t.Errorf("a message of %d bytes has the size %d", n, q.size())
			}
		}
	})
}

// TestAQuestionIsWhatProtobufReads compares the message with that of the generated code.
func TestAQuestionIsWhatProtobufReads(t *testing.T) {
	q := &question{
		model: "m", version: "2", id: "q", contentType: "pd", parameters: []byte(`{"a": true}`), outputs: []string{"y", ""},
		inputs: []engine.Tensor{{Name: "x", Datatype: engine.Int64, Shape: []int64{300}, Data: make([]byte, 2400), ContentType: "np"}, {Name: "s", Datatype: engine.Bool, Data: []byte{1}}},
	}
	if err := q.prepare(); err != nil {
		t.Fatal(err)
	}
	message := q.marshal(nil)
	if len(message) != q.size() {
		t.Errorf("%d bytes, size %d", len(message), q.size())
	}
	var got pb.ModelInferRequest
	if err := proto.Unmarshal(message, &got); err != nil {
		t.Fatal(err)
	}
	want := &pb.ModelInferRequest{
		ModelName: "m", ModelVersion: "2", Id: "q", Parameters: map[string]*pb.InferParameter{
			"content_type": {ParameterChoice: &pb.InferParameter_StringParam{StringParam: "pd"}}, "a": {ParameterChoice: &pb.InferParameter_BoolParam{BoolParam: true}},
		},
		Inputs: []*pb.ModelInferRequest_InferInputTensor{
			{Name: "x", Datatype: "INT64", Shape: []int64{300}, Parameters: map[string]*pb.InferParameter{"content_type": {ParameterChoice: &pb.InferParameter_StringParam{StringParam: "np"}}}},
			{Name: "s", Datatype: "BOOL"},
		},
		Outputs:          []*pb.ModelInferRequest_InferRequestedOutputTensor{{Name: "y"}, {}},
		RawInputContents: [][]byte{make([]byte, 2400), {1}},
	}
	if !proto.Equal(&got, want) {
		t.Errorf("%v", &got)
	}
}
