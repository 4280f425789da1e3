// The explorer's front end: plain JavaScript, no library, nothing fetched. Data: see cdimlib/explorer.py.
(function start(tries) {
  const root = document.getElementById("ID_OF_THIS");
  if (!root) { if (tries) setTimeout(() => start(tries - 1), 50); return; }
  if (root.dataset.ready) return;
  root.dataset.ready = "yes";

  // ------------------------------------------------------------------------------------------------- small helpers
  const SVG = "http://www.w3.org/2000/svg";
  function make(tag, attributes = {}, ...children) {
    const node = attributes.svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
    for (const [key, value] of Object.entries(attributes)) {
      if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
      else if (key !== "svg" && value !== null) node.setAttribute(key, value);
    }
    node.append(...children);
    return node;
  }
  const bytes = (text, Type) => new Type(Uint8Array.from(atob(text), c => c.charCodeAt(0)).buffer);
  const capital = text => text[0].toUpperCase() + text.slice(1);
  const percent = share => `${Math.round(100 * share)} %`;
  let names = 0;
  const unique = word => `${root.id}-${word}-${names++}`;

  const scenes = JSON.parse(root.querySelector("script[type='application/json']").textContent);
  for (const s of scenes) {
    s.settings = s.knobs.reduce((product, knob) => product * knob.levels.length, 1);
    for (const m of s.matchers) {
      m.lists = bytes(m.lists, Uint16Array);
      m.ranks = bytes(m.ranks, Uint16Array);
      m.scores = bytes(m.scores, Float32Array);
      m.parts = bytes(m.parts, m.kind === "heat" ? Int8Array : Uint8Array);
    }
  }
  const state = { tab: 0 };  // and of the scene: query, knobs, matchers [A, B], pair [side, place in its list]
  const scene = () => scenes[state.tab];
  const setting = (s = scene()) => s.knobs.reduce((sum, knob, i) => sum * knob.levels.length + state.knobs[i], 0);
  const matcher = side => scene().matchers[state.matchers[side]];
  const entry = place => (setting() * scene().queries.length + state.query) * (scene().top + 1) + place;
  const found = (side, place) => matcher(side).lists[entry(place)];
  const rankOf = (side, query) => matcher(side).ranks[setting() * scene().asked + query];
  const rank = (side, shown = state.query) => rankOf(side, scene().shown[shown]);
  const isRight = image => scene().gallery[image].id === scene().queries[state.query].id;
  const twin = image => scene().twins.find(([a, b]) => {
    const pair = [scene().gallery[image].id, scene().queries[state.query].id];
    return pair.includes(a) && pair.includes(b) && a !== b && pair[0] !== pair[1];
  });

  /** Show picture number i of the tab's sheet in an element. */
  function picture(node, i, tab = state.tab) {
    const { columns, rows, size } = scenes[tab].sheet, [column, row] = [i % columns, Math.floor(i / columns)];
    node.className = `pic sheet${tab}`;
    node.style.backgroundSize = `${100 * columns}% ${100 * rows}%`;
    node.style.backgroundPosition = `${columns > 1 ? 100 * column / (columns - 1) : 0}% ${rows > 1 ? 100 * row / (rows - 1) : 0}%`;
    node.style.aspectRatio = `${size[1]} / ${size[0]}`;
    return node;
  }
  const ofQuery = (i, c = setting()) => c * scene().queries.length + i;
  const ofGallery = i => scene().settings * scene().queries.length + i;

  // ------------------------------------------------------------------------------------------------ the parts once
  const tabs = make("div", { class: "tabs", role: "group", "aria-label": "What to search" });
  const picker = make("fieldset", { class: "picker" });
  const knobs = make("div", { class: "knobs" });
  const verdict = make("p", { class: "verdict", role: "status", "aria-live": "polite" });
  const tally = make("p", { class: "tally" });
  const jumps = [0, 1].map(side => make("button", { type: "button", class: "jump", onclick: () => jump(side) }));
  const pair = make("section", { class: "pair", "aria-label": "The query, and the answer in question" });
  const sides = [0, 1].map(makeSide);
  root.append(tabs, picker, knobs, verdict,
    make("div", { class: "stage" }, pair, make("div", { class: "sides" }, ...sides.map(s => s.node))),
    make("div", { class: "foot" }, tally, ...jumps));
  scenes.forEach((s, i) => tabs.append(make("button", { type: "button", onclick: () => open(i) }, s.title)));
  tabs.hidden = scenes.length < 2;

  /** One matcher's half: a select, its rank-1, its list. */
  function makeSide(side) {
    const name = unique("matcher"), letter = "AB"[side];
    const select = make("select", { id: name, onchange: () => { state.matchers[side] = select.selectedIndex; changed(); } });
    const rate = make("span", { class: "rate" }), bar = make("span", { class: "bar" }, make("i"));
    const list = make("ol", { "aria-label": `Best answers of matcher ${letter}` });
    const node = make("section", { class: `side side${letter}`, "aria-label": `Matcher ${letter}` },
      make("div", { class: "head" }, make("label", { for: name }, make("b", { class: "letter" }, letter),
        make("span", { class: "unseen" }, " matcher")), select, bar, rate), list);
    return { node, select, rate, bar: bar.firstChild, list };
  }

  // ---------------------------------------------------------------------------------------------- what a tab needs
  function open(tab) {
    const s = scenes[tab], begin = s.start;
    Object.assign(state, { tab, query: begin.query, knobs: [...begin.knobs], matchers: [...begin.matchers], pair: [1, 0] });
    [...tabs.children].forEach((button, i) => button.setAttribute("aria-pressed", i === tab));
    picker.replaceChildren(make("legend", {}, "Look for ", make("span")));
    const group = unique("query");
    s.queries.forEach((query, i) => {
      const radio = make("input", { type: "radio", name: group, value: i, "aria-label": query.words,
        onchange: () => { state.query = i; changed(); } });
      picker.append(make("label", { title: query.words }, radio, picture(make("span"), ofQuery(i, 0))));
    });
    knobs.replaceChildren(...s.knobs.map((knob, i) => {
      const name = unique("knob"), said = make("output", { for: name });
      const range = make("input", { type: "range", id: name, min: 0, max: knob.levels.length - 1, step: 1,
        oninput: () => { state.knobs[i] = +range.value; say(); changed(); } });
      const say = () => {
        said.textContent = knob.levels[state.knobs[i]];
        range.setAttribute("aria-valuetext", said.textContent);
      };
      range.value = state.knobs[i];
      say();
      return make("div", { class: "knob" }, make("label", { for: name }, capital(knob.name)), said, range);
    }));
    sides.forEach((side, k) => {
      side.select.replaceChildren(...s.matchers.map(m => make("option", {}, capital(m.name.replace(/^the /, "")))));
      side.select.selectedIndex = state.matchers[k];
      side.list.replaceChildren(...Array.from({ length: s.top + 1 }, (_, place) => {
        const look = () => { state.pair = [k, place]; drawPair(); };
        const button = make("button", { type: "button", onmouseenter: look, onfocus: look, onclick: look },
          make("span"), make("span", { class: "place" }), make("span", { class: "mark", "aria-hidden": "true" }));
        return make("li", {}, button);
      }));
      side.list.onkeydown = event => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        const items = [...side.list.querySelectorAll("li:not([hidden]) button")];
        const next = items[items.indexOf(document.activeElement) + step];
        if (step && next) { next.focus(); event.preventDefault(); }
      };
    });
    changed();
  }

  /** A query, a knob or a matcher is another one: everything follows, the pair goes to B's (or A's) first right answer. */
  function changed() {
    picker.querySelectorAll("input")[state.query].checked = true;
    picker.querySelector("legend span").textContent = scene().queries[state.query].words;
    const side = state.pair[0];
    state.pair = [side, Math.min(rank(side) - 1, scene().top)];
    sides.forEach(drawSide);
    verdict.replaceChildren(...story());
    drawTally();
    drawPair();
  }

  function story() {
    const [a, b] = [rank(0), rank(1)], noun = scene().noun, name = side => make("b", {}, matcher(side).name);
    const place = r => make("strong", {}, r === 1 ? "at once, at rank 1" : `at rank ${r}`);
    let words;
    if (state.matchers[0] === state.matchers[1]) words = [name(0), ` finds ${noun} `, place(a), "."];
    else if (a === b) words = a === 1 ? ["Both find ", noun, " ", place(1), "."] : ["Both find ", noun, " ", place(a), "."];
    else {
      const [first, second] = a < b ? [0, 1] : [1, 0];
      words = [name(first), ` finds ${noun} `, place(rank(first)), "; ", name(second), " only ", place(rank(second)), "."];
    }
    const head = words[0].nodeType ? words[0] : null;
    if (head) head.textContent = capital(head.textContent);
    return words;
  }

  function drawSide(side, k) {
    const { top, gallery, asked } = scene(), r = rank(k);
    let hits = 0;
    for (let q = 0; q < asked; q++) hits += rankOf(k, q) === 1;
    side.bar.style.width = `${100 * hits / asked}%`;
    side.rate.replaceChildren(make("b", {}, percent(hits / asked)), ` right at rank 1`);
    side.rate.title = `${hits} of ${asked} queries, under these knobs`;
    [...side.list.children].forEach((item, place) => {
      item.hidden = place === top && r <= top;  // the first right answer, if the list ends before it
      item.className = place === top ? "beyond" : "";
      const image = found(k, place), right = isRight(image), number = place === top ? r : place + 1, button = item.firstChild;
      const similar = !right && twin(image), [pic, label, mark] = button.children;
      picture(pic, ofGallery(image));
      label.textContent = number;
      mark.textContent = right ? "✓" : similar ? "≈" : "";
      button.className = right ? "right" : similar ? "twin" : "";
      button.dataset.image = image;
      button.setAttribute("aria-label",
        `Rank ${number}, ${right ? "right" : similar ? "wrong, a lookalike" : "wrong"}: ${gallery[image].words}`);
    });
  }

  function drawTally() {
    const { asked } = scene(), ahead = [0, 0];
    for (let q = 0; q < asked; q++) {
      const gap = rankOf(0, q) - rankOf(1, q);
      if (gap) ahead[gap < 0 ? 0 : 1]++;
    }
    tally.textContent = `Of all ${asked} queries under these knobs, A ranks a right answer higher in ${ahead[0]}, `
      + `B in ${ahead[1]}, and ${asked - ahead[0] - ahead[1]} are level.`;
    jumps.forEach((button, side) => {
      const count = wins(side).length;
      button.disabled = !count;
      button.textContent = count ? `Show me where ${"AB"[side]} wins` : `${"AB"[side]} wins for none of these`;
    });
  }

  /** The shown queries in which a side is ahead, by how far. */
  function wins(side) {
    const gap = i => rank(1 - side, i) - rank(side, i);
    return scene().queries.map((_, i) => i).filter(i => gap(i) > 0).sort((i, j) => gap(j) - gap(i) || i - j);
  }
  function jump(side) {
    const all = wins(side);
    state.query = all[(all.indexOf(state.query) + 1) % all.length];
    state.pair = [side, 0];
    changed();
  }

  // --------------------------------------------------------------------------------------- the pair, and its reasons
  function drawPair() {
    const s = scene(), [side, place] = state.pair, m = matcher(side), image = found(side, place), right = isRight(image);
    sides.forEach((other, k) => other.list.querySelectorAll("button").forEach((button, i) => {
      button.setAttribute("aria-current", k === side && i === place);
      button.classList.toggle("same", +button.dataset.image === image && !(k === side && i === place));
    }));
    const number = place === s.top ? rank(side) : place + 1, other = twin(image);
    const what = right ? (s.twins.length ? "the same person" : "the right one")
      : other ? `a lookalike, all but the ${other[2]}` : s.twins.length ? "somebody else" : "another one";
    const query = picture(make("span", { role: "img", "aria-label": `Query: ${s.queries[state.query].words}` }), ofQuery(state.query));
    const answer = picture(make("span", { role: "img", "aria-label": `Answer: ${s.gallery[image].words}` }), ofGallery(image));
    const [h, w] = s.sheet.size, gap = 0.55 * w, wide = 2 * w + gap;
    const over = make("svg", { svg: 1, viewBox: `0 0 ${wide} ${h}`, "aria-hidden": "true" });
    const note = m.kind === "lines" ? drawLines(over, m, entry(place), [h, w], w + gap)
      : m.kind === "heat" ? drawHeat(over, m, entry(place), [h, w], w + gap) : "This score cannot be taken apart by place.";
    const score = m.scores[entry(place)];
    pair.style.setProperty("--gap", `${100 * gap / wide}%`);
    pair.replaceChildren(make("div", { class: "two" }, query, answer, over), make("p", { class: "caption" },
      make("b", {}, `${"AB"[side]}, rank ${number}: `), make("span", { class: right ? "yes" : "no" }, `${right ? "✓ " : ""}${what}`),
      ` (score ${score.toFixed(Math.abs(score) < 1 ? 3 : 2)}). `, note, make("small", {}, m.how)));
  }
  const middle = (cell, [rows, columns], [h, w]) =>
    [(cell % columns + 0.5) * w / columns, (Math.floor(cell / columns) + 0.5) * h / rows];

  /** Local matches: from a cell of the query to a cell of the answer; the thicker, the more it adds. */
  function drawLines(over, m, at, size, right) {
    const { lines } = scene(), cosines = [], unit = size[0] / 128;
    for (let i = 0; i < lines; i++) {
      const [from, to, cosine, share] = m.parts.subarray(4 * (at * lines + i), 4 * (at * lines + i) + 4);
      if (!share) continue;
      const [x1, y1] = middle(from, m.grid, size), [x2, y2] = middle(to, m.grid, size), width = unit * (0.5 + 1.6 * share / 255);
      cosines.push(cosine / 100);
      for (const [kind, extra] of [["case", unit], ["line", 0]]) {
        over.append(make("line", { svg: 1, class: kind, x1, y1, x2: right + x2, y2, "stroke-width": width + extra }));
        for (const x of [x1, right + x2]) {
          over.append(make("circle", { svg: 1, class: kind, cx: x, cy: x === x1 ? y1 : y2, r: width / 2 + 1.2 * unit + extra / 2 }));
        }
      }
    }
    return cosines.length ? `Lines: the ${cosines.length} local matches that lift it most above the gallery's mean, the thicker the more; cosines ${
      Math.min(...cosines).toFixed(2)} to ${Math.max(...cosines).toFixed(2)}. `
      : "No local match lifts it above the gallery's mean. ";
  }

  /** Cells: orange, with +, lifts this answer above the gallery's mean; blue, with -, pulls it below. */
  function drawHeat(over, m, at, [h, w], right) {
    const [rows, columns] = m.grid, parts = m.parts.subarray(2 * at * m.cells, 2 * (at + 1) * m.cells);
    const placed = [...parts].filter((_, i) => i % m.cells < rows * columns), most = Math.max(1, ...placed.map(Math.abs));
    [0, right].forEach((left, half) => {
      for (let cell = 0; cell < rows * columns; cell++) {
        const value = parts[half * m.cells + cell] / most, [x, y] = middle(cell, m.grid, [h, w]);
        over.append(make("rect", { svg: 1, class: value > 0 ? "plus" : "minus", "fill-opacity": 0.75 * Math.abs(value) ** 1.6,
          x: left + x - w / columns / 2, y: y - h / rows / 2, width: w / columns, height: h / rows }));
        if (Math.abs(value) > 0.7) {
          over.append(make("text", { svg: 1, x: left + x, y, "font-size": h / 14 }, value > 0 ? "+" : "−"));
        }
      }
    });
    const end = parts[m.cells - 1];
    const rest = m.cells > rows * columns ? ` (The network's end, which has no place, ${end > 0 ? "lifts" : "pulls"} it ${
      (Math.abs(end) / most).toFixed(1)} times as much as the strongest cell.)` : "";
    return `Orange and +: lifts its score above the gallery's mean; blue and −: pulls it below.${rest} `;
  }

  open(0);
})(100);
