//go:build linux

package browser_test

import (
	"fmt"
	"strings"
)

// figures reports a figure of each kind, and damaged figures, and checks how the page shows them.
func figures(p *person) {
	const data = `JSON.stringify(plot.chart.data.map((column) => [...column]))`
	const words, rows = `plot.innerText`, `[...plot.querySelectorAll("tr")].map((row) => [...row.cells].map((cell) => cell.textContent).join(",")).join(";")`
	long := strings.TrimSuffix(strings.Repeat(`"r",`, 201), ",")
	cases := []struct{ name, figure, look, want string }{
		{"line with a gap", `{"data":[{"type":"scatter","x":[1,2,3],"y":[1,null,3]}]}`, data, `[[1,2,3],[1,null,3]]`},
		{"lines share their places", `{"data":[{"x":[1,2],"y":[1,2]},{"x":[2,3],"y":[3,4]}]}`, data, `[[1,2,3],[1,2,null],[null,3,4]]`},
		{"points at one place", `{"data":[{"mode":"markers","x":[1,1,2],"y":[1,2,3]}]}`, data, `[[1,1,2],[1,2,3]]`},
		{"no places", `{"data":[{"y":[7,8]}]}`, data, `[[0,1],[7,8]]`},
		{"packed", `{"data":[{"x":[1,2],"y":{"dtype":"f8","bdata":"AAAAAAAA8D8AAAAAAAAAQA=="}}]}`, data, `[[1,2],[1,2]]`},
		{"texts for places", `{"data":[{"x":["mon","tue"],"y":["1",2]}]}`, data, `[[0,1],[1,2]]`},
		{"bars", `{"data":[{"type":"bar","x":["a","b"],"y":[1,-2]}]}`, data, `[[0,1],[1,-2]]`},
		{"bars as a table", `{"data":[{"type":"bar","x":["a","b"],"y":[1,-2],"name":"n"},{"type":"bar","x":["b"],"y":[3],"name":"m"}]}`, `[...plot.querySelectorAll("details tr")].map((row) => [...row.cells].map((cell) => cell.textContent).join(",")).join(";")`, `x,n,m;a,1,;b,-2,3`},
		{"bars beside each other", `{"data":[{"type":"bar","x":["a"],"y":[1]},{"type":"bar","x":["a"],"y":[2]}]}`, data, `[[-0.2,0.2],[1,null],[null,2]]`},
		{"bars from left to right", `{"data":[{"type":"bar","orientation":"h","x":[5],"y":["a"]}]}`, data, `[[0],[5]]`},
		{"histogram", `{"data":[{"type":"histogram","x":[1,1,1,9]}]}`, data, `[[0,1],[3,1]]`},
		{"histogram of texts", `{"data":[{"type":"histogram","x":["a","b","a"]}]}`, data, `[[0,1],[2,1]]`},
		{"beyond the scale", `{"data":[{"y":[1e308,-1e308,1]}]}`, data, `[[0,1,2],[null,null,1]]`},
		{"narrow", `{"data":[{"x":[10000000000000000,10000000000000002],"y":[10000000000000000,10000000000000002]}]}`, data, `[[10000000000000000,10000000000000002],[10000000000000000,10000000000000002]]`},
		{"equal", `{"data":[{"x":[5,5],"y":[1,1]}]}`, data, `[[5,5],[1,1]]`},
		{"titles", `{"data":[{"y":[1]}],"layout":{"title":{"text":"a title"},"xaxis":{"title":"across"}}}`, `plot.textContent.includes("a title") && plot.textContent.includes("across") ? "both" : plot.textContent`, "both"},
		{"matrix", `{"data":[{"type":"heatmap","z":[[1,2],[3,4]],"x":["a","b"],"y":["c","d"]}],"layout":{"xaxis":{"title":"p"},"yaxis":{"title":{"text":"t"}}}}`, rows, `t ↓ p →,a,b;d,3,4;c,1,2`},
		{"matrix from above", `{"data":[{"type":"heatmap","z":[[1,2],[3,4]]}],"layout":{"yaxis":{"autorange":"reversed"}}}`, rows, `,0,1;0,1,2;1,3,4`},
		{"packed matrix", `{"data":[{"type":"heatmap","z":{"dtype":"i1","bdata":"AQL/AA==","shape":"2, 2"}}]}`, rows, `,0,1;1,-1,0;0,1,2`},
		{"shades", `{"data":[{"type":"heatmap","z":[[1,null,3]]}]}`, `[...plot.querySelectorAll(".heat")].map((cell) => cell.style.getPropertyValue("--strength")).join()`, `0,0,1`},
		{"too many cells", `{"data":[{"type":"heatmap","z":[[` + strings.TrimSuffix(strings.Repeat("1,", 10_001), ",") + `]]}]}`, words, "This plot has more than 10000 cells. Download its JSON."},
		{"table", `{"data":[{"type":"table","header":{"values":["h",["i"]]},"cells":{"values":[["x",1.5],["<img src=x>"]]}}]}`, rows, `h,i;x,<img src=x>;1.5,`},
		{"long table", `{"data":[{"type":"table","cells":{"values":[[` + long + `]]}}]}`, `plot.querySelectorAll("tbody tr").length + plot.querySelector("p").textContent`, "2001 more rows are in the JSON."},
		{"surface", `{"data":[{"type":"surface"},{"type":"bar"}]}`, words, "This plot is of a kind that is not drawn here (surface, bar). Download its JSON."},
		{"empty", `{"data":[]}`, words, "This plot is empty. Download its JSON."},
		{"nothing", `null`, words, "This plot cannot be drawn. Download its JSON."},
		{"no figure", `[`, words, "This plot cannot be drawn. Download its JSON."},
		{"odd bytes", `{"data":[{"y":{"dtype":"f8","bdata":"AAA="}}]}`, words, "This plot cannot be drawn. Download its JSON."},
		{"no numbers", `{"data":[{"x":["a"],"y":["b"]}]}`, words, "This plot has no numbers. Download its JSON."},
	}
	var reports strings.Builder
	for _, c := range cases {
		fmt.Fprintf(&reports, "await call(\"events.add\", {type: \"plot\", task: task.id, metric: %s, variant: \"v\", iter: 1, plot_str: %s});\n", quoted(c.name), quoted(c.figure))
	}
	task := value[string](p, `(async () => {
		const call = async (name, body) => {
			const answer = await fetch("/" + name, {method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body)});
			if (!answer.ok) throw new Error(name + ": " + await answer.text());
			return (await answer.json()).data;
		};
		const task = await call("tasks.create", {name: "figures", type: "testing"});
		`+reports.String()+`
		return task.id;
	})()`)
	path := "/experiments/" + task + "/plots"
	p.open(path)
	if got := value[int](p, `document.querySelectorAll("[data-figure]").length`); got != len(cases) {
		p.t.Fatalf("%d figures, want %d", got, len(cases))
	}
	value[bool](p, `(async () => {
		for (const plot of document.querySelectorAll("[data-figure]")) {
			plot.scrollIntoView();
			while (!plot.dataset.begun || !plot.querySelector("canvas, table, a")) await new Promise((wake) => setTimeout(wake, 20));
		}
		return true;
	})()`)
	for _, c := range cases {
		got := value[string](p, `(() => { const plot = document.querySelector(`+quoted(`[aria-label="`+c.name+` v"] .plot`)+`); try { return String(`+c.look+`) } catch (error) { return error + " in " + plot.innerText } })()`)
		if strings.TrimSpace(got) != c.want {
			p.t.Errorf("%s: %s; want %s", c.name, got, c.want)
		}
	}
	link := `document.querySelector("[aria-label=\"surface v\"] .plot a").href`
	if got := value[string](p, `fetch(`+link+`).then((answer) => answer.text())`); got != `{"data":[{"type":"surface"},{"type":"bar"}]}` {
		p.t.Errorf("the JSON of a plot that is not drawn: %s", got)
	}
	p.audit(path)
	p.do(prefers("light"))
}
