// Package onnxruntime is a binding of the C API of ONNX Runtime, whose shared library it loads
// when it is asked to: it needs no C compiler and no cgo. It owns everything unsafe: the
// table of functions, memory that C reads or writes, and the lifetime of C's objects. It knows
// tensors, not endpoints.
//
// A binary with this package is linked dynamically to the C library. With the build tag "static" it
// is not, and Open fails with ErrStatic.
package onnxruntime

import (
	"errors"
	"fmt"
	"strings"
)

// The releases of ONNX Runtime that Open accepts: the C API is append-only, so that later releases
// work too; earlier ones read external data from outside of the model's folder.
const (
	OldestMinor = 24
	apiVersion  = OldestMinor
)

// ErrStatic is the error of Open in a statically linked binary.
var ErrStatic = errors.New("this binary is linked statically and cannot load shared libraries: use the regular build")

// VersionError is a library of a release that Open does not accept.
type VersionError struct{ Path, Version string }

func (e *VersionError) Error() string {
	return fmt.Sprintf("%s is ONNX Runtime %s: at least 1.%d is needed", e.Path, e.Version, OldestMinor)
}

// Error is a failure that ONNX Runtime reports.
type Error struct {
	Code Code
	Text string
}

func (e *Error) Error() string { return e.Text }

// Code is ONNX Runtime's code of an error.
type Code int

// The codes that callers distinguish.
const (
	Fail            Code = 1
	InvalidArgument Code = 2
	NoSuchFile      Code = 3
	RuntimeFailure  Code = 6
	InvalidProtobuf Code = 7
	NotImplemented  Code = 9
	InvalidGraph    Code = 10
)

// ElementType is the type of a tensor's elements, by its number in the C API.
type ElementType int32

// The element types that Run takes and returns.
const (
	Float    ElementType = 1
	Uint8    ElementType = 2
	Int8     ElementType = 3
	Uint16   ElementType = 4
	Int16    ElementType = 5
	Int32    ElementType = 6
	Int64    ElementType = 7
	String   ElementType = 8
	Bool     ElementType = 9
	Float16  ElementType = 10
	Double   ElementType = 11
	Uint32   ElementType = 12
	Uint64   ElementType = 13
	BFloat16 ElementType = 16
)

// Size is the number of bytes of one element, 0 for strings and types that Run does not take.
func (t ElementType) Size() int {
	switch t {
	case Uint8, Int8, Bool:
		return 1
	case Uint16, Int16, Float16, BFloat16:
		return 2
	case Float, Int32, Uint32:
		return 4
	case Double, Int64, Uint64:
		return 8
	case String:
	}
	return 0
}

// Kind is the kind of an input or output.
type Kind int32

// The kinds of the C API.
const (
	KindTensor   Kind = 1
	KindSequence Kind = 2
	KindMap      Kind = 3
	KindOpaque   Kind = 4
	KindSparse   Kind = 5
	KindOptional Kind = 6
)

// Info describes an input or output of a model.
type Info struct {
	Name string
	Kind Kind
	// Type and Shape are those of a tensor. A dimension of any length is -1.
	Type  ElementType
	Shape []int64
	// Symbols are the names of dimensions of any length, "" for others.
	Symbols []string
	// Key is the type of a map's keys; Element describes its values, or the elements of a sequence, or the
	// value of an optional.
	Key     ElementType
	Element *Info
}

// Value is an input or output of Run: a tensor, or what a model of another kind returns.
type Value struct {
	Kind  Kind
	Type  ElementType
	Shape []int64
	// Data holds the elements in row-major order and the machine's byte order. A string is its length
	// as four little-endian bytes, then its bytes.
	Data []byte
	// Elements are those of a sequence; of a map its keys and its values, two tensors.
	Elements []Value
}

// SessionOptions are the options of a session.
type SessionOptions struct {
	// Threads is the number of threads that compute one run. Default 1: the caller's.
	Threads int
	// Providers are execution providers, in order of preference; the CPU's is added.
	Providers []string
	// Config are other entries of the session's configuration.
	Config map[string]string
}

// OutOfMemory reports whether a run failed because it needs more memory than Options.RunMemory or the
// machine has.
func OutOfMemory(err error) bool {
	if large, ok := errors.AsType[*MemoryError](err); ok {
		return int64(large.Size) > large.Most
	}
	failed, ok := errors.AsType[*Error](err)
	return ok && (strings.Contains(failed.Text, "Available memory of") || strings.Contains(failed.Text, "bad_alloc") || strings.Contains(failed.Text, "bad allocation"))
}
