// Draws the Plotly figures of a page: scalars, and the plots that tasks have reported. uPlot
// draws lines, points, and bars; matrices and tables become HTML tables. Any other kind of
// figure gets a note with a link to its JSON.
"use strict";

(() => {
  const height = 260, mostRows = 200, mostCells = 10_000, mostPoints = 1e7, mostBins = 50;

  const make = (tag, text = "", kind = "") => {
    const element = document.createElement(tag);
    element.textContent = text;
    element.className = kind;
    return element;
  };

  const text = (value) => {
    if (typeof value === "number") return String(Number.isInteger(value) ? value : Number(value.toPrecision(5)));
    return value == null ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
  };
  const tick = (value) => {
    const [plain, brief] = [String(Number(value.toPrecision(12))), value.toExponential()];
    return plain.length > 8 && brief.length < plain.length ? brief : plain;
  };
  const titleOf = (title) => text(title !== null && typeof title === "object" ? title.text : title);
  const shorten = (label, longest = 12) => (label.length > longest ? label.slice(0, longest - 1) + "…" : label);

  // number is null for a value without a place on an axis: scales overflow beyond 1e300.
  const number = (value) => ((typeof value === "number" || (typeof value === "string" && value.trim())) && Math.abs(value) < 1e300 ? Number(value) : null);
  const extent = (values) => values.reduce(([low, high], v) => [Math.min(low, v), Math.max(high, v)], [Infinity, -Infinity]);

  // list reads a list as Plotly writes it: an array, a single value, or packed bytes.
  const arrays = { i1: Int8Array, u1: Uint8Array, i2: Int16Array, u2: Uint16Array, i4: Int32Array, u4: Uint32Array, f4: Float32Array, f8: Float64Array };
  const list = (value) => {
    if (value?.bdata) return [...new arrays[value.dtype](Uint8Array.from(atob(value.bdata), (c) => c.charCodeAt(0)).buffer)];
    return value == null ? [] : [value].flat();
  };
  const matrix = (value) => {
    const rows = list(value), width = Number(value?.shape?.split(",")[1]);
    return width ? Array.from({ length: rows.length / width }, (_, i) => rows.slice(i * width, (i + 1) * width)) : rows.map(list);
  };

  // table makes an HTML table of the first rows; paint may change a cell.
  const table = (header, rows, paint = () => {}) => {
    const box = make("div", "", "scroll"), element = box.appendChild(make("table", "", "tight"));
    const head = element.createTHead().insertRow(), body = element.createTBody();
    header.forEach((name) => head.append(make("th", text(name))));
    for (const row of rows.slice(0, mostRows)) {
      const line = body.insertRow();
      row.forEach((value, column) => {
        const cell = line.insertCell();
        cell.textContent = text(value);
        paint(cell, value, column);
      });
    }
    if (rows.length > mostRows) box.append(make("p", `${rows.length - mostRows} more rows are in the JSON.`, "dim"));
    return box;
  };

  const reportedTable = (trace) => {
    const columns = list(trace.cells?.values).map(list), length = Math.max(0, ...columns.map((column) => column.length));
    const rows = Array.from({ length }, (_, i) => columns.map((column) => column[i]));
    return table(list(trace.header?.values).map((head) => list(head).map(text).join(" ")), rows);
  };

  // heatmap makes a table of a matrix: the greater the value, the stronger the shade. Plotly
  // draws the first row at the bottom unless the axis is reversed.
  const heatmap = (trace, layout) => {
    const z = matrix(trace.z), across = list(trace.x), down = list(trace.y);
    if (z.flat().length > mostCells) throw `has more than ${mostCells} cells`;
    const [low, high] = extent(z.flat().map(number).filter((v) => v !== null));
    const rows = z.map((row, i) => [down[i] ?? i, ...row]);
    if (layout.yaxis?.autorange !== "reversed") rows.reverse();
    const [x, y] = [titleOf(layout.xaxis?.title), titleOf(layout.yaxis?.title)];
    const corner = [y && y + " ↓", x && x + " →"].filter(Boolean).join(" ");
    return table([corner, ...(z[0] ?? []).map((_, i) => across[i] ?? i)], rows, (cell, value, column) => {
      if (column === 0) return;
      cell.className = "heat";
      cell.style.setProperty("--strength", high > low && number(value) !== null ? (value - low) / (high - low) : 0);
    });
  };

  // count turns the values of histograms into bars over bins that are common to all.
  const count = (traces) => {
    const all = traces.flatMap((trace) => trace.x), numeric = all.every((value) => number(value) !== null);
    const [low, high] = extent(all.map(number)), bins = Math.min(mostBins, Math.ceil(Math.sqrt(all.length))), width = (high - low) / bins || 1;
    const labels = numeric ? Array.from({ length: bins }, (_, i) => text(low + (i + 0.5) * width)) : [...new Set(all.map(text))];
    for (const trace of traces) {
      trace.y = labels.map(() => 0);
      for (const value of trace.x) trace.y[numeric ? Math.min(bins - 1, Math.floor((value - low) / width)) : labels.indexOf(text(value))]++;
      trace.x = labels;
    }
  };

  // read makes lines of traces. Their places on the x axis are numbers, or, when there are bars
  // or texts, the places of labels.
  const read = (data) => {
    const lines = data.map((trace, i) => {
      const line = { name: trace.name || (data.length > 1 ? String(i + 1) : "y"), type: trace.type, x: list(trace.x), y: list(trace.y) };
      if (trace.orientation === "h") [line.x, line.y] = [line.y, line.x];
      line.mode = trace.mode || (line.y.length < 20 ? "lines+markers" : "lines");
      return line;
    });
    count(lines.filter((line) => line.type === "histogram" && !line.y.length));
    const bars = lines.filter((line) => line.type === "bar" || line.type === "histogram");
    const numeric = !bars.length && lines.every((line) => line.x.every((x) => x === null || number(x) !== null));
    for (const line of lines) line.x = line.y.map((_, i) => (line.x.length ? line.x[i] ?? null : i));
    const labels = numeric ? null : [...new Set(lines.flatMap((line) => line.x.map(text)))];
    const places = new Map(labels?.map((label, i) => [label, i]));
    for (const line of lines) {
      line.x = line.x.map((x) => (numeric ? number(x) : places.get(text(x))));
      line.y = line.y.map(number);
    }
    bars.forEach((line, i) => { line.beside = (i - (bars.length - 1) / 2) * 0.8 / bars.length; });
    if (!lines.some((line) => line.y.some((y, i) => y !== null && line.x[i] !== null))) throw "has no numbers";
    return { lines, labels, bars: bars.length };
  };

  // aligned brings the points of all lines into common rows, as uPlot takes them. The nth point
  // of a line at one x shares its row with the nth points of the others.
  const aligned = (lines) => {
    const rows = new Map();
    lines.forEach((line, s) => {
      const met = new Map();
      line.x.forEach((x, i) => {
        const nth = met.get(x) ?? 0, key = `${x} ${nth}`;
        if (x === null) return;
        met.set(x, nth + 1);
        if (!rows.has(key)) rows.set(key, [x, ...lines.map(() => null)]);
        rows.get(key)[s + 1] = line.y[i];
      });
    });
    if (rows.size * lines.length > mostPoints) throw "has too many points";
    return [...rows.values()].sort((a, b) => a[0] - b[0]);
  };

  // through draws a line in the order of its points: a curve may turn back on the x axis.
  const through = (line) => (u) => {
    const stroke = new Path2D();
    let on = false;
    line.y.forEach((y, i) => {
      const known = y !== null && line.x[i] !== null;
      if (known) stroke[on ? "lineTo" : "moveTo"](u.valToPos(line.x[i], "x", true), u.valToPos(y, "y", true));
      on = known;
    });
    return { stroke, fill: null, clip: null, band: null, gaps: null, flags: 1 };
  };

  const series = (line, colour) => {
    const look = { label: line.name, value: (_, v) => text(v), stroke: colour, points: { show: false } };
    if (line.beside !== undefined) return { ...look, fill: colour, width: 0, paths: uPlot.paths.bars({ size: [0.9, 120] }) };
    const drawn = line.mode.includes("lines");
    return { ...look, width: 2, paths: drawn ? through(line) : () => null, points: { show: !drawn || line.mode.includes("markers"), size: 6, fill: colour } };
  };

  const draw = (element, { lines, labels, bars }, layout) => {
    const style = getComputedStyle(document.documentElement), colour = (name) => style.getPropertyValue(name).trim();
    const [xTitle, yTitle] = [titleOf(layout.xaxis?.title), titleOf(layout.yaxis?.title)];
    const axis = { stroke: colour("--dim"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 }, labelSize: 20, labelFont: "12px sans-serif" };
    const xAxis = { ...axis, size: 34, label: xTitle || undefined, values: (_, splits) => splits.map((v) => (labels ? shorten(labels[v] ?? "") : tick(v))) };
    if (labels) Object.assign(xAxis, { incrs: [1, 2, 3, 5, 10, 20, 50, 100, 1000, 10_000], space: 10 + 7 * Math.max(...labels.map((label) => shorten(label).length)) });
    const yAxis = { ...axis, label: yTitle || undefined, size: (_, values) => 24 + 7 * Math.max(4, ...(values ?? []).map((v) => v.length)), values: (_, splits) => splits.map(tick) };
    // A range that is too narrow for its numbers would have endless ticks.
    const narrow = (low, high) => high - low < Math.max(Math.abs(low), Math.abs(high)) * 1e-12;
    const xRange = (_, low, high) => (bars ? [-0.6, labels.length - 0.4] : low === null || narrow(low, high) ? uPlot.rangeNum(low ?? 0, high ?? 1, 0.1, true) : [low, high]);
    const yRange = (_, low, high) => uPlot.rangeNum(bars ? Math.min(low ?? 0, 0) : low ?? 0, bars ? Math.max(high ?? 1, 0) : high ?? 1, 0.1, true);
    const rows = aligned(lines.map((line) => (line.beside ? { ...line, x: line.x.map((x) => x + line.beside) } : line)));
    element.chart?.destroy();
    element.chart = new uPlot({
      width: element.clientWidth, height,
      scales: { x: { time: false, range: xRange }, y: { range: yRange } },
      series: [{ label: xTitle || "x", value: (_, v) => text(labels && v !== null ? labels[Math.round(v)] : v) }, ...lines.map((line, i) => series(line, colour("--s" + (i % 8))))],
      axes: [xAxis, yAxis], cursor: { y: false },
    }, ["x", ...lines].map((_, column) => rows.map((row) => row[column])), (chart, ready) => { element.insertBefore(chart.root, element.querySelector("details")); ready(); });
    const canvas = element.chart.root.querySelector(".u-wrap");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", "Chart; its values are in the table below");
  };

  // show chooses how a figure is shown.
  const show = (element, { data = [], layout = {} }) => {
    const kinds = [...new Set(data.map((trace) => trace.type ?? "scatter"))];
    const all = (...known) => data.length > 0 && kinds.every((kind) => known.includes(kind));
    const title = titleOf(layout.title);
    element.replaceChildren();
    if (title && !element.parentElement.textContent.includes(title)) element.append(make("p", title, "dim"));
    if (all("table")) element.append(...data.map(reportedTable));
    else if (all("heatmap")) element.append(...data.map((trace) => heatmap(trace, layout)));
    else if (all("scatter", "scattergl", "bar", "histogram")) {
      const plot = read(data), { lines, labels } = plot;
      element.redraw = () => draw(element, plot, layout);
      if (element.dataset.values !== undefined) {
        const rows = aligned(lines).map(([x, ...y]) => [labels ? labels[x] : x, ...y]);
        element.appendChild(make("details")).append(make("summary", "Values"), table([titleOf(layout.xaxis?.title) || "x", ...lines.map((line) => line.name)], rows));
      }
      element.redraw();
    } else throw kinds.length ? `is of a kind that is not drawn here (${kinds.join(", ")})` : "is empty";
  };

  const load = async (element) => {
    element.dataset.begun = "1";
    try {
      const answer = await fetch(element.dataset.figure, { headers: { Accept: "application/json" } });
      if (!answer.ok) throw `could not be read (${answer.status})`;
      show(element, await answer.json());
    } catch (error) {
      const link = make("a", "Download its JSON");
      link.href = element.dataset.figure;
      const note = make("p", `This plot ${typeof error === "string" ? error : "cannot be drawn"}. `, "dim");
      note.append(link, ".");
      element.replaceChildren(note);
    }
  };

  // Only figures that come into view are read: an experiment may have hundreds.
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting && !entry.target.dataset.begun) load(entry.target);
  }, { rootMargin: "300px" });
  const figures = document.querySelectorAll("[data-figure]");
  figures.forEach((element) => seen.observe(element));
  const redraw = () => figures.forEach((element) => element.redraw?.());
  new MutationObserver(redraw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("resize", () => figures.forEach((element) => element.chart?.setSize({ width: element.clientWidth, height })));
})();
