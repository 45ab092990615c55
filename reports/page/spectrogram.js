// Spectrograms of sounds, computed from the samples that the browser decodes.

const SPECTROGRAM_HZ = 16000;
const WINDOW = 512; // samples: 32 ms
const RANGE_DB = 55; // below the loudest level: what is darker is lost
const QUANTILE = 0.75; // of the levels: what is below is background

/** Return the samples of a sound, by its number, at SPECTROGRAM_HZ. */
async function decoded(sound) {
  const context = new OfflineAudioContext(1, 1, SPECTROGRAM_HZ);
  return (await context.decodeAudioData(bytesOf(sound).buffer)).getChannelData(0);
}

/** Transform real and imaginary parts in place (Cooley and Tukey, 1965); their length is a power of two. */
function transform(real, imaginary) {
  const size = real.length;
  for (let n = 1, m = 0; n < size; n += 1) {
    let bit = size >> 1;
    for (; m & bit; bit >>= 1) m ^= bit;
    m ^= bit;
    if (n < m) {
      [real[n], real[m]] = [real[m], real[n]];
      [imaginary[n], imaginary[m]] = [imaginary[m], imaginary[n]];
    }
  }
  for (let span = 1; span < size; span *= 2) {
    for (let k = 0; k < span; k += 1) {
      const angle = (-Math.PI * k) / span;
      const [cosine, sine] = [Math.cos(angle), Math.sin(angle)];
      for (let low = k; low < size; low += 2 * span) {
        const high = low + span;
        const re = cosine * real[high] - sine * imaginary[high];
        const im = cosine * imaginary[high] + sine * real[high];
        [real[high], imaginary[high]] = [real[low] - re, imaginary[low] - im];
        [real[low], imaginary[low]] = [real[low] + re, imaginary[low] + im];
      }
    }
  }
}

/** Return levels from 0 to 1 of `columns` moments, each from low to high frequencies: [columns * WINDOW / 2]. */
function spectrogramOf(samples, columns) {
  const bins = WINDOW / 2;
  const levels = new Float32Array(columns * bins);
  const taper = Float32Array.from({ length: WINDOW }, (_, n) => 0.5 - 0.5 * Math.cos((2 * Math.PI * n) / WINDOW));
  const [real, imaginary] = [new Float64Array(WINDOW), new Float64Array(WINDOW)];
  for (let column = 0; column < columns; column += 1) {
    const begin = Math.round(((column + 0.5) / columns) * samples.length - WINDOW / 2);
    for (let n = 0; n < WINDOW; n += 1) real[n] = (samples[begin + n] ?? 0) * taper[n];
    imaginary.fill(0);
    transform(real, imaginary);
    for (let bin = 0; bin < bins; bin += 1) {
      levels[column * bins + bin] = 10 * Math.log10(real[bin] ** 2 + imaginary[bin] ** 2 + 1e-10);
    }
  }
  const sorted = Float32Array.from(levels).sort();
  const high = sorted[sorted.length - 1];
  const low = Math.max(high - RANGE_DB, sorted[Math.floor(QUANTILE * sorted.length)]);
  return levels.map((level) => (high > low ? Math.min(1, Math.max(0, (level - low) / (high - low))) : 0));
}

/** Draw the spectrogram of samples over a canvas, low frequencies at the bottom. */
function drawSpectrogram(canvas, samples) {
  const context = sized(canvas);
  const bins = WINDOW / 2;
  const columns = Math.min(canvas.width, Math.ceil(samples.length / (WINDOW / 8)));
  const levels = spectrogramOf(samples, columns);
  const colours = scheme().map((text) => [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16)));
  const image = new ImageData(columns, bins);
  for (let column = 0; column < columns; column += 1) {
    for (let bin = 0; bin < bins; bin += 1) {
      const rgb = colours[Math.round(levels[column * bins + bin] * (colours.length - 1))];
      image.data.set([...rgb, 255], 4 * ((bins - 1 - bin) * columns + column));
    }
  }
  const plain = new OffscreenCanvas(columns, bins);
  plain.getContext("2d").putImageData(image, 0, 0);
  context.imageSmoothingQuality = "high";
  context.drawImage(plain, 0, 0, canvas.width, canvas.height);
}
