package storage

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// Unanswered is a request without an answer, as an *Error, or the end of ctx if that is the cause.
// Almost all of these are transient: a starting server, a name that is not in the DNS yet, a
// network failure. An untrusted certificate is not.
func Unanswered(ctx context.Context, op, url string, err error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	var (
		certificate *tls.CertificateVerificationError
		authority   x509.UnknownAuthorityError
		hostname    x509.HostnameError
		record      tls.RecordHeaderError
	)
	if errors.As(err, &authority) {
		return &Error{Op: op, URL: url, Err: fmt.Errorf("the server's certificate is not trusted: %w; name its authority with CLEARML_API_HOST_VERIFY_CERT, REQUESTS_CA_BUNDLE or SSL_CERT_FILE", err)}
	}
	if errors.As(err, &certificate) || errors.As(err, &hostname) {
		return &Error{Op: op, URL: url, Err: fmt.Errorf("the server's certificate is not trusted: %w", err)}
	}
	if errors.As(err, &record) || strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
		return &Error{Op: op, URL: url, Err: errors.New("the server does not use https on this port")}
	}
	return &Error{Op: op, URL: url, Transient: true, Err: fmt.Errorf("the server cannot be reached: %w", err)}
}

// HealingStatus reports an HTTP status after which the same request may succeed later.
func HealingStatus(status int) bool {
	return status >= 500 && status != http.StatusNotImplemented ||
		status == http.StatusRequestTimeout || status == http.StatusTooManyRequests || status == http.StatusTooEarly
}
