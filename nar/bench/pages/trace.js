// What the page says, as functions of the graph (see nar/bench/trace.py); `k` is a step, from 0.

export const START = "▁"; // SentencePiece's mark of a word's beginning

export const clamp = (value, most) => Math.max(0, Math.min(most, value));

export const percent = (p) =>
  p > 0 && p < 0.001 ? "<0.1 %" : `${(100 * p).toFixed(p < 0.1 ? 1 : 0)} %`;

export const phase = (row, k) => (row < k ? "past" : row > k ? "future" : "now");

/** The text after step k: what stood before it, and what it added or changed. */
export function textAt(graph, k) {
  const [before, now] = [k ? graph.steps[k - 1].text : "", graph.steps[k].text];
  let same = 0;
  while (same < before.length && before[same] === now[same]) same++;
  return { old: now.slice(0, same), fresh: now.slice(same) };
}

/** The last step up to k in which the model said something of a place, or -1. */
export function saidAt(graph, k, place) {
  while (k >= 0 && !graph.steps[k].cells[place]?.predictions.length) k--;
  return k;
}

/** What the card shows: the model's choices for a place, in step k or when they were last made. */
export function details(graph, k, place) {
  const { token, state, others } = graph.steps[k].cells[place];
  const said = saidAt(graph, k, place);
  const predictions = said < 0 ? [] : graph.steps[said].cells[place].predictions;
  const stood = said < k && said >= 0 ? `, said in step ${said + 1}` : "";
  return { token, meaning: graph.states[state], others, predictions, stood };
}

/** A cell in words, for those who do not see it. */
export function label(graph, k, place) {
  const { token, meaning, predictions } = details(graph, k, place);
  const best = predictions[0]?.[1].map(([piece, p]) => `${piece} ${percent(p)}`).join(", ");
  return `step ${k + 1}, place ${place + 1}: ${token}, ${meaning}` + (best ? `; model: ${best}` : "");
}

const ARROWS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

/** The next cell in an arrow's direction, as [step, place]; null if there is none. */
export function neighbour(graph, k, place, key) {
  const [down, right] = ARROWS[key];
  do {
    [k, place] = [k + down, place + right];
  } while (graph.steps[k]?.cells[place] === null);
  return graph.steps[k]?.cells[place] ? [k, place] : null;
}

// The page --------------------------------------------------------------------------------------

const INTERVAL = 600; // milliseconds a step while playing

function element(name, attributes = {}, ...children) {
  const made = Object.assign(document.createElement(name), attributes);
  made.append(...children);
  return made;
}

/** A piece whose mark of a word's beginning is faint. */
function piece(token) {
  const made = element("bdi");
  if (token.startsWith(START)) made.append(element("span", { className: "mark" }, START));
  made.append(token.slice(token.startsWith(START) ? START.length : 0));
  return made;
}

function table(graph) {
  const width = graph.steps[0].cells.length;
  const heads = Array.from({ length: width }, (_, place) => {
    const final = graph.output_pieces[place] ?? "";
    return element("th", { scope: "col", title: final }, element("small", {}, place + 1), piece(final));
  });
  const rows = graph.steps.map(({ before, after, cells }, k) => {
    const added = element("small", { title: "tokens written" }, `+${after - before}`);
    const tds = cells.map((cell, place) => {
      if (!cell) return element("td");
      const td = element("td", { className: cell.state, tabIndex: -1 }, piece(cell.token));
      td.append(...cell.others.map((other) => element("small", {}, piece(other))));
      td.ariaLabel = label(graph, k, place);
      Object.assign(td.dataset, { k, place });
      return td;
    });
    return element("tr", {}, element("th", { scope: "row" }, k + 1, added), ...tds);
  });
  const corner = element("th", { scope: "col" }, element("small", {}, "step"), "final");
  return [element("thead", {}, element("tr", {}, corner, ...heads)), element("tbody", {}, ...rows)];
}

function card(graph, k, place) {
  const { token, meaning, others, predictions, stood } = details(graph, k, place);
  const groups = predictions.map(([after, choices]) => {
    const bars = choices.flatMap(([choice, p]) => {
      const bar = element("i", { ariaHidden: true }, element("b"));
      bar.firstChild.style.width = `${100 * p}%`;
      const className = choice === token ? "chosen" : "";
      return [element("dt", { className }, piece(choice)), element("dd", {}, bar),
        element("dd", { className }, percent(p))];
    });
    const asked = after === null ? ["The model"] : ["The model after ", piece(after)];
    const title = element("h3", {}, ...asked, stood);
    return element("section", {}, title, element("dl", {}, ...bars));
  });
  const also = others.flatMap((other, i) => [i ? ", " : "Also considered: ", piece(other)]);
  return [
    element("h2", {}, piece(token)),
    element("p", {}, `Step ${k + 1}, place ${place + 1}: ${meaning}`),
    ...(also.length ? [element("p", {}, ...also)] : []),
    element("div", { className: "groups" }, ...groups),
  ];
}

function main() {
  const get = (id) => document.getElementById(id);
  const graph = JSON.parse(get("graph").textContent);
  const last = graph.steps.length - 1;
  let now = last;
  let timer = null;

  get("decoder").textContent = graph.decoder;
  get("source").textContent = graph.source;
  get("summary").textContent = graph.summary;
  get("weights").textContent = `Weights ${graph.weights}.`;
  get("legend").append(...Object.entries(graph.states).map(([state, meaning]) =>
    element("li", {}, element("i", { className: state }), meaning)));
  get("grid").append(...table(graph));
  get("slider").max = last + 1;
  const rows = [...get("grid").tBodies[0].rows];
  const cellAt = (k, place) => rows[k].cells[place + 1];

  function show(k) {
    now = clamp(k, last);
    const { old, fresh } = textAt(graph, now);
    get("old").textContent = old;
    get("fresh").textContent = fresh;
    get("slider").value = now + 1;
    get("step").textContent = `step ${now + 1} of ${last + 1}`;
    rows.forEach((row, k) => { row.className = phase(k, now); });
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    get("play").textContent = "Play";
  }

  function play() {
    if (timer) return stop();
    show(now === last ? 0 : now);
    get("play").textContent = "Pause";
    timer = setInterval(() => (now === last ? stop() : follow(now + 1)), INTERVAL);
  }

  function follow(k) {
    show(k);
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const behavior = still ? "auto" : "smooth";
    const frontier = cellAt(now, Math.max(graph.steps[now].after - 1, 0));
    frontier.scrollIntoView({ block: "nearest", inline: "nearest", behavior });
  }

  function open(td) {
    const [k, place] = [+td.dataset.k, +td.dataset.place];
    get("card").replaceChildren(...card(graph, k, place));
    get("card").hidden = false;
    const [box, size] = [td.getBoundingClientRect(), get("card").getBoundingClientRect()];
    const below = box.bottom + 8 + size.height < innerHeight;
    const top = below ? box.bottom + 6 : Math.max(4, box.top - size.height - 6);
    get("card").style.top = `${top}px`;
    get("card").style.left = `${clamp(box.left, innerWidth - size.width - 8)}px`;
  }

  const close = () => { get("card").hidden = true; };
  const cellOf = (event) => event.target.closest("td[data-k]");

  get("play").addEventListener("click", play);
  get("slider").addEventListener("input", () => { stop(); show(get("slider").value - 1); });
  get("grid").addEventListener("pointerover", (event) => {
    const td = cellOf(event);
    if (td) open(td);
    else close();
  });
  get("grid").addEventListener("pointerleave", close);
  get("grid").addEventListener("focusin", (event) => { if (cellOf(event)) open(cellOf(event)); });
  get("grid").addEventListener("focusout", close);
  get("grid").addEventListener("click", (event) => {
    const td = cellOf(event);
    if (td) td.focus();
    else if (event.target.closest("tbody th")) { stop(); show(event.target.closest("tr").rowIndex - 1); }
  });
  get("grid").parentElement.addEventListener("scroll", close);

  document.addEventListener("keydown", (event) => {
    const td = cellOf(event);
    if (event.key === "Escape") close();
    else if (event.key === " " && event.target !== get("play")) play();
    else if (!(event.key in ARROWS) || event.target === get("slider")) return;
    else if (td) {
      const next = neighbour(graph, +td.dataset.k, +td.dataset.place, event.key);
      if (next) cellAt(...next).focus();
    } else { stop(); follow(now + ARROWS[event.key][0] + ARROWS[event.key][1]); }
    event.preventDefault();
  });

  cellAt(0, 0).tabIndex = 0;
  show(last);
}

if (globalThis.document) main();
