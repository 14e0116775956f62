"""Judge an exported model without the training's code: load it, label the held-out digits, compare.

Exits with 0 when the accuracy is at least 0.97 and the labels are those that the training wrote down.
"""

import argparse
import json
import sys
from pathlib import Path

import onnxruntime
from digits import load_split

ACCURACY_MIN = 0.97


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="the ONNX file")
    parser.add_argument("metrics", type=Path, help="the metrics.json that the training wrote beside it")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    options = parser.parse_args()

    _, _, images, labels = load_split()
    metrics = json.loads(options.metrics.read_text())
    session = onnxruntime.InferenceSession(options.model.read_bytes(), providers=["CPUExecutionProvider"])
    (predicted,) = session.run(["label"], {"image": images})
    accuracy = float((predicted == labels).mean())
    result = {
        "held_out_accuracy": accuracy,
        "held_out_images": len(labels),
        "accuracy_min": ACCURACY_MIN,
        "labels_agree": predicted.tolist() == metrics["held_out_labels"],
        "weights_sha256": metrics["weights_sha256"],
    }
    if options.json:
        print(json.dumps(result))
    else:
        agree = "agree" if result["labels_agree"] else "DISAGREE"
        print(f"held-out accuracy {accuracy:.4f} on {len(labels)} digits (at least {ACCURACY_MIN} wanted)")
        print(f"labels {agree} with what the training wrote down")
    return 0 if accuracy >= ACCURACY_MIN and result["labels_agree"] else 1


if __name__ == "__main__":
    sys.exit(main())
