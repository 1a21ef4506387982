# One image for chief, workers and viewer: `launch.py` with its locked requirements and the data
# of the published studies. `--build-arg GPU=1` brings the CUDA libraries for workers on GPUs.
#
#   docker build -t REGISTRY/tunefleet:1 .
#   docker build -t REGISTRY/tunefleet-gpu:1 --build-arg GPU=1 .

ARG PYTHON=python:3.11-slim-bookworm

# --- what is installed, in a stage whose tools and caches stay behind ------------------------
FROM ${PYTHON} AS build
ARG GPU=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY requirements.txt requirements-gpu.txt ./
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-compile --require-hashes -r "requirements${GPU:+-gpu}.txt" \
    # pip is for building; nothing is installed in a running container.
    && /opt/venv/bin/pip uninstall --yes setuptools pip
# Fashion-MNIST from Debian's own package, so that a search needs no way out of the cluster.
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends dataset-fashion-mnist \
    && rm -rf /var/lib/apt/lists/*

# --- what runs ---------------------------------------------------------------------------------
FROM ${PYTHON}
COPY --from=build /opt/venv /opt/venv
COPY --from=build /usr/share/datasets/fashion-mnist /usr/share/datasets/fashion-mnist
COPY launch.py /app/
COPY hpo /app/hpo
COPY cluster /app/cluster
COPY studies /app/studies
ENV PATH=/opt/venv/bin:$PATH \
    # The root file system is read-only: what is unpacked or cached goes where /tmp is mounted.
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /app
# A number, so that Kubernetes can see that it is not root.
USER 10001:10001
ENTRYPOINT ["python", "launch.py"]
CMD ["--help"]
