(() => {
  "use strict";
  const data = JSON.parse(document.getElementById("explorer-data").textContent);
  const root = document.getElementById("explorer");
  const [ID, QUESTION, EXPECTED, REFERENCE, IMAGE, TAGS, ANSWERS] = [0, 1, 2, 3, 4, 5, 6];
  const state = { text: "", profile: 0, result: "all", against: "all", tags: data.tags.map(() => -1), page: 0 };
  let haystack = null;  // made at the first search: lower-case text of each row
  let found = [];

  const make = (tag, kind, text) => {
    const node = document.createElement(tag);
    if (kind) node.className = kind;
    if (text !== undefined) node.textContent = text;
    return node;
  };
  const select = (name, options, change) => {
    const label = make("label", "choice", name + " ");
    const box = make("select");
    box.setAttribute("aria-label", name);
    for (const [value, text] of options) {
      const option = make("option", "", text);
      option.value = value;
      box.append(option);
    }
    box.addEventListener("change", () => { change(box.value); state.page = 0; draw(); });
    label.append(box);
    return label;
  };

  const score = (row, contender) => {
    const answer = row[ANSWERS][contender];
    return answer ? answer[1][state.profile] : null;
  };
  const isRight = (row, contender) => { const s = score(row, contender); return s === null ? null : s >= 0.5; };

  const results = {
    all: () => true,
    right: (row) => isRight(row, 0) === true,
    wrong: (row) => isRight(row, 0) === false,
    partly: (row) => { const s = score(row, 0); return s !== null && s > 0 && s < 1; },
    unscored: (row) => score(row, 0) === null,
    profiles: (row) => row[ANSWERS].some((a) => a && new Set(a[1]).size > 1),
  };
  const againsts = {
    all: () => true,
    differ: (row) => { const s = row[ANSWERS].map((_, k) => score(row, k)).filter((v) => v !== null); return new Set(s).size > 1; },
    words: (row) => new Set(row[ANSWERS].filter(Boolean).map((a) => a[0])).size > 1,
  };
  data.contenders.slice(1).forEach((_, n) => {
    const compare = (row) => { const a = score(row, 0), b = score(row, n + 1); return a === null || b === null ? 0 : a - b; };
    againsts["win" + n] = (row) => compare(row) > 0;
    againsts["loss" + n] = (row) => compare(row) < 0;
  });

  const search = (row, k) => {
    if (!haystack) haystack = data.rows.map((r) =>
      [r[ID], r[QUESTION], r[EXPECTED], r[REFERENCE], ...r[ANSWERS].map((a) => a ? a[0] : "")].join("\n").toLowerCase());
    return haystack[k].includes(state.text);
  };
  const filter = () => {
    const result = results[state.result], against = againsts[state.against];
    found = [];
    data.rows.forEach((row, k) => {
      if (state.tags.every((want, t) => want < 0 || row[TAGS][t] === want) && result(row) && against(row)
          && (!state.text || search(row, k))) found.push(k);
    });
  };

  const bar = make("div", "controls");
  const box = make("input");
  box.type = "search";
  box.placeholder = "search ids, questions, answers";
  box.setAttribute("aria-label", "search");
  let timer = 0;
  box.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => { state.text = box.value.trim().toLowerCase(); state.page = 0; draw(); }, 120);
  });
  bar.append(box);
  data.tags.forEach(([name, values], t) => {
    if (values.length > 1) bar.append(select(name, [["-1", "all"], ...values.map((v, k) => [String(k), v || "(none)"])],
      (value) => { state.tags[t] = Number(value); }));
  });
  const first = data.contenders[0] || "";
  bar.append(select("result of " + first, [["all", "all"], ["right", "right"], ["wrong", "wrong"], ["partly", "partly right"],
    ["unscored", "without a score"], ["profiles", "profiles differ"]], (value) => { state.result = value; }));
  if (data.contenders.length > 1) bar.append(select("contenders", [["all", "all"], ["differ", "scores differ"],
    ["words", "answers differ"],
    ...data.contenders.slice(1).flatMap((name, n) => [["win" + n, first + " better than " + name],
      ["loss" + n, first + " worse than " + name]])], (value) => { state.against = value; }));
  if (data.profiles.length > 1) bar.append(select("profile", data.profiles.map((p, k) => [String(k), p]),
    (value) => { state.profile = Number(value); }));
  const pager = make("div", "pager");
  const back = make("button", "", "previous"), count = make("span"), next = make("button", "", "next");
  count.setAttribute("aria-live", "polite");
  back.addEventListener("click", () => { state.page -= 1; draw(); root.scrollIntoView(); });
  next.addEventListener("click", () => { state.page += 1; draw(); root.scrollIntoView(); });
  pager.append(back, count, next);
  const cards = make("div", "cards");
  root.append(bar, pager, cards);

  const card = (row) => {
    const right = isRight(row, 0);
    const node = make("div", "card" + (right === null ? "" : right ? " good" : " bad"));
    if (row[IMAGE] >= 0) {
      const frame = make("div", "image"), image = make("img");
      image.alt = row[REFERENCE];
      image.src = data.images[row[IMAGE]];
      frame.append(image);
      node.append(frame);
    } else if (row[REFERENCE]) node.append(make("div", "reference", row[REFERENCE]));
    const lines = make("div", "lines");
    lines.append(make("p", "", row[QUESTION]));
    row[ANSWERS].forEach((answer, k) => {
      if (!answer) return;
      const s = answer[1][state.profile];
      const line = make("p", s === null ? "" : s >= 0.5 ? "right" : "wrong");
      line.append(make("b", "", data.contenders[k] + ": "), answer[0] || "(nothing)");
      if (s !== null) line.append(make("small", "", " " + (s === 0 || s === 1 ? (s ? "✓" : "✗") : s.toFixed(2))));
      lines.append(line);
    });
    if (row[EXPECTED]) { const line = make("p"); line.append(make("b", "", "expected: "), row[EXPECTED]); lines.append(line); }
    const foot = make("p", "foot"), link = make("a", "", row[ID]);
    link.href = "#id=" + encodeURIComponent(row[ID]);
    link.addEventListener("click", (event) => { event.preventDefault(); one(row[ID]); });
    foot.append(link, " " + data.tags.map(([, values], t) => values[row[TAGS][t]]).filter(Boolean).join(" · "));
    lines.append(foot);
    node.append(lines);
    return node;
  };
  const show = () => {
    const pages = Math.max(1, Math.ceil(found.length / data.page));
    state.page = Math.min(Math.max(0, state.page), pages - 1);
    const start = state.page * data.page;
    cards.replaceChildren(...found.slice(start, start + data.page).map((k) => card(data.rows[k])));
    count.textContent = found.length ? `${start + 1} to ${Math.min(found.length, start + data.page)} of ${found.length}` +
      (found.length < data.rows.length ? ` (${data.rows.length} in all)` : "") : "nothing matches";
    back.disabled = state.page === 0;
    next.disabled = state.page === pages - 1;
  };
  const draw = () => { filter(); show(); };
  const one = (id) => {
    found = data.rows.flatMap((row, k) => (row[ID] === id ? [k] : []));
    state.page = 0;
    show();
    try { history.replaceState(null, "", "#id=" + encodeURIComponent(id)); } catch { /* a frame without a history */ }
  };
  const fromAddress = () => {
    const wanted = /^#id=(.*)$/.exec(location.hash);
    if (!wanted) return false;
    one(decodeURIComponent(wanted[1]));
    root.scrollIntoView();
    return true;
  };
  addEventListener("hashchange", fromAddress);
  if (!fromAddress()) draw();
})();
