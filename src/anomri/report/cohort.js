"use strict";
// Sorting by a column's head, and a filter. Empty cells stay last either way.
(() => {
  const table = document.querySelector(".rows"), body = table.tBodies[0], heads = [...table.querySelectorAll("th")];
  const key = (row, n) => {
    const cell = row.cells[n];
    return cell.dataset.v !== undefined ? Number(cell.dataset.v) : cell.textContent.trim();
  };
  heads.forEach((head, n) => head.querySelector("button").addEventListener("click", () => {
    const numeric = head.classList.contains("n");
    const first = numeric ? "descending" : "ascending", second = numeric ? "ascending" : "descending";
    const way = head.getAttribute("aria-sort") === first ? second : first, sign = way === "ascending" ? 1 : -1;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", way);
    const rows = [...body.rows].sort((p, q) => {
      const a = key(p, n), b = key(q, n);
      if (a === "" || b === "") return (a === "") - (b === "");
      return sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
    });
    body.append(...rows);
  }));
  document.getElementById("filter").addEventListener("input", (event) => {
    const words = event.target.value.toLowerCase();
    for (const row of body.rows) row.hidden = !row.textContent.toLowerCase().includes(words);
  });
})();
