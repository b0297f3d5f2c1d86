package s3

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"clearmlserving/outbound"
	"clearmlserving/storage"
)

// connection is the client for one server with one access.
type connection struct {
	read  minio.Core // makes a single attempt
	write *minio.Client
}

// clientKey identifies a connection. The access is one of the Options.
type clientKey struct {
	endpoint string
	access   *Access
}

// target is one file with its connection.
type target struct {
	*connection
	place
	url    string
	access *Access
}

// find returns the target of a URL. For a list, the key may be empty.
func (a *Adapter) find(op, url string) (target, error) {
	p, access, err := a.o.choose(url)
	if err == nil && p.key == "" && op != "list" {
		err = errNoBucket
	}
	if err != nil {
		return target{}, err
	}
	c, err := a.connect(p, access)
	return target{connection: c, place: p, url: url, access: access}, err
}

func (a *Adapter) connect(p place, access *Access) (*connection, error) {
	host, secure, err := a.o.endpoint(p, access)
	if err != nil {
		return nil, err
	}
	id := clientKey{host, access}
	a.mu.Lock()
	defer a.mu.Unlock()
	if c := a.clients[id]; c != nil {
		return c, nil
	}
	c := &connection{}
	transport := a.newTransport(access)
	creds, err := access.credentials(transport)
	if err != nil {
		return nil, err
	}
	o := minio.Options{Creds: creds, Secure: secure, Region: access.Region, Transport: transport, MaxRetries: 1}
	if p.host != "" || a.o.Endpoint != "" {
		o.BucketLookup = minio.BucketLookupPath
		o.Region = cmp.Or(o.Region, "us-east-1") // the region of servers without regions
	}
	reader, err := minio.New(host, &o)
	if err != nil {
		return nil, err
	}
	// A piece of an upload is in memory, so it can be sent again; a whole upload cannot.
	o.MaxRetries = 5
	if c.write, err = minio.New(host, &o); err != nil {
		return nil, err
	}
	c.read = minio.Core{Client: reader}
	a.clients[id] = c
	return c, nil
}

// errNoKey means that no credentials are configured for a bucket.
var errNoKey = errors.New("no key and secret for it are configured: set sdk.aws.s3.key and secret, or an entry in sdk.aws.s3.credentials, in clearml.conf, or the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use_credentials_chain: true for those of the machine")

func (access *Access) credentials(transport http.RoundTripper) (*credentials.Credentials, error) {
	switch {
	case access.Key != "" && access.Secret != "":
		return credentials.NewStaticV4(access.Key, access.Secret, access.Token), nil
	case access.Chain:
		return credentials.NewChainCredentials([]credentials.Provider{
			&credentials.EnvAWS{},
			&credentials.FileAWSCredentials{Profile: access.Profile},
			&credentials.IAM{Client: &http.Client{Transport: transport, Timeout: 10 * time.Second}},
		}), nil
	case access.Profile != "":
		return credentials.New(&credentials.FileAWSCredentials{Profile: access.Profile}), nil
	}
	return nil, fmt.Errorf("%w: %w", storage.ErrDenied, errNoKey)
}

// newTransport creates the transport for one access. Its settings for certificates take precedence.
func (a *Adapter) newTransport(access *Access) *http.Transport {
	trust := a.o.Trust
	if access.Insecure || access.CAFile != "" {
		trust = outbound.Trust{Insecure: access.Insecure, Only: outbound.Source{Path: access.CAFile, From: "verify"}, Explicit: true}
	}
	return a.o.Network.Transport(trust, time.Minute)
}
