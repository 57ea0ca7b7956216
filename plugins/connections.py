"""Airflow's connections, as `include` takes them."""

from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException

from include.domain.errors import UserMistake


def s3(name: str | None) -> dict[str, str]:
    """What the connection (type `aws`) says, by the names that S3 clients read in the environment; nothing of none.

    Login and password are the keys; the extra may hold `aws_session_token`, `region_name` and `endpoint_url`.
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
    said = {
        "AWS_ACCESS_KEY_ID": connection.login,
        "AWS_SECRET_ACCESS_KEY": connection.password,
        "AWS_SESSION_TOKEN": extra.get("aws_session_token"),
        "AWS_REGION": extra.get("region_name"),
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true" if endpoint.startswith("http://") else None,
    }
    return {key: value for key, value in said.items() if value}
