"""The trainer SDK repeats the run directory's names, for it may not import Steersman: they are compared."""

import ast
import sys
from pathlib import Path

import steersman_trainer
from steersman.ports import run_dir
from steersman_trainer import manifest, names
from steersman_trainer.manifest import FileEntry, Manifest

SOURCES = sorted(Path(steersman_trainer.__file__).parent.glob("*.py"))
COPIES = {name: value for name, value in vars(names).items() if name.isupper()}


def test_every_copied_name_equals_the_original() -> None:
    originals = {name: getattr(run_dir, name, None) for name in COPIES}
    assert originals == COPIES


def test_the_names_a_trainer_meets_are_all_there() -> None:
    assert {"STOP", "INTERVAL", "PROGRESS", "MANIFEST", "CHECKPOINT_PREFIX", "EXIT_YIELDED"} <= set(COPIES)
    assert {"ENV_RUN_DIR", "ENV_CHECKPOINT_DIR", "ENV_DOORBELL", "ENV_NODE_RANK"} <= set(COPIES)


def test_a_manifest_has_the_fields_that_the_contract_names() -> None:
    entry = FileEntry(sha256="0" * 64, size=1)
    text = manifest.encode_manifest(Manifest(step=1, at_ms=2, save_ms=3, run="r", files={"f": entry}))
    contract = run_dir.__doc__ or ""
    for word in ("format", "step", "at_ms", "save_ms", "run", "files", "sha256", "size"):
        assert f'"{word}"' in text.decode()
        assert f'"{word}"' in contract


def test_the_sdk_imports_the_standard_library_and_itself_only() -> None:
    allowed = {*sys.stdlib_module_names, "steersman_trainer"}
    for source in SOURCES:
        for node in ast.walk(ast.parse(source.read_text())):
            found: list[str] = []
            if isinstance(node, ast.Import):
                found = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                found = [node.module or ""]
            assert {name.split(".")[0] for name in found} <= allowed, source.name


def test_the_sdk_is_written_in_the_grammar_of_python_3_9() -> None:
    for source in SOURCES:
        tree = ast.parse(source.read_text(), feature_version=(3, 9))
        imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
        # Without it `X | None` in an annotation is evaluated, and fails before Python 3.10.
        postponed = any(node.module == "__future__" for node in imports)
        assert postponed or source.name == "__init__.py", source.name
