package listener

import (
	"bytes"
	"net/url"
	"strconv"
	"strings"
	"unsafe"
)

// head is a parsed request line with its header fields. Its texts point into the parsed bytes.
type head struct {
	method  string
	path    string // decoded once
	query   string
	minor   int // HTTP/1.minor
	fields  []field
	length  int64 // of the body, -1: chunked
	close   bool  // the client wants the connection closed after the answer
	expects bool  // the client waits for "100 Continue" before it sends the body
}

type field struct{ name, value string }

// get returns a field by name, ignoring case; "" if there is none.
func (h *head) get(name string) string {
	for i := range h.fields {
		if len(h.fields[i].name) == len(name) && strings.EqualFold(h.fields[i].name, name) {
			return h.fields[i].value
		}
	}
	return ""
}

// headError is a request that cannot be parsed. The connection is closed after the answer, because
// the beginning of the next request is unknown.
type headError struct {
	status int
	text   string
}

func (e *headError) Error() string { return e.text }

var (
	errRequestLine = &headError{400, "Bad Request: the request line is not METHOD TARGET HTTP/1.1"}
	errTarget      = &headError{400, "Bad Request: the request target is not a path"}
	errVersion     = &headError{505, "HTTP Version Not Supported: use HTTP/1.1"}
	errLineEnd     = &headError{400, "Bad Request: a line of the head does not end in CR LF"}
	errField       = &headError{400, "Bad Request: a header field is malformed"}
	errHost        = &headError{400, "Bad Request: exactly one Host header is required"}
	errLength      = &headError{400, "Bad Request: Content-Length is not one whole number"}
	errFraming     = &headError{400, "Bad Request: both Content-Length and Transfer-Encoding are given"}
	errEncoding    = &headError{501, "Not Implemented: only the transfer encoding chunked is supported"}
	errExpect      = &headError{417, "Expectation Failed: only 100-continue is supported"}
	errChunk       = &headError{400, "Bad Request: the chunked body is malformed"}
)

// headEnd returns the length of the head in b, including its empty line, or -1 if the end has not
// arrived. The end is not in b[:from].
func headEnd(b []byte, from int) int {
	if i := bytes.Index(b[max(0, from-3):], []byte("\r\n\r\n")); i >= 0 {
		return max(0, from-3) + i + 4
	}
	return -1
}

// bareLineFeed reports whether b, an unfinished head, has a line that does not end in CRLF.
// b[:from] has been checked.
func bareLineFeed(b []byte, from int) bool {
	for i := from; ; i++ {
		n := bytes.IndexByte(b[i:], '\n')
		if n < 0 {
			return false
		}
		if i += n; i == 0 || b[i-1] != '\r' {
			return true
		}
	}
}

// parse reads a whole head, including its empty line. It is stricter than RFC 9112 where leniency
// could make two servers read different requests: line ends are CRLF, no folded lines, no blank
// before a colon, one framing, one Content-Length, one Host.
func (h *head) parse(b []byte) *headError {
	*h = head{fields: h.fields[:0]}
	line, rest, _ := bytes.Cut(b, []byte("\r\n"))
	if err := h.requestLine(line); err != nil {
		return err
	}
	hosts, lengths, encodings := 0, 0, 0
	h.close = h.minor == 0
	for len(rest) > 2 {
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		name, value, err := parseField(line)
		if err != nil {
			return err
		}
		h.fields = append(h.fields, field{name, value})
		switch len(name) { // most names are none of these
		case 4:
			if strings.EqualFold(name, "Host") {
				hosts++
			}
		case 6:
			if strings.EqualFold(name, "Expect") {
				if !strings.EqualFold(value, "100-continue") {
					return errExpect
				}
				h.expects = h.minor > 0
			}
		case 10:
			if strings.EqualFold(name, "Connection") {
				h.connection(value)
			}
		case 14:
			if strings.EqualFold(name, "Content-Length") {
				lengths++
				if h.length, err = contentLength(value); err != nil {
					return err
				}
			}
		case 17:
			if strings.EqualFold(name, "Transfer-Encoding") {
				encodings++
				if !strings.EqualFold(value, "chunked") || h.minor == 0 {
					return errEncoding
				}
			}
		}
	}
	switch {
	case hosts > 1 || (hosts == 0 && h.minor > 0):
		return errHost
	case lengths > 1:
		return errLength
	case encodings > 1:
		return errEncoding
	case encodings == 1 && lengths == 1:
		return errFraming
	case encodings == 1:
		h.length = -1
	}
	return nil
}

func (h *head) requestLine(line []byte) *headError {
	method, rest, ok := bytes.Cut(line, []byte(" "))
	target, version, ok2 := bytes.Cut(rest, []byte(" "))
	if !ok || !ok2 || len(method) == 0 || !token(method) {
		return errRequestLine
	}
	switch string(version) {
	case "HTTP/1.1":
		h.minor = 1
	case "HTTP/1.0":
	default:
		if bytes.HasPrefix(version, []byte("HTTP/")) {
			return errVersion
		}
		return errRequestLine
	}
	h.method = text(method)
	return h.target(target)
}

// target extracts path and query from origin-form, or from the absolute-form of proxies.
func (h *head) target(b []byte) *headError {
	if len(b) == 0 {
		return errTarget
	}
	for _, c := range b {
		if c <= ' ' || c == 0x7f || c == '#' {
			return errTarget
		}
	}
	if b[0] != '/' {
		u, err := url.Parse(string(b))
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			return errTarget
		}
		h.path, h.query = u.Path, u.RawQuery
		if h.path == "" {
			h.path = "/"
		}
		return nil
	}
	path, query, _ := bytes.Cut(b, []byte("?"))
	h.path, h.query = text(path), text(query)
	if bytes.IndexByte(path, '%') >= 0 {
		decoded, err := url.PathUnescape(h.path)
		if err != nil {
			return errTarget
		}
		h.path = decoded
	}
	return nil
}

func (h *head) connection(value string) {
	for option := range strings.SplitSeq(value, ",") {
		option = strings.TrimSpace(option)
		switch {
		case strings.EqualFold(option, "close"):
			h.close = true
		case h.minor == 0 && strings.EqualFold(option, "keep-alive"):
			h.close = false
		}
	}
}

func parseField(line []byte) (name, value string, err *headError) {
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 || !token(line[:colon]) {
		return "", "", errField
	}
	v := bytes.Trim(line[colon+1:], " \t")
	for _, c := range v {
		if (c < ' ' && c != '\t') || c == 0x7f {
			return "", "", errField
		}
	}
	return text(line[:colon]), text(v), nil
}

func contentLength(value string) (int64, *headError) {
	if value == "" || len(value) > 18 {
		return 0, errLength
	}
	for i := range len(value) {
		if value[i] < '0' || value[i] > '9' {
			return 0, errLength
		}
	}
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return 0, errLength
	}
	return n, nil
}

// token reports whether b is a token of RFC 9110: a method or a field name.
func token(b []byte) bool {
	for _, c := range b {
		if c >= 0x80 || !tokenBytes[c] {
			return false
		}
	}
	return true
}

var tokenBytes = func() (table [128]bool) { //nolint:gochecknoglobals // a constant table
	for c := '0'; c <= '9'; c++ {
		table[c] = true
	}
	for c := 'a'; c <= 'z'; c++ {
		table[c], table[c-'a'+'A'] = true, true
	}
	for _, c := range "!#$%&'*+-.^_`|~" {
		table[c] = true
	}
	return table
}()

// text makes a string of bytes without a copy: it is valid as long as the request that owns the
// memory.
func text(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	return unsafe.String(&b[0], len(b))
}
