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
	python := os.Getenv("CLEARML_SERVING_TEST_TABLES")
	if python == "" {
		tb.Skip("CLEARML_SERVING_TEST_TABLES names no Python with scikit-learn")
	}
	return python
}

// release is that of the model's library.
func (e extracted) release() string { return e.Library + " " + e.Releases[e.Library] }

// TestModelsAnswerAsTheirLibraries compares models of every kind with their libraries, bit by bit. NATIVE_STUDY are
// Pythons with several releases, separated by spaces, NATIVE_STUDY_ROWS the rows of each kind of rows, and
// NATIVE_STUDY_KINDS the kinds of models, separated by ";" (all): make native-study.
func TestModelsAnswerAsTheirLibraries(t *testing.T) {
	pythons, rows := strings.Fields(os.Getenv("NATIVE_STUDY")), 100
	if len(pythons) == 0 {
		pythons = []string{testPython(t)}
	} else if n, err := strconv.Atoi(os.Getenv("NATIVE_STUDY_ROWS")); err == nil {
		rows = n
	} else {
		rows = 5000
	}
	var only []string
	if named := os.Getenv("NATIVE_STUDY_KINDS"); named != "" {
		only = strings.Split(named, ";")
	}
	var libraries, kinds []string
	heads, cells := map[string][]string{}, map[string][]string{} // by library; by library and kind
	for column, python := range pythons {
		for _, e := range extract(t, python, rows, only...) {
			if !slices.Contains(libraries, e.Library) {
				libraries = append(libraries, e.Library)
			}
			if len(heads[e.Library]) == column {
				heads[e.Library] = append(heads[e.Library], e.Releases[e.Library])
			}
			kind := e.Library + "|" + e.Kind
			if !slices.Contains(kinds, kind) {
				kinds = append(kinds, kind)
			}
			cell := "refused: " + e.Refused
			switch {
			case e.Absent != "":
				cell = "this release has no such model"
			case e.Refused == "":
				cell = prove(t, e)
			}
			cells[kind] = append(cells[kind], cell)
		}
	}
	var table strings.Builder
	for _, library := range libraries {
		fmt.Fprintf(&table, "\n| %s | %s |\n|%s\n", library, strings.Join(heads[library], " | "), strings.Repeat("---|", 1+len(heads[library])))
		for _, kind := range kinds {
			if name, ok := strings.CutPrefix(kind, library+"|"); ok {
				row := cells[kind]
				if len(slices.Compact(slices.Clone(row))) == 1 && len(row) > 1 && strings.HasPrefix(row[0], "refused") {
					row = append(row[:1], slices.Repeat([]string{"the same"}, len(row)-1)...)
				}
				fmt.Fprintf(&table, "| %s | %s |\n", name, strings.Join(row, " | "))
			}
		}
	}
	t.Log("\n" + table.String())
}

// prove compares one model, and returns a text about the rows with other bits.
func prove(t *testing.T, e extracted) string {
	t.Helper()
	m, err := native.Open(e.File)
	if err != nil {
		t.Errorf("%s, %s: %v", e.Kind, e.release(), err)
		return err.Error()
	}
	defer func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	a, err := m.Prove(e.Proof)
	if err != nil {
		t.Errorf("%s, %s: %v", e.Kind, e.release(), err)
		return err.Error()
	}
	if a.Rows() == 0 {
		t.Errorf("%s, %s: nothing was compared", e.Kind, e.release())
	}
	if a.Differ() > 0 {
		t.Errorf("%s, %s: %d of %d rows disagree: %s", e.Kind, e.release(), a.Differ(), a.Rows(), a.First)
	}
	rows, bits := map[string]int{}, map[string]int{} // by method
	for _, c := range a.Cases {
		rows[c.Method] += c.Rows
		bits[c.Method] += c.Bits
	}
	text := ""
	for _, method := range slices.Sorted(maps.Keys(bits)) {
		if bits[method] > 0 {
			i, _ := m.Method(method)
			why := strings.Join(m.Methods[i].Inexact, ", ")
			if why == "" {
				why = "order of summation"
			}
			text += fmt.Sprintf("; `%s`: %d of %d within %g (%s)", method, bits[method], rows[method], m.Methods[i].Tolerance, why)
			delete(rows, method)
		}
	}
	exact := 0
	for _, n := range rows {
		exact += n
	}
	return fmt.Sprintf("0 of %d", exact) + text
}

// TestFilesAreExtractedAsTheirEnginesLoadThem loads each form of file as a worker does.
func TestFilesAreExtractedAsTheirEnginesLoadThem(t *testing.T) {
	python, folder := testPython(t), t.TempDir()
	list, err := exec.CommandContext(t.Context(), python, "testdata/files.py", folder).Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(list)) {
		words := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if len(words) != 4 {
			t.Fatal(line)
		}
		e := extracted{Kind: line, File: words[2] + ".native", Proof: words[2] + ".proof"}
		out, err := exec.CommandContext(t.Context(), python, "testdata/extract.py", words[0], words[1], words[2], e.File, e.Proof, "50").Output()
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		var said struct {
			Model, Refused string
			Methods        []string
		}
		if err := json.Unmarshal(out, &said); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		if words[3] == "refused" {
			if !strings.Contains(said.Refused, "KNeighborsClassifier") {
				t.Errorf("%s: %+v", line, said)
			}
			continue
		}
		if got := said.Model + ": " + strings.Join(said.Methods, ", "); got != words[3] {
			t.Errorf("%s: %s", line, got)
		}
		if got := prove(t, e); !strings.HasPrefix(got, "0 of ") || strings.Contains(got, ";") {
			t.Errorf("%s: %s", line, got)
		}
	}
}
