package main

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"clearmlserving/feedback"
	"clearmlserving/operations"
	"clearmlserving/retry"
	"clearmlserving/serving"
)

// importFlags are the flags of feedback import.
type importFlags struct {
	file, endpoint, keyColumn, valueColumn string
}

const importLength = 1000 // truths of one request

func feedbackImportCommand(a *app) *cobra.Command {
	var f importFlags
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Send the truths in a CSV file",
		Long: `Send the truths in a CSV file with a heading to an instance. A column has the request
id, or the client's own key if the endpoint has one, another what was true.

The command may be repeated after an interruption: truths that are known already
change nothing, and are counted as duplicates.`,
		Example: `  clearml-serving feedback import truths.csv --endpoint test_model
  clearml-serving feedback import loans.csv --endpoint loans --key-column loan_id --value-column repaid`,
		Annotations: map[string]string{markWords: ""},
		Args:        oneArg(&f.file, "the file is missing", "Try: clearml-serving feedback import truths.csv --endpoint test_model"),
	}
	flags := cmd.Flags()
	flags.StringVar(&f.endpoint, "endpoint", "", "name under /serve/")
	flags.StringVar(&f.keyColumn, "key-column", "", "column with the request id or key (default: request_id, key, or id)")
	flags.StringVar(&f.valueColumn, "value-column", "", "column with what was true (default: truth, or the only other one)")
	required(cmd, "endpoint")
	a.declare(flags, "serve-url")
	return a.reads(cmd, func(ctx context.Context, s *operations.Service) (object, error) { return a.importFeedback(ctx, s, f) })
}

func (a *app) importFeedback(ctx context.Context, s *operations.Service, f importFlags) (object, error) {
	endpoint := serving.CleanURL(f.endpoint)
	option := s.Config.FeedbackOf(endpoint)
	if option == nil {
		return nil, hint(fmt.Errorf("endpoint '%s' keeps no predictions to compare with", endpoint), "Try: clearml-serving feedback set --endpoint %s", endpoint)
	}
	file, err := os.Open(f.file)
	if errors.Is(err, os.ErrNotExist) {
		return nil, notFound("there is no file %s", f.file)
	}
	if err != nil {
		return nil, err
	}
	defer file.Close() //nolint:errcheck // it is only read
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	targets, err := a.instancesToAsk(ctx, s, a.print.notice)
	if err != nil {
		return nil, err
	}
	address := feedbackAddress(targets[0], endpoint, "")
	reader := csv.NewReader(file)
	reader.ReuseRecord = true
	heading, err := reader.Read()
	if err != nil {
		return nil, fmt.Errorf("read %s: it has no heading: %w", f.file, err)
	}
	heading = slices.Clone(heading) // the reader reuses it
	key, value, err := f.columns(heading)
	if err != nil {
		return nil, err
	}
	bar := a.progress("import", info.Size())
	defer bar.done()
	name := "request_id"
	if option.Key != "" {
		name = "key"
	}
	var sum feedback.Taken
	var batch []map[string]any
	send := func() error {
		if len(batch) == 0 {
			return nil
		}
		taken, err := a.sendFeedback(ctx, address, batch)
		if err != nil {
			return err
		}
		sum.Accepted += taken.Accepted
		sum.Joined += taken.Joined
		sum.Pending += taken.Pending
		sum.Duplicate += taken.Duplicate
		batch = batch[:0]
		bar.set(reader.InputOffset())
		return nil
	}
	for {
		record, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", f.file, err)
		}
		line, _ := reader.FieldPos(0)
		truth, err := truthOf(record[value], option.Task)
		if err != nil {
			return nil, fmt.Errorf("%s, line %d, column %s: %w", f.file, line, heading[value], err)
		}
		batch = append(batch, map[string]any{name: strings.Clone(record[key]), "truth": truth})
		if len(batch) == importLength {
			if err := send(); err != nil {
				return nil, fmt.Errorf("%s, lines up to %d: %w", f.file, line, err)
			}
		}
	}
	if err := send(); err != nil {
		return nil, fmt.Errorf("%s, the last lines: %w", f.file, err)
	}
	a.print.line("%d truths: %d joined, %d wait for their predictions, %d known already", sum.Accepted, sum.Joined, sum.Pending, sum.Duplicate)
	return object{{"endpoint", endpoint}, {"accepted", sum.Accepted}, {"joined", sum.Joined}, {"pending", sum.Pending}, {"duplicate", sum.Duplicate}}, nil
}

// columns finds the columns of keys and truths.
func (f importFlags) columns(heading []string) (key, value int, err error) {
	if len(heading) > 0 {
		heading[0] = strings.TrimPrefix(heading[0], "\ufeff")
	}
	find := func(names ...string) int {
		for _, name := range names {
			if i := slices.Index(heading, name); i >= 0 {
				return i
			}
		}
		return -1
	}
	keys, values := []string{"request_id", "key", "id"}, []string{"truth"}
	if f.keyColumn != "" {
		keys = []string{f.keyColumn}
	}
	if f.valueColumn != "" {
		values = []string{f.valueColumn}
	}
	columns := strings.Join(heading, ", ")
	if key = find(keys...); key < 0 {
		return 0, 0, hint(fmt.Errorf("%s has no column %s; its columns: %s", f.file, strings.Join(keys, ", "), columns), "Try: --key-column NAME")
	}
	value = find(values...)
	if value < 0 && f.valueColumn == "" && len(heading) == 2 {
		value = 1 - key
	}
	if value < 0 {
		return 0, 0, hint(fmt.Errorf("%s has no column %s; its columns: %s", f.file, strings.Join(values, ", "), columns), "Try: --value-column NAME")
	}
	return key, value, nil
}

// truthOf is the value of a cell: a number, a class, or a JSON list of these.
func truthOf(cell, task string) (any, error) {
	cell = strings.TrimSpace(cell)
	if cell == "" {
		return nil, errors.New("is empty")
	}
	if strings.HasPrefix(cell, "[") {
		var list []json.RawMessage
		if err := json.Unmarshal([]byte(cell), &list); err == nil {
			return list, nil
		}
	}
	if task != serving.TaskRegression {
		return strings.Clone(cell), nil
	}
	n, err := strconv.ParseFloat(cell, 64)
	if err != nil || n-n != 0 { // infinite, or none
		return nil, fmt.Errorf("%q is not a number", cell)
	}
	return n, nil
}

// sendFeedback sends truths to an instance. It repeats what fails for a reason that passes.
func (a *app) sendFeedback(ctx context.Context, address string, batch []map[string]any) (taken feedback.Taken, err error) {
	body, err := json.Marshal(batch)
	if err != nil {
		return taken, err
	}
	for attempt := 1; ; attempt++ {
		status, answer, err := a.post(ctx, address, "application/json", body)
		if err == nil {
			err = refusedFeedback(status, answer)
		}
		if err == nil {
			err = json.Unmarshal(answer, &taken) // before the return reads it
			return taken, err
		}
		passing := status == 0 || status == http.StatusServiceUnavailable || status == http.StatusTooManyRequests
		if !passing || attempt == 6 || ctx.Err() != nil {
			return taken, err
		}
		if err := retry.Sleep(ctx, retry.Doubled(attempt, 200*time.Millisecond, 5*time.Second)); err != nil {
			return taken, err
		}
	}
}
