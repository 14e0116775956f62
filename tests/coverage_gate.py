"""Coverage of the suites against two floors: every branch of the core, most of the rest.

    python tests/coverage_gate.py

One average would hide a hole in a decider behind well-tested adapters, so the core has a floor of its own.
Laws under random stories and planted bugs are not measured: every branch has a test that means it.
What runs in child processes is counted (coverage patches the starting of Python); what is ended by SIGKILL
writes no data and is not. The shim is started isolated, without site packages: its e2e tests start it through
tests/shim/shim_under_test.py, which measures it.
"""

import sys

import coverage

CORE = ("model", "spec", "state", "decide", "explain")
FLOORS: tuple[tuple[str, float, list[str], list[str]], ...] = (
    ("core", 100.0, [f"*/steersman/{package}/*" for package in CORE], []),
    (
        "rest",
        85.0,
        ["*/steersman/*", "*/steersman_trainer/*"],
        [f"*/steersman/{package}/*" for package in CORE],
    ),
)


def main() -> int:
    """Combine what the suites left, report both groups, and say which floor is missed."""
    measured = coverage.Coverage()
    measured.combine()
    missed = []
    for name, floor, include, omit in FLOORS:
        print(f"\ncoverage of the {name}, floor {floor:g} %:")
        reached = measured.report(include=include, omit=omit or None)
        if reached < floor:
            missed.append(f"error: {name}: {reached:.2f} % of lines and branches, floor {floor:g} %")
    print("\n".join(missed) or "every coverage floor holds")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
