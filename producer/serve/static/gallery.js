// Keys, copying, the way to any picture, and pages far away that are let go: a million tiles are too many.
"use strict";
(() => {
  const KEPT = 8;  // pieces of a page that stay, whatever is seen

  const link = (rel) => document.querySelector(`main a[rel="${rel}"], nav a[rel="${rel}"]`);

  const tiles = () => [...document.querySelectorAll(".tile a")];

  const inRow = (all) => {
    const top = all[0].getBoundingClientRect().top;
    const next = all.findIndex((one) => Math.abs(one.getBoundingClientRect().top - top) > 2);
    return next < 1 ? all.length : next;
  };

  const move = (key) => {
    const all = tiles();
    if (!all.length) return false;
    const at = all.indexOf(document.activeElement);
    if (at < 0) {
      const seen = all.find((one) => one.getBoundingClientRect().top >= 0) || all[0];
      seen.focus();
      return true;
    }
    const row = inRow([...all[at].closest(".tiles").querySelectorAll("a")]);
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -row, ArrowDown: row }[key];
    const there = all[at + by];
    if (!there) return false;
    there.focus();
    there.scrollIntoView({ block: "nearest" });
    return true;
  };

  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (event.target.closest("input, select, textarea, pre, .scrolled")) return;
    const rel = { ArrowLeft: "prev", ArrowRight: "next", Escape: "up" }[event.key];
    const there = rel && link(rel);
    if (there) {
      event.preventDefault();
      there.click();
    } else if (event.key.startsWith("Arrow") && move(event.key)) {
      event.preventDefault();
    }
  });

  const selected = (element) => {
    const range = document.createRange();
    range.selectNodeContents(element);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    return document.execCommand("copy");
  };

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (!button) return;
    const from = document.getElementById(button.dataset.copy);
    let done = false;
    // Only a page of this machine, or of https, may write to the clipboard.
    try { await navigator.clipboard.writeText(from.textContent); done = true; } catch { done = selected(from); }
    button.textContent = done ? "Copied" : "Press Ctrl-C";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });

  document.addEventListener("input", (event) => {
    if (event.target.id !== "jump") return;
    const { value, max, dataset } = event.target;
    const image = Math.round(dataset.images * value / (Number(max) + 1));
    event.target.form.querySelector("output").textContent =
      `image ${image.toLocaleString("en")}, ${Math.round(100 * value / max)} %`;
  });
  // The mouse or a finger goes there at once; keys move step by step, and Enter goes.
  let dragged = false;
  document.addEventListener("pointerdown", (event) => { dragged = event.target.id === "jump"; });
  document.addEventListener("keydown", () => { dragged = false; });
  document.addEventListener("change", (event) => {
    if (event.target.id === "jump" && dragged) event.target.form.requestSubmit();
  });

  // A piece far from what is seen becomes a space of its height, and is asked for again when it comes near.
  const let_go = (piece) => {
    piece.style.height = `${piece.getBoundingClientRect().height}px`;
    piece.dataset.away = "1";
    piece.replaceChildren();
  };
  const bring_back = async (piece) => {
    delete piece.dataset.away;
    try {
      const answer = await fetch(piece.dataset.url, { headers: { "HX-Request": "true" } });
      if (!answer.ok) throw new Error(answer.status);
      const there = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector(".piece");
      piece.replaceChildren(...(there ? there.childNodes : []));
      piece.style.height = "";
    } catch {
      piece.dataset.away = "1";
    }
  };
  const watched = new WeakSet();
  const near = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (isIntersecting && target.dataset.away) bring_back(target);
      const many = document.querySelectorAll(".piece:not([data-away])").length > KEPT;
      if (!isIntersecting && many && !target.dataset.away && !target.contains(document.activeElement)) let_go(target);
    }
  }, { rootMargin: "3000px 0px" });
  const watch = () => {
    for (const piece of document.querySelectorAll(".piece")) {
      if (watched.has(piece)) continue;
      watched.add(piece);
      near.observe(piece);
    }
    // What was far already when the number grew is let go now.
    const there = [...document.querySelectorAll(".piece:not([data-away])")];
    for (const piece of there.slice(0, Math.max(0, there.length - KEPT))) {
      const { bottom } = piece.getBoundingClientRect();
      if (bottom < -3000 && !piece.contains(document.activeElement)) let_go(piece);
    }
  };
  document.body.addEventListener("htmx:afterSettle", watch);
  watch();

  const named = location.hash && document.getElementById(location.hash.slice(1));
  if (named) named.focus();
})();
