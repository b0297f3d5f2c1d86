// What a page lacks for people who don't see it, or don't see it well: a list of words.
(() => {
  const found = [];
  const shown = (element) => element.getClientRects().length > 0 && getComputedStyle(element).visibility !== "hidden";
  const where = (element) => element.outerHTML.slice(0, 120);
  const name = (element) => (element.getAttribute("aria-label") || element.textContent || element.title || "").trim();
  for (const field of document.querySelectorAll("input:not([type=hidden]), select, textarea")) {
    if (shown(field) && !field.labels.length && !field.getAttribute("aria-label")) found.push("no label: " + where(field));
  }
  for (const target of document.querySelectorAll("button, a[href]")) {
    if (shown(target) && !name(target) && !target.querySelector("img[alt]:not([alt=''])")) found.push("no name: " + where(target));
  }
  for (const picture of document.querySelectorAll("img, [role=img]")) {
    if (!picture.hasAttribute("alt") && !picture.getAttribute("aria-label")) found.push("no alternative: " + where(picture));
  }
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  ids.filter((id, i) => ids.indexOf(id) !== i).forEach((id) => found.push("the id twice: " + id));
  if (document.querySelectorAll("h1").length !== 1) found.push("not one h1");
  let level = 1;
  for (const heading of document.querySelectorAll("h1, h2, h3, h4")) {
    const next = Number(heading.tagName[1]);
    if (next > level + 1) found.push("a heading leaves a level out: " + where(heading));
    level = next;
  }

  // A mixed colour is reported as color(srgb r g b), with parts between 0 and 1.
  const numbers = (colour) => colour.match(/[\d.]+/g).map((part, i) => Number(part) * (colour.startsWith("color(srgb") && i < 3 ? 255 : 1));
  const light = (colour) => {
    const [r, g, b] = colour.slice(0, 3).map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = numbers(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const seen = new Set();
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    if (!walk.currentNode.textContent.trim() || seen.has(element) || !shown(element) || element.closest("svg, .hidden, .skip, script, style, option")) continue;
    seen.add(element);
    const style = getComputedStyle(element);
    const [a, b] = [light(numbers(style.color)), light(ground(element))].sort((x, y) => y - x);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && Number(style.fontWeight) >= 700);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < (large ? 3 : 4.5)) found.push(`contrast ${contrast.toFixed(2)}: ` + where(element));
  }
  return found.join("\n");
})()
