"""Bad input gets source, line, path, what, why and a hint; and several declarations must fit together."""

import pytest

from steersman.model.errors import SpecError
from steersman.spec.links import external_inputs
from steersman.spec.parse import Parsed, merge, parse


def refused(text: str) -> SpecError:
    with pytest.raises(SpecError) as caught:
        parse(text, "f.yaml")
    assert caught.value.code == "spec-invalid"
    assert caught.value.source == "f.yaml"
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("text", "path", "line", "hint"),
    [
        ("run: x\nrnu: y\n", "rnu", 2, "did you mean `run`?"),
        ("run: x\nresources:\n  cpu: 2\n", "resources.cpu", 3, "did you mean `cpus`?"),
        ("run: x\nresources:\n  gpus: A100\n", "resources.gpus", 3, "did you mean `accelerators`?"),
        ("run: x\nRun: y\n", "Run", 2, "did you mean `run`?"),
        ("run: x\ncommands: [a]\n", "commands", 2, "did you mean `run`?"),
        ("run: x\naccelerators: A100\n", "accelerators", 2, "belongs under `resources`"),
        ("run: x\nuse_spot: true\n", "use_spot", 2, "belongs under `resources`"),
        ("run: x\nresources: {num_nodes: 2}\n", "resources.num_nodes", 2, "stands beside `resources`"),
        ("run: x\nretry: {tries: 2}\n", "retry.tries", 2, "the keys here are: on_events, attempts"),
        ("run: x\ncheckpoint: {every: 2m}\n", "checkpoint.every", 2, "did you mean `interval`?"),
        ("run: x\nzzzzqq: 2m\n", "zzzzqq", 2, "the keys here are: "),
        ("kind: fleet\nnods: []\n", "nods", 2, "did you mean `nodes`?"),
    ],
)
def test_unknown_keys_have_path_line_and_nearest_key(text: str, path: str, line: int, hint: str) -> None:
    error = refused(text)
    assert (error.path, error.line) == (path, line)
    assert "is not a key of" in error.message
    assert hint in error.hint


def test_an_unknown_key_may_be_huge_or_full_of_escapes() -> None:
    error = refused('run: x\n"' + "k\\e" * 1000 + '": y\n')
    assert len(str(error)) < 2_000
    assert "\x1b" not in str(error)
    assert len(error.path) < 500
    assert len(str(refused(f"run: x\n? {'y' * 100_000}\n: 1\n"))) < 2_000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: a\n", "a pipeline of SkyPilot"),
        ("name: a\nsetup: x\n", "`run` is missing in a job"),
        ("name: a\nrun:\n", "nothing stands here"),
        ("name: a\nrun: ''\n", "a shell command must not be empty"),
        ("name: a\nrun: '  '\n", "a shell command must not be empty"),
        ("name: a\nrun: [x]\n", "a shell command is wanted here, and this is a list"),
        ('name: a\nrun: "a\\0b"\n', "holds a control character"),
        ("name:\nrun: x\n", "nothing stands here"),
        ("", "nothing is declared here"),
        ("# only words\n---\n", "nothing is declared here"),
        ("just words\n", "a declaration is a mapping of keys, and this is 'just words'"),
        ("- name: a\n", "a declaration is a mapping of keys, and this is a list"),
        ("kind: jobs\nrun: x\n", "'jobs' is not a kind of declaration"),
        ("kind: [job]\nrun: x\n", "a kind of declaration is wanted here, and this is a list"),
        ("run: x\nnum_nodes: 0\n", "'0' is out of range"),
        ("run: x\nnum_nodes: -1\n", "'-1' is out of range"),
        ("run: x\nnum_nodes: 1e3\n", "'1e3' is not a number of ranks"),
        ("run: x\nnum_nodes: .nan\n", "'.nan' is not a number of ranks"),
        ("run: x\nnum_nodes: 1.5\n", "'1.5' is not a number of ranks"),
        ("run: x\nnum_nodes: '2'\n", "this is a string"),
        ("run: x\nnum_nodes: 010\n", "leading zero"),
        ("run: x\nnum_nodes: 0x10\n", "is not a number of ranks"),
        ("run: x\nnum_nodes: 1_0\n", "is not a number of ranks"),
        ("run: x\nnum_nodes: 1:30\n", "is not a number of ranks"),
        (f"run: x\nnum_nodes: {'9' * 5000}\n", "is out of range"),
        ("run: x\npriority: urgently\n", "is not a priority"),
        ("run: x\npriority: 1001\n", "is out of range"),
        ("run: x\nmax_duration: 0\n", "more than zero"),
        ("run: x\nmax_duration: 5 fortnights\n", "is not a duration"),
        ("run: x\nmax_duration: 1:30\n", "is not a duration"),
        ("run: x\nstop_duration: off\n", "is not a duration"),
        ("run: x\nenvs: [A=b]\n", "environment variables are written as `NAME: value`"),
        ("run: x\nenvs: {A: }\n", "nothing stands here"),
        ("run: x\nenvs: {A: [b]}\n", "is wanted here, and this is a list"),
        ("run: x\nenvs: {A-B: c}\n", "'A-B' cannot be the name of an environment variable"),
        ("run: x\nenvs: {1A: c}\n", "cannot be the name"),
        ("run: x\nenvs: {STEERSMAN_RUN_ID: c}\n", "variables that begin with STEERSMAN_"),
        ("run: x\nsecrets: [STEERSMAN_X]\n", "variables that begin with STEERSMAN_"),
        ('run: x\nenvs: {A: "a\\0b"}\n', "holds a control character"),
        (f"run: x\nenvs: {{A: {'x' * 65_537}}}\n", "longer than 65,536 characters"),
        ("run: x\nenvs:\n" + "".join(f"  A{n}: b\n" for n in range(1001)), "more than 1,000 environment"),
        ("run: x\nenvs: {A: b}\nsecrets: [A]\n", "stands among `envs` and among `secrets`"),
        ("run: x\nsecrets: [A, A]\n", "one variable stands twice"),
        ("run: x\nsecrets: A\n", "secrets are a list of names or a mapping"),
        ("run: x\nsecrets: [[A]]\n", "the name of a secret is wanted here"),
        (f"run: x\nsecrets: [{', '.join(f'A{n}' for n in range(1001))}]\n", "more than 1,000 secrets"),
        ("run: x\nretry: 3\n", "`retry` is a mapping of keys, and this is '3'"),
        ("run: x\nretry: 'true'\n", "`retry` is a mapping of keys"),
        ("run: x\nretry: {on_events: error}\n", "a list of events is wanted here"),
        ("run: x\nretry: {on_events: [errors]}\n", "'errors' is not an event"),
        ("run: x\nretry: {attempts: 0}\n", "out of range"),
        ("run: x\nretry: {exit_codes: {retry: [0]}}\n", "out of range for an exit code of a failure"),
        ("run: x\nretry: {exit_codes: {retry: [256]}}\n", "out of range"),
        ("run: x\nretry: {exit_codes: {retry: [3], fatal: [3]}}\n", "the exit code 3 stands among"),
        ("run: x\ncheckpoint:\n", "`checkpoint` is a mapping of keys, and this is nothing"),
        ("run: x\ncheckpoint: {interval: often}\n", "is not a duration"),
        ("run: x\ncheckpoint: {interval: 1s, min: 2s}\n", "`min` is 2s, and `interval` is less, 1s"),
        ("run: x\ncheckpoint: {min: 2h, max: 1h}\n", "`min` is 2h, and `max` is less, 1h"),
        ("run: x\ncheckpoint: {keep: 0}\n", "out of range"),
        ("run: x\ninputs: {A: w}\n", "'w' names no artifact"),
        ("run: x\ninputs: {A: w/a/b}\n", "'a/b' cannot be the name of an artifact"),
        ("run: x\ninputs: {A: W/a}\n", "'W' cannot be a name"),
        ("run: x\ninputs: {A: [w]}\n", "`workload/artifact` is wanted here"),
        ("run: x\ninputs: {A: {workload: w}}\n", "`artifact` is missing in an input"),
        ("run: x\ninputs: {A-B: w/a}\n", "'A-B' cannot be the name of an input"),
        ("run: x\ninputs: {a: w/a, A: w/b}\n", "would share one environment variable"),
        ("run: x\nartifacts: {m: /etc/passwd}\n", "is not a relative path"),
        ("run: x\nartifacts: {m: ~/x}\n", "is not a relative path"),
        ("run: x\nartifacts: {m: 'a\\b'}\n", "is not a relative path"),
        ("run: x\nartifacts: {m: ../x}\n", "holds an empty part, `.` or `..`"),
        ("run: x\nartifacts: {m: a/../../x}\n", "holds an empty part, `.` or `..`"),
        ("run: x\nartifacts: {m: a//x}\n", "holds an empty part"),
        ("run: x\nartifacts: {m: ./x}\n", "holds an empty part"),
        ("run: x\nartifacts: {m: a/}\n", "holds an empty part"),
        ('run: x\nartifacts: {m: "a\\0b"}\n', "holds a control character"),
        ("run: x\nartifacts: {a/b: c}\n", "'a/b' cannot be the name of an artifact"),
        ("run: x\nlabels: {a b: c}\n", "'a b' cannot be the name of a label"),
        ('run: x\nlabels: {a: "b\\nc"}\n', "holds a control character"),
        ("run: x\nowner: ''\n", "an owner must not be empty"),
        ("run: x\nqueue: A\n", "'A' cannot be a name"),
        ('run: x\nworkdir: "a\\tb"\n', "holds a control character"),
        ("run: x\nports: {a: 1}\n", "a port is wanted here, and this is a mapping"),
        (
            "run: x\nresources: {accelerators: {" + ", ".join(f"a{n}: 1" for n in range(1001)) + "}}\n",
            "1,000 kinds",
        ),
        ("run: x\nports: [" + "1, " * 1001 + "]\n", "a list of ports holds at most 1,000"),
    ],
)
def test_bad_jobs(text: str, words: str) -> None:
    error = refused_any(text)
    assert words in error.message
    assert error.source == "f.yaml"
    assert error.hint


def refused_any(text: str) -> SpecError:
    with pytest.raises(SpecError) as caught:
        parse(text, "f.yaml")
    return caught.value


@pytest.mark.parametrize(
    "name",
    [
        "a/b", "../a", "a.b", "A.b", "-a", "a-", "_a", "\u212a", "a b",
        "x" * 64, '"a\\nb"', '"a\\eb"', '"a\\u202eb"',
        '"a\\u2028b"', "é", "a\\b", "''", "a:b", "${x}",
    ],
)  # fmt: skip
def test_names_with_separators_or_control_characters(name: str) -> None:
    error = refused(f"name: {name}\nrun: x\n")
    assert error.path == "name"
    assert "\x1b" not in str(error)
    assert "\u202e" not in str(error)


@pytest.mark.parametrize("name", ["a", "0", "x" * 63, "a-b-1", "no", "0x10", "123", "on"])
def test_names_that_other_readers_of_yaml_would_change_stay_what_they_are(name: str) -> None:
    assert parse(f"name: {name}\nrun: x\n", "f").workloads[0].name == name


def test_two_workloads_of_one_name_in_a_file() -> None:
    error = refused("name: a\nrun: x\n---\nname: a\nrun: y\n")
    assert "two workloads called 'a' are declared, in f.yaml:1 and in f.yaml:4" in error.message
    assert error.line == 4


def test_two_jobs_without_a_name_in_a_file() -> None:
    assert "a document without `name` is called after its file" in refused("run: x\n---\nrun: y\n").hint


def files(*texts: str) -> list[Parsed]:
    return [parse(text, f"dir/{index}.yaml") for index, text in enumerate(texts)]


def test_two_workloads_of_one_name_in_a_folder_name_both_files() -> None:
    with pytest.raises(SpecError, match=r"in dir/0.yaml:1 and in dir/1.yaml:2"):
        merge(files("name: a\nrun: x\n", "\nname: a\nrun: x\n"))
    once = parse("name: a\nrun: x\n", "f")
    with pytest.raises(SpecError, match="two workloads called 'a'"):
        merge([once, once])


def test_two_fleets_name_both_files() -> None:
    fleet = "kind: fleet\nnodes: [{name: n, cpus: 1, memory: 1}]\n"
    with pytest.raises(SpecError, match=r"two fleets are declared, in dir/0.yaml:1 and in dir/1.yaml:1"):
        merge(files(fleet, fleet))
    with pytest.raises(SpecError, match="two fleets"):
        parse(f"{fleet}---\n{fleet}", "f.yaml")


def test_merge_keeps_everything_in_order() -> None:
    fleet = "kind: fleet\nname: f\nnodes: [{name: n, cpus: 1, memory: 1}]\n"
    merged = merge(files("name: b\nrun: x\ncarbon: 1\n", fleet, "name: a\nrun: x\nslo: 1\n"))
    assert [workload.name for workload in merged.workloads] == ["b", "a"]
    assert [str(origin) for origin in merged.origins] == ["dir/0.yaml:1", "dir/2.yaml:1"]
    assert merged.fleet is not None
    assert str(merged.fleet_origin) == "dir/1.yaml:1"
    assert [warning.split(":")[0] for warning in merged.warnings] == ["dir/0.yaml", "dir/2.yaml"]
    assert merge([]) == Parsed()
    assert merge([merged]) == merged


def test_an_input_of_an_artifact_that_its_workload_does_not_leave() -> None:
    with pytest.raises(SpecError, match="'b' needs 'model' of 'a', which leaves no such") as caught:
        merge(files("name: a\nrun: x\nartifacts: {log: l}\n", "name: b\nrun: x\ninputs: {M: a/model}\n"))
    assert caught.value.hint == "its artifacts are: log"
    assert caught.value.path == "inputs.M"
    assert caught.value.source == "dir/1.yaml"
    with pytest.raises(SpecError) as caught:
        merge(files("name: a\nrun: x\n", "name: b\nrun: x\ninputs: {M: a/model}\n"))
    assert caught.value.hint == "its artifacts are: none"


def test_an_input_of_a_workload_that_is_not_here_is_left_to_the_caller() -> None:
    merged = merge(
        files(
            "name: b\nrun: x\ninputs: {M: other/model, L: a/log}\n", "name: a\nrun: x\nartifacts: {log: l}\n"
        )
    )
    assert [(name, each.name, each.workload) for name, each in external_inputs(merged.workloads)] == [
        ("b", "M", "other")
    ]


def chained(*edges: tuple[str, str]) -> list[str]:
    names = sorted({name for edge in edges for name in edge})
    return [
        f"name: {name}\nrun: x\nartifacts: {{o: o}}\ninputs: "
         "{" + ", ".join(f"I{n}: {b}/o" for n, (a, b) in enumerate(edges) if a == name) + "}\n"
        for name in names
    ]  # fmt: skip


def test_circles_are_refused_and_named() -> None:
    with pytest.raises(SpecError, match="a → a"):
        parse(chained(("a", "a"))[0], "f.yaml")
    with pytest.raises(SpecError, match="wait for one another: b → c → d → b") as caught:
        merge(files(*chained(("a", "b"), ("b", "c"), ("c", "d"), ("d", "b"))))
    assert caught.value.source == "dir/1.yaml"
    diamond = chained(("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("e", "a"))
    assert len(merge(files(*diamond)).workloads) == 5


def test_a_long_chain_does_not_meet_the_stack() -> None:
    chain = chained(*((f"w{n:05d}", f"w{n + 1:05d}") for n in range(3000)))
    assert len(merge(files(*chain)).workloads) == 3001
    chain[-1] = chain[-1].replace("inputs: {}", "inputs: {I: w00000/o}")
    with pytest.raises(SpecError, match="wait for one another"):
        merge(files(*chain))
