package listener

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"
)

// socketOf is the connection below TLS, or the connection itself. Time limits close the socket: a
// TLS close would write to a client that may not be reading, and the watcher must not block.
func socketOf(nc net.Conn) net.Conn {
	if t, ok := nc.(*tls.Conn); ok {
		return t.NetConn()
	}
	return nc
}

// greet does the TLS handshake. The handshake counts as part of the time limit for the head, and
// runs in the goroutine of the connection, so that a slow client does not affect others.
func (c *conn) greet() bool {
	t, ok := c.nc.(*tls.Conn)
	if !ok {
		return true
	}
	err := t.HandshakeContext(context.Background())
	if err == nil {
		return true
	}
	var plain tls.RecordHeaderError
	if errors.As(err, &plain) && plain.Conn != nil && looksLikeHTTP(plain.RecordHeader[:]) {
		_ = plain.Conn.SetWriteDeadline(time.Now().Add(writeTimeout)) // else the answer is not sent
		_, _ = io.WriteString(plain.Conn, "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: 67\r\n\r\n"+plainText)
	}
	c.server.o.Logger.Debug("handshake failed", "remote", c.nc.RemoteAddr().String(), "err", err)
	return false
}

// choseHTTP2 reports whether the TLS handshake has chosen HTTP/2.
func (c *conn) choseHTTP2() bool {
	t, ok := c.nc.(*tls.Conn)
	return ok && t.ConnectionState().NegotiatedProtocol == "h2"
}

const plainText = `{"detail":"This is an HTTPS server: ask it with https:// instead."}`

func looksLikeHTTP(begin []byte) bool {
	switch string(begin) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "DELET", "PATCH":
		return true
	}
	return false
}
