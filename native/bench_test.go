//go:build unix

package native_test

import (
	"encoding/binary"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"clearmlserving/native"
)

// BenchmarkModels measures models of 100 trees, which testdata/bench.py makes with CLEARML_SERVING_TEST_TABLES, or
// has made in the folder NATIVE_BENCH.
func BenchmarkModels(b *testing.B) {
	folder := os.Getenv("NATIVE_BENCH")
	if folder == "" {
		folder = b.TempDir()
		command := exec.CommandContext(b.Context(), testPython(b), "testdata/bench.py", folder)
		if out, err := command.Output(); err != nil {
			b.Fatalf("%v\n%s", err, out)
		}
	}
	raw, err := os.ReadFile(filepath.Join(folder, "rows.bin"))
	if err != nil {
		b.Fatal(err)
	}
	rows := make([]float64, len(raw)/8)
	for i := range rows {
		rows[i] = math.Float64frombits(binary.LittleEndian.Uint64(raw[8*i:]))
	}
	files, err := filepath.Glob(filepath.Join(folder, "*.native"))
	if err != nil || files == nil {
		b.Fatalf("no models in %s: %v", folder, err)
	}
	for _, file := range files {
		m, err := native.Open(file)
		if err != nil {
			b.Fatal(err)
		}
		method := 0
		for i := range m.Methods {
			if m.Methods[i].Name == "predict_proba" || m.Methods[i].Name == "score_samples" {
				method = i
			}
		}
		in, width := len(m.Columns), m.Methods[method].Width
		for _, batch := range []int{1, 64} {
			out := make([]float64, batch*width)
			name := filepath.Base(file[:len(file)-len(".native")]) + "/" + strconv.Itoa(batch)
			b.Run(name, func(b *testing.B) {
				b.ReportAllocs()
				at, begin := 0, used()
				for b.Loop() {
					if err := m.Predict(method, rows[at*in:(at+batch)*in], batch, out); err != nil {
						b.Fatal(err)
					}
					if at += batch; at+batch > len(rows)/in {
						at = 0
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batch), "ns/row")
				b.ReportMetric(float64(used()-begin)/float64(b.N*batch), "cpu-ns/row")
			})
		}
		if err := m.Close(); err != nil {
			b.Error(err)
		}
	}
}

// used is the processor time of this process, which a busy machine does not lengthen as much as the time.
func used() time.Duration {
	var usage unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &usage) != nil {
		return 0
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
