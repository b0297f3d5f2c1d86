package rest

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"clearmlserving/inference"
	"clearmlserving/inference/engine"
	"clearmlserving/inference/listener"
	"clearmlserving/inference/openaiapi"
	v2 "clearmlserving/inference/v2"
	"clearmlserving/serving"
)

// The OpenAI API below the endpoints' prefix: /serve/openai/v1/chat/completions. The model that a request names is an
// endpoint.
const openAIPrefix = "openai/"

// openAIRoutes are the API's.
func (f *Front) openAIRoutes() []Route {
	routes := []Route{
		{"serve", "GET, HEAD", f.prefix + openAIPrefix + openaiapi.Models, ServiceKey},
		{"serve", "GET, HEAD", f.prefix + openAIPrefix + openaiapi.Models + "/", EndpointKey},
	}
	for _, route := range openaiapi.Routes() {
		routes = append(routes, Route{"serve", "POST", f.prefix + openAIPrefix + route, EndpointKey})
	}
	return routes
}

// openAIQuestion is an admitted request of the API. Its endpoint is in its body.
type openAIQuestion struct {
	route  string
	ticket inference.Ticket // once the body has been read
}

// routeOpenAI answers requests of the API that need only a head, and admits the others to be read. route follows the
// prefix.
func (f *Front) routeOpenAI(h *listener.Head, route string) *listener.Response {
	route = strings.TrimSuffix(route, "/")
	if route == openaiapi.Models || strings.HasPrefix(route, openaiapi.Models+"/") {
		return f.openAIModels(h, strings.TrimPrefix(strings.TrimPrefix(route, openaiapi.Models), "/"))
	}
	if failure := f.core.Recognize(head(h, "")); failure != nil {
		return openAIRefuse(failure, "")
	}
	if !openaiapi.Known(route) {
		return openAIProblem(&openaiapi.Problem{Status: http.StatusNotFound, Type: openaiapi.InvalidRequest, Code: "unknown_url", Message: "Invalid URL (" + h.Method + " " + h.Path + ")"})
	}
	if h.Method != http.MethodPost {
		resp := openAIProblem(&openaiapi.Problem{Status: http.StatusMethodNotAllowed, Type: openaiapi.InvalidRequest, Code: "method_not_supported", Message: "Not allowed to " + h.Method + " on " + h.Path})
		resp.Header = []engine.Header{{Name: "Allow", Value: http.MethodPost}}
		return resp
	}
	h.Admitted = &openAIQuestion{route: strings.Clone(route)}
	return nil
}

// openAIModel describes a model for the API's clients.
type openAIModel struct {
	ID      string `json:"id"`
	Object  string `json:"object"`
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
}

// openAIModels lists the endpoints that speak the API, or describes one.
func (f *Front) openAIModels(h *listener.Head, name string) *listener.Response {
	about := head(h, serving.CleanURL(name))
	failure := f.core.Recognize(about)
	if failure == nil && name != "" {
		failure = f.core.Authorize(about)
	}
	if failure != nil {
		return openAIRefuse(failure, name)
	}
	if h.Method != http.MethodGet && h.Method != http.MethodHead {
		resp := openAIProblem(&openaiapi.Problem{Status: http.StatusMethodNotAllowed, Type: openaiapi.InvalidRequest, Message: "Not allowed to " + h.Method + " on " + h.Path})
		resp.Header = []engine.Header{{Name: "Allow", Value: "GET, HEAD"}}
		return resp
	}
	models := []openAIModel{}
	for _, url := range f.core.Speakers(about) {
		models = append(models, openAIModel{string(url), "model", f.started.Unix(), inference.ServerName})
	}
	if name == "" {
		return compact(http.StatusOK, struct {
			Object string        `json:"object"`
			Data   []openAIModel `json:"data"`
		}{"list", models})
	}
	if i := slices.IndexFunc(models, func(m openAIModel) bool { return m.ID == string(about.Endpoint) }); i >= 0 {
		return compact(http.StatusOK, models[i])
	}
	return openAIProblem(noModel(name))
}

func noModel(name string) *openaiapi.Problem {
	return &openaiapi.Problem{Status: http.StatusNotFound, Type: openaiapi.InvalidRequest, Param: "model", Code: "model_not_found", Message: "The model '" + name + "' does not exist or you do not have access to it."}
}

// answerOpenAI answers an admitted request of the API.
func (f *Front) answerOpenAI(ctx context.Context, r *listener.Request, q *openAIQuestion) *listener.Response {
	model, problem := openaiapi.ModelOf(r.ContentType, r.Body)
	if problem != nil {
		return openAIProblem(problem)
	}
	ticket, failure := f.core.Admit(head(&r.Head, serving.CleanURL(model)))
	if failure != nil {
		return openAIRefuse(failure, model)
	}
	q.ticket = ticket
	within, err := allowance(r.Header(timeoutHeader))
	if err != nil {
		f.core.Reject(ticket, inference.KindBadRequest)
		return openAIProblem(openaiapi.BadRequest("", "%s", err))
	}
	span := f.span(r)
	answer, failure := f.core.Ask(ctx, ticket, &inference.Question{
		Request: engine.Request{ID: r.ID, Body: r.Body, ContentType: r.ContentType, Route: q.route, Client: r.Client, Loan: r.Loan, Span: span}, Within: within,
	})
	if failure != nil {
		resp := openAIRefuse(failure, model)
		endSpan(span, resp.Status)
		return resp
	}
	resp := &listener.Response{Response: *answer.Response}
	resp.Header = append(slices.Clip(answer.Origin), answer.Header...)
	if resp.Stream != nil {
		resp.Done = func() {
			answer.Close()
			endSpan(span, resp.Status)
		}
		return resp
	}
	f.openAIForm(resp, q.route, model, r.Body)
	endSpan(span, resp.Status)
	return resp
}

// openAIForm gives the answer of a model that does not know the API its form.
func (f *Front) openAIForm(resp *listener.Response, route, model string, request []byte) {
	refused := func(p *openaiapi.Problem) {
		resp.Status, resp.ContentType, resp.Body = p.Status, jsonType, p.Body()
	}
	if resp.Status >= http.StatusBadRequest {
		if _, ok := v2.Member(resp.Body, "error"); !ok {
			refused(openaiapi.ProblemOf(resp.Status, v2.ErrorText(resp.Body)))
		}
		return
	}
	if route != openaiapi.Embeddings {
		return
	}
	body, problem := openaiapi.FromModel(model, request, resp.Body)
	if problem != nil {
		refused(problem)
		return
	}
	resp.Body = body
}

// openAIRefuse is a failure in the API's form.
func openAIRefuse(failure *inference.Failure, model string) *listener.Response {
	plain := failure.Response()
	problem := openaiapi.ProblemOf(plain.Status, failure.Text)
	if failure.Kind == inference.KindUnknownEndpoint {
		problem = noModel(model)
		if _, more, ok := strings.Cut(failure.Text, "; of "); ok {
			problem.Message += " Of " + more
		}
	}
	resp := openAIProblem(problem)
	resp.Header = plain.Header
	return resp
}

func openAIProblem(p *openaiapi.Problem) *listener.Response {
	return &listener.Response{Response: engine.Response{Status: p.Status, ContentType: jsonType, Body: p.Body()}}
}
