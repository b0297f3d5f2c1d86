// Package modelfile identifies a model file by its content: its format, the engine that runs it, the
// packages that it needs, and its columns, as far as the file has them. It never executes the
// content of a file.
package modelfile

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"compress/zlib"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"clearmlserving/serving"
)

// File is a description of a model file.
type File struct {
	Path   string
	Format string // for people, such as "joblib, compressed"
	// Engine is the engine that runs the file without code, "" if there is none; Why then has
	// the reason.
	Engine, Why string
	Framework   string   // the SDK's name of the framework, "" if unknown
	Class       string   // of a pickled object, with its module
	Packages    []string // names for import of the packages that loading needs
	Version     string   // of the framework that has written the file, "" if unknown
	Columns     []string // names of the input's columns, nil if unknown
	Features    int      // number of the input's columns, 0 if unknown
	Table       bool     // the columns are chosen by name, so the input must be a table
}

// ErrUnknown means that the format of a file is unknown.
var ErrUnknown = errors.New("its content is no model that is known: a pickle, joblib, XGBoost (json, ubj) or LightGBM (text)")

// maxContent bounds how much of a file, after decompression, is read.
const maxContent = 256 << 20

// Look identifies a file.
func Look(path string) (File, error) {
	f, err := os.Open(path)
	if err != nil {
		return File{}, err
	}
	defer f.Close() //nolint:errcheck // only read from
	found := File{Path: path}
	head := bufio.NewReaderSize(f, 64<<10)
	start, err := head.Peek(16)
	if err != nil && !errors.Is(err, io.EOF) {
		return found, err
	}
	if what, why := foreign(start, path); what != "" {
		found.Format, found.Framework, found.Why = what, what, why
		if what == "ONNX" {
			found.Engine = serving.EngineONNX
		}
		return found, nil
	}
	content, compression, err := decompressed(head, start)
	if err != nil {
		return found, fmt.Errorf("%s: %w", filepath.Base(path), err)
	}
	data, err := io.ReadAll(io.LimitReader(content, maxContent))
	if err != nil {
		return found, fmt.Errorf("%s: the file is damaged: %w", filepath.Base(path), err)
	}
	switch {
	case isPickle(data):
		found.pickle(data)
	case compression == "" && bytes.HasPrefix(data, []byte("tree\n")) && bytes.Contains(data[:min(len(data), 200)], []byte("version=v")):
		found.lightgbm(data)
	case compression == "" && isXGBoost(data):
		found.xgboost(data)
	default:
		return found, fmt.Errorf("%s: %w", filepath.Base(path), ErrUnknown)
	}
	if compression != "" {
		found.Format += ", compressed by " + compression
	}
	return found, nil
}

// foreign identifies files of other products. Without an engine, user code must load them.
func foreign(start []byte, path string) (what, why string) {
	const load = "give code whose load(self, local_file_name) returns the model"
	ext := strings.ToLower(filepath.Ext(path))
	switch {
	case bytes.HasPrefix(start, []byte("PK\x03\x04")) && ext == ".keras":
		return "Keras", load
	case bytes.HasPrefix(start, []byte("PK\x03\x04")):
		return "PyTorch", "it is an archive, as torch.save writes it: " + load
	case bytes.HasPrefix(start, []byte("\x89HDF\r\n")):
		return "Keras", load
	case ext == ".onnx" || isONNX(start):
		return "ONNX", ""
	}
	return "", ""
}

// isONNX recognises the first fields of an ONNX model: ir_version, then the producer's name.
func isONNX(start []byte) bool {
	return len(start) > 4 && start[0] == 0x08 && start[1] > 0 && start[1] < 20 && start[2] == 0x12
}

// decompressed reads through the compressions of joblib.dump.
func decompressed(r io.Reader, start []byte) (content io.Reader, compression string, err error) {
	switch {
	case bytes.HasPrefix(start, []byte("\x1f\x8b")):
		content, err = gzip.NewReader(r)
		return content, "gzip", err
	case bytes.HasPrefix(start, []byte("BZh")):
		return bzip2.NewReader(r), "bzip2", nil
	case bytes.HasPrefix(start, []byte("\xfd7zXZ\x00")), bytes.HasPrefix(start, []byte("\x5d\x00\x00")):
		return nil, "", errors.New("it is compressed by xz: only the engine can tell what it holds, give --engine")
	case len(start) > 1 && start[0] == 0x78 && (int(start[0])<<8+int(start[1]))%31 == 0:
		content, err = zlib.NewReader(r)
		return content, "zlib", err
	}
	return r, "", nil
}

// lightgbm reads the header of LightGBM's text format.
func (f *File) lightgbm(data []byte) {
	f.Format, f.Engine, f.Framework, f.Packages = "LightGBM text", serving.EngineLightGBM, "LightGBM", []string{"lightgbm"}
	header, _, _ := bytes.Cut(data, []byte("\n\n"))
	for line := range bytes.Lines(header) {
		if names, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("feature_names=")); ok {
			f.Columns = strings.Fields(string(names))
			f.Features = len(f.Columns)
		}
	}
	f.dropNumbered("Column_%d")
}

// dropNumbered drops names that a library generates for columns without names.
func (f *File) dropNumbered(pattern string) {
	for i, name := range f.Columns {
		if name != fmt.Sprintf(pattern, i) {
			return
		}
	}
	f.Columns = nil
}
