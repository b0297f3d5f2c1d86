package ui

import (
	"strings"

	"github.com/prometheus/common/model"

	"clearmlserving/serving"
)

// qualityCharts are the charts of an endpoint whose predictions are compared with what turned out to be
// true.
func qualityCharts(config serving.Service, at string) []chart {
	f := config.FeedbackOf(serving.CleanURL(at))
	if f == nil {
		return nil
	}
	const hint = "of the newest 1000 predictions with feedback"
	lines := func(measures ...string) func(asked) []query {
		return func(q asked) []query {
			matcher := `measure=~"` + strings.Join(measures, "|") + `"`
			return []query{{expr: "avg by (measure) (" + q.of("quality", matcher) + ")", name: func(m model.Metric) string {
				return measureNames[string(m["measure"])]
			}}}
		}
	}
	if f.Task == serving.TaskRegression {
		return []chart{{ID: "quality", Title: "Errors of predictions", Unit: unitCount, Kind: kindLines, Hint: hint, lines: lines("mae", "rmse")}}
	}
	all := []chart{{ID: "quality", Title: "Quality", Unit: unitShare, Kind: kindLines, Hint: hint, lines: lines("accuracy", "f1_macro", "f1_binary")}}
	if f.Score != "" {
		all = append(all, chart{ID: "calibration", Title: "Probabilities", Unit: unitCount, Kind: kindLines, Hint: hint, lines: lines("log_loss", "ece")})
	}
	return all
}

// measureNames are the names of measures for people.
var measureNames = map[string]string{ //nolint:gochecknoglobals // a constant table
	"accuracy": "accuracy", "f1_macro": "macro F1", "f1_binary": "binary F1", "log_loss": "log loss", "ece": "calibration error",
	"mae": "mean absolute error", "rmse": "root mean squared error",
}
