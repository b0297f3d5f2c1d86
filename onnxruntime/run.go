package onnxruntime

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"unsafe"
)

// frame is what C needs for one run, in pinned memory.
type frame struct {
	fixed   memory // holds the words below
	data    runtime.Pinner
	options [2]uintptr // of a run, and of one that returns unused memory
	in, out words
	word    words
	dims    words
}

// mostDimensions bounds the rank of a tensor.
const mostDimensions = 64

// frame begins a run, which back ends.
func (s *Session) frame() (*frame, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	if n := len(s.frames); n > 0 {
		f := s.frames[n-1]
		s.frames = s.frames[:n-1]
		s.runs++
		return f, nil
	}
	f := &frame{}
	f.in, f.out = f.fixed.words(len(s.inputs)), f.fixed.words(len(s.outputs))
	f.word, f.dims = f.fixed.words(4), f.fixed.words(mostDimensions)
	for i := range f.options {
		if err := s.library.do(createRunOptions, f.word.at(0)); err != nil {
			f.release(s.library)
			return nil, err
		}
		f.options[i] = f.word.get(0)
	}
	key, value := f.fixed.text("memory.enable_memory_arena_shrinkage"), f.fixed.text("cpu:0")
	if err := s.library.do(addRunConfigEntry, f.options[1], key, value); err != nil {
		f.release(s.library)
		return nil, err
	}
	s.runs++
	return f, nil
}

func (f *frame) release(l *Library) {
	for _, o := range f.options {
		l.release(releaseRunOptions, o)
	}
	f.fixed.release()
}

// back ends a run: it releases what the run has left, and keeps the frame for the next.
func (s *Session) back(f *frame) {
	for _, values := range []words{f.in, f.out} {
		for i, v := range values {
			s.library.release(releaseValue, v)
			values[i] = 0
		}
	}
	f.data.Unpin()
	s.mu.Lock()
	s.frames = append(s.frames, f)
	s.runs--
	last := s.closed && s.runs == 0
	s.mu.Unlock()
	if last {
		s.release()
	}
}

// InputError is an input that Run does not take.
type InputError struct {
	Name string
	Why  string
}

func (e *InputError) Error() string { return fmt.Sprintf("input '%s' %s", e.Name, e.Why) }

// Run computes the outputs of the inputs, which are tensors in the order of Inputs and are read in
// place. The outputs are copies. Run ends with ctx, with the error of ctx.
func (s *Session) Run(ctx context.Context, in []Value) ([]Value, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if len(in) != len(s.inputs) {
		return nil, fmt.Errorf("%d inputs for a model of %d", len(in), len(s.inputs))
	}
	f, err := s.frame()
	if err != nil {
		return nil, err
	}
	defer s.back(f)
	for i := range in {
		if err := s.input(f, i, &in[i]); err != nil {
			return nil, err
		}
	}
	l, options := s.library, f.options[0]
	if l.returns() {
		options = f.options[1]
	}
	var stop func() bool
	var stopped chan struct{}
	if ctx.Done() != nil {
		stopped = make(chan struct{})
		stop = context.AfterFunc(ctx, func() {
			defer close(stopped)
			_ = l.do(runOptionsSetTerminate, options) // it sets a flag
		})
	}
	err = l.do(run, s.handle, options, s.inNames.at(0), f.in.at(0), uintptr(len(f.in)), s.outNames.at(0), uintptr(len(f.out)), f.out.at(0))
	if stop != nil && !stop() {
		<-stopped
		if clear := l.do(runOptionsUnsetTerminate, options); clear != nil {
			err = errors.Join(err, clear)
		}
		if err != nil {
			return nil, ctx.Err()
		}
	}
	if err != nil {
		return nil, err
	}
	out := make([]Value, len(f.out))
	for i, v := range f.out {
		if out[i], err = s.library.value(f, v, 0); err != nil {
			return nil, fmt.Errorf("output '%s': %w", s.outputs[i].Name, err)
		}
	}
	return out, nil
}

// input creates C's tensor of an input.
func (s *Session) input(f *frame, i int, v *Value) error {
	name := s.inputs[i].Name
	if len(v.Shape) > mostDimensions {
		return &InputError{name, fmt.Sprintf("has %d dimensions, at most %d are possible", len(v.Shape), mostDimensions)}
	}
	elements := 1
	for k, n := range v.Shape {
		if n < 0 || n > 0 && elements > maxElements/int(n) {
			return &InputError{name, fmt.Sprintf("has the shape %v, which no tensor has", v.Shape)}
		}
		elements *= int(n)
		f.dims[k] = uintptr(n)
	}
	rank := uintptr(len(v.Shape))
	if v.Type == String {
		return s.strings(f, i, v, elements)
	}
	size := v.Type.Size()
	if size == 0 {
		return &InputError{name, fmt.Sprintf("has elements of type %d, which have no form here", v.Type)}
	}
	if elements*size != len(v.Data) {
		return &InputError{name, fmt.Sprintf("has %d bytes: its shape %v needs %d", len(v.Data), v.Shape, elements*size)}
	}
	data := v.Data
	if len(data) == 0 {
		data = make([]byte, 8)[:0] // C wants an address
	}
	start := unsafe.SliceData(data)
	if uintptr(unsafe.Pointer(start))%uintptr(size) != 0 { // C reads only aligned elements
		data = slices.Clone(data)
		start = unsafe.SliceData(data)
	}
	f.data.Pin(start)
	l := s.library
	return l.do(createTensorWithData, l.cpu, uintptr(unsafe.Pointer(start)), uintptr(len(v.Data)), f.dims.at(0), rank, uintptr(v.Type), f.in.at(i)) //nolint:gosec // an enum
}

const maxElements = 1 << 48

// strings creates C's tensor of strings.
func (s *Session) strings(f *frame, i int, v *Value, elements int) error {
	name, l := s.inputs[i].Name, s.library
	if elements > len(v.Data)/4 {
		return &InputError{name, fmt.Sprintf("has data for fewer strings than its shape %v", v.Shape)}
	}
	if err := l.do(createTensor, l.allocator, f.dims.at(0), uintptr(len(v.Shape)), uintptr(String), f.in.at(i)); err != nil {
		return err
	}
	rest := v.Data
	for k := range elements {
		if len(rest) < 4 || uint64(len(rest)-4) < uint64(binary.LittleEndian.Uint32(rest)) {
			return &InputError{name, fmt.Sprintf("has data for fewer strings than its shape %v", v.Shape)}
		}
		n := int(binary.LittleEndian.Uint32(rest))
		content := rest[4 : 4+n]
		rest = rest[4+n:]
		if err := l.do(getResizedStringElementBuffer, f.in.get(i), uintptr(k), uintptr(n), f.word.at(0)); err != nil { //nolint:gosec // positive
			return err
		}
		if n > 0 {
			copy(unsafe.Slice((*byte)(pointer(f.word.get(0))), n), content)
		}
	}
	if len(rest) > 0 {
		return &InputError{name, fmt.Sprintf("has data for more strings than its shape %v", v.Shape)}
	}
	return nil
}

// mostNested bounds values in values.
const mostNested = 4

// value copies a value of C.
func (l *Library) value(f *frame, of uintptr, depth int) (v Value, err error) {
	if of == 0 {
		return v, errors.New("there is no value")
	}
	if err := l.do(getValueType, of, f.word.at(0)); err != nil {
		return v, err
	}
	v.Kind = Kind(int32(f.word.get(0))) //nolint:gosec // an enum
	if v.Kind == KindTensor {
		return v, l.tensor(f, of, &v)
	}
	if depth == mostNested || v.Kind != KindSequence && v.Kind != KindMap {
		return v, errors.New("a value of its kind has no form here")
	}
	n := 2
	if v.Kind == KindSequence {
		if err := l.do(getValueCount, of, f.word.at(0)); err != nil {
			return v, err
		}
		n = int(f.word.get(0)) //nolint:gosec // a count
	}
	v.Elements = make([]Value, n)
	for i := range v.Elements {
		if err := l.do(getValue, of, uintptr(i), l.allocator, f.word.at(0)); err != nil { //nolint:gosec // positive
			return v, err
		}
		element := f.word.get(0)
		v.Elements[i], err = l.value(f, element, depth+1)
		l.release(releaseValue, element)
		if err != nil {
			return v, err
		}
	}
	return v, nil
}

// tensor copies a tensor of C.
func (l *Library) tensor(f *frame, of uintptr, v *Value) (err error) {
	if err := l.do(getTensorTypeAndShape, of, f.word.at(0)); err != nil {
		return err
	}
	info := f.word.get(0)
	defer l.release(releaseTensorTypeAndShapeInfo, info)
	f.word[0] = 0
	if err := l.do(getTensorElementType, info, f.word.at(0)); err != nil {
		return err
	}
	v.Type = ElementType(int32(f.word.get(0))) //nolint:gosec // an enum
	if err := l.do(getDimensionsCount, info, f.word.at(0)); err != nil {
		return err
	}
	rank := f.word.get(0)
	if rank > mostDimensions {
		return fmt.Errorf("it has %d dimensions, at most %d are possible", rank, mostDimensions)
	}
	if err := l.do(getDimensions, info, f.dims.at(0), rank); err != nil {
		return err
	}
	v.Shape = make([]int64, rank)
	elements := 1
	for i := range v.Shape {
		v.Shape[i] = int64(f.dims[i]) //nolint:gosec // a dimension
		elements *= int(f.dims[i])    //nolint:gosec // of a tensor in memory
	}
	if v.Type == String {
		return l.texts(f, of, v, elements)
	}
	size := v.Type.Size()
	if size == 0 {
		return fmt.Errorf("its elements are of type %d, which have no form here", v.Type)
	}
	if err := l.do(getTensorMutableData, of, f.word.at(0)); err != nil {
		return err
	}
	if n := elements * size; n > 0 {
		of := pointer(f.word.get(0))
		if v.Data, err = l.copies.take(n); err != nil {
			return err
		}
		copy(v.Data, unsafe.Slice((*byte)(of), n))
	}
	return nil
}

// texts copies a tensor of strings.
func (l *Library) texts(f *frame, of uintptr, v *Value, elements int) (err error) {
	if err := l.do(getStringTensorDataLength, of, f.word.at(0)); err != nil {
		return err
	}
	var m memory
	defer m.release()
	size := int(f.word.get(0)) //nolint:gosec // in memory
	content, offsets := m.words(size/8+1), m.words(elements+1)
	if elements == 0 {
		return nil
	}
	if err := l.do(getStringTensorContent, of, content.at(0), uintptr(size), offsets.at(0), uintptr(elements)); err != nil { //nolint:gosec // sizes
		return err
	}
	offsets[elements] = uintptr(size)                               //nolint:gosec // positive
	all := unsafe.Slice((*byte)(unsafe.Pointer(&content[0])), size) // the words' bytes
	if v.Data, err = l.copies.take(size + 4*elements); err != nil {
		return err
	}
	v.Data = v.Data[:0]
	for i := range elements {
		one := all[offsets[i]:offsets[i+1]]
		v.Data = append(binary.LittleEndian.AppendUint32(v.Data, uint32(len(one))), one...) //nolint:gosec // ONNX models are smaller
	}
	return nil
}
