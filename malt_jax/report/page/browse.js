// Search, filters and the keyboard. What is chosen stands in the address, so that it can be sent on:
// #trees?of=FOREST&q=WORDS&kind=KIND&from=0.2&to=0.8&tree=QUESTION

const PAGE = 60; // trees that are listed at a time
const CHUNK = 50; // trees that are unpacked together

async function unpack(chunk) {
  const bytes = Uint8Array.from(atob(chunk), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

function haystack(tree) {
  const texts = [tree.id, tree.question, tree.reference];
  const walk = (nodes) => {
    for (const node of nodes) {
      texts.push(node.answer, node.completion);
      walk(node.children);
    }
  };
  walk(tree.nodes);
  return texts.join("\n").toLowerCase();
}

// A forest's trees as entries whose `tree()` is unpacked when it is first asked for.
function grow(forest) {
  const chunks = forest.chunks.map(() => null);
  const entries = forest.entries.map(([id, value, kinds], i) => {
    const place = Math.floor(i / CHUNK);
    const tree = async () => (await (chunks[place] ??= unpack(forest.chunks[place])))[i % CHUNK];
    let text = null;
    const holds = async (words) => (text ??= haystack(await tree())).includes(words);
    return { id, value, kinds, tree, holds, view: null };
  });
  return { ...forest, entries };
}

function within(entry, { from, to, kinds }) {
  const fits = entry.value === null ? from <= 0 && to >= 1 : from <= entry.value && entry.value <= to;
  return fits && kinds.every((kind) => entry.kinds.includes(kind));
}

function browse(forests) {
  const filters = document.getElementById("filters");
  const browser = document.getElementById("browser");
  const more = document.getElementById("more");
  const { q, from, to } = filters.elements;
  const boxes = [...filters.querySelectorAll("[name=kind]")];
  const sources = [...filters.querySelectorAll("[name=of]")];
  let opened = "";
  let pending = 0;
  let shows = 0; // the latest call of show, which outlives those before it
  let limit = PAGE;

  function forest() {
    return forests[Math.max(0, sources.findIndex((source) => source.checked))];
  }

  function chosen() {
    return {
      words: q.value.trim().toLowerCase(),
      kinds: boxes.filter((box) => box.checked).map((box) => box.value),
      from: from.value === "" ? 0 : Number(from.value) - 1e-9,
      to: to.value === "" ? 1 : Number(to.value) + 1e-9,
    };
  }

  async function viewOf(entry) {
    if (!entry.view) {
      entry.view = treeView(await entry.tree());
      entry.view.addEventListener("toggle", () => {
        if (entry.view.open) opened = entry.id;
        else if (opened === entry.id) opened = "";
        else return;
        later();
      });
    }
    return entry.view;
  }

  async function show() {
    const turn = ++shows;
    const { entries, kinds } = forest();
    const wanted = chosen();
    const fitting = [];
    for (const entry of entries) {
      if (within(entry, wanted) && (!wanted.words || (await entry.holds(wanted.words)))) {
        fitting.push(entry);
      }
      if (turn !== shows) return;
    }
    const place = fitting.findIndex(({ id }) => id === opened);
    limit = Math.max(limit, Math.ceil((place + 1) / PAGE) * PAGE);
    const views = await Promise.all(fitting.slice(0, limit).map(viewOf));
    if (turn !== shows) return;
    browser.replaceChildren(...views);
    more.hidden = fitting.length <= limit;
    more.textContent = `Show ${Math.min(PAGE, fitting.length - limit)} more`;
    for (const count of filters.querySelectorAll("[data-kind]")) {
      count.textContent = kinds[count.dataset.kind].toLocaleString("en");
    }
    const listed = views.length < fitting.length ? `, the first ${views.length} are listed` : "";
    document.getElementById("shown").textContent =
      `${fitting.length} of ${entries.length} shown${listed}`;
  }

  function remember() {
    const said = new URLSearchParams();
    const of = forest() === forests[0] ? "" : forest().name;
    const values = [["of", of], ["q", q.value.trim()], ["from", from.value], ["to", to.value]];
    for (const [name, value] of values) {
      if (value !== "") said.append(name, value);
    }
    for (const kind of chosen().kinds) said.append("kind", kind);
    if (opened) said.append("tree", opened);
    history.replaceState(null, "", `#trees${String(said) && "?"}${said}`);
  }

  // Browsers stop listening to a page that rewrites its address at every letter.
  function later() {
    clearTimeout(pending);
    pending = setTimeout(remember, 150);
  }

  async function recall() {
    const [section, query] = location.hash.split(/\?(.*)/s);
    if (section !== "#trees" || query === undefined) return;
    const said = new URLSearchParams(query);
    for (const input of [q, from, to]) input.value = said.get(input.name) ?? "";
    for (const box of boxes) box.checked = said.getAll("kind").includes(box.value);
    const of = said.get("of") ?? forests[0].name;
    for (const source of sources) source.checked = source.value === of;
    opened = said.get("tree") ?? "";
    await show();
    const view = forest().entries.find(({ id }) => id === opened)?.view;
    if (view?.isConnected) view.open = true;
    (view?.isConnected ? view : document.getElementById("trees")).scrollIntoView();
  }

  function anew() {
    limit = PAGE;
    show();
    later();
  }

  filters.hidden = false;
  filters.addEventListener("input", anew);
  filters.addEventListener("reset", () => setTimeout(anew));
  filters.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", () => { limit += PAGE; show(); });
  window.addEventListener("hashchange", recall);
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, textarea, select");
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    q.focus();
  });
  browser.addEventListener("keydown", (event) => walk(browser, event));
  show().then(recall);
}

// A summary can be reached if its tree is shown and every node above it is open.
function reachable(summary) {
  return !summary.parentElement.hidden
    && !summary.parentElement.parentElement.closest("details:not([open]), [hidden]");
}

// Arrow keys as in a list of folders: up and down move, right opens, left closes or goes up.
function walk(browser, event) {
  const summary = event.target.closest("summary");
  if (!summary || event.ctrlKey || event.metaKey || event.altKey) return;
  const details = summary.parentElement;
  const all = () => [...browser.querySelectorAll("summary")].filter(reachable);
  const step = (by) => all()[all().indexOf(summary) + by]?.focus();
  const above = details.parentElement.closest("details")?.querySelector("summary");
  const keys = {
    ArrowDown: () => step(1),
    ArrowUp: () => step(-1),
    ArrowRight: () => (details.open ? step(1) : (details.open = true)),
    ArrowLeft: () => (details.open ? (details.open = false) : above?.focus()),
    Home: () => all()[0].focus(),
    End: () => all().at(-1).focus(),
  };
  if (!(event.key in keys)) return;
  event.preventDefault();
  keys[event.key]();
}

for (const sample of document.querySelectorAll(".chip.sample")) {
  paint(sample, Number(sample.dataset.value));
}
const forests = document.getElementById("forests");
if (forests && "DecompressionStream" in window) browse(JSON.parse(forests.textContent).map(grow));
else if (forests) {
  document.getElementById("browser").textContent =
    "This browser cannot unpack the trees; one of 2023 or later can.";
}
