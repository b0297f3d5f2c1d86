// Package s3 accesses files in buckets with Amazon's S3 protocol: those of AWS as s3://bucket/key,
// those of any other server as s3://host:port/bucket/key. It owns the connections and the selection
// of the access for a URL. Each operation is a single attempt. The package reads neither
// configuration nor environment, except through the chain of credentials if an access requests
// that.
//
// Keys are unquoted in URLs, as ClearML writes them.
package s3

import (
	"bytes"
	"context"
	"errors"
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
	// Default is the access if no bucket matches.
	Default Access
	// Buckets have their own access. The longest matching prefix of a URL wins.
	Buckets []Bucket
	// Endpoint replaces AWS for URLs without a host, as http://host:port. "": AWS.
	Endpoint string
	// Network makes the connections. Trust applies if an access has no own setting.
	Network outbound.Network
	Trust   outbound.Trust
}

// Bucket is the access to one bucket, to a folder of it, or to all of a host.
type Bucket struct {
	Host string // with its port; "" for AWS
	Name string // "" for all buckets of the host; may have a folder after a slash
	Access
}

// Access is the credentials and settings of a bucket. The zero value is anonymous, over https.
type Access struct {
	Key, Secret, Token string
	// Chain uses the credentials of the machine: files of the AWS tools, or the role of the
	// container or instance. Profile selects one in those files.
	Chain   bool
	Profile string
	Region  string // "": looked up for the bucket
	Plain   bool   // http instead of https
	// Insecure does not verify the server's certificate, CAFile verifies it with the CAs in that
	// file.
	Insecure bool
	CAFile   string
	// OneStream uploads a file in one request, for old servers.
	OneStream bool
	// Header fields are sent with each upload, such as X-Amz-Storage-Class.
	Header map[string]string
	// From is the source of the credentials' configuration, for messages.
	From string
}

// Adapter accesses files in buckets.
type Adapter struct {
	o Options

	mu      sync.Mutex // guards clients
	clients map[clientKey]*connection
}

var (
	_ storage.Lister = (*Adapter)(nil)
	_ storage.Named  = (*Adapter)(nil)
)

// New creates an Adapter; it does not connect.
func New(o Options) *Adapter {
	return &Adapter{o: o, clients: map[clientKey]*connection{}}
}

// Stat describes a file.
func (a *Adapter) Stat(ctx context.Context, url string) (_ storage.Object, err error) {
	defer storage.Wrap(ctx, "stat", url, &err)
	t, err := a.find("stat", url)
	if err != nil {
		return storage.Object{}, err
	}
	info, err := t.read.StatObject(ctx, t.bucket, t.key, minio.StatObjectOptions{})
	if err != nil {
		return storage.Object{}, t.explain(ctx, "stat", t.reason(ctx, err))
	}
	return object(info), nil
}

// reason requests the first byte after HEAD was refused, because only answers to GET have the
// reason.
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
		_ = body.Close() // the file has been stored meanwhile; the first answer counts
		return err
	}
	if minio.ToErrorResponse(why).Code == "" {
		return err
	}
	return why
}

func object(info minio.ObjectInfo) storage.Object {
	o := storage.Object{Size: info.Size, Modified: info.LastModified, Ranges: true}
	if info.ETag != "" {
		o.ETag = `"` + info.ETag + `"`
	}
	return o
}

// Open reads a part of a file.
func (a *Adapter) Open(ctx context.Context, url string, part storage.Part) (_ io.ReadCloser, _ storage.Object, err error) {
	defer storage.Wrap(ctx, "open", url, &err)
	t, err := a.find("open", url)
	if err != nil {
		return nil, storage.Object{}, err
	}
	var o minio.GetObjectOptions
	if !part.Whole() {
		o.Set("Range", part.Range())
	}
	if part.Of.ETag != "" {
		o.Set("If-Match", part.Of.ETag)
	}
	body, info, header, err := t.read.GetObject(ctx, t.bucket, t.key, o)
	if err != nil {
		return nil, storage.Object{}, t.explain(ctx, "open", err)
	}
	now, length, err := storage.CheckAnswer(part, object(info), header.Get("Content-Range"))
	if err != nil {
		_ = body.Close() // its content is not the requested one
		return nil, storage.Object{}, err
	}
	return storage.Body(ctx, url, body, length), now, nil
}

// Sizes of the pieces of an upload. S3 allows 10,000 pieces, so a larger file has larger pieces;
// without a known size the limit is 312 GB.
const (
	pieceSize    = 16 << 20
	pieceUnsized = 32 << 20
	mostPieces   = 9000
	piecesAtOnce = 4
	measured     = 4 << 20
)

// Put stores a file. A large file is uploaded in pieces that are invisible until the last; those of
// a failed upload are removed.
func (a *Adapter) Put(ctx context.Context, url string, r io.Reader, size int64, progress storage.Progress) (err error) {
	defer storage.Wrap(ctx, "put", url, &err)
	t, err := a.find("put", url)
	if err != nil {
		return err
	}
	source, err := storage.NewSource(ctx, r, size, measured, progress)
	if err != nil {
		return err
	}
	size = source.Size()
	var from io.Reader = source
	if size >= 0 && size <= pieceSize {
		// Read before it is sent, because some servers keep the received part of an interrupted
		// request (seen with versitygw 1.8).
		content, err := io.ReadAll(source)
		if err != nil {
			return err
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
	if sourceErr := source.Stop(); sourceErr != nil { // the source failed, not the server
		return sourceErr
	}
	if err != nil {
		return t.explain(ctx, "put", err)
	}
	return nil
}

// Delete removes a file. S3 itself does not report whether there was one.
func (a *Adapter) Delete(ctx context.Context, url string) (err error) {
	defer storage.Wrap(ctx, "delete", url, &err)
	t, err := a.find("delete", url)
	if err != nil {
		return err
	}
	if _, err = t.read.StatObject(ctx, t.bucket, t.key, minio.StatObjectOptions{}); err != nil {
		return t.explain(ctx, "delete", t.reason(ctx, err))
	}
	if err = t.read.RemoveObject(ctx, t.bucket, t.key, minio.RemoveObjectOptions{}); err != nil {
		return t.explain(ctx, "delete", err)
	}
	return nil
}

// List returns the URLs of all files whose URL begins with prefix.
func (a *Adapter) List(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return storage.Listing(ctx, prefix, func(yield func(string) bool) error {
		t, err := a.find("list", prefix)
		if err != nil {
			return err
		}
		stem := prefix[:len(prefix)-len(t.key)]
		listCtx, cancel := context.WithCancel(ctx)
		defer cancel()
		for info := range t.read.ListObjectsIter(listCtx, t.bucket, minio.ListObjectsOptions{Prefix: t.key, Recursive: true}) {
			if info.Err != nil {
				return t.explain(ctx, "list", info.Err)
			}
			if !yield(stem + info.Key) {
				return nil
			}
		}
		return nil
	})
}

// errNoBucket refuses a URL without a bucket or a key.
var errNoBucket = errors.New("an address in S3 is s3://bucket/key, or s3://host:port/bucket/key")
