package embedded

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// FuzzForms: whatever a client asks, it gets JSON in the form of Prometheus' API, and never an internal
// error.
func FuzzForms(f *testing.F) {
	for _, seed := range []string{
		"query?query=x&time=1", "query_range?query=rate(x[5m])&start=0&end=100&step=1", "series?match[]={__name__=~'.%2B'}", "labels?start=-1e300&end=NaN",
		"label/__name__/values?limit=1", "label/U__a_2e_b/values", "query?query=x@end()&timeout=1e-9&lookback_delta=-5m", "query_exemplars?query=x&start=1&end=0",
		"format_query?query=sum(x", "metadata?limit=-1&limit_per_metric=x", "query_range?query=x&start=1e18&end=1e19&step=1e-9", "query?query=%FF&time=2026-13-01T00:00:00Z",
		"query_range?query=count_values('a',x)&start=NaN&end=Inf&step=NaN", "status/buildinfo",
	} {
		path, form, _ := strings.Cut(seed, "?")
		f.Add(path, form)
	}
	s := New(Options{Dir: f.TempDir(), Now: func() time.Time { return noon }})
	s.keep(f.Context())
	f.Cleanup(func() { _ = s.replace(nil, errClosed) })
	for i := range 10 {
		if err := s.Write(f.Context(), floats(noon.Add(time.Duration(i-10)*time.Second), float64(i), "__name__", "x", "endpoint", "m")); err != nil {
			f.Fatal(err)
		}
	}
	h := s.Handler()
	f.Fuzz(func(t *testing.T, path, form string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/v1/x", strings.NewReader(form))
		r.URL = &url.URL{Path: "/api/v1/" + path}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		if !strings.Contains(form, "timeout=") {
			form += "&timeout=1s"
		}
		if strings.Contains(path, "label/") || strings.Contains(path, "status") || path == "metadata" {
			r.Method, r.Body, r.URL.RawQuery = http.MethodGet, http.NoBody, form
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code == http.StatusInternalServerError {
			t.Errorf("%s?%s: %d %s", path, form, w.Code, w.Body)
		}
		if w.Header().Get("Content-Type") == "application/json" && !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s?%s: no JSON: %.300s", path, form, w.Body)
		}
	})
}
