"""Shapes with a meaning of their own: accelerators, infrastructure, secrets, inputs, paths, retry rules.

Each follows the words of the tool it comes from; what that tool can and Steersman cannot yet is refused with
the code ``not-yet`` or warned about, here, where it is read. No error of `Secrets` repeats what was written.
"""

import re
from collections.abc import Mapping

import msgspec

from steersman.model.ids import WorkloadName
from steersman.model.workload import Retry, RetryEvent, SecretRef
from steersman.spec.nodes import ListNode, MapNode, Node, ScalarNode, is_null, plain
from steersman.spec.place import Place, show
from steersman.spec.sections import Fields, Nested, Section
from steersman.spec.shapes import ITEMS_MAX, SCALAR_TYPES, JsonSchema, Text, scalar_text

PATH_CHARS_MAX = 1_024
"""The longest path of an artifact, in characters."""
ENV_RESERVED = "STEERSMAN_"
"""Variables that begin so are Steersman's own words to the job."""

NAME_PATTERN = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
NAME_RULE = "use 1 to 63 of a-z, 0-9 and `-`, with a letter or digit at both ends"
ENV_PATTERN = "[A-Za-z_][A-Za-z0-9_]{0,127}"
SECRET_PATTERN = "[A-Za-z_][A-Za-z0-9_-]{0,62}"  # noqa: S105 - the form of a secret's name, not a secret
ITEM_PATTERN = "[A-Za-z0-9]([A-Za-z0-9._-]{0,62})"
LABEL_PATTERN = "[A-Za-z0-9]([A-Za-z0-9._/-]{0,126})"
INPUT_PATTERN = "[A-Za-z][A-Za-z0-9_]{0,62}"

NAME = Text(what="a name", pattern=NAME_PATTERN, rule=NAME_RULE)
ARTIFACT_NAME = Text(
    what="the name of an artifact",
    pattern=ITEM_PATTERN,
    rule="use letters, digits, `.`, `_` and `-`, a letter or digit first",
)
LABEL_NAME = Text(
    what="the name of a label", pattern=LABEL_PATTERN, rule="use letters, digits, `.`, `_`, `/` and `-`"
)
INPUT_NAME = Text(
    what="the name of an input",
    pattern=INPUT_PATTERN,
    rule="use letters, digits and `_`, a letter first: it becomes STEERSMAN_INPUT_<NAME>",
)
LABEL_VALUE = Text(what="a label's value", empty=True)
ENV_VALUE = Text(what="the value of an environment variable", chars_max=65_536, block=True, empty=True)

_ENV_TEXT = Text(
    what="the name of an environment variable",
    pattern=ENV_PATTERN,
    rule="use letters, digits and `_`, no digit first",
)
_TOKEN_PREFIX = re.compile(
    r"(hf_|sk[-_]|pk_|gh[pos]_|github_pat_|glpat-|xox[a-z]-|AKIA|ASIA|AIza|eyJ|npm_|pypi-)[A-Za-z0-9_-]{12,}"
)
_TOKEN_RUN = re.compile(r"[A-Za-z0-9]{16,}")
_SECRETIVE = re.compile(
    r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY)(_|$)", re.I
)


class DeclaredName(msgspec.Struct, frozen=True, kw_only=True):
    """A name of the user's choice. Capitals and ``_`` become small letters and ``-``, with a warning."""

    def read(self, node: Node, place: Place) -> str:
        text = Text(what="a name").read(node, place)
        name = text.lower().replace("_", "-")
        if name == text or not text.isascii() or re.fullmatch(NAME_PATTERN, name) is None:
            return NAME.read(node, place)
        place.warn(node.line, f"{text!r} is called {name!r} here: names are small letters, digits and `-`")
        return name

    def schema(self) -> JsonSchema:
        return {**NAME.schema(), "pattern": "^[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?$"}


class EnvName(msgspec.Struct, frozen=True, kw_only=True):
    """The name of an environment variable that is the user's own."""

    def read(self, node: Node, place: Place) -> str:
        name = _ENV_TEXT.read(node, place)
        if name.startswith(ENV_RESERVED):
            raise place.error(
                node.line,
                f"variables that begin with {ENV_RESERVED} are set by Steersman",
                "choose another name for yours",
            )
        return name

    def schema(self) -> JsonSchema:
        return _ENV_TEXT.schema()


ENV_NAME = EnvName()
DECLARED_NAME = DeclaredName()


INFRA_PATTERN = f"local|ray(?:/{NAME_PATTERN})?"
NODE_INFRA_PATTERN = "local"


class Infra(msgspec.Struct, frozen=True, kw_only=True):
    """Where it runs: ``local``, ``ray`` or one cluster, ``ray/gpu``; SkyPilot's clouds are not built yet.

    `anywhere` is for alternatives: editors accept any name there, for another alternative may be taken.
    `node`: it is a node's own, which no cluster is.
    """

    anywhere: bool = False
    node: bool = False

    def read(self, node: Node, place: Place) -> str:
        text = scalar_text(node, place, "the name of an infrastructure")
        if re.fullmatch(self._pattern, text):
            return text
        if self.node and text.partition("/")[0] == "ray":
            raise place.error(
                node.line,
                "the nodes of a Ray cluster are found, not declared",
                "beside `nodes` declare `clusters: [{name: gpu, infra: ray, address: HOST:6379}]`",
            )
        raise place.not_yet(
            node.line,
            f"the infrastructure {show(text)} is not built yet",
            "write `infra: local`"
            + ("" if self.node else ", `infra: ray` or `infra: ray/CLUSTER`")
            + ", or remove the key",
        )

    @property
    def _pattern(self) -> str:
        return NODE_INFRA_PATTERN if self.node else INFRA_PATTERN

    def schema(self) -> JsonSchema:
        return {"type": SCALAR_TYPES} if self.anywhere else {"pattern": f"^(?:{self._pattern})$"}


class RuntimeEnv(msgspec.Struct, frozen=True, kw_only=True):
    """What Ray makes the environment of its workers of: a mapping of Ray's own keys, as JSON."""

    def read(self, node: Node, place: Place) -> str:
        if not isinstance(node, MapNode):
            raise place.error(
                node.line, "a `runtime_env` is a mapping", "write `runtime_env: {pip: [torch]}`"
            )
        for entry in node.entries:
            taken = RUNTIME_ENV_TAKEN.get(entry.key.text)
            if taken is not None:
                raise place.at(entry.key.text).error(
                    entry.key.line, f"`{entry.key.text}` is set by Steersman", taken
                )
        value = plain(node)
        assert isinstance(value, dict), "a mapping is one"
        variables = value.get("env_vars")
        for name in variables if isinstance(variables, dict) else ():
            if _SECRETIVE.search(name):
                place.at("env_vars").warn(
                    node.line, f"{name!r} looks like a secret: whoever opens the dashboard reads it here"
                )
        return msgspec.json.encode(value, order="sorted").decode()

    def schema(self) -> JsonSchema:
        return {"type": "object"}


RUNTIME_ENV_TAKEN: Mapping[str, str] = {
    "working_dir": "give a job its `workdir`",
    "py_modules": "put the modules into the job's `workdir`, or install them by `pip`",
}
RUNTIME_ENV = RuntimeEnv()


class Workdir(msgspec.Struct, frozen=True, kw_only=True):
    """A folder on this machine, as text: the app resolves and checks it."""

    def read(self, node: Node, place: Place) -> str:
        if isinstance(node, MapNode) or (isinstance(node, ScalarNode) and "://" in node.text):
            raise place.not_yet(
                node.line,
                "a workdir that is fetched from elsewhere is not built yet",
                "give a folder of this machine",
            )
        return Text(what="a folder", chars_max=PATH_CHARS_MAX).read(node, place)

    def schema(self) -> JsonSchema:
        return {"type": SCALAR_TYPES, "minLength": 1, "maxLength": PATH_CHARS_MAX}


class RelativePath(msgspec.Struct, frozen=True, kw_only=True):
    """A path below a folder that Steersman chooses: it cannot lead out of it."""

    def read(self, node: Node, place: Place) -> str:
        text = Text(what="a path", chars_max=PATH_CHARS_MAX).read(node, place)
        hint = "write a path below STEERSMAN_OUTPUT_DIR, as `model.onnx` or `out/model.onnx`"
        if text.startswith(("/", "~")) or "\\" in text:
            raise place.error(node.line, f"{show(text)} is not a relative path", hint)
        if any(part in {"", ".", ".."} for part in text.split("/")):
            raise place.error(node.line, f"{show(text)} holds an empty part, `.` or `..`", hint)
        return text

    def schema(self) -> JsonSchema:
        return {"type": SCALAR_TYPES, "maxLength": PATH_CHARS_MAX}


class Secrets(msgspec.Struct, frozen=True, kw_only=True):
    """``[NAME, …]`` or ``{VARIABLE: secret-name, …}``; null means the secret named as the variable.

    SkyPilot takes the value itself here. It must never enter the journal, so what looks like a value is
    refused, and no message repeats it.
    """

    def read(self, node: Node, place: Place) -> tuple[SecretRef, ...]:
        if is_null(node):
            return ()
        if isinstance(node, ScalarNode):
            raise place.error(
                node.line, "secrets are a list of names or a mapping", "write `secrets: [NAME]`"
            )
        pairs: list[tuple[str, Node | None, int]]
        if isinstance(node, ListNode):
            pairs = [
                (scalar_text(item, place, "the name of a secret"), None, item.line) for item in node.items
            ]
        else:
            pairs = [(entry.key.text, entry.value, entry.key.line) for entry in node.entries]
        if len(pairs) > ITEMS_MAX:
            raise place.error(node.line, f"there are more than {ITEMS_MAX:,} secrets", "give fewer")
        references = [self._reference(*pair, place) for pair in pairs]
        names = [reference.env for reference in references]
        if len(set(names)) < len(names):
            raise place.error(node.line, "one variable stands twice among the secrets", "keep one of them")
        return tuple(sorted(references, key=lambda reference: reference.env))

    def _reference(self, env: str, value: Node | None, line: int, place: Place) -> SecretRef:
        if re.fullmatch(ENV_PATTERN, env) is None or looks_like_secret(env):
            raise place.error(
                line,
                "this cannot be a variable's name (it is not repeated here: it may be a secret's value)",
                "write `secrets: [NAME]`, and give the value with `steer secret set NAME`",
            )
        ENV_NAME.read(ScalarNode(text=env, plain=False, line=line), place.at(env))
        if value is None or is_null(value):
            return SecretRef(env=env, secret=env)
        if not isinstance(value, ScalarNode) or not _is_secret_name(value.text):
            raise place.at(env).error(
                line,
                "the value of a secret must not stand in a file (it is not repeated here)",
                f"give it with `steer secret set {env}`, and write `secrets: [{env}]`",
            )
        return SecretRef(env=env, secret=value.text)

    def schema(self) -> JsonSchema:
        name: JsonSchema = {"type": SCALAR_TYPES, "pattern": f"^{SECRET_PATTERN}$"}
        variable: JsonSchema = {"type": SCALAR_TYPES, "pattern": f"^{ENV_PATTERN}$"}
        return {
            "anyOf": [
                {"type": "array", "items": variable},
                {
                    "type": "object",
                    "propertyNames": {"pattern": f"^{ENV_PATTERN}$"},
                    "additionalProperties": {"anyOf": [name, {"type": "null"}]},
                },
                {"type": "null"},
            ]
        }


class InputSource(msgspec.Struct, frozen=True, kw_only=True):
    """``workload/artifact``, or both as keys; read as (workload, artifact)."""

    section: Section

    def read(self, node: Node, place: Place) -> tuple[WorkloadName, str]:
        if isinstance(node, MapNode):
            fields = Nested(section=self.section).read(node, place)
            workload, artifact = (fields.require(key) for key in self.section.keys)
            return WorkloadName(str(workload)), str(artifact)
        text = scalar_text(node, place, "`workload/artifact`")
        workload_text, slash, artifact_text = text.partition("/")
        if not slash:
            raise place.error(node.line, f"{show(text)} names no artifact", "write `workload/artifact`")
        parts = [
            ScalarNode(text=part, plain=False, line=node.line) for part in (workload_text, artifact_text)
        ]
        return WorkloadName(NAME.read(parts[0], place)), ARTIFACT_NAME.read(parts[1], place)

    def schema(self) -> JsonSchema:
        return {
            "anyOf": [{"type": "string", "pattern": "^[^/]+/[^/]+$"}, Nested(section=self.section).schema()]
        }


class RetryRule(msgspec.Struct, frozen=True, kw_only=True):
    """dstack's ``retry``: true (every event), false (none) or its keys."""

    section: Section
    every: tuple[RetryEvent, ...]

    def read(self, node: Node, place: Place) -> Retry | Fields:
        if isinstance(node, ScalarNode) and node.plain and node.text in {"true", "false"}:
            return Retry(on_events=self.every if node.text == "true" else ())
        return Nested(section=self.section).read(node, place)

    def schema(self) -> JsonSchema:
        return {"anyOf": [{"type": "boolean"}, Nested(section=self.section).schema()]}


def sounds_secret(env: str) -> bool:
    """Whether a variable is called like something that should be a secret."""
    return _SECRETIVE.search(env) is not None


def looks_like_secret(text: str) -> bool:
    """Whether a text looks like a secret's value and not like its name: a known prefix, or random characters.

    A long run of letters and digits is random when it mixes in digits, or cases within a word.
    """
    if _TOKEN_PREFIX.match(text):
        return True
    return any(_is_random(run) for run in _TOKEN_RUN.findall(text))


def _is_random(run: str) -> bool:
    digits = sum(char.isdigit() for char in run)
    return digits >= 2 or not (run.islower() or run.isupper())


def _is_secret_name(text: str) -> bool:
    return re.fullmatch(SECRET_PATTERN, text) is not None and not looks_like_secret(text)
