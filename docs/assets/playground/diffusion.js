/* The mathematics of the playground: SDEs, the exact score of a mixture in the plane, samplers.
 *
 * The formulas are those of the Python package, and tests/test_playground.py holds them to it: from
 * the same starts and the same noise both end at the same particles. Random numbers come from outside.
 */
"use strict";

const Diffusion = (() => {
  /* An SDE has alpha(t), sigma(t), coefficients(t) -> [f, g²], time(ratio) with ratio = sigma / alpha,
   * and the ends T and eps; a ladder also has `levels`, the number of its noise levels. */
  function vesde(sigmaMin = 0.01, sigmaMax = 50) {
    const rate = Math.log(sigmaMax / sigmaMin);
    const sigma = (t) => sigmaMin * Math.exp(rate * t);
    return {
      T: 1, eps: 0, alpha: () => 1, sigma,
      coefficients: (t) => [0, 2 * rate * sigma(t) ** 2],
      time: (ratio) => Math.log(ratio / sigmaMin) / rate,
    };
  }

  function ladder(levels, sigmaMin = 0.01, sigmaMax = 50) {
    return { ...vesde(sigmaMin, sigmaMax), levels };
  }

  function vpsde(betaMin = 0.1, betaMax = 20) {
    const integral = (t) => betaMin * t + 0.5 * (betaMax - betaMin) * t * t;
    return {
      T: 1, eps: 1e-3,
      alpha: (t) => Math.exp(-0.5 * integral(t)),
      sigma: (t) => Math.sqrt(-Math.expm1(-integral(t))),
      coefficients: (t) => {
        const beta = betaMin + (betaMax - betaMin) * t;
        return [-0.5 * beta, beta];
      },
      time: (ratio) => {
        const b = Math.log1p(ratio * ratio);
        return (2 * b) / (betaMin + Math.sqrt(betaMin ** 2 + 2 * (betaMax - betaMin) * b));
      },
    };
  }

  function flow() {
    return {
      T: 0.999, eps: 0.01, alpha: (t) => 1 - t, sigma: (t) => t,
      coefficients: (t) => [-1 / (1 - t), (2 * t) / (1 - t)],
      time: (ratio) => ratio / (1 + ratio),
    };
  }

  /* The N + 1 times of N steps from T down to eps: even in log sigma / alpha, or a ladder's levels. */
  function grid(sde, steps) {
    const n = sde.levels === undefined ? steps : sde.levels - 1;
    const ratio = (t) => sde.sigma(t) / sde.alpha(t);
    const [high, low] = [Math.log(ratio(sde.T)), Math.log(ratio(sde.eps))];
    const times = Array.from({ length: n + 1 }, (_, i) =>
      sde.time(Math.exp(high + ((low - high) * i) / n)));
    times[0] = sde.T;
    times[n] = sde.eps;
    return times;
  }

  /* p(x_t | x_s) = N(a x_s, v I) for s < t. */
  function transition(sde, s, t) {
    const a = sde.alpha(t) / sde.alpha(s);
    const rise = 2 * Math.log((sde.sigma(s) * sde.alpha(t)) / (sde.alpha(s) * sde.sigma(t)));
    return [a, -(sde.sigma(t) ** 2) * Math.expm1(rise)];
  }

  /* The score of a mixture of round Gaussians at (x, y) and time t. Each mode has a weight, a mean
   * and a standard deviation; at time t they are alpha m and sqrt(alpha² s² + sigma²). */
  function scoreOf(mixture, sde) {
    return (x, y, t) => {
      const [alpha, sigma] = [sde.alpha(t), sde.sigma(t)];
      let top = -Infinity;
      const terms = mixture.map(({ weight, mean, std }) => {
        const v = alpha * alpha * std * std + sigma * sigma;
        const [dx, dy] = [alpha * mean[0] - x, alpha * mean[1] - y];
        const log = Math.log(weight) - Math.log(v) - (dx * dx + dy * dy) / (2 * v);
        top = Math.max(top, log);
        return [log, dx / v, dy / v];
      });
      let [sum, sx, sy] = [0, 0, 0];
      for (const [log, gx, gy] of terms) {
        const share = Math.exp(log - top);
        sum += share;
        sx += share * gx;
        sy += share * gy;
      }
      return [sx / sum, sy / sum];
    };
  }

  /* Mean and covariance matrix of the data, and from them the Gaussian that stands for p_T. */
  function moments(mixture) {
    const total = mixture.reduce((sum, m) => sum + m.weight, 0);
    const mean = [0, 1].map((i) => mixture.reduce((s, m) => s + m.weight * m.mean[i], 0) / total);
    const cov = (i, j) => mixture.reduce((s, m) => s + m.weight * (
      (m.mean[i] - mean[i]) * (m.mean[j] - mean[j]) + (i === j ? m.std ** 2 : 0)), 0) / total;
    return { mean, cov: [[cov(0, 0), cov(0, 1)], [cov(1, 0), cov(1, 1)]] };
  }

  /* A draw of the prior N(alpha_T mu, alpha_T² Sigma + sigma_T² I), made of two normal numbers. */
  function start(mixture, sde, z) {
    const { mean, cov } = moments(mixture);
    const [a, s] = [sde.alpha(sde.T), sde.sigma(sde.T)];
    const xx = a * a * cov[0][0] + s * s;
    const xy = a * a * cov[0][1];
    const yy = a * a * cov[1][1] + s * s;
    const det = Math.sqrt(xx * yy - xy * xy); // the root of a matrix M is (M + sqrt(det) I) / c
    const c = Math.sqrt(xx + yy + 2 * det);
    return [a * mean[0] + ((xx + det) * z[0] + xy * z[1]) / c,
      a * mean[1] + (xy * z[0] + (yy + det) * z[1]) / c];
  }

  const add = (p, c, q) => [p[0] + c * q[0], p[1] + c * q[1]];

  /* From t to s along one slope, the predicted noise: Euler's method on the probability flow. */
  function along(sde, p, t, s, noise) {
    const scale = sde.alpha(s) / sde.alpha(t);
    return add([scale * p[0], scale * p[1]], sde.sigma(s) - scale * sde.sigma(t), noise);
  }

  const predicted = (sde, score, p, t) => score(p[0], p[1], t).map((c) => -sde.sigma(t) * c);

  function langevin(score, p, s, epsilon, z) {
    return add(add(p, epsilon, score(p[0], p[1], s)), Math.sqrt(2 * epsilon), z);
  }

  /* step(sde, score, p, t, s, draw): a draw p of p_t becomes one of p_s; draw() gives two normal
   * numbers. `cost` is the number of evaluations of the score. */
  const SAMPLERS = {
    ddim: { cost: 1, step: (sde, score, p, t, s) => along(sde, p, t, s, predicted(sde, score, p, t)) },
    heun: {
      cost: 2,
      step: (sde, score, p, t, s) => {
        const first = predicted(sde, score, p, t);
        const second = predicted(sde, score, along(sde, p, t, s, first), s);
        return along(sde, p, t, s, [(first[0] + second[0]) / 2, (first[1] + second[1]) / 2]);
      },
    },
    em: {
      cost: 1,
      step: (sde, score, p, t, s, draw) => {
        const [f, g2] = sde.coefficients(t);
        const gradient = score(p[0], p[1], t);
        const drift = [0, 1].map((i) => f * p[i] - g2 * gradient[i]);
        return add(add(p, -(t - s), drift), Math.sqrt(g2 * (t - s)), draw());
      },
    },
    ancestral: {
      cost: 1,
      step: (sde, score, p, t, s, draw) => {
        const [a, v] = transition(sde, s, t);
        const moved = add(p, v, score(p[0], p[1], t));
        const kept = (Math.sqrt(v) * sde.sigma(s)) / sde.sigma(t);
        return add([moved[0] / a, moved[1] / a], kept, draw());
      },
    },
    pc: {
      cost: 2,
      step: (sde, score, p, t, s, draw) => {
        const q = SAMPLERS.ddim.step(sde, score, p, t, s);
        return langevin(score, q, s, 2 * (0.2 * sde.sigma(s)) ** 2, draw());
      },
    },
    ald: {
      cost: 5, first: true, // the first level has its steps too
      step: (sde, score, p, t, s, draw) => {
        const scale = sde.alpha(s) / sde.alpha(t);
        let q = [scale * p[0], scale * p[1]];
        for (let k = 0; k < 5; k += 1) q = langevin(score, q, s, 0.5 * sde.sigma(s) ** 2, draw());
        return q;
      },
    },
  };

  /* E[x_0 | x_t], Tweedie's formula: the last move, without noise. */
  function denoise(sde, score, p, t) {
    const q = add(p, sde.sigma(t) ** 2, score(p[0], p[1], t));
    return [q[0] / sde.alpha(t), q[1] / sde.alpha(t)];
  }

  /* The pairs (t, s) of a run. */
  function pairs(sampler, times) {
    const all = times.slice(1).map((s, i) => [times[i], s]);
    return SAMPLERS[sampler].first ? [[times[0], times[0]], ...all] : all;
  }

  /* The end of one particle's run. */
  function run(mixture, sde, sampler, times, p, draw) {
    const score = scoreOf(mixture, sde);
    for (const [t, s] of pairs(sampler, times)) p = SAMPLERS[sampler].step(sde, score, p, t, s, draw);
    return denoise(sde, score, p, times[times.length - 1]);
  }

  /* 2 E|X - Y| - E|X - X'| - E|Y - Y'| of two samples, without bias: 0 on average for equal laws. */
  function energyDistance(x, y) {
    const between = (p, q) => Math.hypot(p[0] - q[0], p[1] - q[1]);
    const across = (a, b) => a.reduce((s, p) => s + b.reduce((u, q) => u + between(p, q), 0), 0);
    const [n, m] = [x.length, y.length];
    return (2 * across(x, y)) / (n * m) - across(x, x) / (n * (n - 1)) - across(y, y) / (m * (m - 1));
  }

  const SDES = { vesde, vpsde, flow, ladder };
  return { SDES, SAMPLERS, grid, scoreOf, moments, start, pairs, denoise, run, energyDistance };
})();

if (typeof module !== "undefined") module.exports = Diffusion;
