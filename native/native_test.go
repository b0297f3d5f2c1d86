package native_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"clearmlserving/native"
)

// models are the small ones of testdata, which testdata/make.py makes.
func models(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("testdata/*.native")
	if err != nil || len(files) < 4 {
		t.Fatalf("%d models in testdata: %v", len(files), err)
	}
	return files
}

func open(t *testing.T, file string) *native.Model {
	t.Helper()
	m, err := native.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
	return m
}

func TestStoredModelsAnswerAsTheirLibrariesDid(t *testing.T) {
	for _, file := range models(t) {
		t.Run(filepath.Base(file), func(t *testing.T) {
			a, err := open(t, file).Prove(strings.TrimSuffix(file, "native") + "proof")
			if err != nil {
				t.Fatal(err)
			}
			if a.Rows() < 100 || a.Differ() > 0 {
				t.Errorf("%d of %d rows differ: %s", a.Differ(), a.Rows(), a.First)
			}
		})
	}
}

func TestAPredictionAllocatesNothing(t *testing.T) {
	if race {
		t.Skip("the race detector allocates")
	}
	for _, file := range models(t) {
		m := open(t, file)
		for _, n := range []int{1, 64, 100} {
			rows := make([]float64, n*len(m.Columns))
			for method := range m.Methods {
				out := make([]float64, n*m.Methods[method].Width)
				if err := m.Predict(method, rows, n, out); err != nil {
					t.Fatal(err)
				}
				if got := testing.AllocsPerRun(50, func() {
					if err := m.Predict(method, rows, n, out); err != nil {
						t.Fatal(err)
					}
				}); got >= 1 { // the garbage collector may empty the pool
					t.Errorf("%s, %s, %d rows: %v allocations", file, m.Methods[method].Name, n, got)
				}
			}
		}
	}
}

// TestTheAnswerOfARowDoesNotDependOnItsNeighbours compares batches of all sizes with single rows.
func TestTheAnswerOfARowDoesNotDependOnItsNeighbours(t *testing.T) {
	for _, file := range models(t) {
		m := open(t, file)
		in := len(m.Columns)
		rows := make([]float64, 150*in)
		for i := range rows {
			rows[i] = math.Sin(float64(i)) * 3
		}
		for method := range m.Methods {
			width := m.Methods[method].Width
			single := make([]float64, 150*width)
			for i := range 150 {
				if err := m.Predict(method, rows[i*in:(i+1)*in], 1, single[i*width:(i+1)*width]); err != nil {
					t.Fatal(err)
				}
			}
			for _, n := range []int{2, 7, 8, 9, 63, 64, 65, 150} {
				out := make([]float64, n*width)
				if err := m.Predict(method, rows[:n*in], n, out); err != nil {
					t.Fatal(err)
				}
				for i := range out {
					if math.Float64bits(out[i]) != math.Float64bits(single[i]) {
						t.Fatalf("%s, %s: row %d of %d is %v, alone %v", file, m.Methods[method].Name, i/width, n, out[i], single[i])
					}
				}
			}
		}
	}
}

// TestAModelMayLieAnywhereInMemory reads a model at each offset from a multiple of eight.
func TestAModelMayLieAnywhereInMemory(t *testing.T) {
	good, err := os.ReadFile("testdata/forest.native")
	if err != nil {
		t.Fatal(err)
	}
	for offset := range 9 {
		buffer := make([]byte, offset+len(good))
		copy(buffer[offset:], good)
		if _, err := native.Read(buffer[offset:]); err != nil {
			t.Errorf("at %d: %v", offset, err)
		}
	}
}

func TestARefusedValueIsNamed(t *testing.T) {
	m := open(t, "testdata/forest.native")
	n := 70
	rows := make([]float64, n*len(m.Columns))
	rows[66*len(m.Columns)+2] = 1e39 // infinity as float32
	err := m.Predict(0, rows, n, make([]float64, n*m.Methods[0].Width))
	refused, ok := errors.AsType[*native.InputError](err)
	if !ok || refused.Row != 66 || refused.Column != 2 || !strings.Contains(err.Error(), "1e+39") {
		t.Errorf("%v", err)
	}
	if err := m.Predict(0, rows[1:], n, make([]float64, n*m.Methods[0].Width)); err == nil || errors.As(err, &refused) {
		t.Errorf("a row that is too short: %v", err)
	}
}

// TestWhatIsNoModelIsAnError changes a model in its description and arrays; each change must be named.
func TestWhatIsNoModelIsAnError(t *testing.T) {
	good, err := os.ReadFile("testdata/lightgbm.native")
	if err != nil {
		t.Fatal(err)
	}
	at, length := int(good[16])|int(good[17])<<8|int(good[18])<<16, int(good[24])|int(good[25])<<8|int(good[26])<<16
	description := func(change func(d map[string]any)) []byte {
		var d map[string]any
		if err := json.Unmarshal(good[at:at+length], &d); err != nil {
			t.Fatal(err)
		}
		change(d)
		text, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		data := append(bytes.Clone(good[:at]), text...)
		data[24], data[25], data[26] = byte(len(text)), byte(len(text)>>8), byte(len(text)>>16)
		return seal(data)
	}
	trees := func(d map[string]any) map[string]any { return d["stages"].([]any)[0].(map[string]any) }
	array := func(d map[string]any, name string) map[string]any { return trees(d)[name].(map[string]any) }
	for name, c := range map[string]struct {
		data []byte
		says string
	}{
		"empty":                {nil, "shorter"},
		"another file":         {bytes.Repeat([]byte("PK"), 100), "not a native model"},
		"cut off":              {good[:len(good)-8], "its header says"},
		"a flipped bit":        {append(append(bytes.Clone(good[:100]), good[100]^1), good[101:]...), "hash"},
		"a newer format":       {description(func(d map[string]any) { d["format"] = 2 }), "format is 2"},
		"no methods":           {description(func(d map[string]any) { d["methods"] = nil }), "0 methods"},
		"no columns":           {description(func(d map[string]any) { d["columns"] = nil }), "0 columns"},
		"a slot of the future": {description(func(d map[string]any) { trees(d)["in"] = 1 }), "slot 1"},
		"an unknown kind":      {description(func(d map[string]any) { trees(d)["kind"] = "dream" }), `"dream"`},
		"an array outside":     {description(func(d map[string]any) { array(d, "left")["at"] = 1 << 40 }), "outside"},
		"a huge array":         {description(func(d map[string]any) { array(d, "left")["len"] = uint64(1) << 62 }), "outside"},
		"an unaligned array":   {description(func(d map[string]any) { array(d, "left")["at"] = 65 }), "outside"},
		"another type":         {description(func(d map[string]any) { array(d, "left")["type"] = "f64" }), "type"},
		"children as features": {description(func(d map[string]any) { trees(d)["feature"] = trees(d)["left"] }), "node"},
		"a cycle":              {description(func(d map[string]any) { trees(d)["right"] = trees(d)["left"] }), "parents"},
		"many outputs":         {description(func(d map[string]any) { trees(d)["outputs"] = 1 << 30 }), "outputs"},
		"fewer roots":          {description(func(d map[string]any) { array(d, "group")["len"] = 1 }), "groups"},
		"no values":            {description(func(d map[string]any) { array(d, "values")["len"] = 1 }), "values"},
	} {
		m, err := native.Read(c.data)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, %v; it should say %q", name, m != nil, err, c.says)
		}
	}
}

func TestAMethodThatIsNotThereIsNamedWithThoseThatAre(t *testing.T) {
	m := open(t, "testdata/forest.native")
	if _, err := m.Method("transform"); err == nil || !strings.Contains(err.Error(), "predict, predict_proba") {
		t.Error(err)
	}
}

func TestManyGoroutinesShareAModel(t *testing.T) {
	for _, file := range models(t) {
		m := open(t, file)
		rows, method := make([]float64, 20*len(m.Columns)), len(m.Methods)-1
		for i := range rows {
			rows[i] = float64(i%13) - 6
		}
		want := make([]float64, 20*m.Methods[method].Width)
		if err := m.Predict(method, rows, 20, want); err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				out := make([]float64, len(want))
				for range 50 {
					if err := m.Predict(method, rows, 20, out); err != nil || !slices.Equal(out, want) {
						t.Errorf("%s: %v %v", file, out, err)
						return
					}
				}
			})
		}
		all.Wait()
	}
}
