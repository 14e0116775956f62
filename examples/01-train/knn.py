"""The urgent job: what does the plain nearest-neighbour rule reach? Ten-fold cross-validation, a few seconds.

Every training digit is also known in its 24 versions moved by up to two pixels. The held-out digits are not
touched.
"""

import os

# Before numpy is imported: its BLAS reads these once.
os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import json
from pathlib import Path

import numpy as np
from digits import CLASSES, IMAGE_SIDE, PIXELS, Images, Labels, load_split

import steersman_trainer as steer

FOLDS = 10
SHIFT_MAX = 2
NEIGHBOURS = (1, 3, 5, 7, 9)


def moved_versions(images: Images) -> Images:
    """All versions of all images: [versions × n, 64]."""
    padded = np.pad(images.reshape(-1, IMAGE_SIDE, IMAGE_SIDE), ((0, 0), *[(SHIFT_MAX, SHIFT_MAX)] * 2))
    offsets = range(2 * SHIFT_MAX + 1)
    versions = [
        padded[:, down : down + IMAGE_SIDE, right : right + IMAGE_SIDE].reshape(-1, PIXELS)
        for down in offsets
        for right in offsets
    ]
    return np.concatenate(versions)


def count_right(known: Images, known_labels: Labels, asked: Images, asked_labels: Labels) -> dict[int, int]:
    """How many of the asked digits each number of neighbours labels right."""
    references = moved_versions(known)
    labels = np.tile(known_labels, len(references) // len(known))
    distances = (references**2).sum(axis=1) - 2 * (asked @ references.T)
    nearest = np.argsort(distances, axis=1, kind="stable")[:, : max(NEIGHBOURS)]
    right = {}
    for count in NEIGHBOURS:
        votes = np.eye(CLASSES, dtype=np.int64)[labels[nearest[:, :count]]].sum(axis=1)
        right[count] = int((votes.argmax(axis=1) == asked_labels).sum())
    return right


def main() -> None:
    images, labels, _, _ = load_split()
    fold_of = np.arange(len(images)) % FOLDS
    right = dict.fromkeys(NEIGHBOURS, 0)
    with steer.start() as run:
        for fold in range(FOLDS):
            asked = fold_of == fold
            found = count_right(images[~asked], labels[~asked], images[asked], labels[asked])
            right = {count: right[count] + found[count] for count in NEIGHBOURS}
            run.report(step=fold + 1, total_steps=FOLDS)
        accuracy = {str(count): right[count] / len(images) for count in NEIGHBOURS}
        output = Path(os.environ.get("STEERSMAN_OUTPUT_DIR", "output"))
        output.mkdir(parents=True, exist_ok=True)
        (output / "report.json").write_text(json.dumps({"folds": FOLDS, "accuracy_by_neighbours": accuracy}))
        print("cross-validated accuracy by neighbours:", accuracy)
        run.complete()


if __name__ == "__main__":
    main()
