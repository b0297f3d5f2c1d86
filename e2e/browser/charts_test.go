//go:build linux

package browser_test

import (
	"fmt"
	"math"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// traffic sends requests to some urls until the returned function is called: one in eight cannot be answered.
func (s *system) traffic(urls ...string) (stop func()) {
	ended := make(chan struct{})
	var running sync.WaitGroup
	client := &http.Client{Timeout: 10 * time.Second}
	for _, url := range urls {
		running.Go(func() {
			for n := 0; ; n++ {
				body := strings.Replace(wine, "13.05", fmt.Sprintf("%.2f", 12.8+1.4*math.Sin(float64(n)/9)), 1)
				if n%8 == 7 {
					body = `{"wine": "nonsense"}`
				}
				answer, err := client.Post(s.serve+"/serve/"+url, "application/json", strings.NewReader(body))
				if err == nil {
					_ = answer.Body.Close()
				}
				select {
				case <-ended:
					return
				case <-time.After(60 * time.Millisecond):
				}
			}
		})
	}
	return func() {
		close(ended)
		running.Wait()
	}
}

// drawn waits until a chart has a line of this name with a value above 0.
func (p *person) drawn(chart, line string) {
	p.t.Helper()
	value[bool](p, `(document.querySelector(`+quoted(`[data-chart="`+chart+`"]`)+`).scrollIntoView({block: "center"}), true)`)
	p.do(holds(`document.querySelector(` + quoted(`[data-chart="`+chart+`"]`) + `).data?.lines.some((line) => line.name === ` + quoted(line) + ` && line.values.some((v) => v > 0))`))
}

// charts looks at the charts of real traffic: of an endpoint, its versions, its variables, a canary, a machine.
func charts(p *person) {
	stop := p.s.traffic("wine_canary", "wine/2")
	defer stop()
	at := "/services/" + p.s.service + "/endpoints/wine/2"
	p.open(at + "?range=15m")
	p.drawn("rate", "answered")
	p.drawn("errors", "client error")
	p.drawn("latency", "p99")
	p.drawn("split", "worker")
	p.drawn("workers", "limit")
	p.drawn("memory", "memory")
	p.drawn("cpu", "cores")
	p.drawn("each-rate", "wine/1")
	p.drawn("each-rate", "wine/2")
	p.drawn("each-p99", "wine/2")
	p.drawn("var:alcohol", "13 – 14")
	p.do(holds(`document.querySelector("[data-chart=rate] .mark.good")?.ariaLabel.includes("revision 1")`))
	p.do(holds(`document.querySelector("[data-marks] summary").textContent.includes("event")`))

	// The errors have their traceback, and what is unfolded stays.
	p.do(holds(`document.querySelector("#errors details")`), chromedp.Click(chromedp.CSS("#errors summary")))
	p.sees("Last errors", "ValueError", "Traceback (most recent call last)", "preprocess.py")

	// A range is chosen by its name, by dragging, and by the keyboard.
	p.open(at)
	p.drawn("rate", "answered")
	p.do(chromedp.Click(chromedp.CSS(`a[data-range="6h"]`)))
	p.do(holds(`location.search === "?range=6h" && document.querySelector("[data-range='6h'][aria-current]")`))
	p.do(holds(`document.querySelector("[data-chart=rate]").data.times.length < 200`))
	value[bool](p, `(() => {
		const over = document.querySelector("[data-chart=rate] .u-over"), box = over.getBoundingClientRect();
		const send = (target, type, share) => target.dispatchEvent(new MouseEvent(type, {bubbles: true, clientX: box.left + box.width * share, clientY: box.top + 20, movementX: 9, button: 0}));
		send(over, "mouseenter", 0.5); send(over, "mousemove", 0.5); send(over, "mousedown", 0.5); send(over, "mousemove", 0.75); send(document, "mouseup", 0.75);
		return true;
	})()`)
	p.do(holds(`location.search.includes("from=") && !document.querySelector("a[data-range][aria-current]") && document.querySelector("[data-shown]").textContent.includes("–")`))
	const length = `new URLSearchParams(location.search).get("to") - new URLSearchParams(location.search).get("from")`
	if long := value[int](p, length); long < 5000 || long > 5800 {
		p.t.Errorf("a quarter of 6 hours was dragged, %d seconds are shown", long)
	}
	p.do(holds(`document.querySelector("[data-chart=rate]").chart`))
	value[bool](p, `(document.querySelector("[data-chart=rate] .u-wrap").focus(), true)`)
	p.do(chromedp.KeyEvent("+"), holds(length+` < 3000`))
	p.do(chromedp.KeyEvent(kb.ArrowLeft), holds(`/\d\d:\d\d/.test(document.querySelector("[data-chart=rate] .now").textContent)`))
	p.do(chromedp.Click(chromedp.CSS(`a[data-range="15m"]`)))
	p.do(holds(`document.querySelector("[data-live]").getAttribute("aria-pressed") === "true"`))
	newest := value[int](p, `Math.floor(Date.now() / 1000)`)
	p.do(holds(`document.querySelector("[data-chart=rate]").data.times.at(-1) >= ` + strconv.Itoa(newest)))
	p.do(chromedp.Click(chromedp.CSS(`[data-chart=latency] .key`)))
	p.do(holds(`document.querySelector("[data-chart=latency] .key").getAttribute("aria-pressed") === "false" && document.querySelector("[data-chart=latency]").chart.series.length === 3`))

	if os.Getenv("CLEARML_SERVING_E2E_SCREENSHOTS") != "" { // of a while of traffic, with an event
		time.Sleep(time.Minute)
		p.s.run(p.s.dir, binary, "--id", p.s.service, "model", "limits", "--endpoint", "wine/2", "--max-queue", "200", "--wait")
		time.Sleep(time.Minute)
	}
	now := time.Now().Unix()
	newestMinutes := fmt.Sprintf("?from=%d&to=%d", now-110, now)
	p.open(at + newestMinutes)
	p.drawn("latency", "p99")
	top := func(selector string) {
		value[bool](p, `(document.querySelector(`+quoted(selector)+`).scrollIntoView(), true)`)
	}
	top("body")
	p.picture("ui-endpoint.png", 1180)
	p.do(prefers("dark"))
	p.picture("ui-endpoint-dark.png", 900)
	p.do(prefers("light"))
	p.phonePicture("ui-endpoint-phone.png")
	top("#charts")
	p.picture("ui-charts.png", 1000)
	p.do(prefers("dark"))
	p.picture("ui-charts-dark.png", 1000)
	p.do(prefers("light"))
	p.phonePicture("ui-charts-phone.png")
	p.drawn("var:alcohol", "13 – 14")
	top("#variables")
	p.picture("ui-variables.png", 480)

	canary := "/services/" + p.s.service + "/endpoints/wine_canary"
	p.open(canary + newestMinutes)
	p.drawn("shares", "wine/1")
	p.drawn("each-errors", "wine/1")
	p.drawn("each-p99", "wine/1")
	top("body")
	p.picture("ui-canary-charts.png", 1250)

	p.open("/services/" + p.s.service)
	p.do(holds(`document.querySelectorAll("svg.spark polyline").length >= 2`))
	p.sees("Rate, last hour", "/s", "ms", "Machine CPU")
	p.picture("ui-service.png", 1180)
	instance := value[string](p, `document.querySelector("a[href*='/instances/']").getAttribute("href")`)
	p.open(instance + newestMinutes)
	p.drawn("machine-memory", "used")
	p.drawn("machine-cpu", "used")
	p.drawn("machine-disk", "used")
	p.drawn("machine-rate", "answered")
	top("#machine")
	p.picture("ui-machine.png", 900)
	p.audit(at, canary, instance, "/services/"+p.s.service)
}
