package native_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"clearmlserving/native"
)

// extracted is a line of testdata/study.py.
type extracted struct {
	Kind, Library, File, Proof, Refused, Absent string
	Releases                                    map[string]string
}

// extract trains models with a Python and extracts them; no kinds are all.
func extract(tb testing.TB, python string, rows int, kinds ...string) []extracted {
	tb.Helper()
	args := append([]string{"testdata/study.py", tb.TempDir(), strconv.Itoa(rows)}, kinds...)
	command := exec.CommandContext(tb.Context(), python, args...)
	var said bytes.Buffer
	command.Stderr = &said
	out, err := command.Output()
	if err != nil {
		tb.Fatalf("%s: %v\n%s", python, err, said.Bytes())
	}
	var list []extracted
	for line := range bytes.Lines(out) {
		var e extracted
		if err := json.Unmarshal(line, &e); err != nil {
			tb.Fatalf("%s: %v", line, err)
		}
		list = append(list, e)
	}
	return list
}

// testPython is the Python with the libraries.
func testPython(tb testing.TB) string {
	tb.Helper()
	python := os.Getenv("CLEARML_SERVING_TEST_PYTHON")
	if python == "" {
		tb.Skip("CLEARML_SERVING_TEST_PYTHON names no Python with scikit-learn")
	}
	return python
}

// release is the library with its release, and of scikit-learn also that of NumPy, whose exp it uses.
func (e extracted) release() string {
	name := e.Library
	if name == "xgboost" && e.Releases[name] == "" {
		name = "xgboost-cpu"
	}
	return e.Library + " " + e.Releases[name]
}

// TestModelsAnswerAsTheirLibraries compares models of every kind with their libraries, bit by bit. NATIVE_STUDY are
// Pythons with several releases, separated by spaces, and NATIVE_STUDY_ROWS the rows of each model: make native-study.
func TestModelsAnswerAsTheirLibraries(t *testing.T) {
	pythons, rows := strings.Fields(os.Getenv("NATIVE_STUDY")), 200
	if len(pythons) == 0 {
		pythons = []string{testPython(t)}
	} else if n, err := strconv.Atoi(os.Getenv("NATIVE_STUDY_ROWS")); err == nil {
		rows = n
	} else {
		rows = 4000
	}
	var table strings.Builder
	table.WriteString("| kind | release | rows | rows with other bits |\n|---|---|---|---|\n")
	for _, python := range pythons {
		for _, e := range extract(t, python, rows) {
			if e.Absent != "" {
				continue
			}
			if e.Refused != "" {
				fmt.Fprintf(&table, "| %s | %s | | refused: %s |\n", e.Kind, e.release(), e.Refused)
				continue
			}
			rows, bits := prove(t, e)
			fmt.Fprintf(&table, "| %s | %s | %d | %s |\n", e.Kind, e.release(), rows, bits)
		}
	}
	t.Log("\n" + table.String())
}

// prove compares one model. It returns the number of compared rows and a text about those with other bits.
func prove(t *testing.T, e extracted) (rows int, bits string) {
	t.Helper()
	m, err := native.Open(e.File)
	if err != nil {
		t.Errorf("%s, %s: %v", e.Kind, e.release(), err)
		return 0, err.Error()
	}
	defer func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	a, err := m.Prove(e.Proof)
	if err != nil {
		t.Errorf("%s, %s: %v", e.Kind, e.release(), err)
		return 0, err.Error()
	}
	if a.Rows() == 0 {
		t.Errorf("%s, %s: nothing was compared", e.Kind, e.release())
	}
	if a.Differ() > 0 {
		t.Errorf("%s, %s: %d of %d rows disagree: %s", e.Kind, e.release(), a.Differ(), a.Rows(), a.First)
	}
	other := map[string]int{}
	for _, c := range a.Cases {
		if c.Bits > 0 {
			other[c.Method] += c.Bits
		}
	}
	if len(other) == 0 {
		return a.Rows(), "0"
	}
	var parts []string
	for _, method := range slices.Sorted(maps.Keys(other)) {
		i, _ := m.Method(method)
		parts = append(parts, fmt.Sprintf("%d of %s, within %g (%s)", other[method], method, m.Methods[i].Tolerance, strings.Join(m.Methods[i].Inexact, ", ")))
	}
	return a.Rows(), strings.Join(parts, "; ")
}
