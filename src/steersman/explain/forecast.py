"""The forecast of a service with its backtest, in words and figures: what will come, and why so many.

Theory of operation. The figures are the policy's own, worked out again from the snapshot with the decider's
code, so that what is told is what is decided. A forecast that is silent says what it lacks.
"""

from collections.abc import Mapping

import msgspec

from steersman.decide.foresight import TICK_S, Foresight, capacity_of, foresee
from steersman.model.signals import CAPACITY
from steersman.model.snapshot import ServiceState, Snapshot
from steersman.model.units import format_duration_ms

STATES: Mapping[str, str] = {
    "warm-up": "less than two cold starts have been seen: nothing is taken away yet",
    "unseen": "more comes than ever: it may go on rising, by 5 % a minute until a replica begun now is ready",
    "held": "what was wanted a moment ago is kept until the lull has lasted three quarters of a cold start",
    "forecast": "the way of sizing that did best on what has come so far",
}


class Forecast(msgspec.Struct, frozen=True, kw_only=True):
    """What the forecast asks for. `state` None: it has no say, and `words` tell why. `figures` are those of
    `capacity.Capacity` and of `demand.Sizing`; `seen_s` is how much was seen."""

    state: str | None
    replicas: int
    seen_s: int = 0
    figures: dict[str, int] = {}
    words: tuple[str, ...] = ()


def forecast_of(snapshot: Snapshot, state: ServiceState) -> Forecast | None:
    """The forecast of a service; None for one whose number of replicas does not move."""
    scaling = state.spec.scaling
    if scaling.min_replicas == scaling.max_replicas:
        return None
    if not scaling.forecast:
        return _silent("it is switched off (forecast: off)")
    foresight = foresee(state, snapshot.now_ms)
    if foresight is None:
        return _silent(_lack(state))
    return _told(foresight)


def _silent(why: str) -> Forecast:
    return Forecast(state=None, replicas=0, words=(f"no forecast: {why}",))


def _lack(state: ServiceState) -> str:
    if not any(signal.name == CAPACITY and signal.value is not None for signal in state.signals):
        return "what one replica can do is not known yet; it is measured while requests wait for a replica"
    if state.cold_start_ms is None:
        return "no replica has been ready yet, so it is not known what a start takes"
    return "nothing has been seen for long enough"


def _told(foresight: Foresight) -> Forecast:
    replicas, code, facts = capacity_of(foresight)
    sizing, figures = foresight.sizing, dict(facts)
    figures |= {
        "capacity_milli": sizing.capacity_milli,
        "slo_s": sizing.slo_s,
        "budget_ppm": sizing.budget_ppm,
    }
    seen_s = foresight.state.past.ticks * TICK_S
    rate = _number(figures["forecast_milli"])
    held, hold = _number(figures["held_milli"]), format_duration_ms(1_000 * figures["hold_s"])
    window = format_duration_ms(1_000 * figures["window_s"])
    start = format_duration_ms(1_000 * figures["cold_start_s"])
    words = [
        f"forecast: {replicas} replica(s): {STATES.get(code, code)}",
        f"forecast: {rate} request(s) a second to come, from the last {window}; held for {hold}: {held}",
        f"forecast: headroom {figures['headroom_milli'] / 10:.3g} %, from how it did on what came",
        f"forecast: one replica does {_number(sizing.capacity_milli)} a second and starts in {start}",
    ]
    if figures["cost_over_work_milli"]:
        words.append(
            f"backtest over {format_duration_ms(1_000 * seen_s)}: it would have cost "
            f"{figures['cost_over_work_milli'] / 1_000:.2f} times the pure work, and "
            f"{figures['violations_ppm'] / 10_000:.3g} % of the requests are believed to have waited longer "
            f"than {sizing.slo_s}s; {sizing.budget_ppm / 10_000:.3g} % may"
        )
    else:
        words.append(f"backtest: nothing to judge by after {format_duration_ms(1_000 * seen_s)}")
    return Forecast(state=code, replicas=replicas, seen_s=seen_s, figures=figures, words=tuple(words))


def _number(milli: int) -> str:
    return f"{milli / 1_000:,.2f}".rstrip("0").rstrip(".")
