"""Train a digit classifier that can be stopped at any instant and ends with the same weights, bit for bit.

Everything the next step depends on is in the checkpoint: weights, momentum, and the state of the random
generator that draws the batches. One thread, for the order of a parallel sum is not fixed.

STEPS shortens the training; the learning rate falls to zero over that many steps.
"""

import os

# Before numpy is imported: its BLAS reads these once.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import hashlib
import itertools
import json
import time
from pathlib import Path

import numpy as np
from digits import CLASSES, IMAGE_SIDE, PIXEL_MAX, PIXELS, Images, Labels, load_split
from export import export_onnx
from numpy.typing import NDArray

import steersman_trainer as steer

SEED = 20
LAYERS = (PIXELS, 256, 128, CLASSES)
BATCH = 256
LEARNING_RATE = 0.05
MOMENTUM = np.float32(0.9)
WEIGHT_DECAY = np.float32(1e-4)
PIXEL_NOISE = np.float32(0.05)
EVALUATE_EVERY_STEPS = 100

Array = NDArray[np.float32]


class Model:
    """A multilayer perceptron with its optimiser and its dice: all of the training's state."""

    def __init__(self) -> None:
        self.rng = np.random.Generator(np.random.PCG64(SEED))
        self.parameters: list[Array] = []
        for rows, columns in itertools.pairwise(LAYERS):
            scale = np.sqrt(2.0 / rows)
            weights = self.rng.standard_normal((rows, columns)) * scale
            self.parameters += [weights.astype(np.float32), np.zeros(columns, np.float32)]
        self.momentum = [np.zeros_like(parameter) for parameter in self.parameters]

    def save(self, folder: Path) -> None:
        arrays = {f"parameter{i}": array for i, array in enumerate(self.parameters)}
        arrays |= {f"momentum{i}": array for i, array in enumerate(self.momentum)}
        np.savez(folder / "model.npz", allow_pickle=False, **arrays)
        (folder / "rng.json").write_text(json.dumps(self.rng.bit_generator.state))

    @classmethod
    def load(cls, folder: Path) -> "Model":
        model = cls()
        with np.load(folder / "model.npz", allow_pickle=False) as arrays:
            model.parameters = [arrays[f"parameter{i}"] for i in range(len(model.parameters))]
            model.momentum = [arrays[f"momentum{i}"] for i in range(len(model.momentum))]
        model.rng.bit_generator.state = json.loads((folder / "rng.json").read_text())
        return model

    def activations(self, inputs: Array) -> list[Array]:
        """The input of every layer, and last the logits; inputs are [n, 64] with pixels from 0 to 1."""
        found = [inputs]
        for i in range(0, len(self.parameters), 2):
            linear = found[-1] @ self.parameters[i] + self.parameters[i + 1]
            found.append(linear if i + 2 == len(self.parameters) else np.maximum(linear, 0))
        return found

    def predict(self, images: Images) -> Labels:
        logits = self.activations(images / np.float32(PIXEL_MAX))[-1]
        labels: Labels = np.argmax(logits, axis=1)
        return labels

    def learn(self, inputs: Array, labels: Labels, learning_rate: float) -> float:
        """One step of stochastic gradient descent with momentum; returns the batch's mean cross-entropy."""
        *layers, logits = self.activations(inputs)
        rows = np.arange(len(labels))
        probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        loss = -np.log(probabilities[rows, labels] + np.float32(1e-9)).mean()
        slope = probabilities
        slope[rows, labels] -= 1
        slope /= np.float32(len(labels))
        for layer in reversed(range(len(layers))):
            weights = self.parameters[2 * layer]
            gradients = (layers[layer].T @ slope, slope.sum(axis=0))
            slope = (slope @ weights.T) * (layers[layer] > 0)
            for offset, gradient in enumerate(gradients):
                self._move(2 * layer + offset, gradient, np.float32(learning_rate))
        return float(loss)

    def digest(self) -> str:
        """SHA-256 over the bytes of all weights: equal only when every bit is."""
        digest = hashlib.sha256()
        for parameter in self.parameters:
            digest.update(np.ascontiguousarray(parameter).tobytes())
        return digest.hexdigest()

    def _move(self, index: int, gradient: Array, learning_rate: np.float32) -> None:
        momentum, parameter = self.momentum[index], self.parameters[index]
        momentum *= MOMENTUM
        momentum += gradient + WEIGHT_DECAY * parameter
        parameter -= learning_rate * momentum


def draw_batch(rng: np.random.Generator, padded: Array, labels: Labels) -> tuple[Array, Labels]:
    """Random digits, each moved by up to one pixel, with a little noise; `padded` is [n, 10, 10], 0 to 1."""
    chosen = rng.integers(0, len(padded), BATCH)
    down, right = rng.integers(0, 3, (2, BATCH, 1))
    side = np.arange(IMAGE_SIDE)
    moved = padded[chosen[:, None, None], (down + side)[:, :, None], (right + side)[:, None, :]]
    noise = rng.standard_normal((BATCH, PIXELS), dtype=np.float32)
    return moved.reshape(BATCH, PIXELS) + noise * PIXEL_NOISE, labels[chosen]


def publish(model: Model, images: Images, labels: Labels, steps: int) -> None:
    """Write the model as ONNX and what it does on the held-out digits."""
    output = Path(os.environ.get("STEERSMAN_OUTPUT_DIR", "output"))
    output.mkdir(parents=True, exist_ok=True)
    export_onnx(model.parameters, output / "digits.onnx")
    predicted = model.predict(images)
    metrics = {
        "held_out_accuracy": float((predicted == labels).mean()),
        "held_out_labels": predicted.tolist(),
        "steps": steps,
        "weights_sha256": model.digest(),
    }
    (output / "metrics.json").write_text(json.dumps(metrics))
    print(f"held-out accuracy {metrics['held_out_accuracy']:.4f}, weights sha256 {metrics['weights_sha256']}")


def main() -> None:
    images, labels, held_out_images, held_out_labels = load_split()
    padded = np.pad(
        (images / np.float32(PIXEL_MAX)).reshape(-1, IMAGE_SIDE, IMAGE_SIDE), ((0, 0), (1, 1), (1, 1))
    )
    total = int(os.environ.get("STEPS", "12000"))
    with steer.start() as run:
        model = run.resume(Model.load) or Model()
        print(f"beginning at step {run.step} of {total}", flush=True)
        began = time.monotonic()
        for step in range(run.step, total):
            learning_rate = LEARNING_RATE * 0.5 * (1 + np.cos(np.pi * step / total))
            loss = model.learn(*draw_batch(model.rng, padded, labels), learning_rate)
            done = step + 1
            speed = (done - run.step) * BATCH / (time.monotonic() - began)
            run.report(step=done, loss=loss, samples_per_s=speed, total_steps=total)
            if done % EVALUATE_EVERY_STEPS == 0:
                accuracy = (model.predict(held_out_images) == held_out_labels).mean()
                run.report(step=done, accuracy=accuracy)
            run.checkpoint(done, model.save)
        publish(model, held_out_images, held_out_labels, total)
        run.complete()


if __name__ == "__main__":
    main()
