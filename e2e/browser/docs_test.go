//go:build linux

package browser_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// hostile is the name of an endpoint that would break a page that does not escape it.
const hostile = `a b/ü "x" {y}/<img src=x onerror=document.title='hacked'>`

// apartment is code whose type hints say what it takes.
const apartment = `
from typing import List, Optional, TypedDict


class Apartment(TypedDict):
    """An apartment of the offer."""

    city: str
    rooms: int
    area: Optional[float]


class Price(TypedDict):
    price: float
    reasons: List[str]


class Preprocess:
    def preprocess(self, body: Apartment, state: dict, collect_custom_statistics_fn=None):
        return body

    def process(self, data, state, collect_custom_statistics_fn=None) -> Price:
        return {"price": 1000.5 * data["rooms"] + (data["area"] or 70), "reasons": ["<b>" + data["city"] + "</b>"]}
`

const parrot = `
class Preprocess:
    def process(self, data, state, collect_custom_statistics_fn=None):
        if isinstance(data, bytes):
            return {"bytes": len(data)}
        return {"echo": data} if data else ("piece %d\n" % n for n in range(3))
`

// The page of the data plane: every endpoint, requests with and without a key, names that break pages.
func TestAPersonTriesEndpointsOnThePageOfTheDataPlane(t *testing.T) {
	s := startSystem(t)
	write := func(name, text string) string {
		path := filepath.Join(s.dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	command := func(args ...string) string { return s.run(s.dir, binary, append([]string{"--json"}, args...)...) }
	command("create", "--name", "Prices & more")
	command("model", "add", "--engine", "custom", "--endpoint", "prices", "--version", "1", "--preprocess", write("prices.py", apartment), "--wait")
	command("model", "add", "--engine", "custom", "--endpoint", "prices", "--version", "2", "--preprocess", write("prices.py", apartment), "--wait")
	command("model", "add", "--engine", "custom", "--endpoint", "parrot", "--preprocess", write("parrot.py", parrot), "--wait")
	command("model", "add", "--engine", "custom", "--endpoint", hostile, "--preprocess", write("parrot.py", parrot), "--wait")
	command("model", "canary", "--endpoint", "price", "--weights", "0.1", "0.9", "--input-endpoints", "prices/2", "prices/1", "--wait")
	p := openBrowser(t, s)
	visit := func() {
		p.do(chromedp.Navigate(s.serve+"/docs"), holds(`document.querySelector("#list:not([hidden]), #access:not([hidden])")`))
		p.content()
	}
	card := func(endpoint string) string {
		return `[...document.querySelectorAll("details.card")].find(one => one.dataset.endpoint === ` + quoted(endpoint) + `)`
	}
	open := func(endpoint string) {
		p.do(holds(card(endpoint)))
		value[bool](p, `(document.querySelectorAll("details.card[open]").forEach(one => one.open = false), `+card(endpoint)+`.open = true)`)
		p.do(holds(card(endpoint) + `.querySelector("form")`))
	}
	send := func() { p.do(chromedp.Click(chromedp.CSS("details.card[open] button.main"))) }

	visit()
	p.sees("Endpoints 5", "prices", "version 1", "version 2", "parrot", hostile, "canary", "POST /feedback/{endpoint}")

	open("prices/2")
	p.sees("rooms", "integer", "required", "curl -X POST", "requests.post", "The description comes from: type hints")
	send() // the example works
	p.sees("200", "answered by prices/2", `"price":`, "<b>")
	p.write("details.card[open] textarea", `{"city": "Oslo", "rooms": 3, "area": 71.5}`)
	if code := value[string](p, `document.querySelector("details.card[open] code.curl").textContent`); code == "" || !strings.Contains(code, `-d '{"city":"Oslo","rooms":3,"area":71.5}'`) || !strings.Contains(code, "'"+s.serve+"/serve/prices/2'") {
		t.Errorf("the command is %s", code)
	}
	send()
	p.sees(`"price": 3073`, "<b>Oslo</b>")
	p.picture("api-docs.png", 1060)
	p.write("details.card[open] textarea", `{"city": "Oslo"`)
	send()
	p.sees("422", `"detail"`)

	open("parrot")
	p.sees("No example is known")
	p.write("details.card[open] textarea", `{"a": [1, 12345678901234567890]}`)
	send()
	p.sees(`12345678901234567890`) // as it was sent, not as a number of JavaScript
	p.write("details.card[open] textarea", `{}`)
	send()
	p.sees("piece 0\npiece 1\npiece 2") // a stream
	p.do(chromedp.SetValue(chromedp.CSS("details.card[open] select"), "application/octet-stream"))
	value[bool](p, `document.querySelector("details.card[open] form").dispatchEvent(new Event("input"))`)
	p.sees("--data-binary @file")

	open(hostile)
	p.write("details.card[open] textarea", `{"<script>": "<img src=x onerror=alert(1)>"}`)
	send()
	p.sees(`"<script>": "<img src=x onerror=alert(1)>"`)
	if n := value[int](p, `document.querySelectorAll("main img, main script").length`); n != 0 || strings.Contains(value[string](p, `document.title`), "hacked") {
		t.Errorf("%d elements come from a name or an answer", n)
	}

	p.write("#find", "PRIC 2")
	p.sees("1 of 5")
	if n := value[int](p, `document.querySelectorAll("details.card").length`); n != 1 {
		t.Errorf("%d endpoints are found", n)
	}

	// With keys.
	var all, one struct{ Key string }
	s.decode(command("auth", "create", "--label", "all"), &all)
	s.decode(command("auth", "create", "--label", "one", "--endpoint", "prices"), &one)
	command("config", "--auth", "on", "--wait")
	visit()
	p.sees("Access key")
	if text := value[string](p, `document.documentElement.innerHTML`); strings.Contains(text, "prices") {
		t.Error("the page names an endpoint to a stranger")
	}
	p.write("#key", "csk_wrong")
	p.do(chromedp.Click(chromedp.CSS("#access button")))
	p.sees("The key is not known")
	p.write("#key", one.Key)
	p.do(chromedp.Click(chromedp.CSS("#access button")))
	p.sees("for other endpoints: name one of them")
	p.write("#only", "prices")
	p.do(chromedp.Click(chromedp.CSS("#access button")))
	p.sees("Endpoints 2")
	open("prices/1")
	send()
	p.sees("200", "$ACCESS_KEY")
	p.write("#key", all.Key)
	value[bool](p, `(document.querySelector("#only").value = "", true)`)
	p.do(chromedp.Click(chromedp.CSS("#access button")))
	p.sees("Endpoints 5")
	visit()
	p.sees("Access key") // the key ended with the page
	if held := value[bool](p, `document.cookie.includes("csk_") || JSON.stringify({...localStorage, ...sessionStorage}).includes("csk_")`); held {
		t.Error("the key is stored")
	}
	command("config", "--auth", "off", "--wait")

	// On a phone nothing is wider than the screen.
	p.do(chromedp.EmulateViewport(390, 844, chromedp.EmulateScale(1.5), chromedp.EmulateMobile))
	visit()
	open("prices/2")
	send()
	p.sees(`"price":`)
	for _, endpoint := range []string{"prices/2", hostile, "parrot"} {
		open(endpoint)
		if width := value[int](p, `document.documentElement.scrollWidth`); width > 390 {
			t.Errorf("%s is %d pixels wide", endpoint, width)
		}
	}
	open("prices/2")
	p.phonePicture("api-docs-phone.png")

	// What a reload shows after a change, and an endpoint that does not load.
	command("model", "add", "--engine", "custom", "--endpoint", "broken", "--preprocess", write("broken.py", "raise RuntimeError('<i>broken</i>')"))
	until(t, "the failure is shown", 2*time.Minute, func() bool {
		visit()
		return value[bool](p, `Boolean(`+card("broken")+`) && `+card("broken")+`.innerText.includes("failed")`)
	})
	open("broken")
	p.sees("<i>broken</i>")
	p.content()
}
