"""Train a challenger on the newest windows, judge it, register it and ask a person for approval.

Runs by the spec's schedule and whenever the watch asks; the run's first task says why. An approved version starts the
rollout; a rejected one keeps its reasons.
"""

from airflow.sdk import DAG

from plugins.dag_settings import common, specs, weekly_or_on_request
from plugins.operators import ApprovalOperator
from plugins.tasks import train as tasks

for spec in specs():
    with DAG(
        f"{spec.name}.train",
        schedule=weekly_or_on_request(spec),
        params=tasks.AS_OF,
        **common(spec, __doc__),
    ):
        dataset = tasks.assemble(spec.name, tasks.check_windows(spec.name))
        challenger, baselines = tasks.train(spec, dataset), tasks.train_baselines(spec, dataset)
        evidence = tasks.evaluate(spec.name, dataset, challenger, baselines)
        registered = tasks.register(spec.name, evidence, tasks.gate(spec.name, evidence))
        approve = ApprovalOperator.for_spec(spec)
        registered >> approve
        tasks.release(spec, registered, approve.output)
