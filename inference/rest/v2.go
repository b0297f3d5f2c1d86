package rest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"clearmlserving/inference"
	"clearmlserving/inference/engine"
	"clearmlserving/inference/listener"
	v2 "clearmlserving/inference/v2"
	"clearmlserving/serving"
)

// The Open Inference Protocol (V2). A model's name is the URL of an endpoint, which may have slashes.
const (
	v2Path       = "/v2"
	v2Models     = "/models/"
	v2Repository = "/repository/"
)

// headerLength is the header with the length of the JSON that binary data follows.
const headerLength = "Inference-Header-Content-Length"

// v2Routes are the protocol's.
func v2Routes() []Route {
	return []Route{
		{"serve", "GET, HEAD", v2Path + "/{$}", Anybody},
		{"serve", "GET, HEAD", v2Path + "/health/live", Anybody},
		{"serve", "GET, HEAD", v2Path + "/health/ready", Anybody},
		{"serve", "GET, HEAD", v2Path + "/models/stats", ServiceKey},
		{"serve", "GET, HEAD, POST", v2Path + v2Models, EndpointKey},
		{"serve", "POST", v2Path + v2Repository + "index", ServiceKey},
		{"serve", "POST", v2Path + v2Repository + "models/", ServiceKey},
	}
}

// v2question is an admitted inference request.
type v2question struct {
	ticket        inference.Ticket
	name, version string
	header        int // the length of its JSON, or v2.WholeBody
}

// ticketOf is the ticket of an admitted request, if it is a question to an endpoint.
func ticketOf(h *listener.Head) inference.Ticket {
	switch admitted := h.Admitted.(type) {
	case inference.Ticket:
		return admitted
	case *v2question:
		return admitted.ticket
	case *v1question:
		return admitted.ticket
	case *openAIQuestion:
		return admitted.ticket
	}
	return inference.Ticket{}
}

// modelPath is a path to a model: /models/<name>[/versions/<version>][/<verb>].
type modelPath struct{ name, version, verb string }

func modelPathOf(path string, verbs []string) modelPath {
	var m modelPath
	m.name = strings.TrimSuffix(path, "/")
	for _, verb := range verbs {
		if name, ok := strings.CutSuffix(m.name, "/"+verb); ok {
			m.name, m.verb = name, verb
			break
		}
	}
	if i := strings.LastIndex(m.name, "/versions/"); i >= 0 {
		if version := m.name[i+len("/versions/"):]; version != "" && !strings.Contains(version, "/") {
			m.name, m.version = m.name[:i], version
		}
	}
	return m
}

func v2Verbs() []string { return []string{"infer", "ready", "config", "stats"} }

// routeV2 answers requests of the protocol that need only a head, and admits the others. path follows /v2.
func (f *Front) routeV2(h *listener.Head, path string) *listener.Response {
	if path == "" || path == "/" {
		return get(h, f.v2Server)
	}
	if path == "/health/live" {
		return get(h, func(*listener.Head) *listener.Response { return compact(http.StatusOK, map[string]bool{"live": true}) })
	}
	if path == "/health/ready" {
		return get(h, f.v2Ready)
	}
	if path == "/models/stats" {
		return f.service(h, http.MethodGet, func() (any, *inference.Failure) { return f.core.AllStatistics(), nil })
	}
	if rest, ok := strings.CutPrefix(path, v2Repository); ok {
		return f.routeRepository(h, rest)
	}
	if model, ok := strings.CutPrefix(path, v2Models); ok {
		return f.routeModel(h, modelPathOf(model, v2Verbs()))
	}
	return v2Error(http.StatusNotFound, "the Open Inference Protocol has no such path here: "+strconv.QuoteToASCII(h.Path))
}

// get answers a request that only reads.
func get(h *listener.Head, answer func(*listener.Head) *listener.Response) *listener.Response {
	if h.Method != http.MethodGet && h.Method != http.MethodHead {
		return v2NotAllowed("GET, HEAD")
	}
	return answer(h)
}

// service answers about the whole service.
func (f *Front) service(h *listener.Head, method string, answer func() (any, *inference.Failure)) *listener.Response {
	if refused := f.core.AuthorizeService(head(h, "")); refused != nil {
		return v2Refuse(refused)
	}
	if h.Method != method && !(method == http.MethodGet && h.Method == http.MethodHead) {
		return v2NotAllowed(method)
	}
	return described(answer())
}

// v2index is an admitted request for the list of models.
type v2index struct{}

// routeRepository answers the protocol's extension for repositories of models.
func (f *Front) routeRepository(h *listener.Head, path string) *listener.Response {
	model, isModel := strings.CutPrefix(path, "models/")
	name, load := strings.CutSuffix(model, "/load")
	unload := false
	if !load {
		name, unload = strings.CutSuffix(model, "/unload")
	}
	changes := isModel && (load || unload)
	about := head(h, serving.CleanURL(name))
	var refused *inference.Failure
	if changes && h.Method == http.MethodPost {
		refused = f.core.AuthorizeControl(about)
	} else {
		refused = f.core.AuthorizeService(head(h, ""))
	}
	switch {
	case refused != nil:
		return v2Refuse(refused)
	case path != "index" && !changes:
		return v2Error(http.StatusNotFound, "the repository has no such path: "+strconv.QuoteToASCII(h.Path))
	case h.Method != http.MethodPost:
		return v2NotAllowed(http.MethodPost)
	case path == "index":
		h.Admitted = v2index{}
		return nil
	}
	h.Admitted = &v2change{about, name, load}
	return nil
}

// v2change is an admitted request to load or unload a model.
type v2change struct {
	about inference.Head
	name  string
	load  bool
}

// changeModel answers an admitted request to load or unload a model.
func (f *Front) changeModel(ctx context.Context, c *v2change, body []byte) *listener.Response {
	var asked struct {
		Parameters map[string]json.RawMessage `json:"parameters"`
	}
	if len(bytes.TrimSpace(body)) > 0 {
		if err := json.Unmarshal(body, &asked); err != nil {
			return v2Error(http.StatusBadRequest, "the body is not like {\"parameters\": {}}: "+err.Error())
		}
	}
	for parameter := range asked.Parameters {
		if c.load && inference.OverridesModel(parameter) {
			return v2Error(http.StatusBadRequest, inference.ErrOverride)
		}
	}
	if failure := f.core.RepositoryChange(ctx, c.about, c.load); failure != nil {
		return v2Refuse(failure)
	}
	verb := "unload"
	if c.load {
		verb = "load"
	}
	return compact(http.StatusOK, map[string]any{"name": c.name, verb: true})
}

// answerIndex answers an admitted request for the list of models, whose body may ask for ready ones only.
func (f *Front) answerIndex(body []byte) *listener.Response {
	var asked struct {
		Ready bool `json:"ready"`
	}
	if len(body) > 0 {
		if err := json.Unmarshal(body, &asked); err != nil {
			return v2Error(http.StatusBadRequest, "the body is not like {\"ready\": true}: "+err.Error())
		}
	}
	return compact(http.StatusOK, f.core.ModelIndex(asked.Ready))
}

func (f *Front) v2Server(*listener.Head) *listener.Response {
	return compact(http.StatusOK, inference.ServerMetadata{Name: inference.ServerName, Version: cmp.Or(f.o.Version, "unknown"), Extensions: f.core.Extensions()})
}

func (f *Front) v2Ready(*listener.Head) *listener.Response {
	state, _ := f.core.Readiness("")
	status := http.StatusOK
	if !state.Ready {
		status = http.StatusServiceUnavailable
	}
	return compact(status, map[string]bool{"live": true, "ready": state.Ready})
}

func (f *Front) routeModel(h *listener.Head, m modelPath) *listener.Response {
	about := head(h, f.core.Named(m.name, m.version))
	if m.verb == "infer" {
		return f.admitV2(h, about, m)
	}
	if refused := f.core.Authorize(about); refused != nil { // before its method is judged
		return v2Refuse(refused)
	}
	return get(h, func(*listener.Head) *listener.Response {
		switch m.verb {
		case "ready":
			return f.modelReady(about, m.name)
		case "config":
			return described(f.core.ModelConfig(about, m.name))
		case "stats":
			return described(f.core.ModelStatistics(about, m.name, m.version))
		default:
			return described(f.core.ModelMetadata(about, m.name))
		}
	})
}

// admitV2 admits an inference request.
func (f *Front) admitV2(h *listener.Head, about inference.Head, m modelPath) *listener.Response {
	ticket, failure := f.core.Admit(about)
	if h.Method != http.MethodPost && !refusesKey(failure) {
		f.core.Reject(ticket, inference.KindBadRequest)
		return v2NotAllowed(http.MethodPost)
	}
	if failure != nil {
		return v2Refuse(failure)
	}
	q := &v2question{ticket: ticket, name: m.name, version: m.version, header: v2.WholeBody}
	if length := h.Header(headerLength); length != "" {
		n, err := strconv.ParseUint(length, 10, 31)
		if err != nil {
			f.core.Reject(ticket, inference.KindBadRequest)
			return v2Error(http.StatusBadRequest, "header "+headerLength+": "+strconv.QuoteToASCII(length)+" is no length")
		}
		q.header = int(n)
	}
	h.Admitted = q
	return nil
}

// answerV2 answers an admitted inference request.
func (f *Front) answerV2(ctx context.Context, r *listener.Request, q *v2question) *listener.Response {
	refused := func(kind inference.FailureKind, text string) *listener.Response {
		f.core.Reject(q.ticket, kind)
		return v2Refuse(&inference.Failure{Kind: kind, Text: text})
	}
	within, err := allowance(r.Header(timeoutHeader))
	if err != nil {
		return refused(inference.KindBadRequest, err.Error())
	}
	begun := time.Now()
	asked, err := v2.ParseRequest(r.Body, q.header, f.o.MaxBody)
	if err != nil {
		return refused(inference.KindOf(err), err.Error())
	}
	if asked.Timeout > 0 && (within <= 0 || asked.Timeout < within) {
		within = asked.Timeout
	}
	id := r.ID
	if asked.ID != "" && loggable(asked.ID) {
		id = asked.ID
	}
	span := f.span(r)
	answer, failure := f.core.AskTensors(ctx, q.ticket, &inference.Question{Request: engine.Request{
		ID: id, Tensors: asked.Inputs, TensorsAs: asked.ContentType, Parameters: asked.Parameters, Outputs: asked.Names(),
		Client: r.Client, Loan: r.Loan, Span: span,
	}, Within: within, Decoded: time.Since(begun)})
	if failure != nil {
		resp := v2Refuse(failure)
		endSpan(span, resp.Status)
		return resp
	}
	begun = time.Now()
	resp := f.v2Answer(&answer, asked, q, id)
	answer.Encoded(time.Since(begun))
	endSpan(span, resp.Status)
	return resp
}

// v2Answer is a model's answer in the protocol's form.
func (f *Front) v2Answer(answer *inference.Answer, asked *v2.Request, q *v2question, id string) *listener.Response {
	fields := append(slices.Clip(answer.Origin), answer.Header...)
	if answer.Status >= http.StatusBadRequest {
		resp := v2Error(answer.Status, v2.ErrorText(answer.Body))
		resp.Header = fields
		return resp
	}
	outputs, err := asked.Select(answer.Tensors)
	if err != nil {
		return v2Refuse(&inference.Failure{Kind: inference.KindBadRequest, Text: err.Error(), Origin: fields})
	}
	reply := v2.Response{Model: q.name, Version: inference.VersionOf(q.name, q.version, answer.Origin), ID: cmp.Or(asked.ID, id), ContentType: answer.TensorsAs, Outputs: outputs}
	for i := range outputs {
		if err := v2.CheckData(&outputs[i]); err != nil {
			return v2Refuse(&inference.Failure{Kind: inference.KindInternal, Text: "Error processing request: the model's output '" + outputs[i].Name + "': " + err.Error(), Origin: fields})
		}
	}
	body, header, err := reply.Append(nil, asked)
	if err != nil {
		return v2Refuse(&inference.Failure{Kind: inference.KindBadRequest, Text: err.Error(), Origin: fields})
	}
	resp := &listener.Response{Response: engine.Response{Status: http.StatusOK, ContentType: jsonType, Body: body, Header: fields}}
	if header != v2.WholeBody {
		resp.ContentType = "application/octet-stream"
		resp.Header = append(slices.Clip(resp.Header), engine.Header{Name: headerLength, Value: strconv.Itoa(header)})
	}
	return resp
}

// maxID bounds the length of clients' ids that name requests in logs.
const maxID = 128

func loggable(id string) bool {
	if len(id) > maxID {
		return false
	}
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' {
			return false
		}
	}
	return true
}

func (f *Front) modelReady(about inference.Head, name string) *listener.Response {
	if about.Endpoint == "" { // which is the whole instance
		return v2Error(http.StatusNotFound, "the path names no model")
	}
	state, known := f.core.Readiness(about.Endpoint)
	switch {
	case !known:
		return v2Error(http.StatusNotFound, state.Reason)
	case !state.Ready:
		reason := state.Reason
		for _, n := range state.NotReady {
			if n.Endpoint == about.Endpoint {
				reason = cmp.Or(n.Reason, string(n.State))
			}
		}
		return v2Error(http.StatusServiceUnavailable, "model '"+name+"' is not ready: "+reason)
	}
	return compact(http.StatusOK, map[string]any{"name": name, "ready": true})
}

// described is an answer about a model.
func described(about any, failure *inference.Failure) *listener.Response {
	if failure != nil {
		return v2Refuse(failure)
	}
	return compact(http.StatusOK, about)
}

// compact is jsonResponse in one line.
func compact(status int, body any) *listener.Response {
	text, err := json.Marshal(body)
	if err != nil { // it has only texts and numbers
		return v2Error(http.StatusInternalServerError, err.Error())
	}
	return &listener.Response{Response: engine.Response{Status: status, ContentType: jsonType, Body: text}}
}

// v2Error is an answer with an error in the protocol's form.
func v2Error(status int, text string) *listener.Response {
	return &listener.Response{Response: engine.Response{Status: status, ContentType: jsonType, Body: v2.ErrorBody(text)}}
}

// v2Refuse is a failure in the protocol's form.
func v2Refuse(failure *inference.Failure) *listener.Response {
	resp := refuse(failure)
	resp.Body = v2.ErrorBody(failure.ModelText())
	return resp
}

func v2NotAllowed(allowed string) *listener.Response {
	resp := v2Error(http.StatusMethodNotAllowed, "Method Not Allowed: this path takes "+allowed)
	resp.Header = []engine.Header{{Name: "Allow", Value: allowed}}
	return resp
}
