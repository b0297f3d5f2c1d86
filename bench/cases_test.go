package main

import (
	"encoding/json"
	"encoding/xml"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestACaseCanBeChosenByItsNameOrItsGroups(t *testing.T) {
	p := plan{cases: []string{"lr", "cold"}}
	chosen, err := p.chosen()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, g := range chosen {
		names = append(names, g.name)
		for _, c := range g.cases {
			if c.name != "lr" {
				t.Errorf("%s was not requested", c.name)
			}
		}
	}
	if !slices.Equal(names, []string{"light", "alone", "cold"}) {
		t.Errorf("groups %v", names)
	}
	p.cases = []string{"no such"}
	if _, err := p.chosen(); err == nil || !strings.Contains(err.Error(), "no such") || !strings.Contains(err.Error(), "rf_batched") {
		t.Errorf("an unknown name: %v", err)
	}
}

func TestEveryEndpointOfACaseCanBeDeployed(t *testing.T) {
	for _, g := range groups {
		for _, c := range g.cases {
			if c.name == constantCase {
				continue
			}
			e, known := endpoints[c.served()]
			if !known {
				t.Errorf("%s: no endpoint %q", c.name, c.served())
			}
			if _, err := os.Stat(filepath.Join("code", e.code, "preprocess.py")); e.code != "" && err != nil {
				t.Error(err)
			}
			for rival, beside := range c.beside {
				if !slices.ContainsFunc(g.cases, func(other loadCase) bool { return other.name == beside }) {
					t.Errorf("%s is compared with %s of %s, which is not in its group", c.name, beside, rival)
				}
			}
			for _, rival := range c.against {
				if !slices.ContainsFunc(sides, func(s side) bool { return s.name == rival }) {
					t.Errorf("%s: there is no rival named %q", c.name, rival)
				}
			}
		}
	}
}

func TestBodiesAreOfTheSizeThatTheirCaseSays(t *testing.T) {
	if n := len(numbers()); n < 900_000 || n > 1_100_000 {
		t.Errorf("1 MB of JSON has %d bytes", n)
	}
	if n := len(tenMegabytes()); n != 10_000_000 {
		t.Errorf("10 MB have %d bytes", n)
	}
	if !json.Valid(rows(100)()) || !json.Valid(numbers()) {
		t.Error("a body is not JSON")
	}
}

func TestTheV2FormHoldsTheSameNumbers(t *testing.T) {
	for body, want := range map[string]string{
		`{"x0": 1, "x1": 2}`:             `{"inputs":[{"data":[1,2],"datatype":"FP64","name":"x","shape":[1,2]}]}`,
		`{"rows": [[1, 2], [3, 4]]}`:     `{"inputs":[{"data":[1,2,3,4],"datatype":"FP64","name":"x","shape":[2,2]}]}`,
		`{"rows": [[1.5], [2], [0.25]]}`: `{"inputs":[{"data":[1.5,2,0.25],"datatype":"FP64","name":"x","shape":[3,1]}]}`,
	} {
		if got, err := asV2("", []byte(body)); err != nil || string(got) != want {
			t.Errorf("%s: %s, %v", body, got, err)
		}
	}
	if _, err := asV2("", []byte(`{"text": "x"}`)); err == nil {
		t.Error("a body without numbers was accepted")
	}
}

func TestAnswersAreComparedAsValues(t *testing.T) {
	plain, v2 := side{}, side{answer: fromV2, values: true}
	for _, test := range []struct {
		side      side
		got, want string
		same      bool
	}{
		{plain, `{ "y": [1] }`, `{"y":[1]}`, true},
		{plain, `{"y": [0]}`, `{"y":[1]}`, false},
		{plain, `nothing`, `{"y":[1]}`, false},
		{v2, `{"outputs":[{"data":[1]}]}`, `{"y":[1]}`, true},
		{v2, `{"outputs":[{"data":[0]}]}`, `{"y":0}`, true},
		{v2, `{"outputs":[{"data":[0]}]}`, `{"y":1}`, false},
		{v2, `{"outputs":[]}`, `{"y":1}`, false},
	} {
		if err := test.side.same([]byte(test.got), []byte(test.want)); (err == nil) != test.same {
			t.Errorf("%s and %s: %v, want same %v", test.got, test.want, err, test.same)
		}
	}
}

func TestAChartIsWellFormedAndStaysInsideItsPicture(t *testing.T) {
	n := newNotes()
	for _, against := range []string{original, mosec} {
		n.add(key{"null", 2, 64}, against, "requests/s", 60_000, 20_000, false)
		n.add(key{"null", 2, 64}, against, "requests/s", 70_000, 10_000, false)
	}
	charts := chartsOf(n.rows(nil))
	if len(charts) != 1 || len(charts[0].Bars) != 3 || !charts[0].Bars[0].Ours {
		t.Fatalf("%+v", charts)
	}
	picture, err := charts[0].draw()
	if err != nil {
		t.Fatal(err)
	}
	var any struct {
		Height int `xml:"height,attr"`
	}
	if err := xml.Unmarshal(picture, &any); err != nil || any.Height != charts[0].Height() {
		t.Errorf("%v, height %d\n%s", err, any.Height, picture)
	}
	for _, want := range []string{"65,000", "15,000", "prefers-color-scheme: dark", ">mosec<"} {
		if !strings.Contains(string(picture), want) {
			t.Errorf("the picture lacks %q", want)
		}
	}
}

func TestAFigureIsWrittenToBeRead(t *testing.T) {
	for v, want := range map[float64]string{0.27: "0.3", 9.96: "10.0", 12.3: "12", 9999: "9999", 12345: "12,345", 1234567: "1,234,567"} {
		if got := number(v); got != want {
			t.Errorf("%v: %s, want %s", v, got, want)
		}
	}
}
