package kubernetes

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// loadTarget, when set, makes the test binary a client within a node: it sends requests until its standard input
// ends, and writes a line of counts each time it gets a line.
const loadTarget = "CLEARML_SERVING_LOAD_TARGET"

// counts are what became of the requests.
type counts struct {
	Sent, Wrong, Failed uint64
	// Again is how often a request was sent again, because its connection was refused or broke before any byte of an
	// answer. Proxies do that.
	Again  uint64
	Faults []string
}

// repeats is how long a request is sent again. Until the cluster has noticed that an instance is dead, it gives
// connections to it, which are refused.
const repeats = 20 * time.Second

// clients is the number of connections, of which half are new for each request.
const clients = 6

func runLoad(target string) {
	l := &loader{target: target}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	for i := range clients {
		running.Go(func() { l.client(ctx, i%2 == 0) })
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		text, _ := json.Marshal(l.counts())
		fmt.Println(string(text))
	}
	stop()
	running.Wait()
	text, _ := json.Marshal(l.counts())
	fmt.Println(string(text))
}

type loader struct {
	target                     string
	number                     atomic.Int64
	sent, wrong, failed, again atomic.Uint64
	mu                         sync.Mutex // guards faults
	faults                     []string
}

func (l *loader) counts() counts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return counts{Sent: l.sent.Load(), Wrong: l.wrong.Load(), Failed: l.failed.Load(), Again: l.again.Load(), Faults: l.faults}
}

func (l *loader) fault(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.faults) < 20 {
		l.faults = append(l.faults, time.Now().Format("15:04:05.000")+" "+text)
	}
}

func (l *loader) client(ctx context.Context, keep bool) {
	client := &http.Client{Timeout: 2 * time.Minute, Transport: &http.Transport{
		DisableKeepAlives: !keep, DialContext: (&net.Dialer{Timeout: 20 * time.Second}).DialContext,
	}}
	for ctx.Err() == nil {
		n := l.number.Add(1)
		body := fmt.Appendf(nil, `{"x": %d}`, n)
		status, answer, clean, err := l.ask(client, body)
		for begun := time.Now(); err != nil && clean && time.Since(begun) < repeats; {
			l.again.Add(1)
			l.fault("again: " + err.Error())
			time.Sleep(100 * time.Millisecond)
			status, answer, clean, err = l.ask(client, body)
		}
		l.sent.Add(1)
		switch want := fmt.Sprintf(`{"sum":%d}`, n+1); {
		case err != nil:
			l.failed.Add(1)
			l.fault(err.Error())
		case status != http.StatusOK:
			l.failed.Add(1)
			l.fault(fmt.Sprintf("%d %s", status, answer))
		case answer != want:
			l.wrong.Add(1)
			l.fault(fmt.Sprintf("%s, want %s", answer, want))
		}
	}
}

// ask sends one request. clean reports that no byte of an answer has come.
func (l *loader) ask(client *http.Client, body []byte) (status int, answer string, clean bool, err error) {
	clean = true
	trace := &httptrace.ClientTrace{GotFirstResponseByte: func() { clean = false }}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(context.Background(), trace), http.MethodPost, l.target, bytes.NewReader(body))
	if err != nil {
		return 0, "", false, err
	}
	req.GetBody = nil // the transport must not repeat it by itself: each repetition is counted
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", clean, err
	}
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), clean, errors.Join(err, resp.Body.Close())
}

// load is the client as the test sees it.
type load struct {
	t   *testing.T
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

func startLoad(t *testing.T, home, target string) *load {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	l := &load{t: t, cmd: exec.Command(home+"/enter", self)}
	l.cmd.Env = append(os.Environ(), loadTarget+"="+target)
	l.cmd.Stderr = os.Stderr
	if l.in, err = l.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := l.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	l.out = bufio.NewScanner(out)
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return l
}

// now are the counts at this moment.
func (l *load) now() counts {
	l.t.Helper()
	if _, err := io.WriteString(l.in, "\n"); err != nil {
		l.t.Fatal(err)
	}
	return l.read()
}

func (l *load) read() (c counts) {
	l.t.Helper()
	if !l.out.Scan() {
		l.t.Fatalf("the client has ended: %v", l.out.Err())
	}
	if err := json.Unmarshal([]byte(strings.TrimSpace(l.out.Text())), &c); err != nil {
		l.t.Fatal(err)
	}
	return c
}

func (l *load) end() counts {
	l.t.Helper()
	if err := l.in.Close(); err != nil {
		l.t.Fatal(err)
	}
	c := l.read()
	if err := l.cmd.Wait(); err != nil {
		l.t.Fatal(err)
	}
	return c
}
