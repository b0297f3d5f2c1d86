package clearml_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"clearmlserving/hocon"
	"clearmlserving/serving"
)

// originals are texts that the original's command line stored: see generate.py
// beside them. The name is <scenario>.<section>.conf.
func originals(t *testing.T, ending string) []string {
	t.Helper()
	files, err := filepath.Glob("../serving/testdata/original/*" + ending)
	if err != nil || len(files) < 15 {
		t.Fatalf("found %d golden files *%s (%v), want at least 15", len(files), ending, err)
	}
	return files
}

func sectionOf(file string) serving.Section {
	return serving.Section(strings.Split(filepath.Base(file), ".")[1])
}

// readStored reads the text of one section as a service's document is read.
func readStored(t *testing.T, section serving.Section, text []byte) serving.Service {
	t.Helper()
	object, err := hocon.Parse(text, hocon.Options{})
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	raw, err := object.JSON()
	if err != nil {
		t.Fatal(err)
	}
	return serving.Decode(map[serving.Section]json.RawMessage{section: raw}, nil)
}

func encode(t *testing.T, s serving.Service, section serving.Section) []byte {
	t.Helper()
	text, err := s.Encode(section)
	if err != nil {
		t.Fatal(err)
	}
	return []byte(text)
}

func readFile(t *testing.T, file string) []byte {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Also what the original itself cannot read again: scenarios "unreadable-…".
func TestWhatTheOriginalStoredSurvivesOurReadingAndWriting(t *testing.T) {
	for _, file := range originals(t, ".conf") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			section := sectionOf(file)
			text := readFile(t, file)
			first := readStored(t, section, text)
			for _, b := range first.Broken {
				t.Errorf("broken: %v", b.Err)
			}
			ours := encode(t, first, section)
			if string(ours) == "{}" && !strings.HasPrefix(filepath.Base(file), "empty.") {
				t.Errorf("nothing was read from\n%s", text)
			}
			second := readStored(t, section, ours)
			if diff := cmp.Diff(first, second, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("writing and reading changed it (-before +after):\n%s", diff)
			}
			if again := encode(t, second, section); !bytes.Equal(again, ours) {
				t.Errorf("written twice it differs:\n%s\n%s", ours, again)
			}
		})
	}
}

func TestWeReadFromTheOriginalsTextWhatTheOriginalReads(t *testing.T) {
	for _, file := range originals(t, ".json") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			section := sectionOf(file)
			if section == "General" {
				testOriginalParameters(t, file)
				return
			}
			ours := encode(t, readStored(t, section, readFile(t, strings.TrimSuffix(file, ".json")+".conf")), section)
			want, got := fieldsThatAreSet(t, readFile(t, file)), fieldsThatAreSet(t, ours)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("differs from what the original reads (-original +ours):\n%s", diff)
			}
		})
	}
}

func testOriginalParameters(t *testing.T, file string) {
	t.Helper()
	general := map[string]string{}
	if err := json.Unmarshal(readFile(t, file), &general); err != nil {
		t.Fatal(err)
	}
	want := serving.Parameters{ServingBaseURL: "http://host:8080/serve", TritonGRPCServer: "triton:8001", KafkaServiceServer: "kafka:9092"}
	if got := serving.ParametersFrom(general); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// fieldsThatAreSet decodes records without the fields that say nothing: the
// original lists all of them, null or empty when they are not set.
func fieldsThatAreSet(t *testing.T, text []byte) map[string]map[string]any {
	t.Helper()
	records := map[string]map[string]any{}
	if err := json.Unmarshal(text, &records); err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		dropUnset(r)
		variables, _ := r["metrics"].(map[string]any)
		for _, v := range variables {
			if v, ok := v.(map[string]any); ok {
				dropUnset(v)
			}
		}
	}
	return records
}

func dropUnset(r map[string]any) {
	for _, name := range slices.Collect(maps.Keys(r)) {
		switch v := r[name].(type) {
		case nil:
			delete(r, name)
		case []any:
			if len(v) == 0 {
				delete(r, name)
			}
		}
	}
}
