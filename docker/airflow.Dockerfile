# syntax=docker/dockerfile:1
# Pin the base by its digest: --build-arg BASE=python@sha256:...
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /build
COPY requirements.lock requirements.txt ./
RUN python -m venv /venv \
 && /venv/bin/pip install --no-cache-dir --no-compile --requirement requirements.txt --constraint requirements.lock \
 && /venv/bin/pip uninstall --yes pip setuptools

FROM ${BASE}
ARG COMMIT=unknown
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="Perennial on Airflow" \
      org.opencontainers.image.revision="${COMMIT}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
# libgomp1 is LightGBM's; no compiler comes along.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends libgomp1 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --user-group --no-create-home --home-dir /nonexistent perennial \
 && install --directory --owner 10001 --group 10001 /var/lib/perennial
COPY --from=build /venv /venv
WORKDIR /srv/perennial
COPY requirements.lock airflow_settings.yaml ./
COPY dags ./dags
COPY plugins ./plugins
COPY include ./include
# What the model's manifest says of its origin, where there is no repository.
RUN echo "${COMMIT}" > COMMIT
# The root file system is read-only at run time; what is written goes to the volumes.
ENV PATH=/venv/bin:$PATH PYTHONPATH=/srv/perennial PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    HOME=/tmp PERENNIAL_HOME=/var/lib/perennial \
    AIRFLOW_HOME=/var/lib/perennial/airflow AIRFLOW__CORE__DAGS_FOLDER=/srv/perennial/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/srv/perennial/plugins AIRFLOW__CORE__LOAD_EXAMPLES=False \
    MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=1 GX_ANALYTICS_ENABLED=false
USER 10001:10001
VOLUME ["/var/lib/perennial", "/tmp"]
# Of the api-server, the part that listens; the others are watched by its health page.
HEALTHCHECK --interval=10s --timeout=5s --start-period=90s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8080/api/v2/version', timeout=4)"]
ENTRYPOINT ["airflow"]
CMD ["api-server"]
