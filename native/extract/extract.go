// Package extract has the Python program that extracts a model into the file that package native reads. It runs in an
// interpreter that has the model's own library.
package extract

import "embed"

// Files holds the program: python/main.py and the package beside it.
//
//go:embed python/main.py python/nativemodel/*.py
var Files embed.FS
