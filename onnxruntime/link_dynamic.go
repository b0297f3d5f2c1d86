//go:build !static && (linux || darwin) && (amd64 || arm64)

package onnxruntime

import "github.com/ebitengine/purego"

// Available reports whether this binary can load shared libraries.
const Available = true

// symbolOf loads a shared library, which stays loaded, and finds a function in it.
func symbolOf(path, name string) (uintptr, error) {
	library, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return 0, err
	}
	return purego.Dlsym(library, name)
}

// call calls a C function. Memory that the arguments point to is pinned by the caller: C may keep
// the addresses.
func call(fn uintptr, args ...uintptr) uintptr {
	r, _, _ := purego.SyscallN(fn, args...)
	return r
}

// cLibrary finds a function of the C library, 0 if there is none.
func cLibrary(name string) uintptr {
	fn, err := purego.Dlsym(purego.RTLD_DEFAULT, name)
	if err != nil {
		return 0
	}
	return fn
}
