"""Read what production shows and decide whether to retrain; every decision is recorded with its reason, each "no" too."""

from airflow.sdk import DAG

from plugins.dag_settings import common, every_few_minutes, specs
from plugins.operators import NewEvidenceSensor, WatchReport
from plugins.tasks import watch as tasks

for spec in specs():
    with DAG(f"{spec.name}.watch", schedule=every_few_minutes(spec), **common(spec, __doc__)):
        decision = tasks.decide(spec.name, NewEvidenceSensor(model=spec.name).output)
        tasks.request(spec, decision)
        decision >> WatchReport(model=spec.name)
