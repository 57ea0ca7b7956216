"""Measure how often the canary's judge errs on simulated traffic, beside two judges that are in common use.

The judge's own rule (`ProportionDifference.log_e_values` at the two null hypotheses) decides all runs of a case at once; a
sample of the analyses goes through `canary.judge` itself, and must agree.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from include.domain.rollout.canary import judge
from include.domain.rollout.plan import Guards, Rollout
from include.domain.rollout.sequential import ProportionDifference
from include.domain.rollout.variants import Moments, Stratum, VariantTraffic
from include.domain.verdict import Outcome

Floats = NDArray[np.float64]

#: Simulated rollouts of each case, analyses of each, requests between two analyses, and rollouts simulated at once.
RUNS = 2000
ANALYSES = 100
REQUESTS_PER_ANALYSIS = 500
CHUNK = 200
ALPHA = 0.05
#: The number of guards judged together: each may cause a rollback at the level ALPHA / GUARDS.
GUARDS = 2
NORMAL = NormalDist()
#: The number of an analysis that never comes.
NEVER = 10**9


@dataclass(frozen=True)
class Case:
    """A champion's share of bad answers (`base`), the margin, and the canary's share of the traffic (`split`)."""

    base: float
    margin: float
    split: float

    def fixed_size(self, worse_by: float) -> float:
        """Return how many requests of both variants a single one-sided z-test at ALPHA needs to detect this with 95 % power."""
        share = self.base + worse_by
        variance = share * (1 - share) / self.split + self.base * (1 - self.base) / (1 - self.split)
        return (2 * NORMAL.inv_cdf(1 - ALPHA)) ** 2 * variance / worse_by**2


CASES = [
    Case(base, margin, split) for base, margin in ((0.001, 0.01), (0.01, 0.01), (0.2, 0.05)) for split in (0.1, 0.5)
]


def traffic(
    random: np.random.Generator, case: Case, worse_by: float, every: int, runs: int = CHUNK
) -> ProportionDifference:
    """Draw the counts of both variants at each analysis, `[runs, analyses, 1]`; each request goes to the canary by chance."""
    ours = random.binomial(every, case.split, (runs, ANALYSES))
    events = random.binomial(ours, case.base + worse_by)
    others = random.binomial(every - ours, case.base)
    a, n, b, m = (np.cumsum(c, axis=1)[..., None].astype(float) for c in (events, ours, others, every - ours))
    return ProportionDifference(a, n, b, m)


def is_worse(shares: ProportionDifference, case: Case) -> NDArray[np.bool_]:
    """Return at which analyses, `[runs, analyses]`, the canary is surely worse, by the margin or by less."""
    return np.asarray(shares.log_e_values(0.0, 1, case.margin) >= np.log(GUARDS / ALPHA))


def is_not_inferior(shares: ProportionDifference, case: Case) -> NDArray[np.bool_]:
    """Return at which analyses, `[runs, analyses]`, the canary is surely not worse by the margin."""
    return np.asarray(shares.log_e_values(case.margin, -1, case.margin) >= np.log(1 / ALPHA))


def chunks(name: str) -> Iterator[int]:
    """Iterate over the chunks of the runs, and show the progress under that name."""
    return iter(track(range(RUNS // CHUNK), description=f"canary: {name}"))


def first_analysis(hits: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return for each run the number of the first analysis that hits, counted from 1; NEVER if none does."""
    return np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, NEVER)


def equal_challenger(case: Case, seed: int) -> dict[str, float]:
    """Return the shares of runs in which an equal challenger is ever called worse: by two guards here, by one elsewhere."""
    random = np.random.default_rng(seed)
    wrong = {"ours": 0, "peeked_z": 0, "mann_whitney": 0}
    for _ in chunks(f"equal {case}"):
        counts = traffic(random, case, 0.0, REQUESTS_PER_ANALYSIS)
        other = traffic(random, case, 0.0, REQUESTS_PER_ANALYSIS)
        wrong["ours"] += int((is_worse(counts, case) | is_worse(other, case)).any(axis=1).sum())
        wrong["peeked_z"] += int((np.abs(z_score(counts)) > NORMAL.inv_cdf(1 - ALPHA / 2)).any(axis=1).sum())
        wrong["mann_whitney"] += sum(mann_whitney(run) for run in shares_by_run(counts))
    return {name: count / RUNS for name, count in wrong.items()}


def twice_the_margin(case: Case, seed: int) -> dict[str, float]:
    """Return how often a challenger worse by twice the margin is rolled back, and after how many times the fixed size."""
    random = np.random.default_rng(seed)
    size = case.fixed_size(2 * case.margin)
    every = max(10, round(size / 25))
    stops, others = [], 0
    for _ in chunks(f"twice the margin {case}"):
        counts = traffic(random, case, 2 * case.margin, every)
        back, passed = first_analysis(is_worse(counts, case)), first_analysis(is_not_inferior(counts, case))
        stops.append(np.where(back <= passed, back, NEVER))
        others += sum(mann_whitney(run) for run in shares_by_run(counts))
    first_worse = np.concatenate(stops)
    return {
        "rolled_back": float(np.mean(first_worse < NEVER)),
        "median_of_fixed_size": round(float(np.median(first_worse) * every / size), 3),
        "fixed_size": round(size),
        "rolled_back_by_mann_whitney": others / RUNS,
    }


def at_margin(case: Case, seed: int) -> float:
    """Return the share of challengers worse by exactly the margin that are promoted, in analyses up to 4 × the fixed size."""
    random = np.random.default_rng(seed)
    every = max(10, round(case.fixed_size(case.margin) / 25))
    promoted = [
        first_analysis(is_not_inferior(traffic(random, case, case.margin, every), case)) < NEVER
        for _ in chunks(f"at {case}")
    ]
    return float(np.mean(np.concatenate(promoted)))


def requests_to_rollback(base: float, share: float, margin: float, within: int, seed: int) -> dict[str, float]:
    """Return after how many requests a canary with that share of bad answers is rolled back.

    It has 10 % of the traffic, and is analysed every 10 of its own requests.
    """
    random = np.random.default_rng(seed)
    case = Case(base, margin, 0.1)
    requests = np.concatenate(
        [
            first_analysis(is_worse(traffic(random, case, share - base, 100), case)) * 10
            for _ in chunks(f"{share:.1%} bad answers")
        ]
    )
    return {
        "in_time": float(np.mean(requests <= within)),
        "within": within,
        "share": round(share, 3),
        "median_requests": float(np.median(requests)),
        "p95_requests": float(np.quantile(requests, 0.95)),
    }


def slow_share(times: float, share: float = 0.01, sigma: float = 0.5) -> float:
    """Return the share of answers over the limit if log-normal latencies grow so many fold; the champion's share is `share`."""
    return 1 - NORMAL.cdf(NORMAL.inv_cdf(1 - share) - np.log(times) / sigma)


def mean_guards(seed: int) -> dict[str, float]:
    """Return how often a guard on the mean of skewed losses, at 10 %, fails an equal canary or passes one worse by the margin."""
    random = np.random.default_rng(seed)
    margin, wrong, promoted = 0.02, 0, 0
    plan = Rollout(guards=Guards(error_rate=None, slow_share=None, logloss=margin))
    for _ in track(range(RUNS), description="canary: means"):
        for worse_by in (0.0, margin):
            ours = random.gamma(0.5, 1.0, ANALYSES * 50) + worse_by
            theirs = random.gamma(0.5, 1.0, ANALYSES * 450)
            (n, s, q), (m, t, r) = (running_sums(values, ANALYSES) for values in (ours, theirs))
            outcomes = {
                judge(
                    plan,
                    [
                        Stratum(
                            VariantTraffic(n[i], logloss=Moments(n[i], s[i], q[i])),
                            VariantTraffic(m[i], logloss=Moments(m[i], t[i], r[i])),
                        )
                    ],
                ).outcome
                for i in range(9, ANALYSES, 10)
            }
            wrong += worse_by == 0 and Outcome.FAIL in outcomes
            promoted += worse_by > 0 and Outcome.PASS in outcomes
    return {"equal_called_worse": wrong / RUNS, "at_margin_promoted": promoted / RUNS}


def running_sums(values: Floats, analyses: int) -> tuple[list[int], Floats, Floats]:
    """Return the counts, sums and sums of squares of the values up to each analysis."""
    parts = values.reshape(analyses, -1)
    counts = [parts.shape[1] * (i + 1) for i in range(analyses)]
    return counts, parts.sum(axis=1).cumsum(), (parts**2).sum(axis=1).cumsum()


def agreement(seed: int) -> float:
    """Return the share of 400 analyses on which `canary.judge` and the rule above agree."""
    random = np.random.default_rng(seed)
    same = 0
    for i in range(400):
        case = CASES[i % len(CASES)]
        shares = traffic(random, case, random.choice([0, 1, 2]) * case.margin, REQUESTS_PER_ANALYSIS, runs=1)
        analysis = int(random.integers(ANALYSES))
        counts = replace(
            shares,
            **{
                name: getattr(shares, name)[:, analysis]
                for name in ("canary_events", "canary_requests", "stable_events", "stable_requests")
            },
        )
        a, n, b, m = (
            int(c[0, 0])
            for c in (counts.canary_events, counts.canary_requests, counts.stable_events, counts.stable_requests)
        )
        plan = Rollout(guards=Guards(error_rate=case.margin, slow_share=case.margin), min_requests=0)
        outcome = judge(plan, [Stratum(VariantTraffic(n, a, a), VariantTraffic(m, b, b))]).checks[0].outcome
        passes, fails = bool(is_not_inferior(counts, case)[0]), bool(is_worse(counts, case)[0])
        same += outcome is (Outcome.PASS if passes else Outcome.FAIL if fails else Outcome.INCONCLUSIVE)
    return same / 400


def z_score(counts: ProportionDifference) -> Floats:
    """Return the pooled two-sample z statistic at each analysis, `[runs, analyses]`."""
    a, n, b, m = (
        c[..., 0] for c in (counts.canary_events, counts.canary_requests, counts.stable_events, counts.stable_requests)
    )
    pooled = (a + b) / (n + m)
    error = np.sqrt(np.maximum(pooled * (1 - pooled), 1e-12) * (1 / np.maximum(n, 1) + 1 / np.maximum(m, 1)))
    return np.asarray((a / np.maximum(n, 1) - b / np.maximum(m, 1)) / error)


def shares_by_run(counts: ProportionDifference) -> Iterator[tuple[Floats, Floats]]:
    """Return each run as Kayenta judges it: the shares of bad answers per analysis of the canary and of the champion."""
    a, n, b, m = (
        np.diff(c[..., 0], axis=1, prepend=0)
        for c in (counts.canary_events, counts.canary_requests, counts.stable_events, counts.stable_requests)
    )
    return zip(a / np.maximum(n, 1), b / np.maximum(m, 1), strict=True)


def mann_whitney(run: tuple[Floats, Floats]) -> bool:
    """Return whether Kayenta's judge calls the canary "High" at any tenth analysis.

    That is so if the 98 % interval of the shift lies above a quarter of the Hodges–Lehmann estimate (kayenta,
    MannWhitneyClassifier). The interval is the normal approximation of its ranks.
    """
    for n in range(10, ANALYSES + 1, 10):
        ours, theirs = run[0][:n], run[1][:n]
        shifts = np.sort((ours[:, None] - theirs).ravel())
        rank = round(n * n / 2 - NORMAL.inv_cdf(0.99) * np.sqrt(n * n * (2 * n + 1) / 12))
        if shifts[max(0, rank - 1)] > 0.25 * abs(float(np.median(shifts))):
            return True
    return False


def section(seed: int = 7) -> dict[str, Any]:
    """Return the figures, their bounds, and which of them hold."""
    cases = {f"{c.base:g} + {c.margin:g} at {c.split:.0%}": c for c in CASES}
    alike = {name: equal_challenger(case, seed) for name, case in cases.items()}
    bad = {name: twice_the_margin(case, seed) for name, case in cases.items()}
    edge = {name: at_margin(case, seed) for name, case in cases.items()}
    failing, slow = (
        requests_to_rollback(0.001, 0.05, 0.01, 300, seed),
        requests_to_rollback(0.01, slow_share(3), 0.05, 500, seed),
    )
    mean, same = mean_guards(seed), agreement(seed)
    bounds = {
        "equal_rolled_back": ALPHA,
        "twice_the_margin_rolled_back": 0.95,
        "median_of_fixed_size": 1.5,
        "at_the_margin_promoted": ALPHA,
        "in_time": 0.95,
        "agrees_with_judge": 1.0,
    }
    holds = {
        "equal_rolled_back": max(f["ours"] for f in alike.values()) <= ALPHA,
        "twice_the_margin_rolled_back": min(f["rolled_back"] for f in bad.values()) >= 0.95,
        "median_of_fixed_size": max(f["median_of_fixed_size"] for f in bad.values()) <= 1.5,
        "at_the_margin_promoted": max(edge.values()) <= ALPHA,
        "errors_in_time": failing["in_time"] >= 0.95,
        "slow_in_time": slow["in_time"] >= 0.95,
        "means": max(mean.values()) <= ALPHA,
        "agrees_with_judge": same == 1,
    }
    figures = {
        "equal": alike,
        "twice_the_margin": bad,
        "at_the_margin_promoted": edge,
        "errors_5_percent": failing,
        "three_times_slower": slow,
        "means": mean,
        "agrees_with_judge": same,
    }
    return {"runs": RUNS, "figures": figures, "bounds": bounds, "holds": holds}
