package ui

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/model"

	"clearmlserving/serving"
)

func TestChartsOfQualityAreForEndpointsWithFeedback(t *testing.T) {
	config := serving.Service{}
	for url, f := range map[string]serving.Feedback{
		"classes": {Task: serving.TaskClassification}, "scores": {Task: serving.TaskClassification, Score: "p"}, "numbers": {Task: serving.TaskRegression},
	} {
		if err := config.SetOptions(url, func(o *serving.EndpointOptions) { o.Feedback = &f }); err != nil {
			t.Fatal(err)
		}
	}
	for at, want := range map[string]string{"classes": "quality", "scores/2": "quality calibration", "numbers": "quality", "other": ""} {
		var ids []string
		for _, c := range qualityCharts(config, at) {
			ids = append(ids, c.ID)
			q := c.lines(asked{targets: []target{{url: at, endpoint: at}}, span: span{To: time.Now()}})[0]
			if !strings.Contains(q.expr, `clearml_serving_quality{`) || q.name(model.Metric{"measure": "mae"}) != "mean absolute error" {
				t.Errorf("%s, %s: %s", at, c.ID, q.expr)
			}
		}
		if got := strings.Join(ids, " "); got != want {
			t.Errorf("%s has the charts %q, want %q", at, got, want)
		}
	}
}
