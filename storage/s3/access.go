package s3

import (
	"fmt"
	"net/url"
	"strings"
)

// place is a parsed URL.
type place struct{ host, bucket, key string }

// choose selects the access for a URL, and parses the URL by it: a host is recognised by its port,
// or because a bucket is configured with it.
func (o *Options) choose(rawURL string) (place, *Access, error) {
	scheme, rest, _ := strings.Cut(rawURL, "://")
	if !strings.EqualFold(scheme, "s3") {
		return place{}, nil, errNoBucket
	}
	access, host, longest := &o.Default, "", -1
	for i := range o.Buckets {
		b := &o.Buckets[i]
		prefix := strings.ToLower(b.place())
		if len(prefix) > longest && prefix != "" && within(strings.ToLower(rest), prefix) {
			access, host, longest = &b.Access, b.Host, len(prefix)
		}
	}
	first, behind, _ := strings.Cut(rest, "/")
	p := place{bucket: first, key: behind}
	if host != "" || hasPort(first) {
		p.host = first
		p.bucket, p.key, _ = strings.Cut(behind, "/")
	}
	if p.bucket == "" {
		return place{}, nil, errNoBucket
	}
	return p, access, nil
}

// place is the prefix of the bucket's URLs, after the scheme.
func (b *Bucket) place() string {
	name := strings.Trim(b.Name, "/")
	if b.Host == "" || name == "" {
		return b.Host + name
	}
	return b.Host + "/" + name
}

// Named reports whether the URL is in a configured bucket, a folder of one, or on a configured
// server. Unlike choose, which only selects keys, it compares the names of folders exactly.
func (a *Adapter) Named(rawURL string) bool {
	scheme, rest, _ := strings.Cut(rawURL, "://")
	for _, b := range a.o.Buckets {
		place := b.place() + "/"
		folders := rest
		if host := len(b.Host); host <= len(rest) && strings.EqualFold(rest[:host], b.Host) {
			folders = b.Host + rest[host:] // the case of a host does not count
		}
		if strings.EqualFold(scheme, "s3") && place != "/" && strings.HasPrefix(folders, place) {
			return true
		}
	}
	return false
}

// within reports whether a text is the prefix or continues with a slash: the access to the bucket
// "data" does not apply to "data-of-others".
func within(text, prefix string) bool {
	rest, ok := strings.CutPrefix(text, prefix)
	return ok && (rest == "" || rest[0] == '/')
}

func hasPort(host string) bool {
	at := strings.LastIndexByte(host, ':')
	return at > 0 && at < len(host)-1 && strings.Trim(host[at+1:], "0123456789") == ""
}

// endpoint is the server, and whether it uses https.
func (o *Options) endpoint(p place, access *Access) (host string, secure bool, err error) {
	switch {
	case p.host != "":
		return p.host, !access.Plain, nil
	case o.Endpoint != "":
		u, err := url.Parse(o.Endpoint)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return "", false, fmt.Errorf("the S3 endpoint %q is not an http or https address", o.Endpoint)
		}
		return u.Host, u.Scheme == "https", nil
	}
	return "s3.amazonaws.com", !access.Plain, nil
}
