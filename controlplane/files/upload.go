package files

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"time"

	"clearmlserving/controlplane/intake"
)

// maxParts bounds the memory of one upload of very many tiny files.
const maxParts = 10_000

// uploadForm receives multipart uploads: the name of each part is its path. Nothing becomes visible
// before the last byte of the request has arrived, so an interrupted upload leaves nothing. (In a
// bucket, complete files of an interrupted request with several files stay.)
func (s *Server) uploadForm(w http.ResponseWriter, r *http.Request) error {
	began := time.Now()
	kind, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/form-data" {
		return refusal(http.StatusBadRequest, "an upload is multipart/form-data with the path as the name of the part")
	}
	if n := len(params["boundary"]); n == 0 || n > 70 { // RFC 2046 allows 70; longer ones only cost time
		return refusal(http.StatusBadRequest, "the multipart boundary has %d characters, not 1 to 70", n)
	}
	body := &tailReader{from: s.body(w, r)}
	var got []received
	defer func() { s.tree.discard(got) }()
	parts := &parts{form: multipart.NewReader(body, params["boundary"]), body: body, closing: "--" + params["boundary"] + "--"}
	for {
		part, err := parts.take()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return broken(err)
		}
		if len(got) == maxParts {
			return refusal(http.StatusBadRequest, "more than %d files in one upload", maxParts)
		}
		// Not FileName, which drops the folders.
		name, err := safePath(part.FormName())
		if err != nil {
			return asUploadError(err)
		}
		f, err := s.tree.receive(r.Context(), name, parts.whole(part))
		if err != nil {
			return asBroken(err)
		}
		got = append(got, f)
	}
	if len(got) == 0 {
		return refusal(http.StatusBadRequest, "the upload holds no file")
	}
	paths := make([]string, 0, len(got))
	for _, f := range got {
		if err := s.tree.place(r.Context(), f); err != nil {
			return err
		}
		paths = append(paths, f.name)
		s.log.Debug("file stored", "path", f.name, "bytes", f.size, "took", time.Since(began))
	}
	answerJSON(w, http.StatusOK, paths) // the SDK accepts only 200
	return nil
}

// tailReader keeps the end of what was read. A multipart reader also reports the end for a body
// that stops right after a boundary for one more part; only the closing boundary identifies a
// complete upload.
type tailReader struct {
	from io.Reader
	tail []byte
}

func (t *tailReader) Read(p []byte) (int, error) {
	const keep = 8 << 10 // the multipart reader reads ahead by half of that
	n, err := t.from.Read(p)
	t.tail = append(t.tail, p[max(0, n-keep):n]...)
	if drop := len(t.tail) - keep; drop > 0 {
		t.tail = append(t.tail[:0], t.tail[drop:]...)
	}
	return n, err
}

func (t *tailReader) holds(boundary string) bool { return bytes.Contains(t.tail, []byte(boundary)) }

// parts are the files of a form in sequence. The end of a part is returned only when the next part
// has begun, or the form is closed: a streaming storage must not get the end of a file while the
// request may still be truncated.
type parts struct {
	form    *multipart.Reader
	body    *tailReader
	closing string
	next    *multipart.Part
	ahead   bool // next and err are known
	err     error
}

// take returns the next part, or io.EOF after the last.
func (p *parts) take() (*multipart.Part, error) {
	p.look()
	p.ahead = false
	return p.next, p.err
}

func (p *parts) look() {
	if p.ahead {
		return
	}
	p.ahead = true
	p.next, p.err = p.form.NextRawPart() // raw: the stored bytes are the sent ones
	if errors.Is(p.err, io.EOF) && !p.body.holds(p.closing) {
		p.err = io.ErrUnexpectedEOF
	}
}

// whole is the content of a part, with its end held back.
func (p *parts) whole(part io.Reader) io.Reader { return &wholePart{part, p} }

type wholePart struct {
	part  io.Reader
	parts *parts
}

func (w *wholePart) Read(buf []byte) (int, error) {
	n, err := w.part.Read(buf)
	if n > 0 && errors.Is(err, io.EOF) {
		err = nil // returned by the next call
	}
	if n > 0 || err == nil {
		return n, err
	}
	if errors.Is(err, io.EOF) {
		if w.parts.look(); w.parts.err == nil || errors.Is(w.parts.err, io.EOF) {
			return 0, io.EOF
		}
		err = w.parts.err
	}
	return 0, &readError{err}
}

// put stores the body at the path of the URL: an extension, convenient with curl -T.
func (s *Server) put(w http.ResponseWriter, r *http.Request) error {
	name, err := safePath(r.URL.Path)
	if err != nil {
		return asUploadError(err)
	}
	if r.Header.Get("Content-Range") != "" {
		return refusal(http.StatusBadRequest, "a part of a file can't be stored: send it whole")
	}
	f, err := s.tree.receive(r.Context(), name, s.body(w, r))
	if err != nil {
		return asBroken(err)
	}
	defer s.tree.discard([]received{f})
	if err := s.tree.place(r.Context(), f); err != nil {
		return err
	}
	answerJSON(w, http.StatusOK, []string{f.name})
	return nil
}

// asUploadError reports a refused path to the client; for reads, such a path does not exist.
func asUploadError(err error) error {
	if errors.Is(err, errUnsafePath) {
		return refusal(http.StatusBadRequest, "%s", err)
	}
	return err
}

// readError marks an error of the client's side of a copy.
type readError struct{ err error }

func (e *readError) Error() string { return e.err.Error() }
func (e *readError) Unwrap() error { return e.err }

// broken explains an upload that could not be read to its end.
func broken(err error) error {
	if errors.Is(err, intake.ErrSlow) {
		return refusal(http.StatusRequestTimeout, "%s", err)
	}
	return refusal(http.StatusBadRequest, "the upload is broken off or malformed: %s", err)
}

// asBroken distinguishes what failed while a file was received: the request, or the storage.
func asBroken(err error) error {
	if told := (*readError)(nil); errors.As(err, &told) {
		return broken(told.err)
	}
	return err
}

// copyBytes is io.Copy that distinguishes the reader's errors from the writer's, and writes in
// large pieces, because the multipart reader returns small ones.
func copyBytes(to io.Writer, from io.Reader) (int64, error) {
	out := bufio.NewWriterSize(to, 256<<10)
	buf := make([]byte, 32<<10)
	var total int64
	for {
		n, readErr := from.Read(buf)
		total += int64(n)
		if _, err := out.Write(buf[:n]); err != nil {
			return total, err
		}
		if errors.Is(readErr, io.EOF) {
			return total, out.Flush()
		}
		if readErr != nil {
			return total, &readError{readErr}
		}
	}
}

// body reads the request with a deadline that moves with the bytes: an upload may take hours, but
// must not stall or drip.
func (s *Server) body(w http.ResponseWriter, r *http.Request) io.Reader {
	return clientReader{intake.Pace(w, r.Body, s.opts.Stall)}
}

type clientReader struct{ from io.Reader }

func (c clientReader) Read(p []byte) (int, error) {
	n, err := c.from.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = &readError{err}
	}
	return n, err
}
