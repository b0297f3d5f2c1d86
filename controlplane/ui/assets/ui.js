// What the pages do beyond plain links and forms. Every page works without this file: it asks
// before an action that cannot be undone, copies text, and switches the theme.
"use strict";

(() => {
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
