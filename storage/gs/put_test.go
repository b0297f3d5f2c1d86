package gs_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"clearmlserving/storage/gs"
	"clearmlserving/storage/storagetest"
)

// resumable is Google's side of a resumable upload, as a transport. The piece with the
// number faulty fails.
type resumable struct {
	faulty int
	keep   int64 // how many bytes of that piece arrive
	status int   // its answer, 0: the connection is cut

	pieces, sent int
	content      []byte
	done         bool
}

func (r *resumable) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method == http.MethodPost {
		return answer(req, http.StatusOK, "", http.Header{"Location": {"http://google/session"}}), nil
	}
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	field := req.Header.Get("Content-Range")
	if field == "bytes */*" {
		return r.state(req), nil
	}
	var from, last int
	var total string
	if _, err := fmt.Sscanf(strings.Replace(field, "/", " ", 1), "bytes %d-%d %s", &from, &last, &total); err != nil || last-from+1 != len(body) || from > len(r.content) || r.done {
		return answer(req, http.StatusBadRequest, "", nil), nil //nolint:nilerr // a fault of the client
	}
	r.pieces++
	r.sent += len(body)
	fault := r.pieces == r.faulty
	if fault {
		body = body[:r.keep]
	}
	r.content = append(r.content[:from], body...)
	r.done = total == fmt.Sprint(len(r.content))
	if fault && r.status == 0 {
		return nil, errors.New("connection reset by peer")
	}
	if fault && r.status != http.StatusPermanentRedirect {
		return answer(req, r.status, "", nil), nil
	}
	return r.state(req), nil
}

func (r *resumable) state(req *http.Request) *http.Response {
	switch {
	case r.done:
		sum := binary.BigEndian.AppendUint32(nil, crc32.Checksum(r.content, crc32.MakeTable(crc32.Castagnoli)))
		return answer(req, http.StatusOK, `{"crc32c":"`+base64.StdEncoding.EncodeToString(sum)+`"}`, nil)
	case len(r.content) == 0:
		return answer(req, http.StatusPermanentRedirect, "", nil)
	}
	return answer(req, http.StatusPermanentRedirect, "", http.Header{"Range": {fmt.Sprintf("bytes=0-%d", len(r.content)-1)}})
}

func answer(req *http.Request, status int, body string, header http.Header) *http.Response {
	if header == nil {
		header = http.Header{}
	}
	return &http.Response{StatusCode: status, Header: header, Body: io.NopCloser(strings.NewReader(body)), Request: req}
}

func TestAnUploadGoesOnWhereItWasCut(t *testing.T) {
	const piece = 16 << 20
	data := storagetest.Bytes(2*piece+1000, 1)
	for name, tc := range map[string]struct {
		resumable
		again int // bytes that did not arrive
	}{
		"nothing is cut":                        {},
		"nothing arrives":                       {resumable{faulty: 1}, piece},
		"a part arrives":                        {resumable{faulty: 2, keep: 1 << 20}, piece - 1<<20},
		"all arrives":                           {resumable{faulty: 2, keep: piece}, 0},
		"a part of the last piece arrives":      {resumable{faulty: 3, keep: 10}, 990},
		"the last answer is lost":               {resumable{faulty: 3, keep: 1000}, 0},
		"the server is busy":                    {resumable{faulty: 2, status: 503}, piece},
		"the server is busy and keeps a part":   {resumable{faulty: 2, status: 503, keep: 1 << 20}, piece - 1<<20},
		"the server keeps a part without fault": {resumable{faulty: 2, status: 308, keep: 1 << 20}, piece - 1<<20},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := tc.resumable
				a := gs.New(gs.Options{Endpoint: "http://google", Transport: &server})
				if err := a.Put(t.Context(), "gs://bucket/model.bin", bytes.NewReader(data), int64(len(data)), nil); err != nil {
					t.Fatal(err)
				}
				if !server.done || !bytes.Equal(server.content, data) {
					t.Errorf("stored are %d bytes that are not the %d sent", len(server.content), len(data))
				}
				if again := server.sent - len(data); again != tc.again {
					t.Errorf("%d bytes were sent again, %d had not arrived", again, tc.again)
				}
			})
		})
	}
}
