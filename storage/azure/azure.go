// Package azure accesses files in Azure Blob Storage as
// azure://account.blob.core.windows.net/container/blob. It owns the connections and the selection
// of the account for a URL. Each operation is a single attempt. The package reads neither
// configuration nor environment, except through the search for the machine's identity.
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
	// Machine uses the Azure identity of this machine instead of a key.
	Machine bool
	// Endpoint replaces the host of the URL, as http://127.0.0.1:10000/name for an
	// emulator. "": https at the host of the URL.
	Endpoint string
	// From is the source of the account's configuration, for messages.
	From string
}

// Adapter accesses files in Azure Blob Storage.
type Adapter struct {
	o       Options
	machine func() (azcore.TokenCredential, error) // made on first use
}

var (
	_ storage.Lister = (*Adapter)(nil)
	_ storage.Named  = (*Adapter)(nil)
)

// New creates an Adapter; it does not connect.
func New(o Options) *Adapter {
	a := &Adapter{o: o}
	if o.Transport == nil {
		a.o.Transport = outbound.Network{}.Transport(outbound.Trust{}, time.Minute)
	}
	a.machine = sync.OnceValues(func() (azcore.TokenCredential, error) { return newIdentity(a.clientOptions(noRetries).ClientOptions) })
	return a
}

// place is a parsed URL.
type place struct {
	url, host, container, name string
	account                    Account
}

var errNoContainer = errors.New("an address in Azure is azure://account.blob.core.windows.net/container/name")

// find parses a URL. For a list, the name may be empty.
func (a *Adapter) find(op, rawURL string) (place, error) {
	scheme, rest, _ := strings.Cut(rawURL, "://")
	host, behind, _ := strings.Cut(rest, "/")
	p := place{url: rawURL, host: host}
	p.container, p.name, _ = strings.Cut(behind, "/")
	if !strings.EqualFold(scheme, "azure") || p.host == "" || p.container == "" || (p.name == "" && op != "list") {
		return place{}, errNoContainer
	}
	name, _, _ := strings.Cut(p.host, ".")
	for _, account := range a.o.Accounts {
		if account.Name == name && (account.Container == "" || account.Container == p.container) {
			p.account = account
			return p, nil
		}
	}
	return place{}, fmt.Errorf("%w: no key of the account %q is configured for the container %q: add it to sdk.azure.storage.containers in clearml.conf, or set AZURE_STORAGE_ACCOUNT and AZURE_STORAGE_KEY", storage.ErrDenied, name, p.container)
}

// Named reports whether the URL is in a configured account or container.
func (a *Adapter) Named(rawURL string) bool {
	_, err := a.find("delete", rawURL)
	return err == nil
}

// Stat describes a file.
func (a *Adapter) Stat(ctx context.Context, rawURL string) (_ storage.Object, err error) {
	defer storage.Wrap(ctx, "stat", rawURL, &err)
	p, client, err := a.blob("stat", rawURL)
	if err != nil {
		return storage.Object{}, err
	}
	got, err := client.GetProperties(ctx, nil)
	if err != nil {
		return storage.Object{}, p.explain(ctx, "stat", err)
	}
	return object(got.ContentLength, got.ETag), nil
}

func object(length *int64, etag *azcore.ETag) storage.Object {
	o := storage.Object{Size: -1, Ranges: true}
	if length != nil {
		o.Size = *length
	}
	if etag != nil {
		o.ETag = string(*etag)
	}
	return o
}

// Open reads a part of a file.
func (a *Adapter) Open(ctx context.Context, rawURL string, part storage.Part) (_ io.ReadCloser, _ storage.Object, err error) {
	defer storage.Wrap(ctx, "open", rawURL, &err)
	p, client, err := a.blob("open", rawURL)
	if err != nil {
		return nil, storage.Object{}, err
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
	field := ""
	if got.ContentRange != nil {
		field = *got.ContentRange
	}
	now, length, err := storage.CheckAnswer(part, object(got.ContentLength, got.ETag), field)
	if err != nil {
		_ = got.Body.Close() // its content is not the requested one
		return nil, storage.Object{}, err
	}
	return storage.Body(ctx, rawURL, got.Body, length), now, nil
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
func (a *Adapter) Put(ctx context.Context, rawURL string, r io.Reader, size int64, progress storage.Progress) (err error) {
	defer storage.Wrap(ctx, "put", rawURL, &err)
	p, err := a.find("put", rawURL)
	if err != nil {
		return err
	}
	client, err := connect(a, p, blockblob.NewClientWithSharedKeyCredential, blockblob.NewClient, (*blockblob.ClientOptions)(a.clientOptions(retries)), p.name)
	if err != nil {
		return err
	}
	source, err := storage.NewSource(ctx, r, size, measured, progress)
	if err != nil {
		return err
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
		return sourceErr
	}
	if err != nil {
		return p.explain(ctx, "put", err)
	}
	return nil
}

// Delete removes a file.
func (a *Adapter) Delete(ctx context.Context, rawURL string) (err error) {
	defer storage.Wrap(ctx, "delete", rawURL, &err)
	p, client, err := a.blob("delete", rawURL)
	if err != nil {
		return err
	}
	if _, err = client.Delete(ctx, nil); err != nil {
		return p.explain(ctx, "delete", err)
	}
	return nil
}

// List returns the URLs of all files whose URL begins with prefix.
func (a *Adapter) List(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return storage.Listing(ctx, prefix, func(yield func(string) bool) error {
		p, err := a.find("list", prefix)
		if err != nil {
			return err
		}
		client, err := connect(a, p, container.NewClientWithSharedKeyCredential, container.NewClient, (*container.ClientOptions)(a.clientOptions(noRetries)), "")
		if err != nil {
			return err
		}
		stem := prefix[:len(prefix)-len(p.name)]
		pages := client.NewListBlobsFlatPager(&container.ListBlobsFlatOptions{Prefix: &p.name})
		for pages.More() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				return p.explain(ctx, "list", err)
			}
			if page.Segment == nil {
				continue
			}
			for _, item := range page.Segment.BlobItems {
				if item.Name != nil && !yield(stem+*item.Name) {
					return nil
				}
			}
		}
		return nil
	})
}
