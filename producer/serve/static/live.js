// Says that the page is old while its server does not answer, and takes that back.
"use strict";
(() => {
  const stale = document.getElementById("stale");
  const show = (why) => () => {
    for (const one of stale.children) one.hidden = one.id !== why;
    stale.hidden = false;
  };
  document.body.addEventListener("htmx:sendError", show("stale-silent"));
  document.body.addEventListener("htmx:timeout", show("stale-silent"));
  document.body.addEventListener("htmx:responseError", show("stale-error"));
  // It comes after an answer that is an error as well.
  document.body.addEventListener("htmx:afterOnLoad", (event) => { if (event.detail.successful) stale.hidden = true; });
})();
