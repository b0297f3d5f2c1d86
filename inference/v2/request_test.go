package v2_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"clearmlserving/inference/engine"
	v2 "clearmlserving/inference/v2"
)

const limit = 1 << 20

func parse(t *testing.T, body string) *v2.Request {
	t.Helper()
	r, err := v2.ParseRequest([]byte(body), v2.WholeBody, limit)
	if err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	return r
}

func one(shape, datatype, data string) string {
	return fmt.Sprintf(`{"inputs":[{"name":"x","shape":%s,"datatype":"%s","data":%s}]}`, shape, datatype, data)
}

func TestEveryDatatypeIsReadFromJSON(t *testing.T) {
	for _, tc := range []struct {
		shape, datatype, data string
		want                  any
	}{
		{"[3]", "BOOL", "[true, false, 1]", []bool{true, false, true}},
		{"[2]", "UINT8", "[0,255]", []uint8{0, 255}},
		{"[1]", "UINT16", "[65535]", []uint16{65535}},
		{"[1]", "UINT32", "[4294967295]", []uint32{math.MaxUint32}},
		{"[2]", "UINT64", "[18446744073709551615, -0]", []uint64{math.MaxUint64, 0}},
		{"[2]", "INT8", "[-128,127]", []int8{-128, 127}},
		{"[2]", "INT16", "[-32768,32767]", []int16{-32768, 32767}},
		{"[2]", "INT32", "[-2147483648,2147483647]", []int32{math.MinInt32, math.MaxInt32}},
		{"[2]", "INT64", "[-9223372036854775808,9223372036854775807]", []int64{math.MinInt64, math.MaxInt64}},
		{"[6]", "INT32", "[1.0,-2.50e1,3e2,0.0,0e99,1000e-3]", []int32{1, -25, 300, 0, 0, 1}},
		{"[1]", "UINT64", "[1e19]", []uint64{1e19}},
		{"[4]", "FP32", "[0.1,-1.5e3,0.10000000149011612,16777217]", []float32{0.1, -1500, 0.1, 16777216}},
		{"[5]", "FP64", "[0.1,1e22,1e-320,123456789.123456789,9007199254740993]", []float64{0.1, 1e22, 1e-320, 123456789.123456789, 9007199254740992}},
		{"[2]", "FP64", "[Infinity,-Infinity]", []float64{math.Inf(1), math.Inf(-1)}},
		{"[]", "FP32", "[7]", []float32{7}},
		{"[2,2]", "INT32", "[[1,2],[3,4]]", []int32{1, 2, 3, 4}},
		{"[2,2]", "INT32", "[1,2,3,4]", []int32{1, 2, 3, 4}},
		{"[2,1,2]", "INT32", "[[[1,2]],[[3,4]]]", []int32{1, 2, 3, 4}},
		{"[0,3]", "INT32", "[]", []int32{}},
		{"[2,0]", "INT32", "[[],[]]", []int32{}},
	} {
		got := parse(t, one(tc.shape, tc.datatype, tc.data)).Inputs[0]
		want, err := binary.Append(nil, binary.LittleEndian, tc.want)
		if err != nil {
			t.Fatal(err)
		}
		if string(got.Data) != string(want) || string(got.Datatype) != tc.datatype {
			t.Errorf("%s %s: %v, want %v", tc.datatype, tc.data, got.Data, want)
		}
	}
}

func TestNullAndNaNAreMissingNumbers(t *testing.T) {
	data := parse(t, one("[2]", "FP64", "[NaN,null]")).Inputs[0].Data
	for i := range 2 {
		if f := math.Float64frombits(binary.LittleEndian.Uint64(data[8*i:])); !math.IsNaN(f) {
			t.Errorf("element %d is %v", i, f)
		}
	}
}

func TestStringsAreBytes(t *testing.T) {
	got := parse(t, one("[2,3]", "BYTES", `[["a","","é"],["\u00e9\n\"","\ud83d\ude00","x\/y"]]`)).Inputs[0]
	var texts []string
	for rest := got.Data; len(rest) > 0; {
		n := binary.LittleEndian.Uint32(rest)
		texts = append(texts, string(rest[4:4+n]))
		rest = rest[4+n:]
	}
	if want := []string{"a", "", "é", "é\n\"", "😀", "x/y"}; !reflect.DeepEqual(texts, want) {
		t.Errorf("%q, want %q", texts, want)
	}
	if err := v2.CheckData(&got); err != nil {
		t.Error(err)
	}
}

func TestTheOrderOfNamesIsFree(t *testing.T) {
	r := parse(t, `{"outputs":null,"inputs":[{"data":[1,2],"parameters":{"content_type":"np","k":[{}]},"datatype":"INT8","other":{},"shape":[2],"name":"a"},
		{"name":"b","shape":[1],"datatype":"BOOL","data":[false]}],"model_name":"m","id":null,"parameters":{"content_type":"pd"}}`)
	if len(r.Inputs) != 2 || string(r.Inputs[0].Data) != "\x01\x02" || r.Inputs[0].ContentType != "np" || r.ContentType != "pd" || string(r.Parameters) != `{"content_type":"pd"}` {
		t.Errorf("%+v", r)
	}
}

func TestBinaryDataFollowsTheJSON(t *testing.T) {
	head := `{"id":"7","parameters":{"binary_data_output":true},"inputs":[{"name":"a","shape":[2],"datatype":"FP16","parameters":{"binary_data_size":4}},
		{"name":"b","shape":[1],"datatype":"INT8","data":[5]},{"name":"c","shape":[2],"datatype":"BYTES","parameters":{"binary_data_size":11}}],
		"outputs":[{"name":"o"},{"name":"p","parameters":{"binary_data":false}},{"name":"q","parameters":{"classification":2}}]}`
	body := head + "\x01\x02\x03\x04" + "\x03\x00\x00\x00\xffxy" + "\x00\x00\x00\x00"
	r, err := v2.ParseRequest([]byte(body), len(head), limit)
	if err != nil {
		t.Fatal(err)
	}
	if string(r.Inputs[0].Data) != "\x01\x02\x03\x04" || string(r.Inputs[1].Data) != "\x05" || len(r.Inputs[2].Data) != 11 {
		t.Errorf("%+v", r.Inputs)
	}
	if r.ID != "7" || !r.Outputs[0].Binary || r.Outputs[1].Binary || !r.Outputs[2].Binary || r.Outputs[2].Classes != 2 || r.Parameters != nil {
		t.Errorf("%+v", r)
	}
}

// Every refusal names the tensor, or the place.
func TestBadRequests(t *testing.T) {
	for name, tc := range map[string]struct {
		body string
		want []string
	}{
		"no JSON":             {"", []string{"ends after 0 bytes"}},
		"no object":           {"[]", []string{"byte 0"}},
		"half":                {`{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1.`, []string{"'x'", "a number"}},
		"more":                {`{"inputs":[]} x`, []string{"byte 14"}},
		"no inputs":           {`{"id":"a"}`, []string{"no inputs"}},
		"id":                  {`{"id":1,"inputs":[]}`, []string{"request's id"}},
		"same name":           {`{"inputs":[{"name":"x","shape":[0],"datatype":"FP32","data":[]},{"name":"x","shape":[0],"datatype":"FP32","data":[]}]}`, []string{"two inputs", "'x'"}},
		"same output":         {`{"inputs":[],"outputs":[{"name":"y"},{"name":"y"}]}`, []string{"'y' twice"}},
		"same key":            {`{"inputs":[],"inputs":[]}`, []string{`"inputs" twice`}},
		"no name":             {`{"inputs":[{"shape":[1],"datatype":"FP32","data":[1]}]}`, []string{"input 0 has no name"}},
		"no shape":            {`{"inputs":[{"name":"x","datatype":"FP32","data":[1]}]}`, []string{"input 0 has no shape"}},
		"no datatype":         {`{"inputs":[{"name":"x","shape":[1],"data":[1]}]}`, []string{"input 0 has no datatype"}},
		"no data":             {`{"inputs":[{"name":"x","shape":[1],"datatype":"FP32"}]}`, []string{"'x' has no data"}},
		"datatype":            {one("[1]", "FLOAT", "[1]"), []string{"'x'", `"FLOAT" is not known`}},
		"short":               {one("[3]", "FP32", "[1,2]"), []string{"'x'", "2 elements", "[3] has 3"}},
		"long":                {one("[1]", "FP32", "[1,2]"), []string{"'x'", "more than 1"}},
		"none":                {one("[1]", "FP32", "[]"), []string{"'x'"}},
		"ragged":              {one("[2,2]", "INT8", "[[1,2],[3]]"), []string{"'x'", "1 elements"}},
		"ragged rows":         {one("[2,2]", "INT8", "[[1,2],[3,4],[5,6]]"), []string{"'x'", "more than 2"}},
		"nested otherwise":    {one("[1,4]", "INT8", "[[1,2],[3,4]]"), []string{"'x'", "has 4"}},
		"nested too deep":     {one("[2]", "INT8", "[[1],[2]]"), []string{"'x'", "not nested"}},
		"nested not enough":   {one("[1,1,2]", "INT8", "[[1,2]]"), []string{"'x'", "not nested"}},
		"no list":             {one("[1]", "INT8", "1"), []string{"'x'", "no list"}},
		"negative dimension":  {one("[-1]", "FP32", "[1]"), []string{"input 0", "negative dimension"}},
		"fraction":            {one("[1.5]", "FP32", "[1]"), []string{"no integer"}},
		"huge dimension":      {one("[9223372036854775808]", "FP32", "[1]"), []string{"too large"}},
		"overflow":            {one("[4294967296,4294967296]", "FP32", "[1]"), []string{"'x'", "too many elements"}},
		"overflow beside 0":   {one("[0,4294967296,4294967296]", "FP32", "[]"), []string{"'x'", "too many elements"}},
		"rank":                {one("["+strings.Repeat("1,", 64)+"1]", "FP32", "[1]"), []string{"more than 64 dimensions"}},
		"many elements":       {one("[1000]", "INT8", "[1]"), []string{"'x'", "[1000]"}},
		"range":               {one("[1]", "INT8", "[128]"), []string{"'x'", "128", "INT8"}},
		"negative":            {one("[1]", "UINT8", "[-1]"), []string{"'x'", "-1", "UINT8"}},
		"20 digits":           {one("[1]", "UINT64", "[18446744073709551616]"), []string{"'x'", "UINT64"}},
		"INT64":               {one("[1]", "INT64", "[9223372036854775808]"), []string{"'x'", "INT64"}},
		"no integer":          {one("[2]", "INT32", "[1,1.5]"), []string{"'x'", "element 1", "1.5", "INT32"}},
		"no integer, tiny":    {one("[1]", "INT32", "[1e-999999999]"), []string{"'x'", "INT32"}},
		"no integer, huge":    {one("[1]", "INT32", "[1e999999999]"), []string{"'x'", "INT32"}},
		"text":                {one("[1]", "FP32", `["a"]`), []string{"'x'", "element 0", `\"a\"`, "FP32"}},
		"bool":                {one("[1]", "INT32", "[true]"), []string{"'x'", "true", "INT32"}},
		"number":              {one("[1]", "BOOL", "[2]"), []string{"'x'", "BOOL"}},
		"number as text":      {one("[1]", "BYTES", "[1]"), []string{"'x'", "BYTES"}},
		"null as text":        {one("[1]", "BYTES", "[null]"), []string{"'x'", "null", "BYTES"}},
		"FP32 range":          {one("[1]", "FP32", "[1e39]"), []string{"'x'", "1e39", "FP32"}},
		"FP16":                {one("[1]", "FP16", "[1]"), []string{"'x'", "FP16", "binary"}},
		"leading zero":        {one("[1]", "FP32", "[01]"), []string{"'x'"}},
		"invalid UTF-8":       {one("[1]", "BYTES", "[\"\xff\"]"), []string{"'x'", "UTF-8"}},
		"half a pair":         {one("[1]", "BYTES", `["\ud83d"]`), []string{"'x'", `\u`}},
		"control character":   {one("[1]", "BYTES", "[\"\n\"]"), []string{"'x'", "control"}},
		"shared memory":       {`{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","parameters":{"shared_memory_region":"a"}}]}`, []string{"shared memory"}},
		"both kinds of data":  {`{"inputs":[{"name":"x","shape":[1],"datatype":"INT8","data":[1],"parameters":{"binary_data_size":1}}]}`, []string{"'x'", "both"}},
		"binary without data": {`{"inputs":[{"name":"x","shape":[1],"datatype":"INT8","parameters":{"binary_data_size":1}}]}`, []string{"'x'", "0 bytes are left"}},
		"binary size":         {`{"inputs":[{"name":"x","shape":[1],"datatype":"INT8","parameters":{"binary_data_size":-1}}]}`, []string{"binary_data_size", "-1"}},
		"deep":                {`{"inputs":[],"x":` + strings.Repeat("[", 100), []string{"nested deeper"}},
	} {
		_, err := v2.ParseRequest([]byte(tc.body), v2.WholeBody, limit)
		var failed *engine.Error
		if !errors.As(err, &failed) || failed.Kind != engine.KindBadRequest {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, want := range tc.want {
			if !strings.Contains(failed.Text, want) {
				t.Errorf("%s: %q has no %q", name, failed.Text, want)
			}
		}
	}
}

func TestBadBinaryData(t *testing.T) {
	for name, tc := range map[string]struct{ shape, datatype, data, want string }{
		"short":         {"[2]", "FP32", "1234567", "takes 8"},
		"long":          {"[1]", "FP32", "12345", "takes 4"},
		"BOOL":          {"[1]", "BOOL", "\x02", "0 or 1"},
		"half a length": {"[1]", "BYTES", "\x01\x00", "ends after 0"},
		"long length":   {"[1]", "BYTES", "\xff\xff\xff\xffx", "4294967295 bytes, but only 1"},
		"one too many":  {"[1]", "BYTES", "\x00\x00\x00\x00\x00\x00\x00\x00", "4 bytes after"},
		"one too few":   {"[2]", "BYTES", "\x00\x00\x00\x00", "ends after 1"},
	} {
		head := fmt.Sprintf(`{"inputs":[{"name":"x","shape":%s,"datatype":"%s","parameters":{"binary_data_size":%d}}]}`, tc.shape, tc.datatype, len(tc.data))
		_, err := v2.ParseRequest([]byte(head+tc.data), len(head), limit)
		if err == nil || !strings.Contains(err.Error(), tc.want) || !strings.Contains(err.Error(), "'x'") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, header := range []int{-2, 100} {
		if _, err := v2.ParseRequest([]byte("{}"), header, limit); err == nil {
			t.Errorf("header %d", header)
		}
	}
	head := `{"inputs":[]}`
	if _, err := v2.ParseRequest([]byte(head+"x"), len(head), limit); err == nil || !strings.Contains(err.Error(), "1 bytes") {
		t.Errorf("data of no input: %v", err)
	}
}

// A shape alone costs no memory, and the limit is that of all inputs together.
func TestTheLimitIsCheckedBeforeAllocation(t *testing.T) {
	zeros := "[" + strings.Repeat("0,", 1<<10) + "0]"
	input := `{"name":"x%d","shape":[1025],"datatype":"FP64","data":` + zeros + `}`
	two := `{"inputs":[` + fmt.Sprintf(input, 0) + "," + fmt.Sprintf(input, 1) + `]}`
	for _, tc := range []struct {
		body  string
		limit int64
	}{
		{one("[1000000000000]", "FP64", "[1]"), limit},
		{one("[1000000]", "BYTES", `[""]`), limit},
		{two, 2*8*1025 - 1},
	} {
		_, err := v2.ParseRequest([]byte(tc.body), v2.WholeBody, tc.limit)
		var failed *engine.Error
		if !errors.As(err, &failed) || failed.Kind != engine.KindTooLarge {
			t.Errorf("%.100s: %v", tc.body, err)
		}
	}
	if _, err := v2.ParseRequest([]byte(two), v2.WholeBody, 2*8*1025); err != nil {
		t.Error(err)
	}
}

func TestAnswers(t *testing.T) {
	fp := engine.Tensor{Name: "p", Datatype: engine.FP32, Shape: []int64{1, 4}, Data: little([]float32{0.1, 1, 1e-7, float32(math.NaN())})}
	text := engine.Tensor{Name: "t", Datatype: engine.Bytes, Shape: []int64{1}, Data: []byte("\x03\x00\x00\x00a\"\n"), ContentType: "str"}
	for _, tc := range []struct{ request, want string }{
		{`{"id":"1","inputs":[]}`, `{"model_name":"m","model_version":"2","id":"1","outputs":[` +
			`{"name":"p","datatype":"FP32","shape":[1,4],"data":[0.1,1.0,1e-07,null]},` +
			`{"name":"t","datatype":"BYTES","shape":[1],"parameters":{"content_type":"str"},"data":["a\"\n"]}]}`},
		{`{"inputs":[],"outputs":[{"name":"t"}]}`, `{"model_name":"m","model_version":"2","outputs":[{"name":"t","datatype":"BYTES","shape":[1],"parameters":{"content_type":"str"},"data":["a\"\n"]}]}`},
		{`{"inputs":[],"outputs":[{"name":"t","parameters":{"binary_data":true}}]}`, `{"model_name":"m","model_version":"2","outputs":[{"name":"t","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":7,"content_type":"str"}}]}` + string(text.Data)},
		{`{"inputs":[],"outputs":[{"name":"p","parameters":{"classification":2}}]}`, `{"model_name":"m","model_version":"2","outputs":[{"name":"p","datatype":"BYTES","shape":[1,2],"data":["1.000000:1","0.100000:0"]}]}`},
	} {
		r := parse(t, tc.request)
		outputs, err := r.Select([]engine.Tensor{fp, text})
		if err != nil {
			t.Fatal(err)
		}
		answer := v2.Response{Model: "m", Version: "2", ID: r.ID, Outputs: outputs}
		body, header, err := answer.Append(nil, r)
		if err != nil {
			t.Fatal(err)
		}
		if want := strings.ReplaceAll(tc.want, `"a\"`+"\n", `"a\"\n`); string(body) != want {
			t.Errorf("%s\n%s, want\n%s", tc.request, body, want)
		}
		if header != v2.WholeBody && string(body[header:]) != string(text.Data) {
			t.Errorf("%s: header %d", tc.request, header)
		}
	}
	if _, err := parse(t, `{"inputs":[],"outputs":[{"name":"q"}]}`).Select([]engine.Tensor{fp, text}); err == nil || !strings.Contains(err.Error(), "no output 'q'; it has 'p', 't'") {
		t.Error(err)
	}
	half := engine.Tensor{Name: "h", Datatype: engine.FP16, Shape: []int64{1}, Data: []byte{0, 0}}
	raw := engine.Tensor{Name: "r", Datatype: engine.Bytes, Shape: []int64{1}, Data: []byte("\x01\x00\x00\x00\xff")}
	for _, out := range []engine.Tensor{half, raw} {
		answer := v2.Response{Outputs: []engine.Tensor{out}}
		if _, _, err := answer.Append(nil, &v2.Request{}); err == nil || !strings.Contains(err.Error(), "'"+out.Name+"'") || !strings.Contains(err.Error(), "binary") {
			t.Error(err)
		}
	}
}

func little(v any) []byte {
	b, err := binary.Append(nil, binary.LittleEndian, v)
	if err != nil {
		panic(err)
	}
	return b
}
