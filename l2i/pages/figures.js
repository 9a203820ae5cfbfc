"use strict";
// In another page's frame the page to listen to is not beside this one.
if (!/^(file|https?):$/.test(location.protocol)) {
  for (const link of document.querySelectorAll("a[href]")) link.removeAttribute("href");
  document.getElementById("listen")?.remove();
}

// Sort a table by a click on a column's head; empty cells come last either way.

for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  heads.forEach((head, column) => {
    const numeric = head.classList.contains("number");
    head.querySelector("button").addEventListener("click", () => {
      const now = head.getAttribute("aria-sort");
      const up = now === "none" ? !numeric : now === "descending";
      for (const other of heads) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const key = (row) => row.cells[column].dataset.key;
      const order = (a, b) => (numeric ? a - b : a.localeCompare(b));
      const rows = [...body.rows].sort((a, b) => {
        const [p, q] = [key(a), key(b)];
        if (p === "" || q === "") return (p === "") - (q === "");
        return up ? order(p, q) : order(q, p);
      });
      body.append(...rows);
    });
  });
}
