package reconcile

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"clearmlserving/serving"
	"clearmlserving/storage"
)

// Folder is a folder with everything that an instance serves: the state of a service, and the files that
// it refers to. An instance that serves one needs no control plane. It implements Source and Files.
type Folder struct {
	// Local fetches files that are on this machine. It is set before the first call of Fetch.
	Local Files

	contents contents
	paths    map[string]string // of the files on this machine, by address
}

// FolderFile describes the contents of a folder.
const FolderFile = "serving.json"

// folderFormat is increased when an older release could not serve the folder as it was meant.
const folderFormat = 1

// maxFolderFile bounds the description: it is some kilobytes for each endpoint.
const maxFolderFile = 256 << 20

type contents struct {
	Format int    `json:"format"`
	State  *State `json:"state"`
	// Files are those of the folder, by the address that the state has for them.
	Files map[string]folderFile `json:"files"`
}

type folderFile struct {
	Path   string `json:"path"` // below the folder, with slashes
	SHA256 string `json:"sha256"`
}

// OpenFolder reads the description of a folder that WriteFolder has written.
func OpenFolder(dir string) (*Folder, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, FolderFile)
	info, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFolderFile {
		return nil, fmt.Errorf("%s has %d bytes, at most %d are read", file, info.Size(), maxFolderFile)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	f := &Folder{paths: map[string]string{}}
	if err := json.Unmarshal(text, &f.contents); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", file, err)
	}
	if f.contents.Format != folderFormat || f.contents.State == nil {
		return nil, fmt.Errorf("%s has format %d, and this release reads format %d: write the folder again with this release", file, f.contents.Format, folderFormat)
	}
	for url, file := range f.contents.Files {
		if !filepath.IsLocal(filepath.FromSlash(file.Path)) {
			return nil, fmt.Errorf("%s: the file of %s is at %q, outside of the folder", FolderFile, storage.Redact(url), file.Path)
		}
		f.paths[url] = filepath.Join(dir, filepath.FromSlash(file.Path))
	}
	return f, nil
}

// FolderOf serves a state whose files are on this machine, at the paths given by their addresses in the state.
func FolderOf(state *State, paths map[string]string) *Folder {
	return &Folder{contents: contents{Format: folderFormat, State: state}, paths: paths}
}

// State is what the folder serves. It must not be changed.
func (f *Folder) State() *State { return f.contents.State }

// Load implements Source. The state never changes.
func (f *Folder) Load(context.Context, *State) (*State, error) {
	state := *f.contents.State
	return &state, nil
}

// Fetch implements Files.
func (f *Folder) Fetch(ctx context.Context, item File) (Local, error) {
	file, ok := f.paths[item.URL]
	if !ok {
		return Local{}, fmt.Errorf("%s is not in the folder: write the folder again", storage.Redact(item.URL))
	}
	item.SHA256 = cmp.Or(item.SHA256, f.contents.Files[item.URL].SHA256) // a file that was changed in the folder is an error, not another model
	item.URL = "file://" + file
	return f.Local.Fetch(ctx, item)
}

// FolderReport says what WriteFolder has written.
type FolderReport struct {
	// Endpoints are the URLs that are served, sorted.
	Endpoints []serving.EndpointURL
	// Records are the endpoints' settings, by their URLs.
	Records map[serving.EndpointURL]serving.Endpoint
	// Skipped says for URLs of the service why they are not served.
	Skipped map[serving.EndpointURL]string
	// Environments are the folders of code, by the URL, whose endpoints have Python environments of their own.
	Environments map[serving.EndpointURL]string
	// Bytes is the size of all files.
	Bytes int64
}

// WriteFolder writes a folder with the revisions of a service that an instance would serve now. The folder must not
// exist, or be empty. An endpoint whose files cannot be fetched is an error: an image must not be made without it.
func WriteFolder(ctx context.Context, dir string, state *State, files Files) (FolderReport, error) {
	r := New(Options{})
	service := state.service()
	r.learn(state, service)
	known := func(url serving.EndpointURL) serving.History { return r.known[url] }
	nowhere := func(serving.EndpointURL) bool { return false }
	plan := serving.Resolve(service, state.judged(service, known, nowhere), state.Versions)
	wanted := r.choose(state, service, plan, 1)
	report := FolderReport{Records: map[serving.EndpointURL]serving.Endpoint{}, Skipped: map[serving.EndpointURL]string{}, Environments: map[serving.EndpointURL]string{}}
	c := contents{Format: folderFormat, State: state, Files: map[string]folderFile{}}
	for _, url := range slices.Sorted(maps.Keys(wanted)) {
		w := wanted[url]
		// The base serves if the newest revision is refused, and it is what the state then asks for.
		all := []want{w}
		if w.base != nil {
			all = append(all, *w.base)
		}
		if w.impossible != "" && w.base == nil {
			return report, fmt.Errorf("endpoint '%s' cannot be served: %s", url, w.impossible)
		}
		for _, each := range all {
			for _, file := range each.files() {
				if err := c.add(ctx, dir, file, files); err != nil {
					return report, fmt.Errorf("endpoint '%s': %w", url, err)
				}
			}
		}
		report.Endpoints, report.Records[url] = append(report.Endpoints, url), w.planned.Endpoint
		own, err := serving.OwnEnvironment(w.planned.EngineType, w.planned.AuxiliaryCfg)
		if err == nil && own && w.code.URL != "" {
			report.Environments[url] = filepath.Join(dir, filepath.FromSlash(c.Files[w.code.URL].Path))
		}
	}
	maps.Copy(report.Skipped, plan.Unusable)
	for _, file := range c.Files {
		info, err := os.Stat(filepath.Join(dir, filepath.FromSlash(file.Path)))
		if err != nil {
			return report, err
		}
		report.Bytes += info.Size()
	}
	text, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return report, fmt.Errorf("describe the folder: %w", err)
	}
	return report, os.WriteFile(filepath.Join(dir, FolderFile), append(text, '\n'), 0o644)
}

// files are what must be fetched for a want.
func (w want) files() (all []File) {
	if w.impossible != "" {
		return nil
	}
	if w.code.URL != "" {
		all = append(all, w.code)
	}
	if w.model.URL != "" {
		all = append(all, w.model)
	}
	if w.golden != nil && w.golden.file.URL != "" {
		all = append(all, w.golden.file)
	}
	return all
}

// add copies a file into the folder, under its own name in a folder that its content names.
func (c *contents) add(ctx context.Context, dir string, item File, files Files) error {
	if _, there := c.Files[item.URL]; there {
		return nil
	}
	item.Unpack = false // archives are unpacked by the instance
	local, err := files.Fetch(ctx, item)
	if err != nil {
		return err
	}
	defer local.Release()
	info, err := os.Stat(local.Path)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return fmt.Errorf("%s is a folder of this machine: only files can be copied", storage.Redact(item.URL))
	}
	kept := folderFile{Path: path.Join("files", local.SHA256[:16], filepath.Base(local.Path)), SHA256: local.SHA256}
	to := filepath.Join(dir, filepath.FromSlash(kept.Path))
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if err := copyFile(local.Path, to, local.SHA256); err != nil {
		return fmt.Errorf("copy %s: %w", storage.Redact(item.URL), err)
	}
	c.Files[item.URL] = kept
	return nil
}

// copyFile copies a file and compares its content, so that a file that changes meanwhile is noticed.
func copyFile(from, to, sha string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }() // only read from
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(out, sum), in); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); !strings.EqualFold(got, sha) {
		return fmt.Errorf("its content has changed while it was copied: %s, not %s", got, sha)
	}
	return nil
}

// IsFolder reports whether a folder was written by WriteFolder.
func IsFolder(dir string) bool {
	info, err := os.Stat(filepath.Join(dir, FolderFile))
	return err == nil && info.Mode().IsRegular() || errors.Is(err, fs.ErrPermission)
}
