package rest

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"clearmlserving/inference"
	"clearmlserving/inference/engine"
	"clearmlserving/inference/listener"
	v2 "clearmlserving/inference/v2"
)

// KServe's protocol V1: {"instances": [...]} is answered with {"predictions": [...]}.
const v1Models = "/v1/models"

func v1Routes() []Route {
	return []Route{
		{"serve", "GET, HEAD", v1Models, ServiceKey},
		{"serve", "GET, HEAD, POST", v1Models + "/", EndpointKey},
	}
}

// v1question is an admitted request to predict.
type v1question struct {
	ticket inference.Ticket
	// rows: the model tells its inputs, so that its body is the instances. Another one gets the body as it is, as
	// KServe's own custom models do.
	rows bool
}

// routeV1 answers requests of the protocol that need only a head, and admits the others. path follows /v1/models.
func (f *Front) routeV1(h *listener.Head, path string) *listener.Response {
	if path == "" || path == "/" {
		return f.service(h, http.MethodGet, func() (any, *inference.Failure) {
			names := []string{}
			for _, m := range f.core.ModelIndex(true) {
				names = append(names, string(f.core.Named(m.Name, m.Version)))
			}
			return map[string][]string{"models": names}, nil
		})
	}
	name := strings.Trim(path, "/")
	name, predict := strings.CutSuffix(name, ":predict")
	about := head(h, f.core.Named(name, ""))
	if !predict {
		if refused := f.core.Authorize(about); refused != nil {
			return v2Refuse(refused)
		}
		if strings.HasSuffix(name, ":explain") {
			return v2Error(http.StatusNotImplemented, "this server has no explainers: only :predict")
		}
		return get(h, func(*listener.Head) *listener.Response { return f.modelReady(about, name) })
	}
	ticket, failure := f.core.Admit(about)
	if h.Method != http.MethodPost && !refusesKey(failure) {
		f.core.Reject(ticket, inference.KindBadRequest)
		return v2NotAllowed(http.MethodPost)
	}
	if failure != nil {
		return v2Refuse(failure)
	}
	signature, _, failure := f.core.Signature(ticket)
	if failure != nil {
		return v2Refuse(failure)
	}
	h.Admitted = &v1question{ticket: ticket, rows: len(signature.Inputs) > 0}
	return nil
}

// answerV1 answers an admitted request to predict.
func (f *Front) answerV1(ctx context.Context, r *listener.Request, q *v1question) *listener.Response {
	refused := func(text string) *listener.Response {
		f.core.Reject(q.ticket, inference.KindBadRequest)
		return v2Error(http.StatusBadRequest, text)
	}
	within, err := allowance(r.Header(timeoutHeader))
	if err != nil {
		return refused(err.Error())
	}
	body := r.Body
	instances, ok := v2.Member(body, "instances")
	if !ok || instances[0] != '[' {
		return refused(`the body is not like {"instances": [...]}`)
	}
	question := engine.Request{ID: r.ID, Body: body, ContentType: jsonType, Client: r.Client, Loan: r.Loan}
	if q.rows {
		question.Body, question.Loan = instances, nil
	}
	question.Span = f.span(r)
	answer, failure := f.core.AskTensors(ctx, q.ticket, &inference.Question{Request: question, Within: within})
	var resp *listener.Response
	if failure != nil {
		resp = v2Refuse(failure)
	} else {
		resp = v1Answer(&answer)
	}
	endSpan(question.Span, resp.Status)
	return resp
}

// v1Answer is a model's answer in the protocol's form.
func v1Answer(answer *inference.Answer) *listener.Response {
	fields := append(slices.Clip(answer.Origin), answer.Header...)
	if answer.Status >= http.StatusBadRequest {
		resp := v2Error(answer.Status, v2.ErrorText(answer.Body))
		resp.Header = fields
		return resp
	}
	body := answer.Body
	if _, ok := v2.Member(body, "predictions"); !ok {
		predictions := slices.Concat([]byte(`{"predictions":`), body)
		if !v2.IsJSON(body) {
			predictions = v2.AppendText([]byte(`{"predictions":`), string(body))
		}
		body = append(predictions, '}')
	}
	return &listener.Response{Response: engine.Response{Status: answer.Status, ContentType: jsonType, Body: body, Header: fields}}
}
