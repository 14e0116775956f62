"""Traces made up in the formats of the public ones, small, for the benchmarks of the deciders.

Theory: they have the features that the deciders live on (shares of GPUs and models, durations with a long
tail that go with a class, bursts and days, zones that come and go), and nothing of the recorded traces. The
same seed writes the same bytes.
"""

import math
import random
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

MODELS = ("P100", "T4", "V100M32")
SHARES = (250, 333, 460, 500, 700)
ZONE = "aws-10-26-2022_1-node_us-west-2a_k80_8"
"""The name of one of the zones of the ADRS protocol; the record is made up."""
TICKS, TICK_S, RECORD_H = 120, 3_600, 120.0


def made(folder: Path) -> Path:
    """The folder for STEERSMAN_TRACES."""
    for name, write in WRITERS.items():
        part = folder / "open" / name
        part.mkdir(parents=True)
        write(part, random.Random(name))
    return folder


def _csv(path: Path, head: str, rows: Iterable[Sequence[object]]) -> None:
    lines = (",".join(map(str, row)) for row in rows)
    path.write_text("\n".join([head, *lines, ""]), encoding="utf-8")


def _packing(folder: Path, dice: random.Random) -> None:
    nodes = [(f"n{at:03}", 96_000, 393_216, 8, MODELS[at % 3]) for at in range(60)]
    _csv(folder / "openb_nodes.csv.gz", "sn,cpu_milli,memory_mib,gpu,model", nodes)
    for name, named, shared in (("default", 0.0, 0.5), ("gpushare40", 0.0, 0.8), ("gpuspec33", 0.33, 0.5)):
        pods = [_pod(dice, at, named, shared) for at in range(900)]
        _csv(
            folder / f"openb_pods_{name}.csv.gz",
            "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec",
            pods,
        )


def _pod(dice: random.Random, at: int, named: float, shared: float) -> Sequence[object]:
    if dice.random() < shared:
        gpus, share = 1, dice.choice(SHARES)
    else:
        gpus, share = dice.choice((0, 1, 1, 1, 2, 8)), 1_000
    spec = "|".join(dice.sample(MODELS, dice.choice((1, 2)))) if gpus and dice.random() < named else ""
    cores = dice.choice((2, 4, 8)) * max(gpus, 1)
    return (f"pod{at}", 1_000 * cores, 2_048 * cores, gpus, share if gpus else 0, spec)


def _jobs(folder: Path, dice: random.Random) -> None:
    rows, now = [], 0.0
    for at in range(300):
        now += dice.expovariate(1 / 30) if at % 30 else 40_000
        kind = dice.randrange(3)
        duration = math.exp(dice.gauss((6, 8, 10)[kind], 1.2))
        gpus = dice.choice((1, 1, 1, 2, 4, 8))
        rows.append(("vc0", at, f"kind{kind} (batch size 8)", f"{now:.1f}", gpus, f"{duration:.1f}"))
    _csv(folder / "philly_gavel_jobs.csv.gz", "vc,job,model,arrival_s,num_gpus,duration_s", rows)


def _autoscale(folder: Path, dice: random.Random) -> None:
    for name, columns in (
        ("azure_llm2023_conv", "ContextTokens,GeneratedTokens"),
        ("mooncake_conversation", "input_tokens,output_tokens"),
    ):
        rows, now = [], 0.0
        while now < 1_800:
            rate = 4 + 2 * math.sin(now / 200)
            now += dice.expovariate(rate)
            rows.append((f"{now:.3f}", dice.randint(50, 2_000), dice.randint(10, 400)))
        _csv(folder / f"{name}.csv.gz", f"t_s,{columns}", rows)
    days = [(600 * at, f"{600 + 300 * math.sin(at / 144 * 2 * math.pi):.2f}") for at in range(144)]
    _csv(folder / "servegen_m-small_10min.csv.gz", "t_s,rate_rps", days)


def _spot(folder: Path, dice: random.Random) -> None:
    _csv(folder / "INDEX.csv", "trace,nodes,gap_s,ticks,hours", [(ZONE, "1-node", TICK_S, TICKS, RECORD_H)])
    runs, tick, up = [], 0, 0
    while tick < TICKS:
        ticks = min(1 + int(dice.expovariate(1 / 4)), TICKS - tick)
        runs.append((tick, ticks, up))
        tick, up = tick + ticks, 1 - up
    _csv(folder / f"{ZONE}.csv.gz", "start_tick,ticks,available", runs)


WRITERS: dict[str, Callable[[Path, random.Random], None]] = {
    "p1_packing": _packing,
    "p2_jobs": _jobs,
    "p3_autoscale": _autoscale,
    "p4_spot": _spot,
}
