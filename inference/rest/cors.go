package rest

import (
	"net/http"
	"slices"
	"strings"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/listener"
)

// origins are the origins of web pages that may send requests from a browser
// ("https://app.example.com"), or "*". Without any, no page may: the
// browser then hides the answer from it.
type origins []string

// allowed returns the allowed origin for a request, "" for none.
func (o origins) allowed(h *listener.Head) string {
	if len(o) == 0 {
		return ""
	}
	origin := h.Header("Origin")
	switch {
	case origin == "":
		return ""
	case slices.Contains(o, "*"):
		return "*"
	case slices.Contains(o, origin):
		return origin
	}
	return ""
}

// preflight answers a browser's preflight request. It has no key, so it is
// answered before keys are checked, and the answer does not depend on the
// configuration. A page sets its key as a header: cookies are not
// used, so credentials are never allowed in the sense of CORS.
func (o origins) preflight(h *listener.Head) *listener.Response {
	if h.Method != http.MethodOptions || h.Header("Access-Control-Request-Method") == "" {
		return nil
	}
	origin := o.allowed(h)
	if origin == "" {
		return nil
	}
	resp := &listener.Response{Response: engine.Response{Status: http.StatusNoContent}}
	resp.Header = []engine.Header{
		{Name: "Access-Control-Allow-Methods", Value: "GET, HEAD, POST"},
		{Name: "Access-Control-Max-Age", Value: "600"},
	}
	if asked := h.Header("Access-Control-Request-Headers"); asked != "" && len(asked) <= maxAskedHeaders {
		resp.Header = append(resp.Header, engine.Header{Name: "Access-Control-Allow-Headers", Value: strings.Clone(asked)})
	}
	return resp
}

const maxAskedHeaders = 1 << 10

// mark allows the page to read the answer.
func (o origins) mark(h *listener.Head, resp *listener.Response) *listener.Response {
	if len(o) == 0 {
		return resp
	}
	origin := o.allowed(h)
	resp.Header = slices.Clip(resp.Header)
	if origin != "*" {
		resp.Header = append(resp.Header, engine.Header{Name: "Vary", Value: "Origin"})
	}
	if origin != "" {
		resp.Header = append(resp.Header,
			engine.Header{Name: "Access-Control-Allow-Origin", Value: strings.Clone(origin)},
			engine.Header{Name: "Access-Control-Expose-Headers", Value: "X-Request-Id, X-Clearml-Endpoint, X-Clearml-Model-Id, Retry-After, Inference-Header-Content-Length"})
	}
	return resp
}
