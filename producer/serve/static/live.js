// Says that the page is old while its server does not answer, and takes that back.
"use strict";
(() => {
  const stale = document.getElementById("stale");
  const show = (old) => () => { stale.hidden = !old; };
  document.body.addEventListener("htmx:sendError", show(true));
  document.body.addEventListener("htmx:responseError", show(true));
  document.body.addEventListener("htmx:timeout", show(true));
  // It comes after an answer that is an error as well.
  document.body.addEventListener("htmx:afterOnLoad", (event) => { if (event.detail.successful) stale.hidden = true; });
})();
