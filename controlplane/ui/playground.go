package ui

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"clearmlserving/clearml"
	"clearmlserving/operations"
	"clearmlserving/serving"
)

const (
	// playgroundLimit is how long an endpoint may take to answer the playground.
	playgroundLimit = time.Minute
	// maxReply bounds how much of an answer is shown.
	maxReply = 1 << 20
)

type playgroundPage struct {
	Doc       *clearml.Service
	Endpoint  string
	Endpoints []string
	Instances []instance
	// Instance is the task of the instance that gets the request.
	Instance string
	Body     string
	From     string // where the first request comes from
	Reply    *reply
	Problem  string
	// KeyNeeded means that the service requires an access key; Key is the visitor's.
	KeyNeeded bool
	Key       string
	// Curl and Python are the same request as commands.
	Curl, Python string
}

// reply is an endpoint's answer.
type reply struct {
	Status   int
	Good     bool
	Text     string
	Type     string
	Took     string
	Size     int64
	Endpoint string // that answered, according to the instance
	ModelID  string
	Cut      bool
}

func (p *Pages) playground(v *visit, s *operations.Service) error {
	page, err := v.playgroundPage(s, v.r.URL.Query())
	if err != nil {
		return err
	}
	page.Body, page.From = v.firstRequest(s, page.Endpoint, page.Instances)
	return v.showPlayground(http.StatusOK, page)
}

// firstRequest is the request that the page shows first, and where it comes from: a golden sample,
// a recorded request, the example of the signature that instances report, or the columns of the model.
func (v *visit) firstRequest(s *operations.Service, endpoint string, instances []instance) (body, from string) {
	at := []string{endpoint}
	if c, ok := serving.LookUp(s.Config.Canaries, endpoint); ok {
		at = append(at, c.LoadEndpoints...)
	}
	if rule, _ := cutLast(endpoint); rule != "" {
		at = append(at, rule)
	}
	for _, one := range at {
		options, _ := serving.LookUp(s.Config.Options, one)
		if known := v.samplesOf(s.Doc.Artifacts, options.Golden).first; known != nil && asText(*known) {
			return readable(known.Body), "the first golden sample"
		}
	}
	for _, one := range at {
		options, _ := serving.LookUp(s.Config.Options, one)
		for _, known := range v.recorded(options.Record, one, 1) {
			if asText(known) {
				return readable(known.Body), "the newest recorded request"
			}
		}
	}
	for _, one := range at {
		if body, from := v.reportedExample(serving.CleanURL(one), instances); body != "" {
			return body, from
		}
	}
	for _, one := range at {
		e, _ := recordOf(s.Config, serving.CleanURL(one))
		columns := e.InputName
		if e.ModelID != "" && len(columns) == 0 {
			if m, err := v.readModel(string(e.ModelID)); err == nil { // a model that is gone is told elsewhere
				columns = columnsOf(m)
			}
		}
		if len(columns) > 0 {
			return exampleOf(columns), "the columns of the model"
		}
	}
	return "{}", ""
}

// reportedExample is the example of a body that instances report of an endpoint, "" if there is none. A recorded
// request is only shown to those who may see all requests.
func (v *visit) reportedExample(url serving.EndpointURL, instances []instance) (body, from string) {
	for _, i := range instances {
		for _, e := range i.Report.Endpoints {
			if e.URL != url || e.Signature == nil || e.Signature.Example == nil {
				continue
			}
			switch e.Signature.ExampleOf {
			case "recorded":
				if v.user.MayWrite() {
					return readable(e.Signature.Example), "a recorded request"
				}
			case "golden":
				return readable(e.Signature.Example), "a golden sample"
			case "code":
				return readable(e.Signature.Example), "the example in the code"
			default:
				return readable(e.Signature.Example), "an example made of the signature (" + e.Signature.Source + ")"
			}
		}
	}
	return "", ""
}

// recorded are the newest recorded requests, for those who may deploy code, which sees all requests.
func (v *visit) recorded(record *serving.Record, url string, most int) []serving.Exchange {
	if record == nil || v.p.opts.Recorded == nil || !v.user.MayWrite() {
		return nil
	}
	return v.p.opts.Recorded(serving.CleanURL(url), most)
}

// asText says whether the page can send a request as it was.
func asText(e serving.Exchange) bool {
	return utf8.Valid(e.Body) && (e.ContentType == "" || strings.HasPrefix(e.ContentType, "application/json"))
}

// columnsOf are the columns that a model's metadata names.
func columnsOf(m modelDoc) []string {
	for _, key := range []string{"columns", "features", "feature_names", "inputs", "input_names"} {
		text, ok := m.Metadata[key]
		if !ok {
			continue
		}
		var names []string
		if json.Unmarshal([]byte(text), &names) == nil {
			return names
		}
		return words(strings.NewReplacer("[", "", "]", "", "'", "", `"`, "").Replace(text))
	}
	return nil
}

// exampleOf is a JSON object with these fields, in their order.
func exampleOf(columns []string) string {
	var fields []string
	for _, name := range columns {
		fields = append(fields, "  "+quoteFact(name)+": 0")
	}
	return "{\n" + strings.Join(fields, ",\n") + "\n}"
}

func (v *visit) playgroundPage(s *operations.Service, form url.Values) (playgroundPage, error) {
	page := playgroundPage{
		Doc: s.Doc, Endpoint: string(serving.CleanURL(form.Get("endpoint"))), Instance: form.Get("instance"), KeyNeeded: s.Config.Access.Required,
	}
	all, err := v.instances(s.Doc.ID)
	if err != nil {
		return page, err
	}
	for _, i := range all {
		if i.Alive() && i.Report.URL != "" {
			page.Instances = append(page.Instances, i)
		}
	}
	rows, err := v.endpointRows(s.Config, all)
	if err != nil {
		return page, err
	}
	for _, row := range rows {
		page.Endpoints = append(page.Endpoints, row.URL)
	}
	for _, canary := range canaryRows(s.Config, all) {
		page.Endpoints = append(page.Endpoints, canary.URL)
	}
	slices.Sort(page.Endpoints)
	page.Endpoints = slices.Compact(page.Endpoints)
	if page.Endpoint == "" && len(page.Endpoints) > 0 {
		page.Endpoint = page.Endpoints[0]
	}
	return page, nil
}

// play sends a request to an endpoint. Its address comes from the records of the service's
// instances; the form only selects one of them. reach verifies that an instance is there.
func (p *Pages) play(v *visit, s *operations.Service) error {
	page, err := v.playgroundPage(s, v.r.PostForm)
	if err != nil {
		return err
	}
	page.Body, page.Key = v.r.PostForm.Get("body"), strings.TrimSpace(v.r.PostForm.Get("key"))
	status := http.StatusOK
	if page.Reply, err = v.ask(page); err != nil {
		told := explain(err)
		page.Problem, status = told.Text, told.Status
	}
	return v.showPlayground(status, page)
}

func (v *visit) showPlayground(status int, page playgroundPage) error {
	if target, _, err := page.target(); err == nil {
		page.Curl, page.Python = curlOf(target.String(), page.Body, page.KeyNeeded), pythonOf(target.String(), page.Body, page.KeyNeeded)
	}
	return v.renderStatus(status, "playground", "Playground of "+page.Doc.Name, page)
}

// target is the endpoint's address and the public key of the instance there.
func (page playgroundPage) target() (where *url.URL, key string, err error) {
	switch {
	case page.Endpoint == "" || !slices.Contains(page.Endpoints, page.Endpoint):
		return nil, "", refusal{http.StatusNotFound, fmt.Sprintf("The service %s has no endpoint %q.", page.Doc.Name, page.Endpoint)}
	case len(page.Instances) == 0:
		return nil, "", refusal{http.StatusServiceUnavailable, "No instance of this service is running: start one with  clearml-serving --id " + page.Doc.ID + " inference"}
	}
	at := max(0, slices.IndexFunc(page.Instances, func(i instance) bool { return i.TaskID == page.Instance }))
	report := page.Instances[at].Report
	base, err := url.Parse(report.URL)
	if err != nil || (base.Scheme != "http" && base.Scheme != "https") || base.Host == "" || base.User != nil {
		return nil, "", refusal{http.StatusBadGateway, "The instance reports an address that cannot be asked."}
	}
	return &url.URL{Scheme: base.Scheme, Host: base.Host, Path: "/" + cmp.Or(strings.Trim(report.Path, "/"), "serve") + "/" + page.Endpoint}, report.Key, nil
}

// ask sends the request and measures the time of the answer.
func (v *visit) ask(page playgroundPage) (*reply, error) {
	target, key, err := page.target()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(v.r.Context(), playgroundLimit)
	defer cancel()
	client, err := v.p.reach(ctx, target, key)
	if err != nil {
		// The message is the same for every reason, so that a forged record cannot be used to
		// find out which addresses exist.
		v.p.log.Warn("instance not reached for the playground", "address", target.Host, "err", err)
		return nil, refusal{http.StatusBadGateway, "At " + target.Host + " the instance did not prove who it is: this server does not reach it there, or something else answers, or it is of an older version, or its certificate comes from an authority that this server does not know. The server's log says more. The lines below work from where the instance is reached."}
	}
	defer client.Close()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), strings.NewReader(page.Body))
	if err != nil {
		return nil, refusal{http.StatusBadRequest, "The request could not be made: " + err.Error()}
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("Accept", "*/*")
	if page.Key != "" {
		request.Header.Set("Authorization", "Bearer "+page.Key)
	}
	began := time.Now()
	answer, err := client.Do(request)
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, refusal{http.StatusGatewayTimeout, fmt.Sprintf("The endpoint did not answer within %s.", formatDuration(playgroundLimit))}
	}
	if err != nil {
		return nil, refusal{http.StatusBadGateway, "The instance did not answer: " + err.Error()}
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxReply+1))
	took := time.Since(began)
	if err != nil {
		return nil, refusal{http.StatusBadGateway, "The answer broke off: " + err.Error()}
	}
	return &reply{
		Status: answer.StatusCode, Good: answer.StatusCode < http.StatusBadRequest, Text: readable(text), Took: formatDuration(took),
		Type: answer.Header.Get("Content-Type"), Size: int64(len(text)), Cut: len(text) > maxReply,
		Endpoint: answer.Header.Get("X-Clearml-Endpoint"), ModelID: answer.Header.Get("X-Clearml-Model-Id"),
	}, nil
}

// readable is an answer as text: JSON is indented, and binary data is only counted.
func readable(answer []byte) string {
	answer = answer[:min(len(answer), maxReply)]
	var out bytes.Buffer
	if json.Valid(answer) && len(answer) < 64<<10 && json.Indent(&out, answer, "", "  ") == nil {
		return plainJSON(out.String())
	}
	if !utf8.Valid(answer) {
		return fmt.Sprintf("%d bytes that are no text", len(answer))
	}
	return string(answer)
}

// plainJSON writes <, > and & as themselves where JSON has escaped them.
func plainJSON(text string) string {
	return jsonEscape.ReplaceAllStringFunc(text, func(found string) string {
		switch found {
		case `\u003c`:
			return "<"
		case `\u003e`:
			return ">"
		case `\u0026`:
			return "&"
		}
		return found
	})
}

// jsonEscape finds every escape, so that an escaped backslash is not taken for the start of one.
var jsonEscape = regexp.MustCompile(`\\(?:u[0-9a-fA-F]{4}|.)`)

// curlOf is the same request for a shell.
func curlOf(target, body string, key bool) string {
	quote := func(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
	header := ""
	if key {
		header = " \\\n  -H \"Authorization: Bearer $ACCESS_KEY\""
	}
	return "curl -X POST " + quote(target) + " \\\n  -H 'Content-Type: application/json'" + header + " \\\n  -d " + quote(oneLine(body))
}

// pythonOf is the same request for Python.
func pythonOf(target, body string, key bool) string {
	imports, header := "import requests", ""
	if key {
		imports, header = "import os\n\nimport requests", ", \"Authorization\": \"Bearer \" + os.environ[\"ACCESS_KEY\"]"
	}
	return imports + "\n\nanswer = requests.post(\n    " + quoteFact(target) + ",\n    data=" + quoteFact(oneLine(body)) +
		".encode(),\n    headers={\"Content-Type\": \"application/json\"" + header + "},\n    timeout=60,\n)\nanswer.raise_for_status()\nprint(answer.json())"
}

// oneLine drops the line breaks of JSON.
func oneLine(body string) string {
	var out bytes.Buffer
	if json.Compact(&out, []byte(body)) != nil {
		return body
	}
	return out.String()
}
