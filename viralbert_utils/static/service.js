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

// Text -----------------------------------------------------------------------------------------------------------------

function bar(label, probability, reached, threshold) {
  const track = element("div", { className: "track", ariaHidden: "true" },
    element("div", { className: "fill", style: { width: percent(probability).replace(" ", "") } }));
  if (threshold) track.append(element("div", { className: "mark", style: { left: `${100 * threshold}%` } }));
  return element("li", { className: reached ? "reached" : "" },
    element("span", {}, label), track, element("span", { className: "number" }, percent(probability)));
}

async function emotions() {
  const text = $("text").value;
  const [{ predictions: [found] }, classes] = await Promise.all([
    ask("v1/predict", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ text }) }),
    ask("v1/emotions"),
  ]);
  if (!found.emotion) return [element("p", { className: "verdict" }, "An empty text says nothing.")];
  const reached = new Set(found.emotions.map((emotion) => emotion.name));
  const bars = classes
    .sort((a, b) => reached.has(b.name) - reached.has(a.name) || found.probabilities[b.name] - found.probabilities[a.name])
    .map(({ name, russian, threshold }) =>
      bar(`${name} · ${russian}`, found.probabilities[name], reached.has(name), threshold));
  const shown = Math.max(5, reached.size);
  const named = found.emotions.length ? found.emotions : [found.emotion];
  return [
    element("p", { className: "verdict" }, element("strong", {}, named.map((e) => `${e.name} · ${e.russian}`).join(", "))),
    element("h3", {}, "Virality"),
    element("ul", { className: "bars" }, bar(found.is_viral ? "viral" : "not viral", found.viral_score, found.is_viral)),
    element("h3", {}, "Emotions; the mark is where one begins to count"),
    element("ul", { className: "bars" }, ...bars.slice(0, shown)),
    element("details", {}, element("summary", {}, `The other ${bars.length - shown}`),
      element("ul", { className: "bars" }, ...bars.slice(shown))),
  ];
}

$("text-form").addEventListener("submit", (event) => {
  event.preventDefault();
  answer($("text-form"), $("text-result"), emotions);
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
  const found = await ask(`v1/moments?min_s=${$("min-s").value}&max_s=${$("max-s").value}`, { method: "POST", body });
  const share = (seconds) => `${(100 * seconds) / found.duration_s}%`;
  const blocks = found.moments.map((m) =>
    element("div", {
      title: `${clock(m.start)} – ${clock(m.end)}`,
      style: { left: share(m.start), width: share(m.end - m.start), height: `${75 * m.score + 3}%` },
      onclick: () => $(`moment-${m.rank}`).focus(),
    }, element("span", {}, m.rank)));
  const label = `Timeline of ${clock(found.duration_s)} with ${blocks.length} moments; the list below names them`;
  const ticks = [0, 1, 2, 3, 4].map((k) => element("span", {}, clock((k / 4) * found.duration_s)));
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
