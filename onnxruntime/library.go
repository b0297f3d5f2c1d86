package onnxruntime

import (
	"cmp"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"unsafe"
)

// Library is a loaded ONNX Runtime. It stays loaded until the process ends. Its methods may be
// called from any goroutine.
type Library struct {
	path, version string
	api           uintptr // struct OrtApi
	env           uintptr
	cpu           uintptr // the memory info of tensors
	allocator     uintptr // the default one
	trim          uintptr // malloc_trim, 0 if there is none
}

var opened struct { //nolint:gochecknoglobals // the runtime's environment is one for each process, too
	sync.Mutex
	library *Library
}

// Open loads the shared library at path. A process has only one: after the first success Open
// returns that one, whatever the path.
func Open(path string) (*Library, error) {
	opened.Lock()
	defer opened.Unlock()
	if opened.library != nil {
		return opened.library, nil
	}
	l, err := open(path)
	if err == nil {
		opened.library = l
	}
	return l, err
}

func open(path string) (*Library, error) {
	getBase, err := symbolOf(path, "OrtGetApiBase")
	if err != nil {
		return nil, fmt.Errorf("load ONNX Runtime: %w", err)
	}
	base := call(getBase)
	if base == 0 {
		return nil, fmt.Errorf("load ONNX Runtime: %s has no API", path)
	}
	table := (*[2]uintptr)(pointer(base)) // GetApi, GetVersionString
	l := &Library{path: path, version: text(call(table[1]))}
	if l.api = call(table[0], apiVersion); l.api == 0 || !accepted(l.version) {
		return nil, &VersionError{Path: path, Version: l.version}
	}
	l.boundArenas()
	const fatal = 4 // errors are values, and those of requests are not for the log
	var m memory
	defer m.release()
	name, out := m.text("clearml-serving"), m.words(1)
	if err := l.do(createEnv, fatal, name, out.at(0)); err != nil {
		return nil, err
	}
	l.env = out.get(0)
	if err := l.do(createCPUMemoryInfo, 0, 0, out.at(0)); err != nil { // device allocator, default memory
		return nil, err
	}
	l.cpu = out.get(0)
	if err := l.do(getAllocatorWithDefaultOptions, out.at(0)); err != nil {
		return nil, err
	}
	l.allocator = out.get(0)
	return l, nil
}

// boundArenas lets glibc keep one arena of memory, because those of many threads keep what a closed
// session frees.
func (l *Library) boundArenas() {
	const arenaMax = -8
	if set := cLibrary("mallopt"); set != 0 && runtime.GOOS == "linux" {
		option := arenaMax
		call(set, uintptr(option), 1)
	}
	l.trim = cLibrary("malloc_trim")
}

// accepted reports whether a release may be used.
func accepted(version string) bool {
	parts := strings.SplitN(version, ".", 3)
	if len(parts) < 2 {
		return false
	}
	major, err := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(parts[1])
	return cmp.Or(err, err2) == nil && (major > 1 || major == 1 && minor >= OldestMinor)
}

// Path is the file of the library.
func (l *Library) Path() string { return l.path }

// Version is the release of ONNX Runtime.
func (l *Library) Version() string { return l.version }

// Providers are the execution providers that the library was built with.
func (l *Library) Providers() ([]string, error) {
	var m memory
	defer m.release()
	out := m.words(2)
	if err := l.do(getAvailableProviders, out.at(0), out.at(1)); err != nil {
		return nil, err
	}
	list, n := out.get(0), int(int32(out.get(1)))
	names := make([]string, 0, n)
	for _, p := range unsafe.Slice((*uintptr)(pointer(list)), n) {
		names = append(names, text(p))
	}
	return names, l.do(releaseAvailableProviders, list, uintptr(n))
}

// Trim gives memory that closed sessions have freed back to the system.
func (l *Library) Trim() {
	if l.trim != 0 {
		call(l.trim, 0)
	}
}

func (l *Library) function(f function) uintptr {
	return *(*uintptr)(pointer(l.api + uintptr(f)*unsafe.Sizeof(l.api)))
}

// do calls a function that returns a status.
func (l *Library) do(f function, args ...uintptr) error {
	status := call(l.function(f), args...)
	if status == 0 {
		return nil
	}
	err := &Error{Code: Code(int32(call(l.function(getErrorCode), status))), Text: text(call(l.function(getErrorMessage), status))} //nolint:gosec // an enum
	call(l.function(releaseStatus), status)
	return err
}

// release calls a function that releases an object.
func (l *Library) release(f function, object uintptr) {
	if object != 0 {
		call(l.function(f), object)
	}
}
