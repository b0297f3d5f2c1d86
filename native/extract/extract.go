// Package extract has the Python package that extracts a model into the file that package native reads. It runs in a
// worker, whose interpreter has the model's own library.
package extract

import "embed"

// Files holds the package nativemodel.
//
//go:embed python/nativemodel/*.py
var Files embed.FS
