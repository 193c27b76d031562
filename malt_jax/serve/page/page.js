"use strict";
// Everything that a user or a model wrote enters the page through textContent.

const at = (id) => document.getElementById(id);
const questions = []; // {text, asks}; what is shown and exported
const running = new Set(); // an AbortController for every ask that is written
let roles = [];

function make(tag, className, text) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  return element;
}

function button(text, act) {
  const element = make("button", "", text);
  element.type = "button";
  element.addEventListener("click", act);
  return element;
}

function say(text) {
  at("status").textContent = text;
}

// ---- the endpoint

function headers() {
  const token = at("token").value.trim();
  return token ? { authorization: `Bearer ${token}` } : {};
}

async function call(path, options = {}) {
  const response = await fetch(path, { ...options, headers: { ...options.headers, ...headers() } });
  if (response.ok) return response;
  if (response.status === 401) {
    at("locked").hidden = false;
    at("token").focus();
  }
  const body = await response.json().catch(() => null);
  throw new Error(body?.error?.message ?? `the server answered ${response.status}`);
}

// The messages of a stream of server-sent events.
async function* received(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (text + value).split("\n\n");
    text = blocks.pop();
    for (const block of blocks) {
      if (block.startsWith("data: ")) yield JSON.parse(block.slice(6));
    }
  }
}

let meetings = 0;

// The newest call alone is shown: the refusal of one without a token may come after the answer to
// one with it.
async function meet() {
  const meeting = ++meetings;
  try {
    const team = await (await call("v1/team")).json();
    if (meeting !== meetings) return;
    roles = team.roles;
    at("team").textContent = roles.join(" → ") + (team.ready ? "" : ", loading");
    if (!team.ready) setTimeout(meet, 1000);
  } catch (error) {
    if (meeting === meetings) at("team").textContent = error.message;
  }
}

// ---- asking

// One request and all that comes of it: passes[i][role] is {text, tokens, finish, how}.
function newAsk(title, options, written = {}, branched = false) {
  const votes = options.votes ?? 1;
  const kept = Object.entries(written).map(([role, { text, how }]) => [role, { text, how }]);
  const passes = Array.from({ length: votes }, () => structuredClone(Object.fromEntries(kept)));
  return { title, options, passes, branched, state: "waiting", answered: null };
}

async function write(question, ask) {
  const stop = new AbortController();
  running.add(stop);
  at("stop").disabled = false;
  const view = shown(question, ask);
  const texts = Object.entries(ask.passes[0]).map(([role, { text }]) => [role, text]);
  const body = { question: question.text, written: Object.fromEntries(texts), ...ask.options };
  try {
    const response = await call("v1/team/events", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
      signal: stop.signal,
    });
    for await (const event of received(response)) {
      if (event.error) throw new Error(event.error.message);
      take(ask, event, view);
    }
    if (!ask.answered) throw new Error("the connection was lost");
    ask.state = "done";
    say(ask.answered.answer ? `Answer: ${ask.answered.answer}` : "The team has answered.");
  } catch (error) {
    ask.state = stop.signal.aborted ? "stopped" : "failed";
    ask.error = stop.signal.aborted ? undefined : error.message;
    say(stop.signal.aborted ? "Stopped." : `Failed: ${error.message}`);
  }
  running.delete(stop);
  at("stop").disabled = running.size === 0;
  at("export").hidden = false;
  view.finish();
}

function take(ask, event, view) {
  if (event.kind === "answered") {
    ask.answered = event;
    return;
  }
  const turns = ask.passes[event.run];
  if (event.kind === "began") {
    turns[event.role] = { text: "", how: "written" };
    view.began(event.run, event.role);
    if (event.run === 0) say(`The ${event.role} writes.`);
  } else if (event.kind === "delta") {
    turns[event.role].text += event.text;
    view.more(event.run, event.role, event.text);
  } else {
    Object.assign(turns[event.role], {
      text: event.text, tokens: event.completion_tokens, finish: event.finish,
    });
    view.ended(event.run, event.role);
  }
}

function given(id) {
  const value = at(id).value.trim();
  return value === "" ? {} : { [id]: Number(value) };
}

function submit(event) {
  event.preventDefault();
  const text = at("question").value;
  if (!text.trim()) return;
  const question = { text, asks: [], view: article(text) };
  questions.push(question);
  const options = { ...given("votes"), ...given("temperature"), ...given("seed") };
  const teams = at("compare").checked ? [true, false] : [true];
  for (const trained of teams) {
    const title = trained ? "The trained team" : "The base model in every role";
    write(question, newAsk(title, { ...options, trained }));
  }
}

// Asks again from a role on: with `edited` in the place of what it wrote, or for another sample.
function branch(question, ask, run, role, edited) {
  const turns = ask.passes[run];
  const place = roles.indexOf(role);
  const earlier = roles.slice(0, place).map((name) => [name, { text: turns[name].text, how: "kept" }]);
  const written = Object.fromEntries(earlier);
  if (edited !== undefined) written[role] = { text: edited, how: "edited" };
  const { seed: _, ...rest } = ask.options;
  const seed = edited === undefined ? Math.floor(Math.random() * 2 ** 31) : ask.options.seed;
  const options = { ...rest, votes: 1, ...(seed === undefined ? {} : { seed }) };
  const deed = edited === undefined ? `another ${role}` : `the ${role} edited`;
  const title = `${ask.title}, ${ask.passes.length > 1 ? `pass ${run + 1}, ` : ""}${deed}`;
  write(question, newAsk(title, options, written, true));
}

function stopAll() {
  for (const stop of running) stop.abort();
}

// ---- what is seen

function article(text) {
  const element = make("article");
  const asks = make("div", "asks");
  element.append(make("h2", "", text), asks);
  at("questions").prepend(element);
  return asks;
}

function shown(question, ask) {
  const section = make("section", ask.branched ? "ask branch" : "ask");
  const state = make("span", "state", "…");
  const title = make("h3", "", `${ask.title} `);
  title.append(state);
  const result = make("div", "result");
  const cards = ask.passes.map((turns, run) => {
    const row = make("div", "pass");
    const entries = roles.map((role) => [role, card(role, turns[role])]);
    row.append(...entries.map(([, view]) => view.element));
    section.append(row);
    return Object.fromEntries(entries);
  });
  section.prepend(title);
  section.append(result);
  question.asks.push(ask);
  question.view.append(section);
  const offer = (run, role) =>
    cards[run][role].offer(
      () => branch(question, ask, run, role),
      role === roles.at(-1) ? null : (text) => branch(question, ask, run, role, text),
    );
  return {
    began: (run, role) => cards[run][role].state("writing", "writes…"),
    more: (run, role, text) => cards[run][role].text.append(text),
    ended: (run, role) => {
      const { text, tokens, finish } = ask.passes[run][role];
      cards[run][role].text.textContent = text;
      cards[run][role].state("", `${tokens} tokens${finish === "length" ? ", cut short" : ""}`);
      offer(run, role);
    },
    finish: () => {
      state.textContent = ask.state === "done" ? "" : ask.state;
      ask.passes.forEach((turns, run) =>
        roles.filter((role) => turns[role]).forEach((role) => {
          if (turns[role].how !== "written") offer(run, role);
          else if (!turns[role].finish) cards[run][role].state("", "stopped");
        }),
      );
      if (ask.error) result.append(make("p", "failed", ask.error));
      if (!ask.answered) return;
      const last = roles.at(-1);
      const wins = ask.passes.findIndex((turns) => turns[last]?.text === ask.answered.text);
      if (ask.passes.length > 1 && wins >= 0) cards[wins][last].element.classList.add("wins");
      result.append(...answer(ask));
    },
  };
}

function card(role, turn) {
  const element = make("div", "card");
  const head = make("div", "head");
  const mark = make("span", "state", turn ? turn.how : "");
  const text = make("pre", "", turn ? turn.text : "");
  const deeds = make("div", "deeds");
  text.tabIndex = 0;
  text.setAttribute("aria-label", `what the ${role} wrote`);
  head.append(make("span", "role", role), mark);
  element.append(head, text, deeds);
  if (turn) element.classList.add("kept");
  return {
    element,
    text,
    state(className, words) {
      element.classList.toggle("writing", className === "writing");
      mark.textContent = words;
    },
    offer(again, edit) {
      deeds.replaceChildren(button("Another sample", again));
      if (edit) deeds.append(button("Edit", () => edited(element, text, deeds, role, edit)));
    },
  };
}

function edited(element, text, deeds, role, edit) {
  const area = make("textarea");
  area.value = text.textContent;
  area.setAttribute("aria-label", `another text of the ${role}`);
  const before = [...deeds.children];
  const close = () => {
    area.replaceWith(text);
    deeds.replaceChildren(...before);
    before.at(-1).focus();
  };
  const go = button("Go on from this", () => {
    const written = area.value;
    close();
    edit(written);
  });
  area.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    close();
  });
  text.replaceWith(area);
  deeds.replaceChildren(go, button("Cancel", close));
  area.focus();
}

function answer(ask) {
  const { answer: text, votes, verdict, tokens_read, tokens_shared, tokens_written } = ask.answered;
  const tokens = `${tokens_read} tokens read, ${tokens_shared} of them shared, ${tokens_written} written`;
  const parts = [make("span", "answer", text || "no answer"), make("span", "facts", tokens)];
  if (verdict !== null) {
    const mark = make("span", "verdict", `the critique ${verdict ? "agrees" : "disagrees"}`);
    mark.dataset.says = verdict ? "right" : "wrong";
    parts.splice(1, 0, mark);
  }
  const counts = Object.entries(votes).sort(([, a], [, b]) => b - a);
  if (ask.passes.length > 1) {
    const list = make("ul", "votes");
    list.setAttribute("aria-label", "votes");
    for (const [name, count] of counts) {
      const row = make("li");
      const bar = make("span", "bar");
      bar.style.setProperty("--share", `${(100 * count) / ask.passes.length}%`);
      row.append(make("span", "", name), bar, make("span", "", `${count} of ${ask.passes.length}`));
      list.append(row);
    }
    parts.push(list);
  }
  return parts;
}

// ---- the transcript

function transcript() {
  const asks = ({ title, options, state, error, passes, answered }) => ({
    title, options, state, error, passes, answered,
  });
  return questions.map((question) => ({ question: question.text, asks: question.asks.map(asks) }));
}

function fenced(text) {
  const longest = Math.max(2, ...[...text.matchAll(/`+/g)].map(([run]) => run.length));
  const fence = "`".repeat(longest + 1);
  return `${fence}text\n${text}\n${fence}`;
}

function markdown() {
  const lines = ["# A MALT team's answers"];
  for (const { question, asks } of transcript()) {
    lines.push("## Question", fenced(question));
    for (const { title, passes, answered, state } of asks) {
      lines.push(`### ${title}`);
      passes.forEach((turns, run) => {
        for (const role of roles.filter((name) => turns[name])) {
          const number = passes.length > 1 ? `, pass ${run + 1}` : "";
          lines.push(`**${role}**${number}, ${turns[role].how}:`, fenced(turns[role].text));
        }
      });
      if (!answered) lines.push(`Not answered: ${state}.`);
      else lines.push("Answer:", fenced(answered.answer), `Votes: ${JSON.stringify(answered.votes)}`);
    }
  }
  return lines.join("\n\n") + "\n";
}

function save(name, kind, text) {
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([text], { type: kind }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // the download reads it meanwhile
}

at("ask").addEventListener("submit", submit);
at("stop").addEventListener("click", stopAll);
at("token").addEventListener("change", meet);
at("question").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  at("ask").requestSubmit();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stopAll();
});
at("as-json").addEventListener("click", () =>
  save("malt.json", "application/json", JSON.stringify(transcript(), null, 2)),
);
at("as-markdown").addEventListener("click", () => save("malt.md", "text/markdown", markdown()));
meet();
