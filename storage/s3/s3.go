// Package s3 reaches files in buckets that speak Amazon's S3 protocol: those of AWS
// as s3://bucket/key, those of any other server as s3://host:port/bucket/key. It
// owns the connections and the choice of the access that fits a URL. It makes one
// attempt at a time, and reads neither configuration nor environment, except through
// the chain of credentials where an access asks for that.
//
// Keys stand in the URLs as they are, without any quoting, as ClearML writes them.
package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"sync"

	"github.com/minio/minio-go/v7"

	"clearmlserving/outbound"
	"clearmlserving/storage"
)

// Options of an Adapter.
type Options struct {
	// Default is the access where no bucket fits.
	Default Access
	// Buckets have an access of their own. The longest place that a URL begins
	// with wins.
	Buckets []Bucket
	// Endpoint replaces AWS for URLs without a host, as http://host:port. "": AWS.
	Endpoint string
	// Transport makes the connections. Default: one for each way of verifying
	// certificates, made by Network. Trust counts where an access has no setting of
	// its own.
	Transport http.RoundTripper
	Network   outbound.Network
	Trust     outbound.Trust
}

// Bucket is the access to one bucket, to a folder of it, or to all of a host.
type Bucket struct {
	Host string // with its port; "" for AWS
	Name string // "" for all buckets of the host; may hold a folder after a slash
	Access
}

// Access says how a bucket is reached. The zero value is anonymous, over https.
type Access struct {
	Key, Secret, Token string
	// Chain takes the credentials that the machine has: files of the AWS tools, or
	// the role of the container or instance. Profile names one in those files.
	Chain   bool
	Profile string
	Region  string // "": asked of the bucket
	Plain   bool   // http instead of https
	// Insecure does not check the server's certificate, CAFile checks it against
	// the authorities in that file.
	Insecure bool
	CAFile   string
	// OneStream uploads a file in one request, as old servers need it.
	OneStream bool
	// Header fields go with each upload, such as X-Amz-Storage-Class.
	Header map[string]string
	// From says where the credentials were configured, for messages.
	From string
}

// Adapter reaches files in buckets.
type Adapter struct {
	o Options

	mu      sync.Mutex // guards clients
	clients map[clientKey]*connection
}

var (
	_ storage.Lister = (*Adapter)(nil)
	_ storage.Named  = (*Adapter)(nil)
)

// New prepares an Adapter; it connects to nothing.
func New(o Options) *Adapter {
	return &Adapter{o: o, clients: map[clientKey]*connection{}}
}

// Close drops idle connections. The Adapter can still be used.
func (a *Adapter) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.clients {
		if c.transport != nil {
			c.transport.CloseIdleConnections()
		}
	}
}

// Stat tells about a file.
func (a *Adapter) Stat(ctx context.Context, url string) (storage.Object, error) {
	t, err := a.find("stat", url)
	if err != nil {
		return storage.Object{}, err
	}
	info, err := t.read.StatObject(ctx, t.bucket, t.key, minio.StatObjectOptions{})
	if err != nil {
		return storage.Object{}, t.explain(ctx, "stat", t.reason(ctx, err))
	}
	return object(info, info.Size), nil
}

// reason asks for the first byte of what HEAD was refused for: only the answers of
// GET say why.
func (t target) reason(ctx context.Context, err error) error {
	switch minio.ToErrorResponse(err).StatusCode {
	case http.StatusBadRequest, http.StatusForbidden, http.StatusNotFound, http.StatusMovedPermanently:
	default:
		return err
	}
	var first minio.GetObjectOptions
	if first.SetRange(0, 0) != nil {
		return err
	}
	body, _, _, why := t.read.GetObject(ctx, t.bucket, t.key, first)
	if why == nil {
		_ = body.Close() // the file has come meanwhile, but the answer was that it is not there
		return err
	}
	if minio.ToErrorResponse(why).Code == "" {
		return err
	}
	return why
}

func object(info minio.ObjectInfo, size int64) storage.Object {
	o := storage.Object{Size: size, Modified: info.LastModified, Ranges: true}
	if info.ETag != "" {
		o.ETag = `"` + info.ETag + `"`
	}
	return o
}

// Open reads a part of a file.
func (a *Adapter) Open(ctx context.Context, url string, part storage.Part) (io.ReadCloser, storage.Object, error) {
	t, err := a.find("open", url)
	if err != nil {
		return nil, storage.Object{}, err
	}
	fail := func(err error) (io.ReadCloser, storage.Object, error) {
		return nil, storage.Object{}, &storage.Error{Op: "open", URL: url, Err: err}
	}
	var o minio.GetObjectOptions
	if !part.Whole() {
		last := int64(0) // to the end
		if part.Length > 0 {
			last = part.Offset + part.Length - 1
		}
		if err := o.SetRange(part.Offset, last); err != nil {
			return fail(err)
		}
	}
	if part.Of.ETag != "" {
		if err := o.SetMatchETag(part.Of.ETag[1 : len(part.Of.ETag)-1]); err != nil {
			return fail(err)
		}
	}
	body, info, header, err := t.read.GetObject(ctx, t.bucket, t.key, o)
	if err != nil {
		return nil, storage.Object{}, t.explain(ctx, "open", err)
	}
	now, length, err := judge(info, header, part)
	if err != nil {
		_ = body.Close() // its content is not the one asked for
		return fail(err)
	}
	return storage.Body(ctx, url, body, length), now, nil
}

// judge tells whether an answer is the part that was asked for, and its length.
func judge(info minio.ObjectInfo, header http.Header, part storage.Part) (storage.Object, int64, error) {
	field := header.Get("Content-Range")
	if field == "" {
		now := object(info, info.Size)
		switch {
		case part.Of.Validated() && !part.Of.Same(now):
			return now, 0, storage.ErrChanged
		case !part.Whole():
			return now, 0, storage.ErrNoRanges
		}
		return now, info.Size, nil
	}
	from, to, total, ok := storage.ContentRange(field)
	if !ok {
		return storage.Object{}, 0, fmt.Errorf("the server answers with the range %q: %w", field, storage.ErrNoRanges)
	}
	now := object(info, total)
	length, err := storage.CheckPart(part, now, from, to)
	return now, length, err
}

// Sizes of the pieces in which a file is uploaded. S3 allows 10,000 of them, so a
// bigger file has bigger ones; without a size, 312 GB must do.
const (
	pieceSize    = 16 << 20
	pieceUnsized = 32 << 20
	mostPieces   = 9000
	piecesAtOnce = 4
	measured     = 4 << 20
)

// Put stores a file. A big one goes in pieces, of which nothing is seen before the
// last; those of an upload that fails are removed.
func (a *Adapter) Put(ctx context.Context, url string, r io.Reader, size int64, progress storage.Progress) error {
	t, err := a.find("put", url)
	if err != nil {
		return err
	}
	fail := func(err error) error { return &storage.Error{Op: "put", URL: url, Err: err} }
	source, err := storage.NewSource(r, size, measured, progress)
	if err != nil {
		return fail(err)
	}
	size = source.Size()
	var from io.Reader = source
	if size >= 0 && size <= pieceSize {
		// Read before it is sent: there are servers that keep what they have of a
		// request that was cut (seen with versitygw 1.8).
		content, err := io.ReadAll(source)
		if err != nil {
			return fail(err)
		}
		from = bytes.NewReader(content)
	}
	o := minio.PutObjectOptions{ContentType: "application/octet-stream", UserMetadata: t.access.Header, PartSize: pieceSize}
	switch {
	case size < 0:
		o.PartSize, o.ConcurrentStreamParts, o.NumThreads = pieceUnsized, true, 2
	case t.access.OneStream:
		o.DisableMultipart = true
	case size > pieceSize:
		for int64(o.PartSize)*mostPieces < size {
			o.PartSize *= 2
		}
		o.ConcurrentStreamParts, o.NumThreads = true, piecesAtOnce
	}
	_, err = t.write.PutObject(ctx, t.bucket, t.key, from, size, o)
	if sourceErr := source.Stop(); sourceErr != nil { // the source failed, not the place
		return fail(sourceErr)
	}
	if err != nil {
		return t.explain(ctx, "put", err)
	}
	return nil
}

// Delete removes a file. S3 itself does not tell whether there was one.
func (a *Adapter) Delete(ctx context.Context, url string) error {
	t, err := a.find("delete", url)
	if err != nil {
		return err
	}
	if _, err := t.read.StatObject(ctx, t.bucket, t.key, minio.StatObjectOptions{}); err != nil {
		return t.explain(ctx, "delete", t.reason(ctx, err))
	}
	if err := t.read.RemoveObject(ctx, t.bucket, t.key, minio.RemoveObjectOptions{}); err != nil {
		return t.explain(ctx, "delete", err)
	}
	return nil
}

// List gives the URLs of all files whose URL begins with prefix.
func (a *Adapter) List(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		t, err := a.find("list", prefix)
		if err != nil {
			yield("", err)
			return
		}
		stem := prefix[:len(prefix)-len(t.key)]
		listCtx, cancel := context.WithCancel(ctx)
		defer cancel()
		for info := range t.read.ListObjectsIter(listCtx, t.bucket, minio.ListObjectsOptions{Prefix: t.key, Recursive: true}) {
			if info.Err != nil {
				yield("", t.explain(ctx, "list", info.Err))
				return
			}
			if !yield(stem+info.Key, nil) {
				return
			}
		}
	}
}

// errNoBucket refuses a URL without a bucket or a key.
var errNoBucket = errors.New("an address in S3 is s3://bucket/key, or s3://host:port/bucket/key")
