// Shows openapi.json. Names, schemas and answers come from others: they are only ever set as text.
"use strict";
(() => {
  const page = 100; // endpoints that are shown at a time
  const maxAnswer = 1 << 20;
  const at = (id) => document.getElementById(id);
  let key = ""; // only here, so that it ends with the page
  let only = "";
  let spec = null;
  let found = [];
  let shown = 0;

  // make returns an element with properties and children; a text stays a text.
  const make = (name, properties, ...children) => {
    const element = Object.assign(document.createElement(name), properties);
    element.append(...children.filter((child) => child !== null && child !== undefined && child !== ""));
    return element;
  };

  // The page may be below a path of a proxy, as openapi.json is.
  const address = (path) => new URL("." + path, document.baseURI).href;
  const headers = () => (key ? { Authorization: "Bearer " + key } : {});
  const ask = (path, options) => fetch(address(path), { credentials: "omit", cache: "no-store", redirect: "error", ...options });

  const tell = (id, text) => {
    at(id).textContent = text;
    at(id).hidden = !text;
  };

  async function load() {
    tell("problem", "");
    tell("refused", "");
    let answer, text;
    try {
      answer = await ask("/openapi.json" + (only ? "?endpoint=" + encodeURIComponent(only) : ""), { headers: headers() });
      text = await answer.text();
    } catch (error) {
      return tell("problem", "The instance does not answer: " + error.message);
    }
    if (answer.status === 401 || answer.status === 403) {
      at("access").hidden = false;
      at("list").hidden = true;
      if (key) tell("refused", reason(text) + (answer.status === 403 && !only ? ": name one of them" : ""));
      at(answer.status === 403 ? "only" : "key").focus();
      return;
    }
    if (!answer.ok) return tell(at("access").hidden ? "problem" : "refused", reason(text));
    spec = JSON.parse(text);
    show();
  }

  const reason = (text) => {
    try {
      const detail = JSON.parse(text).detail;
      return typeof detail === "string" ? detail : text;
    } catch {
      return text;
    }
  };

  function show() {
    const title = spec.info.title;
    at("service").textContent = title;
    document.title = "Endpoints of " + title;
    at("raw").hidden = Boolean(spec.info["x-keys-required"]); // a link carries no key
    tell("left", spec.info["x-left-out"] ? spec.info["x-left-out"] + " more endpoints have no room here. Find one by its exact name and press Enter." : "");
    at("list").hidden = false;
    const others = make("div", { className: "scroll" }, make("table", {}, make("tbody", {}, ...Object.entries(spec.paths).flatMap(([path, item]) =>
      Object.entries(item).filter(([, op]) => op.operationId && !op["x-clearml-endpoint"]).map(([method, op]) =>
        make("tr", {}, make("td", {}, make("code", { textContent: method.toUpperCase() + " " + path })), make("td", { textContent: op.summary || "" })))))));
    at("others").replaceChildren(others);
    list();
    if (found.length === 1) at("endpoints").firstElementChild.open = true;
    const wanted = decodeURIComponent(location.hash.slice(1));
    const card = [...at("endpoints").children].find((one) => one.dataset.endpoint === wanted);
    if (card) {
      card.open = true;
      card.scrollIntoView();
    }
  }

  // list shows the endpoints whose names have the text that is searched.
  function list() {
    const words = at("find").value.toLowerCase().split(/\s+/).filter(Boolean);
    const all = Object.entries(spec.paths).filter(([, item]) => item.post && item.post["x-clearml-endpoint"]);
    found = all.filter(([, item]) => words.every((word) => item.post.summary.toLowerCase().includes(word)));
    at("count").textContent = found.length === all.length ? String(all.length) : found.length + " of " + all.length;
    at("endpoints").replaceChildren();
    shown = 0;
    if (!all.length) at("endpoints").append(make("p", { className: "card dim", textContent: "The service has no endpoint yet: clearml-serving model add" }));
    more();
  }

  function more() {
    at("endpoints").append(...found.slice(shown, shown + page).map(([path, item]) => card(path, item.post)));
    shown += page;
    at("more").hidden = shown >= found.length;
  }

  const kinds = { ready: "good", degraded: "busy", updating: "busy", loading: "busy", refused: "busy", failed: "bad" };

  // card is one endpoint. Its content is made when it is opened.
  function card(path, op) {
    const about = op["x-clearml-endpoint"];
    const facts = [about.canary ? "canary" : about.engine, about.revision ? "revision " + about.revision : "", about.model_id ? "model " + about.model_id.slice(0, 8) : ""].filter(Boolean);
    const one = make("details", { className: "card" }, make("summary", {},
      make("span", { className: "path", textContent: about.name }),
      about.version ? make("span", { className: "dim", textContent: "version " + about.version }) : null,
      make("span", { className: "badge " + (kinds[about.state] || ""), textContent: about.state }),
      make("span", { className: "dim end", textContent: facts.join(" · ") })));
    one.dataset.endpoint = about.url;
    one.addEventListener("toggle", () => {
      if (one.open && one.children.length === 1) one.append(inside(path, op, about));
    });
    return one;
  }

  function inside(path, op, about) {
    const content = op.requestBody.content;
    const json = content["application/json"] || {};
    const schema = resolve(json.schema);
    const body = make("textarea", { spellcheck: false, value: json.example === undefined ? "{}" : JSON.stringify(json.example, null, 2), ariaLabel: "Body" });
    const file = make("input", { type: "file" });
    const kind = make("select", {}, ...Object.keys(content).map((type) => make("option", { textContent: type })));
    const send = make("button", { className: "main", textContent: "Send" });
    const answer = make("div", { className: "stack", ariaLive: "polite" }, make("p", { className: "dim", textContent: "Send the request to see the answer." }));
    const curl = make("code", { className: "curl" });
    const python = make("code", { className: "python" });
    const write = () => {
      const bytes = kind.value !== "application/json";
      bodyField.hidden = bytes;
      fileField.hidden = !bytes;
      curl.textContent = curlOf(address(path), kind.value, bytes ? null : body.value);
      python.textContent = pythonOf(address(path), kind.value, bytes ? null : body.value);
    };
    const bodyField = make("label", {}, "Body", body);
    const fileField = make("label", {}, "File", file);
    const form = make("form", { className: "stack" }, make("h3", { textContent: "Request" }), Object.keys(content).length > 1 ? make("label", {}, "Content type", kind) : null, bodyField, fileField,
      json.example === undefined ? make("p", { className: "dim", textContent: "No example is known: the endpoint takes any JSON." }) : null, make("div", {}, send));
    form.addEventListener("input", write);
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const bytes = kind.value !== "application/json";
      play(path, kind.value, bytes ? file.files[0] || "" : body.value, answer, send);
    });
    write();
    return make("div", { className: "inside" },
      about.reason ? make("p", { className: "notice " + (kinds[about.state] || "busy"), textContent: about.reason }) : null,
      about.canary ? make("p", { className: "dim", textContent: "A request goes to one of: " + Object.entries(about.canary).map(([url, share]) => url + " (" + Number(share.toPrecision(3)) + ")").join(", ") }) : null,
      make("div", { className: "columns" }, form, make("div", { className: "stack" }, make("h3", { textContent: "Answer" }), answer)),
      make("div", { className: "columns" }, snippet("curl", curl), snippet("Python", python)),
      make("div", { className: "columns" }, ...[fields("Body", schema), fields("Answer", resolve((op.responses["200"].content["application/json"] || {}).schema))].filter(Boolean)),
      tensors("Input tensors", about.inputs), tensors("Output tensors", about.outputs),
      about.signature_from ? make("p", { className: "dim", textContent: "The description comes from: " + about.signature_from }) : null);
  }

  function snippet(title, code) {
    const copy = make("button", { type: "button", className: "quiet", textContent: "Copy" });
    copy.addEventListener("click", async () => {
      await navigator.clipboard.writeText(code.textContent);
      copy.textContent = "Copied";
      setTimeout(() => (copy.textContent = "Copy"), 1500);
    });
    return make("div", { className: "stack" }, make("div", { className: "head" }, make("h3", { textContent: title }), navigator.clipboard ? copy : null), make("pre", { tabIndex: 0 }, code));
  }

  // play sends a request and shows its answer while it arrives.
  async function play(path, type, body, place, button) {
    const stop = new AbortController();
    const halt = make("button", { type: "button", textContent: "Stop" });
    halt.addEventListener("click", () => stop.abort());
    button.disabled = true;
    button.after(" ", halt);
    const begun = performance.now();
    try {
      const answer = await ask(path, { method: "POST", headers: { "Content-Type": type, ...headers() }, body, signal: stop.signal });
      const took = performance.now() - begun;
      const output = make("code", {});
      const figures = make("p", { className: "figures" }, make("span", { className: "badge " + (answer.ok ? "good" : "bad"), textContent: String(answer.status) }),
        make("b", { textContent: took < 10 ? took.toFixed(1) + " ms" : Math.round(took) + " ms" }), make("span", { className: "dim", textContent: answer.headers.get("Content-Type") || "" }),
        make("span", { className: "dim", textContent: answer.headers.has("X-Clearml-Endpoint") ? "answered by " + answer.headers.get("X-Clearml-Endpoint") : "" }));
      place.replaceChildren(figures, make("pre", { tabIndex: 0, className: "answer" }, output));
      await receive(answer, output);
    } catch (error) {
      place.append(make("p", { className: "notice bad", textContent: error.name === "AbortError" ? "Stopped." : "No answer: " + error.message }));
    } finally {
      button.disabled = false;
      halt.remove();
    }
  }

  async function receive(answer, output) {
    const type = answer.headers.get("Content-Type") || "";
    const text = /^text\/|json|xml/.test(type);
    const decoder = new TextDecoder();
    let size = 0;
    let whole = "";
    const reader = answer.body ? answer.body.getReader() : { read: async () => ({ done: true }) };
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      size += value.length;
      if (text) {
        whole += decoder.decode(value, { stream: true });
        output.textContent = whole;
      } else {
        output.textContent = size + " bytes";
      }
      if (text && size > maxAnswer) {
        await reader.cancel();
        output.textContent = whole + "\n… only the beginning is shown";
        return;
      }
    }
    if (!size) output.textContent = "(empty)";
    if (text && /json/.test(type)) {
      try {
        const value = JSON.parse(whole);
        // Numbers that JavaScript cannot hold stay as they were sent.
        if (!/\d{16}/.test(whole)) output.textContent = JSON.stringify(value, null, 2);
      } catch { /* as it was sent */ }
    }
  }

  const quote = (text) => "'" + text.replaceAll("'", "'\\''") + "'";
  const needsKey = () => spec.info["x-keys-required"];
  const oneLine = (text) => {
    try {
      return /\d{16}/.test(text) ? text : JSON.stringify(JSON.parse(text));
    } catch {
      return text;
    }
  };

  function curlOf(url, type, body) {
    return "curl -X POST " + quote(url) + " \\\n  -H 'Content-Type: " + type + "'" + (needsKey() ? ' \\\n  -H "Authorization: Bearer $ACCESS_KEY"' : "") +
      " \\\n  " + (body === null ? "--data-binary @file" : "-d " + quote(oneLine(body)));
  }

  function pythonOf(url, type, body) {
    return (needsKey() ? "import os\n\n" : "") + "import requests\n\nanswer = requests.post(\n    " + JSON.stringify(url) + ",\n    data=" + (body === null ? 'open("file", "rb")' : JSON.stringify(oneLine(body)) + ".encode()") +
      ",\n    headers={\"Content-Type\": " + JSON.stringify(type) + (needsKey() ? ', "Authorization": "Bearer " + os.environ["ACCESS_KEY"]' : "") + "},\n    timeout=60,\n)\nanswer.raise_for_status()\nprint(answer.json())";
  }

  // resolve follows a reference inside the document.
  function resolve(schema, depth = 0) {
    if (!schema || typeof schema !== "object" || typeof schema.$ref !== "string" || depth > 20) return schema;
    let value = spec;
    for (const part of schema.$ref.slice(2).split("/")) value = value && value[part.replaceAll("~1", "/").replaceAll("~0", "~")];
    return resolve(value, depth + 1);
  }

  const maxFields = 300;

  // fields is a table of the members of a schema.
  function fields(title, schema) {
    if (!schema || typeof schema !== "object") return null;
    const rows = [];
    walk(schema, "", false, 0, rows);
    return make("div", { className: "stack" }, make("h3", { textContent: title }), schema.description ? make("p", { className: "dim", textContent: schema.description }) : null,
      make("div", { className: "scroll" }, make("table", {}, make("thead", {}, make("tr", {}, make("th", { textContent: "Field" }), make("th", { textContent: "Type" }), make("th", { textContent: "Values" }))),
        make("tbody", {}, ...rows.slice(0, maxFields).map(([name, type, notes]) => make("tr", {}, make("td", {}, make("code", { textContent: name || "(body)" })), make("td", { textContent: type }), make("td", { textContent: notes })))))),
      rows.length > maxFields ? make("p", { className: "dim", textContent: "and more" }) : null,
      make("details", { className: "small" }, make("summary", { textContent: "JSON Schema" }), make("pre", { tabIndex: 0 }, make("code", { textContent: JSON.stringify(schema, null, 2) }))));
  }

  function walk(given, name, required, depth, rows) {
    const schema = resolve(given);
    if (typeof schema !== "object" || schema === null || depth > 6 || rows.length > maxFields) return;
    const choices = schema.anyOf || schema.oneOf;
    const main = choices && !schema.properties ? choices.map((one) => resolve(one)).find((one) => one && (one.properties || one.items)) : schema;
    if (name || !(main && main.properties)) rows.push([name, typeOf(schema), notesOf(schema, required)]);
    if (!main || typeof main !== "object") return;
    const needed = main.required || [];
    for (const [key, value] of Object.entries(main.properties || {})) walk(value, name ? name + "." + key : key, needed.includes(key), depth + 1, rows);
    const items = resolve(main.items);
    if (items && (items.properties || items.items) && !main.properties) walk(items, name + "[]", false, depth + 1, rows);
  }

  function typeOf(schema) {
    if (schema.type) {
      const types = [].concat(schema.type);
      const items = resolve(schema.items);
      return types.map((type) => (type === "array" && items && items.type ? "array of " + [].concat(items.type).join(" or ") : type)).join(" or ");
    }
    if (schema.enum) return "choice";
    const choices = schema.anyOf || schema.oneOf;
    if (choices) return [...new Set(choices.map((one) => typeOf(resolve(one) || {})))].join(" or ");
    return "any";
  }

  function notesOf(schema, required) {
    const notes = [];
    if (required) notes.push("required");
    if (schema.enum) notes.push(schema.enum.slice(0, 20).map((value) => JSON.stringify(value)).join(", ") + (schema.enum.length > 20 ? ", …" : ""));
    if (schema.const !== undefined) notes.push(JSON.stringify(schema.const));
    for (const [word, text] of [["minimum", "≥"], ["exclusiveMinimum", ">"], ["maximum", "≤"], ["exclusiveMaximum", "<"]]) if (schema[word] !== undefined && Math.abs(schema[word]) < 3e38) notes.push(text + " " + schema[word]);
    if (schema.default !== undefined) notes.push("default " + JSON.stringify(schema.default));
    if (schema.description && depthless(schema)) notes.push(schema.description);
    return notes.join("; ");
  }

  const depthless = (schema) => !schema.properties;

  function tensors(title, list) {
    const typed = (list || []).filter((one) => one.datatype || one.shape);
    if (!typed.length) return null;
    return make("details", { className: "small" }, make("summary", { textContent: title + " of the model (" + list.length + ")" }), make("div", { className: "scroll" }, make("table", {},
      make("tbody", {}, ...list.map((one) => make("tr", {}, make("td", {}, make("code", { textContent: one.name })), make("td", { textContent: one.datatype || "" }), make("td", { textContent: one.shape ? "[" + one.shape.join(", ") + "]" : "" }), make("td", { textContent: one.optional ? "may be missing" : "" })))))));
  }

  at("access").addEventListener("submit", (event) => {
    event.preventDefault();
    key = at("key").value.trim();
    only = at("only").value.trim();
    load();
  });
  at("find").addEventListener("input", list);
  at("find").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || found.length || !spec.info["x-left-out"]) return;
    only = at("find").value.trim();
    at("find").value = "";
    load();
  });
  at("more").addEventListener("click", more);
  load();
})();
