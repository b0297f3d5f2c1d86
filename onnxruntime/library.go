package onnxruntime

import (
	"cmp"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// Library is a loaded ONNX Runtime. It stays loaded until the process ends. Its methods may be
// called from any goroutine.
type Library struct {
	path, version string
	api           uintptr // struct OrtApi
	env           uintptr
	cpu           uintptr      // the memory info of tensors
	allocator     uintptr      // the default one
	trim          uintptr      // malloc_trim, 0 if there is none
	returned      atomic.Int64 // when a run has returned memory of the arena last
	copies        copies
}

var opened struct { //nolint:gochecknoglobals // the runtime's environment is one for each process, too
	sync.Mutex
	library *Library
}

// Options of a Library.
type Options struct {
	// RunMemory bounds the memory of all runs together, without the weights of models, and that of the copies of their
	// outputs. A run that needs more fails. Default: no bound.
	RunMemory int64
}

// Open loads the shared library at path. A process has only one: after the first success Open
// returns that one, whatever the path and the options.
func Open(path string, o Options) (*Library, error) {
	opened.Lock()
	defer opened.Unlock()
	if opened.library != nil {
		return opened.library, nil
	}
	l, err := open(path, o)
	if err == nil {
		opened.library = l
	}
	return l, err
}

func open(path string, o Options) (*Library, error) {
	getBase, err := symbolOf(path, "OrtGetApiBase")
	if err != nil {
		return nil, fmt.Errorf("load ONNX Runtime: %w", err)
	}
	base := call(getBase)
	if base == 0 {
		return nil, fmt.Errorf("load ONNX Runtime: %s has no API", path)
	}
	table := (*[2]uintptr)(pointer(base)) // GetApi, GetVersionString
	l := &Library{path: path, version: text(call(table[1])), copies: copies{most: o.RunMemory}}
	if l.api = call(table[0], apiVersion); l.api == 0 || !Supported(l.version) {
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
	if err := l.shareArena(o.RunMemory); err != nil {
		return nil, err
	}
	return l, nil
}

// shareArena creates the arena of all sessions. Arenas of their own would each keep the memory of
// their largest run.
func (l *Library) shareArena(limit int64) error {
	var m memory
	defer m.release()
	keys, values, out := m.words(2), m.words(2), m.words(2)
	keys[0], values[0] = m.text("max_mem"), uintptr(max(limit, 0)) //nolint:gosec // 0 is no bound
	keys[1], values[1] = m.text("arena_extend_strategy"), 1        // as much as is requested, instead of powers of two
	if err := l.do(createArenaCfgV2, keys.at(0), values.at(0), 2, out.at(0)); err != nil {
		return err
	}
	defer func() { l.release(releaseArenaCfg, out.get(0)) }()
	const arenaAllocator = 1
	if err := l.do(createCPUMemoryInfo, arenaAllocator, 0, out.at(1)); err != nil {
		return err
	}
	defer func() { l.release(releaseMemoryInfo, out.get(1)) }()
	return l.do(createAndRegisterAllocator, l.env, out.get(1), out.get(0))
}

// returnEvery is the time after which a run returns unused memory of the arena to the system.
const returnEvery = 10 * time.Second

// returns reports whether a run is to return unused memory.
func (l *Library) returns() bool {
	now, last := time.Now().UnixNano(), l.returned.Load()
	return now-last > int64(returnEvery) && l.returned.CompareAndSwap(last, now)
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

// Supported reports whether Open accepts a release.
func Supported(version string) bool {
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
