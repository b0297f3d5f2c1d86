package onnxruntime

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// library is the ONNX Runtime that CLEARML_SERVING_TEST_ONNXRUNTIME names.
func library(tb testing.TB) *Library {
	tb.Helper()
	path := os.Getenv("CLEARML_SERVING_TEST_ONNXRUNTIME")
	if path == "" {
		tb.Skip("CLEARML_SERVING_TEST_ONNXRUNTIME does not name an ONNX Runtime")
	}
	l, err := Open(path, Options{RunMemory: 64 << 20})
	if err != nil {
		tb.Fatal(err)
	}
	return l
}

func session(tb testing.TB, name string) *Session {
	tb.Helper()
	s, err := library(tb).NewSession(filepath.Join("testdata", name), SessionOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(s.Close)
	return s
}

// numbers is a tensor of any numeric type.
func numbers[N any](kind ElementType, shape []int64, values ...N) Value {
	data, err := binary.Append(nil, binary.NativeEndian, values)
	if err != nil {
		panic(err)
	}
	return Value{Kind: KindTensor, Type: kind, Shape: shape, Data: data}
}

func of[N any](tb testing.TB, v Value) []N {
	tb.Helper()
	values := make([]N, len(v.Data)/binary.Size(*new(N)))
	if _, err := binary.Decode(v.Data, binary.NativeEndian, values); err != nil {
		tb.Fatal(err)
	}
	return values
}

func texts(texts ...string) Value {
	v := Value{Kind: KindTensor, Type: String, Shape: []int64{int64(len(texts)), 1}}
	for _, s := range texts {
		v.Data = append(binary.LittleEndian.AppendUint32(v.Data, uint32(len(s))), s...)
	}
	return v
}

type answers map[string]struct {
	X             [][]float32
	Rows          [][]any
	Labels        []any
	Probabilities [][]float64
}

func known(tb testing.TB) (a answers) {
	tb.Helper()
	b, err := os.ReadFile("testdata/answers.json")
	if err != nil {
		tb.Fatal(err)
	}
	if err := json.Unmarshal(b, &a); err != nil {
		tb.Fatal(err)
	}
	return a
}

func TestAModelDescribesItsInputsAndOutputs(t *testing.T) {
	s := session(t, "zipmap_words.onnx")
	in, out := s.Inputs(), s.Outputs()
	if len(in) != 1 || in[0].Name != "X" || in[0].Type != Float || !slices.Equal(in[0].Shape, []int64{-1, 4}) {
		t.Errorf("%+v", in)
	}
	if len(out) != 2 || out[0].Type != String || out[1].Kind != KindSequence || out[1].Element.Kind != KindMap || out[1].Element.Key != String || out[1].Element.Element.Type != Float {
		t.Errorf("%+v", out)
	}
	if s := session(t, "plus_one.onnx").Inputs()[0]; !slices.Equal(s.Symbols, []string{"batch", ""}) {
		t.Errorf("%+v", s)
	}
}

func TestAnswersAreThoseOfTheModel(t *testing.T) {
	for name, want := range known(t) {
		if want.X == nil {
			continue
		}
		t.Run(name, func(t *testing.T) {
			s := session(t, name+".onnx")
			out, err := s.Run(t.Context(), []Value{numbers(Float, []int64{int64(len(want.X)), 4}, slices.Concat(want.X...)...)})
			if err != nil {
				t.Fatal(err)
			}
			if out[0].Type == Int64 {
				for i, label := range of[int64](t, out[0]) {
					if float64(label) != want.Labels[i] {
						t.Errorf("row %d: label %d, want %v", i, label, want.Labels[i])
					}
				}
			}
			for i, row := range want.Probabilities {
				var got []float32
				if out[1].Kind == KindSequence {
					got = of[float32](t, out[1].Elements[i].Elements[1])
				} else {
					got = of[float32](t, out[1])[3*i : 3*i+3]
				}
				for k := range row {
					if math.Abs(row[k]-float64(got[k])) > 1e-5 {
						t.Errorf("row %d: %v, want %v", i, got, row)
					}
				}
			}
		})
	}
}

func TestEveryTypeOfElementsPasses(t *testing.T) {
	s := session(t, "all_types.onnx")
	in := make([]Value, len(s.Inputs()))
	for i, info := range s.Inputs() {
		v := Value{Kind: KindTensor, Type: info.Type, Shape: []int64{3, 2}}
		if info.Type == String {
			v = texts("", "a", "zero\x00inside", "grün", strings.Repeat("long", 1000), "\xff")
			v.Shape = []int64{3, 2}
		} else {
			v.Data = make([]byte, 6*info.Type.Size())
			for k := range v.Data {
				v.Data[k] = byte(k % 2)
			}
		}
		in[i] = v
	}
	out, err := s.Run(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	for i := range out {
		if out[i].Type != in[i].Type || !slices.Equal(out[i].Shape, in[i].Shape) || string(out[i].Data) != string(in[i].Data) {
			t.Errorf("%s: %+v", s.Inputs()[i].Name, out[i])
		}
	}
	for i := range in {
		in[i].Shape, in[i].Data = []int64{0, 2}, nil
	}
	if out, err = s.Run(t.Context(), in); err != nil || len(out[0].Data) != 0 || out[0].Shape[0] != 0 {
		t.Errorf("no rows: %v, %+v", err, out)
	}
}

func TestAnInputThatIsNotAlignedIsRead(t *testing.T) {
	s := session(t, "plus_one.onnx")
	v := numbers[float32](Float, []int64{1, 3}, 1, 2, 3)
	for shift := range 8 {
		memory := append(make([]byte, shift), v.Data...)
		odd := v
		odd.Data = memory[shift:]
		out, err := s.Run(t.Context(), []Value{odd})
		if err != nil || !slices.Equal(of[float32](t, out[0]), []float32{2, 3, 4}) {
			t.Errorf("shifted by %d: %v %v", shift, out, err)
		}
	}
}

func TestWrongInputsAreErrors(t *testing.T) {
	s := session(t, "plus_one.onnx")
	good := numbers[float32](Float, []int64{1, 3}, 1, 2, 3)
	with := func(change func(*Value)) Value {
		v := good
		change(&v)
		return v
	}
	for name, tc := range map[string]struct {
		in   []Value
		want string
	}{
		"none":           {nil, "0 inputs for a model of 1"},
		"another type":   {[]Value{with(func(v *Value) { v.Type = Int32 })}, "Unexpected input data type"},
		"another shape":  {[]Value{with(func(v *Value) { v.Shape = []int64{3, 1} })}, "Got invalid dimensions"},
		"another rank":   {[]Value{with(func(v *Value) { v.Shape = []int64{3} })}, "Invalid rank"},
		"short data":     {[]Value{with(func(v *Value) { v.Data = v.Data[:11] })}, "has 11 bytes: its shape [1 3] needs 12"},
		"negative":       {[]Value{with(func(v *Value) { v.Shape = []int64{-1, 3} })}, "no tensor has"},
		"overflow":       {[]Value{with(func(v *Value) { v.Shape = []int64{1 << 32, 1 << 32} })}, "no tensor has"},
		"huge":           {[]Value{with(func(v *Value) { v.Shape = []int64{math.MaxInt64, math.MaxInt64, 0} })}, "no tensor has"},
		"no bytes":       {[]Value{{Type: Float, Shape: []int64{1 << 62}}}, "no tensor has"}, // 2^64 of them
		"many":           {[]Value{with(func(v *Value) { v.Shape = make([]int64, 65) })}, "65 dimensions"},
		"no such type":   {[]Value{with(func(v *Value) { v.Type = 99 })}, "no form here"},
		"strings":        {[]Value{texts("a", "b", "c")}, "Unexpected input data type"},
		"short strings":  {[]Value{{Type: String, Shape: []int64{2}, Data: texts("a").Data}}, "fewer strings"},
		"more strings":   {[]Value{{Type: String, Shape: []int64{1}, Data: texts("a", "b").Data}}, "more strings"},
		"cut strings":    {[]Value{{Type: String, Shape: []int64{1}, Data: []byte{9, 0, 0, 0, 'a'}}}, "fewer strings"},
		"many strings":   {[]Value{{Type: String, Shape: []int64{1 << 40}, Data: []byte{9, 0, 0, 0, 'a'}}}, "fewer strings"},
		"endless string": {[]Value{{Type: String, Shape: []int64{1}, Data: []byte{255, 255, 255, 255, 'a'}}}, "fewer strings"},
	} {
		if _, err := s.Run(t.Context(), tc.in); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if out, err := s.Run(t.Context(), []Value{good}); err != nil || of[float32](t, out[0])[0] != 2 {
		t.Errorf("after errors: %v, %v", out, err)
	}
}

func TestBrokenFilesAreErrors(t *testing.T) {
	forest, err := os.ReadFile("testdata/forest.onnx")
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "m.onnx")
	for name, content := range map[string][]byte{"empty": {}, "text": []byte("hello, not a model"), "half": forest[:len(forest)/2]} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := library(t).NewSession(file, SessionOptions{}); err == nil {
			t.Errorf("%s is loaded", name)
		}
	}
	if _, err := library(t).NewSession(filepath.Join(t.TempDir(), "none"), SessionOptions{}); err == nil {
		t.Error("a missing file is loaded")
	}
}

func TestExternalDataComesFromTheModelsFolderOnly(t *testing.T) {
	s := session(t, "external/model.onnx")
	out, err := s.Run(t.Context(), []Value{numbers[float32](Float, []int64{1, 3}, 1, 1, 1)})
	if err != nil || of[float32](t, out[0])[1] != 1+301+601 {
		t.Errorf("%v %v", err, out)
	}
	if _, err := library(t).NewSession("testdata/escapes/model.onnx", SessionOptions{}); err == nil || !strings.Contains(err.Error(), "escapes") {
		t.Errorf("data outside of the folder: %v", err)
	}
	outside := t.TempDir()
	for from, to := range map[string]string{"testdata/external/model.onnx": outside + "/model.onnx", "testdata/external/weights.bin": ""} {
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		if to == "" {
			to = filepath.Join(t.TempDir(), "weights.bin")
			if err := os.Symlink(to, outside+"/weights.bin"); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(to, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := library(t).NewSession(outside+"/model.onnx", SessionOptions{}); err == nil {
		t.Error("a link leads out of the folder, and is followed")
	}
}

func TestARunEndsWithItsContext(t *testing.T) {
	s := session(t, "loop.onnx")
	long := []Value{numbers[int64](Int64, nil, math.MaxInt64), numbers[float32](Float, []int64{1}, 0)}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := s.Run(ctx, long); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := s.Run(ctx, long); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	out, err := s.Run(t.Context(), []Value{numbers[int64](Int64, nil, 7), long[1]}) // the same frame again
	if err != nil || of[float32](t, out[0])[0] != 7 {
		t.Errorf("%v %v", out, err)
	}
}

func TestASessionIsReleasedAfterItsLastRun(t *testing.T) {
	s := session(t, "loop.onnx")
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	for range cap(ended) {
		go func() {
			_, err := s.Run(ctx, []Value{numbers[int64](Int64, nil, math.MaxInt64), numbers[float32](Float, []int64{1}, 0)})
			ended <- err
		}()
	}
	held := func() (runs int, released bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.runs, s.handle == 0
	}
	for runs := 0; runs < cap(ended); runs, _ = held() {
		time.Sleep(time.Millisecond)
	}
	s.Close()
	if runs, released := held(); runs != cap(ended) || released {
		t.Errorf("%d runs, released: %v", runs, released)
	}
	if _, err := s.Run(t.Context(), make([]Value, 2)); !errors.Is(err, ErrClosed) {
		t.Errorf("a run after Close: %v", err)
	}
	cancel()
	for range cap(ended) {
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
	if runs, released := held(); runs != 0 || !released {
		t.Errorf("%d runs, released: %v", runs, released)
	}
	s.Close()
}

func TestManyRunsAtOnceGetTheirOwnAnswers(t *testing.T) {
	s := session(t, "plus_one.onnx")
	var all sync.WaitGroup
	for g := range 10 {
		all.Go(func() {
			for i := range 2000 {
				x := float32(1000*g + i)
				ctx, cancel := context.WithCancel(t.Context())
				out, err := s.Run(ctx, []Value{numbers(Float, []int64{1, 3}, x, 2*x, 3*x)})
				cancel()
				if err != nil || !slices.Equal(of[float32](t, out[0]), []float32{x + 1, 2*x + 1, 3*x + 1}) {
					t.Errorf("%v: %v, %v", x, out, err)
					return
				}
			}
		})
	}
	all.Wait()
}

func TestProvidersThatAreNotThereAreNamed(t *testing.T) {
	_, err := library(t).NewSession("testdata/plus_one.onnx", SessionOptions{Providers: []string{"CUDAExecutionProvider"}})
	if missing, ok := errors.AsType[*ProviderError](err); !ok || missing.Name != "CUDAExecutionProvider" || !slices.Contains(missing.Others, CPUProvider) {
		t.Error(err)
	}
	s, err := library(t).NewSession("testdata/plus_one.onnx", SessionOptions{Providers: []string{CPUProvider}})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

func TestOnlySupportedReleasesAreOpened(t *testing.T) {
	for version, want := range map[string]bool{"1.23.2": false, "1.24.0": true, "1.32.0": true, "2.0.0": true, "0.9": false, "": false, "x.y": false, "1": false} {
		if Supported(version) != want {
			t.Error(version)
		}
	}
	if _, err := open(filepath.Join(t.TempDir(), "libonnxruntime.so"), Options{}); err == nil || !strings.Contains(err.Error(), "libonnxruntime.so") && !errors.Is(err, ErrStatic) {
		t.Error(err)
	}
}

func TestARunWithoutMemoryFailsAndOthersGoOn(t *testing.T) {
	s := session(t, "square.onnx")
	for _, n := range []int64{1000, 10_000, 1000} { // 4 MB, 400 MB of the 64 MB that there are
		out, err := s.Run(t.Context(), []Value{numbers(Float, []int64{n}, make([]float32, n)...)})
		if n == 1000 && (err != nil || of[float32](t, out[0])[0] != 0) {
			t.Errorf("%v, %v", out, err)
		}
		if n > 1000 && !OutOfMemory(err) {
			t.Errorf("%d: %v", n, err)
		}
	}
}
