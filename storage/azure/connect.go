package azure

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"

	"clearmlserving/storage"
)

// The retries of Azure's client: a block of an upload is in memory and can be sent again; the
// caller retries everything else.
const (
	retries   = 4
	noRetries = -1
)

func (a *Adapter) clientOptions(tries int32) *blob.ClientOptions {
	return &blob.ClientOptions{ClientOptions: policy.ClientOptions{
		Transport: &http.Client{Transport: a.o.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		Retry:     policy.RetryOptions{MaxRetries: tries},
		Telemetry: policy.TelemetryOptions{ApplicationID: "clearml-serving"},
	}}
}

// blob returns the client for the file of a URL.
func (a *Adapter) blob(op, rawURL string) (place, *blob.Client, error) {
	p, err := a.find(op, rawURL)
	if err != nil {
		return p, nil, err
	}
	client, err := connect(a, p, blob.NewClientWithSharedKeyCredential, blob.NewClient, a.clientOptions(noRetries), p.name)
	return p, client, err
}

// address is the API's address of the container, or of a file in it.
func (p place) address(name string) string {
	root := "https://" + p.host
	if p.account.Endpoint != "" {
		root = strings.TrimRight(p.account.Endpoint, "/")
	}
	root += "/" + url.PathEscape(p.container)
	if name != "" {
		root += "/" + strings.ReplaceAll(url.PathEscape(name), "%2F", "/")
	}
	return root
}

// connect creates a client of either kind with the account's credentials. The library's clients are
// cheap; the transport is shared.
func connect[C, O any](a *Adapter, p place,
	byKey func(string, *blob.SharedKeyCredential, O) (C, error), byToken func(string, azcore.TokenCredential, O) (C, error), options O, name string,
) (C, error) {
	var none C
	if p.account.Key == "" && p.account.Machine {
		identity, err := a.machine()
		if err != nil {
			return none, err
		}
		return byToken(p.address(name), identity, options)
	}
	if p.account.Key == "" {
		return none, fmt.Errorf("%w: the account %q of %s has no key: set account_key", storage.ErrDenied, p.account.Name, p.account.From)
	}
	key, err := blob.NewSharedKeyCredential(p.account.Name, p.account.Key)
	if err != nil {
		return none, fmt.Errorf("%w: the key of the account %q (%s) is not a valid Azure key: %w", storage.ErrDenied, p.account.Name, p.account.From, errors.Unwrap(err))
	}
	return byKey(p.address(name), key, options)
}
