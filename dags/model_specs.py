"""Read every spec, so that Airflow shows a wrong one as an import error of this file; the other models' DAGs stay."""

from include.settings import from_env
from include.spec.loading import load_all

if errors := load_all(from_env().models)[1]:
    raise ValueError("\n".join(map(str, errors)))
