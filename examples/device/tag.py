"""Tag a recording with a file written by `satpipe export`, and print the rows of `satpipe tag`.

`python tag.py MODEL.onnx RECORDING.wav` needs numpy, onnxruntime and soundfile, but neither satpipe nor torch.
"""

import csv
import json
import sys

import numpy as np
import onnxruntime
import soundfile

THRESHOLD, TOP_K = 0.1, 10

session = onnxruntime.InferenceSession(sys.argv[1])
about = session.get_modelmeta().custom_metadata_map
rate_hz, before = int(about["rate_hz"]), int(about["before_samples"])
chunk_samples, window_samples = int(about["chunk_samples"]), int(about["window_samples"])
labels = json.loads(about["labels"])  # mid and name of each score

samples, file_rate_hz = soundfile.read(sys.argv[2], dtype="float32", always_2d=True)
if file_rate_hz != rate_hz:
    sys.exit(f"{sys.argv[2]} has a sampling rate of {file_rate_hz} Hz: resample it to {rate_hz} Hz")
samples = samples.mean(axis=1)
padded = np.pad(samples, (before, window_samples))  # the padding does not affect the scores

# Streaming models have a memory; its initial content does not affect the scores either.
names = [i.name for i in session.get_inputs()]  # samples, length, chunk, memory
memory = [np.zeros(i.shape, np.float32) for i in session.get_inputs() if i.name == "memory"]
rows = csv.writer(sys.stdout)
rows.writerow(["chunk", "start_s", "end_s", "mid", "label", "score"])
for chunk, start in enumerate(range(0, len(samples), chunk_samples)):
    window = padded[start : start + window_samples]
    inputs = [window, np.array([len(samples) - start]), np.array([chunk]), *memory]
    scores, *memory = session.run(None, dict(zip(names, inputs, strict=True)))
    for k in np.argsort(-scores, kind="stable")[:TOP_K]:
        if scores[k] >= THRESHOLD:
            end_s = min(start + chunk_samples, len(samples)) / rate_hz
            rows.writerow([chunk, start / rate_hz, end_s, *labels[k], scores[k]])
