// Package azure accesses files in Azure Blob Storage as
// azure://account.blob.core.windows.net/container/blob. It owns the connections and the selection
// of the account for a URL. Each operation is a single attempt. The package reads neither
// configuration nor environment.
//
// Names are unquoted in URLs, as ClearML writes them.
package azure

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/container"

	"clearmlserving/outbound"
	"clearmlserving/storage"
)

// Options of an Adapter.
type Options struct {
	// Accounts are tried in their order; the first match is used.
	Accounts []Account
	// Transport makes the connections. Default: that of the zero outbound.Network.
	Transport http.RoundTripper
}

// Account is the access to a storage account, or to one container of it.
type Account struct {
	Name, Key string
	Container string // "": all of the account
	// Machine uses the Azure identity of this machine instead of a key: that of Identity, or else
	// its managed identity.
	Machine  bool
	Identity Identity
	// Endpoint replaces the host of the URL, as http://127.0.0.1:10000/name for an
	// emulator. "": https at the host of the URL.
	Endpoint string
	// From is the source of the account's configuration, for messages.
	From string
}

// Adapter accesses files in Azure Blob Storage.
type Adapter struct {
	o     Options
	owned *http.Transport // nil if the transport is the caller's

	mu       sync.Mutex // guards machines
	machines map[Identity]*machineToken
}

var (
	_ storage.Lister = (*Adapter)(nil)
	_ storage.Named  = (*Adapter)(nil)
)

// New creates an Adapter; it does not connect.
func New(o Options) *Adapter {
	a := &Adapter{o: o, machines: map[Identity]*machineToken{}}
	if o.Transport == nil {
		a.owned = outbound.Network{}.Transport(outbound.Trust{}, time.Minute)
		a.o.Transport = a.owned
	}
	return a
}

// Close closes idle connections. The Adapter can still be used.
func (a *Adapter) Close() {
	if a.owned != nil {
		a.owned.CloseIdleConnections()
	}
}

// place is a parsed URL.
type place struct {
	url, host, container, name string
	account                    Account
}

var errNoContainer = errors.New("an address in Azure is azure://account.blob.core.windows.net/container/name")

// find parses a URL. For a list, the name may be empty.
func (a *Adapter) find(op, rawURL string) (place, error) {
	const scheme = "azure://"
	fail := func(err error) (place, error) { return place{}, &storage.Error{Op: op, URL: rawURL, Err: err} }
	if len(rawURL) < len(scheme) || !strings.EqualFold(rawURL[:len(scheme)], scheme) {
		return fail(errNoContainer)
	}
	p := place{url: rawURL}
	host, behind, _ := strings.Cut(rawURL[len(scheme):], "/")
	p.host = host
	p.container, p.name, _ = strings.Cut(behind, "/")
	if p.host == "" || p.container == "" || (p.name == "" && op != "list") {
		return fail(errNoContainer)
	}
	name, _, _ := strings.Cut(p.host, ".")
	for _, account := range a.o.Accounts {
		if account.Name == name && (account.Container == "" || account.Container == p.container) {
			p.account = account
			return p, nil
		}
	}
	return fail(fmt.Errorf("%w: no key of the account %q is configured for the container %q: add it to sdk.azure.storage.containers in clearml.conf, or set AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY", storage.ErrDenied, name, p.container))
}

// Named reports whether the URL is in a configured account or container.
func (a *Adapter) Named(rawURL string) bool {
	_, err := a.find("delete", rawURL)
	return err == nil
}

// Stat describes a file.
func (a *Adapter) Stat(ctx context.Context, rawURL string) (storage.Object, error) {
	p, client, err := a.blob("stat", rawURL)
	if err != nil {
		return storage.Object{}, err
	}
	got, err := client.GetProperties(ctx, nil)
	if err != nil {
		return storage.Object{}, p.explain(ctx, "stat", err)
	}
	o := storage.Object{Size: -1, Ranges: true}
	if got.ContentLength != nil {
		o.Size = *got.ContentLength
	}
	describe(&o, got.ETag)
	return o, nil
}

// describe gives an object the validator of Azure for the state of a file.
func describe(o *storage.Object, etag *azcore.ETag) {
	if etag != nil {
		o.ETag = string(*etag)
	}
}

// Open reads a part of a file.
func (a *Adapter) Open(ctx context.Context, rawURL string, part storage.Part) (io.ReadCloser, storage.Object, error) {
	p, client, err := a.blob("open", rawURL)
	if err != nil {
		return nil, storage.Object{}, err
	}
	fail := func(err error) (io.ReadCloser, storage.Object, error) {
		return nil, storage.Object{}, &storage.Error{Op: "open", URL: rawURL, Err: err}
	}
	o := &blob.DownloadStreamOptions{}
	if !part.Whole() {
		o.Range = blob.HTTPRange{Offset: part.Offset, Count: part.Length}
	}
	if part.Of.ETag != "" {
		match := azcore.ETag(part.Of.ETag)
		o.AccessConditions = &blob.AccessConditions{ModifiedAccessConditions: &blob.ModifiedAccessConditions{IfMatch: &match}}
	}
	got, err := client.DownloadStream(ctx, o)
	if err != nil {
		return nil, storage.Object{}, p.explain(ctx, "open", err)
	}
	now, length, err := judge(got, part)
	if err != nil {
		_ = got.Body.Close() // its content is not the one asked for
		return fail(err)
	}
	return storage.Body(ctx, rawURL, got.Body, length), now, nil
}

// judge checks that an answer is the requested part, and returns its length.
func judge(got blob.DownloadStreamResponse, part storage.Part) (storage.Object, int64, error) {
	now := storage.Object{Size: -1, Ranges: true}
	describe(&now, got.ETag)
	if got.ContentLength != nil {
		now.Size = *got.ContentLength
	}
	if got.ContentRange == nil {
		switch {
		case part.Of.Validated() && !part.Of.Same(now):
			return now, 0, storage.ErrChanged
		case !part.Whole():
			return now, 0, storage.ErrNoRanges
		}
		return now, now.Size, nil
	}
	from, to, total, ok := storage.ContentRange(*got.ContentRange)
	if !ok {
		return now, 0, fmt.Errorf("the server answers with the range %q: %w", *got.ContentRange, storage.ErrNoRanges)
	}
	now.Size = total
	length, err := storage.CheckPart(part, now, from, to)
	return now, length, err
}

// Sizes of the blocks of an upload. Azure allows 50,000 blocks, so a larger file has larger blocks;
// without a known size the limit is 760 GB.
const (
	blockSize    = 16 << 20
	mostBlocks   = 45_000
	blocksAtOnce = 4
	measured     = 4 << 20
)

// Put stores a file. A large file is uploaded in blocks that are invisible until their list is
// stored; Azure removes the blocks of a failed upload after a week.
func (a *Adapter) Put(ctx context.Context, rawURL string, r io.Reader, size int64, progress storage.Progress) error {
	fail := func(err error) error { return &storage.Error{Op: "put", URL: rawURL, Err: err} }
	p, err := a.find("put", rawURL)
	if err != nil {
		return err
	}
	client, err := connect(a, p, blockblob.NewClientWithSharedKeyCredential, blockblob.NewClient, (*blockblob.ClientOptions)(a.clientOptions(retries)), p.name)
	if err != nil {
		return fail(err)
	}
	source, err := storage.NewSource(r, size, measured, progress)
	if err != nil {
		return fail(err)
	}
	block := int64(blockSize)
	for block*mostBlocks < source.Size() {
		block *= 2
	}
	if size := source.Size(); size >= 0 {
		block = min(block, max(size+1, 1<<20)) // so that a short file is sent at once, from a buffer of its length
	}
	kind := "application/octet-stream"
	_, err = client.UploadStream(ctx, source, &blockblob.UploadStreamOptions{
		BlockSize: block, Concurrency: blocksAtOnce, HTTPHeaders: &blob.HTTPHeaders{BlobContentType: &kind},
	})
	if sourceErr := source.Stop(); sourceErr != nil { // the source failed, not the storage
		return fail(sourceErr)
	}
	if err != nil {
		return p.explain(ctx, "put", err)
	}
	return nil
}

// Delete removes a file.
func (a *Adapter) Delete(ctx context.Context, rawURL string) error {
	p, client, err := a.blob("delete", rawURL)
	if err != nil {
		return err
	}
	if _, err := client.Delete(ctx, nil); err != nil {
		return p.explain(ctx, "delete", err)
	}
	return nil
}

// List returns the URLs of all files whose URL begins with prefix.
func (a *Adapter) List(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		p, err := a.find("list", prefix)
		if err != nil {
			yield("", err)
			return
		}
		client, err := connect(a, p, container.NewClientWithSharedKeyCredential, container.NewClient, (*container.ClientOptions)(a.clientOptions(noRetries)), "")
		if err != nil {
			yield("", &storage.Error{Op: "list", URL: prefix, Err: err})
			return
		}
		stem := prefix[:len(prefix)-len(p.name)]
		pages := client.NewListBlobsFlatPager(&container.ListBlobsFlatOptions{Prefix: &p.name})
		for pages.More() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				yield("", p.explain(ctx, "list", err))
				return
			}
			if page.Segment == nil {
				continue
			}
			for _, item := range page.Segment.BlobItems {
				if item.Name != nil && !yield(stem+*item.Name, nil) {
					return
				}
			}
		}
	}
}
