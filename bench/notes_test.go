package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// noted is the rows of one case: three rounds, ours with this rate.
func noted(rate float64, doubtfulRounds int) []row {
	n := newNotes()
	for i := range 3 {
		n.add(key{"null", 2, 64}, original, "requests/s", rate, 1000, i < doubtfulRounds)
	}
	return n.rows(map[string]string{"ours": "1"})
}

func TestARatioIsJudgedByItsGoal(t *testing.T) {
	for rate, met := range map[float64]bool{3000: true, 2900: false} {
		one := noted(rate, 0)[0]
		if one.Met == nil || *one.Met != met || one.Goal != ">= 3x" || one.Ratio != rate/1000 {
			t.Errorf("rate %v: %+v, want met %v", rate, one, met)
		}
	}
}

func TestAnAbsoluteGoalIsJudgedByOurFigure(t *testing.T) {
	for figure, met := range map[float64]bool{49: true, 51: false} {
		n := newNotes()
		n.add(key{"cold start", 1, 0}, "", "ms to health", figure, 0, false)
		one := n.rows(nil)[0]
		if one.Met == nil || *one.Met != met || one.Goal != "<= 50" {
			t.Errorf("%v ms: %+v, want met %v", figure, one, met)
		}
	}
}

func TestAGoalOfWhatOursAddsIsJudgedByTheDifference(t *testing.T) {
	for figure, met := range map[float64]bool{90: true, 91: false} {
		n := newNotes()
		n.add(key{"hop_json", 2, 1}, callItself, "p50 us", figure, 60, false)
		one := n.rows(nil)[0]
		if one.Met == nil || *one.Met != met || one.Goal != "<= 30 more" || !strings.HasPrefix(one.value(), "+3") {
			t.Errorf("%v us: %+v, want met %v", figure, one, met)
		}
	}
}

func TestWhatWasMostlyNotQuietIsShownAndNotJudged(t *testing.T) {
	rows := noted(100, 2)
	if one := rows[0]; one.Met != nil || !one.Doubtful {
		t.Errorf("%+v", one)
	}
	text, err := pageOf(rows, nil)
	if err != nil || !strings.Contains(string(text), "original (doubtful)") || !strings.Contains(string(text), "the machine was not quiet") {
		t.Errorf("the page does not report it (%v):\n%s", err, text)
	}
	if one := noted(100, 1)[0]; one.Met == nil || one.Doubtful {
		t.Errorf("one round of three makes it doubtful: %+v", one)
	}
}

func TestTheMedianIsTheMiddle(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 2, 9}, 3}} {
		if got := median(test.values); got != test.want {
			t.Errorf("median of %v is %v, want %v", test.values, got, test.want)
		}
	}
}

func TestEveryGoalIsOfACaseThatIsMeasured(t *testing.T) {
	for i := range goals {
		g := &goals[i]
		if goalOf(g.key, g.against, g.metric) != g {
			t.Errorf("%v against %q, %s: duplicate goal", g.key, g.against, g.metric)
		}
		if g.Connections == 0 || g.Case == "neighbour" || g.Case == embeddingCase {
			continue // measured by a separate function
		}
		found := false
		for _, group := range groups {
			for _, c := range group.cases {
				for _, connections := range c.connections {
					measuredWith := slices.Clone(c.against)
					for _, against := range c.against {
						measuredWith = append(measuredWith, directly(against))
					}
					if group.name == hopCase {
						measuredWith = append(measuredWith, callItself)
					}
					if c.name == "null" || c.name == "lr_native" {
						measuredWith = append([]string{constantCase}, measuredWith...)
					}
					for _, against := range measuredWith {
						found = found || key{c.name, group.workers, connections} == g.key && against == g.against
					}
				}
			}
		}
		if !found {
			t.Errorf("%v against %q is not measured", g.key, g.against)
		}
	}
}

func TestFewerRoundsReplaceMoreOnlyWhenForced(t *testing.T) {
	old := noted(3000, 0)
	n := newNotes()
	n.add(key{"null", 2, 64}, original, "requests/s", 1, 1, false)
	n.add(key{"lr", 2, 64}, original, "requests/s", 7, 1, false)
	short := n.rows(nil)
	if merged, taken := merge(old, short, false); len(merged) != 2 || merged[0].Ours != 3000 || len(taken) != 1 || taken[0].Name != "lr" {
		t.Errorf("merged %+v, taken %+v", merged, taken)
	}
	if merged, taken := merge(old, short, true); merged[0].Ours != 1 || len(taken) != 2 {
		t.Errorf("forced: merged %+v, taken %+v", merged, taken)
	}
	if merged, _ := merge(short, old, false); merged[0].Ours != 3000 || len(merged) != 2 {
		t.Errorf("more rounds: %+v", merged)
	}
}

func TestResultsComeBackAsTheyWereKept(t *testing.T) {
	dir := t.TempDir()
	f := files{results: filepath.Join(dir, "results.json"), page: filepath.Join(dir, "page.md"), images: dir}
	if err := f.keep(noted(3000, 0)); err != nil {
		t.Fatal(err)
	}
	rows, err := readResults(f.results)
	if err != nil || len(rows) != 1 || rows[0].Ours != 3000 || len(rows[0].Rounds) != 3 || rows[0].Case != "null, 2 workers, 64 connections" {
		t.Errorf("%+v, %v", rows, err)
	}
	if err := f.render(); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"page.md", "bench-null.svg"} {
		if text, err := os.ReadFile(filepath.Join(dir, file)); err != nil || !strings.Contains(string(text), "Null endpoint") {
			t.Errorf("%s: %v\n%s", file, err, text)
		}
	}
}
