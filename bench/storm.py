"""A storm of `kill -9` in a run of orders: how many are survived, and how soon all is calm."""

import statistics
from collections import Counter

from bench.measure import Figure, show, timed
from tests.e2e.deployment import deployed
from tests.e2e.storm import Storm

SEEDS, KILLS = (1, 2, 3, 4, 5), 200


def main() -> None:
    killed: Counter[str] = Counter()
    calm = []
    for seed in SEEDS:
        with deployed(slapos={"poll_interval": "1"}) as deployment:
            storm = Storm(deployment, seed)
            storm.begin()
            storm.blow(KILLS)
            # Raises AssertionError when something was lost, doubled or restarted without need.
            calm.append(timed(storm.calm))
            killed += storm.killed
            print(f"seed {seed}: {dict(storm.killed)}, calm after {calm[-1]:.1f} s", flush=True)
    survived = float(sum(killed.values()))
    show(
        [
            Figure("kill -9 survived", survived, "kills", runs=len(SEEDS), notes=dict(killed)),
            Figure("until all is as ordered, median", statistics.median(calm), runs=len(calm)),
            Figure("until all is as ordered, longest", max(calm), runs=len(calm)),
        ]
    )


if __name__ == "__main__":
    main()
