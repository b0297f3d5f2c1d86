package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// slowCode streams as many megabytes as it is asked for, and waits between its steps.
const slowCode = `
import os, time


class Preprocess:
    def preprocess(self, body, state, collect):
        if "wait" in body:
            open(body["wait"] + ".begun", "w").close()
            while not os.path.exists(body["wait"]):
                time.sleep(0.001)
        return body

    def process(self, data, state, collect):
        if "wait" in data:
            open(data["wait"] + ".processed", "w").close()
        if "whole" in data:
            return "x" * (data["whole"] << 20)
        if "megabytes" in data:
            return (b"x" * 50000 for _ in range(20 * data["megabytes"]))
        return data
`

const asynchronous = `
import asyncio


class Preprocess:
    async def process(self, data, state, collect):
        return self.stream(data) if "megabytes" in data else data

    async def stream(self, data):
        for _ in range(20 * data["megabytes"]):
            await asyncio.sleep(0)
            yield b"x" * 50000
`

func TestClientsThatReadSlowlyHoldUpNobody(t *testing.T) {
	for _, c := range []struct {
		name, question, endpoint string
		cut                      bool
	}{
		{"a stream that fits into memory", `{"megabytes": 25}`, "plain", false},
		{"a stream that does not", `{"megabytes": 200}`, "plain", true},
		{"streams of async code", `{"megabytes": 200}`, "async", false},
		{"whole answers", `{"whole": 25}`, "plain", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			addr := serveCode(t, map[string]endpointCode{
				"plain": {engine: "custom", code: slowCode}, "async": {engine: "custom_async", code: asynchronous},
			}, nil)
			waitFor200(t, addr, c.endpoint)
			slow := askSlowly(t, addr, c.endpoint, c.question)
			ctx, cancel := context.WithTimeout(t.Context(), 45*time.Second) // the client would be cut after 60
			defer cancel()
			for range 3 {
				if status, body, err := askWhole(ctx, addr, c.endpoint, `{"x": 1}`); err != nil || status != 200 || body != `{"x":1}` {
					t.Fatalf("answered %d %s, %v", status, body, err)
				}
			}
			_ = slow.SetReadDeadline(time.Now().Add(2 * time.Minute))
			answer, err := http.ReadResponse(bufio.NewReader(slow), nil)
			if err != nil {
				t.Fatal(err)
			}
			n, err := io.Copy(io.Discard, answer.Body)
			if cut := err != nil; cut != c.cut {
				t.Errorf("%d bytes came, then %v", n, err)
			}
		})
	}
}

func TestAClientThatLeavesGivesTheWorkerBackBetweenTwoSteps(t *testing.T) {
	addr := serveCode(t, map[string]endpointCode{"plain": {engine: "custom", code: slowCode}}, nil)
	waitFor200(t, addr, "plain")
	// The end of the connection is looked for ten times a second, when the machine has time.
	for patience := 500 * time.Millisecond; patience < time.Minute; patience *= 2 {
		gate := filepath.Join(t.TempDir(), "gate")
		leaver := askSlowly(t, addr, "plain", fmt.Sprintf(`{"wait": %q}`, gate))
		appears(t, gate+".begun")
		if err := leaver.SetLinger(0); err != nil { // a reset: it does not only send nothing more
			t.Fatal(err)
		}
		_ = leaver.Close()
		time.Sleep(patience)
		if err := os.WriteFile(gate, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if status, body, err := askWhole(t.Context(), addr, "plain", `{"x": 1}`); err != nil || status != 200 {
			t.Fatalf("answered %d %s, %v", status, body, err)
		}
		if _, err := os.Stat(gate + ".processed"); err != nil {
			return
		}
	}
	t.Error("user code goes on with a request whose client has left")
}

// askSlowly asks on a connection of its own and reads nothing.
func askSlowly(t *testing.T, addr net.Addr, endpoint, question string) *net.TCPConn {
	t.Helper()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		t.Fatalf("a %T", c)
	}
	_ = tcp.SetReadBuffer(64 << 10)
	if _, err := fmt.Fprintf(c, "POST /serve/%s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", endpoint, len(question), question); err != nil {
		t.Fatal(err)
	}
	return tcp
}

func askWhole(ctx context.Context, addr net.Addr, endpoint, question string) (int, string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+addr.String()+"/serve/"+endpoint, strings.NewReader(question))
	if err != nil {
		return 0, "", err
	}
	r.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

func waitFor200(t *testing.T, addr net.Addr, endpoint string) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if status, _, err := askWhole(t.Context(), addr, endpoint, `{}`); err == nil && status == 200 {
			return
		}
	}
	t.Fatal("the endpoint does not answer")
}

func appears(t *testing.T, file string) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if _, err := os.Stat(file); err == nil {
			return
		}
	}
	t.Fatalf("%s does not come", file)
}
