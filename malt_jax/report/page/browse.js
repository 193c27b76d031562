// Search, filters and the keyboard. What is chosen stands in the address, so that it can be sent on:
// #trees?q=WORDS&kind=KIND&from=0.2&to=0.8&tree=QUESTION

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

// The value of the tree itself: the mean of its first nodes, null where they have none.
function valueOf(tree) {
  const values = tree.nodes.map((node) => node.value).filter((value) => value !== null);
  return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
}

function fits(entry, wanted) {
  const { from, to, kinds, words } = wanted;
  const within = entry.value === null ? from <= 0 && to >= 1 : from <= entry.value && entry.value <= to;
  return within && kinds.every((kind) => entry.tree.kinds.includes(kind)) && entry.text.includes(words);
}

function browse(trees) {
  const filters = document.getElementById("filters");
  const browser = document.getElementById("browser");
  const { q, from, to } = filters.elements;
  const boxes = [...filters.querySelectorAll("[name=kind]")];
  const entries = trees.map((tree) => {
    return { tree, view: treeView(tree), text: haystack(tree), value: valueOf(tree) };
  });
  let opened = "";
  let pending = 0;

  function chosen() {
    return {
      words: q.value.trim().toLowerCase(),
      kinds: boxes.filter((box) => box.checked).map((box) => box.value),
      from: from.value === "" ? 0 : Number(from.value) - 1e-9,
      to: to.value === "" ? 1 : Number(to.value) + 1e-9,
    };
  }

  function show() {
    const wanted = chosen();
    let count = 0;
    for (const entry of entries) {
      entry.view.hidden = !fits(entry, wanted);
      count += !entry.view.hidden;
    }
    document.getElementById("shown").textContent = `${count} of ${trees.length} shown`;
  }

  function remember() {
    const said = new URLSearchParams();
    for (const [name, value] of [["q", q.value.trim()], ["from", from.value], ["to", to.value]]) {
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

  function recall() {
    const [section, query] = location.hash.split(/\?(.*)/s);
    if (section !== "#trees" || query === undefined) return;
    const said = new URLSearchParams(query);
    for (const input of [q, from, to]) input.value = said.get(input.name) ?? "";
    for (const box of boxes) box.checked = said.getAll("kind").includes(box.value);
    opened = said.get("tree") ?? "";
    show();
    const entry = entries.find(({ tree }) => tree.id === opened);
    if (entry) entry.view.open = true;
    (entry ? entry.view : document.getElementById("trees")).scrollIntoView();
  }

  for (const { tree, view } of entries) {
    view.addEventListener("toggle", () => {
      if (view.open) opened = tree.id;
      else if (opened === tree.id) opened = "";
      else return;
      later();
    });
  }
  filters.hidden = false;
  filters.addEventListener("input", () => { show(); later(); });
  filters.addEventListener("reset", () => setTimeout(() => { show(); later(); }));
  filters.addEventListener("submit", (event) => event.preventDefault());
  window.addEventListener("hashchange", recall);
  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, textarea, select");
    if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    q.focus();
  });
  browser.addEventListener("keydown", (event) => walk(browser, event));
  browser.append(...entries.map((entry) => entry.view));
  show();
  recall();
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
const forest = document.getElementById("forest");
if (forest) browse(JSON.parse(forest.textContent));
