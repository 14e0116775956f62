"""The data set: scikit-learn's handwritten digits, and the part of it that no training ever sees."""

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

IMAGE_SIDE = 8
PIXELS = IMAGE_SIDE * IMAGE_SIDE
PIXEL_MAX = 16
CLASSES = 10
HELD_OUT = 360
SPLIT_SEED = 7

Images = NDArray[np.float32]
Labels = NDArray[np.int64]


def load_split() -> tuple[Images, Labels, Images, Labels]:
    """Training images and labels, held-out images and labels; images are [n, 64] with pixels from 0 to 16."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(images))
    images, labels = images[order].astype(np.float32), labels[order].astype(np.int64)
    return images[HELD_OUT:], labels[HELD_OUT:], images[:HELD_OUT], labels[:HELD_OUT]
