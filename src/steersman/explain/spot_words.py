"""The words for what a job runs on: waiting, spot pools, on-demand, moves and interruptions.

`words` holds the table of all codes; these are its sentences that are longer than a line.
"""

from collections.abc import Callable, Mapping

from steersman.model.reasons import Code
from steersman.model.units import format_duration_ms, format_usd_micro

Facts = Mapping[str, str | int]
_COSTS = (("cost_wait", "waiting"), ("cost_spot", "spot"), ("cost_on_demand", "on-demand"))


def _ms(facts: Facts, name: str) -> str:
    return format_duration_ms(int(facts.get(name, 0)) // 1_000 * 1_000)


def _because(facts: Facts) -> str:
    """The costs beside one another, the hazard, the point of no return, and what was refused."""
    costs = [f"{words} {format_usd_micro(int(facts[name]))}" for name, words in _COSTS if name in facts]
    parts = []
    if costs:
        # Each is what it comes to when it begins so and then does what is best.
        until = "expected until the deadline" if "no_return_ms" in facts else "the next useful hour"
        parts.append(f"{until}: {', '.join(costs)}")
    if "hazard_micro_per_hour" in facts:
        parts.append(f"hazard {int(facts['hazard_micro_per_hour']) / 1_000_000:.3g} an hour")
    if int(facts.get("no_return_ms", 0)) > 0:
        parts.append(f"point of no return in {_ms(facts, 'no_return_ms')}")
    parts += [
        f"{name.removeprefix('refused:')} refused: {_fault(str(fault))}"
        for name, fault in sorted(facts.items())
        if name.startswith("refused:")
    ]
    return f" ({'; '.join(parts)})" if parts else ""


def _fault(fault: str) -> str:
    """A fault of a price says so; anything else stands by itself."""
    return fault if fault in ("too small", "above max_price") else f"price {fault}"


def _too_dear(facts: Facts) -> bool:
    return "above max_price" in facts.values()


def _no_price(facts: Facts) -> str:
    faults = {fault for name, fault in facts.items() if name.startswith("refused:")} - {"too small"}
    return "every price is above max_price" if faults == {"above max_price"} else "no price to choose by"


def _with_reasons(text: str) -> Callable[[Facts], str]:
    return lambda facts: text + _because(facts)


def _chose_spot(facts: Facts) -> str:
    return f"spot pool {facts.get('pool', 'of the fleet')}{_because(facts)}"


def _moved(facts: Facts) -> str:
    return f"saves and moves from {facts.get('source', 'where it is')} to {facts.get('target', 'elsewhere')}"


def _noticed(facts: Facts) -> str:
    where = f"its node of pool {facts['pool']}" if facts.get("pool") else "its node"
    return f"{where} is taken away in {_ms(facts, 'left_ms')}: it saves and goes on elsewhere"


def _again(text: str) -> Callable[[Facts], str]:
    def words(facts: Facts) -> str:
        step = int(facts.get("saved_step", -1))
        saved = f"saved up to step {step}" if step >= 0 else "nothing was saved"
        return f"{text}; queued again at once, uncounted; {saved}"

    return words


SPOT_WORDS: Mapping[Code, Callable[[Facts], str]] = {
    Code.CHOSE_SPOT: _chose_spot,
    Code.CHOSE_ON_DEMAND: _with_reasons("on-demand"),
    Code.WAITING_SPOT: _with_reasons("waits for spot capacity"),
    Code.POINT_OF_NO_RETURN: _with_reasons("on-demand: nothing else is sure to be done by the deadline"),
    Code.DEADLINE_AT_RISK: _with_reasons("the deadline is at risk: nothing is sure to be in time any more"),
    Code.NO_SPOT_POOL: _with_reasons("on-demand: the fleet has no spot pool that could hold it"),
    Code.NO_PRICE: lambda facts: _no_price(facts) + _because(facts),
    Code.MOVED: _moved,
    Code.INTERRUPTION_NOTICE: _noticed,
    Code.RETRY_MOVED: _again("told to go on elsewhere"),
    Code.RETRY_INTERRUPTED: _again("its node was taken away"),
}
SPOT_FIXES: Mapping[Code, Callable[[Facts], str]] = {
    Code.DEADLINE_AT_RISK: lambda _: "set a later deadline, or less work if the estimate was too high",
    Code.NO_PRICE: lambda facts: (
        "raise max_price" if _too_dear(facts) else "give the pools of the fleet a price_usd_per_hour"
    ),
    Code.NO_SPOT_POOL: lambda _: "add a node with use_spot: true that is large enough to the fleet",
    Code.WAITING_SPOT: lambda _: "set spot_policy: auto, and a deadline, to use on-demand in time",
}
