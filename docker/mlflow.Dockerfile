# MLflow's server for compose.yaml: the l2i image, so that server and clients are one version of
# MLflow, with a driver for PostgreSQL.
ARG L2I_IMAGE=l2i:cpu
FROM ${L2I_IMAGE}
USER root
COPY mlflow.lock /tmp/
# The base image's pip, since the environment has none.
RUN --mount=type=cache,target=/tmp/pip \
    pip --python /opt/l2i/.venv/bin/python --cache-dir /tmp/pip install -q --no-deps \
        --require-hashes -r /tmp/mlflow.lock && rm /tmp/mlflow.lock
USER 1000:1000
ENTRYPOINT ["mlflow", "server"]
CMD []
