package embedded

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/promql/promqltest"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb"
)

// chosen runs the files of Prometheus' tests but those of features that need other options of the storage.
type chosen struct {
	*testing.T
	ran int
}

// Run implements promqltest.TBRun.
func (c *chosen) Run(name string, f func(*testing.T)) bool {
	if name == "testdata/start_timestamps.test" { // start timestamps are not stored
		return true
	}
	c.ran++
	return c.T.Run(name, f)
}

// Prometheus' own tests of PromQL pass with the options of our engine and our database. The files need its
// experimental features too, so these are on.
func TestPrometheusOwnTestsOfPromQL(t *testing.T) {
	if raceDetector {
		t.Skip("they are slow with the race detector, and run in one goroutine")
	}
	s := New(Options{Dir: t.TempDir()})
	o := s.engineOptions()
	o.Parser, o.EnableDelayedNameRemoval, o.UseStartTimestamps = parser.NewParser(promqltest.TestParserOpts), true, true
	c := &chosen{T: t}
	promqltest.RunBuiltinTestsWithStorage(c, promql.NewEngine(o), func(tb testing.TB) storage.Storage {
		tb.Helper()
		options := s.tsdbOptions()
		options.RetentionDuration, options.MaxBytes = 0, 0                    // the samples are of 1970
		options.MinBlockDuration, options.MaxBlockDuration = 86400e3, 86400e3 // nothing is compacted meanwhile
		options.OutOfOrderTimeWindow = 0
		db, err := tsdb.Open(tb.TempDir(), nil, prometheus.NewRegistry(), options, nil)
		if err != nil {
			tb.Fatal(err)
		}
		return db
	})
	if c.ran < 15 {
		t.Errorf("%d files only", c.ran)
	}
}
