// Asks the service that served this page, and nobody else. What comes back is only ever shown as text, never as HTML.

const $ = (id) => document.getElementById(id);
const percent = (p) => `${Math.round(100 * p)} %`;
const EXAMPLES = [
  "Кот сам открыл дверь и попросил зарплату!",
  "Спасибо вам огромное, вы нас просто спасли.",
  "Опять отменили поезд, и никто даже не извинился.",
];

function clock(seconds) {
  const s = Math.round(seconds);
  const [h, m] = [Math.floor(s / 3600), Math.floor(s / 60) % 60];
  return `${h ? `${h}:${String(m).padStart(2, "0")}` : m}:${String(s % 60).padStart(2, "0")}`;
}

function element(tag, properties = {}, ...children) {
  const { style, ...others } = properties;
  const made = Object.assign(document.createElement(tag), others);
  Object.assign(made.style, style);
  made.append(...children);
  return made;
}

async function ask(path, options = {}) {
  const key = $("api-key").value;
  const response = await fetch(path, { ...options, headers: { ...options.headers, ...(key && { "X-API-Key": key }) } });
  const found = await response.json();
  if (response.status === 401) {
    $("key").hidden = false;
    $("api-key").focus();
  }
  if (!response.ok) throw new Error(found.detail);
  return found;
}

// One question at a time: the button rests until its answer, or the reason why there is none, stands in the place.
async function answer(form, place, work) {
  const button = form.querySelector("button:not([type])");
  button.disabled = true;
  try {
    place.replaceChildren(...(await work()));
  } catch (error) {
    const reason = error instanceof TypeError ? "The service cannot be reached; is it running?" : error.message;
    place.replaceChildren(element("p", { className: "problem", role: "alert" }, reason));
  }
  button.disabled = false;
}

// Model and aim ---------------------------------------------------------------------------------------------------------

const namesIn = ({ enum: names, anyOf = [] }) => names ?? anyOf.flatMap(namesIn);

function offer(id, names) {
  $(id).append(...names.map((name) => element("option", { value: name }, name)));
  $(id).parentElement.hidden = $(id).options.length < 2;
  $("choice").hidden &&= $(id).parentElement.hidden;
}

// What the selections say; nothing where there is nothing to choose.
const chosen = () => Object.fromEntries(["model", "aim"].map((id) => [id, $(id).value]).filter(([, value]) => value));

$("choice").addEventListener("change", () => $("text").value && $("text-form").requestSubmit());
$("choice").addEventListener("submit", (event) => event.preventDefault());

// Text -----------------------------------------------------------------------------------------------------------------

function bar(label, probability, reached, threshold) {
  const track = element("div", { className: "track", ariaHidden: "true" },
    element("div", { className: "fill", style: { width: percent(probability).replace(" ", "") } }));
  if (threshold) track.append(element("div", { className: "mark", style: { left: `${100 * threshold}%` } }));
  return element("li", { className: reached ? "reached" : "" },
    element("span", {}, label), track, element("span", { className: "number" }, percent(probability)));
}

const named = ({ name, russian }) => (russian === name ? name : `${name} · ${russian}`);

// The answer of one task as its labels and the probabilities of its classes; two tasks have fields of their own.
function answered(found, { task, classes }) {
  if (task === "emotions") return { labels: found.emotions, probabilities: found.probabilities };
  if (task !== "virality") return found[task];
  const [{ name, russian }] = classes;
  return { labels: found.is_viral ? [{ name, russian }] : [], probabilities: { [name]: found.viral_score } };
}

function verdict({ task, classes, labels, probabilities }) {
  if (task === "virality") return labels.length ? "viral" : "not viral";
  const best = classes.reduce((a, b) => (probabilities[b.name] > probabilities[a.name] ? b : a));
  return (labels.length ? labels : [best]).map(named).join(", ");
}

function bars(answer) {
  const { task, classes, labels, probabilities } = answer;
  const reached = new Set(labels.map((label) => label.name));
  const items = [...classes]
    .sort((a, b) => reached.has(b.name) - reached.has(a.name) || probabilities[b.name] - probabilities[a.name])
    .map((each) => bar(task === "virality" ? verdict(answer) : named(each), probabilities[each.name],
      reached.has(each.name), each.threshold));
  const shown = items.length <= 8 ? items.length : Math.max(5, reached.size);
  const marked = classes.some((each) => each.threshold) ? "; the mark is where one begins to count" : "";
  const title = task === "virality" ? "Virality" : `${task[0].toUpperCase()}${task.slice(1)}${marked}`;
  return [
    element("h3", {}, title),
    element("ul", { className: "bars" }, ...items.slice(0, shown)),
    ...(shown < items.length ? [element("details", {}, element("summary", {}, `The other ${items.length - shown}`),
      element("ul", { className: "bars" }, ...items.slice(shown)))] : []),
  ];
}

async function judged() {
  const asked = JSON.stringify({ text: $("text").value, ...chosen() });
  const [{ predictions: [found], note }, tasks] = await Promise.all([
    ask("v1/predict", { method: "POST", headers: { "Content-Type": "application/json" }, body: asked }),
    ask(`v1/classes?${new URLSearchParams(chosen())}`),
  ]);
  const answers = tasks.sort((a, b) => (b.task === "virality") - (a.task === "virality"))
    .map((task) => ({ ...task, ...answered(found, task) }));
  const says = answers.some(({ probabilities }) => Object.values(probabilities).some((p) => p > 0));
  if (!says) return [element("p", { className: "verdict" }, "An empty text says nothing.")];
  const told = answers.length > 1 ? answers.filter(({ task }) => task !== "virality") : answers;
  return [
    element("p", { className: "verdict" }, element("strong", {}, told.map(verdict).join("; "))),
    ...(note ? [element("p", { className: "hint" }, note)] : []),
    ...answers.flatMap(bars),
  ];
}

$("text-form").addEventListener("submit", (event) => {
  event.preventDefault();
  answer($("text-form"), $("text-result"), judged);
});
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("text-form").requestSubmit();
});
for (const example of EXAMPLES) {
  const choose = () => {
    $("text").value = example;
    $("text-form").requestSubmit();
  };
  $("examples").append(element("button", { type: "button", className: "quiet", lang: "ru", onclick: choose }, example));
}

// Video ----------------------------------------------------------------------------------------------------------------

// A model without virality or emotions finds no moments, and the service's description says so: it asks for no key.
// It names the models and aims that there are, too.
ask("openapi.json").then(({ paths }) => {
  for (const part of document.querySelectorAll("[data-needs=moments]")) part.hidden = !("/v1/moments" in paths);
  for (const id of ["model", "aim"]) offer(id, namesIn(paths["/v1/classes"].get.parameters.find(({ name }) => name === id).schema));
}).catch(() => {});

function item(moment) {
  const feelings = moment.emotions.map((e) => `${e.name} · ${e.russian}`).join(", ");
  return element("li", { id: `moment-${moment.rank}`, tabIndex: -1 },
    element("p", {}, `${moment.rank}. `, element("b", {}, `${clock(moment.start)} – ${clock(moment.end)}`),
      `, score ${percent(moment.score)}${feelings && `: ${feelings}`}`),
    element("p", { className: "spoken", lang: "ru", tabIndex: 0 }, moment.text),
    element("p", { className: "hint" }, moment.reasons.join("; ")));
}

async function timeline() {
  const [file] = $("file").files;
  if (!file) throw new Error("Choose a subtitle file first.");
  const body = new FormData();
  body.append("file", file);
  const wanted = new URLSearchParams({ min_s: $("min-s").value, max_s: $("max-s").value, ...chosen() });
  const found = await ask(`v1/moments?${wanted}`, { method: "POST", body });
  // The subtitles' clock may begin anywhere, at one hour for instance.
  const share = (seconds) => `${(100 * seconds) / found.duration_s}%`;
  const [first, last] = [found.start_s, found.start_s + found.duration_s];
  const blocks = found.moments.map((m) =>
    element("div", {
      title: `${clock(m.start)} – ${clock(m.end)}`,
      style: { left: share(Math.max(m.start - first, 0)), width: share(m.end - m.start), height: `${75 * m.score + 3}%` },
      onclick: () => $(`moment-${m.rank}`).focus(),
    }, element("span", {}, m.rank)));
  const label = `Timeline from ${clock(first)} to ${clock(last)} with ${blocks.length} moments; the list below names them`;
  const ticks = [0, 1, 2, 3, 4].map((k) => element("span", {}, clock(first + (k / 4) * found.duration_s)));
  return [
    element("p", { className: "verdict" }, element("strong", {}, file.name)),
    element("p", { className: "hint" }, [found.note, ...found.repairs.map((repair) => `repaired: ${repair}`)].join("; ")),
    ...(blocks.length ? [
      element("div", { className: "timeline", role: "img", ariaLabel: label }, ...blocks),
      element("div", { className: "ticks", ariaHidden: "true" }, ...ticks),
      element("ol", { className: "moments" }, ...found.moments.map(item)),
    ] : []),
  ];
}

$("file-form").addEventListener("submit", (event) => {
  event.preventDefault();
  answer($("file-form"), $("file-result"), timeline);
});
$("file").addEventListener("change", () => $("file-form").requestSubmit());
for (const [kind, over] of [["dragover", true], ["dragleave", false], ["drop", false]]) {
  $("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", over);
  });
}
$("drop").addEventListener("drop", (event) => {
  $("file").files = event.dataTransfer.files;
  $("file-form").requestSubmit();
});
$("key").addEventListener("submit", (event) => event.preventDefault());

// From a program -------------------------------------------------------------------------------------------------------

for (const place of document.querySelectorAll(".address")) place.textContent = new URL(".", location.href).href;
