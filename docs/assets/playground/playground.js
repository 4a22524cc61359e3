/* The playground: draws what diffusion.js computes, in every element of class "playground".
 *
 * data-mini leaves out all controls and repeats the run, for the first page. */
"use strict";

(() => {
  const moons = () => Array.from({ length: 16 }, (_, i) => {
    const [upper, angle] = [i < 8, (Math.PI * ((i % 8) + 0.5)) / 8];
    const [x, y] = [Math.cos(angle), Math.sin(angle)];
    const mean = upper ? [2 * x - 1, 2 * y - 0.5] : [1 - 2 * x, 0.5 - 2 * y];
    return { weight: 1, mean, std: 0.15 };
  });
  const DATA = {
    "two moons": moons,
    "three modes": () => [
      { weight: 0.2, mean: [-2, 1], std: 0.3 },
      { weight: 0.5, mean: [1.5, 0.5], std: 0.5 },
      { weight: 0.3, mean: [0, -2], std: 0.2 },
    ],
    "a fifth and four fifths": () => [
      { weight: 0.8, mean: [1.8, 1.8], std: 0.5 },
      { weight: 0.2, mean: [-1.8, -1.8], std: 0.5 },
    ],
    "eight modes": () => Array.from({ length: 8 }, (_, i) => ({
      weight: 1, mean: [2.2 * Math.cos((i * Math.PI) / 4), 2.2 * Math.sin((i * Math.PI) / 4)], std: 0.15,
    })),
  };
  const SDES = {
    "VE": () => Diffusion.SDES.vesde(0.01, 10),
    "VP": () => Diffusion.SDES.vpsde(),
    "flow": () => Diffusion.SDES.flow(),
    "NCSN ladder": (steps) => Diffusion.SDES.ladder(steps + 1, 0.01, 10),
  };
  const SAMPLERS = {
    "PC (predictor, corrector)": "pc", "DDIM (Euler on the flow)": "ddim", "Heun on the flow": "heun",
    "Euler–Maruyama": "em", "ancestral": "ancestral", "annealed Langevin": "ald",
  };

  /* Normal numbers from a seed: Mulberry32's uniforms by Box and Muller's formula. */
  function normals(seed) {
    let state = seed >>> 0;
    const uniform = () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let t = state;
      t = Math.imul(t ^ (t >>> 15), t | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      return (((t ^ (t >>> 14)) >>> 0) + 0.5) / 4294967296;
    };
    for (let i = 0; i < 8; i += 1) uniform();
    return () => {
      const [radius, angle] = [Math.sqrt(-2 * Math.log(uniform())), 2 * Math.PI * uniform()];
      return [radius * Math.cos(angle), radius * Math.sin(angle)];
    };
  }
  const source = (seed, i, purpose) => normals(seed * 1000003 + i * 7919 + purpose * 104729 + 1);

  /* Exact draws of the mixture. */
  function draws(mixture, n, seed, purpose) {
    const total = mixture.reduce((s, m) => s + m.weight, 0);
    return Array.from({ length: n }, (_, i) => {
      // even shares of the modes, so that only places are random
      let left = (((i + 0.5) / n) * total);
      const mode = mixture.find((m) => (left -= m.weight) < 0) || mixture[mixture.length - 1];
      const z = source(seed, i, purpose)();
      return [mode.mean[0] + mode.std * z[0], mode.mean[1] + mode.std * z[1]];
    });
  }

  /* All states of a run: times and, for each, the particles; the last frame is denoised. */
  function compute({ mixture, sde, sampler, steps, n, seed }) {
    const times = Diffusion.grid(sde, steps);
    const score = Diffusion.scoreOf(mixture, sde);
    const sources = Array.from({ length: n }, (_, i) => source(seed, i, 0));
    let particles = sources.map((draw) => Diffusion.start(mixture, sde, draw()));
    const frames = [{ t: times[0], particles }];
    for (const [t, s] of Diffusion.pairs(sampler, times)) {
      particles = particles.map((p, i) =>
        Diffusion.SAMPLERS[sampler].step(sde, score, p, t, s, sources[i]));
      frames.push({ t: s, particles });
    }
    const t = times[times.length - 1];
    frames.push({ t, particles: particles.map((p) => Diffusion.denoise(sde, score, p, t)), end: true });
    const evaluations = (frames.length - 2) * Diffusion.SAMPLERS[sampler].cost + 1;
    return { frames, score, evaluations };
  }

  /* How many ended nearest to each mode, beside how many should have. */
  function shares(mixture, particles) {
    const total = mixture.reduce((s, m) => s + m.weight, 0);
    const counts = mixture.map(() => 0);
    for (const p of particles) {
      const far = mixture.map((m) => Math.hypot(p[0] - m.mean[0], p[1] - m.mean[1]));
      counts[far.indexOf(Math.min(...far))] += 1;
    }
    return mixture.map((m, i) => [counts[i] / particles.length, m.weight / total]);
  }

  const make = (tag, attributes = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), attributes);
    element.append(...children);
    return element;
  };
  const labelled = (text, control) => make("label", {}, make("span", { textContent: text }), control);
  const choice = (names) => make("select", {}, ...names.map((name) =>
    make("option", { textContent: name })));
  const slider = (min, max, value, step = 1) =>
    make("input", { type: "range", min, max, step, value });

  class Playground {
    constructor(root) {
      this.mini = root.hasAttribute("data-mini");
      this.mixture = DATA["two moons"]();
      this.chosen = null; // the mode whose weight and width are set
      this.canvas = make("canvas", { className: "playground-canvas" });
      this.canvas.setAttribute("role", "img");
      this.canvas.setAttribute("aria-label",
        "Particles that start as noise and move along the score to two moons of data");
      root.append(this.canvas);
      this.place = 0; // of the frame, a real number
      this.playing = !matchMedia("(prefers-reduced-motion: reduce)").matches;
      if (!this.mini) this.addControls(root);
      this.restart();
      new ResizeObserver(() => this.draw()).observe(this.canvas);
      requestAnimationFrame((now) => this.tick(now));
    }

    get settings() {
      if (this.mini) {
        return { sde: "VE", sampler: "pc", steps: 60, n: 250, seed: 3 };
      }
      const c = this.controls;
      return {
        sde: c.sde.value, sampler: SAMPLERS[c.sampler.value], steps: Number(c.steps.value),
        n: 300, seed: Number(c.seed.value) || 0,
      };
    }

    addControls(root) {
      const c = {
        data: choice(Object.keys(DATA)), sde: choice(Object.keys(SDES)),
        sampler: choice(Object.keys(SAMPLERS)), steps: slider(1, 100, 30),
        seed: make("input", { type: "number", value: 0, min: 0, max: 999 }),
        frame: slider(0, 1, 0, 0.01), weight: slider(0.05, 1, 0.5, 0.05), width: slider(0.05, 1, 0.3, 0.01),
        play: make("button", { type: "button" }), again: make("button", { type: "button", textContent: "Again" }),
        add: make("button", { type: "button", textContent: "Add a mode" }),
        remove: make("button", { type: "button", textContent: "Remove it" }),
      };
      this.controls = c;
      this.stepsText = make("output");
      this.status = make("p", { className: "playground-status" });
      this.status.setAttribute("aria-live", "polite");
      this.mode = make("div", { className: "playground-row" },
        labelled("Weight of the mode", c.weight), labelled("Its width", c.width), c.remove);
      root.append(
        make("div", { className: "playground-row" }, c.play, c.again, labelled("Time", c.frame)),
        make("div", { className: "playground-row" },
          labelled("Data", c.data), labelled("SDE", c.sde), labelled("Sampler", c.sampler)),
        make("div", { className: "playground-row" },
          labelled("Steps", c.steps), this.stepsText, labelled("Seed", c.seed), c.add),
        this.mode, this.status);
      c.data.oninput = () => { this.mixture = DATA[c.data.value](); this.chosen = null; this.restart(); };
      for (const name of ["sde", "sampler", "steps", "seed"]) c[name].oninput = () => this.restart();
      c.weight.oninput = () => { this.chosen.weight = Number(c.weight.value); this.restart(); };
      c.width.oninput = () => { this.chosen.std = Number(c.width.value); this.restart(); };
      c.again.onclick = () => { this.place = 0; this.playing = true; };
      c.play.onclick = () => {
        if (!this.playing && this.place >= this.last) this.place = 0;
        this.playing = !this.playing;
        this.draw();
      };
      c.frame.oninput = () => { this.playing = false; this.place = Number(c.frame.value) * this.last; this.draw(); };
      c.add.onclick = () => {
        this.mixture.push({ weight: 0.5, mean: [0, 0], std: 0.3 });
        this.chosen = this.mixture[this.mixture.length - 1];
        this.restart();
      };
      c.remove.onclick = () => {
        this.mixture = this.mixture.filter((m) => m !== this.chosen);
        this.chosen = null;
        this.restart();
      };
      this.canvas.onpointerdown = (event) => {
        const p = this.pointed(event);
        const far = this.mixture.map((m) => Math.hypot(m.mean[0] - p[0], m.mean[1] - p[1]));
        const nearest = far.indexOf(Math.min(...far));
        this.chosen = far[nearest] < 0.5 ? this.mixture[nearest] : null;
        if (this.chosen) {
          this.canvas.setPointerCapture(event.pointerId);
          this.place = this.last; // where the modes are seen as they are
          this.playing = false;
        }
        this.draw();
      };
      this.canvas.onpointermove = (event) => {
        if (!this.chosen || !this.canvas.hasPointerCapture(event.pointerId)) return;
        this.chosen.mean = this.pointed(event).map((c2) => Math.max(-3, Math.min(3, c2)));
        this.restart(true);
      };
    }

    get last() {
      return this.run.frames.length - 1;
    }

    restart(atEnd = false) {
      const { sde, sampler, steps, n, seed } = this.settings;
      this.sde = SDES[sde](steps);
      this.run = compute({ mixture: this.mixture, sde: this.sde, sampler, steps, n, seed });
      this.exact = draws(this.mixture, n, seed, 1);
      this.place = atEnd ? this.last : 0;
      if (!this.mini) {
        const end = this.run.frames[this.last].particles;
        this.distance = Diffusion.energyDistance(end, this.exact);
        this.floor = Math.abs(Diffusion.energyDistance(draws(this.mixture, n, seed, 2), this.exact));
      }
      this.draw();
    }

    tick(now) {
      const passed = Math.min(now - (this.before ?? now), 50);
      this.before = now;
      if (this.playing && this.canvas.getBoundingClientRect().bottom > 0) {
        this.place += (passed / 4000) * this.last; // a run takes four seconds
        if (this.place >= this.last + (this.mini ? this.last / 2 : 0)) {
          this.playing = this.mini;
          this.place = this.mini ? 0 : this.last;
        }
        this.draw();
      }
      requestAnimationFrame((next) => this.tick(next));
    }

    /* What a pointer points to, in the data's numbers. */
    pointed(event) {
      const box = this.canvas.getBoundingClientRect();
      const half = box.width / 2;
      return [
        ((event.clientX - box.left - half) / half) * 3.2, ((half - event.clientY + box.top) / half) * 3.2,
      ];
    }

    draw() {
      const style = getComputedStyle(document.body);
      const colour = (name, otherwise) => style.getPropertyValue(name).trim() || otherwise;
      const ink = colour("--md-default-fg-color", "#222");
      const faint = colour("--md-default-fg-color--lighter", "#999");
      const strong = colour("--md-accent-fg-color", "#e64a19");
      const size = this.canvas.clientWidth;
      if (!size) return;
      const scale = window.devicePixelRatio || 1;
      if (this.canvas.width !== Math.round(size * scale)) {
        this.canvas.width = Math.round(size * scale);
        this.canvas.height = this.canvas.width;
      }
      const g = this.canvas.getContext("2d");
      g.setTransform(scale, 0, 0, scale, 0, 0);
      g.clearRect(0, 0, size, size);

      const place = Math.min(this.place, this.last);
      const [i, share] = [Math.floor(place), place - Math.floor(place)];
      const [now, next] = [this.run.frames[i], this.run.frames[Math.min(i + 1, this.last)]];
      const t = now.t + share * (next.t - now.t);
      const [alpha, sigma] = now.end ? [1, 0] : [this.sde.alpha(t), this.sde.sigma(t)];
      // the view is as wide as the particles' law
      const width = 3.2 * Math.sqrt(alpha * alpha + (sigma * sigma) / 1.5);
      const half = size / 2;
      const at = (p) => [half + (p[0] / width) * half, half - (p[1] / width) * half];

      g.lineWidth = 1;
      for (const m of this.mixture) {
        const [x, y] = at([alpha * m.mean[0], alpha * m.mean[1]]);
        const radius = Math.sqrt((alpha * m.std) ** 2 + sigma * sigma);
        g.strokeStyle = m === this.chosen ? strong : faint;
        const many = this.mixture.length > 10 && m !== this.chosen;
        g.globalAlpha = many ? 0.3 : 1;
        for (const k of many ? [2] : [1, 2]) {
          g.beginPath();
          g.arc(x, y, Math.max((k * radius * half) / width, 1), 0, 2 * Math.PI);
          g.stroke();
        }
      }
      g.globalAlpha = 1;

      const time = now.end ? now.t : t;
      const cells = this.mini ? 14 : 18;
      const step = size / cells;
      const noise = this.sde.sigma(time);
      g.strokeStyle = faint;
      for (let row = 0; row < cells; row += 1) {
        for (let column = 0; column < cells; column += 1) {
          const [px, py] = [(column + 0.5) * step, (row + 0.5) * step];
          const [x, y] = [((px - half) / half) * width, ((half - py) / half) * width];
          const [sx, sy] = this.run.score(x, y, time).map((c) => c * noise);
          const length = Math.hypot(sx, sy);
          const drawn = (step * 0.8 * length) / (1 + length) / (length || 1);
          arrow(g, px, py, sx * drawn, -sy * drawn);
        }
      }

      g.fillStyle = strong;
      g.globalAlpha = 0.75;
      now.particles.forEach((p, k) => {
        const q = next.particles[k];
        const [x, y] = at([p[0] + share * (q[0] - p[0]), p[1] + share * (q[1] - p[1])]);
        g.beginPath();
        g.arc(x, y, this.mini ? 1.8 : 2.2, 0, 2 * Math.PI);
        g.fill();
      });
      g.globalAlpha = 1;
      g.fillStyle = ink;
      g.font = "12px sans-serif";
      g.fillText(now.end ? "samples" : `t = ${t.toFixed(2)}   σ/α = ${(sigma / alpha).toPrecision(2)}`, 8, size - 8);
      if (!this.mini) this.say(now);
    }

    say(now) {
      const c = this.controls;
      c.play.textContent = this.playing ? "Pause" : "Play";
      c.frame.value = Math.min(this.place, this.last) / this.last;
      this.stepsText.textContent = c.steps.value;
      this.mode.hidden = this.chosen === null;
      c.remove.disabled = this.mixture.length < 2;
      if (this.chosen) [c.weight.value, c.width.value] = [this.chosen.weight, this.chosen.std];
      const end = this.run.frames[this.last].particles;
      const parts = shares(this.mixture, end);
      const table = this.mixture.length > 4 ? "" : ` Share of each mode (expected): ${parts
        .map(([found, due]) => `${(100 * found).toFixed(0)} % (${(100 * due).toFixed(0)} %)`).join(", ")}.`;
      this.status.textContent = `${this.run.evaluations} evaluations of the score. Energy distance of the `
        + `${end.length} particles to exact draws: ${this.distance.toFixed(3)}; of other exact draws: ±${
          this.floor.toFixed(3)}.${table}`;
    }
  }

  function arrow(g, x, y, dx, dy) {
    const [x0, y0, x1, y1] = [x - dx / 2, y - dy / 2, x + dx / 2, y + dy / 2];
    const [angle, head] = [Math.atan2(dy, dx), Math.min(4, Math.hypot(dx, dy) / 2)];
    g.beginPath();
    g.moveTo(x0, y0);
    g.lineTo(x1, y1);
    for (const side of [-1, 1]) {
      g.moveTo(x1, y1);
      g.lineTo(x1 - head * Math.cos(angle + side * 0.5), y1 - head * Math.sin(angle + side * 0.5));
    }
    g.stroke();
  }

  const begin = () => document.querySelectorAll(".playground").forEach((root) => {
    root.playground = new Playground(root);
  });
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
})();
