"""Everything that knows Airflow and is no DAG file: operators, tasks, triggers, pages, and what DAGs have in common."""
