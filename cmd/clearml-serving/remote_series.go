package main

import (
	"bytes"
	"errors"
	"io"
	"net/http"

	"clearmlserving/clearml"
	"clearmlserving/timeseries"
)

// seriesOf are the time series that a process without own ones reads: those of the Prometheus of
// --prometheus-url, else those of its server.
func (a *app) seriesOf(client *clearml.Client) (timeseries.Querier, error) {
	if a.text("prometheus-url") != "" {
		return a.prometheus()
	}
	return timeseries.NewClient(timeseries.ClientOptions{URL: "http://server/prometheus", Transport: throughServer{client}})
}

// throughServer sends requests to the control plane, with its credentials. The host is ignored.
type throughServer struct{ client *clearml.Client }

// RoundTrip implements http.RoundTripper.
func (t throughServer) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method != http.MethodPost || req.Body == nil {
		return nil, errors.New("only POST is sent to the control plane")
	}
	defer req.Body.Close()
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	status, text, _, err := t.client.Post(req.Context(), req.URL.Path, req.Header.Clone(), body)
	if err != nil {
		return nil, err
	}
	return &http.Response{
		StatusCode: status, Status: http.StatusText(status), Proto: req.Proto, ProtoMajor: req.ProtoMajor, ProtoMinor: req.ProtoMinor,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(text)), ContentLength: int64(len(text)), Request: req,
	}, nil
}
