// Sorts and filters the table: the page reads without it.
const rows = [...document.querySelectorAll(".scan tbody tr")];
const body = document.querySelector(".scan tbody");
const search = document.querySelector("input[type=search]");
const shown = document.querySelector("[data-count]");
const chosen = { tier: "", stage: "", area: "" };
document.querySelector(".tools").hidden = false;

function filter() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const row of rows) {
    const text = row.textContent.toLowerCase();
    const fits = Object.entries(chosen).every(([name, value]) => !value || row.dataset[name] === value);
    row.hidden = !fits || !words.every((word) => text.includes(word));
    count += row.hidden ? 0 : 1;
  }
  shown.textContent = count;
}
for (const button of document.querySelectorAll("[data-filter]")) {
  button.addEventListener("click", () => {
    const [name, value] = button.dataset.filter.split(":");
    const on = chosen[name] !== value;
    for (const other of document.querySelectorAll(`[data-filter^="${name}:"]`)) other.setAttribute("aria-pressed", false);
    chosen[name] = on ? value : "";
    button.setAttribute("aria-pressed", on);
    filter();
  });
}
search.addEventListener("input", filter);
for (const head of document.querySelectorAll(".scan th[data-key]")) {
  head.querySelector("button").addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending";
    for (const other of document.querySelectorAll(".scan th")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (row) => row.dataset[head.dataset.key];
    const sign = down ? -1 : 1;
    rows.sort((a, b) => sign * value(a).localeCompare(value(b), "en", { numeric: true }));
    body.append(...rows);
  });
}
