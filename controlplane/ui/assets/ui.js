// What the pages do beyond plain links and forms. Every page works without this file:
// it draws the charts whose values stand in tables below them, asks before what can't be
// undone, copies text, and switches the theme.
"use strict";

(() => {
  const colours = () => {
    const style = getComputedStyle(document.documentElement);
    const value = (name) => style.getPropertyValue(name).trim();
    return { lines: [0, 1, 2, 3, 4, 5, 6, 7].map((i) => value("--s" + i)), text: value("--dim"), grid: value("--line") };
  };

  // aligned puts the points of all lines onto one axis, as uPlot wants them.
  const aligned = (lines) => {
    const xs = [...new Set(lines.flatMap((line) => line.x))].sort((a, b) => a - b);
    const place = new Map(xs.map((x, i) => [x, i]));
    const ys = lines.map((line) => {
      const y = new Array(xs.length).fill(null);
      line.x.forEach((x, i) => { y[place.get(x)] = line.y[i]; });
      return y;
    });
    return [xs, ...ys];
  };

  const draw = (element, lines) => {
    const { lines: palette, text, grid } = colours();
    const axis = { stroke: text, grid: { stroke: grid, width: 1 }, ticks: { stroke: grid, width: 1 } };
    const few = lines.every((line) => line.x.length < 60);
    element.replaceChildren();
    const chart = new uPlot({
      width: element.clientWidth,
      height: 240,
      scales: { x: { time: false } },
      series: [{ label: "iteration" }, ...lines.map((line, i) => ({
        label: line.name, value: (_, v) => (v == null ? "" : Number(v.toPrecision(5))), stroke: palette[i % palette.length], width: 2, spanGaps: true, points: { show: few, size: 5 },
      }))],
      axes: [axis, { ...axis, size: 62 }],
      legend: { live: true },
      cursor: { y: false },
    }, aligned(lines), element);
    element.chart = chart;
  };

  const loadChart = async (element) => {
    element.dataset.begun = "1";
    try {
      const answer = await fetch(element.dataset.lines, { headers: { Accept: "application/json" } });
      if (!answer.ok) throw new Error(String(answer.status));
      element.drawn = await answer.json();
      draw(element, element.drawn);
    } catch (error) {
      element.classList.add("failed");
      element.textContent = "The chart could not be drawn; its values are in the table below.";
    }
  };

  // Only charts that come into view are asked for: an experiment may have hundreds.
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (entry.isIntersecting && !entry.target.dataset.begun) loadChart(entry.target);
    }
  }, { rootMargin: "300px" });

  const weights = (form) => {
    const fields = [...form.querySelectorAll("input[name=weight]")];
    const values = fields.map((field) => Math.max(0, Number.parseFloat(field.value.replace(",", ".")) || 0));
    const total = values.reduce((sum, value) => sum + value, 0);
    const bar = form.querySelector("[data-weights-bar]");
    bar.replaceChildren();
    let at = 0;
    fields.forEach((field, i) => {
      const share = total > 0 ? values[i] / total * 100 : 0;
      const output = field.closest(".pair").querySelector("output");
      output.textContent = field.value.trim() === "" ? "–" : share.toFixed(share < 10 && share > 0 ? 1 : 0) + " %";
      const part = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      for (const [name, value] of Object.entries({ x: at, y: 0, width: share, height: 6, class: `s${i % 8} fill` })) part.setAttribute(name, value);
      bar.append(part);
      at += share;
    });
  };

  const prepare = (root) => {
    root.querySelectorAll("[data-lines]:not([data-begun])").forEach((element) => seen.observe(element));
    root.querySelectorAll("[data-copy], [data-theme-button]").forEach((button) => { button.hidden = false; });
    root.querySelectorAll("form[data-weights]").forEach(weights);
    root.querySelectorAll(".tabs [aria-current]").forEach((tab) => { tab.parentElement.scrollLeft = tab.offsetLeft - tab.parentElement.clientWidth / 2; });
    root.querySelectorAll("[data-follow]").forEach((box) => { box.scrollTop = box.scrollHeight; });
  };

  const dark = () => {
    const chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  };

  document.addEventListener("click", async (event) => {
    const copy = event.target.closest("[data-copy]");
    if (copy) {
      const text = document.querySelector(copy.dataset.copy).textContent;
      try {
        await navigator.clipboard.writeText(text);
        copy.textContent = "Copied";
      } catch (error) {
        getSelection().selectAllChildren(document.querySelector(copy.dataset.copy));
        copy.textContent = "Press Ctrl+C";
      }
    }
    if (event.target.closest("[data-theme-button]")) {
      const theme = dark() ? "light" : "dark";
      document.documentElement.dataset.theme = theme;
      document.cookie = `theme=${theme}; path=/; max-age=31536000; samesite=lax`;
      document.querySelectorAll("[data-lines]").forEach((element) => { if (element.drawn) draw(element, element.drawn); });
    }
  });
  document.addEventListener("submit", (event) => {
    const question = event.target.dataset.confirm;
    if (question && !confirm(question)) event.preventDefault();
  });
  document.addEventListener("input", (event) => {
    const form = event.target.closest("form[data-weights]");
    if (form) weights(form);
  });
  document.addEventListener("keydown", (event) => {
    // Ctrl+Enter sends the request of the playground.
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.matches("textarea[data-json]")) event.target.form.requestSubmit();
  });
  addEventListener("resize", () => {
    document.querySelectorAll("[data-lines]").forEach((element) => { if (element.chart) element.chart.setSize({ width: element.clientWidth, height: 240 }); });
  });

  // A console that is read stays where it is; one that is at its end follows.
  const places = new Map();
  document.addEventListener("htmx:beforeSwap", (event) => {
    const box = event.detail.target;
    if (box && box.matches("[data-follow]")) places.set("console", box.scrollHeight - box.scrollTop - box.clientHeight < 40 ? null : box.scrollTop);
  });
  document.addEventListener("htmx:afterSettle", () => {
    prepare(document);
    const box = document.querySelector("[data-follow]");
    if (box && places.get("console") != null) box.scrollTop = places.get("console");
  });
  prepare(document);
})();
