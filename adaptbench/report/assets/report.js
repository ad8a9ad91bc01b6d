"use strict";
(() => {
  const root = document.documentElement;
  const stored = (value) => {
    try {
      if (value) localStorage.setItem("adaptbench-theme", value);
      return localStorage.getItem("adaptbench-theme");
    } catch { return null; }
  };

  const toggle = document.getElementById("theme");
  const isDark = () => (root.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const label = () => { toggle.textContent = isDark() ? "Light" : "Dark"; toggle.setAttribute("aria-label", `Show the page ${isDark() ? "light" : "dark"}`); };
  if (["light", "dark"].includes(stored())) root.dataset.theme = stored();
  toggle.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; stored(root.dataset.theme); label(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", label);
  toggle.hidden = false;
  label();

  const text = (cell) => cell.dataset.v ?? cell.dataset.t ?? cell.textContent.trim().replace(/\s+/g, " ");
  const field = (cell) => {
    let value = cell.dataset.v ?? text(cell);
    // A spreadsheet must not run it, nor what follows a semicolon where that parts the columns.
    if (cell.dataset.v === undefined) value = value.replace(/(^|[;\t\r\n])(?=\s*[=+@\uff0b\uff1d\uff20-])/g, "$1'");
    return /[",\r\n]/.test(value) ? `"${value.replaceAll('"', '""')}"` : value;
  };
  const csv = (table) => {
    const lines = [[...table.tHead.rows[0].cells].map(field)];
    let group = "";
    const grouped = table.querySelector("tr.heading") !== null;
    if (grouped) lines[0].unshift("model");
    for (const row of table.tBodies[0].rows) {
      if (row.classList.contains("heading")) { group = field(row.cells[0]); continue; }
      const cells = [...row.cells].map(field);
      lines.push(grouped ? [group, ...cells] : cells);
    }
    return lines.map((line) => line.join(",")).join("\r\n") + "\r\n";
  };
  for (const mark of document.querySelectorAll("td sup a")) {
    const note = document.getElementById(mark.hash.slice(1));
    if (note) mark.closest("td").title = note.lastChild.textContent;
  }

  for (const button of document.querySelectorAll("button.csv")) {
    button.hidden = false;
    button.addEventListener("click", () => {
      const url = URL.createObjectURL(new Blob([csv(document.getElementById(button.dataset.table))], { type: "text/csv;charset=utf-8" }));
      const link = Object.assign(document.createElement("a"), { href: url, download: `${button.dataset.table}.csv` });
      link.click();
      setTimeout(() => URL.revokeObjectURL(url), 1000);
    });
  }

  // Everything in one archive: ZIP, stored, of the tables as CSV and of what redoes the run.
  const sums = new Uint32Array(256).map((_, n) => { for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1; return n; });
  const crc = (bytes) => { let c = -1; for (const byte of bytes) c = sums[(c ^ byte) & 255] ^ (c >>> 8); return (c ^ -1) >>> 0; };
  const archive = (files) => {
    const parts = [], index = [];
    let at = 0;
    for (const [name, text] of files) {
      const title = new TextEncoder().encode(name), body = new TextEncoder().encode(text), head = new DataView(new ArrayBuffer(26));
      [[0, 20], [2, 0x800], [8, 0x5a21]].forEach(([place, value]) => head.setUint16(place, value, true));  // UTF-8; 1 January 2025
      [[10, crc(body)], [14, body.length], [18, body.length]].forEach(([place, value]) => head.setUint32(place, value, true));
      head.setUint16(22, title.length, true);
      const entry = new DataView(new ArrayBuffer(46));
      entry.setUint32(0, 0x02014b50, true);
      entry.setUint16(4, 20, true);
      new Uint8Array(entry.buffer).set(new Uint8Array(head.buffer), 6);
      entry.setUint32(42, at, true);
      parts.push(new Uint8Array([80, 75, 3, 4]), head.buffer, title, body);
      index.push(entry.buffer, title);
      at += 30 + title.length + body.length;
    }
    const size = index.reduce((sum, part) => sum + part.byteLength, 0), end = new DataView(new ArrayBuffer(22));
    end.setUint32(0, 0x06054b50, true);
    end.setUint16(8, files.length, true);
    end.setUint16(10, files.length, true);
    end.setUint32(12, size, true);
    end.setUint32(16, at, true);
    return new Blob([...parts, ...index, end.buffer], { type: "application/zip" });
  };
  const everything = document.querySelector("button.all");
  if (everything) {
    everything.hidden = false;
    everything.addEventListener("click", () => {
      const facts = (list) => [...list.querySelectorAll("dt")].map((term) => `${term.textContent}: ${term.nextElementSibling.textContent}`).join("\n");
      const files = [...document.querySelectorAll("button.csv")].map((one) => [`tables/${one.dataset.table}.csv`, csv(document.getElementById(one.dataset.table))]);
      const commands = document.querySelector(".steps")?.textContent ?? "";
      files.push(["reproduce.txt", `${commands}\n\n${[...document.querySelectorAll("#reproduce dl.facts")].map(facts).join("\n\n")}\n`]);
      const suite = document.getElementById("suite");
      if (suite) files.push(["suite.yaml", suite.textContent]);
      const url = URL.createObjectURL(archive(files));
      Object.assign(document.createElement("a"), { href: url, download: "adaptbench-run.zip" }).click();
      setTimeout(() => URL.revokeObjectURL(url), 1000);
    });
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((head, place) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const numeric = head.classList.contains("num");
        const key = (row) => numeric ? parseFloat(row.cells[place].dataset.v ?? "NaN") : text(row.cells[place]);
        const order = (a, b) => {
          const x = key(a), y = key(b);
          if (!numeric) return (down ? -1 : 1) * x.localeCompare(y);
          if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);  // missing stays last
          return down ? y - x : x - y;
        };
        table.tBodies[0].append(...[...table.tBodies[0].rows].sort(order));
      });
    });
  }

  const reveal = () => {
    const target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!target) return;
    let shut = false;
    for (let node = target.closest("details:not([open])"); node; node = node.parentElement.closest("details:not([open])")) { node.open = true; shut = true; }
    if (shut) target.scrollIntoView();
  };
  addEventListener("hashchange", reveal);
  reveal();

  for (const input of document.querySelectorAll(".filter input")) {
    const table = document.getElementById(input.dataset.table), told = input.closest("p").querySelector("[aria-live]");
    input.closest("p").hidden = false;
    input.addEventListener("input", () => {
      const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean), rows = [...table.tBodies[0].rows];
      for (const row of rows) row.hidden = !wanted.every((word) => `${row.className} ${row.textContent}`.toLowerCase().includes(word));
      told.textContent = wanted.length ? `${rows.filter((row) => !row.hidden).length} of ${rows.length} rows` : "";
    });
  }

  const filters = document.getElementById("filters");
  if (filters) {
    const said = (cell) => cell.firstElementChild?.matches(".signed") ? cell.firstElementChild.textContent.trim() : cell.textContent.trim();
    const tables = [...document.querySelectorAll("main table")].map((table) => {
      const heads = [...table.tHead.rows[0].cells].map((cell) => cell.textContent.trim());
      return { rows: [...table.tBodies[0].rows], at: (name) => heads.indexOf(name) };
    }).filter((table) => table.at("data") >= 0);
    const sift = () => {
      let shown = 0, all = 0;
      const wanted = [...filters.querySelectorAll("select")].filter((one) => one.value);
      for (const { rows, at } of tables) for (const row of rows) {
        row.hidden = wanted.some((one) => {
          const place = at(one.dataset.column);
          return place >= 0 && said(row.cells[place]) !== one.value;
        });
        all += 1;
        shown += !row.hidden;
      }
      filters.querySelector("output").textContent = wanted.length ? `${shown} of ${all} rows` : "";
    };
    filters.hidden = false;
    filters.addEventListener("change", sift);
    filters.addEventListener("reset", () => setTimeout(sift));
  }

  const shut = new Set();  // paper has nothing to click
  addEventListener("beforeprint", () => document.querySelectorAll("details:not([open])").forEach((one) => { shut.add(one); one.open = true; }));
  addEventListener("afterprint", () => { shut.forEach((one) => { one.open = false; }); shut.clear(); });

  const links = new Map([...document.querySelectorAll("nav.toc a")].map((link) => [link.hash.slice(1), link]));
  const spy = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) {
      links.forEach((link) => link.removeAttribute("aria-current"));
      links.get(entry.target.id)?.setAttribute("aria-current", "true");
    }
  }, { rootMargin: "-10% 0px -75% 0px" });
  document.querySelectorAll("main section[id]").forEach((section) => spy.observe(section));
})();
