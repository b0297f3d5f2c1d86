package rest_test

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"clearmlserving/inference/engine"
	"clearmlserving/serving"
)

// languages loads models that answer requests of the OpenAI API by their url.
type languages struct{}

func (languages) Load(_ context.Context, spec engine.Spec) (engine.Model, error) {
	return &language{url: spec.URL}, nil
}

type language struct {
	fakeModel

	url serving.EndpointURL
}

func (m *language) Speaks() bool { return !strings.HasPrefix(string(m.url), "plain") }

func (m *language) Infer(ctx context.Context, r *engine.Request) (*engine.Response, error) {
	answer := func(status int, body string) (*engine.Response, error) {
		return &engine.Response{Status: status, ContentType: "application/json", Body: []byte(body)}, nil
	}
	switch m.url {
	case "plain/vectors":
		return answer(200, `[[3,4],[0,2]]`)
	case "plain/vector":
		return answer(200, `{"embeddings":[[3.0,4.0]],"usage":{"prompt_tokens":7}}`)
	case "plain/labels":
		return answer(200, `{"label":"cat"}`)
	case "plain/fails":
		return answer(422, `{"detail":"Error [<class 'ValueError'>] processing request: no"}`)
	case "away":
		return nil, &engine.Error{Kind: engine.KindUnavailable, Text: "no server answers"}
	case "away/first":
		return nil, &engine.Error{Kind: engine.KindUnavailable, Text: "no server answers", Fallback: "chat"}
	case "away/circle":
		return nil, &engine.Error{Kind: engine.KindUnavailable, Text: "no server answers", Fallback: "away/circle"}
	case "busy":
		return nil, &engine.Error{Kind: engine.KindOverloaded, Text: "the queue is full"}
	case "died":
		return nil, &engine.Error{Kind: engine.KindDied, Text: "killed"}
	case "slow":
		<-ctx.Done()
		return nil, ctx.Err()
	case "streams":
		return &engine.Response{Status: 200, ContentType: "text/event-stream", Stream: &pieces{left: []string{"data: 1\n\n", "data: [DONE]\n\n"}}}, nil
	}
	text, err := json.Marshal(map[string]string{"endpoint": string(m.url), "route": r.Route, "body": string(r.Body), "object": "x"})
	if err != nil {
		return nil, err
	}
	return answer(200, string(text))
}

func TestRequestsOfTheOpenAIAPI(t *testing.T) {
	base := start(t, func(o *options) { o.Python = languages{} }, "chat", "chat/2", "plain/vectors", "plain/vector", "plain/labels", "plain/fails",
		"away", "away/first", "away/circle", "busy", "died", "slow", "streams", "openai/v1/own")
	api := base + "/serve/openai/v1"
	for _, tc := range []struct {
		name, path, body string
		status           int
		want             string
	}{
		{"the model is the endpoint", "/chat/completions", `{"model":"chat","messages":[]}`, 200, `"endpoint":"chat"`},
		{"the route comes to the model", "/audio/speech", `{"model":"chat"}`, 200, `"route":"v1/audio/speech"`},
		{"with a version", "/completions", `{"model":"chat/2"}`, 200, `"endpoint":"chat/2"`},
		{"routes of vLLM", "/../rerank", `{"model":"chat"}`, 200, `"route":"rerank"`},
		{"streams", "/chat/completions", `{"model":"streams"}`, 200, "data: 1\n\ndata: [DONE]\n\n"},
		{"no model", "/chat/completions", `{}`, 400, `{"error":{"message":"you must provide a model parameter","type":"invalid_request_error","param":"model","code":null}}`},
		{"a model of another type", "/chat/completions", `{"model":5}`, 400, `"param":"model"`},
		{"no JSON", "/chat/completions", `{"model"`, 400, `"type":"invalid_request_error"`},
		{"an unknown model", "/chat/completions", `{"model":"nobody"}`, 404, `"code":"model_not_found"`},
		{"an unknown version", "/chat/completions", `{"model":"plain"}`, 404, `'plain/fails'`},
		{"an unknown route", "/files", `{"model":"chat"}`, 404, `"code":"unknown_url"`},
		{"too large", "/chat/completions", `{"model":"` + strings.Repeat("a", 2<<20) + `"}`, 413, `{"error":{"message":`},
		{"no server", "/chat/completions", `{"model":"away"}`, 503, `"code":"engine_unavailable"`},
		{"a fallback answers", "/chat/completions", `{"model":"away/first","messages":[]}`, 200, `"endpoint":"chat"`},
		{"fallbacks in a circle end", "/chat/completions", `{"model":"away/circle"}`, 503, `"code":"engine_unavailable"`},
		{"busy", "/chat/completions", `{"model":"busy"}`, 429, `"type":"rate_limit_error"`},
		{"died", "/chat/completions", `{"model":"died"}`, 500, `"type":"server_error"`},
		{"slow", "/chat/completions", `{"model":"slow"}`, 504, `"code":"timeout"`},
		{"errors of user code", "/chat/completions", `{"model":"plain/fails"}`, 422, `{"error":{"message":"Error [<class 'ValueError'>] processing request: no"`},
		{"vectors of a model that does not know the API", "/embeddings", `{"model":"plain/vectors","input":["a","b"]}`, 200, `{"object":"list","data":[{"object":"embedding","index":0,"embedding":[3,4]},{"object":"embedding","index":1,"embedding":[0,2]}],"model":"plain/vectors","usage":{"prompt_tokens":0,"total_tokens":0}}`},
		{"base64", "/embeddings", `{"model":"plain/vectors","input":["a","b"],"encoding_format":"base64"}`, 200, `"embedding":"AABAQAAAgEA="`},
		{"fewer dimensions", "/embeddings", `{"model":"plain/vector","input":"a","dimensions":1}`, 200, `"embedding":[1]`},
		{"usage", "/embeddings", `{"model":"plain/vector","input":[1,2]}`, 200, `"usage":{"prompt_tokens":7,"total_tokens":7}`},
		{"too many dimensions", "/embeddings", `{"model":"plain/vector","input":"a","dimensions":3}`, 400, `"param":"dimensions"`},
		{"no vectors", "/embeddings", `{"model":"plain/labels","input":"a"}`, 400, `does not embed`},
		{"another number of vectors", "/embeddings", `{"model":"plain/vectors","input":"a"}`, 500, `2 vectors for 1 inputs`},
		{"an unknown encoding", "/embeddings", `{"model":"plain/vector","input":"a","encoding_format":"hex"}`, 400, `"param":"encoding_format"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			url := strings.Replace(api+tc.path, "/v1/..", "", 1)
			resp, body := post(t, url, tc.body, "Content-Type", "application/json")
			if resp.StatusCode != tc.status || !strings.Contains(body, tc.want) {
				t.Errorf("%d %.400s", resp.StatusCode, body)
			}
		})
	}
	if resp, body := post(t, api+"/chat/completions", `{"model":"chat"}`, "Content-Type", "text/plain"); resp.StatusCode != http.StatusUnsupportedMediaType || !strings.Contains(body, `"error"`) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	form := "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nchat\r\n--b--\r\n"
	if resp, body := post(t, api+"/audio/transcriptions", form, "Content-Type", "multipart/form-data; boundary=b"); resp.StatusCode != http.StatusOK || !strings.Contains(body, `"endpoint":"chat"`) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if resp, body := post(t, base+"/serve/openai/v1/own", `{}`, "Content-Type", "application/json"); resp.StatusCode != http.StatusOK || !strings.Contains(body, `"endpoint":"openai/v1/own","object":"x","route":""`) {
		t.Errorf("an endpoint with that url: %d %s", resp.StatusCode, body)
	}
	if resp, body := get(t, api+"/chat/completions"); resp.StatusCode != http.StatusMethodNotAllowed || resp.Header.Get("Allow") != "POST" || !strings.Contains(body, `"error"`) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if resp, body := get(t, api+"/models"); resp.StatusCode != http.StatusOK || !strings.Contains(body, `{"id":"chat","object":"model","created":`) || strings.Contains(body, "plain") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if resp, body := get(t, api+"/models/chat/2"); resp.StatusCode != http.StatusOK || !strings.Contains(body, `"id":"chat/2"`) {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	if resp, body := get(t, api+"/models/nobody"); resp.StatusCode != http.StatusNotFound || !strings.Contains(body, "model_not_found") {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}
