package files

import (
	"errors"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
	"syscall"
	"time"
)

// download answers GET and HEAD, whole or in ranges. A client that goes away in the
// middle is normal: the SDK asks twice and drops the first answer unread.
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

// asMissing hides why no file can lie at a path: whoever reads or deletes just finds
// none there.
func asMissing(err error) error {
	if errors.Is(err, syscall.ENOTDIR) || errors.Is(err, syscall.ENAMETOOLONG) || errors.Is(err, syscall.EINVAL) {
		return fs.ErrNotExist
	}
	return err
}

// shown is how a browser may take a file.
type shown int

const (
	saved  shown = iota // unknown content: offered for saving
	inline              // harmless content: may be shown
	active              // content that can carry script: offered for saving
)

// contentType goes by the extension of the stored name, not by the machine's tables.
// Compressed files are plain bytes, so that no client decodes them on the way.
func contentType(name string) (string, shown) {
	switch strings.ToLower(path.Ext(name)) {
	case ".txt", ".log", ".py", ".md", ".yaml", ".yml", ".toml", ".pbtxt":
		return "text/plain; charset=utf-8", inline
	case ".csv":
		return "text/csv; charset=utf-8", inline
	case ".json":
		return "application/json", inline
	case ".pdf":
		return "application/pdf", inline
	case ".png":
		return "image/png", inline
	case ".jpg", ".jpeg":
		return "image/jpeg", inline
	case ".gif":
		return "image/gif", inline
	case ".webp":
		return "image/webp", inline
	case ".bmp":
		return "image/bmp", inline
	case ".mp4":
		return "video/mp4", inline
	case ".webm":
		return "video/webm", inline
	case ".mp3":
		return "audio/mpeg", inline
	case ".wav":
		return "audio/wav", inline
	case ".html", ".htm":
		return "text/html; charset=utf-8", active
	case ".svg":
		return "image/svg+xml", active
	case ".xml":
		return "text/xml; charset=utf-8", active
	}
	return "application/octet-stream", saved
}

// describe sets type and disposition. Whoever may upload decides what a file holds,
// and it may be served from the origin of the web pages: so no guessing of types, and
// a sandbox without script, forms, or origin for what a browser opens regardless.
func describe(h http.Header, name string, save bool) {
	kind, how := contentType(name)
	disposition := "attachment"
	if how == inline && !save {
		disposition = "inline"
	}
	h.Set("Content-Type", kind)
	h.Set("Content-Disposition", mime.FormatMediaType(disposition, map[string]string{"filename": name}))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "sandbox; default-src 'none'; img-src 'self' data:; media-src 'self'; style-src 'unsafe-inline'")
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	h.Set("Cache-Control", "private, no-cache")
}

// moving wraps the answer so that its deadline moves along with the bytes.
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

// ReadFrom passes pieces on to the connection, which sends them without copying
// through this process where the system can. It can only if it sees the file behind
// one limit, so the limit that came with it is taken apart.
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
