"""`python -m tests.chaos`: faults of every kind, while work is under way, and a judge.

    python -m tests.chaos --seed 7                one seed, three faults
    python -m tests.chaos --seeds 1-50            a range; all kinds of fault go round
    python -m tests.chaos --seeds 1-50 --defect receipt-skipped
                                                  until the planted defect is found

Exit status: 0 everything was as promised (with `--defect`: it was found), 1 it was not.
"""

from __future__ import annotations

import argparse
import json
import sys

import anyio

from tests.chaos.report import Report, show
from tests.chaos.season import Season


def main() -> int:
    arguments = _parse()
    season = Season(arguments.rounds, arguments.defect, arguments.kinds, arguments.keep)
    report = Report(arguments.rounds, arguments.defect, arguments.kinds)
    for seed in arguments.seeds:
        outcome = anyio.run(season.play, seed)
        report.add(outcome)
        if not arguments.json:
            show(outcome)
        if outcome.verdict.violations and (arguments.defect != "none" or arguments.first):
            break
    report.conclude()
    print(json.dumps(report.as_json(), indent=1) if arguments.json else report.table())
    return report.status


def _parse() -> argparse.Namespace:
    from tests.chaos.defects import DEFECTS
    from tests.chaos.faults import COMMON

    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seed", type=int, help="one seed")
    parser.add_argument("--seeds", type=_range, metavar="A-B", help="several")
    parser.add_argument("--rounds", type=int, default=3, help="faults of each seed [3]")
    parser.add_argument("--defect", default="none", choices=["none", *DEFECTS])
    parser.add_argument("--kinds", type=_kinds, default=COMMON, metavar="KIND,KIND")
    parser.add_argument("--first", action="store_true", help="stop at the first violation")
    parser.add_argument("--keep", action="store_true", help="keep the folder of each seed")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.seeds is None:
        arguments.seeds = [1 if arguments.seed is None else arguments.seed]
    return arguments


def _range(text: str) -> list[int]:
    first, _, last = text.partition("-")
    return list(range(int(first), int(last or first) + 1))


def _kinds(text: str) -> list[object]:
    from tests.chaos.faults import Kind

    return [Kind(name) for name in text.split(",")]


if __name__ == "__main__":
    sys.exit(main())
