"use strict";
// The viewer of a case page: three planes on canvases, no library, no network. Volumes are uint8 in C order (i, j, k), RAS+.
(() => {
  const $ = (id) => document.getElementById(id);
  const data = JSON.parse($("data").textContent);
  const [I, J, K] = data.shape;
  const STRIDE = [J * K, K, 1];
  const PLANES = {
    axial: { across: 0, down: 1, through: 2 },
    coronal: { across: 0, down: 2, through: 1 },
    sagittal: { across: 1, down: 2, through: 0 },
  };
  const LOW = ["L", "P", "I"], HIGH = ["R", "A", "S"];
  const trace = data.trace, stop = trace && trace.stops.mask, N = trace ? trace.tau.length : 0;
  const MASK = "#3fd8ff";
  const volumes = {};

  const state = {
    at: data.start.slice(), layout: "all", convention: "radiological", sequence: 0, crosshair: true,
    map: true, opacity: 0.75, threshold: data.threshold,
    mask: "outline",
    // null is the method's own mask; a number is the mask of that step.
    step: data.mask || !trace ? null : (stop && stop.t) || N,
  };

  // --- volumes ---

  async function unpack(name) {
    const text = atob($("volume-" + name).textContent);
    const bytes = new Uint8Array(text.length);
    for (let n = 0; n < text.length; n++) bytes[n] = text.charCodeAt(n);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const volume = new Uint8Array(await new Response(stream).arrayBuffer());
    if (volume.length !== I * J * K) throw new Error(`volume ${name} has ${volume.length} voxels, not ${I * J * K}`);
    if (/^(image|healthy)/.test(name))
      for (let n = 0; n < volume.length; n++) if (n % K) volume[n] += volume[n - 1];
    volumes[name] = volume;
    $("volume-" + name).remove();
  }

  const index = (at) => at[0] * STRIDE[0] + at[1] * STRIDE[1] + at[2];
  const code = (name, i, j, k) => volumes[name][index([i, j, k])];
  const mapValue = (c) => data.map.low + (data.map.top - data.map.low) * ((c - 1) / 254) ** 2;
  const imageValue = (c) => {
    const [low, high] = data.windows[state.sequence];
    return low + (high - low) * (c - 1) / 254;
  };

  function inMask() {
    const brain = volumes.map;
    if (state.mask === "off") return null;
    if (state.step !== null) {
      const order = volumes.order, step = state.step;
      return (n) => brain[n] > 0 && order[n] >= step;
    }
    const mask = volumes.mask;
    return mask ? (n) => mask[n] > 0 : null;
  }

  // --- colours: the bright part of inferno, whose lightness rises evenly, so that order survives any colour vision ---

  const STOPS = ["#57106e", "#88226a", "#bc3754", "#e35933", "#f98e09", "#f9c932", "#fcffa4"].map((h) =>
    [1, 3, 5].map((n) => parseInt(h.slice(n, n + 2), 16)));
  const HEAT = new Uint8Array(256 * 3);
  for (let c = 0; c < 256; c++) {
    const x = Math.min(1, c / data.map.bright) * (STOPS.length - 1), n = Math.min(STOPS.length - 2, Math.floor(x));
    for (let ch = 0; ch < 3; ch++) HEAT[3 * c + ch] = Math.round(STOPS[n][ch] + (x - n) * (STOPS[n + 1][ch] - STOPS[n][ch]));
  }

  // --- drawing ---

  const panes = [];
  const under = document.createElement("canvas"), over = document.createElement("canvas");

  function makePanes() {
    for (const kind of data.healthy ? ["image", "healthy"] : ["image"]) {
      for (const plane of Object.keys(PLANES)) {
        const figure = document.createElement("figure"), caption = document.createElement("figcaption");
        const canvas = document.createElement("canvas"), word = kind === "image" ? "Scan" : "Healthy image";
        caption.textContent = `${word}, ${plane}`;
        canvas.id = `${kind}-${plane}`;
        canvas.tabIndex = 0;
        canvas.setAttribute("role", "img");
        canvas.setAttribute("aria-label", `${word}, ${plane} slice. Arrow keys move the crosshair, Page Up and Page Down change the slice.`);
        figure.append(caption, canvas);
        const pane = { kind, plane, figure, canvas };
        panes.push(pane);
        listen(pane);
      }
    }
  }

  const shown = (pane) => state.layout === "all" || state.layout === pane.plane;
  const millimetres = (axis) => data.shape[axis] * data.spacing[axis];

  // Rows by image or rows by plane, whichever draws larger in the room there is.
  function arrange() {
    const box = $("panes"), gap = 10, visible = panes.filter(shown), planes = Object.keys(PLANES);
    const ways = state.layout === "all"
      ? [["image", "healthy"].map((kind) => visible.filter((p) => p.kind === kind)), planes.map((plane) => visible.filter((p) => p.plane === plane))]
      : [[visible]];
    box.replaceChildren();
    const room = box.clientWidth, tall = Math.max(460, Math.min(900, window.innerHeight - 150));
    let scale = 0, used = [];
    for (const way of ways) {
      const rows = way.filter((row) => row.length);
      const wide = rows.map((row) => (room - gap * (row.length - 1)) / row.reduce((sum, p) => sum + millimetres(PLANES[p.plane].across), 0));
      const high = rows.reduce((sum, row) => sum + Math.max(...row.map((p) => millimetres(PLANES[p.plane].down))), 0);
      const fits = Math.min(...wide, (tall - 26 * rows.length) / high);
      if (fits > scale) { scale = fits; used = rows; }
    }
    for (const row of used) {
      const line = document.createElement("div");
      line.className = "row";
      for (const pane of row) {
        const { across, down } = PLANES[pane.plane], ratio = window.devicePixelRatio || 1;
        const w = Math.max(1, Math.floor(millimetres(across) * scale)), h = Math.max(1, Math.floor(millimetres(down) * scale));
        pane.canvas.style.width = w + "px";
        pane.canvas.style.height = h + "px";
        pane.canvas.width = Math.round(w * ratio);
        pane.canvas.height = Math.round(h * ratio);
        line.append(pane.figure);
      }
      box.append(line);
    }
  }

  const flipped = () => state.convention === "radiological";

  // Across the screen: high index at the left in the radiological convention. Down: superior or anterior on top, always.
  function column(plane, index) {
    const n = data.shape[PLANES[plane].across];
    return flipped() ? n - 1 - index : index;
  }
  const line = (plane, index) => data.shape[PLANES[plane].down] - 1 - index;

  function drawPane(pane) {
    const { across, down, through } = PLANES[pane.plane];
    const w = data.shape[across], h = data.shape[down];
    const volume = volumes[pane.kind + state.sequence], map = volumes.map;
    const start = state.at[through] * STRIDE[through];
    const voxel = (c, r) => start + column(pane.plane, c) * STRIDE[across] + line(pane.plane, r) * STRIDE[down];

    for (const canvas of [under, over]) { canvas.width = w; canvas.height = h; }
    const a = under.getContext("2d"), b = over.getContext("2d");
    const grey = a.createImageData(w, h), heat = b.createImageData(w, h);
    const inside = inMask(), member = inside ? new Uint8Array(w * h) : null;
    const drawMap = state.map && pane.kind === "image", alpha = Math.round(255 * state.opacity);
    for (let r = 0, n = 0; r < h; r++) {
      for (let c = 0; c < w; c++, n++) {
        const at = voxel(c, r), p = 4 * n;
        grey.data[p] = grey.data[p + 1] = grey.data[p + 2] = volume[at];
        grey.data[p + 3] = 255;
        if (drawMap && map[at] >= state.threshold) {
          const m = 3 * map[at];
          heat.data[p] = HEAT[m]; heat.data[p + 1] = HEAT[m + 1]; heat.data[p + 2] = HEAT[m + 2]; heat.data[p + 3] = alpha;
        }
        if (inside && inside(at)) member[n] = 1;
      }
    }
    a.putImageData(grey, 0, 0);
    b.putImageData(heat, 0, 0);

    const g = pane.canvas.getContext("2d"), W = pane.canvas.width, H = pane.canvas.height;
    g.imageSmoothingEnabled = true;
    g.imageSmoothingQuality = "high";
    g.drawImage(under, 0, 0, W, H);
    // The map keeps its voxels: smoothing would invent a shape that the method did not see.
    g.imageSmoothingEnabled = false;
    g.drawImage(over, 0, 0, W, H);
    if (member) drawMask(g, member, w, h, W / w, H / h);
    if (state.crosshair) drawCrosshair(g, pane.plane, W / w, H / h, W, H);
    drawLetters(g, across, down, W, H);
  }

  function drawMask(g, member, w, h, sx, sy) {
    const ratio = window.devicePixelRatio || 1;
    if (state.mask === "fill") {
      g.fillStyle = MASK;
      g.globalAlpha = 0.55;
      g.beginPath();
      for (let r = 0; r < h; r++)
        for (let c = 0; c < w; c++) {
          if (!member[r * w + c]) continue;
          const from = c;
          while (c + 1 < w && member[r * w + c + 1]) c++;
          g.rect(from * sx, r * sy, (c + 1 - from) * sx, sy);
        }
      g.fill();
      g.globalAlpha = 1;
      return;
    }
    const is = (c, r) => (c >= 0 && r >= 0 && c < w && r < h ? member[r * w + c] : 0);
    const path = new Path2D();
    let count = 0;
    for (let r = 0; r <= h; r++)
      for (let c = 0; c < w; c++) {
        if (is(c, r) === is(c, r - 1)) continue;
        const from = c;
        while (c + 1 < w && is(c + 1, r) !== is(c + 1, r - 1)) c++;
        path.moveTo(from * sx, r * sy);
        path.lineTo((c + 1) * sx, r * sy);
        count++;
      }
    for (let c = 0; c <= w; c++)
      for (let r = 0; r < h; r++) {
        if (is(c, r) === is(c - 1, r)) continue;
        const from = r;
        while (r + 1 < h && is(c, r + 1) !== is(c - 1, r + 1)) r++;
        path.moveTo(c * sx, from * sy);
        path.lineTo(c * sx, (r + 1) * sy);
        count++;
      }
    if (!count) return;
    g.lineCap = "square";
    g.strokeStyle = "rgba(0,0,0,.75)";
    g.lineWidth = 3.4 * ratio;
    g.stroke(path);
    g.strokeStyle = MASK;
    g.lineWidth = 1.6 * ratio;
    g.stroke(path);
  }

  function drawCrosshair(g, plane, sx, sy, W, H) {
    const { across, down } = PLANES[plane], ratio = window.devicePixelRatio || 1, gap = 9 * ratio;
    const x = Math.round((column(plane, state.at[across]) + 0.5) * sx) + 0.5;
    const y = Math.round((line(plane, state.at[down]) + 0.5) * sy) + 0.5;
    g.strokeStyle = "rgba(255,255,255,.5)";
    g.lineWidth = ratio;
    g.beginPath();
    g.moveTo(x, 0); g.lineTo(x, y - gap); g.moveTo(x, y + gap); g.lineTo(x, H);
    g.moveTo(0, y); g.lineTo(x - gap, y); g.moveTo(x + gap, y); g.lineTo(W, y);
    g.stroke();
  }

  function drawLetters(g, across, down, W, H) {
    const ratio = window.devicePixelRatio || 1, pad = 5 * ratio;
    const left = flipped() ? HIGH[across] : LOW[across], right = flipped() ? LOW[across] : HIGH[across];
    g.font = `600 ${12 * ratio}px system-ui, sans-serif`;
    g.lineWidth = 3 * ratio;
    g.lineJoin = "round";
    g.strokeStyle = "rgba(0,0,0,.8)";
    g.fillStyle = "#ffd479";
    for (const [text, x, y, align, base] of [
      [left, pad, H / 2, "left", "middle"], [right, W - pad, H / 2, "right", "middle"],
      [HIGH[down], W / 2, pad, "center", "top"], [LOW[down], W / 2, H - pad, "center", "bottom"]]) {
      g.textAlign = align;
      g.textBaseline = base;
      g.strokeText(text, x, y);
      g.fillText(text, x, y);
    }
  }

  // --- the curve ---

  const CURVE = { w: 320, h: 190, left: 40, right: 10, top: 18, bottom: 30 };

  function curveScale() {
    const tau = trace.tau, stops = Object.values(trace.stops).map((s) => s.tau).filter((t) => t > 0);
    const most = Math.max(...tau), sorted = tau.slice().sort((p, q) => p - q);
    const cap = stops.length ? 2.5 * Math.max(...stops) : 1.2 * sorted[Math.floor(0.9 * (tau.length - 1))];
    const top = cap > 0 && cap < most ? cap : most * 1.05 || 1;
    const { w, h, left, right, top: t, bottom } = CURVE;
    return {
      top, cut: top < most,
      x: (step) => left + (w - left - right) * step / N,
      y: (value) => h - bottom - (h - t - bottom) * value / top,
    };
  }

  function nice(top) {
    const raw = top / 4, ten = 10 ** Math.floor(Math.log10(raw));
    return [1, 2, 2.5, 5, 10].map((m) => m * ten).find((s) => s >= raw);
  }

  function drawCurve() {
    const s = curveScale(), { w, h, left, right, top, bottom } = CURVE, f = (v) => v.toFixed(2), out = [];
    for (let v = 0, step = nice(s.top); v <= s.top * 1.0001; v += step)
      out.push(`<path class="grid" d="M${left} ${f(s.y(v))}H${w - right}"/><text class="tick" x="${left - 5}" y="${f(s.y(v) + 3.5)}" text-anchor="end">${short(v)}</text>`);
    for (let v = 0; v <= 4; v++) out.push(`<text class="tick" x="${f(s.x(v * N / 4))}" y="${h - bottom + 13}" text-anchor="middle">${Math.round(v * N / 4)}</text>`);
    out.push(`<text class="tick" x="${f(s.x(N / 2))}" y="${h - 4}" text-anchor="middle">step t</text>`);
    out.push(`<text class="tick" x="4" y="9">threshold tau</text>`);
    // A tick for each stop, labelled at the top; labels step down where two stops are close.
    const stops = ["score", "mask"].map((name) => [name, trace.stops[name]]).filter(([, at]) => at);
    stops.forEach(([name, at], n) => {
      const x = s.x(at.t), y = top + 12 + 13 * n, flip = at.t > 0.6 * N;
      out.push(`<path class="stop ${name}" d="M${f(x)} ${top}V${h - bottom}"/>`);
      out.push(`<text class="label ${name}" x="${f(x + (flip ? -4 : 4))}" y="${f(y)}" text-anchor="${flip ? "end" : "start"}">${name} stop, ${at.t}</text>`);
    });
    trace.tau.forEach((v, n) => {
      if (v !== null && v <= s.top) out.push(`<circle class="dot" cx="${f(s.x(n + 1))}" cy="${f(s.y(v))}" r="1.9"/>`);
    });
    if (trace.fit === "tangent" && trace.a && trace.b) {
      let d = "";
      for (let t = 0; t <= trace.T && trace.b * t < Math.PI / 2; t += 0.5) {
        const v = trace.a * Math.tan(trace.b * t);
        if (v > s.top) break;
        d += `${d ? "L" : "M"}${f(s.x(t))} ${f(s.y(v))}`;
      }
      out.push(`<path class="fit" d="${d}"/>`);
    }
    out.push(`<g id="now"><path class="now" d="M0 ${top}V${h - bottom}"/><circle class="now" r="4.5"/></g>`);
    $("curve").innerHTML = out.join("");
    $("cut").textContent = s.cut ? ` The axis ends at ${short(s.top)}; the last steps lie above it, up to ${short(Math.max(...trace.tau))}.` : "";
  }

  function markStep() {
    const s = curveScale(), step = Number($("step").value), tau = step ? trace.tau[step - 1] : 0;
    const now = $("now");
    now.setAttribute("transform", `translate(${s.x(step).toFixed(2)} 0)`);
    now.setAttribute("class", state.step === null ? "quiet" : "");
    now.querySelector("circle").setAttribute("cy", s.y(Math.min(tau, s.top)).toFixed(2));
  }

  // --- words and controls ---

  function short(v) {
    if (v === null || v === undefined || !Number.isFinite(v)) return "n/a";
    const a = Math.abs(v);
    if (a === 0) return "0";
    return a >= 1e5 || a < 1e-3 ? v.toExponential(1) : String(Number(v.toPrecision(3)));
  }

  function say() {
    const set = (id, text) => { if ($(id)) $(id).textContent = text; };
    const check = (name, value) => document.querySelectorAll(`input[name="${name}"]`).forEach((b) => { b.checked = b.value === String(value); });
    check("layout", state.layout);
    check("convention", state.convention);
    check("mask", state.mask);
    $("crosshair").checked = state.crosshair;
    $("map").checked = state.map;
    $("opacity").value = Math.round(100 * state.opacity);
    set("opacity-said", `${Math.round(100 * state.opacity)} %`);
    $("threshold").value = state.threshold;
    set("threshold-said", `${short(mapValue(state.threshold))}, ${short(data.map.above_ml[state.threshold])} ml at or above it`);
    if ($("sequence")) $("sequence").value = String(state.sequence);
    if (trace) {
      $("step").value = state.step === null ? (stop && stop.t) || N : state.step;
      const own = state.step === null;
      set("step-said", own
        ? `The method's own mask: ${short(data.mask.ml)} ml`
        : state.step === 0
          ? `Step 0 of ${N}: the whole brain, ${short(trace.ml[0])} ml`
          : `Step ${state.step} of ${N}: tau ${short(trace.tau[state.step - 1])}, ${short(trace.ml[state.step])} ml`);
      $("step").setAttribute("aria-valuetext", $("step-said").textContent);
      if ($("own")) $("own").disabled = own;
      markStep();
    }
    const at = state.at, n = index(at), mm = [0, 1, 2].map((r) => data.affine[r][3] + at.reduce((sum, v, c) => sum + v * data.affine[r][c], 0));
    const brain = volumes.map[n] > 0, words = [`x ${mm[0].toFixed(0)}, y ${mm[1].toFixed(0)}, z ${mm[2].toFixed(0)} mm`];
    if (volumes["image" + state.sequence][n]) words.push(`scan ${short(imageValue(volumes["image" + state.sequence][n]))}`);
    if (data.healthy && volumes["healthy" + state.sequence][n]) words.push(`healthy ${short(imageValue(volumes["healthy" + state.sequence][n]))}`);
    words.push(brain ? `map ${short(mapValue(volumes.map[n]))}` : "outside the brain");
    if (trace && brain) words.push(`in the mask until step ${volumes.order[n]}`);
    set("where", words.join("  ·  "));
  }

  function drawBar() {
    const canvas = $("bar"), g = canvas.getContext("2d");
    canvas.width = 254; canvas.height = 1;
    const row = g.createImageData(254, 1);
    for (let x = 0; x < 254; x++) {
      const c = 1 + Math.round(x / 253 * (data.map.bright - 1)), on = state.map && c >= state.threshold;
      for (let ch = 0; ch < 3; ch++) row.data[4 * x + ch] = on ? HEAT[3 * c + ch] : 214;
      row.data[4 * x + 3] = 255;
    }
    g.putImageData(row, 0, 0);
  }

  function labelBar() {
    $("bar-ticks").replaceChildren(...[0, 0.25, 0.5, 0.75, 1].map((x) => {
      const tick = document.createElement("span");
      tick.style.left = 100 * x + "%";
      tick.textContent = short(mapValue(1 + x * (data.map.bright - 1)));
      return tick;
    }));
  }

  function draw() {
    for (const pane of panes) if (shown(pane)) drawPane(pane);
    drawBar();
    say();
  }

  let waiting = 0;
  function soon() {
    if (waiting) return;
    waiting = requestAnimationFrame(() => { waiting = 0; draw(); });
  }

  const clamp = (v, low, high) => Math.min(high, Math.max(low, v));

  function change(changes) {
    for (const name of Object.keys(changes)) if (!(name in state)) throw new Error(`unknown setting '${name}'; known: ${Object.keys(state).join(", ")}`);
    const layout = changes.layout !== undefined && changes.layout !== state.layout;
    Object.assign(state, changes);
    state.at = state.at.map((v, n) => clamp(Math.round(v), 0, data.shape[n] - 1));
    if (layout) arrange();
  }

  function set(changes) { change(changes); draw(); }
  function ask(changes) { change(changes); soon(); }

  function listen(pane) {
    const { across, down, through } = PLANES[pane.plane], canvas = pane.canvas;
    const move = (event) => {
      const box = canvas.getBoundingClientRect(), at = state.at.slice();
      at[across] = column(pane.plane, clamp(Math.floor((event.clientX - box.left) / box.width * data.shape[across]), 0, data.shape[across] - 1));
      at[down] = line(pane.plane, clamp(Math.floor((event.clientY - box.top) / box.height * data.shape[down]), 0, data.shape[down] - 1));
      ask({ at });
    };
    canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); move(event); });
    canvas.addEventListener("pointermove", (event) => { if (event.buttons & 1) move(event); });
    const step = (axis, by) => { const at = state.at.slice(); at[axis] += by; ask({ at }); };
    canvas.addEventListener("wheel", (event) => { event.preventDefault(); step(through, event.deltaY > 0 ? -1 : 1); }, { passive: false });
    canvas.addEventListener("keydown", (event) => {
      const side = flipped() ? -1 : 1;
      const keys = { ArrowLeft: [across, -side], ArrowRight: [across, side], ArrowUp: [down, 1], ArrowDown: [down, -1], PageUp: [through, 1], PageDown: [through, -1] };
      if (!keys[event.key]) return;
      event.preventDefault();
      step(...keys[event.key]);
    });
  }

  function control() {
    const on = (id, kind, act) => { if ($(id)) $(id).addEventListener(kind, act); };
    for (const name of ["layout", "convention", "mask"])
      document.querySelectorAll(`input[name="${name}"]`).forEach((b) => b.addEventListener("change", () => ask({ [name]: b.value })));
    on("crosshair", "change", (e) => ask({ crosshair: e.target.checked }));
    on("map", "change", (e) => ask({ map: e.target.checked }));
    on("opacity", "input", (e) => ask({ opacity: e.target.value / 100 }));
    on("threshold", "input", (e) => ask({ threshold: Number(e.target.value) }));
    on("sequence", "change", (e) => ask({ sequence: Number(e.target.value) }));
    on("step", "input", (e) => ask({ step: Number(e.target.value) }));
    on("own", "click", () => ask({ step: null }));
    on("save", "click", save);
    const pick = (event) => {
      const box = $("curve").getBoundingClientRect(), x = (event.clientX - box.left) / box.width * CURVE.w;
      ask({ step: clamp(Math.round((x - CURVE.left) / (CURVE.w - CURVE.left - CURVE.right) * N), 0, N) });
    };
    on("curve", "pointerdown", (e) => { $("curve").setPointerCapture(e.pointerId); pick(e); });
    on("curve", "pointermove", (e) => { if (e.buttons & 1) pick(e); });
    let width = 0;
    new ResizeObserver(() => {
      if ($("panes").clientWidth === width) return;
      width = $("panes").clientWidth;
      arrange();
      draw();
    }).observe($("panes"));
  }

  // --- the chosen mask as a file ---

  function nifti() {
    const inside = inMask() || ((n) => volumes.mask && volumes.mask[n] > 0), file = new Uint8Array(352 + I * J * K);
    const head = new DataView(file.buffer), text = (at, words) => [...words].forEach((ch, n) => { file[at + n] = ch.charCodeAt(0); });
    head.setInt32(0, 348, true);
    [3, I, J, K, 1, 1, 1, 1].forEach((v, n) => head.setInt16(40 + 2 * n, v, true));
    head.setInt16(70, 2, true);
    head.setInt16(72, 8, true);
    [1, ...data.spacing].forEach((v, n) => head.setFloat32(76 + 4 * n, v, true));
    head.setFloat32(108, 352, true);
    head.setFloat32(112, 1, true);
    file[123] = 2;
    text(148, state.step === null ? "anomri mask" : `anomri mask of step ${state.step}`);
    head.setInt16(254, 1, true);
    data.affine.slice(0, 3).forEach((row, r) => row.forEach((v, c) => head.setFloat32(280 + 16 * r + 4 * c, v, true)));
    text(344, "n+1");
    // NIfTI runs i fastest, the page runs k fastest.
    for (let k = 0, n = 352; k < K; k++) for (let j = 0; j < J; j++) for (let i = 0; i < I; i++, n++) file[n] = inside(index([i, j, k])) ? 1 : 0;
    return file;
  }

  function save() {
    const link = document.createElement("a"), url = URL.createObjectURL(new Blob([nifti()]));
    link.href = url;
    link.download = `${data.id.replace(/[^\w.-]+/g, "_")}_mask${state.step === null ? "" : "-step" + state.step}.nii`;
    link.click();
    URL.revokeObjectURL(url);
  }

  const ready = (async () => {
    try {
      if (typeof DecompressionStream === "undefined") throw new Error("this browser cannot unpack the images; use Chrome or Edge 80, Firefox 113, Safari 16.4, or newer");
      const names = [...document.querySelectorAll("script[id^=volume-]")].map((s) => s.id.slice(7));
      await Promise.all(names.map(unpack));
      makePanes();
      arrange();
      labelBar();
      if (trace) drawCurve();
      draw();
      control();
      $("panes").removeAttribute("aria-busy");
    } catch (error) {
      $("panes").textContent = "The viewer could not start: " + error.message;
      throw error;
    }
  })();

  window.anomri = { ready, state, data, set, draw, code, mapValue, nifti };
})();
