package main

import (
	"errors"
	"io"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"
)

// mood is the behaviour of a proxy.
type mood int

const (
	honest  mood = iota
	refuse       // connections are closed at once
	silent       // they are accepted and never answered
	garbage      // answered with something that is not HTTP
	lies         // answered 200 with a body that is no answer
	denies       // answered 401
	cuts         // the answer ends after a few bytes
	slow         // every read of the answer is delayed
)

// proxy is in front of a server and can be made to misbehave.
type proxy struct {
	listener net.Listener
	all      sync.WaitGroup

	mu     sync.Mutex
	target string
	mood   mood
	conns  map[net.Conn]bool
}

func newProxy(target string) (*proxy, error) {
	u, err := url.Parse(target)
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // at once
	if err != nil {
		return nil, err
	}
	p := &proxy{target: u.Host, listener: l, conns: map[net.Conn]bool{}}
	p.all.Go(p.accept)
	return p, nil
}

func (p *proxy) url() string { return "http://" + p.listener.Addr().String() }

// be changes the behaviour; existing connections are cut.
func (p *proxy) be(m mood) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mood = m
	for c := range p.conns {
		_ = c.Close()
	}
}

// stand sends new connections to another address.
func (p *proxy) stand(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

func (p *proxy) now() (mood, string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mood, p.target
}

func (p *proxy) close() error {
	err := p.listener.Close()
	p.be(refuse)
	p.all.Wait()
	return err
}

func (p *proxy) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		p.conns[c] = true
		p.mu.Unlock()
		p.all.Go(func() {
			p.handle(c)
			p.mu.Lock()
			delete(p.conns, c)
			p.mu.Unlock()
			_ = c.Close()
		})
	}
}

func (p *proxy) handle(c net.Conn) {
	answer := ""
	m, target := p.now()
	switch m {
	case refuse:
		return
	case silent:
		_, _ = io.Copy(io.Discard, c)
		return
	case garbage:
		answer = strings.Repeat("\x00\xffnot HTTP\r\n", 200)
	case lies:
		answer = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 17\r\nConnection: close\r\n\r\n{\"data\": [1, 2, }"
	case denies:
		answer = "HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
	case honest, cuts, slow:
		p.pass(c, m, target)
		return
	}
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)) // the request's head, unread
	_, _ = c.Read(make([]byte, 64<<10))
	_, _ = io.WriteString(c, answer)
}

func (p *proxy) pass(c net.Conn, m mood, target string) {
	server, err := net.Dial("tcp", target) //nolint:noctx // on this machine
	if err != nil {
		return
	}
	defer func() { _ = server.Close() }()
	p.all.Go(func() {
		_, _ = io.Copy(server, c)
		if tcp, ok := server.(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
		}
	})
	switch m {
	case cuts:
		_, _ = io.CopyN(c, server, 700)
	case slow:
		buffer := make([]byte, 512)
		for err == nil {
			var n int
			n, err = server.Read(buffer)
			time.Sleep(200 * time.Millisecond)
			if _, failed := c.Write(buffer[:n]); failed != nil {
				err = errors.Join(err, failed)
			}
		}
	default:
		_, _ = io.Copy(c, server)
	}
	_ = c.Close() // ends the other direction
}
