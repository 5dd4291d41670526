"""How soon the test of a shadow detector notices a regression, and how often it is wrong, on simulated doors.

    python -m benchmarks.promotion.simulation --out docs/results

A door sees faces of both classes. Both detectors' scores on a face are drawn from two normal distributions that
correlate; their thresholds give the rates wanted. Of the disagreements in which exactly one says fake, in the order in
which they come, a reviewer labels each.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import Annotated

import numpy as np
import typer
from matplotlib.figure import Figure

from benchmarks.results.plots import png
from edge_runtime.atomic import write_atomic
from edge_runtime.command import run_command
from edge_runtime.model.contract import Verdict
from edge_runtime.paths import expand
from edge_runtime.review.sequential import FieldState, FieldTest
from train.data.catalog import SEED

RUNS = 200
REVIEWED = 60
"""Faces that a person reviews before the answer is wanted."""

LONG = 400
"""Reviewed faces over which false answers are counted: a test that is valid at any time stays so."""

FACES = 4_000
"""Faces that are drawn at once."""


@dataclass(frozen=True)
class Door:
    """What is simulated.

    Attributes:
        fakes: share of fakes among the faces.
        fpr, fnr: shares of reals called fake, and of fakes not called fake, of the old detector.
        more_fpr, more_fnr: how much higher these are for the new one.
        correlation: of both detectors' scores within a class.
        mistakes: share of reviews that are wrong.
    """

    fakes: float = 0.1
    fpr: float = 0.01
    fnr: float = 0.2
    more_fpr: float = 0.0
    more_fnr: float = 0.0
    correlation: float = 0.8
    mistakes: float = 0.0

    def disagreements(self, generator: np.random.Generator) -> Iterator[tuple[Verdict, Verdict, bool]]:
        """Yield the verdicts of old and new, and what the reviewer says, of each disagreement; it never ends."""
        rates = {False: (self.fpr, self.fpr + self.more_fpr), True: (1 - self.fnr, 1 - self.fnr - self.more_fnr)}
        limits = {fake: [NormalDist().inv_cdf(1 - rate) for rate in both] for fake, both in rates.items()}
        shared, own = np.sqrt(self.correlation), np.sqrt(1 - self.correlation)
        while True:
            truth = generator.random(FACES) < self.fakes
            scores = shared * generator.normal(size=(FACES, 1)) + own * generator.normal(size=(FACES, 2))
            called = scores > np.where(truth[:, None], limits[True], limits[False])
            said = truth ^ (generator.random(FACES) < self.mistakes)
            for index in np.flatnonzero(called[:, 0] != called[:, 1]):
                old, new = (Verdict.FAKE if fake else Verdict.UNCERTAIN for fake in called[index])
                yield old, new, bool(said[index])


def run_test(door: Door, reviewed: int, generator: np.random.Generator) -> FieldTest:
    """Return the test after `reviewed` disagreements at a door, or when it answers."""
    test = FieldTest()
    for old, new, fake in door.disagreements(generator):
        test.add(old, new, fake=fake)
        if test.state is not FieldState.OPEN or test.reviewed >= reviewed:
            return test
    return test


def answers(door: Door, reviewed: int, runs: int = RUNS, seed: int = SEED) -> list[FieldTest]:
    """Return the test of each of `runs` simulated reviews."""
    return [run_test(door, reviewed, np.random.default_rng((seed, run))) for run in range(runs)]


def share(tests: Sequence[FieldTest], state: FieldState) -> float:
    """Return the share of tests that ended in `state`."""
    return sum(test.state is state for test in tests) / len(tests)


WORSE, SAME = Door(more_fpr=0.05), Door()
CASES: dict[str, Door] = {
    "FPR 1 % → 6 %": WORSE,
    "… detectors that hardly agree (correlation 0.3)": replace(WORSE, correlation=0.3),
    "… detectors much alike (correlation 0.95)": replace(WORSE, correlation=0.95),
    "… 1 in 20 reviews is wrong": replace(WORSE, mistakes=0.05),
    "… half of the faces are fakes": replace(WORSE, fakes=0.5),
    "FPR 5 % → 10 %": replace(WORSE, fpr=0.05),
    "FPR 1 % → 3 %": replace(WORSE, more_fpr=0.02),
    "misses 20 % → 40 %, half of the faces are fakes": Door(fakes=0.5, more_fnr=0.2),
    "no worse": SAME,
    "no worse, FPR 5 %": replace(SAME, fpr=0.05),
    "no worse, half of the faces are fakes": replace(SAME, fakes=0.5),
    "FPR 6 % → 1 %": replace(SAME, fpr=0.06, more_fpr=-0.05),
}


def table(runs: int = RUNS, seed: int = SEED) -> list[tuple[str, ...]]:
    """Return a row for each case: its name, shares called worse and better, and the median of reviews until worse."""
    rows = []
    for name, door in CASES.items():
        soon, late = answers(door, REVIEWED, runs, seed), answers(door, LONG, runs, seed)
        at = [test.decided_at or 0 for test in late if test.state is FieldState.WORSE]
        shares = [share(tests, state) for state in (FieldState.WORSE, FieldState.BETTER) for tests in (soon, late)]
        rows.append((name, *(f"{100 * value:.1f} %" for value in shares), f"{np.median(at):.0f}" if at else "–"))
    return rows


def plot(runs: int, seed: int) -> Figure:
    """Return the share of runs that call the new detector worse, by the number of reviewed faces."""
    figure = Figure(figsize=(4.4, 3.4), layout="constrained")
    axes = figure.subplots()
    shown = {"FPR 1 % → 6 %": "#e08a3c", "FPR 5 % → 10 %": "#7aa6a1", "FPR 1 % → 3 %": "#9a9fa6", "no worse": "#4c6a92"}
    for name, colour in shown.items():
        at = [t.decided_at for t in answers(CASES[name], LONG, runs, seed) if t.state is FieldState.WORSE]
        counts = np.arange(1, 121)
        axes.step(counts, [100 * sum(one <= n for one in at if one) / runs for n in counts], color=colour, label=name)
    axes.axvline(REVIEWED, color="#9a9fa6", linewidth=0.8, linestyle=":")
    axes.set_xlabel("reviewed disagreements")
    axes.set_ylabel("called worse, % of runs")
    axes.set_ylim(0, 102)
    axes.legend(frameon=False, fontsize=8, loc="center right")
    return figure


def simulate(
    out: Annotated[Path, typer.Option(help="Folder for shadow-test.png.")] = Path("shadow-test"),
    runs: Annotated[int, typer.Option(min=10, help="Simulated reviews per case.")] = RUNS,
    seed: Annotated[int, typer.Option(help="Of the simulation.")] = SEED,
) -> int:
    """Print how often the test of a shadow detector calls it worse or better, as a Markdown table, and plot it."""
    head = ("door", f"worse within {REVIEWED}", f"within {LONG}", f"better within {REVIEWED}", f"within {LONG}")
    lines = [(*head, "reviews until worse, median"), ("---", *["---:"] * 5), *table(runs, seed)]
    print("\n".join(f"| {' | '.join(line)} |" for line in lines))
    folder = expand(out)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / "shadow-test.png", png(plot(runs, seed)))
    return 0


if __name__ == "__main__":
    run_command(simulate, "python -m benchmarks.promotion.simulation")
