// Package kubernetes has no code: its test installs the chart in a real cluster and changes everything that can be
// changed while clients send requests. make e2e-kubernetes makes the cluster and the images.
package kubernetes

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	namespace = "models"
	release   = "serving"
	name      = "serving-clearml-serving-go"
	instances = "app.kubernetes.io/component=inference,app.kubernetes.io/instance=" + release
	patience  = 10 * time.Minute
)

const codeText = `class Preprocess:
    def process(self, data, state, collect_custom_statistics_fn=None):
        return {"sum": data["x"] + 1}
`

// patientText takes 40 seconds for an answer, at once or as a stream.
const patientText = `import time


class Preprocess:
    def process(self, data, state, collect_custom_statistics_fn=None):
        if data["stream"]:
            return self.numbers()
        time.sleep(40)
        return "done"

    def numbers(self):
        for i in range(40):
            time.sleep(1)
            yield f"{i}\n"
`

// slowModel makes a model whose load takes as long as loading is, and works meanwhile: one that only waits is ended.
const slowModel = `
import sys
import joblib
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression


class Slow:
    def __reduce__(self):
        return exec, (f"import time\nend = time.monotonic() + {sys.argv[2]}\nwhile time.monotonic() < end: sum(range(100000)); time.sleep(0.2)",)


model = LogisticRegression(max_iter=300).fit(*load_iris(return_X_y=True))
model.slow_ = Slow()
joblib.dump(model, sys.argv[1] + "/model.joblib")
`

// loading is longer than any probe waits.
const loading = 10 * time.Minute

func TestMain(m *testing.M) {
	if target := os.Getenv(loadTarget); target != "" {
		runLoad(target)
		return
	}
	if os.Getenv("CLEARML_SERVING_E2E_KUBERNETES") == "" {
		fmt.Println("the chart is not tested in a cluster: make e2e-kubernetes does")
		return
	}
	os.Exit(m.Run())
}

// cluster is a real one, see scripts/kubernetes/up.sh.
type cluster struct {
	t    *testing.T
	home string
}

func (c cluster) try(program string, args ...string) (string, error) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.home+"/kubeconfig", "PATH="+c.home+"/bin:"+os.Getenv("PATH"))
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err != nil {
		err = fmt.Errorf("%s %s: %w\n%s%s", program, strings.Join(args, " "), err, out.String(), errs.String())
	}
	return strings.TrimSpace(out.String()), err
}

func (c cluster) must(program string, args ...string) string {
	c.t.Helper()
	out, err := c.try(program, args...)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

func (c cluster) kubectl(args ...string) string {
	c.t.Helper()
	return c.must(c.home+"/bin/kubectl", append([]string{"-n", namespace}, args...)...)
}

func (c cluster) helm(args ...string) string {
	c.t.Helper()
	return c.must(c.home+"/bin/helm", append([]string{"-n", namespace}, args...)...)
}

func (c cluster) until(what string, yes func() bool) {
	c.t.Helper()
	for begun := time.Now(); !yes(); time.Sleep(time.Second) {
		if time.Since(begun) > patience {
			out, _ := c.try(c.home+"/bin/kubectl", "-n", namespace, "get", "pods,hpa", "-o", "wide")
			c.t.Fatalf("still not: %s\n%s", what, out)
		}
	}
}

// pods are the instances that are ready, and no others.
func (c cluster) pods(want int) {
	c.t.Helper()
	c.until(fmt.Sprintf("%d pods", want), func() bool {
		all := strings.Fields(c.kubectl("get", "pods", "-l", instances, "-o", "jsonpath={.items[*].metadata.name}"))
		ready := c.kubectl("get", "deployment", name+"-inference", "-o", "jsonpath={.status.readyReplicas}")
		return len(all) == want && ready == strconv.Itoa(want)
	})
}

func (c cluster) rolledOut() {
	c.t.Helper()
	c.kubectl("rollout", "status", "deployment/"+name+"-inference", "--timeout=15m")
}

// forwarded are the ports of this machine that reach the ClearML server.
type forwarded struct{ api, files string }

// freePort finds one: others may run on this machine.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // only the number counts
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// forward has ports of this machine, given as local:remote, reach a service until the end of the test.
func (c cluster) forward(service string, ports ...string) {
	c.t.Helper()
	forward := exec.Command(c.home+"/bin/kubectl", append([]string{"-n", namespace, "port-forward", "service/" + service, "--address", "127.0.0.1"}, ports...)...)
	forward.Env = append(os.Environ(), "KUBECONFIG="+c.home+"/kubeconfig")
	if err := forward.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		_ = forward.Process.Kill()
		_ = forward.Wait()
	})
	local, _, _ := strings.Cut(ports[0], ":")
	c.until("the port-forward answers", func() bool {
		conn, err := net.DialTimeout("tcp", "127.0.0.1:"+local, time.Second)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	})
}

// values are those of every install.
func (f forwarded) values(tag, cpu string) []string {
	set := map[string]string{
		"inference.image.repository": "localhost/clearml-serving-inference", "inference.image.tag": tag, "inference.image.pullPolicy": "Never",
		"server.image.repository": "localhost/clearml-serving-server", "server.image.tag": tag, "server.image.pullPolicy": "Never",
		"inference.resources.requests.cpu": cpu, "inference.resources.requests.memory": "128Mi", "inference.resources.limits.memory": "1Gi",
		"server.resources.requests.cpu": "50m", "server.persistence.existingClaim": "server", "inference.drainDelay": "5",
	}
	args := []string{"--set", "clearml.filesAliases={http://127.0.0.1:" + f.files + "}"}
	for key, value := range set {
		flag := "--set-string"
		if key == "inference.drainDelay" {
			flag = "--set"
		}
		args = append(args, flag, key+"="+value)
	}
	return args
}

func TestKubernetesServesThroughEveryChange(t *testing.T) {
	c := cluster{t, os.Getenv("CLEARML_SERVING_E2E_KUBERNETES")}
	wanted := uint64(100_000)
	if n, err := strconv.ParseUint(os.Getenv("CLEARML_SERVING_E2E_REQUESTS"), 10, 64); err == nil && n > 0 {
		wanted = n
	}
	c.newNamespace()
	c.addVolume("server", "ReadWriteOnce")
	ports := forwarded{api: freePort(t), files: freePort(t)}

	// The release of before: its chart, and its images.
	before := filepath.Join(c.home, "before", "helm", "clearml-serving-go")
	c.helm(append([]string{"install", release, before, "--wait", "--timeout", "10m"}, ports.values("before", "100m")...)...)
	c.deploy(ports)
	ip := c.kubectl("get", "service", name+"-inference", "-o", "jsonpath={.spec.clusterIP}")
	target := "http://" + ip + ":8080/serve/sums"
	c.until("the endpoint answers", func() bool {
		out, _ := c.try(c.home+"/enter", "curl", "-s", "-m", "20", "-H", "Content-Type: application/json", "-d", `{"x": 1}`, target)
		return out == `{"sum":2}`
	})

	c.missingSecret()
	slow := c.installSlow(ports)
	l := startLoad(t, c.home, target)
	at := l.now()
	// phase runs one change under load and tells what became of the requests meanwhile. most is how many may have had
	// to be sent again.
	phase := func(what string, most uint64, change func()) {
		t.Helper()
		begun := time.Now()
		change()
		was := at
		at = l.now()
		sent, again, failed, wrong := at.Sent-was.Sent, at.Again-was.Again, at.Failed-was.Failed, at.Wrong-was.Wrong
		t.Logf("%-40s %7d requests, %d failed, %d wrong, %d sent again, %s", what, sent, failed, wrong, again, time.Since(begun).Round(time.Second))
		if failed > 0 || wrong > 0 || again > most {
			t.Errorf("%s: %d failed, %d wrong, %d sent again (at most %d)\n%s", what, failed, wrong, again, most, strings.Join(at.Faults, "\n"))
		}
		if sent == 0 {
			t.Errorf("%s: there were no requests", what)
		}
	}
	phase("nothing changes", 0, func() { time.Sleep(10 * time.Second) })
	phase("helm upgrade from the chart before", 0, func() {
		c.helm(append([]string{"upgrade", release, "helm/clearml-serving-go", "--wait", "--timeout", "15m"}, ports.values("now", "100m")...)...)
		c.rolledOut()
		c.pods(2)
	})
	phase("rolling restart", 0, func() {
		c.kubectl("rollout", "restart", "deployment/"+name+"-inference")
		c.rolledOut()
		c.pods(2)
	})
	phase("helm rollback", 0, func() {
		c.helm("rollback", release, "1", "--wait", "--timeout", "15m")
		c.rolledOut()
		c.pods(2)
	})
	phase("helm upgrade again", 0, func() {
		c.helm(append([]string{"upgrade", release, "helm/clearml-serving-go", "--wait", "--timeout", "15m"}, ports.values("now", "100m")...)...)
		c.rolledOut()
		c.pods(2)
	})
	phase("drain of a node under the budget", 0, func() {
		c.must(c.home+"/bin/kubectl", "drain", "lab2", "--ignore-daemonsets", "--delete-emptydir-data", "--pod-selector", instances, "--timeout=10m")
		c.rolledOut()
		c.must(c.home+"/bin/kubectl", "uncordon", "lab2")
		c.pods(2)
	})
	phase("scale 2 to 5 to 1 to 2", 0, func() {
		for _, n := range []int{5, 1, 2} {
			c.kubectl("scale", "deployment/"+name+"-inference", "--replicas="+strconv.Itoa(n))
			c.pods(n)
			time.Sleep(3 * time.Second)
		}
	})
	if os.Getenv("NO_METRICS") == "" {
		phase("autoscaler by CPU, 1 to 5 to 1", 0, func() { c.autoscale(ports) })
	} else {
		t.Log("the cluster has no metrics: the autoscaler is not tested")
	}
	// What a killed process had begun is lost with it, and connections to it are refused until the cluster has noticed: a
	// client that sends its request again gets its answer from another pod.
	phase("an instance killed with -9", 5000, func() {
		pod := c.kubectl("get", "pods", "-l", instances, "-o", "jsonpath={.items[0].metadata.name}")
		c.killNine(pod)
		c.until("its container was started again", func() bool {
			return c.kubectl("get", "pod", pod, "-o", "jsonpath={.status.containerStatuses[0].restartCount}") == "1"
		})
		c.pods(2)
	})
	phase("the ClearML server away", 0, func() {
		c.kubectl("scale", "statefulset/"+name+"-server", "--replicas=0")
		c.until("it is away", func() bool {
			return c.kubectl("get", "pods", "-l", "app.kubernetes.io/component=server", "-o", "name") == ""
		})
		time.Sleep(20 * time.Second)
		c.kubectl("scale", "statefulset/"+name+"-server", "--replicas=1")
		c.kubectl("rollout", "status", "statefulset/"+name+"-server", "--timeout=10m")
	})
	phase("SIGTERM during a long request and stream", 0, func() {
		c.endDuring()
		c.pods(2)
	})
	phase("a model that loads for ten minutes", 0, func() { c.loadedSlowly(slow) })
	phase("the rest", 0, func() {
		for l.now().Sent < wanted {
			time.Sleep(5 * time.Second)
		}
	})
	phase("a node lost in a roll-out", 5000, func() {
		c.kubectl("rollout", "restart", "deployment/"+name+"-inference")
		time.Sleep(2 * time.Second)
		c.loseNode(1)
		c.rolledOut()
		c.until("two instances are ready on the other node", func() bool {
			return c.kubectl("get", "deployment", name+"-inference", "-o", "jsonpath={.status.updatedReplicas} {.status.readyReplicas} {.status.unavailableReplicas}") == "2 2"
		})
	})
	end := l.end()
	t.Logf("%d requests, %d failed, %d wrong, %d sent again", end.Sent, end.Failed, end.Wrong, end.Again)
	c.must(c.home+"/bin/kubectl", "delete", "node", "lab2") // what was on it can end only so
	c.helm("uninstall", slow, "--wait")
	c.helm("uninstall", release, "--wait")
	c.must(c.home+"/bin/kubectl", "delete", "namespace", namespace, "--wait=true")
}

// newNamespace makes the namespace anew, without anything that an earlier run has left.
func (c cluster) newNamespace() {
	c.t.Helper()
	_, _ = c.try(c.home+"/bin/kubectl", "delete", "namespace", namespace, "--wait=true")
	_, _ = c.try(c.home+"/bin/kubectl", "delete", "pv", "--all")
	c.must(c.home+"/bin/kubectl", "create", "namespace", namespace)
	c.must(c.home+"/bin/kubectl", "label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
}

// addVolume makes a folder of the first node that pods of the namespace have as a volume and a claim of this name: the cluster
// makes none by itself.
func (c cluster) addVolume(name, mode string) string {
	c.t.Helper()
	folder := filepath.Join(c.home, "state", name)
	if err := os.RemoveAll(folder); err != nil {
		c.t.Fatal(err)
	}
	if err := os.MkdirAll(folder, 0o755); err != nil { //nolint:gosec // its pods run as another user
		c.t.Fatal(err)
	}
	if err := os.Chown(folder, 10001, 10001); err != nil {
		c.t.Fatal(err)
	}
	c.apply(fmt.Sprintf(`apiVersion: v1
kind: PersistentVolume
metadata: {name: %[3]s}
spec:
  capacity: {storage: 1Gi}
  accessModes: [%[4]s]
  persistentVolumeReclaimPolicy: Retain
  storageClassName: ""
  claimRef: {namespace: %[1]s, name: %[3]s}
  local: {path: %[2]s}
  nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: kubernetes.io/hostname, operator: In, values: [lab]}]}]}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: %[3]s, namespace: %[1]s}
spec: {accessModes: [%[4]s], storageClassName: "", volumeName: %[3]s, resources: {requests: {storage: 1Gi}}}
`, namespace, folder, name, mode))
	return folder
}

func (c cluster) apply(objects string) {
	c.t.Helper()
	file := filepath.Join(c.t.TempDir(), "objects.yaml")
	if err := os.WriteFile(file, []byte(objects), 0o600); err != nil {
		c.t.Fatal(err)
	}
	c.must(c.home+"/bin/kubectl", "apply", "-f", file)
}

// deploy adds a model from outside of the cluster, as the chart's notes say.
func (c cluster) deploy(ports forwarded) {
	c.t.Helper()
	c.forward(name+"-server", ports.api+":8008", ports.files+":8081")
	secret := func(key string) string {
		return c.kubectl("get", "secret", name+"-keys", "-o", "go-template={{index .data \""+key+"\" | base64decode}}")
	}
	dir := c.t.TempDir()
	for file, text := range map[string]string{"sums.py": codeText, "patient.py": patientText} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			c.t.Fatal(err)
		}
	}
	cli := func(words ...string) (string, error) {
		return c.try("env", append([]string{
			"CLEARML_API_HOST=http://127.0.0.1:" + ports.api, "CLEARML_WEB_HOST=http://127.0.0.1:" + ports.api, "CLEARML_FILES_HOST=http://127.0.0.1:" + ports.files,
			"CLEARML_API_ACCESS_KEY=" + secret("access-key"), "CLEARML_API_SECRET_KEY=" + secret("secret-key"), "CLEARML_SERVING_HOME=" + dir, "bin/clearml-serving",
		}, words...)...)
	}
	c.until("the server answers through the port-forward", func() bool {
		_, err := cli("list")
		return err == nil
	})
	for _, words := range [][]string{
		{"create", "--name", "sums"},
		{"model", "add", "--engine", "custom", "--endpoint", "sums", "--preprocess", filepath.Join(dir, "sums.py")},
		{"model", "add", "--engine", "custom", "--endpoint", "patient", "--preprocess", filepath.Join(dir, "patient.py")},
		{"model", "add", "--engine", "custom", "--endpoint", "streaming", "--preprocess", filepath.Join(dir, "patient.py")},
	} {
		if out, err := cli(words...); err != nil {
			c.t.Fatal(err)
		} else {
			c.t.Logf("%s", out)
		}
	}
}

// missingSecret installs instances whose keys are in a secret that does not exist: the pods say so, and start once it does.
func (c cluster) missingSecret() {
	c.t.Helper()
	const release = "keyless"
	own := name + "-keys"
	c.helm("install", release, "helm/clearml-serving-go", "--set", "server.enabled=false,clearml.existingSecret=nowhere,inference.replicas=1",
		"--set", "clearml.apiHost=http://"+name+"-server:8008,clearml.filesHost=http://"+name+"-server:8081",
		"--set-string", "inference.image.repository=localhost/clearml-serving-inference,inference.image.tag=now,inference.image.pullPolicy=Never,inference.resources.requests.cpu=20m")
	pods := []string{"get", "pods", "-l", "app.kubernetes.io/instance=" + release, "-o"}
	c.until("the pod names the secret that is missing", func() bool {
		return strings.Contains(c.kubectl(append(pods, "jsonpath={.items[*].status.containerStatuses[*].state.waiting}")...), `secret \"nowhere\" not found`)
	})
	text := c.kubectl("get", "secret", own, "-o", "jsonpath={.data}")
	c.apply(fmt.Sprintf("apiVersion: v1\nkind: Secret\nmetadata: {name: nowhere, namespace: %s}\ndata: %s\n", namespace, text))
	c.until("the pod is ready once there is a secret", func() bool {
		return c.kubectl(append(pods, "jsonpath={.items[*].status.containerStatuses[*].ready}")...) == "true"
	})
	c.helm("uninstall", release, "--wait")
}

// installSlow installs an instance without a ClearML server, whose model takes as long as loading is to load. It returns its release.
func (c cluster) installSlow(ports forwarded) (release string) {
	c.t.Helper()
	release = "slow"
	folder := c.addVolume(release, "ReadOnlyMany")
	c.must(os.Getenv("CLEARML_SERVING_TEST_TABLES"), "-c", slowModel, folder, strconv.Itoa(int(loading.Seconds())))
	args := append([]string{"install", release, "helm/clearml-serving-go"}, ports.values("now", "20m")...)
	c.helm(append(args, "--set", "server.enabled=false,inference.replicas=1,inference.folder=/models,inference.folderEndpoint=flowers",
		"--set", "inference.extraVolumes[0].name=models,inference.extraVolumes[0].persistentVolumeClaim.claimName="+release,
		"--set", "inference.extraVolumeMounts[0].name=models,inference.extraVolumeMounts[0].mountPath=/models")...)
	return release
}

// loadedSlowly waits for the instance of installSlow. No probe may have ended it.
func (c cluster) loadedSlowly(release string) {
	c.t.Helper()
	pod := c.kubectl("get", "pods", "-l", "app.kubernetes.io/instance="+release, "-o", "jsonpath={.items[0].metadata.name}")
	field := func(path string) string { return c.kubectl("get", "pod", pod, "-o", "jsonpath="+path) }
	c.kubectl("wait", "--for=condition=Ready", "pod/"+pod, "--timeout=15m")
	at := func(path string) time.Time {
		when, err := time.Parse(time.RFC3339, field(path))
		if err != nil {
			c.t.Fatal(err)
		}
		return when
	}
	took := at(`{.status.conditions[?(@.type=="Ready")].lastTransitionTime}`).Sub(at("{.status.containerStatuses[0].state.running.startedAt}"))
	if restarts := field("{.status.containerStatuses[0].restartCount}"); restarts != "0" || took < loading {
		c.t.Errorf("it was ready after %s, with %s restarts", took, restarts)
	}
	c.t.Logf("the slow model was loaded after %s", took)
	out, err := c.try(c.home+"/enter", "curl", "-s", "-m", "20", "-d", "[[5.1, 3.5, 1.4, 0.2]]", "http://"+field("{.status.podIP}")+":8080/serve/flowers")
	if err != nil || out != "[0]" {
		c.t.Errorf("its answer is %q, %v", out, err)
	}
}

// endDuring ends a pod that answers a request at once, and another as a stream: neither may be cut.
func (c cluster) endDuring() {
	c.t.Helper()
	pod := c.kubectl("get", "pods", "-l", instances, "-o", "jsonpath={.items[0].metadata.name}")
	ip := c.kubectl("get", "pod", pod, "-o", "jsonpath={.status.podIP}")
	var lines []string
	for i := range 40 {
		lines = append(lines, strconv.Itoa(i))
	}
	var running sync.WaitGroup
	for _, r := range []struct{ endpoint, body, want string }{
		{"patient", `{"stream": false}`, `"done"`},
		{"streaming", `{"stream": true}`, strings.Join(lines, "\n")},
	} {
		running.Go(func() {
			out, err := c.try(c.home+"/enter", "curl", "-sS", "-N", "-m", "60", "-H", "Content-Type: application/json", "-d", r.body, "http://"+ip+":8080/serve/"+r.endpoint)
			if err != nil || out != r.want {
				c.t.Errorf("%s: %q, %v", r.endpoint, out, err)
			}
		})
	}
	time.Sleep(3 * time.Second)
	c.kubectl("delete", "pod", pod, "--wait=true")
	running.Wait()
}

// autoscale has the autoscaler change the number of instances from 1 to 5 and back: the same load is little or much by the
// percentage that is asked for.
func (c cluster) autoscale(ports forwarded) {
	c.t.Helper()
	c.until("there are metrics", func() bool {
		_, err := c.try(c.home+"/bin/kubectl", "-n", namespace, "top", "pods")
		return err == nil
	})
	for _, step := range []struct {
		percent string
		want    int
	}{{"10000", 1}, {"50", 5}, {"10000", 1}} {
		args := append([]string{"upgrade", release, "helm/clearml-serving-go", "--timeout", "15m"}, ports.values("now", "20m")...)
		c.helm(append(args, "--set", "inference.autoscaling.enabled=true,inference.autoscaling.minReplicas=1,inference.autoscaling.maxReplicas=5,inference.autoscaling.behavior.scaleDown.stabilizationWindowSeconds=15,inference.autoscaling.cpu="+step.percent)...)
		c.pods(step.want)
	}
	c.helm(append([]string{"upgrade", release, "helm/clearml-serving-go", "--timeout", "15m"}, ports.values("now", "100m")...)...)
	c.kubectl("scale", "deployment/"+name+"-inference", "--replicas=2")
	c.rolledOut()
	c.pods(2)
}

// loseNode ends every process of a node at once, and its network.
func (c cluster) loseNode(number int) {
	c.t.Helper()
	text, err := os.ReadFile(filepath.Join(c.home, "run", fmt.Sprintf("node%d.pid", number)))
	if err != nil {
		c.t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		c.t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		c.t.Fatal(err)
	}
}

// killNine kills the first process of an instance, as the kernel does for want of memory.
func (c cluster) killNine(pod string) {
	c.t.Helper()
	id := c.kubectl("get", "pod", pod, "-o", "jsonpath={.status.containerStatuses[0].containerID}")
	id = strings.TrimPrefix(id, "containerd://")
	node := c.kubectl("get", "pod", pod, "-o", "jsonpath={.spec.nodeName}")
	number := map[string]string{"lab": "0", "lab2": "1"}[node]
	c.must(c.home+"/enter", "-n", number, "ctr", "-n", "k8s.io", "task", "kill", "--signal", "SIGKILL", id)
}
