"""Every key of a service: what it becomes, what is said of those not honoured, and what is refused."""

import pytest

from steersman.model.errors import NotYetError, SpecError
from steersman.model.resources import Resources
from steersman.model.service import (
    ArtifactRef,
    CallableModel,
    InputRange,
    OnnxModel,
    RequestLimits,
    RolloutPolicy,
    Scaling,
    Service,
)
from steersman.model.workload import SecretRef
from steersman.spec import keys_common
from steersman.spec.links import external_models
from steersman.spec.parse import Parsed, merge, parse
from steersman.spec.services import STOP_GRACE_MS

HEAD = "name: s\nmodel: {onnx: m.onnx}\n"


def read(text: str) -> Parsed:
    return parse(text, "f.yaml")


def service(extra: str = "", *, head: str = HEAD) -> Service:
    parsed = read(head + extra)
    assert parsed.workloads == ()
    (found,) = parsed.services
    assert [str(origin) for origin in parsed.service_origins] == ["f.yaml:1"]
    return found


def refused(text: str) -> SpecError:
    with pytest.raises(SpecError) as caught:
        read(text)
    assert caught.value.source == "f.yaml"
    assert caught.value.line is not None
    assert caught.value.hint
    return caught.value


def test_the_least_service_has_the_defaults_of_the_model() -> None:
    assert service() == Service(
        name="s",  # type: ignore[arg-type]  # a NewType over str, plain in tests
        model=OnnxModel(path="m.onnx"),
        resources=Resources(
            cpu_milli=keys_common.CPU_MILLI_DEFAULT, memory_bytes=keys_common.MEMORY_BYTES_DEFAULT
        ),
    )
    assert service().stop_grace_ms == STOP_GRACE_MS


WHOLE = """
kind: service
name: digits
model:
  artifact: train-digits/model
  inputs: {pixels: {min: 0, max: 16}, "x:0": {min: -1.5e-3}}
resources: {cpus: 2, memory: 1GB}
priority: high
owner: me
labels: {team: a}
queue: default
service:
  replica_policy:
    min_replicas: 0
    max_replicas: 4
    initial_replicas: 1
    target_ongoing_requests: 2.5
    target_queued_requests: .5
    upscale_delay_s: 0
    downscale_delay_s: 1.0001
    downscale_to_zero_delay_s: 60
    look_back_period_s: 2
    upscaling_factor: 0.5
    downscaling_factor: 1.
  max_batch_size: 32
  batch_wait: 0ms
  max_queued_requests: 10
  request_timeout: 10s
  max_body: 1MB
  rollout: {max_surge: 2, ready_timeout: 1m, max_crashes: 5, ready_seconds_min: 1.5}
slo: {latency_p99: 50ms}
workdir: .
setup: make
envs: {A: b}
secrets: [TOKEN]
stop_duration: 10s
"""


def test_a_whole_service() -> None:
    found = service(head=WHOLE[1:])
    assert found.model == OnnxModel(artifact=ArtifactRef(workload="train-digits", artifact="model"))  # type: ignore[arg-type]  # as above
    assert found.inputs == (
        InputRange(name="pixels", minimum=0.0, maximum=16.0),
        InputRange(name="x:0", minimum=-0.0015),
    )
    assert found.scaling == Scaling(
        min_replicas=0, max_replicas=4, initial_replicas=1,
        target_ongoing_requests_milli=2_500, queued_requests_milli=500, latency_p99_ms=50,
        upscale_delay_ms=0, downscale_delay_ms=1_001, downscale_to_zero_delay_ms=60_000,
        look_back_ms=2_000, upscaling_factor_milli=500, downscaling_factor_milli=1_000,
    )  # fmt: skip
    assert found.limits == RequestLimits(
        queued_max=10, timeout_ms=10_000, body_bytes_max=2**20, batch_size_max=32, batch_wait_ms=0
    )
    assert found.rollout == RolloutPolicy(
        surge_max=2, ready_timeout_ms=60_000, crashes_max=5, ready_ms_min=1_500
    )
    assert found.slo_latency_p99_ms == 50
    assert (found.workdir, found.setup, found.envs) == (".", "make", (("A", "b"),))
    assert found.secrets == (SecretRef(env="TOKEN", secret="TOKEN"),)
    assert (found.stop_grace_ms, found.priority, found.owner) == (10_000, 100, "me")
    assert found.resources == Resources(cpu_milli=2_000, memory_bytes=2**30)
    assert read(WHOLE).warnings == ()


@pytest.mark.parametrize(
    ("text", "is_service"),
    [
        ("model: {onnx: m}\n", True),
        ("model: {onnx: m}\nservice:\n", True),
        ("kind: service\nmodel: {onnx: m}\n", True),
        ("run: x\n", False),
        ("kind: job\nrun: x\n", False),
    ],
)
def test_a_model_makes_a_service(text: str, *, is_service: bool) -> None:
    parsed = read(text)
    assert (len(parsed.services), len(parsed.workloads)) == ((1, 0) if is_service else (0, 1))
    names = [each.name for each in parsed.services] + [each.name for each in parsed.workloads]
    assert names == ["f"]


def test_a_callable() -> None:
    found = service(head="name: s\nmodel: {callable: 'pkg.mod:Thing.method', python: .venv/bin/python}\n")
    assert found.model == CallableModel(target="pkg.mod:Thing.method", python=".venv/bin/python")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("replicas: 3", Scaling(min_replicas=3, max_replicas=3)),
        ("replica_policy: {}", Scaling()),
        ("replica_policy: ", Scaling()),
        ("replica_policy: {min_replicas: 2}", Scaling(min_replicas=2, max_replicas=2)),
        ("replica_policy: {min_replicas: 0}", Scaling(min_replicas=0, max_replicas=1)),
        ("replica_policy: {initial_replicas: 3}", Scaling(initial_replicas=3, max_replicas=3)),
        ("replica_policy: {upscale_delay_seconds: 7}", Scaling(upscale_delay_ms=7_000)),
        ("replica_policy: {downscale_delay_seconds: 0.5}", Scaling(downscale_delay_ms=500)),
    ],
)
def test_how_many_replicas(text: str, expected: Scaling) -> None:
    assert service(f"service: {{{text}}}\n").scaling == expected


@pytest.mark.parametrize(
    ("text", "timeout_ms", "warnings"),
    [
        ("readiness_probe: /health", 120_000, 1),
        ("readiness_probe: ", 120_000, 0),
        ("readiness_probe: {path: /, initial_delay_seconds: 20}", 20_000, 1),
        ("readiness_probe: {path: /, timeout_seconds: 5, post_data: {a: 1}, headers: {a: b}}", 120_000, 4),
        ("readiness_probe: {initial_delay_seconds: 20}, rollout: {max_surge: 2}", 20_000, 0),
        ("rollout: {max_surge: 2}", 120_000, 0),
    ],
)
def test_the_probe_of_skypilot(text: str, timeout_ms: int, warnings: int) -> None:
    parsed = read(f"{HEAD}service: {{{text}}}\n")
    assert parsed.services[0].rollout.ready_timeout_ms == timeout_ms
    assert len(parsed.warnings) == warnings
    assert all("accepted, and not honoured yet" in warning for warning in parsed.warnings)


@pytest.mark.parametrize(
    "text",
    [
        "service: {load_balancing_policy: round_robin}", "service: {ports: 8080}", "ports: 8080",
        "resources: {ports: 8080}", "service: {replica_policy: {metrics_interval_s: 10}}",
        "service: {replica_policy: {aggregation_function: mean}}",
        "service: {replica_policy: {spot_placer: dynamic_fallback}}",
        "service: {replica_policy: {dynamic_ondemand_fallback: true}}",
        "service: {replica_policy: {base_ondemand_fallback_replicas: 1}}",
        "service: {replica_policy: {num_overprovision: 1}}", "carbon: low", "max_price: 1",
        "data: {size: 1GB}",
    ],
)  # fmt: skip
def test_what_is_accepted_and_has_no_effect_is_said(text: str) -> None:
    assert len(read(f"{HEAD}{text}\n").warnings) == 1


SKYPILOT = """
service:
  readiness_probe:
    path: /v1/models
    initial_delay_seconds: 1800
  replica_policy:
    min_replicas: 1
    max_replicas: 3
    target_qps_per_replica: 5
resources:
  ports: 8080
  accelerators: {L4:1}
envs: {MODEL: x}
run: |
  python -m server --port 8080
"""


def test_a_service_with_its_own_http_server_is_read_to_its_end_and_refused() -> None:
    error = refused(SKYPILOT)
    assert (type(error), error.code, error.path, error.line) == (NotYetError, "not-yet", "run", 14)
    assert "an HTTP server of its own is not built yet" in error.message
    assert "callable" in error.hint
    wrong = refused(SKYPILOT.replace("max_replicas: 3", "max_replicas: 0").replace("    target_qps", "    #"))
    assert (wrong.code, wrong.path) == ("spec-invalid", "service.replica_policy.max_replicas")
    plain = refused("service: {replicas: 2}\nrun: x\n")
    assert (plain.code, plain.path) == ("not-yet", "run")
    assert refused("kind: service\nname: a\nrun: x\n").code == "not-yet"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("service: {replica_policy: {target_qps_per_replica: 5}}", "`target_ongoing_requests`"),
        ("service: {replica_policy: {policy: {name: x}}}", "would not be asked"),
        ("service: {tls: {keyfile: a}}", "`kind: gateway`"),
        ("service: {pool: true}", "takes jobs, not requests"),
        ("image_id: docker:x", "`image_id` is not built yet"),
        ("file_mounts: {/a: b}", "`file_mounts` is not built yet"),
        ("budget: 5", "`budget` is not built yet"),
        ("resources: {infra: aws}", "is not built yet"),
    ],
)
def test_what_is_not_built_yet(text: str, words: str) -> None:
    error = refused(f"{HEAD}{text}\n")
    assert error.code == "not-yet"
    assert words in error.message


@pytest.mark.parametrize("key", ["onnx: s3://b/m.onnx", "callable: 'a:b', python: http://x/python"])
def test_files_from_elsewhere_are_not_built_yet(key: str) -> None:
    assert refused(f"model: {{{key}}}\n").code == "not-yet"


def test_the_ranges_of_a_callable_are_not_built_yet() -> None:
    error = refused("model:\n  callable: a:b\n  inputs: {x: {min: 0}}\n")
    assert (error.code, error.path, error.line) == ("not-yet", "model.inputs", 3)


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ("kind: service\n", "model", "`model` is missing in a service"),
        ("service: {}\n", "model", "`model` is missing in a service"),
        ("model:\n", "model", "`model` is a mapping of keys, and this is nothing"),
        ("model: m.onnx\n", "model", "`model` is a mapping of keys"),
        ("model: {}\n", "model", "exactly one of"),
        ("model: {onnx: m, callable: 'a:b'}\n", "model", "exactly one of"),
        ("model: {onnx: m, artifact: j/a}\n", "model", "exactly one of"),
        ("model: {onnx: }\n", "model.onnx", "nothing stands here"),
        ("model: {onnx: ''}\n", "model.onnx", "must not be empty"),
        ("model: {onnx: m, python: p}\n", "model.python", "an ONNX model has no interpreter"),
        ("model: {callable: service}\n", "model.callable", "'service' cannot be a Python object"),
        ("model: {callable: 'a.py:b'}\nrun: x\n", "run", "not both"),
        ("model: {callable: 'a b:c'}\n", "model.callable", "cannot be a Python object"),
        ("model: {callable: 'a:b()'}\n", "model.callable", "cannot be a Python object"),
        ("model: {callable: '../a:b'}\n", "model.callable", "cannot be a Python object"),
        ("model: {callable: 'é:b'}\n", "model.callable", "cannot be a Python object"),
        ("model: {artifact: j}\n", "model.artifact", "'j' names no artifact"),
        ("model: {artifact: J/a}\n", "model.artifact", "'J' cannot be a name"),
        ("model: {path: m}\n", "model.path", "'path' is not a key of `model`"),
        ("model: {onnx: m, inputs: [x]}\n", "model.inputs", "inputs are written as"),
        ("model: {onnx: m, inputs: {x: 3}}\n", "model.inputs.x", "is a mapping of keys"),
        ("model: {onnx: m, inputs: {x: {}}}\n", "model.inputs.x", "the range has no bound"),
        ("model: {onnx: m, inputs: {x: {min: 2, max: 1}}}\n", "model.inputs.x", "`min` 2 is more than"),
        ("model: {onnx: m, inputs: {x: {min: .nan}}}\n", "model.inputs.x.min", "'.nan' is not a finite"),
        ("model: {onnx: m, inputs: {x: {max: .inf}}}\n", "model.inputs.x.max", "not a finite number"),
        ("model: {onnx: m, inputs: {x: {max: 1e999}}}\n", "model.inputs.x.max", "not a finite number"),
        ("model: {onnx: m, inputs: {x: {max: '1'}}}\n", "model.inputs.x.max", "this is a string"),
        (f"model: {{onnx: m, inputs: {{x: {{max: {'9' * 65}}}}}}}\n", "model.inputs.x.max", "not a finite"),
    ],
)  # fmt: skip
def test_bad_models(text: str, path: str, words: str) -> None:
    error = refused(text)
    assert (error.path, error.code) == (path, "spec-invalid")
    assert words in error.message


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ("replicas: 0", "replicas", "out of range"),
        ("replicas: 1001", "replicas", "out of range"),
        ("replicas: 2, replica_policy: {}", "replicas", "a fixed number"),
        ("replica_policy: 2", "replica_policy", "is a mapping of keys"),
        ("replica_policy: {min_replicas: -1}", "replica_policy.min_replicas", "out of range"),
        ("replica_policy: {max_replicas: 0}", "replica_policy.max_replicas", "out of range"),
        ("replica_policy: {min_replicas: 3, max_replicas: 2}", "replica_policy.max_replicas",
         "`min_replicas` is 3, and `max_replicas` is less, 2"),
        ("replica_policy: {initial_replicas: 0}", "replica_policy.initial_replicas",
         "`min_replicas` is 1, for it is not given, and `initial_replicas` is less, 0"),
        ("replica_policy: {initial_replicas: 3, max_replicas: 2}", "replica_policy.max_replicas",
         "`initial_replicas` is 3, and `max_replicas` is less, 2"),
        ("replica_policy: {target_ongoing_requests: 0}", "replica_policy.target_ongoing_requests", "'0' is"),
        ("replica_policy: {target_ongoing_requests: -1}", "replica_policy.target_ongoing_requests", "is not"),
        ("replica_policy: {upscale_delay_s: 3s}", "replica_policy.upscale_delay_s", "a delay in seconds"),
        ("replica_policy: {upscale_delay_s: 86401}", "replica_policy.upscale_delay_s", "is not"),
        ("replica_policy: {upscale_delay_s: 010}", "replica_policy.upscale_delay_s", "is not"),
        (f"replica_policy: {{upscale_delay_s: {'1' * 65}}}", "replica_policy.upscale_delay_s", "is not"),
        ("replica_policy: {upscale_delay_s: 1, upscale_delay_seconds: 1}",
         "replica_policy.upscale_delay_seconds", "says the same as `upscale_delay_s`"),
        ("replica_policy: {look_back_period_s: 0.5}", "replica_policy.look_back_period_s", "is not"),
        ("replica_policy: {upscaling_factor: 101}", "replica_policy.upscaling_factor", "is not a factor"),
        ("readiness_probe: health", "readiness_probe", "cannot be a path of a URL"),
        ("readiness_probe: {initial_delay_seconds: 0}", "readiness_probe.initial_delay_seconds", "is not"),
        ("readiness_probe: {initial_delay_seconds: 9}, rollout: {ready_timeout: 9s}",
         "rollout.ready_timeout", "says the same"),
        ("max_batch_size: 65536", "max_batch_size", "out of range"),
        ("batch_wait: 11s", "batch_wait", "out of range for a time to wait"),
        ("batch_wait: 5s, request_timeout: 5s", "batch_wait", "none would be answered in time"),
        ("max_queued_requests: -1", "max_queued_requests", "out of range"),
        ("max_queued_requests: 1000001", "max_queued_requests", "out of range"),
        ("request_timeout: 61m", "request_timeout", "out of range"),
        ("request_timeout: 0s", "request_timeout", "more than zero"),
        ("max_body: 257MB", "max_body", "'257MB' is not a size of a body"),
        ("max_body: 4", "max_body", "'4' is not a size of a body"),
        ("max_body: 1MB..2MB", "max_body", "is not a size of a body"),
        ("rollout: {max_surge: 0}", "rollout.max_surge", "out of range"),
        ("rollout: {ready_timeout: 7h}", "rollout.ready_timeout", "out of range"),
        ("rollout: {max_crashes: 0}", "rollout.max_crashes", "out of range"),
        ("rollout: {ready_seconds_min: 2s}", "rollout.ready_seconds_min", "'2s' is not a time in seconds"),
        ("rollout: {ready_seconds_min: 21601}", "rollout.ready_seconds_min", "is not a time in seconds"),
    ],
)  # fmt: skip
def test_bad_serving(text: str, path: str, words: str) -> None:
    error = refused(f"{HEAD}service: {{{text}}}\n")
    assert (error.path, error.code, error.line) == (f"service.{path}", "spec-invalid", 3)
    assert words in error.message


@pytest.mark.parametrize(
    ("text", "path", "hint"),
    [
        ("num_nodes: 2", "num_nodes", "`service.replicas`"),
        ("inputs: {m: a/b}", "inputs", "`model.artifact`"),
        ("artifacts: {m: p}", "artifacts", "leaves nothing behind"),
        ("retry: true", "retry", "is replaced for as long as it is wanted"),
        ("checkpoint: {}", "checkpoint", "no progress to save"),
        ("max_duration: 1h", "max_duration", "no end of its own"),
        ("deadline: 1h", "deadline", "no end of its own"),
        ("replicas: 2", "replicas", "belongs under `service`"),
        ("min_replicas: 2", "min_replicas", "belongs under `service.replica_policy`"),
        ("max_batch_size: 2", "max_batch_size", "belongs under `service`"),
        ("cpus: 2", "cpus", "belongs under `resources`"),
        ("tls: {}", "tls", "`kind: gateway`"),
        ("service: {min_replicas: 1}", "service.min_replicas", "belongs under `replica_policy`"),
        ("service: {max_surge: 1}", "service.max_surge", "belongs under `rollout`"),
        ("service: {num_replicas: 1}", "service.num_replicas", "did you mean `replicas`?"),
        ("service: {replica_polcy: {}}", "service.replica_polcy", "did you mean `replica_policy`?"),
        ("service: {replica_policy: {smoothing_factor: 1}}",
         "service.replica_policy.smoothing_factor", "`upscaling_factor` and `downscaling_factor`"),
        ("service: {replica_policy: {target_num_ongoing_requests_per_replica: 1}}",
         "service.replica_policy.target_num_ongoing_requests_per_replica", "`target_ongoing_requests`"),
        ("service: {rollout: {minReadySeconds: 1}}", "service.rollout.minReadySeconds", "ready_seconds_min"),
        ("service: {rollout: {min_ready_seconds: 1}}",
         "service.rollout.min_ready_seconds", "did you mean `ready_seconds_min`?"),
        ("slo: {p99: 50ms}", "slo.p99", "did you mean `latency_p99`?"),
        ("modle: {}", "modle", "did you mean `model`?"),
    ],
)  # fmt: skip
def test_keys_that_stand_elsewhere_or_belong_to_a_job(text: str, path: str, hint: str) -> None:
    error = refused(f"{HEAD}{text}\n")
    assert (error.path, error.line) == (path, 3)
    assert "is not a key of" in error.message
    assert hint in error.hint


def test_a_job_that_has_a_service_section_is_told() -> None:
    for key in ("service", "model"):
        error = refused(f"kind: job\nrun: x\n{key}: {{}}\n")
        assert (error.path, error.line) == (key, 3)
        assert "write `kind: service`" in error.hint


def test_an_objective_that_cannot_be_one() -> None:
    assert "out of range for a latency" in refused(f"{HEAD}slo: {{latency_p99: 2h}}\n").message
    assert "more than zero" in refused(f"{HEAD}slo: {{latency_p99: 0s}}\n").message
    assert service("slo:\n").slo_latency_p99_ms is None


# Together with other declarations.

JOB = "name: train\nrun: x\nartifacts: {model: m, log: l}\n"


def serving(name: str, source: str) -> str:
    return f"name: {name}\nmodel: {{artifact: {source}}}\n"


def files(*texts: str) -> list[Parsed]:
    return [parse(text, f"dir/{index}.yaml") for index, text in enumerate(texts)]


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (HEAD, HEAD, "two services called 's'"),
        (HEAD, "name: s\nrun: x\n", "a job and a service called 's'"),
        ("name: s\nrun: x\n", HEAD, "a job and a service called 's'"),
    ],
)
def test_names_are_unique_over_jobs_and_services(first: str, second: str, words: str) -> None:
    with pytest.raises(SpecError, match=rf"{words} are declared, in dir/0.yaml:1 and in dir/1.yaml:1"):
        merge(files(first, second))


def test_a_model_must_be_an_artifact_of_its_job() -> None:
    merged = merge(files(serving("s", "train/model"), JOB, HEAD.replace("name: s", "name: t")))
    assert [each.name for each in merged.services] == ["s", "t"]
    assert [str(origin) for origin in merged.service_origins] == ["dir/0.yaml:1", "dir/2.yaml:1"]
    assert external_models(merged.workloads, merged.services) == ()
    assert merge([merged]) == merged
    with pytest.raises(SpecError, match="'s' needs 'modle' of 'train', which leaves no such") as caught:
        merge(files(JOB, serving("s", "train/modle")))
    assert caught.value.hint == "did you mean 'model'? its artifacts are: log, model"
    assert (caught.value.path, caught.value.source) == ("model.artifact", "dir/1.yaml")


def test_a_model_of_a_job_that_is_not_here_is_left_to_the_caller() -> None:
    merged = merge(files(serving("s", "train/model"), HEAD.replace("name: s", "name: t")))
    ((found, source),) = external_models(merged.workloads, merged.services)
    assert (found.name, source.workload, source.artifact) == ("s", "train", "model")


def test_nothing_comes_out_of_a_service() -> None:
    with pytest.raises(SpecError, match="'t' needs an artifact of 's', which is a service") as caught:
        merge(files(HEAD, serving("t", "s/model")))
    assert caught.value.path == "model.artifact"
    with pytest.raises(SpecError, match="'j' needs an artifact of 's', which is a service") as caught:
        merge(files(HEAD, "name: j\nrun: x\ninputs: {M: s/model}\n"))
    assert caught.value.path == "inputs.M"
