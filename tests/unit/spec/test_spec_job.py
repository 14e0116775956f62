"""Every key of a job: what it becomes, and what is said of those that are not honoured."""

import pytest
from msgspec.structs import replace

from steersman.model.errors import NotYetError, SpecError
from steersman.model.resources import Resources
from steersman.model.workload import (
    Artifact,
    CheckpointPolicy,
    Input,
    Job,
    Retry,
    SecretRef,
    Workload,
)
from steersman.spec import keys, keys_common
from steersman.spec.keys_job import JOB_SECTION
from steersman.spec.parse import Parsed, default_name, parse

GIB = 2**30


def ref(env: str, secret: str) -> SecretRef:
    return SecretRef(env=env, secret=secret)


def job(extra: str = "", *, head: str = "name: a\nrun: x\n") -> Workload:
    parsed = parse(head + extra, "f.yaml")
    assert parsed.fleet is None
    (workload,) = parsed.workloads
    return workload


def warned(extra: str) -> Parsed:
    return parse("name: a\nrun: x\n" + extra, "f.yaml")


def refused(extra: str, kind: type[SpecError] = SpecError) -> SpecError:
    with pytest.raises(SpecError) as caught:
        parse("name: a\nrun: x\n" + extra, "f.yaml")
    assert type(caught.value) is kind
    assert caught.value.source == "f.yaml"
    assert caught.value.line is not None
    assert caught.value.hint
    return caught.value


def test_the_least_job_has_the_documented_defaults() -> None:
    assert job() == Workload(
        name="a",  # type: ignore[arg-type]  # a NewType over str, plain in tests
        body=Job(run="x"),
        resources=Resources(
            cpu_milli=keys_common.CPU_MILLI_DEFAULT, memory_bytes=keys_common.MEMORY_BYTES_DEFAULT
        ),
    )
    assert (keys_common.CPU_MILLI_DEFAULT, keys_common.MEMORY_BYTES_DEFAULT) == (1000, 512 * 2**20)


SKYPILOT = """
# a task file as SkyPilot's users write them
workdir: .
num_nodes: 2
resources:
  accelerators: A100:8
  cpus: 4+
  memory: 32+
  use_spot: true
  disk_size: 256
  ports: 8888
  labels: {team: vision}
envs:
  MODEL_SIZE: 13b
  DEBUG: no
  LR: 1e-3
  PORT: 0x10
  ON: true
setup: |
  pip install -r requirements.txt
run: |
  python train.py --rank $SKYPILOT_NODE_RANK
"""


def test_a_skypilot_task_file_parses_and_warns_only_about_what_is_not_honoured() -> None:
    parsed = parse(SKYPILOT, "examples/Train_MNIST.sky.yaml")
    (workload,) = parsed.workloads
    assert workload.name == "train-mnist-sky"
    assert workload.resources == Resources(cpu_milli=4000, memory_bytes=32 * GIB, accelerators=(("A100", 8),))
    assert workload.body.num_nodes == 2
    assert workload.body.workdir == "."
    assert workload.body.setup == "pip install -r requirements.txt\n"
    assert dict(workload.body.envs) == {
        "MODEL_SIZE": "13b", "DEBUG": "no", "LR": "1e-3", "PORT": "0x10", "ON": "true",
    }  # fmt: skip
    assert [warning.split(": ")[1] for warning in parsed.warnings] == [
        "resources.disk_size", "resources.ports", "resources.labels", "run",
    ]  # fmt: skip
    assert workload.body.spot_policy == "spot"
    assert parsed.warnings[0].startswith(
        "examples/Train_MNIST.sky.yaml:10: resources.disk_size: accepted, and not"
    )


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("train.yaml", "train"),
        ("/a/b/My Job_2.YML", "my-job-2"),
        (r"c:\x\job.yaml", "job"),
        ("<stdin>", "stdin"),
        ("", "job"),
        ("---.yaml", "job"),
        ("x" * 200 + ".yaml", "x" * 63),
        ("x" * 62 + "--y.yaml", "x" * 62),
    ],
)
def test_a_job_without_a_name_is_called_after_its_file(source: str, name: str) -> None:
    assert default_name(source) == name
    assert parse("run: x", source).workloads[0].name == name


def gpus(kind: str, count: int) -> Resources:
    return Resources(cpu_milli=1000, memory_bytes=GIB, accelerators=((kind, count),))


RESOURCES = [
    ("{}", Resources(cpu_milli=1000, memory_bytes=512 * 2**20)),
    ("", Resources(cpu_milli=1000, memory_bytes=512 * 2**20)),
    ("{infra: local, cpus: 0.5}", Resources(cpu_milli=500, memory_bytes=512 * 2**20, infra="local")),
    ("{infra: ray/gpu}", Resources(cpu_milli=1000, memory_bytes=512 * 2**20, infra="ray/gpu")),
    ("{cpus: 500m, memory: 16}", Resources(cpu_milli=500, memory_bytes=16 * GIB)),
    ("{cpus: '2', memory: 512MB}", Resources(cpu_milli=2000, memory_bytes=512 * 2**20)),
    ("{memory: 1GiB, accelerators: A100}", gpus("A100", 1)),
    ("{memory: 1, accelerators: {A100: 8}}", gpus("A100", 8)),
    ("{memory: 1, accelerators: {'A100:2'}}", gpus("A100", 2)),
    ("{memory: 1, accelerators: [TPU-v5e:4]}", gpus("TPU-v5e", 4)),
    ("{memory: 1, accelerators: [V100, A100]}", gpus("A100|V100", 1)),
    ("{memory: 1, accelerators: 'any:2'}", gpus("any", 2)),
    ("{memory: 1, accelerators: [any, A100]}", gpus("any", 1)),
    ("{memory: 1, accelerators: A100:0.5}", replace(gpus("A100", 1), device_milli=500)),
    ("{memory: 1, accelerators: {A100: .125}}", replace(gpus("A100", 1), device_milli=125)),
    (
        "{memory: 1, accelerators: A100:0.25, sharing: mig}",
        replace(gpus("A100", 1), device_milli=250, sharing="mig"),
    ),
    (
        "{memory: 1, accelerators: A100, mig_profile: 3g.20gb}",
        replace(gpus("A100", 1), mig_profile="3g.20gb"),
    ),
    ("{memory: 1, accelerators: }", Resources(cpu_milli=1000, memory_bytes=GIB)),
    ("{memory: 1, any_of: [{cpus: 3}]}", Resources(cpu_milli=3000, memory_bytes=GIB)),
    ("{memory: 1, cpus: 2, ordered: [{cpus: 3}]}", Resources(cpu_milli=3000, memory_bytes=GIB)),
    ("{memory: 1, any_of: null}", Resources(cpu_milli=1000, memory_bytes=GIB)),
]


@pytest.mark.parametrize(("text", "resources"), RESOURCES)
def test_resources(text: str, resources: Resources) -> None:
    parsed = warned(f"resources: {text}\n")
    assert parsed.workloads[0].resources == resources
    assert parsed.warnings == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{memory: 24GB..40GB}", "resources.memory: the least amount is asked for"),
        ("{cpus: 2..4}", "resources.cpus: the least amount is asked for"),
        (
            "{accelerators: [H100:1, A100:2]}",
            "A100:2 is passed over: alternatives must ask for as many devices as the first, H100:1",
        ),
        (
            "{accelerators: {H100: 1, A100: 2}}",
            "A100:2 is passed over: alternatives must ask for as many devices as the first, H100:1",
        ),
        ("{any_of: [{cpus: 1}, {cpus: 2}]}", "of 2 alternatives only number 1 is used yet"),
        ("{any_of: [{infra: aws}, {instance_type: p3}, {ports: 1}]}", "any_of.2.ports: accepted"),
        ("{any_of: [{infra: aws}, {infra: local}]}", "of 2 alternatives only number 2 is used yet"),
    ],
)
def test_what_is_passed_over_in_resources_is_said(text: str, words: str) -> None:
    parsed = warned(f"resources: {text}\n")
    assert words in parsed.warnings[0]
    assert parsed.warnings[0].startswith("f.yaml:3: resources.")


def test_a_warning_is_given_once() -> None:
    text = "resources: {any_of: [{accelerators: [A100, H100:2], ports: 1}], disk_size: 1}\n"
    assert len(warned(text).warnings) == len(set(warned(text).warnings)) == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{any_of: [{cpus: 1}], ordered: [{cpus: 1}]}", "cannot stand together"),
        ("{any_of: []}", "a list of 1 to 1,000 alternatives"),
        ("{any_of: {cpus: 1}}", "a list of 1 to 1,000 alternatives"),
        (
            "{any_of: [{cpus: 1}, {cpus: 4 apples}]}",
            "resources.any_of.1.cpus: '4 apples' is not an amount of cores",
        ),
        ("{any_of: [{any_of: []}]}", "'any_of' is not a key of an alternative"),
        ("{cpus: [2]}", "an amount of cores is wanted here, and this is a list"),
        ("{cpus: }", "nothing stands here"),
        ("{accelerators: 24}", "'24' is not an accelerator"),
        ("{accelerators: A100:0}", "does not ask for 1 to 1,024"),
        ("{accelerators: A100:-1}", "does not ask for 1 to 1,024"),
        ("{accelerators: A100:1025}", "does not ask for 1 to 1,024"),
        ("{accelerators: A100:.nan}", "does not ask for 1 to 1,024"),
        ("{accelerators: {A100: 1e9}}", "does not ask for 1 to 1,024"),
        ("{accelerators: {A100: 0.0}}", "does not ask for 1 to 1,024"),
        ("{accelerators: {A100: [1]}}", "a number of accelerators is wanted"),
        ("{accelerators: [A100, A100]}", "a kind of accelerator stands twice"),
        ("{accelerators: A100:1.5}", "a part is of one device"),
        ("{accelerators: A100:0.0001}", "does not ask for 1 to 1,024"),
        ("{accelerators: TPU-v5e:0.5}", "TPU-v5e devices are handed out whole"),
        ("{accelerators: A100, sharing: mig}", "no part is asked for"),
        ("{sharing: time-slice}", "no part is asked for"),
        ("{accelerators: V100:0.5, sharing: mig}", "V100 has no MIG"),
        ("{accelerators: ['T4:0.5', 'V100:0.5'], sharing: mig}", "T4 or V100 has no MIG"),
        ("{accelerators: A100, mig_profile: 3g.20gb, sharing: time-slice}", "is no time slice"),
        ("{accelerators: A100:0.5, mig_profile: 3g.20gb}", "is an instance of one accelerator"),
        ("{mig_profile: 3g.20gb}", "is an instance of one accelerator"),
        ("{accelerators: A100, mig_profile: 3g.71gb}", "no A100 has the profile 3g.71gb"),
        ("{accelerators: T4, mig_profile: 1g.5gb}", "no T4 has the profile"),
        ("{accelerators: A100, mig_profile: small}", "cannot be a MIG profile"),
        ("{accelerators: [[A100]]}", "an accelerator is wanted here, and this is a list"),
        ("[a]", "`resources` is a mapping of keys, and this is a list"),
        ("{use_spot: yes}", "'yes' is neither `true` nor `false`"),
        ("{use_spot: 'true'}", "this is a string"),
        ("{disk_size: -5}", "negative"),
        ("{max_hourly_cost: 0}", "is not a price in dollars an hour"),
        ("{max_hourly_cost: -1}", "is not a price in dollars an hour"),
        ("{max_hourly_cost: .nan}", "is not a price in dollars an hour"),
        ("{ports: [80, http]}", "'http' cannot be a port"),
    ],
)
def test_bad_resources(text: str, words: str) -> None:
    assert words in refused(f"resources: {text}\n").message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("resources: {infra: aws/us-east-1}", "the infrastructure 'aws/us-east-1' is not built yet"),
        ("resources: {infra: k8s}", "is not built yet"),
        ("resources: {any_of: [{infra: aws}, {infra: gcp}]}", "'aws' is not built yet"),
        ("resources: {cloud: aws}", "`cloud` is not built yet"),
        ("resources: {region: eu-1}", "`region` is not built yet"),
        ("resources: {instance_type: p3.8xlarge}", "`instance_type` is not built yet"),
        ("resources: {image_id: 'docker:x'}", "`image_id` is not built yet"),
        ("resources: {accelerators: 24GB..40GB:2}", "by their memory"),
        ("resources: {hooks: [{run: x}]}", "`hooks` is not built yet"),
        ("image_id: docker:x", "`image_id` is not built yet"),
        ("file_mounts: {/data: s3://x}", "`file_mounts` is not built yet"),
        ("file_mounts: {/data: ./x}", "`file_mounts` is not built yet"),
        ("volumes: {/a: b}", "`volumes` is not built yet"),
        ("service: {readiness_probe: /}", "an HTTP server of its own is not built yet"),
        ("budget: 100", "`budget` is not built yet"),
        ("data: {residency: eu}", "`residency` is not built yet"),
        ("data: {class: personal}", "`class` is not built yet"),
        ("config: {docker: {}}", "`config` is not built yet"),
        ("workdir: {url: https://x}", "a workdir that is fetched from elsewhere"),
        ("workdir: s3://bucket", "a workdir that is fetched from elsewhere"),
        *((f"kind: {kind}", f"the kind `{kind}` is not built yet") for kind in keys_common.KINDS_NOT_YET),
    ],
)
def test_what_is_not_built_yet_has_a_stable_code(text: str, words: str) -> None:
    error = refused(text + "\n", NotYetError)
    assert error.code == "not-yet"
    assert words in error.message


def test_an_empty_value_of_a_key_that_is_not_built_yet_promises_nothing() -> None:
    assert warned("file_mounts: {}\nimage_id: null\nvolumes: []\nbudget:\n").warnings == ()


@pytest.mark.parametrize(
    "text",
    [
        "slo: {p99: 1s}", "scale: {metrics: []}", "carbon: {prefer: low}",
        "idle_duration: off", "utilization_policy: {min_gpu_utilization: 10}",
        "disk_size: 100GB..", "ports: [80, 8080-8090]", "ports: 80", "outputs: {a: 1}",
        "data: {size: 100GB}", "resources: {autostop: {idle_minutes: 10}}", "resources: {job_recovery: none}",
        "resources: {spot_recovery: x}", "resources: {priority_class: x}", "resources: {max_hourly_cost: }",
    ],
)  # fmt: skip
def test_what_is_accepted_and_not_honoured_is_said(text: str) -> None:
    (warning,) = warned(text + "\n").warnings
    assert warning.startswith("f.yaml:3: ")
    assert "accepted, and not honoured yet: " in warning


def message_of(text: str) -> str:
    try:
        parse(text, "f.yaml")
    except SpecError as error:
        return error.message
    return ""


def test_every_key_of_the_table_is_known_to_the_parser() -> None:
    """A key without a value is honoured, warned about, or refused for its own reason: never unknown."""
    for section, prefix in ((JOB_SECTION, ""), (keys_common.RESOURCES_SECTION, "resources: ")):
        for key in section.keys:
            text = f"{prefix}{{{key.name}: }}" if prefix else f"{key.name}:"
            head = "" if key.name in {"run", "name"} else "run: x"
            assert "is not a key" not in message_of(f"{head}\n{text}\n")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("low", -100),
        ("normal", 0),
        ("high", 100),
        ("urgent", 500),
        ("-1000", -1000),
        ("1000", 1000),
        ("+7", 7),
    ],
)
def test_priority(text: str, word: int) -> None:
    assert job(f"priority: {text}\n").priority == word
    assert job(f"resources: {{priority: {text}}}\n").priority == word


def test_two_priorities_must_agree() -> None:
    assert job("priority: 5\nresources: {priority: 5}\n").priority == 5
    assert (
        "`priority` says 5 and `resources.priority` says 6"
        in refused("priority: 5\nresources: {priority: 6}\n").message
    )


@pytest.mark.parametrize(
    ("text", "retry"),
    [
        ("true", Retry(on_events=("error", "interruption", "no-capacity"))),
        ("false", Retry(on_events=())),
        ("{}", Retry()),
        ("{on_events: [no-capacity, error, error]}", Retry(on_events=("error", "no-capacity"))),
        ("{on_events: []}", Retry(on_events=())),
        ("{duration: 1h}", Retry(duration_ms_max=3_600_000)),
        ("{on_events: [error], attempts: 3}", Retry(on_events=("error",), attempts_max=3)),
        (
            "{exit_codes: {retry: [75, 3, 3], fatal: [2]}}",
            Retry(exit_codes_retry=(3, 75), exit_codes_fatal=(2,)),
        ),
        ("{exit_codes: {}}", Retry()),
    ],
)
def test_retry(text: str, retry: Retry) -> None:
    parsed = warned(f"retry: {text}\n")
    assert parsed.workloads[0].body.retry == retry
    assert parsed.warnings == ()


def test_attempts_without_events_say_what_they_count() -> None:
    (warning,) = warned("retry: {attempts: 3}\n").warnings
    assert "only interruptions are tried again" in warning


@pytest.mark.parametrize(
    ("text", "checkpoint"),
    [
        ("{}", CheckpointPolicy(enabled=True)),
        ("{interval: auto}", CheckpointPolicy(enabled=True)),
        ("{interval: 5m, keep: 1}", CheckpointPolicy(enabled=True, interval_ms=300_000, keep_last=1)),
        ("{interval: 1s}", CheckpointPolicy(enabled=True, interval_ms=1000, interval_ms_min=1000)),
        ("{interval: 2h}", CheckpointPolicy(enabled=True, interval_ms=7_200_000, interval_ms_max=7_200_000)),
        (
            "{min: 1m, max: 2m}",
            CheckpointPolicy(enabled=True, interval_ms_min=60_000, interval_ms_max=120_000),
        ),
        ("{min: 2h}", CheckpointPolicy(enabled=True, interval_ms_min=7_200_000, interval_ms_max=7_200_000)),
        ("{max: 5s}", CheckpointPolicy(enabled=True, interval_ms_min=5000, interval_ms_max=5000)),
    ],
)
def test_checkpoint(text: str, checkpoint: CheckpointPolicy) -> None:
    assert job(f"checkpoint: {text}\n").body.checkpoint == checkpoint


def test_the_rest_of_a_job() -> None:
    body = job(
        "max_duration: 1h30m\nstop_duration: 2m\n"
        "inputs: {DATA: prep/out, old: {workload: w-2, artifact: model.onnx}}\n"
        "artifacts: {model: out/model.onnx, log.txt: log.txt}\n"
        "labels: {team: a b, 'x.y/z': ''}\nowner: Ada\nqueue: default\n"
    )
    assert body.body.max_duration_ms == 5_400_000
    assert body.body.stop_grace_ms == 120_000
    assert body.body.inputs == (
        Input(name="DATA", workload="prep", artifact="out"),  # type: ignore[arg-type]  # a NewType over str
        Input(name="old", workload="w-2", artifact="model.onnx"),  # type: ignore[arg-type]  # a NewType over str
    )
    assert body.body.artifacts == (
        Artifact(name="log.txt", path="log.txt"),
        Artifact(name="model", path="out/model.onnx"),
    )
    assert (body.owner, body.labels, body.queue) == ("Ada", (("team", "a b"), ("x.y/z", "")), "default")
    assert job("max_duration: off\n").body.max_duration_ms is None


def test_names_of_skypilot_are_made_ours_with_a_warning() -> None:
    parsed = parse("name: minGPT_ddp\nrun: x\n", "f.yaml")
    assert parsed.workloads[0].name == "mingpt-ddp"
    assert parsed.warnings[0].startswith("f.yaml:1: name: 'minGPT_ddp' is called 'mingpt-ddp' here")


def test_variables_of_skypilot_are_said_to_be_empty() -> None:
    (warning,) = warned("setup: echo $SKYPILOT_NODE_IPS $SKYPILOT_NODE_IPS ${SKYPILOT_NUM_NODES}\n").warnings
    assert warning.startswith(
        "f.yaml:3: setup: variables of SkyPilot are not set here (SKYPILOT_NODE_IPS, SKYPILOT_NUM"
    )


@pytest.mark.parametrize("head", ["name: a\n", "name: a\nexecution: parallel\nprimary_tasks: [b]\n"])
def test_a_pipeline_of_skypilot_is_not_built_yet(head: str) -> None:
    with pytest.raises(NotYetError, match="pipeline of SkyPilot"):
        parse(f"{head}---\nname: b\nrun: x\n", "f.yaml")


def test_another_queue_is_kept() -> None:
    parsed = parse("run: x\nqueue: research\n", "f.yaml")
    assert (parsed.workloads[0].queue, parsed.warnings) == ("research", ())


@pytest.mark.parametrize(
    ("text", "secrets"),
    [
        ("[TOKEN, A_B]", (ref("A_B", "A_B"), ref("TOKEN", "TOKEN"))),
        ("{HF_TOKEN: null}", (ref("HF_TOKEN", "HF_TOKEN"),)),
        ("{HF_TOKEN: }", (ref("HF_TOKEN", "HF_TOKEN"),)),
        ("{HF_TOKEN: hf-token}", (ref("HF_TOKEN", "hf-token"),)),
        (
            "{HF_TOKEN: hf_token, K: hugging-face-production-token}",
            (ref("HF_TOKEN", "hf_token"), ref("K", "hugging-face-production-token")),
        ),
        ("", ()),
        ("[]", ()),
    ],
)
def test_secrets_are_references(text: str, secrets: tuple[SecretRef, ...]) -> None:
    assert job(f"secrets: {text}\n").body.secrets == secrets


LITERALS = [
    "hf_AbCdEfGhIjKlMnOpQr", "sk-proj-abc123def456ghi", "AKIAIOSFODNN7EXAMPLE", "correct horse battery",
    "wJalrXUtnFEMI/K7MDENG", "p@ssw0rd", "''",
    "ghp_16C7e42F292c6912E7710c838347Ae178B4a", "0123456789abcdef0123",
    "[a]", "{a: b}", "12345", "MIIEvQIBADANBgkqhkiG", "eyJhbGciOiJIUzI1NiJ9",
]  # fmt: skip


@pytest.mark.parametrize("literal", LITERALS)
def test_a_literal_secret_is_refused_and_never_repeated(literal: str) -> None:
    error = refused(f"secrets: {{TOKEN: {literal}}}\n")
    assert "steer secret set TOKEN" in error.hint
    if len(literal) > 5:
        assert literal not in str(error)


@pytest.mark.parametrize("literal", ["hf_AbCdEfGhIjKlMnOpQr", "a b", "p@ss"])
def test_a_literal_in_a_list_of_secrets_is_not_repeated_either(literal: str) -> None:
    error = refused(f"secrets: [{literal}]\n")
    assert literal not in str(error)
    assert "steer secret set" in error.hint


def test_a_value_called_like_a_secret_is_warned_about_without_repeating_it() -> None:
    (warning,) = warned(
        "envs:\n  A: b\n  WANDB_API_KEY: abc123\n  DB_PASSWORD: ''\n  TOKENIZER: x\n"
    ).warnings
    assert warning.startswith("f.yaml:5: envs.WANDB_API_KEY: ")
    assert "steer secret set WANDB_API_KEY" in warning
    assert "abc123" not in warning


def test_the_whole_table_can_be_listed() -> None:
    rows = list(keys.rows())
    assert ("job", "run", "honoured", "skypilot", "the command that does the work") in rows
    assert len({row[:2] for row in rows}) == len(rows)
    assert {row[2] for row in rows} == {"honoured", "accepted", "not-yet"}
    assert all(note for *_, note in rows)
