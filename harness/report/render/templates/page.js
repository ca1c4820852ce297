"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const make = (tag, text, parent) => {
    const made = document.createElement(tag);
    made.textContent = text;
    parent.append(made);
    return made;
  };

  // --- light and dark: the system's setting until the reader chooses
  const root = document.documentElement;
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme
      ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  });

  // --- several runtimes: one panel at a time
  const tabs = all("[role=tab]");
  const choose = (number, focus) => {
    tabs.forEach((tab, index) => {
      tab.setAttribute("aria-selected", String(index === number));
      tab.tabIndex = index === number ? 0 : -1;
      document.getElementById(`panel-${index}`).hidden = index !== number;
    });
    all("[data-panel]").forEach((part) => {
      part.hidden = Number(part.dataset.panel) !== number;
    });
    if (focus) tabs[number].focus();
  };
  tabs.forEach((tab, index) => {
    tab.addEventListener("click", () => choose(index));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) choose((index + step + tabs.length) % tabs.length, true);
    });
  });

  // --- links within the page: the target may be folded, filtered out, or in another panel
  const reveal = (hash) => {
    const target = hash.length > 1 && document.getElementById(decodeURIComponent(hash.slice(1)));
    if (!target) return;
    const panel = target.closest(".panel");
    if (panel && panel.hidden) choose(Number(panel.id.slice("panel-".length)));
    if (target.matches(".req") && target.hidden) clear();
    for (let part = target; part; part = part.parentElement) {
      if (part.tagName === "DETAILS") part.open = true;
    }
    target.scrollIntoView({ block: "start" });
    const summary = target.querySelector("summary");
    if (summary) summary.focus({ preventScroll: true });
  };
  document.addEventListener("click", (event) => {
    const link = event.target.closest("a[href^='#']");
    if (!link) return;
    const name = link.getAttribute("href").slice(1);
    const shown = all(`[data-anchor="${CSS.escape(name)}"]`).find((part) => part.offsetParent);
    if (shown) {
      event.preventDefault();
      shown.scrollIntoView({ block: "start" });
    } else {
      const dialog = link.closest("dialog");
      if (dialog) dialog.close();
      event.preventDefault();
      history.replaceState(null, "", `#${name}`);
      reveal(`#${name}`);
    }
  });

  // --- tooltip beside the pointer, or beside the focused element
  const tip = document.getElementById("tip");
  const told = (element) => element.dataset.tip || element.getAttribute("aria-label");
  let shown = null;
  const show = (element) => {
    shown = element;
    tip.textContent = told(element);
    tip.hidden = false;
    const at = element.getBoundingClientRect();
    const own = tip.getBoundingClientRect();
    const left = Math.min(Math.max(8, at.left + at.width / 2 - own.width / 2), innerWidth - own.width - 8);
    const below = at.bottom + 10;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${below + own.height < innerHeight ? below : at.top - own.height - 8}px`;
  };
  const hide = () => { shown = null; tip.hidden = true; };
  for (const [begin, end] of [["pointerover", "pointerout"], ["focusin", "focusout"]]) {
    document.addEventListener(begin, (event) => {
      const element = event.target.closest?.("[data-tip], [data-cell]");
      if (element) show(element);
    });
    document.addEventListener(end, hide);
  }
  // Scrolling hides the tooltip unless the element stays under the pointer.
  const follow = () => { if (shown?.matches(":hover, :focus")) show(shown); else hide(); };
  addEventListener("scroll", follow, { passive: true, capture: true });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

  // --- dialog with the details of a cell
  const dialog = document.getElementById("cell");
  const inWords = (entry) => {
    if (!entry) return "no promise";
    const code = entry.code || (entry.codes || []).join(" or ");
    const parts = [code ? `${entry.outcome} (${code})` : entry.outcome];
    if (entry.ttl != null) parts.push(`TTL ${entry.ttl}`);
    if (entry.seen_from != null) parts.push(`seen as ${entry.seen_from}`);
    if (entry.seen_ttl != null && entry.seen_ttl !== entry.ttl) parts.push(`seen with TTL ${entry.seen_ttl}`);
    if (entry.rtt != null) parts.push(`after ${entry.rtt} s`);
    if (entry.detail) parts.push(entry.detail);
    return parts.join(", ");
  };
  const open = (cell, panel) => {
    document.getElementById("cell-title").textContent =
      `${cell.source} → ${cell.target}, ${cell.protocol} over IPv${cell.family}`;
    const verdict = document.getElementById("cell-verdict");
    verdict.textContent = cell.kept ? "As promised." : "Not as promised.";
    verdict.className = cell.kept ? "v-kept" : "v-broken";
    const facts = document.getElementById("cell-facts");
    facts.replaceChildren();
    const fact = (title, text) => {
      make("dt", title, facts);
      return make("dd", text, facts);
    };
    fact("Promised", inWords(cell.promised));
    fact("Observed", cell.observed ? inWords(cell.observed) : "never probed");
    if (cell.promised?.why) fact("Because", cell.promised.why);
    if (cell.promised?.requirement) {
      const link = make("a", cell.promised.requirement, fact("Requirement", ""));
      link.href = `#req-${cell.promised.requirement}`;
    }
    if (cell.test) {
      const place = fact("Test", "");
      const failure = all(".failure", panel).find(
        (part) => part.querySelector(".test").textContent === cell.test);
      if (failure) {
        make("a", cell.test, place).href = `#${failure.id}`;
        const evidence = failure.querySelector(".evidence");
        if (evidence && !cell.kept) fact("Evidence", "").append(evidence.cloneNode(true));
      } else {
        make("code", cell.test, place);
      }
    }
    hide();
    dialog.showModal();
  };
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });

  // --- heat map: arrow keys move from cell to cell
  all("section.matrix").forEach((section) => {
    const panel = section.closest(".panel");
    const number = Number(panel.id.slice("panel-".length));
    const cells = data[number][Number(section.dataset.matrix)].cells;
    const grid = [];
    all("tbody tr", section).forEach((row) => {
      const lines = [[], []];
      all("td", row).forEach((field) => {
        const six = [...(field.firstElementChild?.children || [])];
        for (let place = 0; place < 6; place += 1) {
          const button = six[place]?.tagName === "BUTTON" ? six[place] : null;
          lines[Math.floor(place / 3)].push(button);
        }
      });
      grid.push(...lines);
    });
    const table = section.querySelector(".heat");
    const first = table.querySelector(".wrong, .unseen") || table.querySelector("button");
    if (first) first.tabIndex = 0;
    const go = (button) => {
      all("[tabindex='0']", table).forEach((other) => { other.tabIndex = -1; });
      button.tabIndex = 0;
      button.focus();
    };
    const columns = all("thead th", table);
    const mark = (event) => {
      const field = event.target.closest("tbody td");
      all(".lit", table).forEach((part) => part.classList.remove("lit"));
      if (!field || event.type === "pointerleave" || event.type === "focusout") return;
      field.parentElement.classList.add("lit");
      columns[field.cellIndex - 1]?.classList.add("lit");
    };
    for (const kind of ["pointerover", "pointerleave", "focusin", "focusout"]) {
      table.addEventListener(kind, mark);
    }
    table.addEventListener("click", (event) => {
      const button = event.target.closest("[data-cell]");
      if (!button) return;
      go(button);
      open(cells[Number(button.dataset.cell)], panel);
    });
    table.addEventListener("keydown", (event) => {
      const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
      if (!step || !event.target.matches("[data-cell]")) return;
      event.preventDefault();
      let row = grid.findIndex((line) => line.includes(event.target));
      let column = grid[row].indexOf(event.target);
      do {
        row += step[0];
        column += step[1];
      } while (grid[row] && column >= 0 && column < grid[row].length && !grid[row][column]);
      if (grid[row]?.[column]) go(grid[row][column]);
    });

    // --- drawing: arcs from the chosen source to its targets
    const svg = section.querySelector(".world svg");
    if (!svg) return;
    const boxes = all(".box", svg);
    const arcs = svg.querySelector(".arcs");
    const status = section.querySelector(".reach");
    const middle = (box) => {
      const own = box.querySelector(".grip") || box.querySelector("rect");
      const [x, y, width, height] = ["x", "y", "width", "height"].map((name) => Number(own.getAttribute(name)));
      return [x + width / 2, y + height / 2];
    };
    const from = (box) => {
      const source = box.dataset.name;
      arcs.replaceChildren();
      const reached = { reply: [], wrong: [], silent: [] };
      boxes.forEach((other) => {
        other.classList.remove("reply", "wrong", "silent", "source");
        if (other.hasAttribute("data-source")) other.setAttribute("aria-pressed", String(other === box));
        if (other === box) return;
        const found = cells.filter((cell) => cell.source === source && cell.target === other.dataset.name);
        if (!found.length) return;
        if (other.hasAttribute("data-bridge") && other.dataset.name === "gateway" &&
            boxes.filter((one) => one.dataset.name === "gateway").length > 1) return;
        const kind = found.some((cell) => !cell.kept) ? "wrong"
          : found.some((cell) => cell.observed?.outcome === "reply") ? "reply" : "silent";
        other.classList.add(kind);
        reached[kind].push(other.dataset.name);
        if (kind === "silent") return;
        const [x1, y1] = middle(box);
        const [x2, y2] = middle(other);
        const bend = Math.min(60, Math.hypot(x2 - x1, y2 - y1) / 5);
        const arc = document.createElementNS("http://www.w3.org/2000/svg", "path");
        arc.setAttribute("d", `M${x1} ${y1} Q${(x1 + x2) / 2} ${(y1 + y2) / 2 - bend} ${x2} ${y2}`);
        arc.setAttribute("class", kind);
        arcs.append(arc);
      });
      box.classList.add("source");
      const list = (names) => names.join(", ") || "nothing";
      status.textContent = `${source} reaches ${list(reached.reply)}.` +
        (reached.wrong.length ? ` Not as promised: ${list(reached.wrong)}.` : "");
    };
    svg.addEventListener("click", (event) => {
      const box = event.target.closest("[data-source]");
      if (box) from(box);
    });
    svg.addEventListener("keydown", (event) => {
      const box = event.target.closest("[data-source]");
      if (box && (event.key === "Enter" || event.key === " ")) {
        event.preventDefault();
        from(box);
      }
    });
    const wrong = cells.find((cell) => !cell.kept)?.source;
    const start = boxes.find((box) => box.hasAttribute("data-source") && box.dataset.name === wrong) ||
      boxes.find((box) => box.matches(".k-container[data-source]"));
    if (start) from(start);
  });

  // --- requirements: search by word and by verdict
  const search = document.getElementById("search");
  const form = document.querySelector(".filters");
  const rows = all(".req");
  const chosen = (name) => all(`input[name=${name}]:checked`).map((box) => box.value);
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const verdicts = chosen("verdict");
    const core = chosen("profile").length > 0;
    const differ = chosen("differ").length > 0;
    let shown = 0;
    rows.forEach((row) => {
      const own = row.dataset.verdicts.split(" ");
      row.hidden = !(words.every((word) => row.dataset.words.includes(word)) &&
        (!verdicts.length || verdicts.some((verdict) => own.includes(verdict))) &&
        (!core || row.dataset.profile === "core") &&
        (!differ || own.length > 1));
      shown += row.hidden ? 0 : 1;
    });
    all("h3.section").forEach((title) => {
      let next = title.nextElementSibling;
      while (next && next.matches(".req") && next.hidden) next = next.nextElementSibling;
      title.hidden = !(next && next.matches(".req"));
    });
    document.getElementById("found").textContent = String(shown);
    document.querySelector(".nothing").hidden = shown > 0;
  };
  const clear = () => {
    form.reset();
    filter();
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("clear").addEventListener("click", clear);
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !event.target.matches("input")) {
      event.preventDefault();
      search.focus();
    }
  });
  if (location.hash) reveal(location.hash);
})();
