"""The DAGs' tasks: each takes references, calls one stage with its parts, and returns references.

Imports of stages stand inside the tasks: parsing a DAG file must not pay for what running a task needs.
"""
