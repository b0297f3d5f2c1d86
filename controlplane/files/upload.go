package files

import (
	"context"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strings"
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
	// A multipart reader also reports the end for a body that stops behind a boundary for one more
	// part. The text after the body makes it report an error then.
	body := io.MultiReader(s.body(w, r), strings.NewReader("\r\n"), truncated{})
	form := &form{Reader: multipart.NewReader(body, params["boundary"])}
	var got []received
	defer func() { s.tree.discard(got) }()
	for form.advance(); form.err == nil; {
		if len(got) == maxParts {
			return refusal(http.StatusBadRequest, "more than %d files in one upload", maxParts)
		}
		// Not FileName, which drops the folders.
		name, err := safePath(form.part.FormName())
		if err != nil {
			return asUploadError(err)
		}
		f, err := s.receive(r.Context(), name, form)
		if err != nil {
			return err
		}
		got = append(got, f)
	}
	if !errors.Is(form.err, io.EOF) {
		return broken(form.err)
	}
	if len(got) == 0 {
		return refusal(http.StatusBadRequest, "the upload contains no file")
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

// truncated is what follows a body that ends too early.
type truncated struct{}

func (truncated) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// form reads the parts of a form in sequence.
type form struct {
	*multipart.Reader
	part *multipart.Part // the current one
	err  error           // io.EOF behind the last part
}

func (f *form) advance() {
	f.part, f.err = f.NextRawPart() // raw: the stored bytes are the sent ones
}

// Read reads the current part and advances at its end. The end is returned only if the next part
// has begun, or the form is closed: a streaming storage must not get the end of a file while the
// request may still be truncated.
func (f *form) Read(p []byte) (int, error) {
	n, err := f.part.Read(p)
	if errors.Is(err, io.EOF) {
		if f.advance(); f.err != nil {
			err = f.err
		}
	}
	return n, err
}

// put stores the body at the path of the URL: an extension, convenient with curl -T.
func (s *Server) put(w http.ResponseWriter, r *http.Request) error {
	name, err := safePath(r.URL.Path)
	if err != nil {
		return asUploadError(err)
	}
	if r.Header.Get("Content-Range") != "" {
		return refusal(http.StatusBadRequest, "a part of a file cannot be stored: send the whole file")
	}
	f, err := s.receive(r.Context(), name, s.body(w, r))
	if err != nil {
		return err
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

// broken explains an upload that could not be read to its end.
func broken(err error) error {
	if errors.Is(err, intake.ErrSlow) {
		return refusal(http.StatusRequestTimeout, "%s", err)
	}
	return refusal(http.StatusBadRequest, "the upload is incomplete or malformed: %s", err)
}

// receive takes the bytes of a new file, and distinguishes a broken request from a failing storage.
func (s *Server) receive(ctx context.Context, name string, from io.Reader) (received, error) {
	request := &source{Reader: from}
	f, err := s.tree.receive(ctx, name, request)
	if err != nil && request.err != nil {
		err = broken(request.err)
	}
	return f, err
}

// source keeps the error of a reader.
type source struct {
	io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// body reads the request with a deadline that moves with the bytes: an upload may take hours, but
// must not stall or drip.
func (s *Server) body(w http.ResponseWriter, r *http.Request) io.Reader {
	return intake.Pace(w, r.Body, s.opts.Stall)
}
