package files

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"mime"
	"mime/multipart"
	"net/http"
	"os"
	"path"
	"syscall"
	"time"
)

// maxParts bounds the memory that one upload of very many tiny files can take.
const maxParts = 10_000

// received is a file that lies whole and flushed in the incoming folder.
type received struct {
	temp, name string
	size       int64
}

// uploadForm takes multipart uploads: the name of each part is the path to store it
// at. Nothing becomes visible before the last byte of the request has arrived, so an
// upload that breaks off leaves nothing at all.
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
	form := multipart.NewReader(body, params["boundary"])
	var got []received
	defer func() { s.discard(got) }()
	for {
		part, err := form.NextRawPart() // raw: stored bytes are the sent ones
		if errors.Is(err, io.EOF) && body.holds("--"+params["boundary"]+"--") {
			break
		}
		if err != nil {
			return broken(err)
		}
		if len(got) == maxParts {
			return refusal(http.StatusBadRequest, "more than %d files in one upload", maxParts)
		}
		// Not FileName: that one drops the folders.
		name, err := safePath(part.FormName())
		if err != nil {
			return asUploadError(err)
		}
		f, err := s.receive(name, part)
		if err != nil {
			return err
		}
		got = append(got, f)
	}
	if len(got) == 0 {
		return refusal(http.StatusBadRequest, "the upload holds no file")
	}
	paths := make([]string, 0, len(got))
	for _, f := range got {
		if err := s.place(f); err != nil {
			return err
		}
		paths = append(paths, f.name)
		s.log.Debug("file stored", "path", f.name, "bytes", f.size, "took", time.Since(began))
	}
	answerJSON(w, http.StatusOK, paths) // the SDK takes 200 only
	return nil
}

// tailReader remembers the end of what was read. A multipart reader says "end" also
// for a body that stops right behind a boundary which announces one more part; only
// the closing boundary tells that from a whole upload.
type tailReader struct {
	from io.Reader
	tail []byte
}

func (t *tailReader) Read(p []byte) (int, error) {
	const keep = 8 << 10 // the multipart reader looks ahead by half of that
	n, err := t.from.Read(p)
	t.tail = append(t.tail, p[max(0, n-keep):n]...)
	if drop := len(t.tail) - keep; drop > 0 {
		t.tail = append(t.tail[:0], t.tail[drop:]...)
	}
	return n, err
}

func (t *tailReader) holds(boundary string) bool { return bytes.Contains(t.tail, []byte(boundary)) }

// put stores the body at the path of the URL: our addition, handy with curl -T.
func (s *Server) put(w http.ResponseWriter, r *http.Request) error {
	name, err := safePath(r.URL.Path)
	if err != nil {
		return asUploadError(err)
	}
	if r.Header.Get("Content-Range") != "" {
		return refusal(http.StatusBadRequest, "a part of a file can't be stored: send it whole")
	}
	f, err := s.receive(name, s.body(w, r))
	if err != nil {
		return err
	}
	defer s.discard([]received{f})
	if err := s.place(f); err != nil {
		return err
	}
	answerJSON(w, http.StatusOK, []string{f.name})
	return nil
}

// asUploadError says openly that a path was refused; for reading, such a path just
// does not exist.
func asUploadError(err error) error {
	if errors.Is(err, errUnsafePath) {
		return refusal(http.StatusBadRequest, "%s", err)
	}
	return err
}

// readError marks what went wrong on the client's side of a copy.
type readError struct{ err error }

func (e *readError) Error() string { return e.err.Error() }
func (e *readError) Unwrap() error { return e.err }

// broken explains an upload that could not be read to its end.
func broken(err error) error {
	if tooBig := (*http.MaxBytesError)(nil); errors.As(err, &tooBig) {
		return refusal(http.StatusRequestEntityTooLarge, "the upload is larger than the %d bytes that this server takes", tooBig.Limit)
	}
	return refusal(http.StatusBadRequest, "the upload is broken off or malformed: %s", err)
}

// receive writes the bytes to a new file in the incoming folder and flushes it to
// disk. On error nothing is left of it.
func (s *Server) receive(name string, from io.Reader) (received, error) {
	temp := path.Join(incoming, rand.Text())
	f, err := s.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return received{}, err
	}
	size, err := copyBytes(f, from)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		// The system's own times tick every few milliseconds; the ETag needs finer ones.
		now := time.Now()
		err = s.root.Chtimes(temp, now, now)
	}
	if err != nil {
		err = errors.Join(err, s.root.Remove(temp))
		if told := (*readError)(nil); errors.As(err, &told) {
			return received{}, broken(told.err)
		}
		return received{}, err
	}
	return received{temp: temp, name: name, size: size}, nil
}

// copyBytes is io.Copy that tells the reader's errors from the writer's, and writes
// in large pieces: the multipart reader hands out small ones.
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

// place makes a received file visible under its name, replacing what was there.
func (s *Server) place(f received) error {
	if err := s.rename(f); err != nil {
		return err
	}
	// The new name, and those of folders just made, must survive a power cut.
	for dir := path.Dir(f.name); ; dir = path.Dir(dir) {
		if err := s.syncDir(dir); err != nil || dir == "." {
			return err
		}
	}
}

func (s *Server) rename(f received) error {
	s.shape.Lock()
	defer s.shape.Unlock()
	if err := s.refuseLinks(f.name); err != nil {
		return asUploadError(err)
	}
	if err := s.root.MkdirAll(path.Dir(f.name), 0o700); err != nil {
		return err
	}
	if info, err := s.root.Lstat(f.name); err == nil && info.IsDir() {
		return refusal(http.StatusBadRequest, "the path is a folder")
	}
	return s.root.Rename(f.temp, f.name)
}

// syncDir flushes a folder. One that a delete has pruned meanwhile needs none, and
// file systems that can't flush folders say so with EINVAL or ENOTSUP.
func (s *Server) syncDir(dir string) error {
	d, err := s.root.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	err = d.Sync()
	if closeErr := d.Close(); err == nil || errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = closeErr
	}
	return err
}

// discard removes received files that were not placed.
func (s *Server) discard(files []received) {
	for _, f := range files {
		if err := s.root.Remove(f.temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.log.Error("interrupted upload not removed", "path", f.temp, "err", err)
		}
	}
}

// body reads the request with the size limit, and with a deadline that moves along
// with the bytes: an upload may take hours, but not stand still.
func (s *Server) body(w http.ResponseWriter, r *http.Request) io.Reader {
	from := r.Body
	if s.opts.MaxUpload > 0 {
		from = http.MaxBytesReader(w, from, s.opts.MaxUpload)
	}
	return &movingReader{from: from, conn: http.NewResponseController(w), stall: s.opts.Stall}
}

type movingReader struct {
	from  io.Reader
	conn  *http.ResponseController
	stall time.Duration
}

func (m *movingReader) Read(p []byte) (int, error) {
	extend(m.conn, m.stall) // the answer's time begins anew too, for it comes last
	return m.from.Read(p)
}
