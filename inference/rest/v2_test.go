package rest_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"clearmlserving/inference/engine"
)

// tensorEngine has models that tell their inputs, or do not ("free...").
type tensorEngine struct{ fakePython }

func (e *tensorEngine) Load(_ context.Context, spec engine.Spec) (engine.Model, error) {
	return &tensorModel{fakeModel{p: &e.fakePython, url: spec.URL}}, nil
}

type tensorModel struct{ fakeModel }

func (m *tensorModel) Signature() engine.Signature {
	if strings.HasPrefix(string(m.url), "free") {
		return engine.Signature{}
	}
	return engine.Signature{
		Inputs:  []engine.TensorSpec{{Name: "a", Datatype: engine.Int32, Shape: []int64{-1, 2}}, {Name: "b", Datatype: engine.Bytes, Shape: []int64{-1}}},
		Outputs: []engine.TensorSpec{{Name: "c", Datatype: engine.Int32, Shape: []int64{-1, 2}}, {Name: "d", Datatype: engine.Bytes, Shape: []int64{-1}}},
	}
}

// Infer answers with its inputs: c is a, d is b.
func (m *tensorModel) Infer(ctx context.Context, req *engine.Request) (*engine.Response, error) {
	if m.url == "hangs" {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if req.Tensors == nil {
		var in struct{ A, B, Fail json.RawMessage }
		if ok := json.Unmarshal(req.Body, &in) == nil; !ok || in.Fail != nil {
			return &engine.Response{Status: http.StatusUnprocessableEntity, ContentType: "application/json", Body: []byte(`{"detail":"no such \"fail\""}`)}, nil
		}
		return &engine.Response{Status: http.StatusOK, ContentType: "application/json", Body: fmt.Appendf(nil, `{"c": %s, "d": %s}`, in.A, in.B)}, nil
	}
	if len(req.Tensors) < 2 {
		return &engine.Response{Status: http.StatusUnprocessableEntity, ContentType: "application/json", Body: []byte(`{"detail":"no such \"fail\""}`)}, nil
	}
	out := []engine.Tensor{req.Tensors[0], req.Tensors[1]}
	out[0].Name, out[1].Name = "c", "d"
	return &engine.Response{Status: http.StatusOK, Tensors: out}, nil
}

func startV2(t *testing.T, urls ...string) string {
	t.Helper()
	return start(t, func(o *options) { o.Python, o.Version = &tensorEngine{}, "1.2.3" }, urls...)
}

func postV2(t *testing.T, url string, body []byte, header map[string]string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range header {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

const v2Body = `{"id":"x1","inputs":[{"name":"a","shape":[2,2],"datatype":"INT32","data":[1,2,3,4]},{"name":"b","shape":[2],"datatype":"BYTES","data":["é",""]}]}`

func TestTheOpenInferenceProtocolAnswersWithTensors(t *testing.T) {
	base := startV2(t, "tensors", "plain", "free", "group/tensors/2", "tensors/2")
	for _, tc := range []struct{ model, name, version string }{
		{"tensors", "tensors", "1"},
		{"tensors/versions/1", "tensors", "1"},
		{"tensors/versions/2", "tensors", "2"},
		{"plain", "plain", "1"},
		{"plain/versions/1", "plain", "1"},
		{"free", "free", "1"},
		{"group%2Ftensors/versions/2", "group/tensors", "2"},
		{"group/tensors/2", "group/tensors/2", "1"},
	} {
		want := fmt.Sprintf(`{"model_name":"%s","model_version":"%s","id":"x1","outputs":[{"name":"c","datatype":"INT32","shape":[2,2],"data":[1,2,3,4]},{"name":"d","datatype":"BYTES","shape":[2],"data":["é",""]}]}`, tc.name, tc.version)
		resp, text := postV2(t, base+"/v2/models/"+tc.model+"/infer", []byte(v2Body), nil)
		if resp.StatusCode != http.StatusOK || text != want {
			t.Errorf("%s: %d %s, want\n%s", tc.model, resp.StatusCode, text, want)
		}
		if resp.Header.Get("X-Clearml-Endpoint") == "" {
			t.Errorf("%s: the answer does not name its endpoint", tc.model)
		}
	}
}

func TestBinaryTensorsBothWays(t *testing.T) {
	base := startV2(t, "tensors")
	head := `{"inputs":[{"name":"a","shape":[1,2],"datatype":"INT32","parameters":{"binary_data_size":8}},{"name":"b","shape":[1],"datatype":"BYTES","parameters":{"binary_data_size":5}}],"outputs":[{"name":"d","parameters":{"binary_data":true}},{"name":"c"}]}`
	body := []byte(head + "\x01\x00\x00\x00\xff\xff\xff\xff" + "\x01\x00\x00\x00\xfe")
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = z.Write(body) // a buffer never fails
	_ = z.Close()
	for name, header := range map[string]map[string]string{"plain": {}, "gzip": {"Content-Encoding": "gzip"}} {
		header["Inference-Header-Content-Length"] = strconv.Itoa(len(head))
		sent := body
		if name == "gzip" {
			sent = zipped.Bytes()
		}
		resp, text := postV2(t, base+"/v2/models/tensors/infer", sent, header)
		length, err := strconv.Atoi(resp.Header.Get("Inference-Header-Content-Length"))
		if err != nil || resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/octet-stream" {
			t.Fatalf("%s: %d %q %v", name, resp.StatusCode, text, resp.Header)
		}
		if text[length:] != "\x01\x00\x00\x00\xfe" || !strings.Contains(text[:length], `"data":[1,-1]`) || !strings.Contains(text[:length], `"binary_data_size":5`) {
			t.Errorf("%s: %q", name, text)
		}
	}
}

func TestErrorsHaveTheProtocolsForm(t *testing.T) {
	base := startV2(t, "tensors", "plain", "free")
	in := func(inputs string) string { return `{"inputs":[` + inputs + `]}` }
	a, b := `{"name":"a","shape":[1,2],"datatype":"INT32","data":[1,2]}`, `{"name":"b","shape":[1],"datatype":"BYTES","data":["x"]}`
	for _, tc := range []struct {
		path, body string
		status     int
		want       string
	}{
		{"tensors/infer", "", 400, "JSON"},
		{"tensors/infer", in(a), 400, "'b' is missing"},
		{"tensors/infer", in(a + "," + b + `,{"name":"z","shape":[1],"datatype":"BOOL","data":[true]}`), 400, "no input 'z'; it takes 'a', 'b'"},
		{"tensors/infer", in(strings.ReplaceAll(a, "INT32", "FP32") + "," + b), 400, "'a': its datatype is FP32, but the model takes INT32"},
		{"tensors/infer", in(`{"name":"a","shape":[2],"datatype":"INT32","data":[1,2]},` + b), 400, "'a': its shape is [2], but the model takes [-1,2]"},
		{"tensors/infer", in(`{"name":"a","shape":[1,2],"datatype":"INT64","data":[1,3000000000]},` + b), 400, "'a': its element 1 is 3000000000"},
		{"tensors/infer", `{"outputs":[{"name":"q"}],"inputs":[` + a + "," + b + `]}`, 400, "no output 'q'; it has 'c', 'd'"},
		{"tensors/infer", in(`{"name":"a","shape":[1000000,1000000],"datatype":"INT32","data":[1,2]},` + b), 413, "'a' of shape [1000000,1000000]"},
		{"free/infer", in(`{"name":"fail","shape":[1],"datatype":"BOOL","data":[true]}`), 422, `no such \"fail\"`},
		{"nothing/infer", in(a), 404, "nothing"},
		{"tensors/versions/3/infer", in(a), 404, "tensors/3"},
		{"tensors/nonsense", in(a), 405, "GET"},
	} {
		resp, text := postV2(t, base+"/v2/models/"+tc.path, []byte(tc.body), nil)
		var answer struct{ Error string }
		if err := json.Unmarshal([]byte(text), &answer); err != nil || resp.StatusCode != tc.status || !strings.Contains(text, tc.want) || answer.Error == "" {
			t.Errorf("%s %s: %d %s, want %d %q", tc.path, tc.body, resp.StatusCode, text, tc.status, tc.want)
		}
	}
	resp, text := postV2(t, base+"/v2/models/tensors/infer", []byte(v2Body), map[string]string{"Inference-Header-Content-Length": "many"})
	if resp.StatusCode != 400 || !strings.Contains(text, `{"error":"header Inference-Header-Content-Length`) {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
	resp, text = postV2(t, base+"/v2/models/tensors/infer", make([]byte, 2<<20), nil)
	if resp.StatusCode != 413 || !strings.Contains(text, `{"error":`) {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
}

func TestWiderDatatypesAreMadeOfNarrowerOnes(t *testing.T) {
	base := startV2(t, "tensors")
	body := `{"inputs":[{"name":"a","shape":[1,2],"datatype":"UINT8","data":[1,255]},{"name":"b","shape":[1],"datatype":"BYTES","data":["x"]}]}`
	if resp, text := postV2(t, base+"/v2/models/tensors/infer", []byte(body), nil); resp.StatusCode != 200 || !strings.Contains(text, `"datatype":"INT32","shape":[1,2],"data":[1,255]`) {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
}

func TestAModelWithoutASignatureTakesItsBodyAsOneElement(t *testing.T) {
	base := startV2(t, "free")
	body := `{"inputs":[{"name":"body","shape":[1],"datatype":"BYTES","data":["{\"A\": {\"x\": [1,\"y\"]}, \"B\": null}"]}]}`
	resp, text := postV2(t, base+"/v2/models/free/infer", []byte(body), nil)
	if want := `"outputs":[{"name":"answer","datatype":"BYTES","shape":[1],"data":["{\"c\": {\"x\": [1,\"y\"]}, \"d\": null}"]}]}`; resp.StatusCode != 200 || !strings.HasSuffix(text, want) {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
}

func TestMetadataAndHealth(t *testing.T) {
	base := startV2(t, "tensors", "tensors/2", "free", "dir/free")
	for path, want := range map[string]string{
		"/v2":                                 `{"name":"clearml-serving","version":"1.2.3","extensions":["binary_tensor_data",`,
		"/v2/":                                `"statistics"]}`,
		"/v2/health/live":                     `{"live":true}`,
		"/v2/health/ready":                    `"ready":true`,
		"/v2/models/tensors":                  `{"name":"tensors","versions":["1","2"],"platform":"clearml-serving","inputs":[{"name":"a","datatype":"INT32","shape":[-1,2]},`,
		"/v2/models/free":                     `"inputs":[{"name":"body","datatype":"BYTES","shape":[1]}],"outputs":[{"name":"answer","datatype":"BYTES","shape":[1]}]`,
		"/v2/models/dir%2Ffree":               `{"name":"dir/free","versions":["1"]`,
		"/v2/models/tensors/ready":            `{"name":"tensors","ready":true}`,
		"/v2/models/dir%2ffree/ready":         `{"name":"dir/free","ready":true}`,
		"/v2/models/a/versions/1":             `{"error":`,
		"/v2/models/tensors/versions/2/ready": `"ready":true`,
		"/v2/nothing":                         `{"error":`,
	} {
		resp, text := get(t, base+path)
		if !strings.Contains(text, want) || (resp.StatusCode == 200) == strings.HasPrefix(want, `{"error"`) {
			t.Errorf("%s: %d %s, want %s", path, resp.StatusCode, text, want)
		}
	}
	for _, path := range []string{"/v2/models/unknown/ready", "/v2/models//ready", "/v2/models/ready", "/v1/models//"} {
		if resp, text := get(t, base+path); resp.StatusCode != 404 {
			t.Errorf("%s: %d %s", path, resp.StatusCode, text)
		}
	}
}

func TestModelsAreListedAndNotChanged(t *testing.T) {
	base := startV2(t, "tensors", "tensors/2", "dir/free")
	resp, text := postV2(t, base+"/v2/repository/index", nil, nil)
	want := `[{"name":"dir/free","version":"1","state":"READY","reason":""},{"name":"tensors","version":"1","state":"READY","reason":""},{"name":"tensors","version":"2","state":"READY","reason":""}]`
	if resp.StatusCode != 200 || text != want {
		t.Errorf("%d %s, want %s", resp.StatusCode, text, want)
	}
	if resp, text := postV2(t, base+"/v2/repository/index", []byte(`{"ready":1}`), nil); resp.StatusCode != 400 || !strings.HasPrefix(text, `{"error":`) {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
	for _, verb := range []string{"load", "unload"} {
		resp, text := postV2(t, base+"/v2/repository/models/dir%2Ffree/"+verb, []byte("{}"), nil)
		if resp.StatusCode != 403 || !strings.Contains(text, `{"error":"model 'dir/free' cannot be changed here`) || !strings.Contains(text, "clearml-serving model") {
			t.Errorf("%s: %d %s", verb, resp.StatusCode, text)
		}
	}
}

func TestStatisticsCountWhatPerfAnalyzerReads(t *testing.T) {
	base := startV2(t, "tensors")
	if resp, _ := postV2(t, base+"/v2/models/tensors/infer", []byte("{}"), nil); resp.StatusCode != 400 {
		t.Fatal(resp.StatusCode)
	}
	const asked = 3
	for range asked {
		if resp, text := postV2(t, base+"/v2/models/tensors/infer", []byte(v2Body), nil); resp.StatusCode != 200 {
			t.Fatal(text)
		}
	}
	for _, path := range []string{"/v2/models/tensors/stats", "/v2/models/tensors/versions/1/stats", "/v2/models/stats"} {
		_, text := get(t, base+path)
		type spent struct{ Count, NS uint64 }
		var told struct {
			Stats []struct {
				Name, Version  string
				LastInference  int64  `json:"last_inference"`
				InferenceCount uint64 `json:"inference_count"`
				ExecutionCount uint64 `json:"execution_count"`
				Inference      struct {
					Success, Fail, Queue spent
					Input                spent `json:"compute_input"`
					Infer                spent `json:"compute_infer"`
					Output               spent `json:"compute_output"`
				} `json:"inference_stats"`
			} `json:"model_stats"`
		}
		if err := json.Unmarshal([]byte(text), &told); err != nil || len(told.Stats) != 1 {
			t.Fatalf("%s: %v %s", path, err, text)
		}
		got := told.Stats[0]
		i := got.Inference
		if got.Name != "tensors" || got.Version != "1" || got.LastInference == 0 || got.ExecutionCount != asked || i.Fail.Count != 1 {
			t.Errorf("%s: %s", path, text)
		}
		for _, s := range []spent{i.Success, i.Queue, i.Input, i.Infer, i.Output} {
			if s.Count != asked {
				t.Errorf("%s: %s", path, text)
			}
		}
		if i.Input.NS == 0 || i.Infer.NS == 0 || i.Output.NS == 0 || i.Success.NS != i.Queue.NS+i.Input.NS+i.Infer.NS+i.Output.NS {
			t.Errorf("%s: the times are no sum: %s", path, text)
		}
	}
	_, text := get(t, base+"/v2/models/tensors/config")
	if !strings.Contains(text, `{"name":"tensors","platform":"clearml-serving","backend":"clearml-serving","max_batch_size":0,"input":[{"name":"a","data_type":"TYPE_INT32","dims":[-1,2]},{"name":"b","data_type":"TYPE_STRING","dims":[-1]}]`) {
		t.Error(text)
	}
}

func TestKServesFirstProtocol(t *testing.T) {
	base := startV2(t, "plain", "free", "dir/free")
	for _, tc := range []struct {
		path, body string
		status     int
		want       string
	}{
		{"free:predict", `{"instances": [1], "A": 1, "B": [2]}`, 200, `{"predictions":{"c": 1, "d": [2]}}`},
		{"plain:predict", `{"instances": [{"A": 1}]}`, 422, `{"error":"no such \"fail\""}`}, // it gets the instances alone
		{"free:predict", `{"instances": 1}`, 400, `{"error":"the body is not like`},
		{"free:predict", `[1]`, 400, `{"error":"the body is not like`},
		{"free:explain", `{"instances": [1]}`, 501, `{"error":`},
		{"nothing:predict", `{"instances": [1]}`, 404, `{"error":`},
	} {
		resp, text := postV2(t, base+"/v1/models/"+tc.path, []byte(tc.body), nil)
		if resp.StatusCode != tc.status || !strings.HasPrefix(text, tc.want) {
			t.Errorf("%s %s: %d %s, want %d %s", tc.path, tc.body, resp.StatusCode, text, tc.status, tc.want)
		}
		if reached := tc.status == 200 || tc.status == 422; reached && resp.Header.Get("X-Clearml-Endpoint") == "" {
			t.Errorf("%s %s: the answer does not name its endpoint", tc.path, tc.body)
		}
	}
	for path, want := range map[string]string{
		"/v1/models": `{"models":["dir/free","free","plain"]}`, "/v1/models/free": `{"name":"free","ready":true}`, "/v1/models/dir%2Ffree": `{"name":"dir/free","ready":true}`, "/v1/models/x": `{"error":`,
	} {
		if _, text := get(t, base+path); !strings.HasPrefix(text, want) {
			t.Errorf("%s: %s", path, text)
		}
	}
}

func TestKeysOfTheOpenProtocols(t *testing.T) {
	keys := newKeyRing()
	all, one := keys.add("all", time.Time{}), keys.add("one", time.Time{}, "tensors")
	base := start(t, keys.with(t, func(o *options) { o.Python = &tensorEngine{} }), "tensors", "free")
	for _, tc := range []struct {
		method, path, key string
		status            int
	}{
		{"GET", "/v2", "", 200},
		{"GET", "/v2/health/live", "", 200},
		{"GET", "/v2/health/ready", "", 200},
		{"GET", "/v2/models/tensors", "", 401},
		{"GET", "/v2/models/nothing", "", 401},
		{"GET", "/v2/models/tensors/ready", "", 401},
		{"GET", "/v2/models/tensors/config", one, 200},
		{"GET", "/v2/models/tensors/versions/1/stats", one, 200},
		{"GET", "/v2/models/free", one, 403},
		{"GET", "/v2/models/nothing", one, 403},
		{"GET", "/v2/models/nothing", all, 404},
		{"POST", "/v2/models/tensors/infer", "", 401},
		{"GET", "/v2/models/tensors/infer", "", 401},
		{"POST", "/v2/models/tensors/infer", one, 200},
		{"POST", "/v2/models/free/infer", one, 403},
		{"GET", "/v2/models/stats", one, 403},
		{"GET", "/v2/models/stats", all, 200},
		{"POST", "/v2/repository/index", "", 401},
		{"POST", "/v2/repository/index", one, 403},
		{"POST", "/v2/repository/index", all, 200},
		{"POST", "/v2/repository/models/tensors/unload", "", 401},
		{"GET", "/v1/models", one, 403},
		{"GET", "/v1/models", all, 200},
		{"GET", "/v1/models/tensors", one, 200},
		{"GET", "/v1/models/free", one, 403},
		{"POST", "/v1/models/free:predict", "", 401},
		{"POST", "/v1/models/free:predict", one, 403},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tc.method, base+tc.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if tc.method == http.MethodPost && strings.HasSuffix(tc.path, "infer") {
			req.Body = io.NopCloser(strings.NewReader(v2Body))
		}
		if tc.key != "" {
			req.Header.Set("Authorization", "Bearer "+tc.key)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close() // it has been read
		if err != nil || resp.StatusCode != tc.status || tc.status >= 400 && !strings.HasPrefix(string(text), `{"error":`) {
			t.Errorf("%s %s: %d %s, want %d", tc.method, tc.path, resp.StatusCode, text, tc.status)
		}
		if tc.status == 401 && resp.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s %s: no challenge", tc.method, tc.path)
		}
	}
}

// The limit is a parameter of Triton's clients, in microseconds, or the header of other requests.
func TestAClientsTimeLimitOfTheProtocol(t *testing.T) {
	base := startV2(t, "tensors", "hangs")
	for _, tc := range []struct {
		parameters, header string
		status             int
	}{
		{`"timeout": 1000`, "", 504},
		{`"timeout": 3600000000`, "0.001", 504},
		{`"timeout": -1`, "", 400},
		{`"timeout": "1"`, "", 400},
		{`"x": 1`, "none", 400},
	} {
		body := strings.Replace(v2Body, "{", `{"parameters": {`+tc.parameters+`},`, 1)
		header := map[string]string{}
		if tc.header != "" {
			header["X-Request-Timeout"] = tc.header
		}
		if resp, text := postV2(t, base+"/v2/models/hangs/infer", []byte(body), header); resp.StatusCode != tc.status || !strings.HasPrefix(text, `{"error":`) {
			t.Errorf("%s %s: %d %s, want %d", tc.parameters, tc.header, resp.StatusCode, text, tc.status)
		}
	}
}
