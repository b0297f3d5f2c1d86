package https

import (
	"context"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/url"
	"strings"

	"clearmlserving/storage"
)

// Put stores a file: with the form of ClearML file servers if it is below one, else with PUT.
func (a *Adapter) Put(ctx context.Context, rawURL string, r io.Reader, size int64, progress storage.Progress) (err error) {
	defer storage.Wrap(ctx, "put", rawURL, &err)
	u, err := parse(rawURL)
	if err != nil {
		return err
	}
	source, err := storage.NewSource(ctx, r, size, 0, progress)
	if err != nil {
		return err
	}
	method, target, body, length, contentType := http.MethodPut, u.String(), io.Reader(source), size, "application/octet-stream"
	if rest, ok := a.onFileServer(rawURL); ok {
		name, err := url.PathUnescape(rest)
		if err != nil {
			return fmt.Errorf("its path cannot be decoded: %w", err)
		}
		method, target = http.MethodPost, a.o.FileServer+"/"
		body, length, contentType = form(name, source, size)
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return err
	}
	req.ContentLength = length // -1 is sent in chunks
	if length == 0 {
		req.Body = http.NoBody
	}
	err = a.change(ctx, "put", rawURL, req, http.Header{"Content-Type": {contentType}}, http.StatusCreated)
	if sourceErr := source.Stop(); sourceErr != nil { // the source failed, not the server
		return sourceErr
	}
	return err
}

// change makes a request that changes a file. Besides 200 and 204, the status also means success.
// Redirects are not followed.
func (a *Adapter) change(ctx context.Context, op, rawURL string, req *http.Request, header http.Header, also int) error {
	if err := a.dress(req, header, op); err != nil {
		return err
	}
	resp, err := a.o.Transport.RoundTrip(req)
	if err != nil {
		return storage.Unanswered(ctx, op, rawURL, err)
	}
	defer drop(resp)
	switch resp.StatusCode {
	case http.StatusOK, http.StatusNoContent, also:
		return nil
	}
	return statusError(op, rawURL, resp)
}

// onFileServer returns the path below the configured file server.
func (a *Adapter) onFileServer(rawURL string) (string, bool) {
	if a.o.FileServer == "" {
		return "", false
	}
	rest, ok := strings.CutPrefix(rawURL, a.o.FileServer+"/")
	rest, _, _ = strings.Cut(rest, "?")
	return rest, ok && rest != ""
}

// form is a multipart body of one part whose name is the path, as the server expects it; its length
// is known if that of the file is.
func form(name string, content io.Reader, size int64) (body io.Reader, length int64, contentType string) {
	w := multipart.NewWriter(io.Discard) // only its boundary is used
	quoted := "/" + formName(name)
	head := "--" + w.Boundary() + "\r\nContent-Disposition: form-data; name=\"" + quoted + "\"; filename=\"" + quoted +
		"\"\r\nContent-Type: binary/octet-stream\r\n\r\n"
	tail := "\r\n--" + w.Boundary() + "--\r\n"
	length = -1
	if size >= 0 {
		length = size + int64(len(head)+len(tail))
	}
	return io.MultiReader(strings.NewReader(head), content, strings.NewReader(tail)), length, w.FormDataContentType()
}

// formName writes the name of a form's field as the SDK's HTTP library does.
func formName(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r == '"':
			b.WriteString("%22")
		case r == '\\':
			b.WriteString(`\\`)
		case r < ' ' && r != 0x1b:
			fmt.Fprintf(&b, "%%%02X", r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// Delete removes a file.
func (a *Adapter) Delete(ctx context.Context, rawURL string) (err error) {
	defer storage.Wrap(ctx, "delete", rawURL, &err)
	u, err := parse(rawURL)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, u.String(), nil)
	if err != nil {
		return err
	}
	return a.change(ctx, "delete", rawURL, req, nil, http.StatusAccepted)
}
