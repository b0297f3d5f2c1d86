package onnxruntime

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// Session is a loaded model. Run may be called from many goroutines.
type Session struct {
	library         *Library
	handle          uintptr
	inputs, outputs []Info
	names           memory // holds the names for Run
	inNames         words
	outNames        words

	mu     sync.Mutex // guards the rest
	frames []*frame   // unused ones
	runs   int        // that have not returned
	closed bool
}

// ErrClosed is the error of a Run after Close.
var ErrClosed = errors.New("the session is closed")

// NewSession loads the model of a file. External data is read from the file's folder.
func (l *Library) NewSession(path string, o SessionOptions) (*Session, error) {
	options, err := l.options(o)
	defer l.release(releaseSessionOptions, options)
	if err != nil {
		return nil, err
	}
	var m memory
	defer m.release()
	out := m.words(1)
	if err := l.do(createSession, l.env, m.text(path), options, out.at(0)); err != nil {
		return nil, err
	}
	s := &Session{library: l, handle: out.get(0)}
	if err := s.describe(); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// options creates C's options, which the caller releases also after an error.
func (l *Library) options(o SessionOptions) (uintptr, error) {
	var m memory
	defer m.release()
	out := m.words(1)
	if err := l.do(createSessionOptions, out.at(0)); err != nil {
		return 0, err
	}
	options := out.get(0)
	threads := uintptr(max(o.Threads, 1)) //nolint:gosec // positive
	err := cmp.Or(l.do(setIntraOpNumThreads, options, threads), l.do(setInterOpNumThreads, options, 1))
	config := map[string]string{
		"session.intra_op.allow_spinning": "0", "session.inter_op.allow_spinning": "0",
		"session.use_env_allocators": "1", "session.use_device_allocator_for_initializers": "1", // weights are freed with the session
	}
	maps.Copy(config, o.Config)
	for _, key := range slices.Sorted(maps.Keys(config)) {
		err = cmp.Or(err, l.do(addSessionConfigEntry, options, m.text(key), m.text(config[key])))
	}
	for _, name := range o.Providers {
		if err == nil {
			err = l.appendProvider(options, name)
		}
	}
	return options, err
}

// ProviderError is an execution provider that cannot be used.
type ProviderError struct {
	Name   string
	Others []string // that the library has
	Err    error    // nil: the library was built without it
}

func (e *ProviderError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("this ONNX Runtime has no %s: it has %v", e.Name, e.Others)
	}
	return fmt.Sprintf("%s cannot be used on this machine: %v", e.Name, e.Err)
}

func (e *ProviderError) Unwrap() error { return e.Err }

// CPUProvider is the provider that each library has, and that computes what others do not.
const CPUProvider = "CPUExecutionProvider"

func (l *Library) appendProvider(options uintptr, name string) error {
	if name == CPUProvider {
		return nil // always the last
	}
	others, err := l.Providers()
	if err != nil {
		return err
	}
	if !slices.Contains(others, name) {
		return &ProviderError{Name: name, Others: others}
	}
	var m memory
	defer m.release()
	out := m.words(1)
	add := func(create, appendTo, release function) error {
		if err := l.do(create, out.at(0)); err != nil {
			return err
		}
		defer l.release(release, out.get(0))
		return l.do(appendTo, options, out.get(0))
	}
	switch name {
	case "CUDAExecutionProvider":
		err = add(createCUDAProviderOptions, appendCUDA, releaseCUDAProviderOptions)
	case "TensorrtExecutionProvider":
		err = add(createTensorRTProviderOptions, appendTensorRT, releaseTensorRTProviderOptions)
	default:
		short, known := strings.CutSuffix(name, "ExecutionProvider")
		if !known {
			short = name
		}
		err = l.do(appendExecutionProvider, options, m.text(short), 0, 0, 0)
	}
	if err != nil {
		return &ProviderError{Name: name, Others: others, Err: err}
	}
	return nil
}

// Inputs describes the inputs. It must not be changed.
func (s *Session) Inputs() []Info { return s.inputs }

// Outputs describes the outputs. It must not be changed.
func (s *Session) Outputs() []Info { return s.outputs }

// Close refuses further runs. The last of those that have begun releases the session: they may take
// longer than the caller waits.
func (s *Session) Close() {
	s.mu.Lock()
	unused := !s.closed && s.runs == 0
	s.closed = true
	s.mu.Unlock()
	if unused {
		s.release()
	}
}

// release releases all that C holds, when no run is left and none can begin.
func (s *Session) release() {
	for _, f := range s.frames {
		f.release(s.library)
	}
	s.frames = nil
	s.library.release(releaseSession, s.handle)
	s.handle = 0
	s.names.release()
	s.library.Trim()
}

// describe reads the inputs and outputs.
func (s *Session) describe() (err error) {
	if s.inputs, s.inNames, err = s.infos(sessionGetInputCount, sessionGetInputName, sessionGetInputTypeInfo); err != nil {
		return err
	}
	s.outputs, s.outNames, err = s.infos(sessionGetOutputCount, sessionGetOutputName, sessionGetOutputTypeInfo)
	return err
}

func (s *Session) infos(count, name, typeInfo function) ([]Info, words, error) {
	l := s.library
	var m memory
	defer m.release()
	out := m.words(1)
	if err := l.do(count, s.handle, out.at(0)); err != nil {
		return nil, nil, err
	}
	infos := make([]Info, out.get(0))
	names := s.names.words(len(infos))
	for i := range infos {
		index := uintptr(i) //nolint:gosec // positive
		if err := l.do(name, s.handle, index, l.allocator, out.at(0)); err != nil {
			return nil, nil, err
		}
		itsName := text(out.get(0))
		if err := l.do(allocatorFree, l.allocator, out.get(0)); err != nil {
			return nil, nil, err
		}
		if err := l.do(typeInfo, s.handle, index, out.at(0)); err != nil {
			return nil, nil, err
		}
		info, err := l.info(out.get(0))
		if err != nil {
			return nil, nil, err
		}
		info.Name = itsName
		infos[i], names[i] = info, s.names.text(itsName)
	}
	return infos, names, nil
}

// info reads and releases a type.
func (l *Library) info(of uintptr) (info Info, err error) {
	defer l.release(releaseTypeInfo, of)
	var m memory
	defer m.release()
	out := m.words(1)
	if err := l.do(getOnnxTypeFromTypeInfo, of, out.at(0)); err != nil {
		return info, err
	}
	info.Kind = Kind(int32(out.get(0))) //nolint:gosec // an enum
	inner := func(cast, get function) error {
		if err := l.do(cast, of, out.at(0)); err != nil {
			return err
		}
		if err := l.do(get, out.get(0), out.at(0)); err != nil {
			return err
		}
		element, err := l.info(out.get(0))
		info.Element = &element
		return err
	}
	switch info.Kind {
	case KindTensor:
		if err := l.do(castTypeInfoToTensorInfo, of, out.at(0)); err != nil {
			return info, err
		}
		info.Type, info.Shape, info.Symbols, err = l.shape(out.get(0), true)
		return info, err
	case KindSequence:
		return info, inner(castTypeInfoToSequenceTypeInfo, getSequenceElementType)
	case KindOptional:
		return info, inner(castTypeInfoToOptionalTypeInfo, getOptionalContainedTypeInfo)
	case KindMap:
		if err := l.do(castTypeInfoToMapTypeInfo, of, out.at(0)); err != nil {
			return info, err
		}
		if err := l.do(getMapKeyType, out.get(0), out.at(0)); err != nil {
			return info, err
		}
		info.Key = ElementType(int32(out.get(0))) //nolint:gosec // an enum
		return info, inner(castTypeInfoToMapTypeInfo, getMapValueType)
	case KindOpaque, KindSparse:
	}
	return info, nil
}

// shape reads the type and the dimensions of a tensor, and their names.
func (l *Library) shape(of uintptr, named bool) (t ElementType, dims []int64, symbols []string, err error) {
	var m memory
	defer m.release()
	out := m.words(2)
	if err := cmp.Or(l.do(getTensorElementType, of, out.at(0)), l.do(getDimensionsCount, of, out.at(1))); err != nil {
		return 0, nil, nil, err
	}
	t = ElementType(int32(out.get(0))) //nolint:gosec // an enum
	rank := out.get(1)
	dims = make([]int64, rank)
	if rank == 0 {
		return t, dims, nil, nil
	}
	read := m.words(int(rank)) //nolint:gosec // a rank
	if err := l.do(getDimensions, of, read.at(0), rank); err != nil {
		return 0, nil, nil, err
	}
	for i := range dims {
		dims[i] = int64(read[i]) //nolint:gosec // its bits
	}
	if !named {
		return t, dims, nil, nil
	}
	if err := l.do(getSymbolicDimensions, of, read.at(0), rank); err != nil {
		return 0, nil, nil, err
	}
	symbols = make([]string, rank)
	for i := range symbols {
		symbols[i] = text(read[i])
	}
	return t, dims, symbols, nil
}
