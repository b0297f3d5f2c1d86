package native_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"testing"

	"clearmlserving/native"
)

// seal gives a file the length and the hash that its header must have, so that changes reach what is behind them.
func seal(data []byte) []byte {
	if len(data) < 64 {
		return data
	}
	binary.LittleEndian.PutUint64(data[8:], uint64(len(data)))
	h := sha256.New()
	h.Write(data[:32])
	h.Write(data[64:])
	copy(data[32:], h.Sum(nil))
	return data
}

// FuzzModel opens files with any content, and computes with those that are models: an error or an answer, never a panic
// or an access outside of the file.
func FuzzModel(f *testing.F) {
	files, err := filepath.Glob("testdata/*.native")
	if err != nil || files == nil {
		f.Fatalf("no models to begin with: %v", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		if len(data) < 16<<10 { // the others are large by their tables of exponentials
			f.Add(data, 1.5, uint8(3))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, x float64, n uint8) {
		m, err := native.Read(seal(bytes.Clone(data)))
		if err != nil {
			return
		}
		rows := make([]float64, int(n)*len(m.Columns))
		for i := range rows {
			switch i % 5 {
			case 0:
				rows[i] = x
			case 1:
				rows[i] = math.NaN()
			case 2:
				rows[i] = math.Inf(1 - i%2*2)
			case 3:
				rows[i] = float64(i)
			}
		}
		for method := range m.Methods {
			width := m.Methods[method].Width
			if width*int(n) > 1<<20 {
				continue
			}
			out := make([]float64, int(n)*width)
			err := m.Predict(method, rows, int(n), out)
			if refused, ok := errors.AsType[*native.InputError](err); ok && (refused.Row < 0 || refused.Row >= int(n)) {
				t.Errorf("row %d of %d is refused", refused.Row, n)
			} else if err != nil && !ok {
				t.Errorf("a value is not what is wrong: %v", err)
			}
		}
	})
}

// FuzzProof compares a model with files of proof with any content.
func FuzzProof(f *testing.F) {
	m, err := native.Open("testdata/histogram.native")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		if err := m.Close(); err != nil {
			f.Error(err)
		}
	})
	proof, err := os.ReadFile("testdata/histogram.proof")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(proof)
	path := filepath.Join(f.TempDir(), "proof")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, seal(bytes.Clone(data)), 0o600); err != nil {
			t.Fatal(err)
		}
		a, err := m.Prove(path)
		if err == nil && a.Differ() > a.Rows()*len(m.Methods) {
			t.Errorf("%d of %d rows differ", a.Differ(), a.Rows())
		}
	})
}
