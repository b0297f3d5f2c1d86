package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"clearmlserving/feedback"
	"clearmlserving/operations"
	"clearmlserving/serving"
)

// measureNames are the measures in the order in which they are shown.
var measureNames = []string{feedback.Accuracy, feedback.F1Macro, feedback.F1Binary, feedback.LogLoss, feedback.ECE, feedback.MAE, feedback.RMSE} //nolint:gochecknoglobals // a constant table

func feedbackShowCommand(a *app) *cobra.Command {
	var endpoint string
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show the quality of an endpoint's predictions, by version and day",
		Long: `Show the quality of an endpoint's predictions, by version and by the day of the
request in UTC, summed over the running instances. A name stands for all its versions.`,
		Example: `  clearml-serving feedback show --endpoint test_model
  clearml-serving --json feedback show --endpoint test_model/2`,
	}
	cmd.Flags().StringVar(&endpoint, "endpoint", "", "name under /serve/")
	required(cmd, "endpoint")
	a.declare(cmd.Flags(), "serve-url")
	return a.reads(cmd, func(ctx context.Context, s *operations.Service) (object, error) {
		targets, err := a.instancesToAsk(ctx, s, a.print.notice)
		if err != nil {
			return nil, err
		}
		report, err := a.quality(ctx, targets, serving.CleanURL(endpoint))
		if err != nil {
			return nil, err
		}
		a.printQuality(report)
		return qualityObject(report), nil
	})
}

func feedbackListCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the endpoints that keep predictions, with their quality",
		Long:    "List the endpoints that keep predictions, with the quality of their versions.",
		Example: "  clearml-serving feedback list --json",
	}
	a.declare(cmd.Flags(), "serve-url")
	return a.reads(cmd, func(ctx context.Context, s *operations.Service) (object, error) {
		var rows [][]string
		list := []object{}
		var targets []string
		for _, url := range keys(s.Config.Options) {
			option := s.Config.Options[url].Feedback
			if option == nil {
				continue
			}
			if targets == nil { // once, for all endpoints
				var err error
				if targets, err = a.instancesToAsk(ctx, s, a.print.notice); err != nil {
					return nil, err
				}
			}
			report, err := a.quality(ctx, targets, serving.CleanURL(url))
			if err != nil {
				return nil, err
			}
			rows = append(rows, qualityRows(report)...)
			list = append(list, append(object{{"task", option.Task}}, qualityObject(report)...))
		}
		if len(rows) == 0 {
			a.print.line("No predictions are kept (clearml-serving feedback set)")
		} else {
			a.print.table(qualityHeading(), rows)
		}
		return object{{"id", s.Doc.ID}, {"endpoints", list}}, nil
	})
}

func qualityHeading() []string {
	heading := []string{"ENDPOINT", "ROWS"}
	for _, name := range measureNames {
		heading = append(heading, strings.ToUpper(strings.ReplaceAll(name, "_", " ")))
	}
	return heading
}

// qualityRow are the cells of a table for some sums.
func qualityRow(t feedback.Totals) []string {
	cells := []string{strconv.FormatUint(t.Rows, 10)}
	measures := t.Measures()
	for _, name := range measureNames {
		value, ok := measures[name]
		if !ok {
			cells = append(cells, "-")
			continue
		}
		cells = append(cells, strconv.FormatFloat(value, 'g', 5, 64))
	}
	return cells
}

func qualityRows(r feedback.Report) (rows [][]string) {
	for _, v := range r.Versions {
		rows = append(rows, append([]string{"/" + string(v.URL)}, qualityRow(v.All)...))
	}
	if len(rows) == 0 {
		rows = append(rows, append([]string{"/" + string(r.Endpoint)}, qualityRow(feedback.Totals{})...))
	}
	return rows
}

func (a *app) printQuality(r feedback.Report) {
	a.print.table(qualityHeading(), qualityRows(r))
	for _, v := range r.Versions {
		var days [][]string
		for _, d := range v.Days {
			days = append(days, append([]string{d.Day}, qualityRow(d.Totals)...))
		}
		heading := qualityHeading()
		heading[0] = "/" + string(v.URL)
		a.print.section(heading, days)
	}
	a.print.line("")
	a.print.line("Kept predictions: %d; truths that wait for their prediction: %d", r.Kept, r.Waiting)
	for _, name := range keys(r.Outcomes) {
		a.print.line("Truths %s: %d", name, r.Outcomes[name])
	}
	for _, name := range keys(r.Skipped) {
		a.print.notice("Warning: %d answers without a usable prediction: %s", r.Skipped[name], name)
	}
	if r.Dropped > 0 {
		a.print.notice("Warning: %d predictions were not kept, because storing them took too long or failed", r.Dropped)
	}
	if r.Problem != "" {
		a.print.notice("Warning: feedback cannot be stored: %s", r.Problem)
	}
}

func qualityObject(r feedback.Report) object {
	versions := []object{}
	for _, v := range r.Versions {
		days := []object{}
		for _, d := range v.Days {
			days = append(days, append(object{{"day", d.Day}}, totalsObject(d.Totals)...))
		}
		versions = append(versions, append(object{{"url", v.URL}, {"endpoint", v.Endpoint}, {"version", v.Version}}, append(totalsObject(v.All), field{"days", days})...))
	}
	return object{
		{"endpoint", r.Endpoint},
		{"versions", versions},
		{"predictions", r.Kept},
		{"bytes", r.Bytes},
		{"pending", r.Waiting},
		{"feedback", r.Outcomes},
		{"skipped", r.Skipped},
		{"dropped", r.Dropped},
		{"problem", orNull(r.Problem)},
	}
}

func totalsObject(t feedback.Totals) object {
	measures := t.Measures()
	o := object{{"rows", t.Rows}}
	for _, name := range measureNames {
		if value, ok := measures[name]; ok {
			o = append(o, field{name, value})
		}
	}
	if len(t.Classes) > 0 {
		o = append(o, field{"classes", t.Classes})
	}
	if t.LogLoss.N > 0 {
		bins := []object{}
		for i, b := range t.Bins {
			bins = append(bins, object{{"up_to", float64(i+1) / float64(len(t.Bins))}, {"rows", b.Rows}, {"score_sum", b.Score.Total()}, {"positives", b.Positive}})
		}
		o = append(o, field{"calibration", bins})
	}
	return o
}

// quality sums up the quality of an endpoint over these instances.
func (a *app) quality(ctx context.Context, targets []string, endpoint serving.EndpointURL) (feedback.Report, error) {
	sum := feedback.Report{Endpoint: endpoint}
	for _, base := range targets {
		var one feedback.Report
		text, err := a.askAbout(ctx, base, endpoint, "")
		if err == nil {
			err = json.Unmarshal(text, &one)
		}
		if err != nil {
			return sum, fmt.Errorf("ask the inference service at %s about its predictions: %w", base, err)
		}
		sum.Merge(one)
	}
	return sum, nil
}

// instancesToAsk returns the addresses of the running instances: that of --serve-url, or those of
// the records whose addresses prove to be theirs. notice is told of the others.
func (a *app) instancesToAsk(ctx context.Context, s *operations.Service, notice func(string, ...any)) ([]string, error) {
	f, err := a.fleet(ctx, s)
	if err != nil {
		return nil, err
	}
	var targets []string
	for _, l := range f.answering() {
		base := strings.TrimRight(l.URL, "/")
		if l.Key != "" { // one of the records
			if err := a.proves(ctx, base, l.Key); err != nil {
				notice("Warning: the instance %s at %s is left out: %v", l.Name, base, err)
				continue
			}
		}
		targets = append(targets, base)
	}
	if len(targets) == 0 {
		return nil, hint(errors.New("no running inference service of this serving service can be reached"), "Try: clearml-serving up   (starts one), or --serve-url with the address of a running one")
	}
	return targets, nil
}

// proves checks that an instance with this key answers at an address, before a key is sent there.
func (a *app) proves(ctx context.Context, base, key string) error {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	challenge := rand.Text()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+serving.IdentityPath+"?challenge="+challenge, nil)
	if err != nil {
		return err
	}
	resp, err := a.ask(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var proof serving.Proof
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<16)).Decode(&proof); err != nil {
		return fmt.Errorf("it does not prove its identity: %w", err)
	}
	return proof.Verify(key, challenge)
}

// feedbackAddress is where an instance takes and shows feedback about an endpoint.
func feedbackAddress(base string, endpoint serving.EndpointURL, query string) string {
	address := base + "/feedback/" + (&url.URL{Path: string(endpoint)}).EscapedPath()
	if query != "" {
		address += "?" + query
	}
	return address
}

// askAbout asks an instance about the feedback of an endpoint.
func (a *app) askAbout(ctx context.Context, base string, endpoint serving.EndpointURL, query string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, feedbackAddress(base, endpoint, query), nil)
	if err != nil {
		return nil, err
	}
	a.showServeKey(req)
	resp, err := a.ask(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxStatus))
	if err != nil {
		return nil, err
	}
	return text, refusedFeedback(resp.StatusCode, text)
}

// refusedFeedback is the error of an answer of an instance, nil for one that is not an error.
func refusedFeedback(status int, text []byte) error {
	var answer struct{ Detail string }
	if status == http.StatusOK {
		return nil
	}
	if json.Unmarshal(text, &answer) != nil || answer.Detail == "" {
		answer.Detail = fmt.Sprintf("it answers with status %d", status)
	}
	switch status {
	case http.StatusNotFound:
		return notFound("%s", answer.Detail)
	case http.StatusUnauthorized, http.StatusForbidden:
		return hint(errors.New(answer.Detail), "Try: CLEARML_SERVING_KEY=<key> clearml-serving …   (clearml-serving auth create makes one)")
	}
	return errors.New(answer.Detail)
}

func feedbackExportCommand(a *app) *cobra.Command {
	var endpoint, file string
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Write the joined predictions of an endpoint, one JSON object a line",
		Long: `Write the predictions of an endpoint that have been joined with what was true, one
JSON object a line: key, time, endpoint, prediction, truth. The key is the request id,
which the request log has too, or the client's own key.`,
		Example: `  clearml-serving feedback export --endpoint test_model --output truths.jsonl`,
	}
	cmd.Flags().StringVar(&endpoint, "endpoint", "", "name under /serve/")
	cmd.Flags().StringVar(&file, "output", "", "file to write (default: the standard output)")
	required(cmd, "endpoint")
	a.declare(cmd.Flags(), "serve-url")
	return a.reads(cmd, func(ctx context.Context, s *operations.Service) (_ object, err error) {
		notice := a.print.notice
		if file == "" { // the standard output has the rows
			notice = func(format string, args ...any) { put(a.print.err, format, args...) }
		}
		targets, err := a.instancesToAsk(ctx, s, notice)
		if err != nil {
			return nil, err // an earlier file stays as it is
		}
		to := a.sys.stdout
		if file != "" {
			f, failed := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
			if failed != nil {
				return nil, failed
			}
			defer func() { err = errors.Join(err, f.Close()) }()
			to = f
		}
		out := bufio.NewWriter(to)
		n := 0
		for _, base := range targets {
			count, err := a.exportFrom(ctx, base, serving.CleanURL(endpoint), out)
			if err != nil {
				return nil, err
			}
			n += count
		}
		if err := out.Flush(); err != nil {
			return nil, err
		}
		if file == "" {
			return nil, nil
		}
		a.print.line("%s written to %s", plural(n, "joined prediction"), file)
		return object{{"endpoint", serving.CleanURL(endpoint)}, {"written", n}, {"file", file}}, nil
	})
}

// exportFrom writes the joined predictions of one instance.
func (a *app) exportFrom(ctx context.Context, base string, endpoint serving.EndpointURL, out io.Writer) (n int, err error) {
	after := int64(0)
	for {
		page, err := a.askAbout(ctx, base, endpoint, "rows="+strconv.FormatInt(after, 10))
		if err != nil || len(page) == 0 {
			return n, err
		}
		if _, err := out.Write(page); err != nil {
			return n, err
		}
		before := after
		for line := range strings.Lines(string(page)) {
			var j struct{ Number int64 }
			if err := json.Unmarshal([]byte(line), &j); err != nil {
				return n, fmt.Errorf("read the joined predictions of the inference service at %s: %w", base, err)
			}
			after = j.Number
			n++
		}
		if after <= before {
			return n, fmt.Errorf("the inference service at %s repeats its joined predictions", base)
		}
	}
}
