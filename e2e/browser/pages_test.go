//go:build linux

package browser_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

const wine = `{"wine": [13.05, 3.86, 2.32, 22.5, 85, 1.65, 1.59, 0.61, 1.62, 4.8, 0.84, 2.01, 515]}`

// All parts share one installation and one window, because they take long to start.
func TestAPersonDoesEverythingInTheBrowser(t *testing.T) {
	s := newSystem(t)
	p := openBrowser(t, s)
	for _, part := range []struct {
		name string
		run  func(*person)
	}{
		{"overview", overview},
		{"playground", playground},
		{"playground with a key", playgroundWithAKey},
		{"service", service},
		{"endpoint", endpoint},
		{"recordings", recordings},
		{"search", search},
		{"canary", canary},
		{"history", history},
		{"rules, metrics and a new canary", rules},
		{"instance", instance},
		{"charts", charts},
		{"experiments", experiments},
		{"figures", figures},
		{"compare", compare},
		{"models", models},
		{"upload and deploy", uploadAndDeploy},
		{"code in the editor", codeInTheEditor},
		{"settings", settings},
		{"deletion", deletion},
		{"what is not there", errorPage},
		{"themes and phone", themesAndPhone},
		{"every page for everybody", forEverybody},
		{"pages of a list", pagesOfAList},
		{"logout", logout},
	} {
		if !t.Run(part.name, func(t *testing.T) {
			p.t, s.t = t, t
			part.run(p)
			p.content()
		}) {
			p.t, s.t = t, t
			return
		}
		p.t, s.t = t, t
	}
}

func overview(p *person) {
	p.open("/")
	p.sees("Everything that is configured is served.", "wine", "1 running", "wine forest", "forest of 60")
	p.picture("ui-overview.png", 640)
}

func playground(p *person) {
	p.open("/services/" + p.s.service + "/playground?endpoint=wine_canary")
	p.write("textarea[name=body]", wine)
	p.press("form", "Send")
	p.sees(`"grower"`, "200", "answered by", "wine/", "ms")
	p.sees("curl -X POST", "requests.post")
	p.do(chromedp.Click(chromedp.CSS(`[data-copy="#curl"]`)))
	p.open("/services/" + p.s.service + "/playground?endpoint=wine_canary")
	p.write("textarea[name=body]", wine)
	p.do(chromedp.KeyEvent("\r", chromedp.KeyModifiers(chromedp.ModifierCtrl)))
	p.sees(`"grower"`)
	p.picture("ui-playground.png", 980)
}

// playgroundWithAKey sends requests to a service that requires keys, with a right and a wrong key.
func playgroundWithAKey(p *person) {
	command := func(args ...string) string {
		return p.s.run(p.s.dir, binary, append([]string{"--json", "--id", p.s.service}, args...)...)
	}
	var made struct{ Key string }
	p.s.decode(command("auth", "create", "--label", "a person", "--wait"), &made)
	command("config", "--auth", "on")
	p.open("/services/" + p.s.service + "/playground?endpoint=wine/1")
	p.write("textarea[name=body]", wine)
	p.write("input[name=key]", "csk_wrong")
	refused := `document.querySelector("main").innerText.includes("401")`
	for deadline := time.Now().Add(time.Minute); !value[bool](p, refused); {
		if time.Now().After(deadline) {
			p.t.Fatal("a wrong key is never refused")
		}
		p.press("form", "Send")
		p.do(holds(`document.querySelector("pre.answer")`))
	}
	p.write("input[name=key]", made.Key)
	p.press("form", "Send")
	p.sees(`"grower"`, "$ACCESS_KEY")
	p.picture("ui-playground-key.png", 980)
	command("config", "--auth", "off")
}

func service(p *person) {
	p.open("/services")
	p.sees("wine", "1 running")
	p.picture("ui-services.png", 420)
	p.open("/services/" + p.s.service)
	p.sees("wine/1", "wine/2", "by monitoring wine_auto", "ready", "Monitoring rules", "alcohol", "Reported by the instances")
	p.sees(p.s.service, "/serve/<endpoint>", "Requests need no key")
	p.write("input[name=label]", "a shop")
	p.press("form", "Create key")
	p.sees("New key: a shop", "csk_")
	p.press("form", "Require a key")
	p.sees("Requests need a key now.")
	p.press("form", "Require no key")
	p.sees("Requests need no key now.")
	p.press("td", "Revoke")
	p.sees("is revoked")
}

// endpoint checks the page of an endpoint and changes its options there.
func endpoint(p *person) {
	p.open("/services/" + p.s.service)
	p.press("td", "wine/2")
	p.sees("ready", "Served", "sklearn", "class Preprocess", "endpoint live", "alcohol", "wine_canary", "/serve/wine/2")
	p.do(chromedp.Click(chromedp.CSS("#golden summary")))
	p.write("#golden textarea", `{"body": `+wine+`, "answer": {"grower": "nobody"}}`)
	p.press(`section[@id="golden"]`, "Turn on")
	p.sees("1 samples", "Served. A new version has to reproduce")
	p.do(chromedp.Click(chromedp.CSS("#limits summary")))
	p.write("#limits input[name=deadline]", "7.5")
	p.press(`section[@id="limits"]`, "Turn on")
	p.sees("Stored.", "7.5", "refused: golden: ", " serves")
	p.open("/")
	p.sees("What is wrong", "wine/2 of wine is refused")
	p.press("section", "wine/2 of wine is refused")
	p.press("h1/..", "Try")
	p.sees("It begins with the first golden sample.")
	p.do(holds(`document.querySelector("textarea[name=body]").value.includes("13.05")`))
	p.press("form", "Send")
	p.sees(`"grower"`)
	p.press("h1/..", "Endpoint")
	p.do(chromedp.Click(chromedp.CSS("#golden summary")))
	p.press(`section[@id="golden"]`, "Turn off")
	p.sees("Served", "None: with samples")
	p.do(chromedp.Click(chromedp.CSS("#limits summary")))
	p.press(`section[@id="limits"]`, "Turn off")
	p.sees("Served", "None beside those of the instance")
}

// recordings records requests of an endpoint and shows them, in and out.
func recordings(p *person) {
	at := "/services/" + p.s.service + "/endpoints/wine/2"
	p.open(at)
	p.do(chromedp.Click(chromedp.CSS("#record summary")))
	p.write("#record input[name=share]", "100")
	p.press(`section[@id="record"]`, "Turn on")
	p.sees("100 % of the requests are kept")
	for deadline := time.Now().Add(time.Minute); !p.present("#requests details"); {
		if time.Now().After(deadline) {
			p.t.Fatal("no recorded request is shown")
		}
		p.open("/services/" + p.s.service + "/playground?endpoint=wine/2")
		p.write("textarea[name=body]", wine)
		p.press("form", "Send")
		p.sees(`"grower"`)
		p.open(at)
	}
	p.do(chromedp.Click(chromedp.CSS("#requests summary")))
	p.sees("13.05", "grower B")
	p.audit(at)
	p.open("/services/" + p.s.service + "/playground?endpoint=wine/2")
	p.sees("It begins with the newest recorded request.")
	p.open(at)
	p.do(chromedp.Click(chromedp.CSS("#record summary")))
	p.press(`section[@id="record"]`, "Turn off")
	p.sees("Off: requests can be kept")
}

// search finds pages by their names, with the keyboard only.
func search(p *person) {
	p.open("/models")
	key := func(key string) { p.do(chromedp.KeyEvent(key)) }
	key("/")
	p.do(holds(`document.querySelector("[data-finder]").open && document.querySelectorAll("#found [role=option]").length > 3`))
	p.write("[data-finder] input", "wine/2")
	p.do(holds(`document.querySelector("#found [aria-selected=true]").innerText.includes("wine/2")`))
	p.picture("ui-search.png", 620)
	key(kb.Enter)
	p.sees("Served", "class Preprocess")
	p.do(chromedp.KeyEvent("k", chromedp.KeyModifiers(chromedp.ModifierCtrl)), holds(`document.querySelectorAll("#found [role=option]").length > 3`))
	p.write("[data-finder] input", "forest model")
	p.do(holds(`document.querySelectorAll("#found [role=option]").length > 1`))
	key(kb.ArrowDown)
	p.do(holds(`document.querySelector("#found").children[1].getAttribute("aria-selected") === "true"`))
	key(kb.Escape)
	p.do(holds(`!document.querySelector("[data-finder]").open`))
	p.do(chromedp.Click(`//nav//a[text()="Docs"]`))
	p.sees("Documentation")
	p.press("li", "Storage of models")
	p.sees("A model is a file with an address")
}

// codeInTheEditor adds an endpoint with code that is written in the page, breaks it, and repairs it.
func codeInTheEditor(p *person) {
	p.open("/services/" + p.s.service)
	p.press(`div[contains(@class,"actions")]`, "Add endpoint")
	p.sees("Add endpoint")
	p.do(chromedp.SetValue(chromedp.CSS("select[name=engine]"), "custom"))
	value[bool](p, `(document.querySelector("select[name=engine]").dispatchEvent(new Event("change", {bubbles: true})), true)`)
	p.do(holds(`document.querySelector("textarea[name=text]").value.includes("def process(")`))
	p.write("input[name=endpoint]", "echo")
	p.picture("ui-deploy.png", 1000)
	p.press("form", "Deploy")
	p.sees("Served", "def process(")
	change := func(text string) {
		p.press(`div[contains(@class,"actions")]`, "Change")
		p.sees("Change echo")
		p.write("textarea[name=text]", text)
		p.write("input[name=message]", "tried by a person")
		p.press("form", "Store")
	}
	change("class Preprocess:\n    def broken(\n")
	p.sees("revision 2 refused: load: ", "; 1 serves", "SyntaxError")
	p.picture("ui-revisions.png", 760)
	p.press("td", "2")
	p.sees("Revision 2", "Refused", "What changed", "def broken(")
	p.do(chromedp.WaitVisible(chromedp.CSS("pre.diff .add")), chromedp.WaitVisible(chromedp.CSS("pre.source .word")))
	p.picture("ui-revision.png", 1000)
	p.audit(strings.TrimPrefix(value[string](p, "location.href"), p.s.api))
	p.do(chromedp.Click(`//nav//a[normalize-space()="echo"]`))
	p.do(chromedp.Click(chromedp.CSS(`button[aria-label="Bring revision 1 back"]`)))
	p.sees("Revision 1 is stored again, as revision 3.", "Served", "brings 1 back")
	change("class Preprocess:\n    def process(self, data, state, collect_custom_statistics_fn=None):\n        return {\"seen\": data}\n")
	p.sees("Served", "seen")
	p.press("h1/..", "Try")
	p.write("textarea[name=body]", `{"a": "<b>"}`)
	p.press("form", "Send")
	p.sees("seen", "<b>")
	p.open("/services/" + p.s.service)
	p.do(chromedp.Click(chromedp.CSS(`button[aria-label="Remove echo"]`)))
	p.sees("Removed the static endpoint echo")
	p.open("/services/" + p.s.service + "/endpoints/echo")
	p.sees("It was removed", "Revision")
}

func canary(p *person) {
	p.open("/services/" + p.s.service)
	p.press(`div[contains(@class,"card")]`, "Edit weights")
	p.sees("Weights of")
	p.write("input[name=weight]", "0.3")
	p.do(holds(`document.querySelector(".pair output").textContent.trim() === "25 %"`))
	p.picture("ui-canary.png", 620)
	p.press("form", "Store")
	p.sees("is stored", "25 %", "75 %")
	// A running instance follows: the page shows the shares that it uses.
	p.do(holds(`!document.querySelector("main").innerText.includes("As configured")`))
}

func history(p *person) {
	p.open("/services/" + p.s.service + "/history")
	p.sees("canary wine_canary changed", "web page", "endpoint wine/1 added")
	p.press("td", "What changed")
	p.do(chromedp.WaitVisible(chromedp.CSS("pre.diff .add")))
	p.picture("ui-history.png", 860)
	p.press("form", "Revert")
	p.sees("taken back")
	p.open("/services/" + p.s.service)
	p.sees("10 %", "90 %")
	p.open("/services/" + p.s.service + "/history")
	p.press("form", "Revert anyway")
	p.sees("taken back")
}

// rules removes a monitoring rule and logged metrics, adds them again, and creates a
// canary.
func rules(p *person) {
	page := "/services/" + p.s.service
	p.open(page)
	p.do(chromedp.Click(chromedp.CSS(`button[aria-label="Remove the metrics of wine/2"]`)))
	p.sees("not logged any more", "None beside the counts")
	p.open(page + "/history")
	p.press("form", "Revert")
	p.sees("taken back")
	p.open(page)
	p.sees("alcohol")
	p.do(chromedp.Click(chromedp.CSS(`button[aria-label="Remove the rule wine_auto"]`)))
	p.sees("Removed the model monitoring endpoint wine_auto")
	p.open(page + "/history")
	p.press("form", "Revert")
	p.sees("taken back")
	p.open(page)
	p.sees("every model, the newest 2")
	p.press(`section`, "New canary")
	p.sees("New canary")
	p.write("input[name=endpoint]", "wine_trial")
	p.write(".pair:nth-of-type(1) input[name=target]", "wine/1")
	p.write(".pair:nth-of-type(1) input[name=weight]", "1")
	p.write(".pair:nth-of-type(2) input[name=target]", "wine/2")
	p.write(".pair:nth-of-type(2) input[name=weight]", "3")
	p.do(holds(`document.querySelector(".pair output").textContent.trim() === "25 %"`))
	p.press("form", "Store")
	p.sees("is stored", "wine_trial")
	p.do(chromedp.Click(chromedp.CSS(`button[aria-label="Remove wine_trial"]`)))
	p.sees("Removed the model canary endpoint wine_trial")
}

func instance(p *person) {
	p.do(chromedp.Click(`//a[contains(@href,"/instances/")]`), chromedp.WaitVisible(chromedp.CSS(".console")))
	p.sees("running", "Last contact", "endpoint live", "MiB")
	p.picture("ui-instance.png", 760)
}

func experiments(p *person) {
	p.open("/experiments")
	p.sees("forest of 20", "forest of 60")
	p.picture("ui-experiments.png", 560)
	p.do(chromedp.SetValue(chromedp.CSS("select[name=type]"), "training"))
	p.write("input[name=search]", "forest of 6")
	p.do(holds(`document.querySelectorAll("#results tbody tr").length === 1`))
	p.sees("forest of 60")
	for tab, words := range map[string][]string{
		"overview": {"Models made", "wine forest", "test accuracy", "experiments.py"}, "plots": {"confusion", "importance", "surface", "grower A"},
		"images": {"gradient"}, "configuration": {"trees", "test share", "classes"}, "artifacts": {"classes", "notes"}, "console": {"60 trees: accuracy"},
	} {
		p.open("/experiments/" + p.s.newer + "/" + tab)
		p.sees(words...)
		if tab == "plots" {
			p.do(chromedp.WaitVisible(chromedp.CSS("td.heat")), chromedp.WaitVisible(chromedp.CSS(".plot canvas")))
			p.picture("ui-plots.png", 1000)
		}
		if tab == "images" {
			p.do(holds(`document.querySelector("figure img").naturalWidth === 160`))
		}
		if height := map[string]int64{"overview": 860, "images": 380, "configuration": 860, "artifacts": 400, "console": 560}[tab]; height > 0 {
			p.picture("ui-experiment-"+tab+".png", height)
		}
	}
	p.open("/experiments/" + p.s.newer)
	p.write("input[name=tags]", "forest, looked at")
	p.press("form", "Store")
	p.sees("Tags stored.")
	p.press("form", "Archive")
	p.sees("archived")
	p.press("form", "Bring back")
	p.sees("back in the lists")
	p.open("/experiments/" + p.s.newer + "/scalars")
	p.do(chromedp.WaitVisible(chromedp.CSS(".plot canvas")))
	p.sees("accuracy", "train", "size")
	p.picture("ui-scalars.png", 860)
}

func compare(p *person) {
	p.open("/experiments?search=forest")
	p.do(chromedp.Click(chromedp.CSS(`input[value="`+p.s.older+`"]`)), chromedp.Click(chromedp.CSS(`input[value="`+p.s.newer+`"]`)))
	p.press("form", "Compare the chosen")
	p.sees("forest of 20", "forest of 60", "depth")
	p.do(chromedp.WaitVisible(chromedp.CSS(".plot canvas")))
	p.picture("ui-compare.png", 980)
	p.press(`div[contains(@class,"head")]`, "Show equal values too")
	p.sees("seed")
}

func models(p *person) {
	model := p.s.models[0]
	p.open("/models?project=")
	p.write("input[name=tags]", "wine")
	p.do(chromedp.SetValue(chromedp.CSS("select[name=framework]"), "ScikitLearn"), chromedp.SetValue(chromedp.CSS("select[name=state]"), "draft"))
	p.sees("wine forest", "forest of 60")
	p.picture("ui-models.png", 520)
	p.open("/models/" + model)
	p.sees("forest of 20", "wine/1", "accuracy")
	p.write("input[name=tags]", "wine, first")
	p.press(`form[contains(@action,"tags")]`, "Store")
	p.sees("Tags stored.")
	p.write("input[name=key][required]", "owner")
	p.write("input[name=value]", "the cellar")
	p.press(`form[contains(@action,"metadata")]`, "Store")
	p.sees("Stored owner.", "the cellar")
	p.do(chromedp.Click(chromedp.CSS(`button[aria-label="Remove accuracy"]`)))
	p.sees("Removed accuracy.")
	p.press("form", "Publish")
	p.sees("is published")
	p.picture("ui-model.png", 760)
	p.press("form", "Archive")
	p.sees("archived")
	p.press("form", "Bring back")
	p.sees("back in the lists")
	if status := value[int](p, `fetch(document.querySelector("a[download]").href).then((answer) => answer.status)`); status != 200 {
		p.t.Errorf("download: %d", status)
	}
}

func uploadAndDeploy(p *person) {
	file := filepath.Join(p.s.dir, "by hand.pkl")
	made, err := filepath.Glob(filepath.Join(p.s.dir, "wine-forest-of-20.pkl"))
	if err != nil || len(made) != 1 {
		p.t.Fatalf("the training left %v, %v", made, err)
	}
	text, err := os.ReadFile(made[0])
	if err == nil {
		err = os.WriteFile(file, text, 0o600)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	p.open("/models/upload")
	p.write("input[name=name]", "by hand")
	p.picture("ui-upload.png", 760)
	p.do(chromedp.SetUploadFiles(chromedp.CSS("input[type=file]"), []string{file}))
	p.press("form", "Upload")
	p.sees("is uploaded", "it was uploaded or registered")
	p.press(`div[contains(@class,"actions")]`, "Deploy")
	p.sees("An endpoint serves")
	p.write("input[name=endpoint]", "bad//name")
	p.press("form", "Deploy")
	p.sees("has an empty part between slashes")
	p.write("input[name=endpoint]", "by_hand")
	p.do(chromedp.SetValue(chromedp.CSS("select[name=code]"), "py_code_wine_1"))
	p.press("form", "Deploy")
	p.sees("by_hand", "Served") // the page follows the load
	p.open("/services/" + p.s.service + "/playground?endpoint=by_hand")
	p.write("textarea[name=body]", wine)
	p.press("form", "Send")
	p.sees(`"grower"`)
	// After the picture of the instance's console, because the error contains paths.
	p.write("textarea[name=body]", `{"wine": "nonsense"}`)
	p.press("form", "Send")
	p.sees("ValueError")
	p.open("/services/" + p.s.service)
	p.do(chromedp.Click(chromedp.CSS(`button[aria-label="Remove by_hand"]`)))
	p.sees("Removed the static endpoint by_hand")
	p.open("/services")
	p.write("input[name=name]", "another")
	p.press("form", "Create")
	p.sees("is created", "Nothing is served yet")
}

func settings(p *person) {
	p.open("/settings")
	p.write("input[name=label]", "laptop")
	p.press("form", "Create credentials")
	p.sees("New credentials: laptop", "secret_key")
	key := value[string](p, `document.querySelector("#fresh").textContent.match(/access_key: "(\w+)"/)[1]`)
	p.open("/settings")
	p.sees(key, "Storage", "About", "htmx")
	p.picture("ui-settings.png", 860)
	p.do(chromedp.Click(chromedp.CSS(`button[aria-label="Revoke ` + key + `"]`)))
	p.sees("is revoked")
}

// deletion deletes an uploaded model with its file, and an experiment.
func deletion(p *person) {
	p.open("/models?search=by+hand")
	p.press("td", "by hand")
	p.sees("it was uploaded or registered")
	if p.present(`form[action$="/delete"]`) {
		p.t.Error("a model that is not archived can be deleted")
	}
	p.press("form", "Archive")
	p.sees("Delete for good")
	p.picture("ui-delete.png", 940)
	file := value[string](p, `document.querySelector("a[download]").href`)
	p.do(chromedp.Click(chromedp.CSS(`input[name=files]`)))
	p.press("form", "Delete")
	p.sees("The model by hand is deleted. 1 file was removed.")
	if status := value[int](p, `fetch(`+quoted(file)+`).then((answer) => answer.status)`); status != 404 {
		p.t.Errorf("the file of the deleted model: %d", status)
	}
	id := value[string](p, `fetch("/tasks.create", {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({name: "short-lived", type: "testing"})}).then((answer) => answer.json()).then((answer) => answer.data.id)`)
	p.open("/experiments/" + id)
	p.press("form", "Archive")
	p.sees("Delete for good")
	p.press("form", "Delete")
	p.sees("The experiment short-lived is deleted.")
}

func errorPage(p *person) {
	p.open("/models/0123456789abcdef0123456789abcdef")
	p.sees("404", "Not found", "There is no model with the id")
	p.open("/nothing/of/the/kind")
	p.sees("404", "There is no such page.")
	p.open("/models/0123456789abcdef0123456789abcdef")
	p.picture("ui-error.png", 420)
	p.press("section", "Go back")
	p.sees("Models")
}

// everyPage are the addresses of every kind of page.
func (p *person) everyPage() []string {
	experiment, service, model := "/experiments/"+p.s.newer, "/services/"+p.s.service, "/models/"+p.s.models[0]
	pages := []string{"/", "/docs", "/docs/security", "/deploy", "/nothing", service + "/endpoints/wine/1", service + "/endpoints/wine_canary", service + "/endpoints/wine_auto", service + "/endpoints/wine_auto/1", service + "/revisions/wine/1?number=1", "/deploy?endpoint=wine/1&service=" + p.s.service, "/models", "/models/upload", model, model + "/deploy", "/experiments", "/services", "/settings", "/models/nothing"}
	for _, tab := range []string{"/overview", "/scalars", "/plots", "/images", "/configuration", "/artifacts", "/console"} {
		pages = append(pages, experiment+tab)
	}
	for _, page := range []string{"", "/history", "/canary", "/canary?endpoint=wine_canary", "/playground"} {
		pages = append(pages, service+page)
	}
	instance := value[string](p, `fetch(`+quoted(service)+`).then((answer) => answer.text()).then((text) => text.match(/\/services\/\w+\/instances\/\w+/)[0])`)
	return append(pages, instance, "/experiments/compare?ids="+p.s.older+"&ids="+p.s.newer)
}

// forEverybody checks the accessibility of every page in both themes: fields without a name, low
// contrast, and content that is wider than a phone.
func forEverybody(p *person) {
	p.do(prefers("light"))
	value[bool](p, `(document.cookie = "theme=; path=/; max-age=0", true)`)
	p.audit(p.everyPage()...)
}

// tooWide lists elements that are wider than the page, or cut off by a box that does not scroll.
const tooWide = `(() => {
	const found = [];
	if (document.documentElement.scrollWidth > document.documentElement.clientWidth) found.push("the page: " + document.documentElement.scrollWidth);
	for (const one of document.querySelectorAll("main a, main button, main td, main input, main select, main textarea")) {
		const box = one.getBoundingClientRect();
		if (box.width && box.right > innerWidth + 1 && !one.closest(".scroll, pre, .tabs, .console, .prose table")) found.push("cut off: " + one.outerHTML.slice(0, 120));
	}
	return found.join("\n");
})()`

// audit checks pages in both themes, and on a phone.
func (p *person) audit(paths ...string) {
	p.t.Helper()
	text, err := os.ReadFile("testdata/audit.js")
	if err != nil {
		p.t.Fatal(err)
	}
	for _, path := range paths {
		p.open(path)
		p.do(holds(`![...document.querySelectorAll("[data-figure]")].some((plot) => plot.getBoundingClientRect().top < innerHeight && !plot.querySelector("canvas, table, a"))`))
		for _, theme := range []string{"light", "dark"} {
			p.do(prefers(theme))
			if told := value[string](p, string(text)); told != "" {
				p.t.Errorf("%s, %s:\n%s", path, theme, told)
			}
		}
		p.do(chromedp.EmulateViewport(390, 844))
		if wide := value[string](p, tooWide); wide != "" {
			p.t.Errorf("%s, on a phone:\n%s", path, wide)
		}
		p.do(chromedp.EmulateViewport(1280, 900))
	}
	p.do(prefers("light"))
}

// pagesOfAList pages through a list of 120 experiments, and searches from a later page.
func pagesOfAList(p *person) {
	value[bool](p, `(async () => {
		for (let i = 100; i < 220; i++) {
			const answer = await fetch("/tasks.create", {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({name: "one of many " + i, type: "testing"})})
			if (!answer.ok) { throw new Error(answer.status) }
		}
		return true
	})()`)
	p.open("/experiments?search=one+of+many")
	p.sees("1–50", "one of many 219", "one of many 170")
	p.press("nav", "Next →")
	p.sees("51–100", "one of many 169", "one of many 120")
	p.press("nav", "Next →")
	p.sees("101–120", "one of many 119", "one of many 100")
	p.press("nav", "← Previous")
	p.sees("51–100")
	p.press("nav", "Last")
	p.sees("the last 50", "one of many 149", "one of many 100")
	p.press("nav", "← Previous")
	p.sees("51–100 from the end", "one of many 199", "one of many 150")
	p.write("input[name=search]", "one of many 21")
	p.do(holds(`document.querySelectorAll("#results tbody tr").length === 10`))
	p.open("/experiments?search=one+of+many&before=end&page=-1")
	p.press("nav", "First")
	p.sees("1–50", "one of many 219")
	p.audit("/experiments?search=one+of+many")
}

func themesAndPhone(p *person) {
	ground := `getComputedStyle(document.body).backgroundColor`
	p.open("/services/" + p.s.service)
	p.do(prefers("light"))
	light := value[string](p, ground)
	p.do(prefers("dark"))
	dark := value[string](p, ground)
	p.picture("ui-service-dark.png", 900)
	p.do(chromedp.Click(chromedp.CSS("[data-theme-button]")))
	if chosen := value[string](p, ground); light == dark || chosen != light {
		p.t.Errorf("grounds: light %s, dark %s, light chosen on a dark system %s", light, dark, chosen)
	}
	p.open("/services/" + p.s.service) // the choice stays
	if chosen := value[string](p, ground); chosen != light {
		p.t.Errorf("the chosen theme is forgotten: %s", chosen)
	}
	p.do(prefers("light"))
	p.phonePicture("ui-phone.png")
}

func logout(p *person) {
	p.open("/models")
	p.do(chromedp.Click(`//button[text()="Log out"]`), chromedp.WaitVisible(chromedp.CSS("input[name=access_key]")))
	p.do(chromedp.Navigate(p.s.api+"/models?search=wine"), chromedp.WaitVisible(chromedp.CSS("input[name=access_key]")))
	p.picture("ui-login.png", 560)
	for _, name := range []struct{ field, variable string }{{"access_key", "CLEARML_API_ACCESS_KEY"}, {"secret_key", "CLEARML_API_SECRET_KEY"}} {
		for _, line := range p.s.env {
			if value, ok := strings.CutPrefix(line, name.variable+"="); ok {
				p.write("input[name="+name.field+"]", value)
			}
		}
	}
	p.press("form", "Log in")
	p.sees("Models", "wine forest")
}
