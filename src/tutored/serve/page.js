"use strict";

const part = (id) => document.getElementById(id);
const facts = JSON.parse(part("facts").textContent);
let picture = null;
let asking = new AbortController();

function tell(text, bad = false) {
  part("told").textContent = text;
  part("told").classList.toggle("bad", bad);
}

function take(file) {
  if (!file) return;
  picture = file;
  part("result").hidden = true;
  ask("auto");
}

async function ask(score) {
  asking.abort();
  asking = new AbortController();
  if (picture.size > facts.megabytes * 1e6) {
    tell(`The file is larger than ${facts.megabytes} MB; make the picture smaller.`, true);
    return;
  }
  tell("Looking at the picture …");
  const tasks = [...document.querySelectorAll("[name=task]:checked")].map((box) => box.value);
  const asked = new URLSearchParams({ draw: score, tasks: tasks.join(",") });
  try {
    const response = await fetch(`predict?${asked}`, { method: "POST", body: picture, signal: asking.signal });
    const answer = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
    if (!response.ok) tell(`Not answered: ${answer.error}.`, true);
    else show(answer);
  } catch (error) {
    if (error.name !== "AbortError") tell("The server can't be reached; is it still running?", true);
  }
}

function show(answer) {
  if (answer.score !== null) part("score").value = answer.score;
  part("shown").textContent = Number(part("score").value).toFixed(2);
  part("drawing").src = answer.drawing;
  part("tables").replaceChildren(...Object.entries(answer.entries).map(([task, entries]) => table(task, entries)));
  part("result").hidden = false;
  tell(`${answer.width} × ${answer.height} pixels, answered in ${answer.seconds.toFixed(2)} s. ${answer.found}.`);
}

function table(task, entries) {
  const shown = entries.filter((entry) => !(entry.score < Number(part("score").value)));
  const figures = Object.keys(entries[0] || {}).filter((key) => key === "score" || key === "share");
  const made = document.createElement("table");
  made.createCaption().textContent = `${task}: ${shown.length} of ${entries.length}`;
  for (const entry of shown) {
    const row = made.insertRow();
    const name = document.createElement("th");
    name.scope = "row";
    const colour = document.createElement("i");
    colour.className = "colour";
    colour.style.background = facts.colours[entry.category_id % facts.colours.length];
    name.append(colour, entry.category);
    row.append(name);
    for (const key of figures) row.insertCell().textContent = entry[key].toFixed(2);
  }
  return made;
}

part("here").textContent = location.origin;
part("file").addEventListener("change", (event) => {
  take(event.target.files[0]);
  event.target.value = "";
});
document.addEventListener("paste", (event) => take(event.clipboardData.files[0]));
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    part("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") take(event.dataTransfer.files[0]);
  });
}
part("score").addEventListener("input", () => (part("shown").textContent = Number(part("score").value).toFixed(2)));
part("controls").addEventListener("change", () => picture && ask(part("score").value));
