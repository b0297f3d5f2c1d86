package v2_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"clearmlserving/inference/engine"
	v2 "clearmlserving/inference/v2"
)

func TestARequestForAnotherServerIsWhatServersRead(t *testing.T) {
	asked := &v2.Request{
		ID: "q", ContentType: "pd", Parameters: []byte(`{"binary_data_output": false, "content_type": "x", "seed": 7}`), Outputs: []v2.Output{{Name: "y"}, {Name: "z\""}},
		Inputs: []engine.Tensor{
			{Name: "x", Datatype: engine.FP32, Shape: []int64{1, 2}, Data: []byte{0, 0, 128, 63, 0, 0, 0, 64}},
			{Name: "s", Datatype: engine.Bytes, Shape: []int64{1}, ContentType: "str", Data: []byte("\x02\x00\x00\x00h\"")},
		},
	}
	for _, binary := range []bool{false, true} {
		body, header, err := asked.Append(nil, binary)
		if err != nil || (header != v2.WholeBody) != binary {
			t.Fatalf("%d, %v", header, err)
		}
		got, err := v2.ParseRequest(body, header, 1000)
		if err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		if got.ID != "q" || got.ContentType != "pd" || !bytes.Contains(got.Parameters, []byte(`"seed":7`)) || strings.Join(got.Names(), " ") != `y z"` || got.BinaryOutput != binary || got.Outputs[1].Binary != binary {
			t.Errorf("%+v of %s", got, body)
		}
		for i, in := range got.Inputs {
			want := asked.Inputs[i]
			if in.Name != want.Name || in.Datatype != want.Datatype || !bytes.Equal(in.Data, want.Data) || in.ContentType != want.ContentType {
				t.Errorf("%+v, want %+v", in, want)
			}
		}
	}
	asked.Inputs[0] = engine.Tensor{Name: "h", Datatype: engine.FP16, Shape: []int64{1}, Data: []byte{0, 0}}
	if _, _, err := asked.Append(nil, false); err == nil || !strings.Contains(err.Error(), "input 'h'") {
		t.Errorf("FP16 in JSON: %v", err)
	}
}

func TestAnAnswerOfAnotherServerIsChecked(t *testing.T) {
	good := `{"model_name":"m","model_version":"1","id":null,"parameters":{"content_type":"pd"},"outputs":[{"name":"y","shape":[2],"datatype":"INT64","data":[1,2]}]}`
	r, err := v2.ParseResponse([]byte(good), v2.WholeBody, 1000)
	if err != nil || r.Model != "m" || r.ContentType != "pd" || len(r.Outputs) != 1 || len(r.Outputs[0].Data) != 16 {
		t.Fatalf("%+v, %v", r, err)
	}
	for body, want := range map[string]string{
		`{}`: "no outputs", `[]`: "the answer", ``: "ends", `{"outputs":[{"name":"y","shape":[2],"datatype":"INT64","data":[1]}]}`: "output 'y'",
		`{"outputs":[{"name":"y","shape":[1000000000],"datatype":"INT64","data":[1]}]}`: "larger than the limit", `{"outputs":[{"name":"y"}]}`: "output 0 has no shape",
		`{"outputs":[{"name":"y","shape":[0],"datatype":"INT8","data":[]},{"name":"y","shape":[0],"datatype":"INT8","data":[]}]}`: "two outputs",
	} {
		_, err := v2.ParseResponse([]byte(body), v2.WholeBody, 1000)
		if _, ok := errors.AsType[*engine.Error](err); !ok || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", body, err, want)
		}
	}
	if _, err := v2.ParseResponse([]byte(good+"x"), len(good), 1000); err == nil || !strings.Contains(err.Error(), "1 bytes of binary data") {
		t.Errorf("%v", err)
	}
	if _, err := v2.ParseResponse([]byte(good), 10_000, 1000); err == nil {
		t.Error("a header that is longer than the body")
	}
}

func TestTheTextOfAServersErrorIsFound(t *testing.T) {
	for body, want := range map[string]string{
		`{"error":"no such model"}`: "no such model", `{"detail":"no"}`: "no", `{"error":{"message":"deep","code":3}}`: "deep", `{"detail":[{"msg":"x"}]}`: `[{"msg":"x"}]`, "plain": "plain", `{"code":404,"message":"m"}`: "m", "": "",
	} {
		if got := v2.ErrorOf([]byte(body)); got != want {
			t.Errorf("%s: %q, want %q", body, got, want)
		}
	}
}

// FuzzV2Response reads bytes as the answer of a server: what is accepted are whole tensors within the limit.
func FuzzV2Response(f *testing.F) {
	f.Add([]byte(`{"model_name":"m","outputs":[{"name":"y","shape":[2],"datatype":"FP32","data":[1,2.5]}]}`), -1)
	head := `{"outputs":[{"name":"y","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":5}}]}`
	f.Add([]byte(head+"\x01\x00\x00\x00a"), len(head))
	f.Fuzz(func(t *testing.T, body []byte, header int) {
		_ = v2.ErrorOf(body)
		r, err := v2.ParseResponse(body, max(header, v2.WholeBody), limit)
		if err != nil {
			return
		}
		total := 0
		for i := range r.Outputs {
			if err := v2.CheckData(&r.Outputs[i]); err != nil {
				t.Fatal(err)
			}
			total += len(r.Outputs[i].Data)
		}
		if total > limit {
			t.Fatalf("%d bytes of at most %d", total, limit)
		}
		asked := &v2.Request{Inputs: r.Outputs}
		message, length, err := asked.Append(nil, true)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v2.ParseRequest(message, length, 8*limit); err != nil {
			t.Fatalf("%q: %v", message, err)
		}
	})
}
