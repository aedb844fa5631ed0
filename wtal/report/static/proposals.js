"use strict";
// Scores to detections in the page: the same arithmetic, in the same order, as wtal/inference/detect.py.

const wtalProposals = (function () {
  // row.frame: base64 of little-endian float32 [T, V]; returns one Float32Array [T] a class.
  function decode(row, count) {
    const bytes = Uint8Array.from(atob(row.frame), (letter) => letter.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    const carried = row.T ? bytes.length / 4 / row.T : 0;
    const columns = Array.from({ length: count }, () => new Float32Array(row.T));
    for (let t = 0; t < row.T; t++) for (let c = 0; c < carried; c++) columns[c][t] = view.getFloat32(4 * (t * carried + c), true);
    return columns;
  }

  function detect(row, theta, data) {
    const found = [];
    const second = row.grid[2] / row.grid[0];
    row.scores.forEach((values, c) => {
      for (let t = 0; t < row.T; t++) {
        if (values[t] < theta) continue;
        const start = t;
        let top = values[t];
        while (t + 1 < row.T && values[t + 1] >= theta) top = Math.max(top, values[++t]);
        found.push([start * second, Math.min((t + 1) * second, row.duration), c, top]);
      }
    });
    return found.sort((a, b) => b[3] - a[3]);
  }

  const drawn = (row, c, data) => row.scores[c];
  const thresholds = (theta, data) => [theta === null ? data.threshold : theta];
  const thresholdText = (data) => data.threshold.toFixed(2);
  const firstClasses = (data, limit) => data.classes.map((_, c) => c).slice(0, limit);

  return { decode, detect, drawn, thresholds, thresholdText, firstClasses };
})();
