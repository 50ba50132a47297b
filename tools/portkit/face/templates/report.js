// Filters, opening a linked part, and opening everything for print: the page reads without them.
const all = (query) => document.querySelectorAll(query);
const tools = document.querySelector(".tools");
const list = document.querySelector(".patches");
tools.hidden = false;
for (const button of all("[data-filter]")) {
  button.addEventListener("click", () => {
    list.dataset.shown = button.dataset.filter;
    for (const other of all("[data-filter]")) other.setAttribute("aria-pressed", other === button);
  });
}
document.querySelector("[data-toggle]").addEventListener("click", (event) => {
  const open = event.target.dataset.toggle === "open";
  for (const part of all(".patch")) part.open = open;
  event.target.dataset.toggle = open ? "close" : "open";
  event.target.textContent = open ? "Close all" : "Open all";
});
function openTarget() {
  const target = document.getElementById(location.hash.slice(1));
  for (let part = target; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
  if (target) target.scrollIntoView();
}
addEventListener("hashchange", openTarget);
openTarget();
// A long conflict opens at the patch's own lines.
for (const frame of all(".frame")) {
  const row = frame.querySelector(".ours")?.closest("tr");
  if (row && row.offsetTop > frame.clientHeight - 60) frame.scrollTop = row.offsetTop - 120;
}
addEventListener("beforeprint", () => { for (const part of all("details")) part.open = true; });
