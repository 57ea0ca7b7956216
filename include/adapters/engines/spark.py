"""Engine: Spark, over the Parquet files of the table."""

import logging
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa

from include.domain.errors import Unavailable, UserMistake
from include.domain.windows import Window
from include.ports.tables import Tables

#: The setting for a program that `spark-submit` has started.
SUBMITTED = "submitted"
#: The same moments, whatever the machine's zone; and a window's name is a text, not the date that it looks like.
SETTINGS = {
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
    "spark.sql.parquet.mergeSchema": "true",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
}


class Spark:
    """The engine that evaluates an expression in Spark."""

    def __init__(self, master: str | None) -> None:
        """Take the `master`, e.g. `local[*]`, or None for the session of the `spark-submit` that started this process."""
        self._master = master

    def collect(
        self, tables: Tables, table: str, windows: Sequence[Window], expression: Callable[[Any], Any]
    ) -> pa.Table:
        """Return the rows of `expression(table)`, in any order.

        Raises Unavailable where there is no Java, UserMistake without pyspark.
        """
        import ibis  # takes seconds

        session = self._session()
        try:
            files = tables.files(table, windows)
            root = files[0].rpartition("/window=")[0]
            session.read.option("basePath", root).parquet(*files).createOrReplaceTempView(table)
            connection = ibis.pyspark.connect(session)
            return connection.to_pyarrow(expression(connection.table(table)))
        finally:
            if self._master is not None:
                session.stop()

    def _session(self) -> Any:
        try:
            from pyspark.errors import PySparkException
            from pyspark.sql import SparkSession
        except ImportError:
            raise UserMistake("features.engine: spark needs pyspark; install requirements-spark.txt") from None

        # It notes each connection that it closes, also those that end after the log has.
        logging.getLogger("py4j").setLevel(logging.WARNING)
        builder = SparkSession.builder.appName("perennial")
        for name, value in SETTINGS.items():
            builder = builder.config(name, value)
        try:
            return (builder if self._master is None else builder.master(self._master)).getOrCreate()
        except PySparkException as error:
            raise Unavailable(f"Spark does not start ({error}); it needs Java 17") from None
