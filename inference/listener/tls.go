package listener

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"
)

// socketOf is the connection below TLS, or the connection itself. Time limits
// close that one: ending a TLS session in style means writing to a client that
// may not be reading, and the watcher waits for nobody.
func socketOf(nc net.Conn) net.Conn {
	if t, ok := nc.(*tls.Conn); ok {
		return t.NetConn()
	}
	return nc
}

// greet shakes hands where the connection is encrypted. The handshake belongs to
// the time that a head may take to arrive, and to the goroutine of the
// connection: a client that is slow at it holds up nobody else.
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

const plainText = `{"detail":"This is an HTTPS server: ask it with https:// instead."}`

func looksLikeHTTP(begin []byte) bool {
	switch string(begin) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "DELET", "PATCH":
		return true
	}
	return false
}
