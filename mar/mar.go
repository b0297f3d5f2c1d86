// Package mar reads the model archives of TorchServe (.mar), makes ordinary endpoints of them, and packs
// archives. The Python code that runs a handler without TorchServe is in mar/adapter.
package mar

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"clearmlserving/storage"
)

// ManifestName is the entry of an archive that describes it.
const ManifestName = "MAR-INF/MANIFEST.json"

// mostText bounds the files of an archive that are read as a whole.
const mostText = 1 << 20

// Manifest describes an archive.
type Manifest struct {
	Runtime  string `json:"runtime,omitempty"`
	Archiver string `json:"archiverVersion,omitempty"`
	Model    Model  `json:"model"`
}

// Model is the part of a Manifest about the model. Files are named relative to the archive.
type Model struct {
	Name           string `json:"modelName"`
	Version        string `json:"modelVersion"`
	Handler        string `json:"handler"`
	SerializedFile string `json:"serializedFile,omitempty"`
	ModelFile      string `json:"modelFile,omitempty"`
	Requirements   string `json:"requirementsFile,omitempty"`
	ConfigFile     string `json:"configFile,omitempty"`
}

// Archive is an unpacked archive.
type Archive struct {
	Manifest Manifest
	// Folder has its files.
	Folder string
	// Config is its model-config.yaml, nil if it has none.
	Config map[string]any

	raw json.RawMessage // of the manifest
}

// Error is the reason why an archive cannot be used.
type Error struct{ Text string }

func (e *Error) Error() string { return e.Text }

func fault(format string, args ...any) error { return &Error{fmt.Sprintf(format, args...)} }

// Is reports whether a file is an archive. It reads the file's list of entries only.
func Is(file string) bool {
	z, err := zip.OpenReader(file)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) {
		return strings.HasSuffix(file, ".mar") || strings.HasSuffix(file, ".tar.gz") // its content is judged by Open
	}
	defer z.Close() //nolint:errcheck // only read from
	return slices.ContainsFunc(z.File, func(f *zip.File) bool { return f.Name == ManifestName })
}

// Open unpacks an archive, a file or a folder, into a folder that does not exist yet, and reads its
// description. An *Error says what is wrong with the archive.
func Open(ctx context.Context, archive, folder string) (*Archive, error) {
	info, err := os.Stat(archive)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		err = copyFolder(ctx, archive, folder)
	} else {
		err = storage.Unpack(ctx, archive, folder, storage.Limits{})
	}
	if err != nil {
		if bad, ok := errors.AsType[*storage.ArchiveError](err); ok {
			return nil, &Error{bad.Error()}
		}
		return nil, err
	}
	a := &Archive{Folder: folder}
	if a.raw, err = a.read(ManifestName); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fault("%s has no %s: it is no model archive of TorchServe", filepath.Base(archive), ManifestName)
		}
		return nil, err
	}
	if a.Manifest, err = ParseManifest(a.raw); err != nil {
		return nil, err
	}
	return a, a.check()
}

// ParseManifest reads a manifest.
func ParseManifest(text []byte) (Manifest, error) {
	var m Manifest
	if err := json.Unmarshal(text, &m); err != nil {
		return m, fault("%s cannot be read: %v", ManifestName, err)
	}
	if m.Model.Name == "" || m.Model.Handler == "" {
		return m, fault("%s names no %s", ManifestName, map[bool]string{true: "model.modelName", false: "model.handler"}[m.Model.Name == ""])
	}
	for field, name := range map[string]string{
		"serializedFile": m.Model.SerializedFile, "modelFile": m.Model.ModelFile, "requirementsFile": m.Model.Requirements, "configFile": m.Model.ConfigFile,
		"handler": handlerPath(m.Model.Handler),
	} {
		if name != "" && (!filepath.IsLocal(name) || strings.ContainsAny(name, "\\\x00\n\r")) {
			return m, fault("%s: model.%s: %q leads out of the archive", ManifestName, field, name)
		}
	}
	return m, nil
}

// handlerPath is the file, or the name, in a manifest's handler, which may name a function too.
func handlerPath(handler string) string {
	file, _, _ := strings.Cut(handler, ":")
	return file
}

// check compares the manifest with the files.
func (a *Archive) check() error {
	m := a.Manifest.Model
	if r := strings.ToLower(a.Manifest.Runtime); r != "" && r != "python" && r != "python3" && r != "python2" {
		return fault("%s: the runtime %s is not Python", ManifestName, a.Manifest.Runtime)
	}
	for field, name := range map[string]string{
		"serializedFile": m.SerializedFile, "modelFile": m.ModelFile, "requirementsFile": m.Requirements, "configFile": m.ConfigFile,
	} {
		if name != "" && !a.has(name) {
			return fault("the archive has no file %s, which its manifest names as %s", name, field)
		}
	}
	if m.ConfigFile == "" {
		return nil
	}
	text, err := a.read(m.ConfigFile)
	if err != nil {
		return err
	}
	if err := yaml.Unmarshal(text, &a.Config); err != nil {
		return fault("%s cannot be read: %v", m.ConfigFile, err)
	}
	return nil
}

func (a *Archive) has(name string) bool {
	info, err := os.Stat(filepath.Join(a.Folder, filepath.FromSlash(name)))
	return err == nil && info.Mode().IsRegular()
}

// read reads a file of the archive as a whole.
func (a *Archive) read(name string) ([]byte, error) {
	f, err := os.Open(filepath.Join(a.Folder, filepath.FromSlash(name)))
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // only read from
	text, err := io.ReadAll(io.LimitReader(f, mostText+1))
	if err == nil && len(text) > mostText {
		err = fault("%s is larger than %d bytes", name, mostText)
	}
	return text, err
}

// copyFolder copies the files of a folder. Links are refused, as in archives.
func copyFolder(ctx context.Context, from, to string) error {
	if in, err := within(from, to); err != nil {
		return err
	} else if in { // it would copy what it has copied
		return fault("the new folder is in the folder of the archive: give another place")
	}
	return filepath.WalkDir(from, func(name string, entry fs.DirEntry, err error) error {
		if err == nil {
			err = context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, name)
		if err != nil {
			return err
		}
		target := filepath.Join(to, relative)
		switch {
		case entry.IsDir():
			return os.Mkdir(target, 0o755)
		case !entry.Type().IsRegular():
			return fault("%s is neither a file nor a folder", relative)
		}
		return copyFile(name, target)
	})
}

// within reports whether a new folder would be in another one, or the same.
func within(folder, added string) (bool, error) {
	outer, err := filepath.EvalSymlinks(folder)
	if err != nil {
		return false, err
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(added))
	if err != nil {
		return false, err
	}
	if outer, err = filepath.Abs(outer); err != nil {
		return false, err
	}
	if parent, err = filepath.Abs(parent); err != nil {
		return false, err
	}
	relative, err := filepath.Rel(outer, parent)
	return err == nil && filepath.IsLocal(relative), nil
}

func copyFile(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // only read from
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

var modelName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_\-.]*$`)

// Contents are the files of an archive that Pack writes.
type Contents struct {
	Manifest Manifest
	// Files are the paths of files on this machine by their names in the archive.
	Files map[string]string
	// Texts are further files by their names.
	Texts map[string][]byte
}

// Pack writes an archive: the same bytes for the same contents.
func Pack(ctx context.Context, w io.Writer, c Contents) error {
	if !modelName.MatchString(c.Manifest.Model.Name) {
		return fault("%q is no name of a model for TorchServe", c.Manifest.Model.Name)
	}
	manifest, err := json.MarshalIndent(c.Manifest, "", "  ")
	if err != nil {
		return err
	}
	z := zip.NewWriter(w)
	z.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, flate.BestSpeed) })
	if err := add(ctx, z, ManifestName, bytes.NewReader(manifest)); err != nil {
		return err
	}
	for _, name := range sorted(c.Texts) {
		if err := add(ctx, z, name, bytes.NewReader(c.Texts[name])); err != nil {
			return err
		}
	}
	for _, name := range sorted(c.Files) {
		f, err := os.Open(c.Files[name])
		if err != nil {
			return err
		}
		if err := errors.Join(add(ctx, z, name, f), f.Close()); err != nil {
			return err
		}
	}
	return z.Close()
}

func add(ctx context.Context, z *zip.Writer, name string, r io.Reader) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if !filepath.IsLocal(name) || path.Clean(name) != name {
		return fault("%q is no name for a file in an archive", name)
	}
	w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Deflate}) // Java cannot read entries that are stored without their size
	if err == nil {
		_, err = io.Copy(w, r)
	}
	return err
}
