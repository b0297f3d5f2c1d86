package python

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"clearmlserving/inference/engine"
	"clearmlserving/serving"
	"clearmlserving/worker"
)

// elements is the data of a BYTES tensor.
func elements(texts ...string) (b []byte) {
	for _, text := range texts {
		b = append(binary.LittleEndian.AppendUint32(b, uint32(len(text))), text...)
	}
	return b
}

func floats(list ...float32) (b []byte) {
	for _, f := range list {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
	}
	return b
}

func ints(list ...int64) (b []byte) {
	for _, n := range list {
		b = binary.LittleEndian.AppendUint64(b, uint64(n))
	}
	return b
}

// loaded is an endpoint of the class with these methods.
func loaded(t *testing.T, e *Engine, kind, methods string, change func(*engine.Spec)) engine.Model {
	t.Helper()
	code := filepath.Join(t.TempDir(), "preprocess.py")
	if err := os.WriteFile(code, []byte("class Preprocess:\n    "+strings.ReplaceAll(methods, "\n", "\n    ")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	spec := specOf("tensors", code, nil)
	spec.Endpoint.EngineType = kind
	if change != nil {
		change(&spec)
	}
	m, err := e.Load(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return m
}

const described = `def process(self, data, state, collect):
    def told(value):
        if isinstance(value, list):
            return repr(value)
        return f"{value.dtype} {value.shape} {value.flags.writeable} {value.flags.aligned} {value.tolist()}"
    return {name: told(value) for name, value in data.items()}`

func TestTensorsOfEachTypeAreArraysForUserCodeAndComeBack(t *testing.T) {
	e := running(t)
	all := []engine.Tensor{
		{Name: "bool", Datatype: engine.Bool, Shape: []int64{3}, Data: []byte{0, 1, 7}},
		{Name: "u8", Datatype: engine.Uint8, Shape: []int64{2, 1}, Data: []byte{1, 255}},
		{Name: "i8", Datatype: engine.Int8, Shape: []int64{1}, Data: []byte{255}},
		{Name: "u16", Datatype: engine.Uint16, Shape: []int64{1}, Data: []byte{1, 1}},
		{Name: "i16", Datatype: engine.Int16, Shape: []int64{1}, Data: []byte{254, 255}},
		{Name: "u32", Datatype: engine.Uint32, Shape: []int64{1}, Data: []byte{1, 0, 0, 128}},
		{Name: "i32", Datatype: engine.Int32, Shape: []int64{1}, Data: []byte{255, 255, 255, 255}},
		{Name: "u64", Datatype: engine.Uint64, Shape: []int64{1}, Data: ints(-1)},
		{Name: "i64", Datatype: engine.Int64, Shape: []int64{1, 1, 2}, Data: ints(-5, math.MaxInt64)},
		{Name: "f16", Datatype: engine.FP16, Shape: []int64{1}, Data: []byte{0, 0x3c}},
		{Name: "f32", Datatype: engine.FP32, Shape: []int64{2, 2}, Data: floats(1, -2.5, float32(math.Inf(1)), 0)},
		{Name: "f64", Datatype: engine.FP64, Shape: []int64{}, Data: ints(int64(math.Float64bits(0.1)))},
		{Name: "text", Datatype: engine.Bytes, Shape: []int64{2, 1}, Data: elements("größer", "")},
		{Name: "none", Datatype: engine.FP32, Shape: []int64{0, 4}, Data: nil},
		{Name: "odd \u2713", Datatype: engine.Int8, Shape: []int64{1}, Data: []byte{3}},
	}
	want := map[string]string{
		"bool": "bool (3,) True True [False, True, True]", "u8": "uint8 (2, 1) True True [[1], [255]]", "i8": "int8 (1,) True True [-1]",
		"u16": "uint16 (1,) True True [257]", "i16": "int16 (1,) True True [-2]", "u32": "uint32 (1,) True True [2147483649]", "i32": "int32 (1,) True True [-1]",
		"u64": "uint64 (1,) True True [18446744073709551615]", "i64": "int64 (1, 1, 2) True True [[[-5, 9223372036854775807]]]",
		"f16": "float16 (1,) True True [1.0]", "f32": "float32 (2, 2) True True [[1.0, -2.5], [inf, 0.0]]", "f64": "float64 () True True 0.1",
		"text": `object (2, 1) True True [[b'gr\xc3\xb6\xc3\x9fer'], [b'']]`, "none": "float32 (0, 4) True True []", "odd \u2713": "int8 (1,) True True [3]",
	}
	for _, kind := range []string{serving.EngineCustom, serving.EngineCustomAsync} {
		m := loaded(t, e, kind, described, nil)
		resp, err := m.Infer(t.Context(), &engine.Request{ID: "1", Tensors: all})
		if err != nil || resp.Status != 200 || len(resp.Tensors) != len(all) {
			t.Fatalf("%s: %+v, %v", kind, resp, err)
		}
		for i, got := range resp.Tensors {
			text := want[all[i].Name]
			if !strings.HasPrefix(string(got.Data[4:]), "[") && (got.Name != all[i].Name || string(got.Data[4:]) != text || got.ContentType != "str" || got.Datatype != engine.Bytes) {
				t.Errorf("%s: %s %s, want %s", kind, got.Name, got.Data[4:], text)
			}
		}
		m = loaded(t, e, kind, "def process(self, data, state, collect):\n    return data", nil)
		resp, err = m.Infer(t.Context(), &engine.Request{Tensors: all})
		if err != nil || resp.Status != 200 {
			t.Fatalf("%s: %+v, %v", kind, resp, err)
		}
		for i, got := range resp.Tensors {
			sent := all[i]
			if sent.Name == "bool" {
				sent.Data = []byte{0, 1, 1}
			}
			if sent.Name == "f64" { // a tensor has a dimension
				sent.Shape = []int64{1}
			}
			if got.Name != sent.Name || got.Datatype != sent.Datatype || !reflect.DeepEqual(got.Shape, sent.Shape) || !bytes.Equal(got.Data, sent.Data) {
				t.Errorf("%s: %+v came back as %+v", kind, sent, got)
			}
		}
	}
}

func TestLargeTensorsReachUserCodeThroughSharedMemory(t *testing.T) {
	e := running(t)
	m := loaded(t, e, serving.EngineCustom, `def process(self, data, state, collect):
    first = int(data["a"][0])
    data["a"][0] = 9
    return {"first": first, "sum": float(data["b"].sum()), "same": data["b"], "text": len(data["c"][0])}`, nil)
	const count = 300_000
	a, b := bytes.Repeat([]byte{3}, count), floats(make([]float32, count)...)
	b = append(b[:len(b)-4], floats(5)...)
	data := [][]byte{a, b, elements(strings.Repeat("x", count))}
	sent := func(data [][]byte) []engine.Tensor {
		return []engine.Tensor{
			{Name: "a", Datatype: engine.Uint8, Shape: []int64{count}, Data: data[0]},
			{Name: "b", Datatype: engine.FP32, Shape: []int64{count / 2, 2}, Data: data[1]},
			{Name: "c", Datatype: engine.Bytes, Shape: []int64{1}, Data: data[2]},
		}
	}
	check := func(req *engine.Request) {
		t.Helper()
		resp, err := m.Infer(t.Context(), req)
		if err != nil || resp.Status != 200 || len(resp.Tensors) != 4 {
			t.Fatalf("%+v, %v", resp, err)
		}
		if first := resp.Tensors[0].Data; !bytes.Equal(first, ints(3)) {
			t.Errorf("first %v: user code has changed the client's memory, or got another one's", first)
		}
		if same := resp.Tensors[2].Data; !bytes.Equal(same, b) {
			t.Error("an array came back otherwise")
		}
		if n := resp.Tensors[3].Data; !bytes.Equal(n, ints(count)) {
			t.Errorf("text of %v bytes", n)
		}
	}
	check(&engine.Request{Tensors: sent(data)}) // copied to the shared memory
	check(&engine.Request{Tensors: sent(data)})

	lender, ok := m.(engine.Lender)
	if !ok {
		t.Fatal("no Lender")
	}
	loan := lender.Lend(3 + len(a) + 1 + len(b) + len(data[2])) // received into it, at odd places
	if loan == nil {
		t.Fatal("nothing is lent")
	}
	memory, lent := loan.Bytes()[3:], make([][]byte, 3)
	for i, d := range data {
		n := copy(memory, d)
		lent[i], memory = memory[:n:n], memory[n:]
		if i == 0 {
			memory = memory[1:]
		}
	}
	for range 3 {
		check(&engine.Request{Tensors: sent(lent), Loan: loan})
	}
	mixed := [][]byte{lent[0], b, data[2]} // some elsewhere
	check(&engine.Request{Tensors: sent(mixed), Loan: loan})
	loan.Release()
}

func TestResultsOfUserCodeBecomeTensors(t *testing.T) {
	e := running(t)
	m := loaded(t, e, serving.EngineCustom, `def process(self, data, state, collect):
    import datetime, numpy
    from clearml_serving_worker import Response, HTTPException
    scope = dict(numpy=numpy, np=numpy, datetime=datetime, Response=Response, state=state)
    code = bytes(data["code"][0]).decode()
    if code.startswith("raise "):
        exec(code, dict(scope, HTTPException=HTTPException))
    result = eval(code, scope)
    return result`, func(s *engine.Spec) { s.Endpoint.OutputName = []string{"first", "second"} })
	for code, want := range map[string]string{
		"np.ones((2,2),'f4')":                   `first FP32 [2 2] 0000803f0000803f0000803f0000803f`,
		"np.float16(1)":                         `first FP16 [1] 003c`,
		"np.arange(4).reshape(2,2)[:, ::-1]":    `first INT64 [2 2] 0100000000000000000000000000000003000000000000000200000000000000`,
		"np.array([1,2],'>i2')":                 `first INT16 [2] 01000200`,
		"[1, 2]":                                `first INT64 [2] 01000000000000000200000000000000`,
		"[[True], [False]]":                     `first BOOL [2 1] 0100`,
		"3":                                     `first INT64 [1] 0300000000000000`,
		"2**63":                                 `first UINT64 [1] 0000000000000080`,
		"0.5":                                   `first FP64 [1] 000000000000e03f`,
		"(1, 0.5)":                              `first FP64 [2] 000000000000f03f000000000000e03f`,
		"[np.float32(0.5)]":                     `first FP32 [1] 0000003f`,
		"'ab'":                                  `first BYTES str [1] "ab"`,
		"b'\\xff'":                              `first BYTES [1] "\xff"`,
		"['a', 'b']":                            `first BYTES str [2] "a" "b"`,
		"np.array([['a'], ['bcd']])":            `first BYTES str [2 1] "a" "bcd"`,
		"np.array([b'a', b'bcd'])":              `first BYTES [2] "a" "bcd"`,
		"np.array(['x', 'yz'], object)":         `first BYTES str [2] "x" "yz"`,
		"[np.ones(1,'i1'), np.zeros(2,'u1')]":   `first INT8 [1] 01, second UINT8 [2] 0000`,
		"(np.ones(1,'i1'),)*3":                  `first INT8 [1] 01, second INT8 [1] 01, output-2 INT8 [1] 01`,
		"{'y': [0.5], 'label': 'cat', 'n': 1}":  `y FP64 [1] 000000000000e03f, label BYTES str [1] "cat", n INT64 [1] 0100000000000000`,
		"{'y': 1, 'why': {'a': [1, None]}}":     `y INT64 [1] 0100000000000000, why BYTES hg_json [1] "{\"a\":[1,null]}"`,
		"[{'a': 1}, {'b': 2.5}]":                `first BYTES hg_jsonlist [2] "{\"a\":1}" "{\"b\":2.5}"`,
		"None":                                  `first BYTES hg_json [1] "null"`,
		"{}":                                    `first BYTES hg_json [1] "{}"`,
		"[1, None]":                             `first BYTES hg_json [1] "[1,null]"`,
		"[[1, 2], [3]]":                         `first BYTES hg_json [1] "[[1,2],[3]]"`,
		"[1, 'a']":                              `first BYTES hg_json [1] "[1,\"a\"]"`,
		"[]":                                    `first FP64 [0] `,
		"datetime.datetime(2020,1,2)":           `first BYTES datetime [1] "2020-01-02T00:00:00"`,
		"np.array(['2020-01-02'], 'M8[s]')":     `first BYTES datetime [1] "2020-01-02T00:00:00"`,
		"Response({'y': 1}, 201, {'X-A': 'b'})": `201 X-A:b y INT64 [1] 0100000000000000`,
		"Response('text')":                      `first BYTES str [1] "text"`,
		"Response(b'raw', content_type='image/png')":       `first BYTES [1] "raw"`,
		"Response({'no': 1}, 404)":                         `404 {"no":1}`,
		"(str(i) for i in range(3))":                       `first BYTES str [3] "0" "1" "2"`,
		"1j":                                               `500 {"detail":"Error processing request: the answer cannot be sent: answer: complex numbers have no JSON form: send their real and imaginary parts"}`,
		"1/0":                                              `500 {"detail":"Error  [<class 'ZeroDivisionError'>] processing request: division by zero"}`,
		"raise HTTPException(429, 'later')":                `429 {"detail":"later"}`,
		"raise ValueError('no')":                           `422 {"detail":"Error [<class 'ValueError'>] processing request: no"}`,
		"Response((x for x in 'ab'), 503)":                 `503 stream ab`,
		"{'a': np.ones(1, 'i1'), 'b': float('nan')}":       `a INT8 [1] 01, b FP64 [1] 000000000000f87f`,
		"np.ma.masked_array([1, 2], [False, True])":        `first BYTES hg_json [1] "[1,null]"`,
		"Response(b'{}', content_type='application/json')": `first BYTES hg_json [1] "{}"`,
	} {
		resp, err := m.Infer(t.Context(), &engine.Request{Tensors: []engine.Tensor{{Name: "code", Datatype: engine.Bytes, Shape: []int64{1}, Data: elements(code)}}})
		if err != nil {
			t.Errorf("%s: %v", code, err)
			continue
		}
		if got := outline(t, resp); got != want {
			t.Errorf("%s: %s\nwant %s", code, got, want)
		}
	}
}

// outline describes an answer in one line.
func outline(t *testing.T, resp *engine.Response) string {
	t.Helper()
	var parts []string
	for _, tensor := range resp.Tensors {
		text := fmt.Sprintf("%s %s ", tensor.Name, tensor.Datatype)
		if tensor.ContentType != "" {
			text += tensor.ContentType + " "
		}
		text += fmt.Sprint(tensor.Shape)
		if tensor.Datatype != engine.Bytes {
			parts = append(parts, fmt.Sprintf("%s %x", text, tensor.Data))
			continue
		}
		for b := tensor.Data; len(b) > 0; {
			n := 4 + binary.LittleEndian.Uint32(b)
			text, b = text+fmt.Sprintf(" %q", b[4:n]), b[n:]
		}
		parts = append(parts, text)
	}
	text := strings.Join(parts, ", ") + string(resp.Body)
	if resp.Stream != nil {
		body, err := engine.ReadAll(t.Context(), resp.Stream, 1<<20)
		if err != nil {
			t.Error(err)
		}
		text = "stream " + string(body)
	}
	for _, h := range resp.Header {
		text = h.Name + ":" + h.Value + " " + text
	}
	if resp.Status != 200 {
		text = fmt.Sprint(resp.Status, " ", text)
	}
	if resp.TensorsAs != "" {
		text += " as " + resp.TensorsAs
	}
	return text
}

func TestAGeneratorIsAStreamOfTensorsForAFrontThatTakesOne(t *testing.T) {
	e := running(t)
	methods := `def process(self, data, state, collect):
    import numpy
    def parts():
        for n in data["n"].tolist():
            if n < 0:
                raise ValueError("negative")
            yield {"big": numpy.full(n, n % 256, "u1"), "n": n}
    return parts()`
	for kind, code := range map[string]string{serving.EngineCustom: methods, serving.EngineCustomAsync: strings.Replace(methods, "def parts", "async def parts", 1)} {
		m := loaded(t, e, kind, code, nil)
		ask := func(streams bool, list ...int64) (*engine.Response, error) {
			return m.Infer(t.Context(), &engine.Request{Streams: streams, Tensors: []engine.Tensor{{Name: "n", Datatype: engine.Int64, Shape: []int64{int64(len(list))}, Data: ints(list...)}}})
		}
		resp, err := ask(true, 3, 200_000, 0) // larger than a chunk
		if err != nil || resp.Stream == nil || resp.PieceTensors == nil || resp.Tensors != nil {
			t.Fatalf("%s: %+v, %v", kind, resp, err)
		}
		for _, n := range []int64{3, 200_000, 0} {
			piece, err := resp.Stream.Next(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			list, err := resp.PieceTensors(piece)
			if err != nil || len(list) != 2 || int64(len(list[0].Data)) != n || !bytes.Equal(list[0].Data, bytes.Repeat([]byte{byte(n)}, int(n))) || !bytes.Equal(list[1].Data, ints(n)) {
				t.Errorf("%s: %d %v", kind, n, err)
			}
		}
		if _, err := resp.Stream.Next(t.Context()); !errors.Is(err, io.EOF) {
			t.Errorf("%s: the end: %v", kind, err)
		}
		if err := resp.Stream.Close(); err != nil {
			t.Error(err)
		}
		if resp, err = ask(true, 1, -1); err != nil || resp.Stream == nil {
			t.Fatalf("%s: %+v, %v", kind, resp, err)
		}
		if _, err := resp.Stream.Next(t.Context()); err != nil {
			t.Error(err)
		}
		if _, err := resp.Stream.Next(t.Context()); err == nil || !strings.Contains(err.Error(), "negative") {
			t.Errorf("%s: %v", kind, err)
		}
		_ = resp.Stream.Close() // after an error
		if resp, err = ask(true, -1); err != nil || outline(t, resp) != `422 {"detail":"Error [<class 'ValueError'>] processing request: negative"}` {
			t.Errorf("%s: %+v, %v", kind, resp, err)
		}
		if resp, err = ask(true); err != nil || outline(t, resp) != "stream " {
			t.Errorf("%s: %+v, %v", kind, resp, err)
		}
		if resp, err = ask(false, 1); err != nil || outline(t, resp) != `output-0 BYTES hg_jsonlist [1] "{\"big\":[1],\"n\":1}"` {
			t.Errorf("%s: %+v, %v", kind, resp, err)
		}
	}
}

func TestTensorsThatContradictThemselvesAreRefused(t *testing.T) {
	m := loaded(t, running(t), serving.EngineCustom, "def process(self, data, state, collect):\n    return 1", nil)
	good := engine.Tensor{Name: "x", Datatype: engine.Int8, Shape: []int64{1}, Data: []byte{1}}
	for says, list := range map[string][]engine.Tensor{
		"two tensors have the name":    {good, good},
		"have the name \"x\"":          append(bytes17(), good),
		"datatype \"INT7\" is unknown": {{Name: "x", Datatype: "INT7", Shape: []int64{1}, Data: []byte{1}}},
		"[2] of INT8 takes 2":          {{Name: "x", Datatype: engine.Int8, Shape: []int64{2}, Data: []byte{1}}},
		"[0] of INT8 takes 0":          {{Name: "x", Datatype: engine.Int8, Shape: []int64{0}, Data: []byte{1}}},
		"negative dimension":           {{Name: "x", Datatype: engine.Int8, Shape: []int64{-1}, Data: []byte{1}}},
		"too many elements":            {{Name: "x", Datatype: engine.Int8, Shape: []int64{1 << 40, 1 << 40}, Data: []byte{1}}},
		"empty rows":                   {{Name: "x", Datatype: engine.Int8, Shape: []int64{1 << 10, 1 << 11, 0, 3}}},
		"its element 1 has 9 bytes":    {{Name: "x", Datatype: engine.Bytes, Shape: []int64{2}, Data: append(elements("a"), 9, 0, 0, 0, 'x')}},
		"ends after 1 elements":        {{Name: "x", Datatype: engine.Bytes, Shape: []int64{2}, Data: elements("a")}},
		"dimensions":                   {{Name: "x", Datatype: engine.Int8, Shape: bytes64(300), Data: []byte{1}}},
		"name of 70000 bytes":          {{Name: strings.Repeat("n", 70000), Datatype: engine.Int8, Shape: []int64{1}, Data: []byte{1}}},
	} {
		_, err := m.Infer(t.Context(), &engine.Request{Tensors: list})
		if failed, ok := errors.AsType[*engine.Error](err); !ok || failed.Kind != engine.KindBadRequest || !strings.Contains(failed.Text, says) {
			t.Errorf("%s: %v", says, err)
		}
	}
}

func TestVeryManyTensorsAreRefusedAtOnce(t *testing.T) {
	req := &engine.Request{Tensors: make([]engine.Tensor, 200_000)}
	for i := range req.Tensors {
		req.Tensors[i] = engine.Tensor{Name: fmt.Sprintf("column-%09d", i), Datatype: engine.Int8, Shape: []int64{0}}
	}
	begun := time.Now()
	if _, err := ValueOf("tensors", req); err == nil || !strings.Contains(err.Error(), "at most 65535 are possible") {
		t.Error(err)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("it takes %s", took)
	}
}

func TestAnArrayWithAnImpossibleTypeIsAnError(t *testing.T) {
	for _, dtype := range []string{"<U2305843009213693952", "<U4611686018427387904", "|S99999999999999999999", "<U-1", "<U", "<c8"} {
		value := worker.Value{Layout: worker.OneArray, Tensors: []worker.Tensor{{DType: dtype, Shape: []int64{1}, Data: make([]byte, 8)}}}
		if got, err := Tensors(&value, "output-"); err == nil {
			t.Errorf("%s: %+v", dtype, got)
		}
	}
}

// bytes17 are 17 tensors, one with the name x.
func bytes17() []engine.Tensor {
	list := make([]engine.Tensor, 17)
	for i := range list {
		list[i] = engine.Tensor{Name: string(rune('a' + 7 + i)), Datatype: engine.Int8, Shape: []int64{1}, Data: []byte{1}}
	}
	return list
}

func bytes64(n int) []int64 {
	list := make([]int64, n)
	for i := range list {
		list[i] = 1
	}
	return list
}

func TestVariablesOfRequestsWithTensorsAreThoseOfTheirNames(t *testing.T) {
	m := loaded(t, running(t), serving.EngineCustom, `def process(self, data, state, collect):
    collect({"mine": 4})
    return {"y": data["x"] * 2, "other": 1}`, func(s *engine.Spec) { s.Variables = []string{"x", "y", "text", "big"} })
	resp, err := m.Infer(t.Context(), &engine.Request{Sampled: true, Tensors: []engine.Tensor{
		{Name: "x", Datatype: engine.FP32, Shape: []int64{2, 1}, Data: floats(1, 2)},
		{Name: "text", Datatype: engine.Bytes, Shape: []int64{1}, Data: elements("a")},
		{Name: "big", Datatype: engine.Uint8, Shape: []int64{100, 1000}, Data: make([]byte, 100_000)},
		{Name: "unseen", Datatype: engine.Uint8, Shape: []int64{1}, Data: []byte{1}},
	}})
	if err != nil || resp.Status != 200 {
		t.Fatalf("%+v, %v", resp, err)
	}
	big := strings.TrimSuffix(strings.Repeat("0,", 10_001), ",")
	if want := `{"mine":4,"x":[[1.0],[2.0]],"text":["a"],"big":[` + big + `],"y":[[2.0],[4.0]]}`; string(resp.Stats) != want {
		t.Errorf("%.200s", resp.Stats)
	}
}

func FuzzTensorsOfAnAnswer(f *testing.F) {
	f.Add("<U2", 1, []byte{'a', 0, 0, 0, 0, 0, 0, 0})
	f.Add("|S3", 2, []byte("abcd\x00\x00"))
	f.Add("|O", 1, elements("x"))
	f.Add("<c8", 1, make([]byte, 8))
	f.Add("<U0", 1<<40, []byte{})
	f.Fuzz(func(t *testing.T, dtype string, n int, data []byte) {
		list, err := Tensors(&worker.Value{Tensors: []worker.Tensor{{DType: dtype, Shape: []int64{int64(n)}, Data: data}}}, "output-")
		if err != nil {
			return
		}
		if err := list[0].Check(); err != nil || list[0].Name != "output-0" {
			t.Errorf("%+v: %v", list[0], err)
		}
	})
}
