// A small viewer of molecules on a canvas: drag turns, pinch or Ctrl+wheel zooms, arrow keys turn.
// Scene: elements [N], positions [3N] (Å/100), kinds [N] (0 stick, 1 thin stick, 2 line), bonds
// [2B], labels [N], traces [[3P], ...] (backbones), frames [[3M], ...] of the first M atoms.
"use strict";
function showMolecule(root, scene) {
  const canvas = root.querySelector("canvas"), ink = canvas.getContext("2d");
  const colours = {
    H: "#e8e8e8", C: "#7d8590", N: "#3b6fe0", O: "#e2433b", F: "#7fc23f", Na: "#9a5fd0",
    P: "#f08a24", S: "#e3c02c", Cl: "#36b336", K: "#8a48c8", Br: "#a5382d", I: "#8231a8",
  };
  const colourOf = (symbol) => colours[symbol] || "#d279b8";
  const radius = [0.30, 0.17, 0], thick = [0.13, 0.075, 0];
  const count = scene.elements.length, moving = scene.frames.length ? scene.frames[0].length / 3 : 0;
  const still = Float32Array.from(scene.positions, (v) => v / 100);
  let points = still.slice(), turn = [1, 0, 0, 0, 1, 0, 0, 0, 1], zoom = 1;
  let labelled = false, playing = null, frame = 0, waiting = false;

  // Centre on what is drawn as sticks; its size decides the scale.
  const middle = [0, 0, 0];
  let sticks = 0;
  for (let i = 0; i < count; i++) if (scene.kinds[i] === 0) {
    sticks++;
    for (let k = 0; k < 3; k++) middle[k] += still[3 * i + k];
  }
  for (let k = 0; k < 3; k++) middle[k] /= Math.max(1, sticks);
  let extent = 2;
  for (let i = 0; i < count; i++) if (scene.kinds[i] === 0) {
    extent = Math.max(extent, Math.hypot(...[0, 1, 2].map((k) => still[3 * i + k] - middle[k])));
  }
  extent += scene.traces.length ? 9 : 1.8;
  const reach = extent + 6;

  const size = (i) => radius[scene.kinds[i]] * (scene.elements[i] === "H" ? 0.72 : 1);
  const rgb = (hex) => [1, 3, 5].map((k) => parseInt(hex.slice(k, k + 2), 16));
  const mix = (a, b, t) => `rgb(${a.map((v, k) => Math.round(v + (b[k] - v) * t)).join(",")})`;
  const darker = (colour, by) => colour.map((v) => v * (1 - by));
  const lighter = (colour, by) => colour.map((v) => v + (255 - v) * by);
  const balls = {};
  function ball(symbol) {
    if (balls[symbol]) return balls[symbol];
    const picture = document.createElement("canvas");
    picture.width = picture.height = 96;
    const pen = picture.getContext("2d"), colour = rgb(colourOf(symbol));
    const light = pen.createRadialGradient(36, 32, 3, 48, 48, 47);
    light.addColorStop(0, mix(colour, [255, 255, 255], 0.75));
    light.addColorStop(0.45, mix(colour, [255, 255, 255], 0.08));
    light.addColorStop(1, mix(colour, [0, 0, 0], 0.45));
    pen.fillStyle = light;
    pen.beginPath();
    pen.arc(48, 48, 46.5, 0, 2 * Math.PI);
    pen.fill();
    return (balls[symbol] = picture);
  }

  function draw() {
    waiting = false;
    const width = canvas.clientWidth, height = canvas.clientHeight, fine = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * fine)) canvas.width = Math.round(width * fine);
    if (canvas.height !== Math.round(height * fine)) canvas.height = Math.round(height * fine);
    const paper = rgb(getComputedStyle(root).getPropertyValue("--scene").trim());
    const text = getComputedStyle(root).color;
    ink.setTransform(fine, 0, 0, fine, 0, 0);
    ink.fillStyle = mix(paper, paper, 0);
    ink.fillRect(0, 0, width, height);
    const scale = (0.47 * Math.min(width, height) / extent) * zoom, away = 5 * extent;
    // x, y on the screen, depth towards the eye, pixels per Å there
    const place = (p, i) => {
      const a = p[3 * i] - middle[0], b = p[3 * i + 1] - middle[1], c = p[3 * i + 2] - middle[2];
      const z = turn[6] * a + turn[7] * b + turn[8] * c, s = scale * away / Math.max(away - z, 1);
      return [
        width / 2 + s * (turn[0] * a + turn[1] * b + turn[2] * c),
        height / 2 - s * (turn[3] * a + turn[4] * b + turn[5] * c), z, s,
      ];
    };
    const fog = (z) => Math.min(0.7, Math.max(0, 0.14 - 0.5 * z / reach));
    const shown = (i) => !playing || i < moving;
    const at = Array.from({ length: count }, (_, i) => place(points, i)), items = [];
    for (let i = 0; i < count; i++) if (scene.kinds[i] < 2 && shown(i)) items.push([at[i][2], 0, i]);
    for (let b = 0; b < scene.bonds.length; b += 2) {
      const i = scene.bonds[b], j = scene.bonds[b + 1];
      if (!shown(i) || !shown(j)) continue;
      const half = at[i].map((v, k) => (v + at[j][k]) / 2);
      const length = Math.hypot(...[0, 1, 2].map((k) => points[3 * i + k] - points[3 * j + k]));
      for (const end of [i, j]) { // a stick begins at the surface of its ball
        const inside = Math.min(0.9, 1.7 * size(end) / Math.max(length, 0.1));
        const start = at[end].map((v, k) => v + (half[k] - v) * inside);
        items.push([(start[2] + half[2]) / 2, 1, end, start, half]);
      }
    }
    if (!playing) for (const trace of scene.traces) {
      const path = Float32Array.from(trace, (v) => v / 100);
      for (let k = 0; k + 1 < path.length / 3; k++) {
        const a = place(path, k), b = place(path, k + 1);
        items.push([(a[2] + b[2]) / 2, 2, 0, a, b]);
      }
    }
    items.sort((a, b) => a[0] - b[0]);
    const stroke = (a, b, size, colour) => {
      ink.lineWidth = size;
      ink.strokeStyle = colour;
      ink.beginPath();
      ink.moveTo(a[0], a[1]);
      ink.lineTo(b[0], b[1]);
      ink.stroke();
    };
    for (const [z, kind, i, a, b] of items) {
      ink.lineCap = "butt";
      const faded = fog(z);
      if (kind === 2) {
        const wide = 0.55 * a[3], colour = rgb("#4aa0a8");
        stroke(a, b, wide + 1.5, mix(darker(colour, 0.45), paper, faded));
        ink.lineCap = "round"; // closes the joints
        stroke(a, b, wide, mix(colour, paper, faded));
      } else if (kind === 1) {
        const colour = rgb(colourOf(scene.elements[i])), style = scene.kinds[i];
        if (style === 2) {
          const thin = scene.elements[i] === "H" ? [148, 160, 170] : colour;
          stroke(a, b, 1.7, mix(thin, paper, Math.min(0.85, faded + 0.1)));
          continue;
        }
        const wide = 2 * thick[style] * a[3];
        stroke(a, b, wide + 1, mix(darker(colour, 0.5), paper, faded));
        stroke(a, b, wide * 0.85, mix(colour, paper, faded));
        const lit = [a, b].map((p) => [p[0] - wide * 0.12, p[1] - wide * 0.16]);
        stroke(lit[0], lit[1], wide * 0.3, mix(lighter(colour, 0.45), paper, faded));
      } else {
        const [x, y, , s] = at[i], wide = size(i) * s;
        ink.drawImage(ball(scene.elements[i]), x - wide, y - wide, 2 * wide, 2 * wide);
        if (faded > 0.02) {
          ink.globalAlpha = faded;
          ink.fillStyle = mix(paper, paper, 0);
          ink.beginPath();
          ink.arc(x, y, wide, 0, 2 * Math.PI);
          ink.fill();
          ink.globalAlpha = 1;
        }
      }
    }
    if (labelled) {
      ink.font = "600 12px system-ui, sans-serif";
      ink.textAlign = "center";
      ink.textBaseline = "middle";
      ink.lineWidth = 3;
      for (let i = 0; i < count; i++) if (scene.labels[i] && shown(i)) {
        ink.strokeStyle = mix(paper, paper, 0);
        ink.strokeText(scene.labels[i], at[i][0], at[i][1] - 0.45 * at[i][3]);
        ink.fillStyle = text;
        ink.fillText(scene.labels[i], at[i][0], at[i][1] - 0.45 * at[i][3]);
      }
    }
  }
  const again = () => {
    if (!waiting) requestAnimationFrame(draw);
    waiting = true;
  };

  function rotate(dx, dy) {
    const [c, s] = [Math.cos(dx), Math.sin(dx)], [d, t] = [Math.cos(dy), Math.sin(dy)];
    const by = [c, 0, s, s * t, d, -c * t, -s * d, t, c * d], old = turn;
    turn = by.map((_, k) => {
      const row = 3 * Math.floor(k / 3), column = k % 3;
      return by[row] * old[column] + by[row + 1] * old[3 + column] + by[row + 2] * old[6 + column];
    });
    again();
  }
  const magnify = (factor) => {
    zoom = Math.min(12, Math.max(0.2, zoom * factor));
    again();
  };

  const fingers = new Map();
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const now = [event.clientX, event.clientY];
    if (fingers.size === 1) rotate((now[0] - before[0]) * 0.01, (now[1] - before[1]) * 0.01);
    else {
      const [id, other] = [...fingers].find(([key]) => key !== event.pointerId);
      const apart = (p) => Math.max(1, Math.hypot(p[0] - other[0], p[1] - other[1]));
      magnify(apart(now) / apart(before));
    }
    fingers.set(event.pointerId, now);
  });
  for (const end of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(end, (event) => fingers.delete(event.pointerId));
  }
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // the page scrolls
    event.preventDefault();
    magnify(Math.exp(-event.deltaY * 0.004));
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: [-0.1, 0], ArrowRight: [0.1, 0], ArrowUp: [0, -0.1], ArrowDown: [0, 0.1] };
    if (step[event.key]) rotate(...step[event.key]);
    else if (event.key === "+" || event.key === "-") magnify(event.key === "+" ? 1.15 : 1 / 1.15);
    else return;
    event.preventDefault();
  });

  const button = (name, action) => {
    const found = root.querySelector(`[data-do="${name}"]`);
    if (found) found.addEventListener("click", () => action(found));
  };
  button("nearer", () => magnify(1.25));
  button("farther", () => magnify(1 / 1.25));
  button("labels", (self) => {
    labelled = !labelled;
    self.setAttribute("aria-pressed", labelled);
    again();
  });
  button("play", (self) => {
    if (playing) {
      clearInterval(playing);
      playing = null;
      points = still.slice();
    } else {
      playing = setInterval(() => {
        frame = (frame + 1) % scene.frames.length;
        scene.frames[frame].forEach((v, k) => (points[k] = v / 100));
        again();
      }, 90);
    }
    self.setAttribute("aria-pressed", Boolean(playing));
    again();
  });

  rotate(0.25, 0.2);
  new ResizeObserver(again).observe(canvas);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
}
