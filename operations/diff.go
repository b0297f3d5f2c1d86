package operations

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/diff"

	"clearmlserving/serving"
)

// The bounds of code that is shown: of the stored file, of one text, and of the number of files.
const (
	maxCodeFile = 64 << 20
	maxCodeText = 1 << 20
	maxCodeList = 2000
)

// Code is the files of a revision's code by their paths, as texts; a file that is not a text is
// described. Open reads the stored file.
func Code(ctx context.Context, r serving.Revision, open func(ctx context.Context, uri string) (io.ReadCloser, error)) (map[string]string, error) {
	if r.Code == nil {
		return map[string]string{}, nil
	}
	fail := func(err error) (map[string]string, error) {
		return nil, fmt.Errorf("read the code of revision %d: %w", r.Number, err)
	}
	reader, err := open(ctx, r.Code.URI)
	if err != nil {
		return fail(err)
	}
	defer reader.Close()
	data, err := io.ReadAll(io.LimitReader(reader, maxCodeFile+1))
	if err != nil {
		return fail(err)
	}
	if len(data) > maxCodeFile {
		return fail(fmt.Errorf("it has more than %d MiB", maxCodeFile>>20))
	}
	if sum := hashOf(data); r.Code.SHA256 != "" && sum != r.Code.SHA256 {
		return fail(fmt.Errorf("the file at %s was changed since", r.Code.URI))
	}
	if !r.Code.Folder {
		return map[string]string{path.Base(r.Code.URI): text(data)}, nil
	}
	archive, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return fail(err)
	}
	files, size := map[string]string{}, 0
	for _, f := range archive.File {
		if f.FileInfo().IsDir() {
			continue
		}
		if len(files) == maxCodeList {
			return fail(fmt.Errorf("it has more than %d files", maxCodeList))
		}
		inside, err := f.Open()
		if err != nil {
			return fail(err)
		}
		data, err := io.ReadAll(io.LimitReader(inside, maxCodeText+1))
		if err != nil {
			return fail(err)
		}
		if size += len(data); size > maxCodeFile {
			return fail(fmt.Errorf("its files have more than %d MiB", maxCodeFile>>20))
		}
		files[f.Name] = text(data)
	}
	return files, nil
}

// text is a file as a text, or what there is to say of it.
func text(data []byte) string {
	switch {
	case len(data) > maxCodeText:
		return fmt.Sprintf("(more than %d KiB, begins with SHA-256 %s)\n", maxCodeText>>10, hashOf(data))
	case !utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0:
		return fmt.Sprintf("(not a text: %d bytes, SHA-256 %s)\n", len(data), hashOf(data))
	}
	return string(data)
}

// Settings is what a revision deploys beside its code, as indented JSON.
func Settings(r serving.Revision) (string, error) {
	raw, err := r.SettingsRecord()
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, raw, "", "  "); err != nil {
		return "", err
	}
	return b.String() + "\n", nil
}

// Diff is the unified difference of two revisions: their settings, and their code file by
// file. It is empty if they deploy the same.
func Diff(a, b serving.Revision, codeA, codeB map[string]string) (string, error) {
	settingsA, err := Settings(a)
	if err != nil {
		return "", err
	}
	settingsB, err := Settings(b)
	if err != nil {
		return "", err
	}
	label := func(r serving.Revision, name string) string { return fmt.Sprintf("%d/%s", r.Number, name) }
	var all strings.Builder
	add := func(name, textA, textB string) {
		all.Write(unified(label(a, name), endLine(textA), label(b, name), endLine(textB)))
	}
	add("settings.json", settingsA, settingsB)
	if len(codeA) == 1 && len(codeB) == 1 { // single files are compared whatever their names
		for _, textA := range codeA {
			for nameB := range codeB {
				codeA = map[string]string{nameB: textA}
			}
		}
	}
	names := maps.Clone(codeA)
	maps.Copy(names, codeB)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		add("code/"+name, codeA[name], codeB[name])
	}
	return all.String(), nil
}

// unified is a difference in the form of diff -u, without the line of the command.
func unified(oldName, oldText, newName, newText string) []byte {
	out := diff.Diff(oldName, []byte(oldText), newName, []byte(newText))
	if _, rest, ok := bytes.Cut(out, []byte("\n")); ok && bytes.HasPrefix(out, []byte("diff ")) {
		return rest
	}
	return out
}

// endLine ends the last line of a text.
func endLine(text string) string {
	if text == "" || strings.HasSuffix(text, "\n") {
		return text
	}
	return text + "\n"
}
