package v2server

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/gzip"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/remote"
	v2 "clearmlserving/inference/v2"
)

// overREST is the client of servers over HTTP.
type overREST struct {
	addresses []string // base URLs
	requests  *http.Transport
	probes    *http.Transport // of their own: requests must not delay them
	key       string
	limit     int64
	gzip      bool
	binary    atomic.Bool // the servers have the extension for binary data
}

func newREST(addresses []string, trust *tls.Config, key string, limit int64, compressed bool) *overREST {
	return &overREST{addresses: addresses, requests: remote.Transport(trust), probes: remote.Transport(trust), key: key, limit: limit, gzip: compressed}
}

func (c *overREST) close() {
	c.requests.CloseIdleConnections()
	c.probes.CloseIdleConnections()
}

// headerLength is the field with the length of the JSON before binary data.
const headerLength = "Inference-Header-Content-Length"

// mostMetadata bounds answers without tensors.
const mostMetadata = 4 << 20

// get asks for a path of the address. Its errors are marked.
func (c *overREST) get(ctx context.Context, transport http.RoundTripper, send func(context.Context, http.RoundTripper, *http.Request) (*http.Response, error), path string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	c.sign(request)
	response, err := send(ctx, transport, request) //nolint:bodyclose // ReadBody closes it
	if err != nil {
		return nil, err
	}
	body, err := remote.ReadBody(response, mostMetadata)
	switch {
	case err != nil:
		return nil, err
	case response.StatusCode != http.StatusOK:
		return nil, refusalOf(response, body)
	}
	return body, nil
}

func (c *overREST) sign(request *http.Request) {
	if c.key != "" {
		request.Header.Set("Authorization", "Bearer "+c.key)
	}
	request.Header.Set("User-Agent", "clearml-serving")
}

// refusalOf is a server's error.
func refusalOf(response *http.Response, body []byte) error {
	text := v2.ErrorOf(body[:min(len(body), mostMetadata)])
	return refusal(codeOf(response.StatusCode), cmp.Or(text, "status "+response.Status))
}

// ready implements client.
func (c *overREST) ready(ctx context.Context, index int) error {
	direct := func(ctx context.Context, transport http.RoundTripper, request *http.Request) (*http.Response, error) {
		var err error
		if request.URL, err = url.Parse(c.addresses[index] + request.URL.Path); err != nil {
			return nil, err
		}
		return transport.RoundTrip(request.WithContext(ctx))
	}
	body, err := c.get(ctx, c.probes, direct, "/v2")
	if err != nil {
		return err
	}
	var metadata serverMetadata
	if err := json.Unmarshal(body, &metadata); err != nil {
		return &Garbage{fmt.Errorf("GET /v2: %w", err)}
	}
	if metadata.Name == "" {
		return &Garbage{errors.New("GET /v2 has no name of a server")}
	}
	if _, err := c.get(ctx, c.probes, direct, "/v2/health/ready"); err != nil {
		return err
	}
	c.binary.Store(slices.ContainsFunc(metadata.Extensions, func(name string) bool {
		return name == "binary_tensor_data" || name == "binary_data"
	}))
	return nil
}

type serverMetadata struct {
	Name       string   `json:"name"`
	Extensions []string `json:"extensions"`
}

type modelMetadata struct {
	Inputs  []tensorMetadata `json:"inputs"`
	Outputs []tensorMetadata `json:"outputs"`
}

type tensorMetadata struct {
	Name     string  `json:"name"`
	Datatype string  `json:"datatype"`
	Shape    []int64 `json:"shape"`
}

// at is the path of a model.
func at(model, version string) string {
	path := "/v2/models/" + url.PathEscape(model)
	if version != "" {
		path += "/versions/" + url.PathEscape(version)
	}
	return path
}

// describe implements client.
func (c *overREST) describe(ctx context.Context, use *remote.Use, model, version string) (d description, err error) {
	path := at(model, version)
	if _, err := c.get(ctx, c.requests, use.RoundTrip, path+"/ready"); err != nil {
		return d, err
	}
	body, err := c.get(ctx, c.requests, use.RoundTrip, path)
	if err != nil {
		return d, err
	}
	var m modelMetadata
	if err := json.Unmarshal(body, &m); err != nil {
		return d, remote.Broken(&Garbage{fmt.Errorf("the metadata of model '%s': %w", model, err)})
	}
	for _, t := range m.Inputs {
		d.inputs = append(d.inputs, tensorSpec(t.Name, t.Datatype, t.Shape))
	}
	for _, t := range m.Outputs {
		d.outputs = append(d.outputs, tensorSpec(t.Name, t.Datatype, t.Shape))
	}
	return d, nil
}

// infer implements client.
func (c *overREST) infer(ctx context.Context, use *remote.Use, q *question, trace string) (*answer, error) {
	asked := v2.Request{ID: q.id, Parameters: q.parameters, ContentType: q.contentType, Inputs: q.inputs}
	for _, name := range q.outputs {
		asked.Outputs = append(asked.Outputs, v2.Output{Name: name})
	}
	body, header, err := asked.Append(nil, c.binary.Load())
	if err != nil {
		return nil, err
	}
	encoding := ""
	if c.gzip {
		if body, err = compressed(body); err != nil {
			return nil, err
		}
		encoding = "gzip"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, at(q.model, q.version)+"/infer", bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	c.sign(request)
	request.Header.Set("Content-Type", "application/json")
	if header != v2.WholeBody {
		request.Header.Set("Content-Type", "application/octet-stream")
		request.Header.Set(headerLength, strconv.Itoa(header))
	}
	if encoding != "" {
		request.Header.Set("Content-Encoding", encoding)
	}
	if trace != "" {
		request.Header.Set("Traceparent", trace)
	}
	if deadline, ok := ctx.Deadline(); ok { // our servers read it
		request.Header.Set("X-Request-Timeout", strconv.FormatFloat(max(time.Until(deadline).Seconds(), 0.001), 'f', 3, 64))
	}
	response, err := use.RoundTrip(ctx, c.requests, request) //nolint:bodyclose // ReadBody closes it
	if err != nil {
		return nil, err
	}
	body, err = remote.ReadBody(response, c.limit)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		return nil, refusalOf(response, body)
	}
	length := v2.WholeBody
	if field := response.Header.Get(headerLength); field != "" {
		if length, err = strconv.Atoi(field); err != nil || length < 0 {
			return nil, remote.Broken(&Garbage{fmt.Errorf("its field %s is %.40q", headerLength, field)})
		}
	}
	parsed, err := v2.ParseResponse(body, length, c.limit)
	if failed, ok := errors.AsType[*engine.Error](err); ok && failed.Kind == engine.KindTooLarge {
		return nil, err
	}
	if err != nil {
		return nil, remote.Broken(&Garbage{err})
	}
	return &answer{outputs: parsed.Outputs, contentType: parsed.ContentType}, nil
}

// stream implements client.
func (c *overREST) stream(context.Context, *remote.Use, *question, string) (*answers, error) {
	return nil, errors.New("the protocol REST has no streams")
}

func compressed(body []byte) ([]byte, error) {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(body); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
