package ui

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"clearmlserving/serving"
)

// The address of an instance stands in a record that every user may write, so nothing is
// sent there before the address has proved that it is that instance: it signs a fresh
// challenge by the key of the same record. What is sent afterwards goes over the very
// connection that has proved it, so neither a name that resolves elsewhere the second
// time nor a redirect leads away.

// proofLimit bounds connecting and proving.
const proofLimit = 5 * time.Second

// maxProof bounds the answer to a challenge.
const maxProof = 4 << 10

// reached is a connection to an instance that has proved who it is.
type reached struct {
	*http.Client
	transport *http.Transport
}

// Close ends the connection.
func (r reached) Close() { r.transport.CloseIdleConnections() }

// authorities are those that an instance's certificate may come from, nil for the
// machine's. A file that has changed counts from the next request on.
func (p *Pages) authorities() (*x509.CertPool, error) {
	var pool *x509.CertPool
	if p.opts.Authorities != nil {
		var err error
		if pool, err = p.opts.Authorities(); err != nil {
			return nil, fmt.Errorf("authorities of instances: %w", err)
		}
	}
	if p.opts.InstanceCA == "" {
		return pool, nil
	}
	pem, err := os.ReadFile(p.opts.InstanceCA)
	if err != nil {
		return nil, fmt.Errorf("authorities of instances: %w", err)
	}
	if pool == nil {
		if pool, err = x509.SystemCertPool(); err != nil {
			pool = x509.NewCertPool() // a machine that has none
		}
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("authorities of instances: %s holds no certificate in PEM form", p.opts.InstanceCA)
	}
	return pool, nil
}

// reach connects to the instance at base and lets it prove that it holds the private half
// of key. The caller closes what it gets.
func (p *Pages) reach(ctx context.Context, base *url.URL, key string) (reached, error) {
	trusted, err := p.authorities()
	if err != nil {
		return reached{}, err
	}
	dialer := &net.Dialer{Timeout: proofLimit, Control: refuseForbidden}
	var dialled atomic.Bool
	transport := &http.Transport{
		MaxConnsPerHost: 1, ResponseHeaderTimeout: playgroundLimit, TLSHandshakeTimeout: proofLimit,
		TLSClientConfig: &tls.Config{RootCAs: trusted, MinVersion: tls.VersionTLS12},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			if dialled.Swap(true) {
				return nil, errConnectionEnded
			}
			return dialer.DialContext(ctx, network, address)
		},
	}
	r := reached{transport: transport, Client: &http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if err := r.prove(ctx, base, key); err != nil {
		r.Close()
		return reached{}, err
	}
	return r, nil
}

var errConnectionEnded = errors.New("the instance ended the connection on which it proved who it is")

func (r reached) prove(ctx context.Context, base *url.URL, key string) error {
	ctx, cancel := context.WithTimeout(ctx, proofLimit)
	defer cancel()
	challenge := rand.Text()
	target := &url.URL{Scheme: base.Scheme, Host: base.Host, Path: serving.IdentityPath, RawQuery: url.Values{"challenge": {challenge}}.Encode()}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), http.NoBody)
	if err != nil {
		return err
	}
	answer, err := r.Do(request)
	if untrusted := (x509.UnknownAuthorityError{}); errors.As(err, &untrusted) {
		return fmt.Errorf("%w: name the authority of its certificate with --instance-tls-ca", err)
	}
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, maxProof))
	if err != nil {
		return err
	}
	var proof serving.Proof
	if answer.StatusCode != http.StatusOK || json.Unmarshal(text, &proof) != nil {
		return fmt.Errorf("it answers %d to the challenge and not a proof", answer.StatusCode)
	}
	return proof.Verify(key, challenge)
}

// refuseForbidden keeps even the challenge away from where no instance is: it sees the
// address that a name has led to, right before the connection is made.
func refuseForbidden(_, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if forbidden(at.Addr()) {
		return fmt.Errorf("%s is no address of an instance", at.Addr())
	}
	return nil
}

// forbidden are addresses of no machine, and those where clouds tell a machine its secrets.
func forbidden(ip netip.Addr) bool {
	ip = ip.WithZone("").Unmap()
	switch ip.String() {
	case "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254":
		return true
	}
	return ip.IsUnspecified() || ip.IsMulticast() || ip.IsLinkLocalUnicast() || ip == netip.AddrFrom4([4]byte{255, 255, 255, 255})
}
