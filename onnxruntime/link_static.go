//go:build static || !(linux || darwin) || !(amd64 || arm64)

package onnxruntime

// Available reports whether this binary can load shared libraries.
const Available = false

func symbolOf(string, string) (uintptr, error) { return 0, ErrStatic }

func call(uintptr, ...uintptr) uintptr { panic("no library can be open") }

func cLibrary(string) uintptr { return 0 }
