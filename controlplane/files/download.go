package files

import (
	"cmp"
	"errors"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"
)

// download answers GET and HEAD, whole or in ranges. A client that disconnects in the middle is
// normal: the SDK sends two requests and drops the first answer unread.
func (s *Server) download(w http.ResponseWriter, r *http.Request) error {
	name, err := safePath(r.URL.Path)
	if err != nil {
		return err
	}
	f, err := s.tree.find(r.Context(), name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read
	h := w.Header()
	describe(h, path.Base(r.URL.Path), r.URL.Query().Has("download"))
	h.Set("Etag", f.tag)
	http.ServeContent(s.moving(w, r), r, "", f.modified, f)
	return nil
}

// asMissing hides why a path cannot have a file: for reads and deletes it does not exist.
func asMissing(err error) error {
	if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ENAMETOOLONG) || errors.Is(err, syscall.EINVAL) {
		return fs.ErrNotExist
	}
	return err
}

// contentTypes are the types of extensions. The table does not depend on the machine.
// Other extensions are unknown content. Compressed files are plain bytes, so that clients do not decode them.
var contentTypes = map[string]string{
	".txt": "text/plain; charset=utf-8", ".log": "text/plain; charset=utf-8", ".py": "text/plain; charset=utf-8",
	".md": "text/plain; charset=utf-8", ".yaml": "text/plain; charset=utf-8", ".yml": "text/plain; charset=utf-8",
	".toml": "text/plain; charset=utf-8", ".pbtxt": "text/plain; charset=utf-8", ".csv": "text/csv; charset=utf-8",
	".json": "application/json", ".pdf": "application/pdf", ".png": "image/png", ".jpg": "image/jpeg",
	".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp", ".bmp": "image/bmp", ".mp4": "video/mp4",
	".webm": "video/webm", ".mp3": "audio/mpeg", ".wav": "audio/wav", ".html": "text/html; charset=utf-8",
	".htm": "text/html; charset=utf-8", ".svg": "image/svg+xml", ".xml": "text/xml; charset=utf-8",
}

// active are the extensions of content that can contain script. They are offered for download, as
// unknown content is.
var active = []string{".html", ".htm", ".svg", ".xml"}

// describe sets type and disposition. Users control the content of a file, and it may be served
// from the origin of the web pages. So there is no content sniffing, and a sandbox without script,
// forms, or origin.
func describe(h http.Header, name string, save bool) {
	extension := strings.ToLower(path.Ext(name))
	kind, known := contentTypes[extension]
	disposition := "attachment"
	if known && !slices.Contains(active, extension) && !save {
		disposition = "inline"
	}
	h.Set("Content-Type", cmp.Or(kind, "application/octet-stream"))
	h.Set("Content-Disposition", mime.FormatMediaType(disposition, map[string]string{"filename": name}))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'; img-src 'self' data:; media-src 'self'; style-src 'unsafe-inline'")
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	h.Set("Cache-Control", "private, no-cache")
}

// moving extends the deadline of the answer while bytes are sent.
func (s *Server) moving(w http.ResponseWriter, r *http.Request) *movingWriter {
	return &movingWriter{ResponseWriter: w, request: r, conn: http.NewResponseController(w), stall: s.opts.Stall}
}

type movingWriter struct {
	http.ResponseWriter
	request *http.Request
	conn    *http.ResponseController
	stall   time.Duration
}

func (m *movingWriter) Unwrap() http.ResponseWriter { return m.ResponseWriter }

func (m *movingWriter) Write(p []byte) (int, error) {
	extend(m.conn, m.request, m.stall)
	return m.ResponseWriter.Write(p)
}

// ReadFrom passes pieces on to the connection, which sends them without copying through this
// process if the system supports it. That requires a single limit around the file, so the limit of
// the argument is unwrapped.
func (m *movingWriter) ReadFrom(from io.Reader) (int64, error) {
	const piece = 4 << 20
	limit, limited := from.(*io.LimitedReader)
	var total int64
	for {
		extend(m.conn, m.request, m.stall)
		var n int64
		var err error
		if limited {
			n, err = io.CopyN(m.ResponseWriter, limit.R, min(piece, limit.N))
			limit.N -= n
		} else {
			n, err = io.CopyN(m.ResponseWriter, from, piece)
		}
		total += n
		if errors.Is(err, io.EOF) || (err == nil && limited && limit.N == 0) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}
