package torchserve

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"clearmlserving/inference/engine"
	"clearmlserving/inference/engine/enginetest"
	"clearmlserving/mar"
	"clearmlserving/serving"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func endpoint(t *testing.T, handler string, aux map[string]any, want func(i int) string) *enginetest.Endpoint {
	t.Helper()
	return &enginetest.Endpoint{
		Spec: spec(t, handler, aux), Want: want,
		Request: func(i int) *engine.Request {
			return &engine.Request{Body: fmt.Appendf(nil, "question %d", i), ContentType: "text/plain"}
		},
	}
}

func TestTheEngineFulfilsItsContract(t *testing.T) {
	for _, protocol := range []string{serving.ProtocolREST, serving.ProtocolGRPC} {
		t.Run(protocol, func(t *testing.T) {
			aux := map[string]any{serving.AuxProtocol: protocol}
			streaming := map[string]any{serving.AuxProtocol: protocol, serving.AuxStream: "true"}
			enginetest.Run(t, enginetest.Engine{
				Loader:  run(t, newFake(t)),
				Answers: *endpoint(t, "echo.py", aux, func(i int) string { return fmt.Sprintf(`{"got": "question %d"}`, i) }),
				Waits:   endpoint(t, "waits.py", aux, nil),
				Refuses: endpoint(t, "refuses.py", aux, nil),
				Streams: endpoint(t, "streams.py", streaming, func(i int) string {
					return fmt.Sprintf("piece 0 of question %d;piece 1 of question %[1]d;piece 2 of question %[1]d;", i)
				}),
				Broken: endpoint(t, "broken.py", aux, nil), BrokenByUser: true,
			})
		})
	}
}

const patience = time.Minute

func load(t *testing.T, e *Engine, s engine.Spec) engine.Model {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	m, err := e.Load(ctx, s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func closeModel(t *testing.T, m engine.Model) {
	t.Helper()
	if err := m.Close(context.WithoutCancel(t.Context())); err != nil {
		t.Error(err)
	}
}

func ask(t *testing.T, m engine.Model, body string) (*engine.Response, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return m.Infer(ctx, &engine.Request{Body: []byte(body)})
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for begun := time.Now(); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Since(begun) > patience {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

func TestWorkersAndBatchesAreThoseOfTheSettings(t *testing.T) {
	t.Run("over gRPC", func(t *testing.T) { workersAndBatches(t, newFake(t)) })
	t.Run("over REST", func(t *testing.T) {
		f := newFake(t)
		f.noAdmin = true
		workersAndBatches(t, f)
	})
}

func workersAndBatches(t *testing.T, f *fake) {
	t.Helper()
	e := run(t, f)
	aux := map[string]any{"min_workers": "2", "max_workers": "3", "batch_size": "8", "max_batch_delay": "5", "response_timeout": "30"}
	s := spec(t, "echo.py", aux)
	first := load(t, e, s)
	name := first.(*model).name
	if got := f.model(name); got == nil || got.min != 2 || got.max != 3 || got.batch != 8 || got.delay != "5" || got.timeout != "30" {
		t.Fatalf("registered as %+v", got)
	}
	if !strings.Contains(f.model(name).url, name) || strings.Contains(f.model(name).url, "/") {
		t.Errorf("the archive is not in the model store: %q", f.model(name).url)
	}
	// Other numbers of workers scale the same model; the end of the old version leaves it.
	aux["min_workers"], aux["max_workers"] = "4", "4"
	second := load(t, e, s)
	if second.(*model).name != name || f.model(name).min != 4 || f.registered != 1 {
		t.Errorf("scaled to %+v under %s, %d registrations", f.model(name), second.(*model).name, f.registered)
	}
	closeModel(t, first)
	if _, err := ask(t, second, "x"); err != nil {
		t.Error(err)
	}
	// Another size of batches is another model, beside the old one.
	aux["batch_size"] = "9"
	third := load(t, e, s)
	if f.model(name) == nil || third.(*model).name == name {
		t.Error("the old version does not serve until the new one is ready")
	}
	closeModel(t, second)
	closeModel(t, third)
	if len(f.models) != 0 || len(f.unregistred) != 2 {
		t.Errorf("left %v, unregistered %v", f.models, f.unregistred)
	}
	for _, folder := range []string{filepath.Join(f.dir, "store"), e.folder()} {
		if left, err := os.ReadDir(folder); err != nil || len(left) != 0 {
			t.Errorf("left in %s: %v, %v", folder, left, err)
		}
	}
}

func TestRequestsAndAnswersArePassedAsTheyAre(t *testing.T) {
	f := newFake(t)
	m := load(t, run(t, f), spec(t, "echo.py", nil))
	defer closeModel(t, m)
	body := "\x00\xffnot JSON"
	answer, err := m.Infer(t.Context(), &engine.Request{Body: []byte(body), ContentType: "image/x; q=1", Client: func() engine.Client {
		return engine.Client{Query: "a=1&b=2", Header: []engine.Header{{Name: "X-Mine", Value: "1"}, {Name: "Authorization", Value: "secret"}, {Name: "Connection", Value: "close"}}}
	}})
	if err != nil || answer.Status != 200 || string(answer.Body) != fmt.Sprintf(`{"got": %q}`, body) {
		t.Fatalf("%+v, %v", answer, err)
	}
	if f.seen.Get("Content-Type") != "image/x; q=1" || f.seen.Get("X-Mine") != "1" || strings.Contains(f.seen.Get("Authorization"), "secret") || f.query != "a=1&b=2" {
		t.Errorf("the server got %v ?%s", f.seen, f.query)
	}
	if len(answer.Header) != 1 || answer.Header[0] != (engine.Header{Name: "X-Model", Value: "fake"}) {
		t.Errorf("the answer has %v", answer.Header)
	}
	m2 := load(t, run(t, f), spec(t, "status.py", nil))
	defer closeModel(t, m2)
	if answer, err := ask(t, m2, "x"); err != nil || answer.Status != 418 || string(answer.Body) != `{"code": 1}` {
		t.Errorf("a status that the handler has set: %+v, %v", answer, err)
	}
}

func TestErrorsHaveTheServersWords(t *testing.T) {
	f := newFake(t)
	e := run(t, f)
	for handler, want := range map[string]struct {
		kind engine.Kind
		says string
	}{
		"dies.py": {engine.KindDied, "TorchServe: Worker died."},
		"full.py": {engine.KindUnavailable, "has no worker to serve inference request"},
		"cut.py":  {engine.KindDied, "TorchServe ended before its answer"},
	} {
		m := load(t, e, spec(t, handler, nil))
		_, err := ask(t, m, "x")
		failed, ok := errors.AsType[*engine.Error](err)
		if !ok || failed.Kind != want.kind || !strings.Contains(err.Error(), want.says) {
			t.Errorf("%s: %v, want kind %d and %q", handler, err, want.kind, want.says)
		}
		closeModel(t, m)
	}
	m := load(t, e, spec(t, "refuses.py", nil))
	defer closeModel(t, m)
	if answer, err := ask(t, m, "x"); err != nil || answer.Status != http.StatusInternalServerError || !strings.Contains(string(answer.Body), "Prediction failed") {
		t.Errorf("a handler that fails: %+v, %v", answer, err)
	}
}

func TestAModelThatIsRefusedSaysWhy(t *testing.T) {
	f := newFake(t)
	e := run(t, f)
	for name, tc := range map[string]struct {
		prepare func() engine.Spec
		says    string
		final   bool
	}{
		"a handler that fails":   {func() engine.Spec { return spec(t, "broken.py", nil) }, "ValueError: no such weights", true},
		"an archive that is bad": {func() engine.Spec { return spec(t, "invalid.py", nil) }, "Model version is not defined.", true},
		"no model":               {func() engine.Spec { s := spec(t, "echo.py", nil); s.ModelPath = ""; return s }, "needs a model", true},
		"a folder": {func() engine.Spec {
			s := spec(t, "echo.py", nil)
			s.ModelPath = t.TempDir()
			return s
		}, "no model archive", true},
		"a bad setting": {func() engine.Spec { return spec(t, "echo.py", map[string]any{"batch_size": "0"}) }, "out of range", true},
		"two handlers":  {func() engine.Spec { return spec(t, "echo.py", map[string]any{"handler": "image_classifier"}) }, "has its own handler", true},
		"no management": {func() engine.Spec { f.noAPI.Store(true); f.noAdmin = true; return spec(t, "echo.py", nil) }, "enable_model_api", false},
	} {
		_, err := e.Load(t.Context(), tc.prepare())
		failed, ok := errors.AsType[*engine.LoadError](err)
		if !ok || !strings.Contains(failed.Text, tc.says) || failed.Final != tc.final {
			t.Errorf("%s: %v, want %q and final=%t", name, err, tc.says, tc.final)
		}
		if name == "a handler that fails" && (!failed.UserCode || !strings.Contains(failed.Traceback, "broken.py")) {
			t.Errorf("%s: %+v", name, failed)
		}
		f.noAPI.Store(false)
		f.noAdmin = false
	}
	if left, err := os.ReadDir(e.folder()); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	none := runAs(t, Options{Dir: t.TempDir(), Server: func() (Server, error) { return Server{}, errors.New("no TorchServe runs here") }})
	if _, err := none.Load(t.Context(), spec(t, "echo.py", nil)); err == nil || !strings.Contains(err.Error(), "no TorchServe runs here") {
		t.Error(err)
	}
}

func TestKeysAreRenewed(t *testing.T) {
	for _, protocol := range []string{serving.ProtocolREST, serving.ProtocolGRPC} {
		f := newFake(t)
		m := load(t, run(t, f), spec(t, "echo.py", map[string]any{"protocol": protocol}))
		for _, inFile := range []bool{true, false} { // by the server, which was started again; and the API renews them
			f.changeKeys(inFile)
			if _, err := ask(t, m, "x"); err != nil {
				t.Errorf("%s, new keys in the file %t: %v", protocol, inFile, err)
			}
		}
		// Before they expire the server is asked for new ones.
		f.mu.Lock()
		before := f.renewed
		f.writeKeys(30 * time.Second)
		f.mu.Unlock()
		k := newKeys(f.keyFile(), f.admin.URL, http.DefaultClient)
		if key, err := k.get(t.Context(), forInference, ""); err != nil || !strings.HasPrefix(key, "renewed") || f.renewed == before {
			t.Errorf("an old key: %q, %v", key, err)
		}
		// A wrong file is told.
		f.mu.Lock()
		f.keys = map[string]string{"management": "other", "inference": "other", "API": "other"}
		f.mu.Unlock()
		_, err := ask(t, m, "x")
		failed, ok := errors.AsType[*engine.Error](err)
		if !ok || failed.Kind != engine.KindUnavailable || !strings.Contains(err.Error(), "key") {
			t.Errorf("%s, wrong keys: %v", protocol, err)
		}
		closeModel(t, m)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestARequestWaitsForARenewalAsLongAsItMay(t *testing.T) {
	asked, answers := make(chan struct{}), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked <- struct{}{}
		<-answers
	}))
	defer server.Close()
	f := newFake(t)
	f.writeKeys(-time.Second)
	k := newKeys(f.keyFile(), server.URL, server.Client())
	renewed := make(chan error, 1)
	go func() {
		_, err := k.get(t.Context(), forInference, "")
		renewed <- err
	}()
	<-asked
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := k.get(ctx, forInference, ""); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("it has waited longer: %v", err)
	}
	f.writeKeys(30 * time.Second)
	if err := k.load(); err != nil {
		t.Fatal(err)
	}
	if key, err := k.get(t.Context(), forInference, ""); err != nil || key != "i0" {
		t.Errorf("a key that is still valid: %q, %v", key, err)
	}
	close(answers)
	if err := <-renewed; err != nil {
		t.Error(err)
	}
}

func TestAServerThatIsStartedAgainGetsItsModelsAgain(t *testing.T) {
	f := newFake(t)
	m := load(t, run(t, f), spec(t, "echo.py", nil))
	defer closeModel(t, m)
	f.mu.Lock()
	f.models = map[string]*fakeModel{}
	f.mu.Unlock()
	eventually(t, "the model answers again", func() bool {
		_, err := ask(t, m, "x")
		return err == nil
	})
	if f.registered != 2 {
		t.Errorf("registered %d times", f.registered)
	}
}

func TestAServerThatDoesNotWorkIsSeen(t *testing.T) {
	f := newFake(t)
	m := load(t, run(t, f), spec(t, "echo.py", nil))
	defer closeModel(t, m)
	for name, fault := range map[string]func(bool){"stopped": f.stopped.Store, "garbage": f.garbage.Store, "its workers have died": f.died.Store} {
		fault(true)
		eventually(t, name+" is seen", func() bool { return m.Status().State == serving.StateDegraded })
		if r := m.Status(); r.Reason == "" || len(r.Addresses) != 1 || r.Addresses[0].State != serving.AddressEjected {
			t.Errorf("%s: %+v", name, r)
		}
		_, err := ask(t, m, "x")
		if failed, ok := errors.AsType[*engine.Error](err); !ok || failed.Kind != engine.KindUnavailable || failed.RetryAfter == 0 {
			t.Errorf("%s: %v, want KindUnavailable at once", name, err)
		}
		fault(false)
		eventually(t, "the end of "+name+" is seen", func() bool { return m.Status().State == serving.StateReady })
		if _, err := ask(t, m, "x"); err != nil {
			t.Errorf("after %s: %v", name, err)
		}
	}
}

func TestModelsOfInstancesThatHaveDiedAreEnded(t *testing.T) {
	f := newFake(t)
	dir := t.TempDir()
	e := runAs(t, Options{Dir: dir, Server: f.at})
	f.models[e.prefix()+"left-000000000000"] = &fakeModel{handler: "echo.py", min: 1, max: 1}
	f.models["of_somebody_else"] = &fakeModel{handler: "echo.py", min: 1, max: 1}
	out := e.prefix() + "/../../kept" // from a server that is not honest
	f.models[out] = &fakeModel{handler: "echo.py", min: 1, max: 1}
	kept := filepath.Join(dir, "kept.mar")
	if err := os.WriteFile(kept, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	m := load(t, e, spec(t, "echo.py", nil))
	// An instance with the same data folder has the same model, and neither ends the other's.
	other := load(t, runAs(t, Options{Dir: dir, Server: f.at}), spec(t, "echo.py", nil))
	if f.model(e.prefix()+"left-000000000000") != nil || f.model("of_somebody_else") == nil || len(f.models) != 3 {
		t.Errorf("there are %v", f.models)
	}
	if _, err := os.Stat(kept); err != nil {
		t.Errorf("a file outside of the folder of archives: %v", err)
	}
	closeModel(t, m)
	if _, err := ask(t, other, "x"); err != nil {
		t.Error(err)
	}
	closeModel(t, other)
	if len(f.models) != 2 {
		t.Errorf("left %v", f.models)
	}
}

func TestAServerThatSomebodyElseRunsIsAsked(t *testing.T) {
	f, g := newFake(t), newFake(t)
	g.keys = map[string]string{"management": "m0", "inference": "i0", "API": "api"}
	e := runAs(t, Options{Dir: t.TempDir(), Keys: f.keyFile()})
	// A model that is registered there, without its management API.
	f.models["theirs"] = &fakeModel{handler: "echo.py", min: 1, max: 1}
	for _, aux := range []map[string]any{
		{"address": f.rest.Listener.Addr().String(), "model": "theirs"},
		{"address": f.rest.URL, "grpc_address": f.grpc.Addr().String(), "protocol": "grpc", "model": "theirs"},
	} {
		s := spec(t, "echo.py", aux)
		s.ModelPath = ""
		m := load(t, e, s)
		if answer, err := ask(t, m, "x"); err != nil || string(answer.Body) != `{"got": "x"}` {
			t.Errorf("%v: %+v, %v", aux, answer, err)
		}
		closeModel(t, m)
	}
	if f.model("theirs") == nil {
		t.Error("a model of somebody else is unregistered")
	}
	// A model of ours on two servers; one of them ends.
	m := load(t, e, spec(t, "echo.py", map[string]any{
		"address": f.rest.URL + "," + g.rest.URL, "management_address": f.admin.URL + "," + g.admin.URL,
	}))
	defer closeModel(t, m)
	if f.registered != 1 || g.registered != 1 {
		t.Errorf("registered %d and %d times", f.registered, g.registered)
	}
	g.rest.Close()
	for range 50 {
		if _, err := ask(t, m, "x"); err != nil {
			t.Errorf("one server of two is enough: %v", err)
		}
	}
}

func TestWaitingRequestsAreBounded(t *testing.T) {
	s := spec(t, "waits.py", nil)
	s.Limits = &serving.Limits{MaxQueue: 1}
	m := load(t, run(t, newFake(t)), s)
	defer closeModel(t, m)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := m.Infer(ctx, &engine.Request{})
		done <- err
	}()
	eventually(t, "one request waits", func() bool { return m.Status().Queued == 1 })
	_, err := ask(t, m, "x")
	if failed, ok := errors.AsType[*engine.Error](err); !ok || failed.Kind != engine.KindOverloaded {
		t.Errorf("%v, want KindOverloaded", err)
	}
	cancel()
	if err := <-done; err == nil {
		t.Error("a cancelled request is answered")
	}
}

func TestCodeOfTorchServeIsToldFromOurs(t *testing.T) {
	write := func(files map[string]string) string {
		folder := t.TempDir()
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(folder, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if text, single := files["file.py"]; single && len(files) == 1 && text != "" {
			return filepath.Join(folder, "file.py")
		}
		return folder
	}
	for name, tc := range map[string]struct {
		files         map[string]string
		ours, handler bool
	}{
		"a file with Preprocess":     {map[string]string{"file.py": "class Preprocess:\n    pass\n"}, true, false},
		"a file with a handler":      {map[string]string{"file.py": "def handle(data, context):\n    return data\n"}, false, true},
		"a folder with a handler":    {map[string]string{"handler.py": "", "model.py": ""}, false, true},
		"a folder with both":         {map[string]string{"handler.py": "", "preprocess.py": "class Preprocess: pass"}, true, true},
		"a folder of ours":           {map[string]string{"__init__.py": "from .x import Preprocess", "x.py": ""}, true, false},
		"a package with the handler": {map[string]string{"__init__.py": "", "handler.py": ""}, false, true},
	} {
		code := write(tc.files)
		_, handler := handlerIn(code)
		if ours := hasPreprocess(code); ours != tc.ours || handler != tc.handler {
			t.Errorf("%s: Preprocess %t, handler %t", name, ours, handler)
		}
	}
}

func TestAModelWithoutAnArchiveGetsOne(t *testing.T) {
	folder := t.TempDir()
	weights := filepath.Join(folder, "weights.bin")
	if err := os.WriteFile(weights, []byte("weights"), 0o600); err != nil {
		t.Fatal(err)
	}
	code := filepath.Join(folder, "code")
	if err := os.Mkdir(code, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"handler.py": "x", "model.py": "y", "labels.txt": "z", "preprocess.py": "class Preprocess: pass", "requirements.txt": "a"} {
		if err := os.WriteFile(filepath.Join(code, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	e := New(Options{Dir: t.TempDir()})
	for name, tc := range map[string]struct {
		code, handler string
		want          []string
	}{
		"tensors":          {"", "", []string{`"handler": "handler.py"`, "tensors.json", "model.pt", "TensorHandler"}},
		"a handler's name": {"", "image_classifier", []string{`"handler": "image_classifier"`, "model.pt"}},
		"code":             {code, "", []string{`"modelFile": "model.py"`, `"requirementsFile": "requirements.txt"`, "labels.txt"}},
	} {
		s := engine.Spec{URL: "m", ModelPath: weights, CodePath: tc.code}
		var b bytes.Buffer
		if err := e.write(t.Context(), &b, s, serving.TorchServe{Handler: tc.handler}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		content := contentOf(t, b.Bytes())
		for _, want := range tc.want {
			if !strings.Contains(content, want) {
				t.Errorf("%s: the archive has no %s", name, want)
			}
		}
		if strings.Contains(content, "Preprocess") {
			t.Errorf("%s: our code is in the archive", name)
		}
	}
	// A file of the code that would be served instead of the model.
	if err := os.WriteFile(filepath.Join(code, "model.pt"), []byte("other weights"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := e.write(t.Context(), io.Discard, engine.Spec{URL: "m", ModelPath: weights, CodePath: code}, serving.TorchServe{})
	if _, refused := errors.AsType[*mar.Error](err); !refused || !strings.Contains(err.Error(), "a file model.pt") {
		t.Errorf("code with a file of the model's name: %v", err)
	}
}

// contentOf are the names and the texts of an archive's files.
func contentOf(t *testing.T, archive []byte) string {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		t.Fatal(err)
	}
	var content strings.Builder
	for _, file := range z.File {
		r, err := file.Open()
		if err != nil {
			t.Fatal(err)
		}
		content.WriteString(file.Name + "\n")
		if _, err := io.Copy(&content, r); err != nil {
			t.Fatal(err)
		}
	}
	return content.String()
}

func FuzzPrediction(f *testing.F) {
	f.Add(reply([]byte("x")))
	f.Add([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, message []byte) {
		body, err := prediction(message)
		if err != nil && body != nil && len(body) > len(message) {
			t.Error("a body that is not there")
		}
	})
}

func FuzzAnswersOfTheManagementAPI(f *testing.F) {
	f.Add(500, []byte(`{"code": 500, "type": "InternalServerException", "message": "Worker died."}`))
	f.Add(200, []byte(`[{"modelName": "m", "minWorkers": 1, "workers": [{"status": "READY"}]}]`))
	f.Add(200, []byte(`{"management": {"key": "a", "expiration time": "2026-11-30T12:00:00Z"}}`))
	f.Fuzz(func(t *testing.T, code int, body []byte) {
		r, own := refusalOf(code, body)
		if own && r.Status != code {
			t.Errorf("%d is taken for %d", code, r.Status)
		}
		if d, err := parseDescribed(body); err == nil && d.ready() > len(d.Workers) {
			t.Error("more workers are ready than there are")
		}
		_, _ = parseKeys(body)
	})
}
