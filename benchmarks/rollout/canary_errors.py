"""The canary's judge on traffic whose truth is known, beside two judges that are in common use.

Decisions are taken by the judge's own rule on its own evidence (`ProportionDifference.log_e_values` at the two nulls), for all runs of a
scenario at once; a sample of looks goes through `canary.judge` itself and must agree.
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

RUNS = 2000
LOOKS = 100
EVERY = 500
CHUNK = 200
ALPHA = 0.05
#: Guards judged at once, so a rollback is decided at ALPHA / GUARDS.
GUARDS = 2
NORMAL = NormalDist()
NEVER = 10**9


@dataclass(frozen=True)
class Case:
    """A champion's share of bad answers, the margin, and the canary's share of the traffic."""

    base: float
    margin: float
    split: float

    def fixed_size(self, worse_by: float) -> float:
        """Requests of both arms that a one-sided z-test at ALPHA, looked at once, needs to see this with 95 % power."""
        share = self.base + worse_by
        variance = share * (1 - share) / self.split + self.base * (1 - self.base) / (1 - self.split)
        return (2 * NORMAL.inv_cdf(1 - ALPHA)) ** 2 * variance / worse_by**2


CASES = [
    Case(base, margin, split) for base, margin in ((0.001, 0.01), (0.01, 0.01), (0.2, 0.05)) for split in (0.1, 0.5)
]


def traffic(
    random: np.random.Generator, case: Case, worse_by: float, every: int, runs: int = CHUNK
) -> ProportionDifference:
    """Counts of both arms at each look, `[runs, looks, 1]`; each request goes to the canary by chance."""
    ours = random.binomial(every, case.split, (runs, LOOKS))
    events = random.binomial(ours, case.base + worse_by)
    others = random.binomial(every - ours, case.base)
    a, n, b, m = (np.cumsum(c, axis=1)[..., None].astype(float) for c in (events, ours, others, every - ours))
    return ProportionDifference(a, n, b, m)


def worse(shares: ProportionDifference, case: Case) -> NDArray[np.bool_]:
    """At which looks `[runs, looks]` a guard is surely worse, whatever it says of the margin."""
    return np.asarray(shares.log_e_values(0.0, 1, case.margin) >= np.log(GUARDS / ALPHA))


def not_inferior(shares: ProportionDifference, case: Case) -> NDArray[np.bool_]:
    return np.asarray(shares.log_e_values(case.margin, -1, case.margin) >= np.log(1 / ALPHA))


def chunks(name: str) -> Iterator[int]:
    return iter(track(range(RUNS // CHUNK), description=f"canary: {name}"))


def first(hits: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The number of the first look that hits, per run; NEVER when none does."""
    return np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, NEVER)


def equal(case: Case, seed: int) -> dict[str, float]:
    """ProportionDifference of runs of an equal challenger that are ever called worse: by two guards of ours, and by one of the others."""
    random = np.random.default_rng(seed)
    wrong = {"ours": 0, "peeked_z": 0, "mann_whitney": 0}
    for _ in chunks(f"equal {case}"):
        seen = traffic(random, case, 0.0, EVERY)
        other = traffic(random, case, 0.0, EVERY)
        wrong["ours"] += int((worse(seen, case) | worse(other, case)).any(axis=1).sum())
        wrong["peeked_z"] += int((np.abs(z_score(seen)) > NORMAL.inv_cdf(1 - ALPHA / 2)).any(axis=1).sum())
        wrong["mann_whitney"] += sum(mann_whitney(run) for run in points(seen))
    return {name: count / RUNS for name, count in wrong.items()}


def twice(case: Case, seed: int) -> dict[str, float]:
    """A challenger worse by twice the margin: how often it goes back, and after how many times the fixed size."""
    random = np.random.default_rng(seed)
    size = case.fixed_size(2 * case.margin)
    every = max(10, round(size / 25))
    looks, others = [], 0
    for _ in chunks(f"twice the margin {case}"):
        seen = traffic(random, case, 2 * case.margin, every)
        back, passed = first(worse(seen, case)), first(not_inferior(seen, case))
        looks.append(np.where(back <= passed, back, NEVER))
        others += sum(mann_whitney(run) for run in points(seen))
    found = np.concatenate(looks)
    return {
        "rolled_back": float(np.mean(found < NEVER)),
        "median_of_fixed_size": round(float(np.median(found) * every / size), 3),
        "fixed_size": round(size),
        "rolled_back_by_mann_whitney": others / RUNS,
    }


def at_margin(case: Case, seed: int) -> float:
    """The share of challengers worse by exactly the margin that are promoted, looked at up to 4 × the fixed size."""
    random = np.random.default_rng(seed)
    every = max(10, round(case.fixed_size(case.margin) / 25))
    promoted = [
        first(not_inferior(traffic(random, case, case.margin, every), case)) < NEVER for _ in chunks(f"at {case}")
    ]
    return float(np.mean(np.concatenate(promoted)))


def fast(base: float, share: float, margin: float, within: int, seed: int) -> dict[str, float]:
    """A canary at 10 % of the traffic with a share of bad answers, a look every 10 of its requests."""
    random = np.random.default_rng(seed)
    case = Case(base, margin, 0.1)
    needed = np.concatenate(
        [first(worse(traffic(random, case, share - base, 100), case)) * 10 for _ in chunks(f"{share:.1%} bad answers")]
    )
    return {
        "in_time": float(np.mean(needed <= within)),
        "within": within,
        "share": round(share, 3),
        "median_requests": float(np.median(needed)),
        "p95_requests": float(np.quantile(needed, 0.95)),
    }


def slow_share(times: float, share: float = 0.01, sigma: float = 0.5) -> float:
    """Answers over the limit when log-normal times grow so many fold and the limit was at the champion's 99th percentile."""
    return 1 - NORMAL.cdf(NORMAL.inv_cdf(1 - share) - np.log(times) / sigma)


def means(seed: int) -> dict[str, float]:
    """The guards on means, on skewed losses at 10 %: wrongly called worse when equal, promoted when worse by the margin."""
    random = np.random.default_rng(seed)
    margin, wrong, promoted = 0.02, 0, 0
    plan = Rollout(guards=Guards(error_rate=None, slow_share=None, logloss=margin))
    for _ in track(range(RUNS), description="canary: means"):
        for worse_by in (0.0, margin):
            ours = random.gamma(0.5, 1.0, LOOKS * 50) + worse_by
            theirs = random.gamma(0.5, 1.0, LOOKS * 450)
            (n, s, q), (m, t, r) = (sums(values, LOOKS) for values in (ours, theirs))
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
                for i in range(9, LOOKS, 10)
            }
            wrong += worse_by == 0 and Outcome.FAIL in outcomes
            promoted += worse_by > 0 and Outcome.PASS in outcomes
    return {"equal_called_worse": wrong / RUNS, "at_margin_promoted": promoted / RUNS}


def sums(values: Floats, looks: int) -> tuple[list[int], Floats, Floats]:
    parts = values.reshape(looks, -1)
    counts = [parts.shape[1] * (i + 1) for i in range(looks)]
    return counts, parts.sum(axis=1).cumsum(), (parts**2).sum(axis=1).cumsum()


def agreement(seed: int) -> float:
    """The share of 400 looks at which `canary.judge` says what the rule above says."""
    random = np.random.default_rng(seed)
    same = 0
    for i in range(400):
        case = CASES[i % len(CASES)]
        shares = traffic(random, case, random.choice([0, 1, 2]) * case.margin, EVERY, runs=1)
        look = int(random.integers(LOOKS))
        seen = replace(
            shares,
            **{
                name: getattr(shares, name)[:, look]
                for name in ("canary_events", "canary_requests", "stable_events", "stable_requests")
            },
        )
        a, n, b, m = (
            int(c[0, 0]) for c in (seen.canary_events, seen.canary_requests, seen.stable_events, seen.stable_requests)
        )
        plan = Rollout(guards=Guards(error_rate=case.margin, slow_share=case.margin), min_requests=0)
        said = judge(plan, [Stratum(VariantTraffic(n, a, a), VariantTraffic(m, b, b))]).checks[0].outcome
        fine, bad = bool(not_inferior(seen, case)[0]), bool(worse(seen, case)[0])
        same += said is (Outcome.PASS if fine else Outcome.FAIL if bad else Outcome.INCONCLUSIVE)
    return same / 400


def z_score(seen: ProportionDifference) -> Floats:
    """The pooled two-sample z at each look, `[runs, looks]`."""
    a, n, b, m = (
        c[..., 0] for c in (seen.canary_events, seen.canary_requests, seen.stable_events, seen.stable_requests)
    )
    pooled = (a + b) / (n + m)
    error = np.sqrt(np.maximum(pooled * (1 - pooled), 1e-12) * (1 / np.maximum(n, 1) + 1 / np.maximum(m, 1)))
    return np.asarray((a / np.maximum(n, 1) - b / np.maximum(m, 1)) / error)


def points(seen: ProportionDifference) -> Iterator[tuple[Floats, Floats]]:
    """Each run as Kayenta sees it: one share per arm and look."""
    a, n, b, m = (
        np.diff(c[..., 0], axis=1, prepend=0)
        for c in (seen.canary_events, seen.canary_requests, seen.stable_events, seen.stable_requests)
    )
    return zip(a / np.maximum(n, 1), b / np.maximum(m, 1), strict=True)


def mann_whitney(run: tuple[Floats, Floats]) -> bool:
    """Whether Kayenta's judge calls it "High" at any tenth look: the 98 % interval of the shift lies above a quarter of the
    Hodges–Lehmann estimate (kayenta, MannWhitneyClassifier). The interval is the normal approximation of its ranks."""
    for n in range(10, LOOKS + 1, 10):
        ours, theirs = run[0][:n], run[1][:n]
        shifts = np.sort((ours[:, None] - theirs).ravel())
        rank = round(n * n / 2 - NORMAL.inv_cdf(0.99) * np.sqrt(n * n * (2 * n + 1) / 12))
        if shifts[max(0, rank - 1)] > 0.25 * abs(float(np.median(shifts))):
            return True
    return False


def section(seed: int = 7) -> dict[str, Any]:
    """The figures, their bounds, and which hold."""
    named = {f"{c.base:g} + {c.margin:g} at {c.split:.0%}": c for c in CASES}
    alike = {name: equal(case, seed) for name, case in named.items()}
    bad = {name: twice(case, seed) for name, case in named.items()}
    edge = {name: at_margin(case, seed) for name, case in named.items()}
    failing, slow = fast(0.001, 0.05, 0.01, 300, seed), fast(0.01, slow_share(3), 0.05, 500, seed)
    mean, same = means(seed), agreement(seed)
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
