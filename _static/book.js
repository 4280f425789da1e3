// Small corrections for readers who use the keyboard, a screen reader or paper; the theme does the rest.
(() => {
  // What scrolls by itself can be reached with the keyboard. (The theme sees to code and to tables.)
  const mark = () => {
    for (const part of document.querySelectorAll("mjx-container[display], .bd-article .text_html")) {
      if (part.scrollWidth > part.clientWidth + 1) part.tabIndex = 0;
    }
  };
  // A control that shows words has these words for its name.
  const named = "summary[aria-label], .search-button-field[aria-label]";
  addEventListener("load", () => {
    for (const part of document.querySelectorAll(named)) part.removeAttribute("aria-label");
    for (const part of document.querySelectorAll(".theme-switch-button svg")) part.setAttribute("aria-hidden", "true");
    // The list of references claims to be a list, but its children are no items.
    for (const part of document.querySelectorAll(".citation-list, .citation-list [role]")) part.removeAttribute("role");
    mark();
    window.MathJax?.startup?.promise?.then(mark);
    addEventListener("resize", mark);
  });
  // Paper cannot be clicked: what is folded is printed open.
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const part of opened) part.open = true;
  });
  addEventListener("afterprint", () => {
    for (const part of opened) part.open = false;
  });
})();
