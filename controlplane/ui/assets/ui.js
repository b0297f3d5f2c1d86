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
    root.querySelectorAll("[data-copy], [data-theme-button], [data-find]").forEach((button) => { button.hidden = false; });
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
  // The editor of a deployment follows the engine until it is changed; the playground's request the endpoint.
  document.addEventListener("change", (event) => {
    const form = event.target.closest("form");
    const text = form && form.querySelector("textarea.code");
    if (event.target.matches("form[data-deploy] select[name=engine]")) {
      const starts = [...form.querySelectorAll("template[data-engine]")];
      const start = starts.find((one) => one.dataset.engine === event.target.value);
      if (start && starts.some((one) => one.content.textContent.trim() === text.value.trim())) text.value = start.content.textContent;
    }
    if (event.target.matches("[data-again]") && text.value === text.defaultValue) {
      location.search = new URLSearchParams({ [event.target.dataset.again]: event.target.value });
    }
  });
  document.addEventListener("input", (event) => {
    const form = event.target.closest("form[data-weights]");
    if (form) weights(form);
  });
  document.addEventListener("keydown", (event) => {
    // Ctrl+Enter sends the request of the playground.
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && event.target.matches("textarea[data-json]")) event.target.form.requestSubmit();
  });

  // The search: names are fetched when it is opened, and found by the letters of all words that are typed.
  const finder = document.querySelector("[data-finder]");
  if (finder) {
    const field = finder.querySelector("input"), list = finder.querySelector("[role=listbox]"), status = finder.querySelector("[role=status]");
    let names = [], shown = [], at = 0;
    const mark = () => {
      [...list.children].forEach((one, i) => one.setAttribute("aria-selected", i === at));
      const chosen = list.children[at];
      if (chosen) { field.setAttribute("aria-activedescendant", chosen.id); chosen.scrollIntoView({ block: "nearest" }); } else field.removeAttribute("aria-activedescendant");
    };
    const search = () => {
      const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
      const rank = (one) => one.name.toLowerCase().startsWith(words[0] || "") ? 0 : 1;
      shown = names.filter((one) => words.every((word) => `${one.kind} ${one.name} ${one.of || ""}`.toLowerCase().includes(word))).sort((a, b) => rank(a) - rank(b)).slice(0, 30);
      list.replaceChildren(...shown.map((one, i) => {
        const option = document.createElement("a");
        Object.assign(option, { href: one.link, id: `found-${i}`, tabIndex: -1 });
        option.setAttribute("role", "option");
        const kind = document.createElement("span");
        kind.className = "dim";
        kind.textContent = one.of ? `${one.kind} of ${one.of}` : one.kind;
        option.append(one.name, " ", kind);
        return option;
      }));
      at = 0;
      mark();
      status.textContent = shown.length ? "" : "Nothing of this name.";
    };
    const open = async () => {
      if (finder.open) return;
      finder.showModal();
      field.value = "";
      search();
      status.textContent = "…";
      try {
        const answer = await fetch("/names.json");
        if (!answer.ok || answer.redirected) throw new Error(answer.status);
        names = await answer.json();
        search();
      } catch (error) {
        status.textContent = "The names cannot be read. Reload the page.";
      }
    };
    field.addEventListener("input", search);
    finder.addEventListener("keydown", (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (step && shown.length) { at = (at + step + shown.length) % shown.length; mark(); event.preventDefault(); }
      if (event.key === "Escape") { finder.close(); event.preventDefault(); } // a search field would be emptied first
      if (event.key === "Enter" && shown[at]) { location.assign(shown[at].link); event.preventDefault(); }
    });
    finder.addEventListener("click", (event) => { if (event.target === finder) finder.close(); });
    document.addEventListener("click", (event) => { if (event.target.closest("[data-find]")) open(); });
    document.addEventListener("keydown", (event) => {
      const typing = event.target.closest("input, textarea, select, [contenteditable]");
      if ((event.key === "/" && !typing && !event.ctrlKey && !event.metaKey && !event.altKey) || (event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey))) {
        event.preventDefault();
        open();
      }
    });
  }

  // What is unfolded is being read, so it is not replaced.
  document.addEventListener("htmx:beforeSwap", (event) => {
    if (event.detail.target?.matches("[data-read]:has(details[open])")) event.detail.shouldSwap = false;
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
