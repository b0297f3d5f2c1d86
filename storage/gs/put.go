package gs

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"clearmlserving/storage"
)

const (
	// atOnce is the maximum size of a file that is sent in one request.
	atOnce = 8 << 20
	// pieceSize is the size of the pieces of a longer file: a multiple of 256 KiB, by the
	// protocol. One piece is held in memory, so that it can be sent again.
	pieceSize = 16 << 20
	// goodbye is the time limit for ending a failed upload.
	goodbye = 10 * time.Second
)

// Put stores a file: a short one in one request, else in pieces. It is invisible before its end.
// Google's checksum is compared.
func (a *Adapter) Put(ctx context.Context, rawURL string, r io.Reader, size int64, progress storage.Progress) (err error) {
	defer storage.Wrap(ctx, "put", rawURL, &err)
	p, err := a.find("put", rawURL)
	if err != nil {
		return err
	}
	source, err := storage.NewSource(ctx, r, size, atOnce, progress)
	if err != nil {
		return err
	}
	u := &upload{adapter: a, place: p, size: source.Size(), sum: crc32.New(crc32.MakeTable(crc32.Castagnoli))}
	from := io.TeeReader(source, u.sum)
	if u.size >= 0 && u.size <= atOnce {
		err = u.whole(ctx, from)
	} else {
		err = u.inPieces(ctx, from)
	}
	if sourceErr := source.Stop(); sourceErr != nil { // the source failed, not the server
		return sourceErr
	}
	return err
}

// upload is one running upload.
type upload struct {
	adapter *Adapter
	place   place
	size    int64 // -1: unknown before its end
	sum     hash.Hash32
}

func (u *upload) start(kind string) string {
	query := url.Values{"uploadType": {kind}, "name": {u.place.name}}
	return u.adapter.base + "/upload/storage/v1/b/" + url.PathEscape(u.place.bucket) + "/o?" + query.Encode()
}

func (u *upload) whole(ctx context.Context, r io.Reader) error {
	// Read before it is sent: the server gets complete content.
	content, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	resp, err := u.request(ctx, http.MethodPost, u.start("media"), content, map[string]string{"Content-Type": "application/octet-stream"})
	if err != nil {
		return err
	}
	defer drop(resp)
	return u.compare(resp)
}

// inPieces is the resumable upload of the API.
func (u *upload) inPieces(ctx context.Context, r io.Reader) error {
	resp, err := u.request(ctx, http.MethodPost, u.start("resumable"), []byte("{}"), map[string]string{
		"Content-Type": "application/json", "X-Upload-Content-Type": "application/octet-stream",
	})
	if err != nil {
		return err
	}
	session := resp.Header.Get("Location")
	drop(resp)
	if session == "" {
		return errors.New("the server returned no address to upload to")
	}
	if err := u.pieces(ctx, session, r); err != nil {
		u.abandon(ctx, session)
		return err
	}
	return nil
}

// pieces reads and sends the pieces in sequence. Reading ahead shows whether a piece is the last.
func (u *upload) pieces(ctx context.Context, session string, r io.Reader) error {
	ahead, piece := bufio.NewReader(r), make([]byte, pieceSize)
	for at := int64(0); ; at += pieceSize {
		n, err := io.ReadFull(ahead, piece)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		_, err = ahead.Peek(1)
		last := errors.Is(err, io.EOF)
		if err != nil && !last {
			return err
		}
		if err := u.send(ctx, session, piece[:n], at, last); err != nil || last {
			return err
		}
	}
}

// send sends one piece. After an error the server is asked how much it has: the bytes, or only the
// answer, may have been lost.
func (u *upload) send(ctx context.Context, session string, piece []byte, at int64, last bool) error {
	have, end, total := at, at+int64(len(piece)), "*"
	if last {
		total = strconv.FormatInt(end, 10)
	}
	return storage.Backoff{}.Do(ctx, func() error {
		for {
			field := fmt.Sprintf("bytes %d-%d/%s", have, end-1, total)
			got, whole, fault := u.put(ctx, session, piece[have-at:], field)
			if !whole && storage.IsTransient(fault) {
				now, stored, err := u.put(ctx, session, nil, "bytes */*")
				if stored {
					return err
				}
				if err != nil {
					return fault
				}
				got = now
			}
			switch {
			case whole:
				return fault
			case got == end && !last:
				return nil
			case fault != nil:
				if have = at; got > at && got < end {
					have = got
				}
				return fault
			case got <= have || got >= end:
				return &storage.Error{Op: "put", URL: u.place.url, Transient: true, Err: fmt.Errorf("the server has %d bytes after %d were sent", got, end)}
			}
			have = got
		}
	})
}

// put sends bytes, or none as a query, and returns how much the server has. whole reports that the
// file is stored; the error is then that of the comparison.
func (u *upload) put(ctx context.Context, session string, content []byte, field string) (got int64, whole bool, err error) {
	resp, err := u.request(ctx, http.MethodPut, session, content, map[string]string{"Content-Range": field})
	if err != nil {
		return 0, false, err
	}
	defer drop(resp)
	if resp.StatusCode != http.StatusPermanentRedirect {
		return 0, true, u.compare(resp)
	}
	return received(resp), false, nil
}

// received parses how much the server has: "bytes=0-41" is 42.
func received(resp *http.Response) int64 {
	_, last, found := strings.Cut(resp.Header.Get("Range"), "-")
	n, err := strconv.ParseInt(last, 10, 64)
	if !found || err != nil {
		return 0
	}
	return n + 1
}

// abandon cancels an upload on the server, also when the caller's context has ended.
func (u *upload) abandon(ctx context.Context, session string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), goodbye)
	defer cancel()
	if resp, err := u.request(ctx, http.MethodDelete, session, nil, nil); err == nil {
		drop(resp)
	} // otherwise the server drops it after a week
}

func (u *upload) request(ctx context.Context, method, target string, content []byte, header map[string]string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	for name, value := range header {
		req.Header.Set(name, value)
	}
	return u.adapter.send(ctx, "put", u.place, req)
}

// compare checks that the stored content is the sent one.
func (u *upload) compare(resp *http.Response) error {
	var stored fields
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&stored); err != nil || stored.CRC32C == "" {
		return nil //nolint:nilerr // the file is stored, without a checksum to compare
	}
	want := base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, u.sum.Sum32()))
	if stored.CRC32C != want {
		return &storage.Error{Op: "put", URL: u.place.url, Transient: true, Err: fmt.Errorf("it arrived damaged: its CRC32C there is %s, here %s", stored.CRC32C, want)}
	}
	return nil
}
