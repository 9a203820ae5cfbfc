"use strict";
// One clip is looked at at a time. Its sounds run side by side from one start, and one of them has
// a gain: a change of sound keeps the position to the sample. The names of files and classes are
// put in as text, never as HTML.

const byId = (id) => document.getElementById(id);
const facts = JSON.parse(byId("facts").textContent);
const TITLES = new Map(facts.parts);
const PARTS = [...TITLES.keys()];
const page = { clip: -1, part: PARTS[0], shown: [], media: null, cell: {} };
// In another page's frame there are neither downloads nor a memory, and the address is not ours.
const OWN_WINDOW = /^(file|https?):$/.test(location.protocol);

function make(tag, fields = {}, ...children) {
  const made = Object.assign(document.createElement(tag), fields);
  made.append(...children);
  return made;
}

const percent = (p) => (p === null ? "silent" : `${(100 * p).toFixed(p > 0.995 || p < 0.0995 ? 1 : 0)} %`);
const hertz = (f) => (f < 1000 ? `${Math.round(f)} Hz` : `${(f / 1000).toFixed(1)} kHz`);
// The lowest bin reaches from 0 Hz to half a bin's width, and is called by its upper end.
const peak = (c) => (c.peak_hz === 0 && c.bin_hz ? `below ${hertz(c.bin_hz / 2)}` : hertz(c.peak_hz));
const decibels = (ratio) => `${ratio < 1 ? "−" : "+"}${Math.abs(20 * Math.log10(ratio)).toFixed(1)} dB`;
const titled = (part) => TITLES.get(part) ?? `component ${part}`;
const isComponent = (part) => !PARTS.includes(part);
const clipNow = () => facts.clips[page.clip];
const fall = (clip) => clip.probability.original - clip.probability.removal;
// How far the explanation holds: the lesser of what the class loses without it and what is left of
// it by the explanation alone, as shares of the class's probability.
const bears = (clip) => {
  const { original, explanation, removal } = clip.probability;
  return Math.min(original - (removal ?? 0), explanation ?? 0) / (original || 1);
};

// --- what lies beside the page ------------------------------------------------------------------

const EMPTY = { sounds: {}, pictures: {}, levels: {} };
const arrived = new Map(); // of clips that lie beside the page, the last few

function mediaOf(index) {
  const inside = byId(`media-${index}`);
  if (inside) return JSON.parse(inside.textContent);
  if (!arrived.has(index) && facts.beside) {
    // A page opened from a disk may not fetch a file; a script it may ask for.
    const script = make("script", { src: `${facts.beside[index].split("/").map(encodeURIComponent).join("/")}page.js` });
    script.onerror = () => trouble("The sounds of this clip are not beside this page: keep the folder as a whole.");
    document.head.append(script);
  }
  return arrived.get(index) ?? EMPTY;
}

// What the scripts beside this page call.
window.arrive = (folder, media) => {
  const going = page.media === EMPTY && page.waiting;
  for (const [index, own] of facts.beside.entries()) {
    if (own !== folder) continue;
    arrived.set(index, media);
    if (arrived.size > 8) arrived.delete(arrived.keys().next().value);
    if (index === page.clip) showMedia(media, going);
  }
};

// --- notes --------------------------------------------------------------------------------------

const notes = {
  held: new Map(), // where the browser keeps nothing
  lasting: true,
  key: (clip) => `l2i ${location.pathname} ${clip.name} ${clip.class}`,
  read(clip) {
    const key = notes.key(clip);
    let text = notes.held.get(key);
    try {
      text ??= localStorage.getItem(key);
    } catch {
      notes.lasting = false;
    }
    try {
      const { rating = "", note = "" } = JSON.parse(text ?? "{}");
      return { rating: String(rating), note: String(note) };
    } catch {
      return { rating: "", note: "" };
    }
  },
  write(clip, value) {
    const key = notes.key(clip);
    const empty = !value.rating && !value.note;
    try {
      if (empty) localStorage.removeItem(key);
      else localStorage.setItem(key, JSON.stringify(value));
      notes.held.delete(key);
    } catch {
      notes.lasting = false;
      notes.held.set(key, JSON.stringify(value));
    }
  },
  csv() {
    const cell = (value) => `"${String(value ?? "").replaceAll('"', '""')}"`;
    const head = ["clip", "class", "rating", "note", "right", "holds", ...PARTS];
    const rows = facts.clips.flatMap((clip) => {
      const { rating, note } = notes.read(clip);
      if (!rating && !note) return [];
      return [[clip.name, clip.class, rating, note, clip.right, clip.holds, ...PARTS.map((p) => clip.probability?.[p])]];
    });
    return [head, ...rows].map((row) => row.map(cell).join(",") + "\r\n").join("");
  },
};

function save(content, type, name) {
  const link = make("a", { href: URL.createObjectURL(new Blob([content], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

function showNote() {
  const { rating, note } = notes.read(clipNow());
  byId("rating").value = rating;
  byId("note").value = note;
}

function keepNote() {
  notes.write(clipNow(), { rating: byId("rating").value, note: byId("note").value });
  markClip();
  showKept();
}

function showKept() {
  const n = facts.clips.filter((clip) => notes.read(clip).rating || notes.read(clip).note).length;
  const who = n ? `${n === 1 ? "1 clip has" : `${n} clips have`} a note or a rating; they` : "Notes and ratings";
  byId("kept").textContent = `${who} are ${notes.lasting ? "kept in this browser" : "lost when this page is closed"}.`;
  byId("export").hidden = !OWN_WINDOW || PARTS.length === 0;
  byId("export").disabled = n === 0;
}

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
  const made = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) made[i] = raw.charCodeAt(i);
  return made.buffer;
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

// Gains that bring all sounds to one level (RMS): as loud as the loudest is, or less, so that none
// is cut. What is silent stays so.
function gains() {
  const loud = Object.entries(page.media.levels).filter(([, [rms]]) => rms > 1e-4);
  if (!loud.length || !byId("level").checked) return {};
  const level = Math.min(...loud.map(([, [rms, highest]]) => (0.98 * rms) / highest), Math.max(...loud.map(([, [rms]]) => rms)));
  return Object.fromEntries(loud.map(([name, [rms]]) => [name, level / rms]));
}

const gainOf = (name) => (name === page.part ? (gains()[name] ?? gains().explanation ?? 1) : 0);

function begin(name, buffer) {
  const { context } = player;
  const source = new AudioBufferSourceNode(context, {
    buffer,
    loop: byId("loop").checked,
    loopEnd: clipNow().duration_s,
  });
  const gain = new GainNode(context, { gain: gainOf(name) });
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
    await Promise.all(PARTS.filter((part) => page.media.sounds[part]).map(join));
  } catch (error) {
    stop();
    trouble(`This browser cannot play the sound: ${error.message}`);
  }
}

function trouble(text) {
  byId("trouble").textContent = text;
  byId("trouble").hidden = false;
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
  setGains();
  if (player.playing) join(part);
  showPart();
  writeAddress();
}

function setGains() {
  const now = player.context?.currentTime;
  for (const [name, { gain }] of player.live) {
    // Some milliseconds: a step would be heard as a click.
    gain.gain.setTargetAtTime(gainOf(name), now, 0.004);
  }
}

function setLevel() {
  setGains();
  showLevels();
  writeAddress();
}

function showLevels() {
  const { levels } = page.media;
  const levelled = Object.entries(gains());
  const first = PARTS[0];
  const [reference] = levels[first] ?? [0];
  const others = PARTS.filter((part) => part !== first && levels[part]);
  const level = (part) => (levels[part][0] > 1e-4 ? decibels(levels[part][0] / reference) : "silent");
  byId("levels").textContent = levelled.length
    ? `All at one loudness: ${levelled.map(([part, gain]) => `${titled(part)} ${decibels(gain)}`).join(", ")}.`
    : reference > 1e-4 && others.length
      ? `Level against the ${titled(first)}: ${others.map((part) => `${titled(part)} ${level(part)}`).join(", ")}.`
      : "";
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
  for (const line of document.querySelectorAll(".playhead")) {
    line.style.transform = `translateX(${(byId("picture").clientWidth - 2) * (t / clip.duration_s)}px)`;
  }
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
  const single = isComponent(part);
  const base = media.pictures[`sound ${part}`] ?? media.pictures[single ? PARTS[0] : part];
  const mask = media.pictures[single ? part : `mask ${part}`] ?? (single ? undefined : media.pictures.mask);
  const masked = single || byId("mask").checked;
  setPicture(byId("spectrogram"), base, `Spectrogram of the ${single && PARTS.length ? titled(PARTS[0]) : titled(part)}`);
  setPicture(byId("overlay"), masked && mask, "");
  setPicture(byId("alone"), mask, `Mask of the ${single ? titled(part) : "explanation"}`);
  // Its room stays, so that nothing moves from one sound to the next.
  for (const id of ["mask-axis", "mask-picture"]) byId(id).style.visibility = mask ? "" : "hidden";
  const most = single && mask ? maskPeak(part) : null;
  byId("caption").textContent =
    (single ? `You hear ${titled(part)} alone` : `You hear the ${titled(part)}`) +
    (most ? `; cyan is where it keeps most, up to ${percent(most)}.` : masked && mask ? "; cyan is what the mask keeps." : ".");
  byId("download").disabled = !media.sounds[part];
  for (const button of document.querySelectorAll("[data-part]")) {
    button.setAttribute("aria-pressed", String(button.dataset.part === part));
  }
}

const maskPeak = (part) => clipNow().components.find((c) => String(c.component) === part)?.mask_peak;

function bar(share) {
  const filled = make("i");
  filled.style.width = `${100 * Math.min(1, Math.max(0, share))}%`;
  return make("span", { className: "bar" }, filled);
}

function verdict(good, text, sign = good ? "✓" : "✗") {
  return make("li", {}, make("span", { className: good ? "good" : "bad", textContent: `${sign} ` }), text);
}

const named = (names) => names.join(", ") || "no class";

function showVerdicts(clip) {
  if (!clip.decided) {
    byId("verdicts").replaceChildren(...(clip.lines ?? []).map((line) => make("li", { textContent: line })));
    return;
  }
  const line = `classifier: ${named(clip.decided)}`;
  const items = [];
  if (clip.right === null) items.push(make("li", { textContent: line }));
  else {
    items.push(make("li", { textContent: `label: ${named(clip.labels)}` }));
    items.push(verdict(clip.right, `${line} (${clip.right ? "right" : "wrong"})`));
  }
  if (clip.interpreter) {
    const agrees = clip.agree ? "agrees" : "disagrees";
    items.push(verdict(clip.agree, `interpreter: ${named(clip.interpreter_decided)} (${agrees})`));
  }
  if (clip.holds) items.push(verdict(true, clip.verdict));
  // Where it holds all the same, a doubt is no verdict.
  items.push(...(clip.warnings ?? []).map((doubt) => verdict(false, doubt.text, clip.holds ? "⚠" : "✗")));
  if (!clip.decided.includes(clip.class)) items.push(make("li", { textContent: `explained: ${clip.class}` }));
  byId("verdicts").replaceChildren(...items);
}

function showParts(clip) {
  byId("parts").replaceChildren(
    ...PARTS.map((part, index) => {
      const button = make(
        "button",
        { type: "button", disabled: !page.media.sounds[part] },
        make("span", { textContent: titled(part) }),
        make("small", { textContent: clip.says?.[part] ?? `${percent(clip.probability[part])} ${clip.class}` }),
      );
      button.dataset.part = part;
      button.setAttribute("aria-keyshortcuts", String(index + 1));
      return button;
    }),
  );
}

function drawn(spectrum) {
  const picture = byId("spectrum").content.firstElementChild.cloneNode(true);
  const points = spectrum.map((value, at) => `${at},${100 - value}`).join(" ");
  picture.firstElementChild.setAttribute("points", `0,100 ${points} ${spectrum.length - 1},100`);
  return picture;
}

function component(clip, item, selected) {
  const heard = selected && page.media.sounds[item.component];
  const more = [
    item.energy === undefined ? "" : `${percent(item.energy)} of the clip’s energy`,
    item.evidence === undefined ? "" : `${Math.round(100 * item.evidence)} % of it counts`,
    item.text ?? "",
  ].filter(Boolean);
  const made = make(
    heard ? "button" : "div",
    { className: selected ? "component" : "component rest" },
    make("span", { textContent: `#${item.component}` }),
    bar(item.relevance),
    make("span", { textContent: item.relevance.toFixed(2) }),
    make("span", { textContent: peak(item) }),
    ...(more.length ? [make("small", { textContent: more.join(", ") })] : []),
    ...(item.spectrum ? [drawn(item.spectrum)] : []),
  );
  if (heard) {
    made.type = "button";
    made.dataset.part = String(item.component);
    made.setAttribute(
      "aria-label",
      `Listen to component ${item.component}: ${clip.interpreter ? "relevance" : "share"} ${item.relevance.toFixed(2)}, ` +
        [`strongest ${item.peak_hz ? `at ${peak(item)}` : peak(item)}`, ...more].join(", "),
    );
  } else {
    made.title = selected ? "" : "not selected";
  }
  return make("li", {}, made);
}

function aboutComponents(clip) {
  if (clip.about) return clip.about;
  const shown = "its spectrum from low to high, and the frequency where that is greatest";
  if (!clip.interpreter) {
    const rest = 1 - clip.components.reduce((sum, c) => sum + c.relevance, 0);
    const others = rest >= 0.005 ? ` The others together have ${percent(rest)}.` : "";
    const about = clip.components.length
      ? `Each component’s share of the explanation of “${clip.class}”, ${shown}; choose one to hear it alone.${others}`
      : `This method, ${clip.method}, has no components: it says where and when.`;
    return `${about} ${percent(clip.kept)} of the clip’s energy is kept.`;
  }
  const limit = clip.max_components ? `, at most ${clip.max_components}` : "";
  return clip.components.length
    ? `For “${clip.class}”: ${shown}. Selected above ${clip.threshold}${limit}; ` +
        `${clip.others.length ? "grey ones are not selected; " : ""}choose one to hear it alone.`
    : `No component is relevant for “${clip.class}” beyond ${clip.threshold}: there is nothing to hear.`;
}

function showComponents(clip) {
  byId("components-title").parentElement.hidden = !clip.components;
  if (!clip.components) return;
  byId("components-title").textContent = clip.interpreter || clip.about ? "Relevance of components" : "Components";
  byId("about").textContent = aboutComponents(clip);
  byId("components").replaceChildren(
    ...clip.components.map((item) => component(clip, item, true)),
    ...(clip.others ?? []).map((item) => component(clip, item, false)),
  );
}

function showClasses(clip) {
  byId("likeliest").hidden = !clip.classifier;
  if (!clip.classifier) return;
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
  const tick = (textContent, side, percents) => {
    const made = make("span", { textContent });
    made.style[side] = `${percents}%`;
    return made;
  };
  byId("hertz").replaceChildren(...facts.ticks.map(([text, place]) => tick(text, "top", 100 * place)));
  const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120].find((s) => clip.duration_s / s <= 7) ?? 300;
  const ticks = [];
  for (let n = 0; n * step <= 0.97 * clip.duration_s; n++) {
    ticks.push(tick(`${+(n * step).toFixed(1)} s`, "left", (100 * n * step) / clip.duration_s));
  }
  byId("seconds").replaceChildren(...ticks);
}

function showClip(index, part = "") {
  const going = player.playing || page.waiting;
  stop(0);
  page.clip = index;
  const clip = clipNow();
  byId("trouble").hidden = true;
  byId("name").textContent = clip.name;
  byId("why").textContent = clip.why ? `Chosen for this page: ${clip.why}.` : "";
  byId("seek").max = clip.duration_s;
  page.wanted = part || (isComponent(page.part) ? "" : page.part);
  showVerdicts(clip);
  showClasses(clip);
  showAxes(clip);
  showNote();
  showMedia(mediaOf(index), going);
  showPosition();
  markClip();
}

function showMedia(media, going) {
  const clip = clipNow();
  player.buffers.clear();
  page.media = media;
  // Of what is on its way it is not known yet what can be heard.
  const there = media === EMPTY || media.sounds[page.wanted];
  const first = PARTS[0] ?? Object.keys(media.sounds)[0] ?? "";
  page.part = page.wanted && there ? page.wanted : first;
  page.waiting = media === EMPTY && going;
  byId("play").disabled = !media.sounds[page.part];
  showParts(clip);
  showComponents(clip);
  showLevels();
  showPart();
  writeAddress();
  if (going && media !== EMPTY) play(0);
}

function markClip() {
  for (const button of byId("clips").querySelectorAll("button")) {
    const mine = Number(button.dataset.clip) === page.clip;
    button.setAttribute("aria-current", String(mine));
    if (mine) button.querySelector(".rated").textContent = rated(clipNow());
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
  "rated": (clip) => notes.read(clip).rating !== "",
  "not rated": (clip) => notes.read(clip).rating === "",
};

// What each clip is sorted by, the least first.
const ORDERS = {
  "as listed": (_, index) => index,
  "surest mistakes": (clip) => (clip.right === false ? -clip.probability.original : 1),
  "least faithful": bears,
  "FF, least": fall,
  "FF, greatest": (clip) => -fall(clip),
  "confidence, least": (clip) => clip.probability.original,
  "confidence, greatest": (clip) => -clip.probability.original,
  "name": () => 0,
};

// A cell of the table of confusions: of its clips, what they are and what the classifier says.
const CELLS = {
  label: ["labelled", (clip, name) => clip.labels.includes(name)],
  unlabelled: ["not labelled", (clip, name) => !clip.labels.includes(name)],
  said: ["taken for", (clip, name) => clip.decided.includes(name)],
  unsaid: ["not taken for", (clip, name) => !clip.decided.includes(name)],
};

const about = (clip) => new Set([...(clip.labels ?? []), ...(clip.decided ?? []), clip.class]);
const rated = (clip) => {
  const { rating, note } = notes.read(clip);
  return (rating ? ` ${"★".repeat(rating)}` : "") + (note ? " ✎" : "");
};

function passing() {
  const wanted = byId("by-class").value;
  const words = byId("by-name").value.toLowerCase().split(/\s+/).filter(Boolean);
  const passes = VERDICTS[byId("by-verdict").value];
  const key = ORDERS[byId("order").value];
  const shown = [...facts.clips.keys()].filter((i) => {
    const clip = facts.clips[i];
    const name = clip.name.toLowerCase();
    return (
      passes(clip) &&
      (wanted === "" || about(clip).has(wanted.slice(1))) &&
      words.every((word) => name.includes(word)) &&
      Object.entries(page.cell).every(([way, of]) => CELLS[way][1](clip, of))
    );
  });
  const byName = (a, b) => facts.clips[a].name.localeCompare(facts.clips[b].name, undefined, { numeric: true });
  return shown.sort((a, b) => key(facts.clips[a], a) - key(facts.clips[b], b) || byName(a, b));
}

function listed(i) {
  const clip = facts.clips[i];
  const marks = clip.right == null ? "" : clip.right ? " ✓" : " ✗ wrong";
  const doubts = (clip.warnings ?? []).map((doubt) => doubt.mark).join(", ");
  const line = clip.decided ? `${named(clip.decided)}${marks}${clip.agree === false ? " · interpreter disagrees" : ""}` : (clip.short ?? "");
  const button = make(
    "button",
    { type: "button" },
    clip.name,
    make("small", {}, line, make("span", { className: "rated", textContent: rated(clip) })),
    ...(doubts ? [make("small", { className: "doubt", textContent: `⚠ ${doubts}` })] : []),
  );
  button.dataset.clip = String(i);
  return make("li", {}, button);
}

function showList(wanted = page.clip, part = "") {
  page.shown = passing();
  byId("clips").replaceChildren(...page.shown.map(listed));
  byId("count").textContent = `${page.shown.length} of ${facts.clips.length} ${facts.noun}`;
  const cell = Object.entries(page.cell).map(([way, of]) => `${CELLS[way][0]} ${of || "“”"}`);
  byId("cell").hidden = cell.length === 0;
  byId("cell").firstChild.textContent = `Only clips ${cell.join(" and ")}.`;
  const none = page.shown.length === 0;
  byId("nothing").hidden = !none;
  byId("clip").hidden = none;
  if (none) {
    if (page.clip >= 0) stop();
    writeAddress();
  } else if (page.shown.includes(wanted) && wanted === page.clip) {
    markClip();
    if (part) choosePart(part);
    writeAddress();
  } else showClip(page.shown.includes(wanted) ? wanted : page.shown[0], part);
}

function showFilters() {
  const names = new Set(facts.clips.flatMap((clip) => [...about(clip)]));
  // A letter before each name: a class may be called anything, even nothing.
  byId("by-class").append(
    make("option", { value: "", textContent: "all" }),
    ...[...names].sort((a, b) => a.localeCompare(b)).map((name) => make("option", { value: `=${name}`, textContent: name })),
  );
  const judged = facts.clips.some((clip) => clip.right != null);
  const interpreted = facts.clips.some((clip) => clip.interpreter);
  const weighed = facts.clips.some((clip) => clip.holds !== undefined);
  const measured = facts.clips.some((clip) => clip.probability?.removal !== undefined);
  const choices = (words) => words.map((word) => make("option", { value: word, textContent: word }));
  byId("by-verdict").append(
    ...choices(
      Object.keys(VERDICTS)
        .filter((word) => judged || !word.startsWith("classifier"))
        .filter((word) => interpreted || !word.startsWith("interpreter"))
        .filter((word) => weighed || !word.startsWith("explanation")),
    ),
  );
  byId("order").append(
    ...choices(
      Object.keys(ORDERS)
        .filter((word) => measured || ["as listed", "name"].includes(word))
        .filter((word) => judged || word !== "surest mistakes"),
    ),
  );
  // Of components alone there is no whole to weigh, to mask or to rate.
  const alone = ["level", "mask", "by-class", "by-verdict"].map((id) => byId(id).parentElement);
  const whole = ["mask-axis", "mask-picture", "notes", "kept", "export"].map(byId);
  if (PARTS.length === 0) for (const each of [...alone, ...whole]) each.hidden = true;
  byId("download").hidden = !OWN_WINDOW;
}

// --- the address --------------------------------------------------------------------------------

// Of each control that is not as it was at first: its word in the address.
const CONTROLS = { find: "by-name", class: "by-class", show: "by-verdict", sort: "order" };

function address() {
  const words = new URLSearchParams(page.cell);
  for (const [word, id] of Object.entries(CONTROLS)) {
    const control = byId(id);
    if (control.value !== (control.options?.[0].value ?? "")) words.set(word, control.value);
  }
  if (byId("level").checked) words.set("loudness", "same");
  const clip = clipNow();
  if (clip && !byId("clip").hidden) {
    words.set("clip", clip.name);
    words.set("explained", clip.class);
    words.set("sound", page.part);
  }
  return `#${words}`;
}

function writeAddress() {
  if (!OWN_WINDOW || page.reading || location.hash === address()) return;
  history.replaceState(null, "", address());
}

function readAddress() {
  const words = new URLSearchParams(location.hash.slice(1));
  // While the controls are set one by one, the address must not follow them.
  page.reading = true;
  page.cell = Object.fromEntries([...words].filter(([word]) => word in CELLS));
  for (const [word, id] of Object.entries(CONTROLS)) {
    const control = byId(id);
    control.value = words.get(word) ?? "";
    if (control.selectedIndex === -1) control.selectedIndex = 0;
  }
  byId("level").checked = words.get("loudness") === "same";
  const fits = (clip) => clip.name === words.get("clip") && (words.get("explained") ?? clip.class) === clip.class;
  const wanted = facts.clips.findIndex(fits);
  showList(wanted < 0 ? page.clip : wanted, words.get("sound") ?? "");
  if (page.media) setLevel();
  if (words.has("clip") && wanted < 0) trouble(`There is no clip “${words.get("clip")}” on this page.`);
  page.reading = false;
  writeAddress();
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
  ...Object.fromEntries(PARTS.map((part, index) => [String(index + 1), () => choosePart(part)])),
  "j": () => step(1),
  "k": () => step(-1),
  "ArrowLeft": () => seek(position() - 0.5),
  "ArrowRight": () => seek(position() + 0.5),
  "Home": () => seek(0),
  "r": () => flip("loop"),
  "m": () => flip("mask"),
  "l": () => flip("level"),
  "/": () => byId("by-name").focus(),
  "?": () => byId("keys").showModal(),
};

document.addEventListener("keydown", (event) => {
  const at = event.target;
  if (event.ctrlKey || event.metaKey || event.altKey || byId("keys").open) return;
  // What has the focus keeps the keys it knows.
  if (at.matches("select, textarea, input[type=search]")) return;
  if (at.matches("button, summary, input[type=checkbox]") && event.key === " ") return;
  if (at.matches("input[type=range]") && /^(Arrow|Home)/.test(event.key)) return;
  const act = KEYS[event.key];
  if (!act || (byId("clip").hidden && !"?/".includes(event.key))) return;
  event.preventDefault();
  act();
});

function onButton(id, act) {
  byId(id).addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    act(button.dataset);
    // After a click by pointer, the space bar is to play and pause; after one by key, the focus stays.
    if (event.detail > 0) byId("play").focus({ preventScroll: true });
  });
}

onButton("clips", ({ clip }) => showClip(Number(clip)));
onButton("parts", ({ part }) => choosePart(part));
onButton("components", ({ part }) => {
  // A second click leads back to the whole, where there is one.
  const again = PARTS.length > 0 && page.part === part;
  choosePart(again ? PARTS[0] : part);
  if (!again && !player.playing) play();
});
for (const picture of [byId("picture"), byId("mask-picture")]) {
  picture.addEventListener("click", (event) => {
    const box = picture.getBoundingClientRect();
    seek(((event.clientX - box.left) / box.width) * clipNow().duration_s);
  });
}
byId("seek").addEventListener("input", () => seek(Number(byId("seek").value)));
byId("play").addEventListener("click", toggle);
byId("loop").addEventListener("change", setLoop);
byId("mask").addEventListener("change", showPart);
byId("help").addEventListener("click", () => byId("keys").showModal());
for (const id of ["by-class", "by-verdict", "order"]) byId(id).addEventListener("change", () => showList());
byId("by-name").addEventListener("input", () => showList());
byId("no-cell").addEventListener("click", () => {
  page.cell = {};
  showList();
});
byId("level").addEventListener("change", setLevel);
byId("rating").addEventListener("change", keepNote);
byId("note").addEventListener("input", keepNote);
byId("export").addEventListener("click", () => save(notes.csv(), "text/csv", "notes.csv"));
byId("download").addEventListener("click", () => {
  const sound = bytes(page.media.sounds[page.part]);
  const lossless = new Uint8Array(sound)[0] === 0x66; // f of fLaC
  const stem = `${clipNow().name} ${clipNow().class} ${titled(page.part)}`.replace(/[^\p{L}\p{N}.-]+/gu, "_");
  save(sound, lossless ? "audio/flac" : "audio/mpeg", `${stem}.${lossless ? "flac" : "mp3"}`);
});
addEventListener("resize", showPosition);
addEventListener("hashchange", readAddress);

byId("layout").hidden = false;
showFilters();
showKept();
readAddress();
