"use strict";

const part = (id) => document.getElementById(id);
const facts = JSON.parse(part("facts").textContent);
let found = null;
let asking = new AbortController();

function tell(text, bad = false) {
  part("told").textContent = text;
  part("told").classList.toggle("bad", bad);
}

async function ask(file) {
  asking.abort();
  asking = new AbortController();
  found = null;
  part("result").hidden = true;
  if (file.size > facts.megabytes * 1e6) {
    tell(`The file is larger than ${facts.megabytes} MB; make the picture smaller.`, true);
    return;
  }
  tell("Looking at the picture …");
  const form = new FormData();
  form.append("image", file);
  try {
    const response = await fetch("predict", { method: "POST", body: form, signal: asking.signal });
    const answer = await response.json().catch(() => ({ error: `the server answered ${response.status}` }));
    if (!response.ok) tell(`Not answered: ${answer.error}.`, true);
    else show(file, answer);
  } catch (error) {
    if (error.name !== "AbortError") tell("The server can't be reached; is it still running?", true);
  }
}

function show(file, answer) {
  found = answer;
  URL.revokeObjectURL(part("photo").src);
  part("photo").src = URL.createObjectURL(file);
  part("mask").src = answer.mask ? `data:image/png;base64,${answer.mask}` : "data:,";
  part("areas").tBodies[0].replaceChildren(
    ...(answer.areas || []).map((area) => row(area, `${(100 * area.share).toFixed(1)} %`)),
  );
  part("with-boxes").parentNode.hidden = part("boxes").hidden = !answer.boxes;
  part("with-mask").parentNode.hidden = part("areas").hidden = !answer.mask;
  part("result").hidden = false;
  tell(`${answer.width} × ${answer.height} pixels, answered in ${answer.seconds.toFixed(2)} s.`);
  choose();
}

function choose() {
  const least = Number(part("score").value);
  part("shown").textContent = least.toFixed(2);
  part("mask").hidden = !part("with-mask").checked || !found.mask;
  part("frames").hidden = !part("with-boxes").checked;
  const boxes = (found.boxes || []).filter((box) => box.score >= least);
  part("count").textContent = `${boxes.length} of ${(found.boxes || []).length} boxes have this score`;
  part("boxes").tBodies[0].replaceChildren(...boxes.map((box) => row(box, box.score.toFixed(2))));
  // The best last, so that they lie on top.
  part("frames").replaceChildren(...boxes.map(frame).reverse());
}

function row(item, figure) {
  const made = document.createElement("tr");
  const name = document.createElement("th");
  name.scope = "row";
  const colour = document.createElement("i");
  colour.className = "colour";
  colour.style.background = facts.colours[item.category_id];
  name.append(colour, item.category);
  made.append(name);
  made.insertCell().textContent = figure;
  return made;
}

function frame(box) {
  const [x, y, width, height] = box.bbox;
  const colour = facts.colours[box.category_id];
  const made = document.createElement("div");
  Object.assign(made.style, {
    left: `${(100 * x) / found.width}%`,
    top: `${(100 * y) / found.height}%`,
    width: `${(100 * width) / found.width}%`,
    height: `${(100 * height) / found.height}%`,
    borderColor: colour,
  });
  const tag = document.createElement("span");
  tag.textContent = `${box.category} ${box.score.toFixed(2)}`;
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  tag.style.background = colour;
  tag.style.color = 0.299 * red + 0.587 * green + 0.114 * blue > 140 ? "#1f2328" : "#fff";
  tag.style[x / found.width > 0.7 ? "right" : "left"] = "-3px";
  tag.style[y / found.height < 0.06 ? "top" : "bottom"] = y / found.height < 0.06 ? "-3px" : "100%";
  made.append(tag);
  return made;
}

part("here").textContent = location.origin;
part("file").addEventListener("change", (event) => {
  if (event.target.files.length) ask(event.target.files[0]);
  event.target.value = "";
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) ask(event.clipboardData.files[0]);
});
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    part("drop").classList.toggle("over", name === "dragover");
    if (name === "drop" && event.dataTransfer.files.length) ask(event.dataTransfer.files[0]);
  });
}
for (const id of ["score", "with-boxes", "with-mask"]) part(id).addEventListener("input", () => found && choose());
