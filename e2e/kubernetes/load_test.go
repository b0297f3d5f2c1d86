package kubernetes

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"clearmlserving/e2e/crowd"
)

// loadTarget, when set, makes the test binary a client within a node: it sends requests until its standard input
// ends, and writes a line of counts each time it gets a line.
const loadTarget = "CLEARML_SERVING_LOAD_TARGET"

// clients is the number of connections, of which half are new for each request.
const clients = 6

func runLoad(target string) {
	all := crowd.Start(crowd.Options{
		Ask: func(n int64) crowd.Question {
			want := fmt.Sprintf(`{"sum":%d}`, n+1)
			return crowd.Question{URL: target, Body: fmt.Appendf(nil, `{"x": %d}`, n), Check: func(answer string) error {
				if answer != want {
					return fmt.Errorf("%s, want %s", answer, want)
				}
				return nil
			}}
		},
		Clients: clients, Fresh: clients / 2,
		// Until the cluster has noticed that an instance is dead, it gives connections to it, which are refused. Those to a node
		// that is lost are not even that: only the client's own time ends them.
		Timeout: 20 * time.Second, Repeats: time.Minute,
	})
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		text, _ := json.Marshal(all.Counts())
		fmt.Println(string(text))
	}
	text, _ := json.Marshal(all.End())
	fmt.Println(string(text))
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
func (l *load) now() crowd.Counts {
	l.t.Helper()
	if _, err := io.WriteString(l.in, "\n"); err != nil {
		l.t.Fatal(err)
	}
	return l.read()
}

func (l *load) read() (c crowd.Counts) {
	l.t.Helper()
	if !l.out.Scan() {
		l.t.Fatalf("the client has ended: %v", l.out.Err())
	}
	if err := json.Unmarshal([]byte(strings.TrimSpace(l.out.Text())), &c); err != nil {
		l.t.Fatal(err)
	}
	return c
}

func (l *load) end() crowd.Counts {
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
