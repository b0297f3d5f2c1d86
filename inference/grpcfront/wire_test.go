package grpcfront

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/grpcfront/pb"
	v2 "clearmlserving/inference/v2"
	"clearmlserving/inference/v2/wire"
)

// decoded reads a message as the codec does.
func decoded(tb testing.TB, m *pb.ModelInferRequest) *request {
	tb.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		tb.Fatal(err)
	}
	return readOf(b)
}

// readOf reads a message.
func readOf(b []byte) *request {
	r := &request{limit: 1 << 20}
	r.read(b)
	return r
}

// asIs makes a buffer of data that nobody watches.
func asIs(data []byte) mem.Buffer { return mem.SliceBuffer(data) }

func input(name, datatype string, shape []int64, c *pb.InferTensorContents) *pb.ModelInferRequest_InferInputTensor {
	return &pb.ModelInferRequest_InferInputTensor{Name: name, Datatype: datatype, Shape: shape, Contents: c}
}

func TestTypedContentsBecomeTheDataOfTheirDatatype(t *testing.T) {
	le := func(values ...any) []byte {
		var b bytes.Buffer
		for _, v := range values {
			if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
				t.Fatal(err)
			}
		}
		return b.Bytes()
	}
	nan := float32(math.NaN())
	for _, tc := range []struct {
		datatype string
		contents *pb.InferTensorContents
		want     []byte
	}{
		{"BOOL", &pb.InferTensorContents{BoolContents: []bool{true, false, true}}, []byte{1, 0, 1}},
		{"INT8", &pb.InferTensorContents{IntContents: []int32{-128, 0, 127}}, le(int8(-128), int8(0), int8(127))},
		{"INT16", &pb.InferTensorContents{IntContents: []int32{-32768, 7}}, le(int16(-32768), int16(7))},
		{"INT32", &pb.InferTensorContents{IntContents: []int32{math.MinInt32, math.MaxInt32}}, le(int32(math.MinInt32), int32(math.MaxInt32))},
		{"INT64", &pb.InferTensorContents{Int64Contents: []int64{math.MinInt64, 1}}, le(int64(math.MinInt64), int64(1))},
		{"UINT8", &pb.InferTensorContents{UintContents: []uint32{0, 1, 255}}, []byte{0, 1, 255}},
		{"UINT8", &pb.InferTensorContents{UintContents: []uint32{3, 4}}, []byte{3, 4}},
		{"UINT16", &pb.InferTensorContents{UintContents: []uint32{65535}}, le(uint16(65535))},
		{"UINT32", &pb.InferTensorContents{UintContents: []uint32{math.MaxUint32}}, le(uint32(math.MaxUint32))},
		{"UINT64", &pb.InferTensorContents{Uint64Contents: []uint64{math.MaxUint64}}, le(uint64(math.MaxUint64))},
		{"FP32", &pb.InferTensorContents{Fp32Contents: []float32{1.5, nan}}, le(float32(1.5), nan)},
		{"FP64", &pb.InferTensorContents{Fp64Contents: []float64{math.Inf(-1)}}, le(math.Inf(-1))},
		{"BYTES", &pb.InferTensorContents{BytesContents: [][]byte{[]byte("ab"), {}, {0xff}}}, []byte("\x02\x00\x00\x00ab\x00\x00\x00\x00\x01\x00\x00\x00\xff")},
	} {
		count := len(tc.want)
		switch size := engine.Datatype(tc.datatype).Size(); size {
		case 0:
			count = 3
		default:
			count /= int(size)
		}
		r := decoded(t, &pb.ModelInferRequest{Inputs: []*pb.ModelInferRequest_InferInputTensor{input("x", tc.datatype, []int64{int64(count)}, tc.contents)}})
		if r.broken != nil {
			t.Errorf("%s: %v", tc.datatype, r.broken)
			continue
		}
		if got := r.Inputs[0].Data; !bytes.Equal(got, tc.want) {
			t.Errorf("%s: %x, want %x", tc.datatype, got, tc.want)
		}
	}
}

func TestUnpackedContentsAreRead(t *testing.T) {
	// A sender may write a repeated number as a field for each element.
	var contents, tensor, message []byte
	for _, f := range []float32{1, 2} {
		contents = protowire.AppendFixed32(protowire.AppendTag(contents, 6, protowire.Fixed32Type), math.Float32bits(f))
	}
	tensor = protowire.AppendString(protowire.AppendTag(tensor, 1, protowire.BytesType), "x")
	tensor = protowire.AppendString(protowire.AppendTag(tensor, 2, protowire.BytesType), "FP32")
	tensor = protowire.AppendVarint(protowire.AppendTag(tensor, 3, protowire.VarintType), 2)
	tensor = protowire.AppendVarint(protowire.AppendTag(tensor, 3, protowire.VarintType), 1)
	tensor = protowire.AppendBytes(protowire.AppendTag(tensor, 5, protowire.BytesType), contents)
	message = protowire.AppendBytes(protowire.AppendTag(message, 5, protowire.BytesType), tensor)
	r := readOf(message)
	if r.broken != nil || !slices.Equal(r.Inputs[0].Shape, []int64{2, 1}) || !bytes.Equal(r.Inputs[0].Data, []byte{0, 0, 128, 63, 0, 0, 0, 64}) {
		t.Errorf("%v %v", r.broken, r.Inputs)
	}
}

func TestEmptyContentsBesideRawOnesAreNone(t *testing.T) {
	r := decoded(t, &pb.ModelInferRequest{Inputs: []*pb.ModelInferRequest_InferInputTensor{input("x", "INT8", []int64{1}, &pb.InferTensorContents{})}, RawInputContents: [][]byte{{7}}})
	if r.broken != nil || r.Inputs[0].Data[0] != 7 {
		t.Errorf("%v", r.broken)
	}
}

func TestRawContentsAreReadInPlaceAndLargeAnswersAreNotCopied(t *testing.T) {
	data := make([]byte, 64<<10)
	message, err := proto.Marshal(&pb.ModelInferRequest{
		ModelName: "m", Inputs: []*pb.ModelInferRequest_InferInputTensor{input("x", "UINT8", []int64{64 << 10}, nil)}, RawInputContents: [][]byte{data},
	})
	if err != nil {
		t.Fatal(err)
	}
	r := readOf(message)
	if r.broken != nil || &r.Inputs[0].Data[0] != &message[len(message)-len(data)] {
		t.Errorf("it is copied: %v", r.broken)
	}
	out := (&response{outputs: []engine.Tensor{{Name: "y", Datatype: engine.Uint8, Shape: []int64{64 << 10}, Data: data}}}).marshal(func([]byte) bool { return false }, asIs)
	if len(out) != 2 || &out[1].ReadOnlyData()[0] != &data[0] {
		t.Error("the answer is copied")
	}
	out = (&response{outputs: r.Inputs}).marshal(func([]byte) bool { return true }, asIs)
	if &out[1].ReadOnlyData()[0] == &r.Inputs[0].Data[0] {
		t.Error("data that is borrowed from the request is not copied")
	}
}

func TestBrokenRequestsAreRefusedByName(t *testing.T) {
	raw := func(shape []int64, data ...[]byte) *pb.ModelInferRequest {
		return &pb.ModelInferRequest{Inputs: []*pb.ModelInferRequest_InferInputTensor{input("x", "FP32", shape, nil)}, RawInputContents: data}
	}
	typed := func(datatype string, shape []int64, c *pb.InferTensorContents) *pb.ModelInferRequest {
		return &pb.ModelInferRequest{Inputs: []*pb.ModelInferRequest_InferInputTensor{input("x", datatype, shape, c)}}
	}
	many := raw([]int64{1}, make([]byte, 4))
	for range wire.MaxTensors {
		many.Inputs = append(many.Inputs, input("y", "FP32", nil, nil))
	}
	parameters := &pb.ModelInferRequest{Parameters: map[string]*pb.InferParameter{}}
	for i := range maxParameters + 1 {
		parameters.Parameters[fmt.Sprint(i)] = &pb.InferParameter{}
	}
	shared := raw([]int64{1})
	shared.Inputs[0].Parameters = map[string]*pb.InferParameter{"shared_memory_region": {ParameterChoice: &pb.InferParameter_StringParam{StringParam: "r"}}}
	soon := raw([]int64{1}, make([]byte, 4))
	soon.Parameters = map[string]*pb.InferParameter{"timeout": {ParameterChoice: &pb.InferParameter_StringParam{StringParam: "soon"}}}
	twice := raw([]int64{1}, make([]byte, 4), make([]byte, 4))
	twice.Inputs = append(twice.Inputs, input("x", "FP32", []int64{1}, nil))
	asked := raw([]int64{1}, make([]byte, 4))
	asked.Outputs = []*pb.ModelInferRequest_InferRequestedOutputTensor{{Name: "y"}, {Name: "y"}}
	for name, tc := range map[string]struct {
		m    *pb.ModelInferRequest
		want string
	}{
		"data shorter than its shape": {raw([]int64{2}, make([]byte, 4)), "input 'x': it has 4 bytes of data, but its shape [2] of FP32 takes 8"},
		"data longer than its shape":  {raw([]int64{1}, make([]byte, 8)), "it has 8 bytes of data"},
		"no data":                     {raw([]int64{1}), "it has 0 bytes of data"},
		"a negative dimension":        {raw([]int64{-1, 4}, make([]byte, 4)), "negative dimension"},
		"dimensions that overflow":    {raw([]int64{1 << 40, 1 << 40}, make([]byte, 4)), "too many elements"},
		"bytes that overflow":         {raw([]int64{1 << 62}, make([]byte, 4)), "takes far more"},
		"many dimensions":             {raw(slices.Repeat([]int64{1}, engine.MaxRank+1), make([]byte, 4)), "more than 64 dimensions"},
		"more data than inputs":       {raw([]int64{1}, make([]byte, 4), nil), "2 raw_input_contents for 1 inputs"},
		"raw and typed data": {func() *pb.ModelInferRequest {
			m := typed("FP32", []int64{1}, &pb.InferTensorContents{Fp32Contents: []float32{1}})
			m.RawInputContents = [][]byte{{1}}
			return m
		}(), "both raw_input_contents and contents"},
		"an unknown datatype":              {typed("FP8", []int64{1}, nil), `input 'x': its datatype "FP8" is not known`},
		"typed contents of FP16":           {typed("FP16", []int64{1}, &pb.InferTensorContents{Fp32Contents: []float32{1}}), "send it in raw_input_contents"},
		"contents of another datatype":     {typed("FP32", []int64{1}, &pb.InferTensorContents{IntContents: []int32{1}}), "its datatype FP32 needs fp32_contents, not int_contents"},
		"too few elements":                 {typed("INT64", []int64{3}, &pb.InferTensorContents{Int64Contents: []int64{1 << 40, 2}}), "2 elements, but its shape [3] has 3"},
		"too many elements":                {typed("INT64", []int64{1}, &pb.InferTensorContents{Int64Contents: []int64{1, 2}}), "more elements than its shape"},
		"a huge shape without elements":    {typed("INT64", []int64{1 << 40}, &pb.InferTensorContents{Int64Contents: []int64{1, 2}}), "fewer elements than its shape"},
		"an element out of range":          {typed("INT8", []int64{1}, &pb.InferTensorContents{IntContents: []int32{128}}), "its element 128 is out of the range of INT8"},
		"an unsigned element out of range": {typed("UINT16", []int64{1}, &pb.InferTensorContents{UintContents: []uint32{1 << 16}}), "out of the range of UINT16"},
		"many inputs":                      {many, "more than 16384 inputs"},
		"many parameters":                  {parameters, "more than 1024 parameters"},
		"shared memory":                    {shared, "send the tensor"},
		"a timeout that is no number":      {soon, "timeout of the request is soon"},
		"two inputs of one name":           {twice, "two inputs with the name 'x'"},
		"two outputs of one name":          {asked, "'y' twice"},
		"text that is no UTF-8":            {nil, "not valid UTF-8"},
	} {
		r := new(request)
		if tc.m == nil {
			r = readOf([]byte("\x0a\x02a\xff"))
		} else {
			r = decoded(t, tc.m)
		}
		if r.broken == nil || !strings.Contains(r.broken.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, r.broken, tc.want)
		}
	}
	// Elements that take one byte on the wire and eight as data: the limit holds before they are made.
	r := decoded(t, typed("INT64", []int64{200_000}, &pb.InferTensorContents{Int64Contents: make([]int64, 200_000)}))
	if r.broken == nil || !strings.Contains(r.broken.Error(), "larger than the limit of 1048576 bytes") {
		t.Error(r.broken)
	}
}

func TestParametersReachTheModel(t *testing.T) {
	r := decoded(t, &pb.ModelInferRequest{Parameters: map[string]*pb.InferParameter{
		"a": {ParameterChoice: &pb.InferParameter_BoolParam{BoolParam: true}}, "b": {ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: -5}},
		"c": {ParameterChoice: &pb.InferParameter_StringParam{StringParam: "x\"y"}}, "d": {ParameterChoice: &pb.InferParameter_DoubleParam{DoubleParam: 2.5}},
		"e": {ParameterChoice: &pb.InferParameter_Uint64Param{Uint64Param: math.MaxUint64}}, "f": {},
		"content_type": {ParameterChoice: &pb.InferParameter_StringParam{StringParam: "pd"}},
		"timeout":      {ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: 1500}},
		"nan":          {ParameterChoice: &pb.InferParameter_DoubleParam{DoubleParam: math.NaN()}},
	}})
	var got map[string]any
	if err := json.Unmarshal(r.Parameters, &got); err != nil || r.broken != nil {
		t.Fatal(err, r.broken)
	}
	if text := fmt.Sprint(got); text != "map[a:true b:-5 c:x\"y content_type:pd d:2.5 e:1.8446744073709552e+19 f:<nil> nan:<nil> timeout:1500]" {
		t.Error(text)
	}
	if r.ContentType != "pd" || r.Timeout != 1500*time.Microsecond {
		t.Error(r.ContentType, r.Timeout)
	}
}

// Parameters are compared with each other, so that their number on the wire is bounded.
func TestTheEntriesOfParametersAreBounded(t *testing.T) {
	one := []byte{0x22, 0x03, 0x0a, 0x01, 'a'}
	if r := readOf(bytes.Repeat(one, maxParameters)); r.broken != nil {
		t.Error(r.broken)
	}
	if r := readOf(bytes.Repeat(one, maxParameters+1)); r.broken == nil || !strings.Contains(r.broken.Error(), "more than 1024 parameters") {
		t.Error(r.broken)
	}
}

// The first piece of a message may end anywhere.
func TestANameIsReadOnlyIfItIsWhole(t *testing.T) {
	message, err := proto.Marshal(&pb.ModelInferRequest{ModelName: "m", ModelVersion: "12", Id: "7"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(message) + 1 {
		model, version := nameIn(message[:i])
		if (model != "" || version != "") && (model != "m" || version != "12") {
			t.Errorf("of %d bytes: %q %q", i, model, version)
		}
		if i == len(message) && model != "m" {
			t.Error("the whole message has no name")
		}
	}
}

// FuzzRequest compares the reader of requests with protobuf's: what it takes, protobuf takes, with the
// same content. It also compares the writer of answers.
func FuzzRequest(f *testing.F) {
	for _, m := range []*pb.ModelInferRequest{
		{ModelName: "m", ModelVersion: "2", Id: "7", Inputs: []*pb.ModelInferRequest_InferInputTensor{input("x", "FP32", []int64{1, 2}, nil)}, RawInputContents: [][]byte{make([]byte, 8)}},
		{ModelName: "m", Inputs: []*pb.ModelInferRequest_InferInputTensor{
			input("a", "INT8", []int64{2}, &pb.InferTensorContents{IntContents: []int32{-1, 5}}), input("b", "BYTES", []int64{2}, &pb.InferTensorContents{BytesContents: [][]byte{{1}, nil}}),
			input("c", "BOOL", []int64{1}, &pb.InferTensorContents{BoolContents: []bool{true}}), input("d", "UINT64", []int64{1, 1}, &pb.InferTensorContents{Uint64Contents: []uint64{math.MaxUint64}}),
			input("e", "FP64", nil, &pb.InferTensorContents{Fp64Contents: []float64{2}}),
		}, Outputs: []*pb.ModelInferRequest_InferRequestedOutputTensor{{Name: "y", Parameters: map[string]*pb.InferParameter{"classification": {ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: 2}}}}}},
		{Parameters: map[string]*pb.InferParameter{"content_type": {ParameterChoice: &pb.InferParameter_StringParam{StringParam: "pd"}}, "d": {ParameterChoice: &pb.InferParameter_DoubleParam{DoubleParam: 1}}}},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{0x2a, 0x04, 0x2a, 0x00, 0x2a, 0x00})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := readOf(b)
		if r.broken != nil {
			return
		}
		m := new(pb.ModelInferRequest)
		if err := proto.Unmarshal(b, m); err != nil {
			t.Fatalf("protobuf refuses it: %v", err)
		}
		if r.model != m.GetModelName() || r.version != m.GetModelVersion() || r.ID != m.GetId() || len(r.Inputs) != len(m.GetInputs()) || len(r.Outputs) != len(m.GetOutputs()) {
			t.Fatalf("%+v, want %v", r, m)
		}
		for i, in := range m.GetInputs() {
			got := &r.Inputs[i]
			if got.Name != in.GetName() || string(got.Datatype) != in.GetDatatype() || !slices.Equal(got.Shape, in.GetShape()) {
				t.Fatalf("%+v, want %v", got, in)
			}
			if err := v2.CheckData(got); err != nil {
				t.Fatal(err)
			}
			if len(m.GetRawInputContents()) > 0 && !bytes.Equal(got.Data, m.GetRawInputContents()[i]) {
				t.Fatalf("input %d has %x", i, got.Data)
			}
		}
		answer := new(pb.ModelInferResponse)
		resp := response{model: r.model, id: r.ID, outputs: r.Inputs}
		if err := proto.Unmarshal(resp.marshal(r.holds, asIs).Materialize(), answer); err != nil {
			t.Fatalf("protobuf refuses the answer: %v", err)
		}
		if len(answer.GetOutputs()) != len(r.Inputs) || len(answer.GetRawOutputContents()) != len(r.Inputs) {
			t.Fatalf("%d outputs", len(answer.GetOutputs()))
		}
		for i, out := range answer.GetOutputs() {
			in := &r.Inputs[i]
			if out.GetName() != in.Name || out.GetDatatype() != string(in.Datatype) || !slices.Equal(out.GetShape(), in.Shape) || !bytes.Equal(answer.GetRawOutputContents()[i], in.Data) {
				t.Fatalf("%v, want %v", out, in)
			}
		}
	})
}

// BenchmarkDecode compares the reader of requests with protobuf's, for one row and for a large
// tensor.
func BenchmarkDecode(b *testing.B) {
	for name, rows := range map[string]int{"1 row": 1, "1 MB": 1 << 20 / 80} {
		message, err := proto.Marshal(&pb.ModelInferRequest{
			ModelName: "test_model", Id: "1", Inputs: []*pb.ModelInferRequest_InferInputTensor{input("input-0", "FP32", []int64{int64(rows), 20}, nil)},
			RawInputContents: [][]byte{make([]byte, rows*80)},
		})
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name+"/by hand", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r, _ := requests.Get().(*request)
				r.limit = 1 << 30
				if r.read(message); r.broken != nil {
					b.Fatal(r.broken)
				}
				r.release()
				requests.Put(r)
			}
		})
		b.Run(name+"/protobuf", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := proto.Unmarshal(message, new(pb.ModelInferRequest)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
