/* Folds that open when something leads into them, copy buttons, and tables that scroll. */
(() => {
  "use strict";

  const make = (name, properties, ...children) => {
    const node = Object.assign(document.createElement(name), properties);
    node.append(...children);
    return node;
  };

  /* Open every fold around an element. */
  const reveal = (node) => {
    for (let fold = node?.closest("details"); fold; fold = fold.parentElement.closest("details"))
      fold.open = true;
  };

  const followHash = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    // A link to a folded part means what is in it, not only its heading.
    const inside = target.querySelector(":scope > details.further");
    if (inside) inside.open = true;
    if (inside || target.closest("details:not([open])")) {
      reveal(target);
      target.scrollIntoView();
    }
  };

  /* Sphinx marks the words of a search some moments after the page is there. */
  const revealFound = () => document.querySelectorAll("article .highlighted").forEach(reveal);
  const watchForFound = () => {
    const article = document.querySelector("article");
    if (article) new MutationObserver((changes) => {
      for (const change of changes)
        for (const node of change.addedNodes) if (node.matches?.(".highlighted")) reveal(node);
    }).observe(article, { childList: true, subtree: true });
  };

  /* On a phone code takes a screen of its own, so it waits under a line that says how much it is. */
  const foldCode = () => {
    for (const input of document.querySelectorAll(".cell > .cell_input")) {
      const lines = input.innerText.trim().split("\n").length;
      const fold = make("details", { className: "code-fold" },
        make("summary", { textContent: `Code, ${lines} line${lines === 1 ? "" : "s"}` }));
      input.replaceWith(fold);
      fold.append(input);
    }
  };

  const copy = async (text) => {
    if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
    const area = make("textarea", { value: text });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  };

  const addCopyButtons = () => {
    for (const block of document.querySelectorAll("article div.highlight")) {
      if (block.closest(".cell_output")) continue;
      const code = block.querySelector("pre");
      if (!code) continue;
      const button = make("button", { className: "copy", type: "button", textContent: "Copy" });
      button.addEventListener("click", async () => {
        try {
          await copy(code.innerText.trimEnd() + "\n");
          button.textContent = "Copied";
        } catch {
          button.textContent = "Not copied";
        }
        setTimeout(() => { button.textContent = "Copy"; }, 2000);
      });
      block.append(button);
    }
  };

  /* What is wider than the page scrolls in itself; the keyboard has to reach it, and has to be told
     what it is. */
  const WIDE = "article .cell_output .output.text_html, article .table-wrapper, article pre, " +
    "article .formula, article dt.sig";
  const markWide = () => {
    for (const box of document.querySelectorAll(WIDE)) {
      if (box.closest(".viralbert-live")) continue;
      const wide = box.scrollWidth > box.clientWidth;
      box.classList.toggle("wide", wide);
      if (!wide) continue;
      box.tabIndex = 0;
      if (box.querySelector("table")) {
        box.setAttribute("role", "group");
        box.setAttribute("aria-label", "Table, scrolls sideways");
      }
    }
  };

  let opened = [];
  const openForPrint = () => {
    opened = [...document.querySelectorAll("article details:not([open])")];
    for (const fold of opened) if (!fold.classList.contains("on-page")) fold.open = true;
  };
  const closeAfterPrint = () => opened.forEach((fold) => { fold.open = false; });

  const start = () => {
    if (matchMedia("(max-width: 46em)").matches) foldCode();
    addCopyButtons();
    markWide();
    addEventListener("resize", markWide);
    document.addEventListener("toggle", markWide, true);
    addEventListener("hashchange", followHash);
    // A click on the link of where one already is changes no address.
    document.addEventListener("click", (event) => {
      if (event.target.closest?.("a[href*='#']")) setTimeout(followHash);
    });
    addEventListener("beforeprint", openForPrint);
    addEventListener("afterprint", closeAfterPrint);
    followHash();
    revealFound();
    watchForFound();
  };
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
