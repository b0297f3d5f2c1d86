package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"clearmlserving/operations"
	"clearmlserving/serving"
)

// metricFlags are the flags of metrics add.
type metricFlags struct {
	endpoint                      string
	logFreq                       *float64
	scalar, enum, value, counters []string
}

func metricsAddCommand(a *app) *cobra.Command {
	var f metricFlags
	cmd := &cobra.Command{
		Use:   "add",
		Short: "Log variables of an endpoint",
		Long: `Log variables of an endpoint: keys of the request or of the answer, or values
that user code gives to its collect function. What is logged already stays; a
variable of the same name is replaced.

` + metricsShown,
		Example: `  clearml-serving metrics add --endpoint test_model_sklearn --variable-scalar x0=0,0.1,0.5,1,10 x1=0/10/5
  clearml-serving metrics add --endpoint "test_model_auto/*" --variable-enum animal=cat,dog --log-freq 0.5
  clearml-serving metrics add --endpoint test_model/1 --variable-value y --variable-counter tokens`,
	}
	flags := cmd.Flags()
	flags.StringVar(&f.endpoint, "endpoint", "", "endpoint with its version, or a beginning with * behind it: \"model/*\"")
	required(cmd, "endpoint")
	flags.Var(optionalDecimal(&f.logFreq), "log-freq", "share of the requests that are logged, 0 to 1 (default: the service's)")
	flags.Var(wordList(&f.scalar), "variable-scalar", "number shown as a histogram: x0=0,0.5,1 (bounds) or x0=min/max/number of buckets")
	flags.Var(wordList(&f.enum), "variable-enum", "one of a list of words: animal=cat,dog,sheep")
	flags.Var(wordList(&f.value), "variable-value", "number of which the last value is shown")
	flags.Var(wordList(&f.counters), "variable-counter", "number that is added up")
	mark(flags, "variable-counter", markOurs)
	return a.edits(cmd, func(ctx context.Context, s *operations.Service) (change, error) {
		a.sayEdit(s, "Adding metric logging endpoint '/%s/'", f.endpoint)
		variables, err := f.variables(a.print.notice)
		if err != nil {
			return change{}, err
		}
		m := serving.MetricLogging{Endpoint: f.endpoint, LogFrequency: f.logFreq, Metrics: variables}
		url := string(serving.CleanURL(f.endpoint))
		_, updated := serving.LookUp(s.Config.Metrics, url)
		first := true
		err = s.Edit(ctx, func(c *serving.Service) (serving.Section, error) {
			_, err := c.AddMetrics(m)
			if err == nil && first {
				first = false
				if updated {
					a.print.notice("Warning: Metric logging '%s' updated", url)
				}
				a.print.line("Updating serving service")
			}
			return serving.SectionMetrics, err
		})
		return change{result: object{{"endpoint", url}, {"variables", keys(m.Metrics)}, {"updated", updated}}}, err
	})
}

// variables reads the flags that define variables. notice is told of a name
// that is defined twice; the last definition counts.
func (f *metricFlags) variables(notice func(string, ...any)) (map[string]serving.Metric, error) {
	all := map[string]serving.Metric{}
	for _, kind := range []struct {
		name    string
		words   []string
		buckets func(string) ([]any, error) // nil: the word is the name alone
	}{
		{serving.MetricScalar, f.scalar, readBounds},
		{serving.MetricEnum, f.enum, serving.ParseChoices},
		{serving.MetricValue, f.value, nil},
		{serving.MetricCounter, f.counters, nil},
	} {
		for _, word := range kind.words {
			metric := serving.Metric{Type: kind.name}
			name, buckets, found := strings.Cut(word, "=")
			switch {
			case kind.buckets == nil && found:
				return nil, fmt.Errorf("variable '%s' takes no buckets: --variable-%s %s", word, kind.name, name)
			case kind.buckets != nil && !found:
				//nolint:staticcheck // the original's words
				return nil, fmt.Errorf("Variable '%s' should be in the form of <name>=<buckets> example: x1=0,1,2,3,4,5", word)
			case strings.TrimSpace(name) == "":
				return nil, fmt.Errorf("variable '%s' has no name", word)
			case kind.buckets != nil:
				values, err := kind.buckets(buckets)
				if err != nil {
					return nil, fmt.Errorf("variable '%s': %w", name, err)
				}
				metric.Buckets = values
			}
			name = strings.TrimSpace(name)
			if _, twice := all[name]; twice {
				notice("Warning: %s defined twice", name)
			}
			all[name] = metric
		}
	}
	return all, nil
}

// readBounds reads the bounds of a histogram, as Python writes numbers.
func readBounds(text string) ([]any, error) {
	bounds, err := serving.ParseBounds(text)
	values := make([]any, len(bounds))
	for i, bound := range bounds {
		values[i] = json.Number(pyFloat(bound))
	}
	return values, err
}
