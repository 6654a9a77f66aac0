"""Whether everybody can read, reach and use a page: what Chromium itself says of one that is open."""

from __future__ import annotations

__all__ = ["hard_to_read", "hard_to_see_in_focus", "moving", "sticking_out", "unnamed"]

_COLOURS = """
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgba = colour => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, under) => [0, 1, 2].map(i => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
  const under = element => {
    const layers = [];
    for (let each = element; each; each = each.parentElement) {
      layers.push(rgba(getComputedStyle(each).backgroundColor));
      if (layers.at(-1)[3] === 1) break;
    }
    return layers.reduceRight((below, layer) => over(layer, below), rgba("Canvas"));
  };
  const luminance = ([r, g, b]) => {
    const [R, G, B] = [r, g, b].map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * R + 0.7152 * G + 0.0722 * B;
  };
  const contrast = (colour, ground) => {
    const [a, b] = [over(colour, ground), ground].map(luminance);
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  };
  const isSeen = element => element.checkVisibility({ visibilityProperty: true, opacityProperty: true })
    && element.getClientRects().length > 0 && !element.closest(".unseen, .skip:not(:focus)");
"""

_HARD_TO_READ = (
    "() => {"
    + _COLOURS
    + """
  const opacity = element => element ? Number(getComputedStyle(element).opacity) * opacity(element.parentElement) : 1;
  const found = [];
  const look = (element, text, style) => {
    // What cannot be used just now may be pale: WCAG 2.2, 1.4.3.
    if (!text.trim() || !isSeen(element) || element.closest(":disabled, [aria-disabled=true]")) return;
    const colour = rgba(style.color);
    colour[3] *= opacity(element);
    const pixels = parseFloat(style.fontSize);
    const isLarge = pixels >= 24 || (pixels >= 18.66 && Number(style.fontWeight) >= 700);
    found.push({ text: text.trim().slice(0, 40), ratio: contrast(colour, under(element)), least: isLarge ? 3 : 4.5 });
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement;
    if (element.closest("script, style, noscript, template, option, textarea")) continue;
    look(element, texts.currentNode.data, getComputedStyle(element));
  }
  for (const field of document.querySelectorAll("input, select, textarea")) {
    if (["checkbox", "radio", "hidden", "range", "color"].includes(field.type)) continue;
    const isEmpty = !field.value && field.placeholder;
    look(field, isEmpty || field.value, getComputedStyle(field, isEmpty ? "::placeholder" : null));
  }
  return found;
}"""
)

_STICKING_OUT = (
    "() => {"
    + _COLOURS
    + """
  const width = document.documentElement.clientWidth;
  const found = document.documentElement.scrollWidth > width ? ["the page itself"] : [];
  const brokenWords = () => {
    const words = [];
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    const range = document.createRange();
    while (texts.nextNode()) {
      const text = texts.currentNode;
      if (!isSeen(text.parentElement) || text.parentElement.closest("pre, code")) continue;
      for (const { 0: word, index } of text.data.matchAll(/[\\p{L}\\p{N}]+/gu)) {
        if (word.length > 15) continue; // there may be no other way
        range.setStart(text, index);
        range.setEnd(text, index + word.length);
        const lines = new Set([...range.getClientRects()].map(box => Math.round(box.top)));
        if (lines.size > 1) words.push(`${word}, broken`);
      }
    }
    return words;
  };
  const isClipped = element => element && element !== document.body
    && (getComputedStyle(element).overflowX !== "visible" || isClipped(element.parentElement));
  for (const element of document.body.querySelectorAll("*")) {
    if (!isSeen(element) || isClipped(element.parentElement)) continue;
    const { left, right } = element.getBoundingClientRect();
    const hasText = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    const isBurst = hasText && getComputedStyle(element).display !== "inline" && !isClipped(element)
      && element.scrollWidth > element.clientWidth + 1;
    if (left < -0.5 || right > width + 0.5 || isBurst) found.push(element.outerHTML.slice(0, 80));
  }
  return found.concat(brokenWords());
}"""
)

_WITHOUT_LABEL = (
    "() => {"
    + _COLOURS
    + """
  return [...document.querySelectorAll("input:not([type=hidden]), select, textarea")]
    .filter(field => field.checkVisibility() && !field.closest("[aria-hidden=true]") && !field.ariaLabel?.trim()
      && ![...field.labels].some(label => label.textContent.trim()))
    .map(field => field.outerHTML.slice(0, 80));
}"""
)

_NAMED_ROLES = {
    "button", "checkbox", "combobox", "DisclosureTriangle", "image", "link", "listbox", "progressbar", "radio",
    "searchbox", "slider", "spinbutton", "textbox",
}  # fmt: skip

_CONTROLS = "a[href], button, input:not([type=hidden]), select, textarea, summary"

_WATCH_THE_FOCUS = (
    "controls => {"
    + _COLOURS
    + """
  // Of radio buttons that belong together the Tab key reaches one.
  const left = new Set([...document.querySelectorAll(controls)].filter(element => !element.disabled
    && element.tabIndex >= 0 && element.checkVisibility() && (element.type !== "radio" || element.checked)));
  const dark = new Set();
  document.activeElement.blur();
  document.addEventListener("focusin", ({ target }) => {
    left.delete(target);
    let ring = 0;
    for (let each = target; each && each !== document.body; each = each.parentElement) {
      const style = getComputedStyle(each);
      if (style.outlineStyle === "none" || parseFloat(style.outlineWidth) < 2 || !isSeen(each)) continue;
      ring = Math.max(ring, contrast(rgba(style.outlineColor), under(each.parentElement)));
    }
    if (ring < 3) dark.add(target);
  });
  window.outOfFocus = () => [...left, ...dark].map(element => element.outerHTML.slice(0, 80));
  return left.size;
}"""
)


def hard_to_read(page):
    """Texts that stand out too little from what they are written on: WCAG 2.2, 1.4.3."""
    texts = page.evaluate(_HARD_TO_READ)
    assert texts, "there is nothing to read"
    return {text["text"]: round(text["ratio"], 2) for text in texts if text["ratio"] < text["least"]}


def sticking_out(page):
    """Whatever is wider than the window or than its own box, and words that are broken to fit."""
    return page.evaluate(_STICKING_OUT)


def unnamed(page):
    """Fields without a label, and controls and pictures that a screen reader has no name for."""
    devtools = page.context.new_cdp_session(page)
    nodes = devtools.send("Accessibility.getFullAXTree")["nodes"]
    devtools.detach()
    roles = [
        node["role"]["value"]
        for node in nodes
        if not node["ignored"] and node["role"]["value"] in _NAMED_ROLES and not node["name"]["value"].strip()
    ]
    return roles + page.evaluate(_WITHOUT_LABEL)


def hard_to_see_in_focus(page):
    """Controls that the Tab key does not reach, and those that do not show it: WCAG 2.2, 2.4.7 and 1.4.11."""
    number = page.evaluate(_WATCH_THE_FOCUS, _CONTROLS)
    for _ in range(number + 3):  # wherever it begins, it comes round
        page.keyboard.press("Tab")
    return page.evaluate("outOfFocus()")


def moving(page):
    """How many things on it move."""
    return page.evaluate("document.getAnimations().length")
