"use strict";
// One clip is looked at at a time. Its sounds run side by side from one start, and one of them has
// a gain: a change of sound keeps the position to the sample. The names of files and classes are
// put in as text, never as HTML.

const byId = (id) => document.getElementById(id);
const facts = JSON.parse(byId("facts").textContent);
const PARTS = ["original", "explanation", "removal"];
const page = { clip: -1, part: "original", shown: [], media: null };

function make(tag, fields = {}, ...children) {
  const made = Object.assign(document.createElement(tag), fields);
  made.append(...children);
  return made;
}

const percent = (p) => (p === null ? "silent" : `${(100 * p).toFixed(p > 0.995 || p < 0.0995 ? 1 : 0)} %`);
const hertz = (f) => (f < 1000 ? `${Math.round(f)} Hz` : `${(f / 1000).toFixed(1)} kHz`);
const isComponent = (part) => !PARTS.includes(part);
const clipNow = () => facts.clips[page.clip];

// --- sound --------------------------------------------------------------------------------------

const player = {
  context: null,
  buffers: new Map(), // name -> promise of a decoded sound of this clip
  live: new Map(), // name -> what plays it
  playing: false,
  at: 0, // where in the clip it was ...
  since: 0, // ... at this time of the context's clock
  turn: 0, // counts starts and stops; who waited for another turn gives up
};

function bytes(text) {
  const raw = atob(text);
  const found = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) found[i] = raw.charCodeAt(i);
  return found.buffer;
}

function decoded(name) {
  if (!player.buffers.has(name)) {
    player.buffers.set(name, player.context.decodeAudioData(bytes(page.media.sounds[name])));
  }
  return player.buffers.get(name);
}

function wrapped(seconds) {
  const end = clipNow().duration_s;
  return byId("loop").checked ? seconds % end : Math.min(seconds, end);
}

function position() {
  if (!player.playing) return player.at;
  // What is heard lags behind the clock by what is on its way to the ear.
  const heard = player.context.currentTime - (player.context.outputLatency || 0);
  return wrapped(player.at + Math.max(0, heard - player.since));
}

function begin(name, buffer) {
  const { context } = player;
  const source = new AudioBufferSourceNode(context, {
    buffer,
    loop: byId("loop").checked,
    loopEnd: clipNow().duration_s,
  });
  const gain = new GainNode(context, { gain: name === page.part ? 1 : 0 });
  source.connect(gain).connect(context.destination);
  const now = context.currentTime;
  source.start(now, wrapped(player.at + now - player.since));
  const turn = player.turn;
  source.onended = () => {
    if (turn === player.turn) stop(clipNow().duration_s);
  };
  player.live.set(name, { source, gain });
}

async function join(name) {
  const turn = player.turn;
  const buffer = await decoded(name);
  if (turn === player.turn && player.playing && !player.live.has(name)) begin(name, buffer);
}

async function play(from = position()) {
  stop(from);
  if (!page.media?.sounds[page.part]) return;
  const turn = player.turn;
  try {
    // Else an iPhone whose ringer is off would be silent.
    if (navigator.audioSession) navigator.audioSession.type = "playback";
    player.context ??= new AudioContext();
    const [buffer] = await Promise.all([decoded(page.part), player.context.resume()]);
    if (turn !== player.turn) return;
    player.at = from >= clipNow().duration_s - 0.005 ? 0 : from;
    player.since = player.context.currentTime;
    player.playing = true;
    begin(page.part, buffer);
    showPlaying();
    requestAnimationFrame(follow);
    await Promise.all(PARTS.map(join));
  } catch (error) {
    stop();
    byId("trouble").textContent = `This browser cannot play the sound: ${error.message}`;
    byId("trouble").hidden = false;
  }
}

function stop(at = position()) {
  player.at = at;
  player.playing = false;
  player.turn++;
  for (const { source } of player.live.values()) source.stop();
  player.live.clear();
  showPlaying();
  showPosition();
}

function seek(seconds) {
  const to = Math.min(Math.max(0, seconds), clipNow().duration_s);
  if (player.playing) play(to);
  else stop(to);
}

function choosePart(part) {
  if (page.clip < 0 || !page.media.sounds[part]) return;
  page.part = part;
  const now = player.context?.currentTime;
  for (const [name, { gain }] of player.live) {
    // Some milliseconds: a step would be heard as a click.
    gain.gain.setTargetAtTime(name === part ? 1 : 0, now, 0.004);
  }
  if (player.playing) join(part);
  showPart();
}

function setLoop() {
  player.at = position();
  player.since = (player.context?.currentTime ?? 0) - (player.context?.outputLatency || 0);
  for (const { source } of player.live.values()) source.loop = byId("loop").checked;
}

// --- what is seen -------------------------------------------------------------------------------

function showPlaying() {
  byId("play").textContent = player.playing ? "Pause" : "Play";
}

function showPosition() {
  const clip = clipNow();
  if (!clip) return;
  const t = position();
  byId("playhead").style.transform = `translateX(${(byId("picture").clientWidth - 2) * (t / clip.duration_s)}px)`;
  byId("seek").value = t;
  const words = `${t.toFixed(1)} of ${clip.duration_s.toFixed(1)} s`;
  if (byId("time").textContent !== words) {
    byId("time").textContent = words;
    byId("seek").setAttribute("aria-valuetext", words);
  }
}

function follow() {
  showPosition();
  if (player.playing) requestAnimationFrame(follow);
}

function setPicture(img, png, alt) {
  if (png) img.src = `data:image/png;base64,${png}`;
  else img.removeAttribute("src");
  img.alt = alt;
}

function showPart() {
  const { part, media } = page;
  const alone = isComponent(part);
  const base = alone ? "original" : part;
  const masked = alone || byId("mask").checked;
  setPicture(byId("spectrogram"), media.pictures[base], `Spectrogram of the ${base}`);
  setPicture(byId("overlay"), masked && media.pictures[alone ? part : "mask"], "");
  byId("caption").textContent =
    (alone ? `You hear component ${part} alone` : `You hear the ${part}`) +
    (alone ? `; cyan is where it keeps most, up to ${percent(maskPeak(part))}.` : masked ? "; cyan is what the mask keeps." : ".");
  for (const button of document.querySelectorAll("[data-part]")) {
    button.setAttribute("aria-pressed", String(button.dataset.part === part));
  }
}

const maskPeak = (part) => clipNow().components.find((c) => String(c.component) === part).mask_peak;

function bar(share) {
  const filled = make("i");
  filled.style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
  return make("span", { className: "bar" }, filled);
}

function verdict(good, text) {
  return make("li", {}, make("span", { className: good ? "good" : "bad", textContent: `${good ? "✓" : "✗"} ` }), text);
}

const named = (names) => names.join(", ") || "no class";

function showVerdicts(clip) {
  const said = `classifier: ${named(clip.decided)}`;
  const items = [];
  if (clip.right === null) items.push(make("li", { textContent: said }));
  else {
    items.push(make("li", { textContent: `label: ${named(clip.labels)}` }));
    items.push(verdict(clip.right, `${said} (${clip.right ? "right" : "wrong"})`));
  }
  if (clip.interpreter) {
    const agrees = clip.agree ? "agrees" : "disagrees";
    items.push(verdict(clip.agree, `interpreter: ${named(clip.interpreter_decided)} (${agrees})`));
  }
  if (clip.holds) items.push(verdict(true, clip.verdict));
  items.push(...(clip.warnings ?? []).map((doubt) => verdict(false, doubt.text)));
  if (!clip.decided.includes(clip.class)) items.push(make("li", { textContent: `explained: ${clip.class}` }));
  byId("verdicts").replaceChildren(...items);
}

function showParts(clip) {
  byId("parts").replaceChildren(
    ...PARTS.map((part, index) => {
      const button = make(
        "button",
        { type: "button", disabled: !page.media.sounds[part] },
        make("span", { textContent: part }),
        make("small", { textContent: `${percent(clip.probability[part])} ${clip.class}` }),
      );
      button.dataset.part = part;
      button.setAttribute("aria-keyshortcuts", String(index + 1));
      return button;
    }),
  );
}

function component(clip, found, selected) {
  const heard = selected && page.media.sounds[found.component];
  const made = make(
    heard ? "button" : "div",
    { className: selected ? "component" : "component rest" },
    make("span", { textContent: `#${found.component}` }),
    bar(found.relevance),
    make("span", { textContent: found.relevance.toFixed(2) }),
    make("span", { textContent: hertz(found.peak_hz) }),
  );
  if (found.evidence !== undefined) {
    made.classList.add("gated");
    made.append(make("span", { className: "evidence", textContent: `${Math.round(100 * found.evidence)} % of it` }));
  }
  if (heard) {
    made.type = "button";
    made.dataset.part = String(found.component);
    made.setAttribute(
      "aria-label",
      `Listen to component ${found.component}: ${clip.interpreter ? "relevance" : "share"} ${found.relevance.toFixed(2)}, strongest at ${hertz(found.peak_hz)}`,
    );
  } else {
    made.title = selected ? "" : "not selected";
  }
  return make("li", {}, made);
}

function showComponents(clip) {
  byId("components-title").textContent = clip.interpreter ? "Relevance of components" : "Components";
  if (!clip.interpreter) {
    const about = clip.components.length
      ? `Each component's share of the explanation of “${clip.class}”, the frequency where it is strongest, ` +
        "and how much of the component counts; choose one to hear it alone."
      : `This method, ${clip.method}, has no components: it says where and when.`;
    byId("about").textContent = `${about} ${percent(clip.kept)} of the clip's energy is kept.`;
    byId("components").replaceChildren(...clip.components.map((found) => component(clip, found, true)));
    return;
  }
  const limit = clip.max_components ? `, at most ${clip.max_components}` : "";
  byId("about").textContent = clip.components.length
    ? `For “${clip.class}”, with the frequency where each is strongest. Selected above ${clip.threshold}${limit}; ` +
      `${clip.others.length ? "grey ones are not selected; " : ""}choose one to hear it alone.`
    : `No component is relevant for “${clip.class}” beyond ${clip.threshold}: there is nothing to hear.`;
  byId("components").replaceChildren(
    ...clip.components.map((found) => component(clip, found, true)),
    ...clip.others.map((found) => component(clip, found, false)),
  );
}

function showClasses(clip) {
  byId("other").textContent = clip.interpreter ? "interpreter" : "explanation alone";
  // Sorted again: of an object's names, JavaScript takes those that are numbers first.
  const likeliest = Object.entries(clip.classifier).sort((a, b) => b[1] - a[1]);
  const rows = likeliest.map(([name, p]) => {
    const tags = [];
    if (clip.labels.includes(name)) tags.push("label");
    if (name === clip.class) tags.push("explained");
    const cell = (value) => make("td", {}, percent(value), bar(value));
    return make(
      "tr",
      {},
      make("th", { scope: "row" }, name, make("span", { className: "tag", textContent: tags.length ? ` ${tags.join(", ")}` : "" })),
      cell(p),
      cell((clip.interpreter ?? clip.alone)[name]),
    );
  });
  byId("classes").tBodies[0].replaceChildren(...rows);
}

function showAxes(clip) {
  byId("hertz").replaceChildren(
    ...facts.ticks.map(([text, place]) => {
      const tick = make("span", { textContent: text });
      tick.style.top = `${100 * place}%`;
      return tick;
    }),
  );
  const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120].find((s) => clip.duration_s / s <= 7) ?? 300;
  const ticks = [];
  for (let n = 0; n * step <= 0.97 * clip.duration_s; n++) {
    const tick = make("span", { textContent: `${+(n * step).toFixed(1)} s` });
    tick.style.left = `${(100 * n * step) / clip.duration_s}%`;
    ticks.push(tick);
  }
  byId("seconds").replaceChildren(...ticks);
}

function showClip(index) {
  const going = player.playing;
  stop(0);
  player.buffers.clear();
  page.clip = index;
  page.media = JSON.parse(byId(`media-${index}`).textContent);
  if (isComponent(page.part)) page.part = "original";
  const clip = clipNow();
  byId("trouble").hidden = true;
  byId("name").textContent = clip.name;
  byId("seek").max = clip.duration_s;
  byId("play").disabled = !page.media.sounds.original;
  showVerdicts(clip);
  showParts(clip);
  showComponents(clip);
  showClasses(clip);
  showAxes(clip);
  showPart();
  showPosition();
  markClip();
  if (going) play(0);
}

function markClip() {
  for (const button of byId("clips").querySelectorAll("button")) {
    const mine = Number(button.dataset.clip) === page.clip;
    button.setAttribute("aria-current", String(mine));
    // Within its list alone: the page itself stays where it is.
    if (mine) keepInSight(button.parentElement, byId("clips"));
  }
}

function keepInSight(item, list) {
  const above = item.offsetTop - list.offsetTop;
  if (above < list.scrollTop) list.scrollTop = above;
  const below = above + item.offsetHeight - list.clientHeight;
  if (below > list.scrollTop) list.scrollTop = below;
}

// --- the list and its filters -------------------------------------------------------------------

const VERDICTS = {
  "all": () => true,
  "classifier right": (clip) => clip.right === true,
  "classifier wrong": (clip) => clip.right === false,
  "interpreter agrees": (clip) => clip.agree === true,
  "interpreter disagrees": (clip) => clip.agree === false,
  "explanation holds": (clip) => clip.holds === true,
  "explanation does not hold": (clip) => clip.holds === false,
};

const about = (clip) => new Set([...clip.labels, ...clip.decided, clip.class]);

function showList() {
  const wanted = byId("by-class").value;
  const passes = VERDICTS[byId("by-verdict").value];
  page.shown = [...facts.clips.keys()].filter((i) => {
    const clip = facts.clips[i];
    return passes(clip) && (wanted === "" || about(clip).has(wanted.slice(1)));
  });
  byId("clips").replaceChildren(
    ...page.shown.map((i) => {
      const clip = facts.clips[i];
      const marks = clip.right === null ? "" : clip.right ? " ✓" : " ✗ wrong";
      const doubts = (clip.warnings ?? []).map((doubt) => doubt.mark).join(", ");
      const button = make(
        "button",
        { type: "button" },
        clip.name,
        make("small", { textContent: `${named(clip.decided)}${marks}${clip.agree === false ? " · interpreter disagrees" : ""}` }),
        ...(doubts ? [make("small", { className: "doubt", textContent: `⚠ ${doubts}` })] : []),
      );
      button.dataset.clip = String(i);
      return make("li", {}, button);
    }),
  );
  byId("count").textContent = `${page.shown.length} of ${facts.clips.length} clips`;
  const none = page.shown.length === 0;
  byId("nothing").hidden = !none;
  byId("clip").hidden = none;
  if (none) {
    if (page.clip >= 0) stop();
  } else if (page.shown.includes(page.clip)) markClip();
  else showClip(page.shown[0]);
}

function showFilters() {
  const names = new Set(facts.clips.flatMap((clip) => [...about(clip)]));
  // A letter before each name: a class may be called anything, even nothing.
  byId("by-class").append(
    make("option", { value: "", textContent: "all" }),
    ...[...names].sort((a, b) => a.localeCompare(b)).map((name) => make("option", { value: `=${name}`, textContent: name })),
  );
  const judged = facts.clips.some((clip) => clip.right !== null);
  const interpreted = facts.clips.some((clip) => clip.interpreter);
  const weighed = facts.clips.some((clip) => clip.holds !== undefined);
  byId("by-verdict").append(
    ...Object.keys(VERDICTS)
      .filter((word) => judged || !word.startsWith("classifier"))
      .filter((word) => interpreted || !word.startsWith("interpreter"))
      .filter((word) => weighed || !word.startsWith("explanation"))
      .map((word) => make("option", { value: word, textContent: word })),
  );
}

function step(by) {
  const to = page.shown[page.shown.indexOf(page.clip) + by];
  if (to !== undefined) showClip(to);
}

// --- what is done -------------------------------------------------------------------------------

const toggle = () => (player.playing ? stop() : play());

function flip(id) {
  byId(id).checked = !byId(id).checked;
  byId(id).dispatchEvent(new Event("change"));
}

const KEYS = {
  " ": toggle,
  "1": () => choosePart("original"),
  "2": () => choosePart("explanation"),
  "3": () => choosePart("removal"),
  "j": () => step(1),
  "k": () => step(-1),
  "ArrowLeft": () => seek(position() - 0.5),
  "ArrowRight": () => seek(position() + 0.5),
  "Home": () => seek(0),
  "r": () => flip("loop"),
  "m": () => flip("mask"),
  "?": () => byId("keys").showModal(),
};

document.addEventListener("keydown", (event) => {
  const at = event.target;
  if (event.ctrlKey || event.metaKey || event.altKey || byId("keys").open) return;
  // What has the focus keeps the keys it knows.
  if (at.matches("select")) return;
  if (at.matches("button, input[type=checkbox]") && event.key === " ") return;
  if (at.matches("input[type=range]") && /^(Arrow|Home)/.test(event.key)) return;
  const act = KEYS[event.key];
  if (!act || (byId("clip").hidden && event.key !== "?")) return;
  event.preventDefault();
  act();
});

// After a click by pointer, the space bar is to play and pause; after one by key, the focus stays.
function settle(event) {
  if (event.detail > 0) byId("play").focus({ preventScroll: true });
}

byId("clips").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  showClip(Number(button.dataset.clip));
  settle(event);
});
byId("parts").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  choosePart(button.dataset.part);
  settle(event);
});
byId("components").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const again = page.part === button.dataset.part;
  choosePart(again ? "original" : button.dataset.part);
  if (!again && !player.playing) play();
  settle(event);
});
byId("picture").addEventListener("click", (event) => {
  const box = byId("picture").getBoundingClientRect();
  seek(((event.clientX - box.left) / box.width) * clipNow().duration_s);
});
byId("seek").addEventListener("input", () => seek(Number(byId("seek").value)));
byId("play").addEventListener("click", toggle);
byId("loop").addEventListener("change", setLoop);
byId("mask").addEventListener("change", showPart);
byId("help").addEventListener("click", () => byId("keys").showModal());
byId("by-class").addEventListener("change", showList);
byId("by-verdict").addEventListener("change", showList);
addEventListener("resize", showPosition);

byId("layout").hidden = false;
showFilters();
showList();
