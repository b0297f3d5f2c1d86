//go:build linux

package e2e_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
)

// How many there are of each part.
const (
	inferenceParts  = 3
	serverParts     = 2
	statisticsParts = 2
)

// clusterKeys are the credentials of everybody, which the servers are given.
const (
	clusterAccess = "cluster-access-key"
	clusterSecret = "cluster-secret-key-of-tests"
)

// parts is a whole installation on one machine: instances and ClearML servers behind a real HAProxy, on a real PostgreSQL, a
// real S3 server and a real Kafka broker.
type parts struct {
	*system
	postgres, s3, broker, haproxy *daemon
	kafka                         string // its address
	bucket                        string
	servers, instances            []*member
	statistics                    []*member
	serve, api, files             string // addresses of HAProxy
	admin                         string // its socket
}

// member is a process of ours that others like it stand beside.
type member struct {
	*daemon
	name  string // HAProxy's
	ports map[string]string
}

func (m *member) url(port string) string { return "http://127.0.0.1:" + m.ports[port] }

// before is the program of the version before.
func before(t *testing.T) string {
	t.Helper()
	file := os.Getenv("CLEARML_SERVING_E2E_CLUSTER")
	if file == "" {
		t.Skip("needs HAProxy, PostgreSQL, Kafka, an S3 server and the version before: make cluster-test")
	}
	return file
}

// startParts starts every part; ours are of the given program.
func startParts(t *testing.T, program string) *parts {
	t.Helper()
	p := &parts{system: install(t)}
	p.startPostgres(t)
	p.startS3(t)
	p.startKafka(t)
	p.plan(t)
	p.startHAProxy(t)
	for i := range p.servers {
		p.start(t, p.servers[i], program)
	}
	return p
}

// plan gives every member its ports.
func (p *parts) plan(t *testing.T) {
	t.Helper()
	add := func(n int, kind string, names ...string) (all []*member) {
		for i := range n {
			m := &member{name: kind + strconv.Itoa(i+1), ports: map[string]string{}}
			for j, port := range freePorts(t, len(names)) {
				m.ports[names[j]] = port
			}
			all = append(all, m)
		}
		return all
	}
	front := freePorts(t, 3)
	p.serve, p.api, p.files = "http://127.0.0.1:"+front[0], "http://127.0.0.1:"+front[1], "http://127.0.0.1:"+front[2]
	p.instances = add(inferenceParts, "inference", "serve", "grpc", "admin")
	p.servers = add(serverParts, "server", "api", "files")
	p.statistics = add(statisticsParts, "statistics", "metrics")
	p.sdk = []string{
		"CLEARML_API_HOST=" + p.api, "CLEARML_WEB_HOST=" + p.api, "CLEARML_FILES_HOST=" + p.files,
		"CLEARML_API_ACCESS_KEY=" + clusterAccess, "CLEARML_API_SECRET_KEY=" + clusterSecret,
	}
	own := func(m *member, role string, variables ...string) {
		for variable, port := range map[string]string{
			"SERVE_ADDR": "serve", "GRPC_ADDR": "grpc", "ADMIN_ADDR": "admin", "API_ADDR": "api", "FILES_ADDR": "files", "STATISTICS_ADDR": "metrics",
		} {
			if number := m.ports[port]; number != "" {
				variables = append(variables, "CLEARML_SERVING_"+variable+"=127.0.0.1:"+number)
			}
		}
		variables = append(variables, "CLEARML_SERVING_PYTHON="+pythonSDK2, "CLEARML_SERVING_DRAIN_DELAY="+drainDelay)
		m.daemon = &daemon{s: p.system, name: m.name, env: variables, args: []string{"", role, "--data-dir", filepath.Join(p.dir, m.name)}}
	}
	for _, m := range p.servers {
		own(m, "server", "CLEARML_SERVING_ACCESS_KEY="+clusterAccess, "CLEARML_SERVING_SECRET_KEY="+clusterSecret,
			"CLEARML_SERVING_API_URL="+p.api, "CLEARML_SERVING_FILES_URL="+p.files,
			"CLEARML_SERVING_DATABASE_URL=postgres://postgres@127.0.0.1:"+p.postgresPort()+"/postgres?sslmode=disable",
			"CLEARML_SERVING_FILES_DESTINATION=s3://"+p.bucket)
	}
	for _, m := range p.instances {
		own(m, "inference", "CLEARML_DEFAULT_KAFKA_SERVE_URL="+p.kafka)
	}
	for _, m := range p.statistics {
		own(m, "statistics", "CLEARML_DEFAULT_KAFKA_SERVE_URL="+p.kafka, "CLEARML_SERVING_STATISTICS_REPLICA="+m.name)
	}
}

// drainDelay is how many seconds a member goes on after it was told to end: HAProxy asks five times a second.
const drainDelay = "5"

// start starts a member as this program, and waits until it is ready.
func (p *parts) start(t *testing.T, m *member, program string) {
	t.Helper()
	m.args[0] = program
	m.daemon.start(t)
	t.Cleanup(func() {
		m.kill()
		if t.Failed() {
			t.Logf("the log of %s ends:\n%s", m.name, lastLines(m.log()))
		}
	})
	p.ready(t, m)
}

// ready waits until a member answers and HAProxy knows it.
func (p *parts) ready(t *testing.T, m *member) {
	t.Helper()
	path := m.url("api") + "/livez"
	for _, port := range []string{"serve", "metrics"} {
		if m.ports[port] != "" {
			path = m.url(port) + "/readyz"
		}
	}
	p.eventually(t, 2*patience, m.name+" is ready", func() error {
		if status, text := p.get(t, path); status != http.StatusOK {
			return fmt.Errorf("%w\n%s", statusError(status, text), lastLines(m.log()))
		}
		if m.ports["metrics"] != "" {
			return nil
		}
		return p.isUp(m, true)
	})
}

// isUp asks HAProxy whether it gives requests to a member.
func (p *parts) isUp(m *member, want bool) error {
	text, err := p.tell("show stat")
	if err != nil {
		return err
	}
	found := false
	for line := range strings.Lines(text) {
		fields := strings.Split(line, ",")
		if len(fields) > 17 && fields[1] == m.name {
			found = true
			if up := strings.HasPrefix(fields[17], "UP"); up != want {
				return fmt.Errorf("HAProxy says that %s of %s is %s", m.name, fields[0], fields[17])
			}
		}
	}
	if !found {
		return fmt.Errorf("HAProxy knows no %s: %.300s", m.name, text)
	}
	return nil
}

// tell sends a command to HAProxy.
func (p *parts) tell(command string) (string, error) {
	c, err := net.Dial("unix", p.admin)
	if err != nil {
		return "", err
	}
	defer c.Close() //nolint:errcheck // read to its end
	if _, err := io.WriteString(c, command+"\n"); err != nil {
		return "", err
	}
	text, err := io.ReadAll(c)
	return string(text), err
}

// stop ends a member as an operator does, and checks its exit code.
func (d *daemon) stop(t *testing.T, signal syscall.Signal) {
	t.Helper()
	if err := d.cmd.Process.Signal(signal); err != nil {
		t.Errorf("stop %s: %v", d.name, err)
	}
	timer := time.AfterFunc(2*patience, d.kill)
	_ = d.cmd.Wait() // the code says it
	if !timer.Stop() {
		t.Errorf("%s did not end within %v", d.name, 2*patience)
	}
}

// replace ends a member and starts it as a program, which may be another one.
func (p *parts) replace(t *testing.T, m *member, program string) {
	t.Helper()
	m.daemon.stop(t, syscall.SIGTERM)
	if code := m.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("%s ended with %d\n%s", m.name, code, lastLines(m.log()))
	}
	m.args[0] = program
	m.daemon.start(t)
	p.ready(t, m)
}

func (p *parts) startPostgres(t *testing.T) {
	t.Helper()
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin")
	if err != nil || len(found) == 0 {
		t.Fatalf("no PostgreSQL is installed: %v", err)
	}
	bin := found[len(found)-1]
	dir := filepath.Join(p.dir, "postgres")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	prefix := []string{}
	if os.Geteuid() == 0 { // it refuses to run as root
		account, err := user.Lookup("postgres")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.Atoi(account.Uid)
		gid, _ := strconv.Atoi(account.Gid)
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
		for above := p.dir; above != os.TempDir() && above != "/"; above = filepath.Dir(above) {
			if err := os.Chmod(above, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		prefix = []string{"setpriv", "--reuid=" + account.Uid, "--regid=" + account.Gid, "--clear-groups"}
	}
	data := filepath.Join(dir, "data")
	initdb := slices.Concat(prefix, []string{filepath.Join(bin, "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8"})
	cmd := exec.Command(initdb[0], initdb[1:]...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	args := slices.Concat(prefix, []string{filepath.Join(bin, "postgres"), "-D", data, "-p", freePort(t), "-k", "", "-c", "listen_addresses=127.0.0.1"})
	p.postgres = p.daemon(t, "postgres", nil, args...)
	p.listens(t, p.postgres, p.postgresPort())
}

func (p *parts) postgresPort() string {
	return p.postgres.args[slices.Index(p.postgres.args, "-p")+1]
}

// listens waits until a daemon takes connections.
func (p *parts) listens(t *testing.T, d *daemon, port string) {
	t.Helper()
	p.eventually(t, patience, d.name+" answers", func() error {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err != nil {
			return fmt.Errorf("%w\n%s", err, lastLines(d.log()))
		}
		return c.Close()
	})
}

func (p *parts) startS3(t *testing.T) {
	t.Helper()
	host := "127.0.0.1:" + freePort(t)
	data := filepath.Join(p.dir, "s3")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	p.s3 = p.daemon(t, "s3", nil, filepath.Join(root, "bin/tools/versitygw"), "--access", "testkey", "--secret", "testsecret", "--port", host, "posix", data)
	_, port, _ := net.SplitHostPort(host)
	p.listens(t, p.s3, port)
	if err := s3Client(t, host).MakeBucket(t.Context(), "models", minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	p.bucket = host + "/models"
	conf := fmt.Sprintf(`sdk.aws.s3.credentials: [{ host: %q, key: "testkey", secret: "testsecret", secure: false, region: "us-east-1" }]`+"\n", host)
	if err := os.WriteFile(p.config(), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (p *parts) startKafka(t *testing.T) {
	t.Helper()
	dir := filepath.Join(p.dir, "kafka")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	ports := freePorts(t, 2)
	p.kafka = "127.0.0.1:" + ports[0]
	p.broker = p.daemon(t, "kafka", nil, filepath.Join(root, "scripts/kafka-broker.sh"), "run", dir, ports[0], ports[1])
	p.listens(t, p.broker, ports[0])
}

// startHAProxy writes its configuration and starts it.
func (p *parts) startHAProxy(t *testing.T) {
	t.Helper()
	p.admin = filepath.Join(p.dir, "haproxy.sock")
	var text strings.Builder
	fmt.Fprintf(&text, `global
    stats socket %s mode 600 level admin expose-fd listeners
    hard-stop-after 2m
defaults
    mode http
    # A connection that is refused has had no request: another member gets it.
    retries 3
    option redispatch 1
    retry-on conn-failure
    # Clients hear of the end of their connection with an answer, never instead of one.
    option idle-close-on-response
    timeout connect 5s
    timeout client 2m
    timeout server 2m
    timeout check 5s
    default-server check inter 200ms fall 1 rise 1
`, p.admin)
	// What does not answer 5xx takes requests: a ClearML server of the version before has no /readyz, and answers 400.
	backend := func(name, address, probe, port, probed string, members []*member) {
		_, number, _ := net.SplitHostPort(strings.TrimPrefix(address, "http://"))
		fmt.Fprintf(&text, "listen %s\n    bind 127.0.0.1:%s\n    option httpchk GET %s\n    http-check expect ! rstatus ^5\n", name, number, probe)
		for _, m := range members {
			fmt.Fprintf(&text, "    server %s 127.0.0.1:%s port %s\n", m.name, m.ports[port], m.ports[probed])
		}
	}
	backend("serve", p.serve, "/readyz", "serve", "serve", p.instances)
	backend("api", p.api, "/readyz", "api", "api", p.servers)
	backend("files", p.files, "/readyz", "files", "api", p.servers) // the file server has no probe of its own
	file := filepath.Join(p.dir, "haproxy.cfg")
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	p.haproxy = p.daemon(t, "haproxy", nil, "haproxy", "-W", "-f", file)
	_, number, _ := net.SplitHostPort(strings.TrimPrefix(p.serve, "http://"))
	p.listens(t, p.haproxy, number)
}
