"use strict";
// Everything that a model or a data set wrote enters the page through textContent.

const MARKS = { correct: "✓", wrong: "✗", unparseable: "?", truncated: "…", unknown: "–" };

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

// A diverging colour: nothing at 0.5, all of it at 0 and at 1.
function paint(element, value) {
  const share = value === null ? 0 : Math.abs(value - 0.5) * 2;
  element.dataset.side = value !== null && value < 0.5 ? "low" : "high";
  element.style.setProperty("--share", `calc(${share.toFixed(3)} * var(--tint))`);
}

function chip(value) {
  const element = make("span", "chip", value === null ? "–" : value.toFixed(2));
  element.title = "value: the mean reward of the leaves below";
  paint(element, value);
  return element;
}

function leaves(nodes) {
  return nodes.flatMap((node) => (node.children.length ? leaves(node.children) : [node]));
}

function depth(nodes) {
  return nodes.length ? 1 + Math.max(...nodes.map((node) => depth(node.children))) : 0;
}

// The whole tree as rows of cells, a row a role, each cell as wide as its share of the leaves.
function icicle(tree) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const width = leaves(tree.nodes).length;
  svg.setAttribute("class", "icicle");
  svg.setAttribute("viewBox", `0 0 ${width} ${depth(tree.nodes)}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  function draw(nodes, left, top) {
    for (const node of nodes) {
      const span = node.children.length ? leaves(node.children).length : 1;
      const cell = document.createElementNS(space, "rect");
      const box = { x: left, y: top, width: span, height: 1 };
      for (const [name, number] of Object.entries(box)) cell.setAttribute(name, number);
      paint(cell, node.value);
      svg.append(cell);
      draw(node.children, left, top + 1);
      left += span;
    }
  }
  draw(tree.nodes, 0, 0);
  return svg;
}

// Fills a <details> when it is opened for the first time.
function unfold(details, fill) {
  details.addEventListener("toggle", () => details.open && fill(), { once: true });
}

function folded(title, text) {
  const details = make("details", "prompt");
  details.append(make("summary", "with", title));
  unfold(details, () => details.append(make("pre", "", text)));
  return details;
}

function nodeView(tree, node, index) {
  const details = make("details", "node");
  const summary = make("summary");
  summary.append(chip(node.value), make("span", "role", `${node.role} ${index + 1}`));
  if (node.answer) summary.append(make("span", "answer", `answer ${node.answer}`));
  summary.append(make("span", "excerpt", node.completion.slice(0, 160)));
  if (node.status) {
    summary.append(make("span", "status", `${MARKS[node.status] || ""} ${node.status}`));
  }
  details.append(summary);
  unfold(details, () => {
    const facts = [
      node.label === null ? "" : node.label ? "positive" : "negative",
      node.reward === null ? "" : `reward ${node.reward}`,
      `${node.completion_tokens} tokens after ${node.prompt_tokens}`,
      `finish: ${node.finish_reason}`,
      node.logprob === null ? "" : `log-probability ${node.logprob.toFixed(2).replace("-", "−")}`,
    ];
    details.append(
      make("p", "facts", facts.filter(Boolean).join(" · ")),
      make("pre", "completion", node.completion),
      folded("prompt", tree.prompts[node.prompt]),
      ...node.children.map((child, i) => nodeView(tree, child, i)),
    );
  });
  return details;
}

function treeView(tree) {
  const details = make("details", "tree");
  const summary = make("summary");
  const last = leaves(tree.nodes);
  const right = last.filter((leaf) => leaf.status === "correct").length;
  summary.append(
    make("span", "text", tree.question),
    make("span", "score", `${right} of ${last.length} right`),
    icicle(tree),
  );
  details.append(summary);
  unfold(details, () => {
    const inside = make("div", "inside");
    const kinds = tree.kinds.length ? ` · ${tree.kinds.join(", ")}` : "";
    inside.append(
      make("p", "facts", `reference answer ${tree.reference} · question ${tree.id}${kinds}`),
      ...tree.nodes.map((node, i) => nodeView(tree, node, i)),
    );
    details.append(inside);
  });
  return details;
}
