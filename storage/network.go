package storage

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strconv"
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
		return &Error{Op: op, URL: url, Err: errors.New("the server does not speak https there")}
	}
	return &Error{Op: op, URL: url, Transient: true, Err: fmt.Errorf("the server can't be reached: %w", err)}
}

// HealingStatus reports an HTTP status after which the same request may succeed later.
func HealingStatus(status int) bool {
	return status >= 500 && status != http.StatusNotImplemented ||
		status == http.StatusRequestTimeout || status == http.StatusTooManyRequests || status == http.StatusTooEarly
}

// ContentRange reads "bytes first-last/total"; to is one past last.
func ContentRange(field string) (from, to, total int64, ok bool) {
	field, ok = strings.CutPrefix(strings.TrimSpace(field), "bytes ")
	if !ok {
		return 0, 0, 0, false
	}
	span, size, _ := strings.Cut(field, "/")
	first, last, _ := strings.Cut(span, "-")
	from, err1 := strconv.ParseInt(first, 10, 64)
	to, err2 := strconv.ParseInt(last, 10, 64)
	total, err3 := strconv.ParseInt(size, 10, 64)
	if err1 != nil || err2 != nil || err3 != nil || from < 0 || to < from || to >= total {
		return 0, 0, 0, false
	}
	return from, to + 1, total, true
}
