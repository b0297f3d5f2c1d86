package v2_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math"
	"strconv"
	"strings"
	"testing"

	"clearmlserving/inference/engine"
	v2 "clearmlserving/inference/v2"
)

// An accepted request holds what its shapes say within the limit, and means the same when it is written
// as an answer in either form and read again.
func FuzzV2Request(f *testing.F) {
	for _, body := range []string{
		one("[2,2]", "FP32", "[[1,2.5],[NaN,-1e-3]]"), one("[1]", "BYTES", `["\ud83d\ude00é"]`), one("[3]", "BOOL", "[true,0,1]"), one("[2]", "UINT64", "[18446744073709551615,0]"),
		one("[0,9223372036854775807]", "INT8", "[]"), `{"id":"a","parameters":{"content_type":"pd"},"inputs":[{"data":[1],"shape":[1],"datatype":"INT8","name":"n"}],"outputs":[{"name":"n","parameters":{"binary_data":true}}]}`,
	} {
		f.Add([]byte(body), -1)
	}
	head := `{"inputs":[{"name":"x","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":5}},{"name":"y","shape":[2],"datatype":"FP16","parameters":{"binary_data_size":4}}]}`
	f.Add([]byte(head+"\x01\x00\x00\x00aabcd"), len(head))
	f.Fuzz(func(t *testing.T, body []byte, header int) {
		const limit = 1 << 16
		r, err := v2.ParseRequest(body, max(header, v2.WholeBody), limit)
		if err != nil {
			return
		}
		total := 0
		for i := range r.Inputs {
			in := &r.Inputs[i]
			if err := v2.CheckData(in); err != nil {
				t.Fatalf("'%s': %v", in.Name, err)
			}
			total += len(in.Data)
		}
		if total > limit {
			t.Fatalf("%d bytes of at most %d", total, limit)
		}
		for _, binary := range []bool{true, false} {
			again(t, r, binary)
		}
		if header < 0 && !hasSpecial(body) && !json.Valid(body) {
			t.Errorf("%q is no JSON", body)
		}
	})
}

func hasSpecial(body []byte) bool {
	return bytes.Contains(body, []byte("NaN")) || bytes.Contains(body, []byte("Inf"))
}

func again(t *testing.T, r *v2.Request, binary bool) {
	t.Helper()
	answer := v2.Response{Model: "m", ID: r.ID, Outputs: r.Inputs}
	body, header, err := answer.Append(nil, &v2.Request{BinaryOutput: binary})
	if err != nil {
		if binary {
			t.Fatal(err)
		}
		return // it has no form in JSON
	}
	second, err := v2.ParseRequest(bytes.Replace(body, []byte(`"outputs":`), []byte(`"inputs" :`), 1), header, 8*limit)
	if err != nil {
		t.Fatalf("%q: %v", body, err)
	}
	for i := range r.Inputs {
		a, b := &r.Inputs[i], &second.Inputs[i]
		if a.Name != b.Name || a.Datatype != b.Datatype || engine.Shape(a.Shape) != engine.Shape(b.Shape) || a.ContentType != b.ContentType || !sameData(a, b) {
			t.Errorf("%+v became %+v", a, b)
		}
	}
}

// sameData compares bits, but every NaN is the same.
func sameData(a, b *engine.Tensor) bool {
	if bytes.Equal(a.Data, b.Data) {
		return true
	}
	size := int(a.Datatype.Size())
	if a.Datatype != engine.FP32 && a.Datatype != engine.FP64 || len(a.Data) != len(b.Data) {
		return false
	}
	for i := 0; i < len(a.Data); i += size {
		if !bytes.Equal(a.Data[i:i+size], b.Data[i:i+size]) && !(isNaN(a.Data[i:i+size]) && isNaN(b.Data[i:i+size])) {
			return false
		}
	}
	return true
}

func isNaN(b []byte) bool {
	if len(b) == 4 {
		f := float64(math.Float32frombits(binary.LittleEndian.Uint32(b)))
		return math.IsNaN(f)
	}
	return math.IsNaN(math.Float64frombits(binary.LittleEndian.Uint64(b)))
}

// The parser of numbers rounds as strconv does, and accepts what encoding/json accepts.
func FuzzV2Number(f *testing.F) {
	for _, text := range []string{"0", "-0", "1.5", "1e22", "1e23", "123456789012345678901234567890", "0.000000000000000000000000000001", "5e-324", "1e-400", "9007199254740993", "16777217", "3.4028236e38", "0.1e-10"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if strings.ContainsAny(text, "naIN[],{}\"\\ \t\r\n") || text == "" {
			return
		}
		for _, tc := range []struct {
			datatype string
			bits     int
		}{{"FP32", 32}, {"FP64", 64}} {
			r, err := v2.ParseRequest([]byte(one("[1]", tc.datatype, "["+text+"]")), v2.WholeBody, limit)
			want, wrong := strconv.ParseFloat(text, tc.bits)
			if ok := wrong == nil && json.Valid([]byte(text)); ok != (err == nil) {
				t.Fatalf("%q: %v, but strconv: %v", text, err, wrong)
			}
			if err != nil {
				continue
			}
			got := r.Inputs[0].Data
			if tc.bits == 32 && !bytes.Equal(got, little(float32(want))) || tc.bits == 64 && !bytes.Equal(got, little(want)) {
				t.Errorf("%q is %v, want %v", text, got, want)
			}
		}
	})
}
