"use strict";
// MLflow's pages were at this address, and their links begin with a hash.
if (location.hash.startsWith("#/")) location.replace(`/mlflow${location.hash}`);

const runs = [...document.querySelectorAll("#runs > li")];
const find = document.getElementById("find");

function show() {
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  for (const run of runs) {
    const text = run.textContent.toLowerCase();
    run.hidden = !words.every((word) => text.includes(word));
  }
  const n = runs.filter((run) => !run.hidden).length;
  document.getElementById("count").textContent = `${n} of ${runs.length} runs`;
}

find.addEventListener("input", show);
show();
