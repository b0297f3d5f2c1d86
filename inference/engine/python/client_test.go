package python

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"clearmlserving/inference/engine"
	"clearmlserving/serving"
)

// codeOf writes preprocess code of one class.
func codeOf(t *testing.T, body string) string {
	t.Helper()
	code := filepath.Join(t.TempDir(), "preprocess.py")
	if err := os.WriteFile(code, []byte("class Preprocess:\n"+body), 0o600); err != nil {
		t.Fatal(err)
	}
	return code
}

func TestCodeWithTheParameterSeesHowTheClientAsked(t *testing.T) {
	const shown = `[request.method, request.path, request.query, request.headers.get('x-A'), request.content_type, request.client, request.request_id]`
	asked := engine.Client{
		Method: "POST", Path: "/serve/grün", Query: "a=1&a=2", Address: "10.0.0.1",
		Header: []engine.Header{{Name: "X-a", Value: "1"}, {Name: "x-A", Value: "2"}, {Name: "X-Empty", Value: ""}},
	}
	const all = `["POST","/serve/grün",{"a":["1","2"]},"1, 2","application/json","10.0.0.1","r1"]`
	const none = `["POST","",{},null,"application/json",null,"r1"]`
	e := running(t)
	for name, tc := range map[string]struct {
		engine, body string
		aux          any
	}{
		"preprocess":  {"custom", "    def preprocess(self, body, state, collect=None, request=None):\n        return " + shown + "\n    def process(self, data, state, collect):\n        return data\n", nil},
		"postprocess": {"custom", "    def postprocess(self, data, state, collect, *, request):\n        return " + shown + "\n", nil},
		"async":       {"custom_async", "    async def process(self, data, state, collect=None, request=None):\n        return " + shown + "\n", nil},
		"a batch":     {"custom", "    def process_batch(self, data, state, collect=None, request=None):\n        return [" + shown + " for request in request]\n", map[string]any{"max_batch_size": 8.0}},
	} {
		t.Run(name, func(t *testing.T) {
			spec := specOf("shows", codeOf(t, tc.body), tc.aux)
			spec.Endpoint.EngineType = tc.engine
			m, err := e.Load(t.Context(), spec)
			if err != nil {
				t.Fatal(err)
			}
			var together sync.WaitGroup
			for i := range 8 {
				together.Go(func() {
					req, want := &engine.Request{ID: "r1", Body: []byte(`{}`), ContentType: "application/json"}, none
					if i%2 == 0 {
						req.Client, want = func() engine.Client { return asked }, all
					}
					if i%4 == 0 {
						req.Depth = 1 // nested
					}
					resp, err := m.Infer(t.Context(), req)
					if err != nil || string(resp.Body) != want {
						t.Errorf("%v %s", err, resp.Body)
					}
				})
			}
			together.Wait()
			if err := m.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestCodeWithoutTheParameterCostsNoLook(t *testing.T) {
	e := running(t)
	m, err := e.Load(t.Context(), specOf("plain", codeOf(t, "    def process(self, request, state, collect):\n        return request\n"), nil))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := m.Infer(t.Context(), &engine.Request{Body: []byte(`{"a":1}`), ContentType: "application/json", Client: func() engine.Client {
		t.Error("the client was looked at")
		return engine.Client{}
	}})
	if err != nil || string(resp.Body) != `{"a":1}` {
		t.Errorf("%v %s", err, resp.Body)
	}
	if err := m.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestRequestsAndAnswersOfOtherKinds(t *testing.T) {
	e := running(t)
	const form = "--b\r\nContent-Disposition: form-data; name=\"image\"; filename=\"a.png\"\r\nContent-Type: image/png\r\n\r\n12345\r\n--b\r\nContent-Disposition: form-data; name=\"lang\"\r\n\r\nde\r\n--b--\r\n"
	for name, tc := range map[string]struct {
		body, contentType, sent string
		aux                     any
		status                  int
		want, answerType        string
	}{
		"JSON of curl":       {"return data['x']", "application/x-www-form-urlencoded", `{"x": 7}`, nil, 200, "7", "application/json"},
		"a form's own":       {"return data.decode()", "application/x-www-form-urlencoded", "x=7", nil, 200, `"x=7"`, "application/json"},
		"files":              {"return [data['lang'], data['image'].filename, data['image'].content_type, len(data['image'].data)]", "multipart/form-data; boundary=b", form, nil, 200, `["de","a.png","image/png",5]`, "application/json"},
		"a malformed form":   {"return 1", "multipart/form-data; boundary=c", form, nil, 422, `[{"type":"form_invalid","loc":["body",0]`, "application/json"},
		"no header":          {"return 1", "", "x", nil, 422, "send that header", "application/json"},
		"an own status":      {"from clearml_serving_worker import HTTPException\n        raise HTTPException(404, 'gone', {'X-A': 'b'})", "", "{}", nil, 404, `{"detail":"gone"}`, "application/json"},
		"bytes":              {"from clearml_serving_worker import Response\n        return Response(b'\\x89PNG', content_type='image/png')", "", "{}", nil, 200, "\x89PNG", "image/png"},
		"NaN":                {"return [float('nan'), 1]", "", "{}", nil, 500, "nan_as_null=true", "application/json"},
		"NaN as null":        {"return [float('nan'), 1]", "", "{}", map[string]any{"nan_as_null": true}, 200, "[null,1]", "application/json"},
		"NaN as null, false": {"return [float('nan'), 1]", "", "{}", map[string]any{"nan_as_null": false}, 500, "NaN", "application/json"},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := e.Load(t.Context(), specOf("kinds", codeOf(t, "    def process(self, data, state, collect):\n        "+tc.body+"\n"), tc.aux))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := m.Infer(t.Context(), &engine.Request{Body: []byte(tc.sent), ContentType: tc.contentType})
			if err != nil {
				t.Fatal(err)
			}
			if resp.Status != tc.status || resp.ContentType != tc.answerType || !strings.Contains(string(resp.Body), tc.want) {
				t.Errorf("%d %s %s", resp.Status, resp.ContentType, resp.Body)
			}
			if err := m.Close(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	_, err := e.Load(t.Context(), specOf("kinds", codeOf(t, "    pass\n"), map[string]any{"nan_as_null": 3.0}))
	if err == nil {
		t.Error("a setting that is neither true nor false is loaded")
	}
}

func TestTheSettingMethodNamesTheMethodOfTheModel(t *testing.T) {
	e := running(t)
	const code = "    feature_names_in_ = ['a', 'b']\n    def predict_proba(self, rows): return [[0.25, 0.75]]\n    def load(self, path): return self\n    def preprocess(self, *args): return args[0]\n"
	spec := specOf("scores", codeOf(t, code), map[string]any{"method": "predict_proba"})
	spec.Endpoint.EngineType = serving.EngineSklearn
	m, err := e.Load(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if got := answer(t, m); got != "[[0.25,0.75]]" {
		t.Error(got)
	}
	if err := m.Close(t.Context()); err != nil {
		t.Error(err)
	}
	spec.Endpoint.AuxiliaryCfg = map[string]any{"method": "transform"}
	if _, err := e.Load(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "has no transform method") || !strings.Contains(err.Error(), "it has predict_proba") {
		t.Error(err)
	}
	spec.Endpoint.AuxiliaryCfg = map[string]any{"method": "_private"}
	if _, err := e.Load(t.Context(), spec); err == nil || !strings.Contains(err.Error(), "auxiliary_cfg.method") {
		t.Error(err)
	}
}
