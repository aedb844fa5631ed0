"use strict";
// The index page: sorting by column and filtering by text. Without it the page is a plain table.

(function () {
  const table = document.getElementById("videos");
  const body = table.tBodies[0];

  function value(row, column, kind) {
    const cell = row.cells[column];
    const text = cell.dataset.value !== undefined ? cell.dataset.value : cell.textContent;
    return kind === "number" ? Number(text) : text.toLocaleLowerCase();
  }

  function sortBy(header, column) {
    const kind = header.dataset.sort;
    const now = header.getAttribute("aria-sort");
    // Worst first is what one looks for: errors and lengths fall, AP and names rise.
    const first = kind === "number" && !header.textContent.startsWith("AP") ? "descending" : "ascending";
    const order = now === null ? first : now === "ascending" ? "descending" : "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const rows = Array.from(body.rows, (row) => [value(row, column, kind), row]);
    rows.sort((a, b) => sign * (kind === "number" ? a[0] - b[0] : a[0].localeCompare(b[0], undefined, { numeric: true })));
    body.append(...rows.map((pair) => pair[1]));
  }

  Array.from(table.tHead.rows[0].cells).forEach((header, column) => {
    if (header.dataset.sort === undefined) return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = header.textContent.trim();
    header.replaceChildren(button);
    button.addEventListener("click", () => sortBy(header, column));
  });

  const filter = document.getElementById("filter");
  const note = document.getElementById("filter-note");
  filter.addEventListener("input", () => {
    const wanted = filter.value.trim().toLocaleLowerCase();
    let shown = 0;
    for (const row of body.rows) {
      const text = row.cells[0].textContent + "\n" + row.cells[2].textContent;
      row.hidden = !text.toLocaleLowerCase().includes(wanted);
      shown += row.hidden ? 0 : 1;
    }
    note.hidden = wanted === "";
    note.textContent = shown + " of " + body.rows.length + " videos";
  });
})();
