"""No DAG: reads every spec, so that Airflow shows a wrong one as an import error here while the other models' DAGs stay."""

from include.settings import from_env
from include.spec.loading import load_all

if faults := load_all(from_env().models)[1]:
    raise ValueError("\n".join(map(str, faults)))
