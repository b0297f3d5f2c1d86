package security_test

import (
	"cmp"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The page of the table, and the marks around it.
const (
	docFile    = "../docs/security.md"
	tableBegin = "<!-- The table is generated from the program's own lists: UPDATE=1 go test ./security -run Table -->\n"
	tableEnd   = "<!-- end of the table -->"
)

// row is one route on one listener.
type row struct{ listener, methods, path, caller string }

var callName = regexp.MustCompile(`^/[a-z_]+\.[a-z_]+$`)

// rows enumerates every route of every listener.
func (w *world) rows() []row {
	var all []row
	for _, r := range w.control.Routes() {
		all = append(all, row{r.Listener, r.Methods, r.Path, r.Caller})
	}
	for _, r := range w.instance.Routes() {
		all = append(all, row{r.Listener, r.Methods, r.Path, string(r.Caller)})
	}
	slices.SortFunc(all, func(a, b row) int {
		return cmp.Or(cmp.Compare(a.listener, b.listener), cmp.Compare(a.path, b.path), cmp.Compare(a.methods, b.methods))
	})
	return all
}

// table is the enumeration for readers: the calls of the API are grouped by caller.
func table(rows []row) string {
	var b strings.Builder
	b.WriteString("\n| listener | methods | path | who may |\n|---|---|---|---|\n")
	calls := map[row][]string{}
	for _, r := range rows {
		if callName.MatchString(r.path) {
			group := row{r.listener, r.methods, "", r.caller}
			calls[group] = append(calls[group], "`"+r.path+"`")
			continue
		}
		fmt.Fprintf(&b, "| %s | %s | `%s` | %s |\n", r.listener, r.methods, r.path, r.caller)
	}
	groups := make([]row, 0, len(calls))
	for g := range calls {
		groups = append(groups, g)
	}
	slices.SortFunc(groups, func(a, b row) int {
		return cmp.Or(cmp.Compare(len(calls[a]), len(calls[b])), cmp.Compare(a.caller, b.caller))
	})
	for _, g := range groups {
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", g.listener, g.methods, strings.Join(calls[g], " "), g.caller)
	}
	b.WriteString("\n")
	return b.String()
}

func TestTheTableInTheDocsIsWhatIsAnswered(t *testing.T) {
	text, err := os.ReadFile(docFile)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), tableBegin)
	stands, after, ok2 := strings.Cut(rest, tableEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has no table between %q and %q", docFile, tableBegin, tableEnd)
	}
	want := table(newWorld(t).rows())
	if stands == want {
		return
	}
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile(docFile, []byte(before+tableBegin+want+tableEnd+after), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Errorf("the table of %s differs from the program's routes; check the difference, then run: UPDATE=1 go test ./security -run Table\nthe program:\n%s\nthe docs:\n%s", docFile, want, stands)
}

// CVE-2023-48022 (Ray): management routes needed no credentials. Here each route is called without
// credentials, and the answer must match the table.
func TestCVE202348022_NoRouteAnswersAStranger(t *testing.T) {
	w := newWorld(t)
	base := map[string]string{"api": w.api, "files": w.files, "serve": w.serve, "admin": w.admin}
	asked := 0
	for _, r := range w.rows() {
		open := strings.HasPrefix(r.caller, "anybody")
		path := r.example()
		for method := range strings.SplitSeq(r.methods, ", ") {
			if method == "any" {
				method = "GET"
			}
			header := map[string]string{}
			if r.listener == "admin" { // from a page whose name resolves to this machine
				header["Host"] = "evil.example"
			}
			status, answer := w.askAs(t, method, base[r.listener]+path, header)
			asked++
			refused := status == 401 || status == 403 || toLogin(answer)
			if refused == open && !(open && status == 404) {
				t.Errorf("%s %s on %s answers %d without credentials; the table has: %s", method, r.path, r.listener, status, r.caller)
			}
		}
	}
	if asked < 100 {
		t.Errorf("only %d routes were found", asked)
	}
}

// example is a path of a route.
func (r row) example() string {
	path := strings.NewReplacer("<path>", "some/file", "<any>", "tasks.delete", "{$}", "").Replace(r.path)
	path = regexp.MustCompile(`\{[a-z.]+\}`).ReplaceAllString(path, "x")
	if r.listener == "serve" && strings.HasSuffix(r.path, "/") {
		path += "echo"
	}
	return path
}

// askAs sends a request with the caller's choice of Host.
func (w *world) askAs(t *testing.T, method, url string, header map[string]string) (status int, answer string) {
	t.Helper()
	base, path, _ := strings.Cut(strings.TrimPrefix(url, "http://"), "/")
	host := cmp.Or(header["Host"], base)
	answer = send(t, "http://"+base, fmt.Sprintf("%s /%s HTTP/1.1\r\nHost: %s\r\nAccept: text/html\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", method, path, host))
	if _, err := fmt.Sscanf(answer, "HTTP/1.1 %d", &status); err != nil {
		t.Fatalf("%s %s: %q", method, url, answer)
	}
	return status, answer
}

// toLogin reports whether a page redirects to the login and shows nothing.
func toLogin(answer string) bool {
	head, _, _ := strings.Cut(answer, "\r\n\r\n")
	return strings.HasPrefix(head, "HTTP/1.1 303") && strings.Contains(head, "\r\nLocation: /login")
}

// Routes that are not in the table do not exist: paths of other products, or unusual methods, get
// no answer.
func TestPathsOfOtherProductsAreNotAnswered(t *testing.T) {
	w := newWorld(t)
	// The page of the data plane has no data: it asks for them with the reader's key.
	public := map[string]bool{"api OPTIONS": true, "files OPTIONS": true, "serve GET /docs": true}
	for name, base := range map[string]string{"api": w.api, "files": w.files, "serve": w.serve} {
		for _, path := range []string{
			"/models?url=http://evil.example/m.mar&initial_workers=1", "/api/jobs/", "/api/version", "/debug/pprof/", "/debug/vars", "/metrics",
			"/docs", "/openapi.json", "/redoc", "/graphql", "/.env", "/.git/config", "/v2/repository/index", "/v2/systemsharedmemory/region/x/register",
			"/ajax-api/2.0/mlflow/artifacts", "/api/tags", "/admin", "/server-status", "/actuator/env", "/tasks.get_all", "/clearml.db", "/credentials.json", "/endpoints.json",
		} {
			for _, method := range []string{"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "get"} {
				status, answer := w.askAs(t, method, base+path, nil)
				if status < 400 && !toLogin(answer) && !public[name+" "+method] && !public[name+" "+method+" "+path] {
					t.Errorf("%s %s on %s answers %d without credentials", method, path, name, status)
				}
			}
		}
	}
}
