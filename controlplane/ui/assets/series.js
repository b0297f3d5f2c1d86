// Draws the charts of time series. The page has a box for each; the values come from the server as JSON, for
// the charts that are in view only. uPlot draws lines, stacks and heat maps.
"use strict";

(() => {
  const root = document.querySelector("[data-charts]");
  if (!root) return;
  const height = 220, nameOfRange = (link) => link.dataset.range;
  const cards = [...root.querySelectorAll("[data-chart]")];
  const state = { range: root.dataset.range, from: Number(root.dataset.from), to: Number(root.dataset.to), step: Number(root.dataset.step), live: true, marks: [] };
  const visible = new Set(), stale = new Set(cards);

  const make = (tag, text = "", kind = "") => {
    const element = document.createElement(tag);
    element.textContent = text;
    element.className = kind;
    return element;
  };

  // Numbers have three digits and the prefix or unit that suits them.
  const digits = (v) => String(Number(v.toPrecision(3)));
  const scaled = (v, base, units) => {
    let i = 0;
    for (; Math.abs(v) >= base && i < units.length - 1; i++) v /= base;
    return digits(v) + units[i];
  };
  const plain = (v) => (v !== 0 && Math.abs(v) < 0.001 ? v.toExponential(1) : scaled(v, 1000, ["", "k", "M", "G"]));
  const seconds = (v) => {
    const a = Math.abs(v);
    if (a === 0) return "0";
    if (a < 1e-3) return digits(v * 1e6) + " µs";
    if (a < 1) return digits(v * 1e3) + " ms";
    return a < 120 ? digits(v) + " s" : digits(v / 60) + " min";
  };
  const written = {
    "/s": (v) => plain(v) + "/s",
    s: seconds,
    bytes: (v) => scaled(v, 1024, [" B", " KiB", " MiB", " GiB", " TiB"]),
    "bytes/s": (v) => scaled(v, 1024, [" B/s", " KiB/s", " MiB/s", " GiB/s"]),
    cores: (v) => plain(v) + (v === 1 ? " core" : " cores"),
    share: (v) => digits(v * 100) + " %",
    "": plain,
  };
  const write = (unit, v) => (v == null ? "–" : v === 0 ? "0" : written[unit](v));
  const increments = (unit) => {
    if (unit === "bytes" || unit === "bytes/s") return Array.from({ length: 44 }, (_, i) => 2 ** i);
    const all = [];
    for (let power = -9; power < 13; power++) for (const of of [1, 2, 2.5, 5]) all.push(Number((of * 10 ** power).toPrecision(2)));
    return unit === "" ? all.filter((one) => one >= 1) : all;
  };

  // Times are those of the reader's clock.
  const two = (n) => String(n).padStart(2, "0");
  const day = (d) => d.getDate() + " " + d.toLocaleString("en", { month: "short" });
  const clock = (d, precise) => two(d.getHours()) + ":" + two(d.getMinutes()) + (precise ? ":" + two(d.getSeconds()) : "");
  const moment = (at, step) => {
    const d = new Date(at * 1000);
    return (step >= 300 || Date.now() - d > 72e6 ? day(d) + " " : "") + clock(d, step < 60);
  };
  const timeTicks = (u, splits, _axis, _space, incr) => splits.map((at) => {
    const d = new Date(at * 1000);
    return incr >= 86400 || (d.getHours() === 0 && d.getMinutes() === 0 && d.getSeconds() === 0) ? day(d) : clock(d, incr < 60);
  });

  const colours = () => {
    const style = getComputedStyle(document.documentElement), get = (name) => style.getPropertyValue("--" + name).trim();
    return { get, of: (i) => get("s" + (i % 8)) };
  };
  // blend is a colour over the ground of a card, without transparency: the areas of a stack lie on each other.
  const blend = (colour, ground, share) => {
    const parts = (text) => (text.length === 4 ? [...text.slice(1)].map((c) => parseInt(c + c, 16)) : [1, 3, 5].map((i) => parseInt(text.slice(i, i + 2), 16)));
    const [a, b] = [parts(colour), parts(ground)];
    return `rgb(${a.map((v, i) => Math.round(v * share + b[i] * (1 - share))).join(",")})`;
  };

  const hidden = (card, line) => card.off?.has(line.name);

  // columns makes the data of uPlot: times, then a column for each line, those of a stack from the top.
  const columns = (card, data, times) => {
    const shown = data.lines.filter((line) => !hidden(card, line));
    if (data.kind === "heat") return { data: [times, times.map(() => null)], lines: [] };
    if (data.kind === "lines") return { data: [times, ...shown.map((line) => line.values)], lines: shown };
    const stacked = shown.filter((line) => !line.over), over = shown.filter((line) => line.over);
    const totals = times.map((_, i) => (data.kind === "shares" ? stacked.reduce((sum, line) => sum + (line.values[i] ?? 0), 0) : 1));
    let sums = times.map(() => 0);
    const tops = stacked.map((line) => {
      sums = sums.map((sum, i) => sum + (totals[i] > 0 ? (line.values[i] ?? 0) / totals[i] : 0));
      return sums.map((sum, i) => (stacked.some((one) => one.values[i] != null) && totals[i] > 0 ? sum : null));
    });
    return { data: [times, ...tops.reverse(), ...over.map((line) => line.values)], lines: [...[...stacked].reverse(), ...over] };
  };

  // valueAt is what the key of a line shows at a place of the cursor, or the newest value.
  const valueAt = (data, line, at) => {
    let i = at ?? line.values.length - 1;
    if (at == null) while (i > 0 && i > line.values.length - 4 && line.values[i] == null) i--;
    const v = line.values[i];
    if (v == null || data.kind !== "shares") return v;
    const total = data.lines.reduce((sum, one) => sum + (one.values[i] ?? 0), 0);
    return total > 0 ? v / total : null;
  };
  const tell = (card, at) => {
    const { data } = card;
    if (data.kind === "heat") {
      const bin = at == null ? -1 : Math.floor(card.chart.posToVal(card.chart.cursor.top, "y")), row = data.lines[bin];
      const total = data.lines.reduce((sum, one) => sum + (one.values[at] ?? 0), 0);
      card.querySelector(".now").textContent = row && total ? `${moment(data.times[at], state.step)}  ${row.name}: ${write("share", (row.values[at] ?? 0) / total)}` : "";
      return;
    }
    card.querySelector(".now").textContent = at == null || at >= data.times.length ? "" : moment(data.times[at], state.step);
    card.querySelectorAll(".keys [data-line]").forEach((key) => {
      const line = data.lines[key.dataset.line];
      key.querySelector("b").textContent = write(data.unit, valueAt(data, line, at));
    });
  };

  const keys = (card) => {
    const { data } = card, list = card.querySelector(".keys");
    if (data.kind === "heat") {
      const [own, reference] = [make("li", "", "key"), make("li", "", "key")];
      own.append(make("span", "", "swatch s0"), "values");
      reference.append(make("span", "", "swatch s1"), "reference");
      return list.replaceChildren(own, ...(data.lines.some((line) => line.reference != null) ? [reference] : []));
    }
    list.replaceChildren(...data.lines.map((line, i) => {
      const item = make("li"), key = make("button", "", "key");
      key.type = "button";
      key.dataset.line = i;
      key.setAttribute("aria-pressed", !hidden(card, line));
      key.append(make("span", "", `swatch s${line.series}`), line.name, " ", make("b"));
      key.addEventListener("click", () => {
        card.off = card.off ?? new Set();
        if (!card.off.delete(line.name)) card.off.add(line.name);
        draw(card);
      });
      item.append(key);
      return item;
    }));
  };

  // heat draws the cells of a distribution: a column for each time, a row for each bin, and beside it the
  // whole range, with the reference if there is one.
  const heat = (u, data) => {
    const { ctx } = u, colour = colours(), rows = data.lines;
    const step = (data.times[1] ?? 1) - data.times[0], place = (at) => Math.round(u.valToPos(at, "x", true));
    const totals = data.times.map((_, i) => rows.reduce((sum, row) => sum + (row.values[i] ?? 0), 0));
    ctx.save();
    ctx.beginPath();
    ctx.rect(u.bbox.left, u.bbox.top, u.bbox.width, u.bbox.height);
    ctx.clip();
    ctx.fillStyle = colour.of(0);
    rows.forEach((row, j) => {
      const top = u.valToPos(j + 1, "y", true), tall = u.valToPos(j, "y", true) - top;
      row.values.forEach((v, i) => {
        if (!v || !totals[i]) return;
        ctx.globalAlpha = 0.06 + 0.94 * Math.sqrt(v / totals[i]);
        const left = place(data.times[i] - step);
        ctx.fillRect(left, top + 1, Math.max(1, place(data.times[i]) - left), tall - 2);
      });
    });
    ctx.restore();
    ctx.save();
    const all = rows.map((row) => row.values.reduce((sum, v) => sum + (v ?? 0), 0)), total = all.reduce((a, b) => a + b, 0);
    const most = Math.max(...all.map((v) => v / (total || 1)), ...rows.map((row) => row.reference ?? 0), 1e-9);
    const left = u.bbox.left + u.bbox.width + 10 * devicePixelRatio, room = u.ctx.canvas.width - left - 6 * devicePixelRatio;
    rows.forEach((row, j) => {
      const top = u.valToPos(j + 1, "y", true), tall = u.valToPos(j, "y", true) - top;
      ctx.fillStyle = colour.of(0);
      ctx.fillRect(left, top + 1, total ? (all[j] / total / most) * room : 0, tall - 2);
      if (row.reference != null) {
        ctx.strokeStyle = colour.of(1);
        ctx.lineWidth = 2 * devicePixelRatio;
        ctx.beginPath();
        const x = left + (row.reference / most) * room;
        ctx.moveTo(x, top + 1);
        ctx.lineTo(x, top + tall - 1);
        ctx.stroke();
      }
    });
    ctx.restore();
  };

  // marks draws the events of the history, and puts a link on each.
  const drawMarks = (u) => {
    const { ctx } = u, colour = colours();
    ctx.save();
    ctx.setLineDash([4 * devicePixelRatio, 3 * devicePixelRatio]);
    ctx.lineWidth = devicePixelRatio;
    u.over.querySelectorAll(".mark").forEach((old) => old.remove());
    for (const mark of state.marks) {
      if (mark.at < state.from || mark.at > state.to) continue;
      const x = u.valToPos(mark.at, "x", true);
      ctx.strokeStyle = colour.get(mark.kind === "plain" ? "dim" : mark.kind);
      ctx.beginPath();
      ctx.moveTo(x, u.bbox.top);
      ctx.lineTo(x, u.bbox.top + u.bbox.height);
      ctx.stroke();
      const link = make("a", "", "mark " + mark.kind), place = u.valToPos(mark.at, "x");
      link.href = mark.link;
      link.tabIndex = -1;
      link.setAttribute("aria-label", moment(mark.at, 60) + "  " + mark.text);
      link.style.left = place + "px";
      if (place > u.over.clientWidth / 2) link.classList.add("late");
      for (const name of ["mousedown", "mouseup"]) link.addEventListener(name, (event) => event.stopPropagation());
      u.over.append(link);
    }
    ctx.restore();
  };

  const options = (card, shown) => {
    const { data } = card, colour = colours(), stack = data.kind === "stack" || data.kind === "shares";
    const axis = { stroke: colour.get("dim"), grid: { stroke: colour.get("line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif", gap: 6 };
    const ground = colour.get("card");
    const y = { ...axis, incrs: increments(data.unit), space: 34, size: (u, values) => 20 + 6.6 * Math.max(4, ...(values ?? []).map((v) => v.length)), values: (u, splits) => splits.map((v) => write(data.unit, v)) };
    let range = (u, low, high) => [Math.min(0, low ?? 0), high > 0 ? high * 1.08 : { share: 0.01, s: 0.001, "/s": 1, "": 1 }[data.unit] ?? 1];
    if (data.kind === "shares") range = () => [0, 1];
    if (data.kind === "heat") {
      range = () => [0, data.lines.length];
      const every = Math.ceil(data.lines.length / 12);
      Object.assign(y, { incrs: [1], space: 1, grid: { show: false }, splits: () => data.lines.map((_, j) => j + 0.5), values: () => data.lines.map((line, j) => (j % every ? "" : line.name.length > 17 ? line.name.slice(0, 16) + "…" : line.name)) });
    }
    return {
      width: card.querySelector(".plot").clientWidth, height, legend: { show: false },
      padding: [10, data.kind === "heat" ? 92 : 20, 0, 0],
      scales: { x: { time: true, range: () => [state.from, state.to] }, y: { range } },
      series: [{}, ...shown.map((line) => ({
        label: line.name, stroke: colour.of(line.series), width: stack && !line.over ? 1 : 2, points: { show: false },
        dash: line.over ? [6, 4] : undefined, fill: stack && !line.over ? blend(colour.of(line.series), ground, 0.55) : undefined,
      })), ...(data.kind === "heat" ? [{}] : [])],
      axes: [{ ...axis, size: 28, space: 70, values: timeTicks, ...(data.kind === "heat" ? { grid: { show: false } } : {}) }, y],
      cursor: { y: data.kind === "heat", drag: { x: true, y: false, setScale: false }, sync: { key: "charts" }, points: { show: !stack && data.kind !== "heat", size: 7 } },
      hooks: {
        drawClear: data.kind === "heat" ? [(u) => heat(u, card.data)] : [],
        draw: [drawMarks],
        setCursor: [(u) => tell(card, u.cursor.idx)],
        setSelect: [(u) => {
          if (u.select.width > 4) show(Math.round(u.posToVal(u.select.left, "x")), Math.round(u.posToVal(u.select.left + u.select.width, "x")));
          if (u.select.width > 0) u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
        }],
      },
    };
  };

  // draw draws a chart anew; a chart that has the same lines as before gets only its values.
  const draw = (card, anew = true) => {
    const { data } = card, plot = card.querySelector(".plot"), { data: values, lines } = columns(card, data, data.times);
    const same = JSON.stringify([data.kind, data.unit, lines.map((line) => [line.name, line.series])]);
    if (!anew && card.chart && card.same === same) card.chart.setData(values, true);
    else {
      card.chart?.destroy();
      card.chart = new uPlot(options(card, lines), values, plot);
      const wrap = card.chart.root.querySelector(".u-wrap");
      wrap.tabIndex = 0;
      wrap.setAttribute("role", "group");
      wrap.setAttribute("aria-label", `${card.getAttribute("aria-label")}: chart. Arrow keys move along the time, plus and minus change its range.`);
      keys(card);
    }
    card.same = same;
    card.querySelectorAll(".none, .note").forEach((old) => old.remove());
    const words = data.note || (data.lines.length ? "" : "Nothing was recorded in this time.");
    if (words) plot.append(make("p", words, data.lines.length ? "dim note" : "none"));
    tell(card, card.chart.cursor.idx);
  };

  const head = () => {
    root.querySelectorAll("a[data-range]").forEach((link) => (nameOfRange(link) === state.range ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current")));
    const live = root.querySelector("[data-live]");
    live.setAttribute("aria-pressed", Boolean(state.range) && state.live);
    root.querySelector("[data-shown]").textContent = state.range ? "" : moment(state.from, 300) + " – " + moment(state.to, 300);
    const list = root.querySelector("[data-marks]"), own = state.marks.filter((mark) => mark.at >= state.from && mark.at <= state.to);
    list.hidden = !own.length;
    list.querySelector("summary").textContent = own.length === 1 ? "1 event in this time" : `${own.length} events in this time`;
    list.querySelector("ul").replaceChildren(...[...own].reverse().map((mark) => {
      const item = make("li"), link = make("a", mark.text, "long");
      link.href = mark.link;
      item.append(make("span", moment(mark.at, 300), "dim"), link);
      return item;
    }));
  };

  let asking = null, marksRead = 0;
  const query = () => (state.range ? { range: state.range } : { from: state.from, to: state.to });
  const load = async () => {
    const wanted = cards.filter((card) => visible.has(card) && stale.has(card));
    if (!wanted.length) return;
    asking?.abort();
    const own = (asking = new AbortController());
    const url = new URL(root.dataset.charts, location.href);
    for (const [name, value] of Object.entries(query())) url.searchParams.set(name, value);
    wanted.forEach((card) => url.searchParams.append("show", card.dataset.chart));
    const withMarks = Date.now() - marksRead > 60_000;
    if (withMarks) url.searchParams.set("marks", "1");
    const trouble = root.querySelector("[data-trouble]");
    try {
      const answer = await fetch(url, { headers: { Accept: "application/json" }, signal: own.signal });
      if (!answer.ok || answer.redirected) throw new Error(answer.status === 200 ? "log in again" : String(answer.status));
      const { from, to, step, charts, marks } = await answer.json();
      Object.assign(state, { from, to, step });
      if (withMarks) { state.marks = marks ?? []; marksRead = Date.now(); }
      const times = Array.from({ length: Math.round((to - from) / step) + 1 }, (_, i) => from + i * step);
      head();
      for (const chart of charts) {
        const card = cards.find((one) => one.dataset.chart === chart.id);
        card.data = { ...chart, times };
        stale.delete(card);
        draw(card, false);
      }
      trouble.hidden = true;
    } catch (error) {
      if (own.signal.aborted) return;
      trouble.textContent = `The charts cannot be read (${error.message}). They are asked again.`;
      trouble.hidden = false;
    } finally {
      if (asking === own) asking = null;
    }
  };
  const reload = () => { cards.forEach((card) => stale.add(card)); load(); };

  // show changes the range: to the name of one that ends now, or to two times.
  const remember = () => history.replaceState(history.state, "", "?" + new URLSearchParams(query()) + location.hash);
  const show = (from, to) => {
    const now = Math.floor(Date.now() / 1000);
    if (to > now) { from -= to - now; to = now; }
    if (to - from < 30) { const middle = (from + to) / 2; from = middle - 15; to = middle + 15; }
    Object.assign(state, { range: "", from: Math.round(from), to: Math.round(to) });
    marksRead = 0;
    remember();
    head();
    reload();
  };
  const showRange = (name) => {
    Object.assign(state, { range: name, live: true });
    marksRead = 0;
    remember();
    head();
    reload();
  };
  const move = (how) => {
    const long = state.to - state.from, middle = (state.from + state.to) / 2;
    if (how === "back") show(state.from - long / 2, state.to - long / 2);
    if (how === "on") show(state.from + long / 2, state.to + long / 2);
    if (how === "in") show(middle - long / 4, middle + long / 4);
    if (how === "out") show(middle - long, middle + long);
  };

  root.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-range]"), button = event.target.closest("button");
    if (link) { event.preventDefault(); showRange(nameOfRange(link)); }
    if (button?.dataset.move) move(button.dataset.move);
    if (button && "live" in button.dataset) {
      if (!state.range) return showRange(root.dataset.range || "1h");
      state.live = !state.live;
      head();
    }
  });
  root.addEventListener("keydown", (event) => {
    const card = event.target.closest(".u-wrap") && event.target.closest("[data-chart]");
    if (!card?.chart || event.ctrlKey || event.metaKey || event.altKey) return;
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) {
      const last = card.data.times.length - 1, at = Math.min(last, Math.max(0, (card.chart.cursor.idx ?? last + (step > 0 ? -1 : 1)) + step));
      card.chart.setCursor({ left: card.chart.valToPos(card.data.times[at], "x"), top: 10 }, true, true);
    } else if (event.key === "+" || event.key === "-") move(event.key === "+" ? "in" : "out");
    else if (event.key === "Escape") card.chart.setCursor({ left: -10, top: -10 }, true, true);
    else return;
    event.preventDefault();
  });

  root.querySelector("[data-steps]").hidden = false;
  head();
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) visible[entry.isIntersecting ? "add" : "delete"](entry.target);
    load();
  }, { rootMargin: "200px" });
  cards.forEach((card) => seen.observe(card));
  // The newest values are read again about once a step.
  let due = Date.now();
  setInterval(() => {
    if (!state.range || !state.live || document.hidden || asking || Date.now() < due) return;
    due = Date.now() + Math.min(60, Math.max(5, state.step)) * 1000;
    reload();
  }, 1000);
  const redraw = () => cards.forEach((card) => card.data && draw(card));
  new MutationObserver(redraw).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("resize", () => cards.forEach((card) => card.chart?.setSize({ width: card.querySelector(".plot").clientWidth, height })));
})();
