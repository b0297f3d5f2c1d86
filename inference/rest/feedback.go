package rest

import (
	"net/http"

	"clearmlserving/inference"
	"clearmlserving/inference/engine"
	"clearmlserving/inference/listener"
	"clearmlserving/serving"
)

const feedbackPrefix = "/feedback/"

// feedback is an admitted request with feedback.
type feedback struct {
	endpoint serving.EndpointURL
	peer     string // the header of another instance, "" for a client
}

// routeFeedback admits feedback about an endpoint, and answers questions about its quality.
func (f *Front) routeFeedback(h *listener.Head, path string) *listener.Response {
	endpoint := f.endpointOf(path, h.RawQuery)
	peer := h.Header(serving.PeerHeader)
	var failure *inference.Failure
	if peer == "" {
		failure = f.core.AdmitAbout(head(h, endpoint))
	} else if err := f.o.Feedback.Verify(peer); err != nil {
		failure = &inference.Failure{Kind: inference.KindForbidden, Text: "The header " + serving.PeerHeader + " is not valid: " + err.Error()}
	}
	switch {
	case refusesKey(failure):
		return refuse(failure)
	case h.Method != http.MethodPost && (peer != "" || h.Method != http.MethodGet && h.Method != http.MethodHead):
		return notAllowed("GET, HEAD, POST", "")
	case failure != nil:
		return refuse(failure)
	case h.Method == http.MethodPost:
		h.Admitted = feedback{serving.CleanURL(string([]byte(endpoint))), string([]byte(peer))}
		return nil
	}
	status, contentType, body := f.o.Feedback.Show(endpoint, h.RawQuery)
	return &listener.Response{Response: engine.Response{Status: status, ContentType: contentType, Body: body}}
}

// takeFeedback stores admitted feedback.
func (f *Front) takeFeedback(about feedback, body []byte) *listener.Response {
	var status int
	var answer []byte
	if about.peer != "" {
		status, answer = f.o.Feedback.TakeOver(about.peer, about.endpoint, body)
	} else {
		status, answer = f.o.Feedback.Take(about.endpoint, body)
	}
	resp := &listener.Response{Response: engine.Response{Status: status, ContentType: jsonType, Body: answer}}
	if status == http.StatusServiceUnavailable {
		resp.Header = []engine.Header{{Name: "Retry-After", Value: "5"}}
	}
	return resp
}
