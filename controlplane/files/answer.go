package files

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"syscall"
	"time"

	"clearmlserving/storage"
)

// answerError is an error whose text is meant for the client.
type answerError struct {
	status int
	msg    string
}

func (e *answerError) Error() string { return e.msg }

func refusal(status int, format string, args ...any) error {
	return &answerError{status: status, msg: fmt.Sprintf(format, args...)}
}

// explain turns an error into the status and text of the answer, and reports whether it must be
// logged. No status is above 500: the SDK retries requests that fail with one of those, some of
// them forever.
func explain(err error) (status int, msg string, trouble bool) {
	if told := (*answerError)(nil); errors.As(err, &told) {
		return told.status, told.msg, false
	}
	if told := nameError(""); errors.As(err, &told) {
		return http.StatusBadRequest, told.Error(), false
	}
	if told := (*storage.Error)(nil); errors.As(err, &told) {
		if errors.Is(err, storage.ErrNotExist) && (told.Op == "put" || told.Op == "list") {
			return http.StatusInternalServerError, "the bucket of the file server does not exist: its log has the details", true
		}
		return http.StatusInternalServerError, "the storage behind the file server refuses access or cannot be reached: its log has the reason", true
	}
	switch {
	case errors.Is(err, errUnsafePath), errors.Is(err, fs.ErrNotExist):
		return http.StatusNotFound, "no such file", false
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return http.StatusInternalServerError, "the disk of the file server is full: free some space on it, then upload again", true
	case errors.Is(err, syscall.EROFS), errors.Is(err, fs.ErrPermission):
		return http.StatusInternalServerError, "the folder of the file server cannot be written: check its mount and permissions", true
	case errors.Is(err, syscall.ENAMETOOLONG):
		return http.StatusBadRequest, "the path is too long for the file server's disk", false
	case errors.Is(err, syscall.ENOTDIR):
		return http.StatusBadRequest, "a folder of the path is stored as a file", false
	case errors.Is(err, syscall.EISDIR), errors.Is(err, fs.ErrExist), errors.Is(err, syscall.ENOTEMPTY):
		return http.StatusBadRequest, "the path is a folder", false
	case errors.Is(err, syscall.EILSEQ), errors.Is(err, syscall.EINVAL):
		return http.StatusBadRequest, "the path contains characters that the file server's disk does not support", false
	}
	return http.StatusInternalServerError, "the file server failed; its log says why", true
}

// afterRefusal is how long a client may continue to send a refused body.
const afterRefusal = 5 * time.Second

// refuse writes the answer for an error. Nothing of the answer may have been sent.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, err error) {
	status, msg, trouble := explain(err)
	if trouble {
		s.log.Error("file request failed", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	// The transfer may have used up its time; the answer has its own. The rest of the request is
	// read only briefly.
	conn := http.NewResponseController(w)
	_ = conn.SetWriteDeadline(time.Now().Add(s.opts.Stall))
	if status != http.StatusRequestTimeout {
		_ = conn.SetReadDeadline(time.Now().Add(afterRefusal))
	}
	h := w.Header()
	for _, about := range []string{"Content-Disposition", "Content-Length", "Etag", "Last-Modified"} {
		h.Del(about)
	}
	if status == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="clearml"`)
	}
	answerJSON(w, status, map[string]any{"error": msg, "code": status})
}

func answerJSON(w http.ResponseWriter, status int, v any) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // a client that has disconnected does not need the error
}

// allowAnyOrigin allows calls with a token from pages of any origin. It never allows cookies in
// such a call, so a page without a token gains nothing.
func allowAnyOrigin(h http.Header) {
	h.Set("Access-Control-Allow-Origin", "*")
	h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, DELETE, OPTIONS")
	h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Range, If-None-Match, If-Range")
	h.Set("Access-Control-Expose-Headers", "Content-Length, Content-Range, Content-Disposition, ETag")
}
