"""Airflow's connections in the form that `include` takes."""

from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException

from include.domain.errors import UserMistake


def s3(name: str | None) -> dict[str, str]:
    """Return the credentials of a connection of type `aws`, by the names that S3 clients read in the environment.

    Login and password are the keys; the extra may hold `aws_session_token`, `region_name` and `endpoint_url`. Without a
    connection there are none. Raises UserMistake when Airflow does not have it, or when it holds half a pair of keys.
    """
    if name is None:
        return {}
    try:
        connection = Connection.get(name)
    except AirflowNotFoundException:
        raise UserMistake(f"source.connection: Airflow has no connection {name}; add it, or correct its name") from None
    if bool(connection.login) != bool(connection.password):
        raise UserMistake(f"connection {name}: login and password are the access key and its secret; give both or none")
    extra = connection.extra_dejson
    endpoint = str(extra.get("endpoint_url") or "")
    variables = {
        "AWS_ACCESS_KEY_ID": connection.login,
        "AWS_SECRET_ACCESS_KEY": connection.password,
        "AWS_SESSION_TOKEN": extra.get("aws_session_token"),
        "AWS_REGION": extra.get("region_name"),
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true" if endpoint.startswith("http://") else None,
    }
    return {key: value for key, value in variables.items() if value}
