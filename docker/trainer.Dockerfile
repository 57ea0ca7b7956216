# syntax=docker/dockerfile:1
# Pin the base by its digest: --build-arg BASE=python@sha256:...
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /build
COPY requirements.lock docker/trainer.requirements.txt ./
RUN python -m venv /venv \
 && /venv/bin/pip install --no-cache-dir --no-compile --requirement trainer.requirements.txt --constraint requirements.lock \
 && /venv/bin/pip uninstall --yes pip setuptools

FROM ${BASE}
ARG COMMIT=unknown
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="Perennial trainer" \
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
COPY requirements.lock ./
COPY include ./include
# What the model's manifest says of its origin, where there is no repository.
RUN echo "${COMMIT}" > COMMIT
# The root file system is read-only at run time; what is written goes to the volumes.
ENV PATH=/venv/bin:$PATH PYTHONPATH=/srv/perennial PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 \
    HOME=/tmp PERENNIAL_HOME=/var/lib/perennial
USER 10001:10001
VOLUME ["/var/lib/perennial", "/tmp"]
# A training ends by itself; it is healthy while its program runs.
HEALTHCHECK --interval=30s CMD ["python", "-c", "import os; os.kill(1, 0)"]
ENTRYPOINT ["python", "-m", "include.entrypoints.training_pod"]
