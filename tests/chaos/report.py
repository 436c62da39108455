"""What came out: a line for each seed, and a table of the faults that struck."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tests.chaos.faults import COMMON, Kind
from tests.chaos.season import Outcome


class Report:
    """Over all seeds of a run."""

    def __init__(self, rounds: int, defect: str, kinds: Sequence[Kind] = COMMON) -> None:
        self.status = 0
        self._rounds = rounds
        self._defect = defect
        self._kinds = "" if list(kinds) == COMMON else f" --kinds {','.join(kinds)}"
        self._outcomes: list[Outcome] = []
        self._planned: Counter[Kind] = Counter()
        self._struck: Counter[Kind] = Counter()  # while calls were open
        self._idle: Counter[Kind] = Counter()
        self._named: Counter[str] = Counter()
        self._missed: list[Kind] = []

    def add(self, outcome: Outcome) -> None:
        self._outcomes.append(outcome)
        self._named += outcome.verdict.named
        for struck in outcome.evidence.struck:
            self._planned[struck.fault.kind] += 1
            (self._struck if struck.open_calls else self._idle)[struck.fault.kind] += 1
        for fault in outcome.evidence.unreached:
            self._planned[fault.kind] += 1

    @property
    def _violations(self) -> list[tuple[int, str]]:
        return [(one.seed, text) for one in self._outcomes for text in one.verdict.violations]

    def conclude(self) -> None:
        """Whether the run is a success: a defect must be found, everything else be as promised,
        and each kind of fault must have struck something."""
        if self._defect != "none":
            self.status = 0 if self._violations else 1
            return
        self._missed = [kind for kind in self._planned if not self._struck[kind]]
        self.status = 1 if self._violations or self._missed else 0

    def command(self, seed: int) -> str:
        defect = "" if self._defect == "none" else f" --defect {self._defect}"
        return f"python -m tests.chaos --seed {seed} --rounds {self._rounds}{self._kinds}{defect}"

    def table(self) -> str:
        rows = [f"{'fault':12} {'struck work':>12} {'struck none':>12}"]
        for kind in sorted(self._planned):
            rows.append(f"{kind:12} {self._struck[kind]:>12} {self._idle[kind]:>12}")
        rows.append("")
        rows += [f"{count:6} named: {name}" for name, count in sorted(self._named.items())]
        rows.append(f"{len(self._outcomes)} seeds, {self._totals()}")
        rows += [f"no fault of kind {kind} struck work in flight" for kind in self._missed]
        for seed in dict.fromkeys(seed for seed, _ in self._violations):
            rows.append(f"VIOLATED in seed {seed}; again with: {self.command(seed)}")
        if self._defect != "none":
            rows.append(f"defect {self._defect}: {'missed' if self.status else 'found'}")
        return "\n".join(rows)

    def _totals(self) -> str:
        verdicts = [one.verdict for one in self._outcomes]
        seconds = sum(one.evidence.seconds for one in self._outcomes)
        return (
            f"{sum(v.calls for v in verdicts)} calls, {sum(v.bytes for v in verdicts)} bytes of"
            f" streams, {sum(v.events for v in verdicts)} events, {seconds:.0f} s"
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "seeds": [one.seed for one in self._outcomes],
            "struck": dict(self._struck),
            "idle": dict(self._idle),
            "missed": self._missed,
            "named": dict(self._named),
            "violations": [
                {"seed": seed, "what": text, "again": self.command(seed)}
                for seed, text in self._violations
            ],
            "found": bool(self._violations),
            "status": self.status,
        }


def show(outcome: Outcome) -> None:
    """One line, and what was wrong."""
    evidence, verdict = outcome.evidence, outcome.verdict
    faults = ", ".join(str(one.fault) for one in evidence.struck)
    unreached = "".join(f"; not reached: {fault}" for fault in evidence.unreached)
    form = "apart" if evidence.is_apart else "here"
    print(
        f"seed {outcome.seed} {form} {evidence.seconds:.1f} s: {verdict.calls} calls,"
        f" {verdict.events} events, {evidence.peak_memory >> 20} MiB: {faults}{unreached}",
        flush=True,
    )
    for text in verdict.violations:
        print(f"    {text}", flush=True)
    if outcome.kept is not None:
        print(f"    see {outcome.kept}", flush=True)
