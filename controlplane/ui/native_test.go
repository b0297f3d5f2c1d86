package ui

import (
	"strings"
	"testing"

	"clearmlserving/serving"
)

func TestTheComparisonOfANativeModelIsATable(t *testing.T) {
	page := newPages(t, Options{API: guest(), Now: noon}).templates["endpoint"]
	for name, c := range map[string]struct {
		report serving.NativeReport
		want   []string
		not    string
	}{
		"on": {serving.NativeReport{
			On: true, Model: "RandomForestClassifier", Proven: noon(), Native: 1234, Fallback: 5, Python: []string{"lists of rows with null"}, Notes: []string{"equal with n_jobs=1"},
			Releases: map[string]string{"sklearn": "1.9.1"}, Checks: []serving.NativeCheck{{Rows: "boundaries", Method: "predict", Count: 2000, Unsteady: 3}},
		}, []string{"equal in every bit", "RandomForestClassifier", "sklearn 1.9.1", "lists of rows with null", "boundaries", `data-label="Library unsteady">3<`, "equal with n_jobs=1"}, "stays in Python"},
		"within": {serving.NativeReport{On: true, Tolerance: 1e-12, Proven: noon()}, []string{"equal within 1e-12"}, "every bit"},
		"off":    {serving.NativeReport{Reason: "it differs: <row>"}, []string{"The model stays in Python", "it differs: &lt;row&gt;"}, "equal"},
	} {
		var out strings.Builder
		if err := page.ExecuteTemplate(&out, "native", c.report); err != nil {
			t.Fatal(err)
		}
		for _, want := range c.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s lacks %q: %s", name, want, out.String())
			}
		}
		if strings.Contains(out.String(), c.not) {
			t.Errorf("%s has %q", name, c.not)
		}
	}
}
