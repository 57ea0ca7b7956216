"""All that knows Airflow and is no DAG."""
