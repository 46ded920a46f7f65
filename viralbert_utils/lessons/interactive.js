/* Draws the figures of interactive.py: SVG and ordinary controls, no request to any host. */
(() => {
  "use strict";
  const SVG = "http://www.w3.org/2000/svg";
  // Each has a contrast of 3 to 1 and more with white and with the dark ground.
  const BLUE = "#2f7fbf", ORANGE = "#c2701a", GREEN = "#12875f", GREY = "#808080";
  const STYLE = `
.viralbert-live { margin: 1em 0; max-width: 44rem; }
.viralbert-live.ready .still { display: none; }
.viralbert-live .controls { display: flex; flex-wrap: wrap; gap: 0.5em 1em; align-items: center; }
.viralbert-live label { display: inline-flex; flex-wrap: wrap; gap: 0.5em; align-items: center; }
.viralbert-live select, .viralbert-live button { font: inherit; color: inherit; max-width: 100%;
  background: transparent; border: 1px solid ${GREY}; border-radius: 4px; padding: 0.15em 0.4em; }
.viralbert-live option { color: black; background: white; }
.viralbert-live input[type=range] { width: min(18rem, 60vw); }
.viralbert-live svg { display: block; width: 100%; margin: 0.5em 0; touch-action: manipulation;
  font: 12px sans-serif; }
.viralbert-live svg text { fill: currentColor; }
.viralbert-live svg:focus-visible { outline: 2px solid ${BLUE}; outline-offset: 2px; }
.viralbert-live output { display: block; min-height: 4.6em; overflow-wrap: anywhere; }
@media print {
  .viralbert-live.ready .still { display: block; }
  .viralbert-live .stage { display: none; }
}`;

  const svg = (name, attributes = {}, text = "") => {
    const node = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text) node.textContent = text;
    return node;
  };

  const element = (name, properties = {}, ...children) => {
    const node = Object.assign(document.createElement(name), properties);
    node.append(...children);
    return node;
  };

  const select = (text, names, chosen) => {
    const list = element("select");
    names.forEach((name, i) => list.append(element("option", { value: i, textContent: name })));
    list.value = chosen;
    return [element("label", {}, text, list), list];
  };

  const step = (list, by) => Math.max(0, Math.min(list.length - 1, list.selectedIndex + by));

  /* An empty drawing as wide as the page lets it be: letters keep their size on a phone. */
  const canvas = (stage, label, height, draw) => {
    const drawing = svg("svg", { role: "img", tabindex: 0, "aria-label": label });
    const redraw = () => {
      const width = Math.max(240, Math.round(stage.clientWidth || 600));
      const tall = typeof height === "function" ? height(width) : height;
      drawing.setAttribute("viewBox", `0 0 ${width} ${tall}`);
      drawing.setAttribute("height", tall);
      drawing.replaceChildren();
      draw(drawing, width, tall);
    };
    let before = 0;
    new ResizeObserver(() => {
      if (stage.clientWidth && stage.clientWidth !== before) {
        before = stage.clientWidth;
        redraw();
      }
    }).observe(stage);
    return [drawing, redraw];
  };

  const place = (drawing, event) => {
    const box = drawing.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };

  /* How many of the sorted numbers are at least `limit`. */
  const above = (sorted, limit) => {
    let low = 0, high = sorted.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (sorted[middle] < limit) low = middle + 1;
      else high = middle;
    }
    return sorted.length - low;
  };

  const threshold = (stage, data, label) => {
    const STEPS = 400, left = 40, right = 12;
    const names = data.classes.map((entry) => entry.name);
    const [classLabel, classes] = select("Class", names, data.chosen);
    const slider = element("input", { type: "range", min: 0, max: STEPS, step: 1 });
    const words = element("output");
    const one = () => data.classes[classes.selectedIndex];
    const floor = () => {
      const lowest = Math.min(one().yes[0] ?? data.scale, one().start * data.scale);
      return Math.min(0.5, Math.max(0.001, lowest / data.scale / 2));
    };
    const cutAt = (i) => floor() ** (1 - i / STEPS);
    const indexOf = (cut) => STEPS * (1 - Math.log(Math.max(cut, floor())) / Math.log(floor()));
    const measure = (cut) => {
      // A score counts as a yes from the threshold on; both are rounded alike.
      const limit = Math.round(cut * data.scale);
      const right = above(one().yes, limit), wrong = above(one().no, limit);
      const missed = one().yes.length - right, yes = right + wrong;
      return {
        right, wrong, missed, yes, precision: yes ? right / yes : NaN,
        recall: right / Math.max(1, one().yes.length),
        f1: (2 * right) / Math.max(1, 2 * right + wrong + missed),
        cost: wrong * data.false_alarm + missed * data.miss,
      };
    };
    const series = [["precision", BLUE, ""], ["recall", ORANGE, "6 3"], ["f1", GREEN, "2 2"]];
    let exact = null; // the threshold itself as long as nobody has moved the slider
    const cut = () => exact ?? cutAt(Number(slider.value));

    const [drawing, redraw] = canvas(stage, label, 380, (into, width) => {
      const x = (i) => left + ((width - left - right) * i) / STEPS;
      const top = 26, middle = 225, low = 262, bottom = 340;
      const all = Array.from({ length: STEPS + 1 }, (_, i) => measure(cutAt(i)));
      const dearest = Math.max(1, ...all.map((m) => m.cost));
      const y = (value) => middle - (middle - top) * value;
      const yCost = (value) => bottom - ((bottom - low) * value) / dearest;
      for (const value of [0, 0.5, 1]) {
        into.append(svg("line", { x1: left, x2: width - right, y1: y(value), y2: y(value),
          stroke: GREY, "stroke-opacity": 0.35 }));
        into.append(svg("text", { x: left - 6, y: y(value) + 4, "text-anchor": "end" }, String(value)));
      }
      for (const value of [0, dearest]) {
        into.append(svg("line", { x1: left, x2: width - right, y1: yCost(value), y2: yCost(value),
          stroke: GREY, "stroke-opacity": 0.35 }));
        into.append(svg("text", { x: left - 6, y: yCost(value) + 4, "text-anchor": "end" },
          String(Math.round(value))));
      }
      for (const tick of [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1])
        if (tick >= floor())
          into.append(svg("text", { x: x(indexOf(tick)), y: bottom + 18, "text-anchor": "middle" },
            String(tick)));
      into.append(svg("text", { x: (left + width) / 2, y: bottom + 36, "text-anchor": "middle" },
        "threshold"));
      into.append(svg("text", { x: left, y: low - 8 }, "cost"));
      let at = left;
      for (const [name, colour, dash] of series) {
        into.append(svg("line", { x1: at, x2: at + 24, y1: 10, y2: 10, stroke: colour,
          "stroke-width": 2.5, "stroke-dasharray": dash }));
        into.append(svg("text", { x: at + 29, y: 14 }, name === "f1" ? "F1" : name));
        at += 100;
      }
      const line = (height, colour, dash) => {
        let path = "", down = false;
        all.forEach((m, i) => {
          const value = height(m);
          if (Number.isNaN(value)) { down = false; return; }
          path += `${down ? "L" : "M"}${x(i).toFixed(1)} ${value.toFixed(1)}`;
          down = true;
        });
        into.append(svg("path", { d: path, fill: "none", stroke: colour, "stroke-width": 2.5,
          "stroke-dasharray": dash }));
      };
      for (const [name, colour, dash] of series) line((m) => y(m[name]), colour, dash);
      line((m) => yCost(m.cost), GREY, "");
      const here = x(indexOf(cut()));
      into.append(svg("line", { x1: here, x2: here, y1: top, y2: bottom, stroke: "currentColor" }));
    });

    const say = () => {
      const m = measure(cut()), shown = cut().toFixed(3), n = one().yes.length + one().no.length;
      slider.setAttribute("aria-valuetext", shown);
      const start = m.yes
        ? `${one().name} for ${m.yes} of ${n} texts, ${m.right} of them rightly`
        : `${one().name} for none of ${n} texts`;
      const precision = m.yes ? m.precision.toFixed(2) : "undefined";
      words.textContent = `Threshold ${shown}: ${start}. Precision ${precision}, ` +
        `recall ${m.recall.toFixed(2)}, F1 ${m.f1.toFixed(2)}. Cost: ${m.wrong} wrong yes × ` +
        `${data.false_alarm} + ${m.missed} wrong no × ${data.miss} = ${Number(m.cost.toFixed(2))}.`;
      redraw();
    };
    const reset = () => {
      slider.value = Math.round(indexOf(one().start));
      exact = one().start;
      say();
    };
    const move = (i) => {
      slider.value = i;
      exact = null;
      say();
    };
    classes.addEventListener("change", reset);
    slider.addEventListener("input", () => move(slider.value));
    const back = element("button", { type: "button", textContent: "Back to the start" });
    back.addEventListener("click", reset);
    const drag = (event) => {
      const span = drawing.getBoundingClientRect().width - left - right;
      if (event.buttons) move(Math.round((STEPS * (place(drawing, event)[0] - left)) / span));
    };
    drawing.addEventListener("pointerdown", drag);
    drawing.addEventListener("pointermove", drag);
    drawing.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
      if (!by) return;
      event.preventDefault();
      move(Number(slider.value) + by * (event.shiftKey ? 20 : 2));
    });
    const controls = element("div", { className: "controls" }, classLabel,
      element("label", {}, "Threshold", slider), back);
    stage.append(controls, drawing, words);
    reset();
    words.setAttribute("aria-live", "polite");
  };

  /* Blue below zero, orange above, grey and nearly clear at zero: reads on light and on dark. */
  const shade = (value, most) => ({
    fill: value < 0 ? BLUE : ORANGE,
    "fill-opacity": value === null ? 0 : 0.06 + 0.94 * Math.min(1, Math.abs(value) / most),
  });

  const matrix = (stage, data, label) => {
    const n = data.names.length;
    const [rowLabel, rows] = select("First", data.names, Math.min(1, n - 1));
    const [columnLabel, columns] = select("Second", data.names, 0);
    const words = element("output");
    const off = data.values.flatMap((row, i) => row.filter((value, j) => j < i && value !== null));
    const most = Math.max(0.01, ...off.map(Math.abs));
    const geometry = (width) => {
      const side = Math.min(160, width * 0.38);
      return { side, cell: (width - side - 6) / n };
    };
    const [drawing, redraw] = canvas(stage, label,
      (width) => Math.round(geometry(width).cell * n + 24), (into, width) => {
        const { side, cell } = geometry(width);
        const size = Math.max(8, Math.min(12, cell * 0.95));
        data.names.forEach((name, i) => {
          const chosen = i === rows.selectedIndex || i === columns.selectedIndex;
          const room = Math.floor(side / (size * 0.56));
          const short = name.length > room ? `${name.slice(0, room - 1)}…` : name;
          into.append(svg("text", { x: side - 4, y: cell * (i + 0.5) + size * 0.35,
            "text-anchor": "end", "font-size": size, "font-weight": chosen ? "bold" : "normal" }, short));
          for (let j = 0; j < i; j++)
            into.append(svg("rect", { x: side + cell * j, y: cell * i, width: cell - 1,
              height: cell - 1, ...shade(data.values[i][j], most) }));
        });
        const i = Math.max(rows.selectedIndex, columns.selectedIndex);
        const j = Math.min(rows.selectedIndex, columns.selectedIndex);
        into.append(svg("rect", { x: side + cell * j, y: cell * i, width: cell, height: cell,
          fill: "none", stroke: "currentColor", "stroke-width": 2 }));
        const base = cell * n + 17;
        let at = side;
        for (const value of [-most, 0, most]) {
          into.append(svg("rect", { x: at, y: base - 11, width: 14, height: 12, ...shade(value, most) }));
          into.append(svg("text", { x: at + 18, y: base }, value.toFixed(2)));
          at += 60;
        }
      });
    const say = () => {
      const i = rows.selectedIndex, j = columns.selectedIndex, value = data.values[i][j];
      const counts = data.counts;
      words.textContent = i === j
        ? `${data.names[i]}: ${data.what} with it ${counts[i][i]}.`
        : `${data.names[i]} and ${data.names[j]}: ${data.measure} ` +
          `${value === null ? "undefined" : value.toFixed(3)}; ${data.what} with both ` +
          `${counts[i][j]}, with each ${counts[i][i]} and ${counts[j][j]}.`;
      redraw();
    };
    const go = (i, j) => {
      if (i === rows.selectedIndex && j === columns.selectedIndex) return;
      rows.selectedIndex = i;
      columns.selectedIndex = j;
      say();
    };
    const point = (event) => {
      const { side, cell } = geometry(drawing.getBoundingClientRect().width);
      const [x, y] = place(drawing, event);
      const i = Math.floor(y / cell), j = Math.floor((x - side) / cell);
      if (i >= 0 && i < n && j >= 0 && j < i) go(i, j);
    };
    drawing.addEventListener("pointermove", point);
    drawing.addEventListener("pointerdown", point);
    drawing.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      if (!by) return;
      event.preventDefault();
      go(step(rows, by[0]), step(columns, by[1]));
    });
    rows.addEventListener("change", say);
    columns.addEventListener("change", say);
    stage.append(element("div", { className: "controls" }, rowLabel, columnLabel), drawing, words);
    say();
    words.setAttribute("aria-live", "polite");
  };

  const clock = (seconds) => {
    const whole = Math.round(seconds);
    return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")}`;
  };

  const timeline = (stage, data, label) => {
    const kinds = Object.keys(data.spans);
    const moments = kinds.flatMap((kind) =>
      data.spans[kind].map(([start, end], i) => ({ kind, start, end, rank: i + 1 })));
    const end = Math.max(...data.lines.map((line) => line[1]), ...moments.map((m) => m.end), 1);
    const words = element("output");
    const left = 8, right = 8, top = 8, base = 130, row = 40;
    let chosen = { line: 0 };
    const [drawing, redraw] = canvas(stage, label, base + 26 + row * kinds.length,
      (into, width) => {
        const x = (seconds) => left + ((width - left - right) * seconds) / end;
        for (const value of [0, 0.5, 1]) {
          const y = base - (base - top) * value;
          into.append(svg("line", { x1: left, x2: width - right, y1: y, y2: y, stroke: GREY,
            "stroke-opacity": 0.35 }));
        }
        data.lines.forEach(([start, stop, , score], i) => {
          const height = Math.max(2, (base - top) * score), here = chosen.line === i;
          into.append(svg("rect", { x: x(start), y: base - height,
            width: Math.max(1, x(stop) - x(start) - 0.5), height, fill: BLUE,
            "fill-opacity": here ? 1 : 0.5 }));
          if (here)
            into.append(svg("rect", { x: x(start) - 1, y: top - 4,
              width: Math.max(3, x(stop) - x(start) + 1), height: base - top + 4, fill: "none",
              stroke: "currentColor", "stroke-width": 1.5 }));
        });
        const minutes = Math.max(1, Math.ceil(end / 60 / Math.max(1, Math.floor(width / 80))));
        for (let minute = 0; minute * 60 <= end; minute += minutes)
          into.append(svg("text", { x: Math.max(left + 6, x(minute * 60)), y: base + 16,
            "text-anchor": "middle" }, minute ? `${minute} min` : "0"));
        kinds.forEach((kind, k) => {
          const y = base + 26 + row * k;
          into.append(svg("text", { x: left, y: y + 10 }, kind));
          moments.forEach((m, i) => {
            if (m.kind !== kind) return;
            const here = chosen.moment === i;
            into.append(svg("rect", { x: x(m.start), y: y + 14, rx: 2,
              width: Math.max(3, x(m.end) - x(m.start)), height: 18,
              fill: [ORANGE, GREEN, BLUE][k % 3], stroke: "currentColor",
              "stroke-width": here ? 2.5 : 0 }));
          });
        });
      });
    const say = () => {
      if (chosen.line !== undefined) {
        const [start, stop, text, score] = data.lines[chosen.line];
        const inside = moments.filter((m) => m.start < stop && start < m.end);
        const where = inside.map((m) => `${m.kind} ${m.rank}`).join(", ");
        words.textContent = `${clock(start)}–${clock(stop)}, ${data.score} ${score.toFixed(2)}: ` +
          `«${text}»${where ? ` In: ${where}.` : ""}`;
      } else {
        const m = moments[chosen.moment];
        const said = data.lines.filter(([start, stop]) => m.start < stop && start < m.end);
        const mean = said.reduce((sum, line) => sum + line[3], 0) / Math.max(1, said.length);
        const text = said.map((line) => line[2]).join(" ");
        words.textContent = `${m.kind}, number ${m.rank}: ${clock(m.start)}–${clock(m.end)}, ` +
          `mean ${data.score} ${mean.toFixed(2)}: «${text.length > 240 ? `${text.slice(0, 239)}…` : text}»`;
      }
      redraw();
    };
    const go = (next) => {
      if (next.line === chosen.line && next.moment === chosen.moment) return;
      chosen = next;
      say();
    };
    const inOrder = moments.map((m, i) => i).sort((a, b) => moments[a].start - moments[b].start);
    const walk = (by) => {
      const now = chosen.line ?? data.lines.findIndex((l) => l[1] > moments[chosen.moment].start);
      go({ line: Math.max(0, Math.min(data.lines.length - 1, now + by)) });
    };
    const jump = (by) => {
      if (!moments.length) return;
      const at = chosen.moment === undefined ? data.lines[chosen.line][0] : moments[chosen.moment].start;
      const now = chosen.moment === undefined ? -1 : inOrder.indexOf(chosen.moment);
      let next = now + by;
      if (now < 0) {
        next = inOrder.findIndex((i) => moments[i].start > at);
        if (next < 0) next = inOrder.length;
        if (by < 0) next -= 1;
      }
      go({ moment: inOrder[Math.max(0, Math.min(inOrder.length - 1, next))] });
    };
    const point = (event) => {
      const [px, py] = place(drawing, event);
      const width = drawing.getBoundingClientRect().width;
      const seconds = ((px - left) * end) / (width - left - right);
      const kind = kinds[Math.floor((py - base - 26) / row)];
      if (py > base + 26) {
        const found = moments.findIndex((m) => m.kind === kind && m.start <= seconds && seconds <= m.end);
        if (found >= 0) go({ moment: found });
      } else {
        const found = data.lines.findIndex((l) => l[0] <= seconds && seconds <= l[1]);
        if (found >= 0) go({ line: found });
      }
    };
    drawing.addEventListener("pointermove", point);
    drawing.addEventListener("pointerdown", point);
    drawing.addEventListener("keydown", (event) => {
      const act = { ArrowLeft: () => walk(-1), ArrowRight: () => walk(1), ArrowUp: () => jump(-1),
        ArrowDown: () => jump(1) }[event.key];
      if (!act) return;
      event.preventDefault();
      act();
    });
    const button = (text, act) => {
      const made = element("button", { type: "button", textContent: text });
      made.addEventListener("click", act);
      return made;
    };
    const controls = element("div", { className: "controls" },
      button("Line before", () => walk(-1)), button("Next line", () => walk(1)));
    if (moments.length)
      controls.append(button("Moment before", () => jump(-1)), button("Next moment", () => jump(1)));
    stage.append(controls, drawing, words);
    say();
    words.setAttribute("aria-live", "polite");
  };

  if (!document.getElementById("viralbert-live-style"))
    document.head.append(element("style", { id: "viralbert-live-style", textContent: STYLE }));
  for (const figure of document.querySelectorAll(".viralbert-live:not(.ready)")) {
    const stage = figure.querySelector(".stage");
    const data = JSON.parse(figure.querySelector("script[type='application/json']").textContent);
    const draw = { threshold, matrix, timeline }[figure.dataset.kind];
    stage.hidden = false;
    figure.classList.add("ready");
    draw(stage, data, figure.querySelector(".still").alt);
  }
})();
