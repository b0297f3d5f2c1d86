package https

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"

	"clearmlserving/storage"
)

// Put stores a file: with the form of ClearML file servers if it is below one, else with PUT.
// Redirects are not followed.
func (a *Adapter) Put(ctx context.Context, rawURL string, r io.Reader, size int64, progress storage.Progress) error {
	fail := func(err error) error { return &storage.Error{Op: "put", URL: rawURL, Err: err} }
	u, err := parse(rawURL)
	if err != nil {
		return fail(err)
	}
	counted, err := storage.NewSource(r, size, 0, progress)
	if err != nil {
		return fail(err)
	}
	method, target, body, length, contentType := http.MethodPut, u.String(), io.Reader(counted), size, "application/octet-stream"
	if rest, ok := a.onFileServer(rawURL); ok {
		name, err := url.PathUnescape(rest)
		if err != nil {
			return fail(fmt.Errorf("its path can't be decoded: %w", err))
		}
		method, target = http.MethodPost, a.o.FileServer+"/"
		if body, length, contentType, err = form(name, counted, size); err != nil {
			return fail(err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return fail(err)
	}
	req.ContentLength = length // -1 is sent in chunks
	if length == 0 {
		req.Body = http.NoBody
	}
	if err := a.dress(req, http.Header{"Content-Type": {contentType}}, "put"); err != nil {
		return err
	}
	resp, err := a.o.Transport.RoundTrip(req)
	if sourceErr := counted.Stop(); sourceErr != nil { // the source failed, not the server
		if err == nil {
			drop(resp)
		}
		return fail(sourceErr)
	}
	if err != nil {
		return storage.Unanswered(ctx, "put", rawURL, err)
	}
	drop(resp)
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusNoContent {
		return statusError("put", rawURL, resp)
	}
	return nil
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
func form(name string, content io.Reader, size int64) (body io.Reader, length int64, contentType string, err error) {
	var frame bytes.Buffer
	w := multipart.NewWriter(&frame)
	// The escapes of urllib3, which the SDK's uploads use.
	quoted := strings.NewReplacer(`\`, `\\`, `"`, "%22", "\r", "%0D", "\n", "%0A").Replace(name)
	if _, err := w.CreatePart(textproto.MIMEHeader{
		"Content-Disposition": {`form-data; name="` + quoted + `"; filename="` + quoted + `"`},
		"Content-Type":        {"binary/octet-stream"},
	}); err != nil {
		return nil, 0, "", err
	}
	head := bytes.Clone(frame.Bytes())
	frame.Reset()
	if err := w.Close(); err != nil {
		return nil, 0, "", err
	}
	tail := frame.Bytes()
	length = -1
	if size >= 0 {
		length = size + int64(len(head)+len(tail))
	}
	return io.MultiReader(bytes.NewReader(head), content, bytes.NewReader(tail)), length, w.FormDataContentType(), nil
}

// Delete removes a file. Redirects are not followed.
func (a *Adapter) Delete(ctx context.Context, rawURL string) error {
	fail := func(err error) error { return &storage.Error{Op: "delete", URL: rawURL, Err: err} }
	u, err := parse(rawURL)
	if err != nil {
		return fail(err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodDelete, u.String(), nil)
	if err != nil {
		return fail(err)
	}
	if err := a.dress(req, nil, "delete"); err != nil {
		return err
	}
	resp, err := a.o.Transport.RoundTrip(req)
	if err != nil {
		return storage.Unanswered(ctx, "delete", rawURL, err)
	}
	drop(resp)
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusAccepted && resp.StatusCode != http.StatusNoContent {
		return statusError("delete", rawURL, resp)
	}
	return nil
}
