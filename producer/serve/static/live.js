// Says that the page is old while its server does not answer, or answers with an error, and takes that back.
"use strict";
(() => {
  const stale = document.getElementById("stale");
  const said = document.getElementById("stale-said");
  const usual = [...said.childNodes];
  const show = (why) => {
    for (const one of stale.children) one.hidden = one.id !== why;
    stale.hidden = false;
  };
  const silent = () => show("stale-silent");
  document.body.addEventListener("htmx:sendError", silent);
  document.body.addEventListener("htmx:timeout", silent);
  document.body.addEventListener("htmx:responseError", (event) => {
    const page = new DOMParser().parseFromString(event.detail.xhr.responseText, "text/html");
    const told = page.getElementById("said");
    if (told) told.append(/[.?!]$/.test(told.textContent) ? "" : ".");
    said.replaceChildren(...(told ? told.childNodes : usual));
    show("stale-error");
  });
  // It comes after an answer that is an error as well.
  document.body.addEventListener("htmx:afterOnLoad", (event) => { if (event.detail.successful) stale.hidden = true; });
})();
